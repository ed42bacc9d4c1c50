//! The seeder: serves all its shares on one port, and registers each with each tracker.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
};

use listen::ListenError;
use peer::{
    acceptor::{Acceptor, Route},
    announcer::announce,
    rate_limit::RateLimit,
    server::Server,
    tracker_client::{TrackerClient, TrackerError},
};
use proto::{
    Endpoint, InfoHash,
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
}

impl Default for Config {
    fn default() -> Config {
        Config {
            bind: None,
            port: proto::peer::DEFAULT_PORT,
            trackers: Vec::new(),
            max_peers: DEFAULT_MAX_ASKERS,
            upload_limit: RateLimit::unlimited(),
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
}

/// The share already has a route at this port: it is being served or fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is already being shared or fetched here")]
pub struct AlreadyRouted(pub InfoHash);

/// A seeder that has its port. A clone is the same seeder.
#[derive(Debug, Clone)]
pub struct Seeder {
    acceptor: Acceptor,
    trackers: Vec<TrackerClient>,
    server: Server,
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
        Ok(Seeder::new(acceptor, trackers, Server::new(config.max_peers, config.upload_limit)))
    }

    /// A seeder on a port that transfers may use too.
    pub fn new(acceptor: Acceptor, trackers: Vec<TrackerClient>, server: Server) -> Seeder {
        Seeder { acceptor, trackers, server }
    }

    /// Where the seeder listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.acceptor.local_addr()
    }

    /// Starts to share `content`. Peers that connect wait until [`Sharing::run`] is called.
    pub fn share(&self, content: Arc<dyn Content>) -> Result<Sharing, AlreadyRouted> {
        let infohash = content.metainfo().infohash();
        let route = self.acceptor.route(infohash).ok_or(AlreadyRouted(infohash))?;
        Ok(Sharing { route, content, trackers: self.trackers.clone(), server: self.server.clone() })
    }
}

/// A share that is ready to be served.
#[derive(Debug)]
pub struct Sharing {
    route: Route,
    content: Arc<dyn Content>,
    trackers: Vec<TrackerClient>,
    server: Server,
}

impl Sharing {
    /// Serves the share and keeps it registered until `shutdown`, then ends its registrations and connections. Returns the
    /// number of bytes of chunks that were sent.
    pub async fn run(
        self,
        on_event: impl Fn(Event) + Clone + Send + Sync + 'static,
        shutdown: CancellationToken,
    ) -> u64 {
        let Sharing { route, content, trackers, server } = self;
        let infohash = content.metainfo().infohash();
        // Ends the registrations only.
        let withdrawn = shutdown.child_token();
        let mut announcers = JoinSet::new();
        for tracker in trackers {
            let Some(port) = NonZeroU16::new(route.port()) else { continue };
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
                announce(tracker, port, content.metainfo(), progress, withdrawn, on_result).await;
            });
        }
        let on_fault = move |error| {
            withdrawn.cancel();
            on_event(Event::Withdrawn { infohash, error });
        };
        let (sent, _) = tokio::join!(server.serve(route, content, on_fault, shutdown), announcers.join_all());
        sent
    }
}
