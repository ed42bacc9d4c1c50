//! The seeder: serves all its shares on one port, and registers each with each tracker.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
};

use listen::ListenError;
use peer::{
    acceptor::{Acceptor, Route},
    announcer::{Own, announce},
    rate_limit::RateLimit,
    server::{ServeEvent, Server},
    tracker_client::{TrackerClient, TrackerError},
    upload_hub::UploadHub,
};
use proto::{
    Endpoint, InfoHash, Label, Zone,
    tracker::message::{Announced, Completion},
};
use store::{Content, OpenChunkError};
use swarm::uploads::DEFAULT_MAX_ASKERS;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The settings of a seeder.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on; all addresses if `None`.
    pub bind: Option<IpAddr>,
    /// TCP port; 0 for any free port.
    pub port: u16,
    /// Trackers to register with.
    pub trackers: Vec<Endpoint>,
    /// Maximum number of peers served at the same time. Others are asked to retry later.
    pub max_peers: usize,
    /// Maximum upload rate, to all peers together.
    pub upload_limit: RateLimit,
    /// What people call this host. By default nothing.
    pub label: Label,
    /// Where in a network this host is. By default nowhere.
    pub zone: Zone,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            bind: None,
            port: proto::peer::DEFAULT_PORT,
            trackers: Vec::new(),
            max_peers: DEFAULT_MAX_ASKERS,
            upload_limit: RateLimit::unlimited(),
            label: Label::NONE,
            zone: Zone::NONE,
        }
    }
}

/// An event of a running seeder.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A tracker accepted an announce.
    Announced {
        /// The tracker.
        tracker: Endpoint,
        /// The share.
        infohash: InfoHash,
        /// The tracker's answer.
        announced: Announced,
    },
    /// A tracker did not accept an announce. The seeder tries again.
    NotAnnounced {
        /// The share.
        infohash: InfoHash,
        /// Why the tracker did not accept it.
        error: TrackerError,
    },
    /// A file of a share changed, is gone or cannot be read. The share is no longer announced. Its other files are still
    /// served to peers that ask.
    Withdrawn {
        /// The share.
        infohash: InfoHash,
        /// What is wrong.
        error: OpenChunkError,
    },
    /// A peer may ask for chunks of a share.
    PeerJoined {
        /// The share.
        infohash: InfoHash,
        /// Where the peer is.
        address: SocketAddr,
    },
    /// The connection with such a peer has ended.
    PeerLeft {
        /// The share.
        infohash: InfoHash,
        /// Where the peer is.
        address: SocketAddr,
        /// Bytes of chunks that were sent to it.
        sent: u64,
    },
}

impl Event {
    /// The share that it is about.
    pub fn infohash(&self) -> &InfoHash {
        match self {
            Event::Announced { infohash, .. }
            | Event::NotAnnounced { infohash, .. }
            | Event::Withdrawn { infohash, .. }
            | Event::PeerJoined { infohash, .. }
            | Event::PeerLeft { infohash, .. } => infohash,
        }
    }
}

/// The share already has a route at this port: it is being served or fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is already being shared or fetched here")]
pub struct AlreadyRouted(pub InfoHash);

/// A seeder that has its port. A clone is the same seeder.
#[derive(Debug, Clone)]
pub struct Seeder {
    acceptor: Acceptor,
    /// Trackers are added and never removed.
    trackers: Arc<watch::Sender<Vec<TrackerClient>>>,
    server: Server,
    label: Label,
}

impl Seeder {
    /// Takes the port. The seeder's tasks are tracked by `tasks` and end when the seeder is dropped.
    ///
    /// # Panics
    /// Panics outside a Tokio runtime.
    pub fn bind(config: Config, tasks: &TaskTracker) -> Result<Seeder, ListenError> {
        let acceptor = Acceptor::bind(config.bind, config.port, tasks)?;
        let tracker = |endpoint| TrackerClient::spawn(endpoint, config.bind, tasks);
        let trackers = config.trackers.into_iter().map(tracker).collect();
        let server = Server::new(config.max_peers, config.upload_limit).in_zone(config.zone);
        Ok(Seeder::new(acceptor, trackers, server, config.label))
    }

    /// A seeder on a port that transfers may use too.
    pub fn new(acceptor: Acceptor, trackers: Vec<TrackerClient>, server: Server, label: Label) -> Seeder {
        Seeder { acceptor, trackers: Arc::new(watch::Sender::new(trackers)), server, label }
    }

    /// Registers all shares, those that run too, with another tracker.
    pub fn add_tracker(&self, tracker: TrackerClient) {
        self.trackers.send_modify(|trackers| trackers.push(tracker));
    }

    /// The uploads of a share, while [`Sharing::run`] serves it.
    pub fn uploads(&self, infohash: &InfoHash) -> Option<Arc<UploadHub>> {
        self.server.uploads(infohash)
    }

    /// Maximum number of peers served at the same time.
    pub fn max_peers(&self) -> usize {
        self.server.max_peers()
    }

    /// Changes the maximum number of peers. Those that are served already stay.
    pub fn set_max_peers(&self, max_peers: usize) {
        self.server.set_max_peers(max_peers);
    }

    /// Maximum upload rate. [`RateLimit::set`] changes it for all transfers, those that run too.
    pub fn upload_limit(&self) -> &RateLimit {
        self.server.limit()
    }

