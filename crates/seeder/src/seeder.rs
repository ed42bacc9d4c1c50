//! A seeder: one chunk server, and one registration for each share with each tracker.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
};

use listen::{ListenError, asked_address, listen_tcp};
use peer::{
    announcer::announce,
    rate_limit::RateLimit,
    server::{Server, Shares},
    tracker_client::{TrackerClient, TrackerError},
};
use proto::{
    Endpoint, InfoHash, PeerId,
    tracker::message::{Announced, Progress},
};
use store::{Content, OpenChunkError};
use swarm::uploads::DEFAULT_MAX_ASKERS;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How a seeder is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on; every address if `None`.
    pub bind: Option<IpAddr>,
    /// TCP port; 0 for any that is free.
    pub port: u16,
    /// Trackers to register with.
    pub trackers: Vec<Endpoint>,
    /// Most peers served at a time; others are told to come back.
    pub max_peers: usize,
    /// How fast to send chunks, to all peers together.
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

/// Something that a running seeder tells.
#[derive(Debug)]
pub enum Event {
    /// A tracker took an announce.
    Announced {
        /// The tracker.
        tracker: Endpoint,
        /// The share.
        infohash: InfoHash,
        /// What the tracker said.
        announced: Announced,
    },
    /// A tracker did not; it will be tried again.
    NotAnnounced {
        /// The share.
        infohash: InfoHash,
        /// Why.
        error: TrackerError,
    },
    /// A file of a share changed, went away or cannot be read. What is left of the share is served to those who ask,
    /// but no tracker is told of it any more.
    Withdrawn {
        /// The share.
        infohash: InfoHash,
        /// What is wrong.
        error: OpenChunkError,
    },
}

/// A seeder that has its port and is ready to run.
#[derive(Debug)]
pub struct Seeder {
    config: Config,
    listener: TcpListener,
    local_addr: SocketAddr,
}

impl Seeder {
    /// Takes the port. Peers that connect from now on wait for [`Seeder::run`].
    pub async fn bind(config: Config) -> Result<Seeder, ListenError> {
        let other = |source| ListenError::Other { address: asked_address(config.bind, config.port), source };
        let listener = listen_tcp(config.bind, config.port)?;
        let listener = TcpListener::from_std(listener).map_err(other)?;
        let local_addr = listener.local_addr().map_err(other)?;
        Ok(Seeder { config, listener, local_addr })
    }

    /// Where the seeder listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves `shares` until `shutdown`, then ends the registrations and the connections. Returns the number
    /// of bytes of chunks that it sent.
    pub async fn run(
        self,
        shares: Vec<Arc<dyn Content>>,
        on_event: impl Fn(Event) + Clone + Send + Sync + 'static,
        shutdown: CancellationToken,
    ) -> u64 {
        let peer_id = PeerId::random(&mut rand::rng());
        let port = self.local_addr.port();
        let tasks = TaskTracker::new();
        // Ends the registrations of one share.
        let withdrawn: BTreeMap<_, _> =
            shares.iter().map(|content| (content.metainfo().infohash(), shutdown.child_token())).collect();
        for endpoint in &self.config.trackers {
            let tracker = TrackerClient::spawn(endpoint.clone(), self.config.bind, &tasks);
            for content in &shares {
                let Some(port) = NonZeroU16::new(port) else { continue };
                let infohash = content.metainfo().infohash();
                let (content, tracker, on_event, withdrawn) =
                    (Arc::clone(content), tracker.clone(), on_event.clone(), withdrawn[&infohash].clone());
                tasks.spawn(async move {
                    let endpoint = tracker.endpoint().clone();
                    let on_result = |result| {
                        on_event(match result {
                            Ok(announced) => {
                                Event::Announced { tracker: endpoint.clone(), infohash, announced }
                            }
                            Err(error) => Event::NotAnnounced { infohash, error },
                        });
                    };
                    let progress = watch::channel(Progress::COMPLETE).1;
                    announce(tracker, port, content.metainfo(), progress, withdrawn, on_result).await;
                });
            }
        }
        tasks.close();
        let shares: Shares =
            shares.into_iter().map(|content| (content.metainfo().infohash(), content)).collect();
        let withdrawn = Arc::new(withdrawn);
        let on_fault = move |infohash, error| {
            withdrawn[&infohash].cancel();
            on_event(Event::Withdrawn { infohash, error });
        };
        let server = Server::new(peer_id, port, shares, self.config.upload_limit, on_fault);
        tokio::join!(server.run(self.listener, self.config.max_peers, shutdown), tasks.wait());
        server.bytes_sent()
    }
}
