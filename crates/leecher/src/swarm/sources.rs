//! Where addresses come from: trackers, and names of peers. What they said tells whether there is anybody to ask.

use std::{collections::BTreeMap, time::Instant};

use super::{SwarmConfig, peers::Peers};
use crate::{
    error::FetchError,
    target::{Discovery, SourceId},
};

/// What the sources of addresses said, each the last time.
#[derive(Debug)]
pub(super) struct Sources {
    asked: usize,
    said: BTreeMap<SourceId, Said>,
}

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Peers,
    /// It does not know the share, and does it know everybody?
    Unknown {
        settled: bool,
    },
    Trouble(String),
    NoSuchPeer(String),
}

impl Sources {
    /// So many sources were asked.
    pub(super) fn new(asked: usize) -> Sources {
        Sources { asked, said: BTreeMap::new() }
    }

    /// A source answered. Trackers do so again and again.
    pub(super) fn heard(&mut self, id: SourceId, discovery: Discovery, peers: &mut Peers, now: Instant) {
        let said = match discovery {
            Discovery::Peers(addresses) => {
                for address in addresses {
                    if peers.book.discover(address, now) {
                        tracing::debug!(%address, "found a peer");
                    }
                }
                Said::Peers
            }
            Discovery::Named(addresses) => {
                addresses.into_iter().for_each(|address| _ = peers.book.discover_named(address, now));
                Said::Peers
            }
            Discovery::Unknown { settled } => Said::Unknown { settled },
            Discovery::Trouble(trouble) => {
                tracing::debug!("{trouble}");
                Said::Trouble(trouble)
            }
            Discovery::NoSuchPeer(trouble) => Said::NoSuchPeer(trouble),
        };
        self.said.insert(id, said);
    }

    /// Why a tracker cannot say anything, if there is one.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.said.values().find_map(|said| match said {
            Said::Trouble(trouble) => Some(trouble.as_str()),
            _ => None,
        })
    }

    fn no_such_peer(&self) -> Option<&str> {
        self.said.values().find_map(|said| match said {
            Said::NoSuchPeer(trouble) => Some(trouble.as_str()),
            _ => None,
        })
    }

    /// The reason to give up before anything began, if there is one: everybody was asked who has the share, and
    /// nobody ever will.
    pub(super) fn hopeless(&self, config: &SwarmConfig, peers: &Peers) -> Option<FetchError> {
        let all = |hopeless: fn(&Said) -> bool| {
            self.said.len() == self.asked
                && self.said.values().all(|said| *said == Said::Peers || hopeless(said))
        };
        // Trackers may name others yet.
        if config.trackers.is_empty() && all(|_| false) {
            if peers.book.is_all_banned() {
                return Some(FetchError::OnlyLiars);
            }
            if peers.book.is_empty() {
                return Some(FetchError::NoPeer {
                    known: 0,
                    last: "the one that was named is this leecher itself".to_owned(),
                });
            }
        }
        let unknown = all(|said| *said == Said::Unknown { settled: true });
        let trackers_silent =
            self.said.range(..SourceId(config.trackers.len())).all(|(_, s)| *s != Said::Peers);
        let nobody = peers.book.is_empty() || peers.all_without_share();
        (config.wait.is_zero() && unknown && trackers_silent && nobody)
            .then_some(FetchError::UnknownShare(config.infohash))
    }

    /// Why no peer described the share.
    pub(super) fn no_peer(&self, config: &SwarmConfig, peers: &Peers) -> FetchError {
        let known = peers.book.len();
        if peers.book.is_all_banned() {
            FetchError::OnlyLiars
        } else if peers.all_without_share() {
            FetchError::UnknownShare(config.infohash)
        } else if peers.all_full() {
            FetchError::AllFull { known }
        } else if known > 0 {
            FetchError::NoPeer { known, last: peers.last_trouble().to_owned() }
        } else if let Some(trouble) = self.no_such_peer() {
            FetchError::PeerName(trouble.to_owned())
        } else if let (Some(trouble), true) = (self.trouble(), self.nobody_answered()) {
            FetchError::NoTracker(trouble.to_owned())
        } else if self.nobody_answered() {
            let names: Vec<_> = config.trackers.iter().map(|t| t.endpoint().to_string()).collect();
            FetchError::NoTracker(format!("no answer from {}", names.join(", ")))
        } else {
            FetchError::UnknownShare(config.infohash)
        }
    }

    fn nobody_answered(&self) -> bool {
        !self.said.values().any(|said| matches!(said, Said::Peers | Said::Unknown { .. }))
    }

    /// What is waited for before the transfer can begin.
    pub(super) fn waited_for(&self, config: &SwarmConfig, peers: &Peers) -> String {
        let mut parts = Vec::new();
        if let Some(peers) = peers.waited_for() {
            parts.push(peers);
        } else if self.said.values().any(|said| matches!(said, Said::Unknown { .. })) {
            parts.push("No tracker knows the share yet".to_owned());
        } else if self.said.values().any(|said| *said == Said::Peers) {
            parts.push("Nobody has the share yet".to_owned());
        }
        parts.extend([self.trouble(), self.no_such_peer()].into_iter().flatten().map(str::to_owned));
        if parts.is_empty() {
            let names: Vec<_> = config.trackers.iter().map(|t| t.endpoint().to_string()).collect();
            parts.push(format!("Asking tracker {}", names.join(", ")));
        }
        format!("{} …", parts.join("; "))
    }
}
