//! Looking for trackers in the local network, where the user names none.
//!
//! A transfer begins with the tracker on this host. If that does not answer within a second, others are looked for, for as long as the
//! transfer waits for a first answer. When some are found the transfer begins anew with those. It does not ask the silent one on this
//! host as well, because a lookup by name waits for each tracker to fail.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
};

use discovery::{FoundTracker, LOCAL_TIMEOUT, Search};
use leecher::{Config, FetchError, FetchEvent};
use peer::tracker_client::TrackerClient;
use proto::{Endpoint, tracker::DEFAULT_PORT};
use startup::{
    eprint_line,
    json::{Event, print_event},
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{cli::link_endpoints, report::Reporter};

/// How to look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// The address to ask the tracker on this host from.
    pub(crate) bind: Option<IpAddr>,
    pub(crate) report: Report,
}

/// How a tracker that is found is reported.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Report {
    Line,
    Json,
    Nothing,
}

/// Trackers that were found. It changes once at most.
pub(crate) type Found = watch::Receiver<Vec<Endpoint>>;

/// The tracker on this host.
pub(crate) fn local() -> Endpoint {
    Endpoint { host: "127.0.0.1".to_owned(), port: DEFAULT_PORT }
}

/// The tracker on this host, or those that a short look finds if it does not answer.
pub(crate) async fn local_or_found(look: Option<Look>, shutdown: &CancellationToken) -> Vec<Endpoint> {
    let Some(look) = look else { return vec![local()] };
    let tasks = TaskTracker::new();
    let looking = async {
        if local_answers(look, &tasks).await {
            return Vec::new();
        }
        Search::default().round().await
    };
    let found = shutdown.run_until_cancelled(looking).await.unwrap_or_default();
    tasks.close();
    tasks.wait().await;
    if found.is_empty() { vec![local()] } else { look.reported(found) }
}

/// Begins to look. The search ends when it has found trackers, or the set is shut down.
pub(crate) fn start(look: Option<Look>, tasks: &TaskTracker) -> (JoinSet<()>, Found) {
    let (sender, found) = watch::channel(Vec::new());
    let mut looking = JoinSet::new();
    if let Some(look) = look {
        let tasks = tasks.clone();
        looking.spawn(async move {
            if !local_answers(look, &tasks).await {
                let found = Search::default().next_round().await;
                sender.send_replace(look.reported(found));
            }
        });
    }
    (looking, found)
}

async fn local_answers(look: Look, tasks: &TaskTracker) -> bool {
    TrackerClient::spawn(local(), look.bind, tasks).answers(LOCAL_TIMEOUT).await
}

/// Receives the events of a transfer.
pub(crate) type OnEvent<'a> = &'a mut (dyn FnMut(FetchEvent) + Send);

/// A transfer: [`leecher::fetch()`] or [`leecher::describe()`].
pub(crate) type Transfer<T> = for<'a> fn(
    Config,
    OnEvent<'a>,
    CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<T, FetchError>> + Send + 'a>>;

/// Runs a transfer. Begins anew when trackers are found before the first answer.
pub(crate) async fn among<T>(
    transfer: Transfer<T>,
    config: Config,
    found: Option<Found>,
    report: &mut Reporter,
    stop: CancellationToken,
) -> Result<T, FetchError> {
    let Some(mut found) = found else {
        return transfer(config, &mut |event| report.event(event), stop).await;
    };
    let trackers = {
        let (attempt, answered) = (stop.child_token(), AtomicBool::new(false));
        let mut on_event = |event: FetchEvent| {
            if !matches!(event, FetchEvent::Waiting(_) | FetchEvent::TrackerTrouble(_)) {
                answered.store(true, Ordering::Relaxed);
            }
            report.event(event);
        };
        let mut fetching = transfer(config.clone(), &mut on_event, attempt.clone());
        let trackers = tokio::select! {
            fetched = &mut fetching => return fetched,
            Ok(()) = found.changed() => found.borrow().clone(),
        };
        if answered.load(Ordering::Relaxed) {
            return fetching.await;
        }
        attempt.cancel();
        match fetching.await {
            Err(FetchError::Interrupted { part: None }) if !stop.is_cancelled() => trackers,
            fetched => return fetched,
        }
    };
    report.rename_endpoints(link_endpoints(&config.target, &trackers, &config.peers));
    transfer(Config { trackers, ..config }, &mut |event| report.event(event), stop).await
}

impl Look {
    /// Reports trackers that were found. Returns where they are.
    fn reported(self, found: Vec<FoundTracker>) -> Vec<Endpoint> {
        for tracker in &found {
            match self.report {
                Report::Line => eprint_line(format_args!("Found a {tracker} by multicast DNS")),
                Report::Json => print_event(&Event::TrackerFound {
                    tracker: tracker.endpoint.to_string(),
                    name: &tracker.name,
                }),
                Report::Nothing => {}
            }
        }
        found.into_iter().map(|tracker| tracker.endpoint).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, UdpSocket},
        time::Duration,
    };

    use tokio::time::timeout;
    use tracker::Tracker;

    use super::*;
    use crate::{
        report::{Style, Subject},
        screen::Screen,
    };

    /// Its failure is that of the second tracker, so that was asked and the silent one was not waited for.
    #[tokio::test]
    async fn a_transfer_without_an_answer_begins_anew_with_the_trackers_that_are_found() {
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // After a start it waits for half the time in which a peer expires before it says that nobody has a share.
        let settings = tracker::Config {
            bind: Some(Ipv4Addr::LOCALHOST.into()),
            port: 0,
            heartbeat: Duration::from_secs(1),
            expire: Duration::from_secs(2),
            ..tracker::Config::default()
        };
        let tracker = Tracker::bind(settings).await.unwrap();
        let endpoint = Endpoint::from(tracker.local_addr());
        let stop = CancellationToken::new();
        let running = tokio::spawn(tracker.run(stop.clone()));
        let mut config = Config::new("no such share".parse().unwrap());
        config.trackers.push(silent.local_addr().unwrap().into());
        let mut report = Reporter::new(
            Style::Quiet,
            Subject::Only,
            &Screen::default(),
            (Vec::new(), Vec::new()),
            false,
            None,
        );
        let (sender, found) = watch::channel(Vec::new());
        sender.send_replace(vec![endpoint]);
        let fetch: Transfer<_> = |config, on_event, stop| Box::pin(leecher::fetch(config, on_event, stop));
        let fetching = among(fetch, config, Some(found), &mut report, stop.clone());
        let error = timeout(Duration::from_secs(60), fetching).await.expect("an end").unwrap_err();
        assert!(matches!(error, FetchError::UnknownName(_)), "{error:?}");
        stop.cancel();
        running.await.unwrap().unwrap();
    }
}
