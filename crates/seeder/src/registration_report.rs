//! What the program prints about registrations: one line for each share, and one for each outage of a tracker.

use std::collections::{HashMap, HashSet};

use crate::Event;
use peer::tracker_client::TrackerError;
use proto::{
    Endpoint, InfoHash, ShareName,
    tracker::{ErrorCode, Limit, client::CallError},
};
use store::OpenChunkError;

/// The state of all registrations, and what was already reported about them.
pub(crate) struct RegistrationReport {
    names: HashMap<InfoHash, ShareName>,
    registered: HashSet<(InfoHash, Endpoint)>,
    /// Trackers that do not answer.
    silent: HashSet<Endpoint>,
    /// Limits that trackers have reached. A limit on the peers of one share concerns that share only.
    full: HashSet<(Endpoint, Limit, Option<InfoHash>)>,
    /// Shares that trackers do not allow.
    not_allowed: HashSet<(Endpoint, InfoHash)>,
}

/// Something to report.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    Good(String),
    Bad(String),
}

impl RegistrationReport {
    /// A report about these shares.
    pub(crate) fn new(names: HashMap<InfoHash, ShareName>) -> RegistrationReport {
        RegistrationReport {
            names,
            registered: HashSet::new(),
            silent: HashSet::new(),
            full: HashSet::new(),
            not_allowed: HashSet::new(),
        }
    }

    /// Whether a tracker has answered, or was given up for now.
    pub(crate) fn has_heard_of(&self, tracker: &Endpoint) -> bool {
        self.silent.contains(tracker)
            || self.registered.iter().any(|(_, known)| known == tracker)
            || self.full.iter().any(|(known, ..)| known == tracker)
            || self.not_allowed.iter().any(|(known, _)| known == tracker)
    }

    /// This is shared from now on too.
    pub(crate) fn add(&mut self, infohash: InfoHash, name: ShareName) {
        self.names.insert(infohash, name);
    }

    /// This is no longer shared. What is still reported of it means nothing.
    pub(crate) fn remove(&mut self, infohash: &InfoHash) {
        self.names.remove(infohash);
        self.registered.retain(|(registered, _)| registered != infohash);
        self.full.retain(|(.., share)| share.as_ref() != Some(infohash));
        self.not_allowed.retain(|(_, share)| share != infohash);
    }

    /// The name of a share; empty if it is gone.
    pub(crate) fn name(&self, infohash: &InfoHash) -> String {
        self.names.get(infohash).map(ToString::to_string).unwrap_or_default()
    }

    /// The line to print for an event, unless it has nothing new.
    pub(crate) fn news(&mut self, event: &Event) -> Option<News> {
        if !self.names.contains_key(event.infohash()) {
            return None;
        }
        match event {
            Event::Announced { tracker, infohash, .. } => {
                let answers_again = self.silent.remove(tracker);
                if self.registered.insert((*infohash, tracker.clone())) {
                    self.full.retain(|(full, ..)| full != tracker);
                    self.not_allowed.remove(&(tracker.clone(), *infohash));
                    let name = &self.names[infohash];
                    return Some(News::Good(format!("Registered '{name}' with tracker {tracker}")));
                }
                answers_again.then(|| News::Good(format!("Tracker {tracker} answers again")))
            }
            Event::NotAnnounced { infohash, error } => self.failure(*infohash, error).map(News::Bad),
            Event::Withdrawn { infohash, error } => Some(News::Bad(format!(
                "'{}' is no longer announced: {}; start the seeder again to share what is there now",
                self.names[infohash],
                reason(error)
            ))),
            Event::PeerJoined { .. } | Event::PeerLeft { .. } => None,
        }
    }

    fn failure(&mut self, infohash: InfoHash, error: &TrackerError) -> Option<String> {
        let tracker = error.endpoint().clone();
        match error {
            TrackerError::Stopping(_) => None,
            TrackerError::Call { error: CallError::Refused(code), .. } => {
                self.silent.remove(&tracker);
                self.registered.remove(&(infohash, tracker.clone()));
                let is_new = match code {
                    ErrorCode::Full(limit) => {
                        let share = (*limit == Limit::Share).then_some(infohash);
                        self.full.insert((tracker, *limit, share))
                    }
                    ErrorCode::NotAllowed => self.not_allowed.insert((tracker, infohash)),
                    // The next announce uses another peer id or token, or comes later.
                    ErrorCode::NotYours
                    | ErrorCode::TokenRefused
                    | ErrorCode::UnknownShare { .. }
                    | ErrorCode::SlowDown { .. } => false,
                };
                is_new
                    .then(|| format!("'{}' is not registered: {error}; trying again", self.names[&infohash]))
            }
            _ => {
                if !self.silent.insert(tracker.clone()) {
                    return None;
                }
                if self.registered.iter().any(|(_, registered)| *registered == tracker) {
                    return Some(format!(
                        "{error}; trying again. The tracker forgets this seeder's shares if this lasts longer than \
                         about 90 s"
                    ));
                }
                let what = match self.names.len() {
                    1 => format!("'{}' is not registered", self.names[&infohash]),
                    _ => "no share is registered".to_owned(),
                };
                Some(format!(
                    "{what}: {error}; trying again (leechers can still reach this seeder with --peer)"
                ))
            }
        }
    }
}