    /// Where the seeder listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.acceptor.local_addr()
    }

    /// Starts to share `content`. Peers that connect wait until [`Sharing::run`] is called.
    pub fn share(&self, content: Arc<dyn Content>) -> Result<Sharing, AlreadyRouted> {
        let infohash = content.metainfo().infohash();
        let route = self.acceptor.route(infohash).ok_or(AlreadyRouted(infohash))?;
        let (trackers, server) = (self.trackers.subscribe(), self.server.clone());
        Ok(Sharing { route, content, trackers, server, label: self.label })
    }
}

/// A share that is ready to be served.
#[derive(Debug)]
pub struct Sharing {
    route: Route,
    content: Arc<dyn Content>,
    trackers: watch::Receiver<Vec<TrackerClient>>,
    server: Server,
    label: Label,
}

impl Sharing {
    /// Serves the share and keeps it registered until `shutdown`, then ends its registrations and connections. Returns the
    /// number of bytes of chunks that were sent.
    pub async fn run(
        self,
        on_event: impl Fn(Event) + Clone + Send + Sync + 'static,
        shutdown: CancellationToken,
    ) -> u64 {
        let Sharing { route, content, trackers, server, label } = self;
        let infohash = content.metainfo().infohash();
        // Ends the registrations only.
        let withdrawn = shutdown.child_token();
        let registering = register(
            Arc::clone(&content),
            (route.port(), label, server.zone()),
            trackers,
            on_event.clone(),
            withdrawn.clone(),
        );
        let on_served = move |event| match event {
            ServeEvent::Joined(address) => on_event(Event::PeerJoined { infohash, address }),
            ServeEvent::Left { address, sent } => on_event(Event::PeerLeft { infohash, address, sent }),
            ServeEvent::Fault(error) => {
                withdrawn.cancel();
                on_event(Event::Withdrawn { infohash, error });
            }
            _ => {}
        };
        let (sent, ()) = tokio::join!(server.serve(route, content, on_served, shutdown), registering);
        sent
    }
}

/// Keeps a share registered with all trackers, and with those that are added, until `withdrawn`.
async fn register(
    content: Arc<dyn Content>,
    (port, label, zone): (u16, Label, Zone),
    mut trackers: watch::Receiver<Vec<TrackerClient>>,
    on_event: impl Fn(Event) + Clone + Send + Sync + 'static,
    withdrawn: CancellationToken,
) {
    let Some(port) = NonZeroU16::new(port) else { return };
    let own = Own { port, label, zone, fetches: false };
    let infohash = content.metainfo().infohash();
    let mut announcers = JoinSet::new();
    loop {
        let new = trackers.borrow_and_update()[announcers.len()..].to_vec();
        for tracker in new {
            let (content, on_event, withdrawn) = (Arc::clone(&content), on_event.clone(), withdrawn.clone());
            announcers.spawn(async move {
                let endpoint = tracker.endpoint().clone();
                let on_result = |result| {
                    on_event(match result {
                        Ok(announced) => Event::Announced { tracker: endpoint.clone(), infohash, announced },
                        Err(error) => Event::NotAnnounced { infohash, error },
                    });
                };
                let progress = watch::channel(Completion::COMPLETE).1;
                announce(tracker, own, content.metainfo(), progress, withdrawn, on_result).await;
            });
        }
        tokio::select! {
            changed = trackers.changed() => if changed.is_err() { break },
            () = withdrawn.cancelled() => break,
        }
    }
    announcers.join_all().await;
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, ops::ControlFlow, time::Duration};

    use store::{Scan, ScanRules};
    use tokio::{sync::mpsc, time::timeout};
    use tracker::Tracker;

    use super::*;

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_share_that_runs_is_registered_with_each_tracker_that_is_added() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "content").unwrap();
        let rules = ScanRules::default();
        let scan = Scan::new(&dir.path().join("file"), None, &rules).unwrap();
        let shared = scan.hash(None, &|_| ControlFlow::Continue(())).unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let localhost = Some(Ipv4Addr::LOCALHOST.into());
        let config = Config { bind: localhost, port: 0, ..Config::default() };
        let seeder = Seeder::bind(config, &tasks).unwrap();
        let (sender, mut events) = mpsc::unbounded_channel();
        let on_event = move |event| _ = sender.send(event);
        let running = tokio::spawn(seeder.share(Arc::new(shared)).unwrap().run(on_event, stop.clone()));
        let mut trackers = JoinSet::new();
        for _ in 0..2 {
            let config = tracker::Config { bind: localhost, port: 0, ..tracker::Config::default() };
            let tracker = Tracker::bind(config).await.unwrap();
            let endpoint = Endpoint::from(tracker.local_addr());
            trackers.spawn(tracker.run(stop.clone()));
            seeder.add_tracker(TrackerClient::spawn(endpoint.clone(), None, &tasks));
            match timeout(PATIENCE, events.recv()).await.expect("an event") {
                Some(Event::Announced { tracker, .. }) => assert_eq!(tracker, endpoint),
                event => panic!("{event:?}"),
            }
        }
        drop(seeder);
        stop.cancel();
        timeout(PATIENCE, running).await.expect("the share ends").unwrap();
        trackers.join_all().await.into_iter().for_each(|end| end.unwrap());
        tasks.close();
        timeout(PATIENCE, tasks.wait()).await.expect("a task is left");
    }
}
