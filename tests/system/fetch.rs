//! A transfer under way.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use proto::Endpoint;
use shoal::{FetchError, FetchEvent, Fetched, LeaveReason, Node, Started, StreamExt};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A transfer to start: what to fetch, which trackers to ask, and where it goes.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) trackers: Vec<Endpoint>,
    pub(crate) directory: PathBuf,
    fetch: shoal::Fetch,
}

impl Plan {
    pub(crate) fn new(fetch: shoal::Fetch, trackers: Vec<Endpoint>, directory: PathBuf) -> Plan {
        Plan { trackers, fetch: fetch.directory(&directory), directory }
    }

    /// Asks these trackers only.
    pub(crate) fn asking(self, trackers: &[Endpoint]) -> Plan {
        Plan { trackers: trackers.to_vec(), ..self }
    }

    /// Sets an option of the transfer.
    pub(crate) fn with(self, option: impl FnOnce(shoal::Fetch) -> shoal::Fetch) -> Plan {
        Plan { fetch: option(self.fetch), ..self }
    }

    /// Saves the share in another directory.
    pub(crate) fn into_directory(self, directory: &Path) -> Plan {
        Plan::new(self.fetch, self.trackers, directory.to_owned())
    }
}

/// A transfer in a task of its own, and all that it has reported.
///
/// Waiting for an event looks at the past too, so nothing depends on when a test begins to wait.
pub(crate) struct Fetch {
    events: watch::Receiver<Vec<FetchEvent>>,
    stop: CancellationToken,
    task: JoinHandle<Result<Fetched, FetchError>>,
}

impl Fetch {
    pub(crate) fn start(node: &Node, plan: Plan, tasks: &TaskTracker, stop: &CancellationToken) -> Fetch {
        let (seen, events) = watch::channel(Vec::new());
        let stop = stop.child_token();
        let stopped = stop.clone();
        let mut handle = node.fetch(plan.fetch);
        let task = tasks.spawn(async move {
            loop {
                tokio::select! {
                    event = handle.events().next() => match event {
                        Some(event) => seen.send_modify(|events: &mut Vec<_>| events.push(event)),
                        None => {
                            assert_eq!(handle.events().missed(), 0, "events that a test may wait for");
                            break handle.finished().await;
                        }
                    },
                    () = stopped.cancelled() => break handle.stop().await,
                }
            }
        });
        Fetch { events, stop, task }
    }

    /// Stops the transfer.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the transfer ends.
    pub(crate) async fn outcome(&mut self) -> Result<Fetched, FetchError> {
        (&mut self.task).await.expect("the leecher panicked")
    }

    /// The result of a transfer that has to succeed.
    pub(crate) async fn fetched(&mut self) -> Fetched {
        self.outcome().await.unwrap_or_else(|error| panic!("{error}; {:#?}", self.story()))
    }

    /// The first result of `find` that is not `None`, over all events.
    pub(crate) async fn event<T>(&mut self, find: impl Fn(&FetchEvent) -> Option<T>) -> T {
        let seen = self.events.wait_for(|events| events.iter().any(|event| find(event).is_some())).await;
        let found = seen.ok().and_then(|events| events.iter().find_map(&find));
        found.unwrap_or_else(|| panic!("it ended without the event; {:#?}", self.story()))
    }

    /// Waits until it reports that it waits for something with this text.
    pub(crate) async fn waits_for(&mut self, what: &str) {
        self.event(|event| match event {
            FetchEvent::Waiting(waiting) => waiting.to_string().contains(what).then_some(()),
            _ => None,
        })
        .await;
    }

    /// Waits until `reached` is true for all events so far.
    pub(crate) async fn events_until(&mut self, reached: impl Fn(&[FetchEvent]) -> bool) {
        let seen = self.events.wait_for(|events| reached(events)).await.is_ok();
        assert!(seen, "it ended before; {:#?}", self.story());
    }

    /// Waits until the output is ready.
    pub(crate) async fn started(&mut self) -> Started {
        self.event(|event| match event {
            FetchEvent::Started(started) => Some(started.clone()),
            _ => None,
        })
        .await
    }

    /// Waits until the share has its name.
    pub(crate) async fn finished(&mut self) -> Fetched {
        self.event(|event| match event {
            FetchEvent::Finished(fetched) => Some(fetched.clone()),
            _ => None,
        })
        .await
    }

    /// Waits until this number of bytes is proved and written.
    pub(crate) async fn done(&mut self, bytes: u64) {
        self.event(|event| match event {
            FetchEvent::Progress(progress) => (progress.done >= bytes).then_some(()),
            _ => None,
        })
        .await;
    }

    /// Waits for the next progress report, of which there are several a second; false if the transfer has ended.
    pub(crate) async fn goes_on(&mut self) -> bool {
        let count = |events: &[FetchEvent]| {
            events.iter().filter(|event| matches!(event, FetchEvent::Progress(_))).count()
        };
        let before = count(&self.events.borrow());
        self.events.wait_for(|events| count(events) > before).await.is_ok()
    }

    /// Waits until it is connected to `peer`.
    pub(crate) async fn joined(&mut self, peer: SocketAddr) {
        self.event(|event| match event {
            FetchEvent::PeerJoined { address, .. } => (*address == peer).then_some(()),
            _ => None,
        })
        .await;
    }

    /// Waits until the connection to `peer` is over, and returns the reason.
    pub(crate) async fn left(&mut self, peer: SocketAddr) -> LeaveReason {
        self.event(|event| match event {
            FetchEvent::PeerLeft { address, reason } => (*address == peer).then(|| reason.clone()),
            _ => None,
        })
        .await
    }

    /// Waits until a connection to `peer` is over for this reason, even if that is found out afterwards.
    pub(crate) async fn left_for(&mut self, peer: SocketAddr, why: LeaveReason) {
        self.event(|event| match event {
            FetchEvent::PeerLeft { address, reason } => (*address == peer && *reason == why).then_some(()),
            _ => None,
        })
        .await;
    }

    /// Whether any event is about a connection to `peer`.
    pub(crate) fn knows(&self, peer: SocketAddr) -> bool {
        self.events.borrow().iter().any(|event| match event {
            FetchEvent::PeerJoined { address, .. } | FetchEvent::PeerLeft { address, .. } => *address == peer,
            _ => false,
        })
    }

    /// All events but progress.
    pub(crate) fn story(&self) -> Vec<FetchEvent> {
        let events = self.events.borrow();
        events.iter().filter(|event| !matches!(event, FetchEvent::Progress(_))).cloned().collect()
    }
}

impl Drop for Fetch {
    /// If a test fails, its output shows what the transfer was doing.
    fn drop(&mut self) {
        if !self.task.is_finished() {
            eprintln!("the transfer was under way: {:#?}", self.story());
        }
    }
}

/// The part of a transfer that did not succeed.
pub(crate) fn part_of(started: &Started) -> PathBuf {
    store::Output::at(started.output.clone()).part_path()
}