/// Why a file cannot be served, with the system's error.
fn reason(error: &OpenChunkError) -> String {
    match error {
        OpenChunkError::Path(path) => format!("{path}: {}", path.source),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use proto::tracker::Announced;

    use super::*;

    fn infohash(share: u8) -> InfoHash {
        InfoHash([share; 32])
    }

    fn tracker() -> Endpoint {
        "127.0.0.1:6020".parse().unwrap()
    }

    struct Bench(RegistrationReport);

    impl Bench {
        fn new(shares: u8) -> Bench {
            let name = |share| (infohash(share), ShareName::new(&format!("share {share}")).unwrap());
            Bench(RegistrationReport::new((0..shares).map(name).collect()))
        }

        fn announced(&mut self, share: u8) -> Option<News> {
            let announced = Announced { interval_s: 30, seeders: 1, leechers: 0, completed: 0 };
            self.0.news(&Event::Announced { tracker: tracker(), infohash: infohash(share), announced })
        }

        fn failed(&mut self, share: u8, source: CallError) -> Option<News> {
            let error = TrackerError::Call { endpoint: tracker(), error: source };
            self.0.news(&Event::NotAnnounced { infohash: infohash(share), error })
        }

        fn full(&mut self, share: u8, limit: Limit) -> Option<News> {
            self.failed(share, CallError::Refused(ErrorCode::Full(limit)))
        }
    }

    fn bad(news: Option<News>) -> String {
        match news {
            Some(News::Bad(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_outage_is_one_line_and_does_not_deny_registrations_that_hold() {
        let mut bench = Bench::new(3);
        for share in 0..3 {
            let registered = format!("Registered 'share {share}' with tracker 127.0.0.1:6020");
            assert_eq!(bench.announced(share), Some(News::Good(registered)));
        }
        let outage = bad(bench.failed(0, CallError::Unanswered));
        assert!(outage.contains("127.0.0.1:6020") && !outage.contains("not registered"), "{outage}");
        for share in [1, 2, 0, 1, 2] {
            assert_eq!(bench.failed(share, CallError::Unanswered), None);
        }
        let again = "Tracker 127.0.0.1:6020 answers again".to_owned();
        assert_eq!(bench.announced(1), Some(News::Good(again)));
        assert_eq!([bench.announced(0), bench.announced(2)], [None, None]);
        bad(bench.failed(2, CallError::Unanswered));
    }

    #[test]
    fn a_tracker_that_never_answered_is_one_line() {
        let mut bench = Bench::new(1);
        let line = bad(bench.failed(0, CallError::Unanswered));
        assert!(line.starts_with("'share 0' is not registered: tracker 127.0.0.1:6020"), "{line}");
        let mut bench = Bench::new(2);
        let source = Arc::new(io::Error::from(io::ErrorKind::NotFound));
        let error = TrackerError::Unreachable { endpoint: tracker(), error: source };
        let line = bad(bench.0.news(&Event::NotAnnounced { infohash: infohash(1), error }));
        assert!(line.starts_with("no share is registered: tracker 127.0.0.1:6020"), "{line}");
        assert_eq!(bench.failed(0, CallError::Unanswered), None);
    }

    #[test]
    fn a_share_that_is_not_allowed_is_one_line_until_it_is_registered() {
        let mut bench = Bench::new(2);
        let refused =
            |bench: &mut Bench, share| bench.failed(share, CallError::Refused(ErrorCode::NotAllowed));
        let line = bad(refused(&mut bench, 0));
        assert!(line.contains("'share 0' is not registered") && line.contains("does not allow"), "{line}");
        assert_eq!(refused(&mut bench, 0), None);
        bad(refused(&mut bench, 1));
        assert!(matches!(bench.announced(0), Some(News::Good(_))));
        assert_eq!(refused(&mut bench, 1), None);
        bad(refused(&mut bench, 0));
    }

    #[test]
    fn a_full_tracker_is_one_line_and_a_full_share_one_each() {
        let mut bench = Bench::new(3);
        let line = bad(bench.full(0, Limit::Address));
        assert!(line.contains("'share 0' is not registered") && line.contains("this address"), "{line}");
        assert_eq!([bench.full(1, Limit::Address), bench.full(0, Limit::Address)], [None, None]);
        bad(bench.full(1, Limit::Share));
        bad(bench.full(2, Limit::Share));
        assert_eq!(bench.full(2, Limit::Share), None);
        assert!(matches!(bench.announced(0), Some(News::Good(_))));
        bad(bench.full(1, Limit::Address));
    }
}
