//! Serves chunks of shares that are whole.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::Ordering},
    time::Instant,
};

use proto::{
    InfoHash, PeerId, Zone,
    peer::{GoodbyeReason, Hello, PeerMessage, Role},
};
use store::{Content, OpenChunkError};
use swarm::{NO_ROOM, uploads::DEFAULT_SLOTS};
use tokio::{
    task::JoinSet,
    time::{Duration, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    acceptor::Route,
    connection::{self, ConnectionError, Inbox},
    descriptors::{FOR_PLACES, FOR_WAITING, at_most},
    faults::{self, Faults},
    handshake::{HandshakeError, Incoming},
    places::{NoPlace, Place, Places},
    rate_limit::RateLimit,
    refusals::Refusals,
    sender::Serve,
    task::{connection_ended, task_output},
    upload_hub::UploadHub,
};

/// How long connections may take to end when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of peers that wait a moment for a place.
const MAX_WAITING: usize = 16;

/// Serves shares to peers. Clones share the places and the limit.
#[derive(Debug, Clone)]
pub struct Server {
    places: Places,
    limit: RateLimit,
    /// Where in a network this host is.
    zone: Zone,
    /// The shares that are being served.
    hubs: Arc<Mutex<BTreeMap<InfoHash, Arc<UploadHub>>>>,
}

/// An event of a share that is being served.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeEvent {
    /// A peer may ask for chunks.
    Joined(SocketAddr),
    /// The connection with such a peer has ended.
    Left {
        /// Where it is.
        address: SocketAddr,
        /// Bytes of chunks that were sent to it.
        sent: u64,
    },
    /// The first fault of a file.
    Fault(OpenChunkError),
}

type OnEvent = Arc<dyn Fn(ServeEvent) + Send + Sync>;

/// A share that is being served.
struct Served {
    peer_id: PeerId,
    listen_port: u16,
    zone: Zone,
    content: Arc<dyn Content>,
    uploads: Arc<UploadHub>,
    faults: Arc<Faults>,
    limit: RateLimit,
    on_event: OnEvent,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl Server {
    /// A server with places for `max_peers` peers, of all shares together, or for fewer if this process may open few files. It sends no
    /// faster than `limit`.
    pub fn new(max_peers: usize, limit: RateLimit) -> Server {
        Server {
            places: Places::new(at_most(max_peers, FOR_PLACES)),
            limit,
            zone: Zone::NONE,
            hubs: Arc::default(),
        }
    }

    /// This server, in a zone.
    #[must_use]
    pub fn in_zone(self, zone: Zone) -> Server {
        Server { zone, ..self }
    }

    /// Where in a network it is.
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// From now on there are places for `max_peers` peers, or for fewer if this process may open few files. A peer that has one keeps it.
    pub fn set_max_peers(&self, max_peers: usize) {
        self.places.set_most(at_most(max_peers, FOR_PLACES));
    }

    /// Number of places.
    pub fn max_peers(&self) -> usize {
        self.places.most()
    }

    /// The limit of all shares together. Changing it changes how fast they are sent.
    pub fn limit(&self) -> &RateLimit {
        &self.limit
    }

    /// The uploads of a share, while it is being served.
    pub fn uploads(&self, infohash: &InfoHash) -> Option<Arc<UploadHub>> {
        self.hubs().get(infohash).cloned()
    }

    fn hubs(&self) -> MutexGuard<'_, BTreeMap<InfoHash, Arc<UploadHub>>> {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves `content` to the peers of `route` until `shutdown`, and returns how many bytes of chunks it sent. `on_event`
    /// receives who comes and goes, and the first fault of a file.
    ///
    /// When it returns, no task is left and every connection is closed, after a goodbye if the peer received it within
    /// [`STOP_TIMEOUT`].
    pub async fn serve(
        &self,
        mut route: Route,
        content: Arc<dyn Content>,
        on_event: impl Fn(ServeEvent) + Send + Sync + 'static,
        shutdown: CancellationToken,
    ) -> u64 {
        let on_event: OnEvent = Arc::new(on_event);
        let on_fault = Arc::clone(&on_event);
        let space = content.metainfo().chunk_space();
        let served = Arc::new(Served {
            peer_id: PeerId::random(&mut rand::rng()),
            listen_port: route.port(),
            zone: self.zone,
            uploads: UploadHub::new(space.chunk_count(), space.chunk_len(), DEFAULT_SLOTS),
            faults: Faults::new(move |error| on_fault(ServeEvent::Fault(error))),
            limit: self.limit.clone(),
            on_event,
            content,
        });
        let infohash = served.content.metainfo().infohash();
        self.hubs().insert(infohash, Arc::clone(&served.uploads));
        let _hub = Listed { server: self, infohash };
        let (mut hub, mut watch, mut connections) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        let (mut refusals, mut waiting) = (Refusals::default(), JoinSet::new());
        let most_waiting = at_most(MAX_WAITING, FOR_WAITING);
        let uploads = Arc::clone(&served.uploads);
        hub.spawn(async move { uploads.run().await });
        let (content, faults) = (Arc::clone(&served.content), Arc::clone(&served.faults));
        watch.spawn(faults::watch(content, faults, shutdown.clone()));
        loop {
            let (incoming, has_waited) = tokio::select! {
                incoming = route.next() => (incoming, false),
                Some(waited) = waiting.join_next() => (task_output(waited), true),
                Some(ended) = connections.join_next() => {
                    connection_ended(ended);
                    continue;
                }
                // Without these two the share cannot be served.
                Some(ended) = hub.join_next() => {
                    task_output(ended);
                    continue;
                }
                Some(ended) = watch.join_next() => {
                    task_output(ended);
                    continue;
                }
                () = shutdown.cancelled() => break,
            };
            let place = match self.places.take(incoming.address.ip(), Instant::now()) {
                Ok(place) => place,
                Err(NoPlace::Before(wait)) if !has_waited && waiting.len() < most_waiting => {
                    waiting.spawn(async move {
                        sleep(wait).await;
                        incoming
                    });
                    continue;
                }
                Err(_) => {
                    refusals.refuse(incoming, NO_ROOM);
                    continue;
                }
            };
            let (served, shutdown) = (Arc::clone(&served), shutdown.clone());
            connections.spawn(async move {
                let address = incoming.address;
                match served.serve(incoming, &place, shutdown).await {
                    Ok(()) => tracing::debug!(%address, "peer left"),
                    Err(error) => tracing::debug!(%address, "peer dropped: {error}"),
                }
            });
        }
        drop(route);
        hub.shutdown().await;
        refusals.stop().await;
        waiting.shutdown().await;
        let goodbyes = async {
            while let Some(ended) = connections.join_next().await {
                connection_ended(ended);
            }
        };
        if timeout(STOP_TIMEOUT, goodbyes).await.is_err() {
            tracing::debug!("{} connections did not end in time", connections.len());
            connections.shutdown().await;
        }
        while let Some(ended) = watch.join_next().await {
            task_output(ended);
        }
        served.uploads.bytes_sent()
    }
}

/// A share among those that are being served, until this is dropped.
struct Listed<'a> {
    server: &'a Server,
    infohash: InfoHash,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.server.hubs().remove(&self.infohash);
    }
}

impl Served {
    async fn serve(
        &self,
        incoming: Incoming,
        place: &Place,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        let hello = Hello {
            infohash: incoming.hello.infohash,
            peer_id: self.peer_id,
            role: Role::Seeder,
            listen_port: self.listen_port,
            zone: self.zone,
        };
        let address = incoming.address;
        let connection = incoming.accept(hello).await?;
        let joined = OnceLock::new();
        let receive = async |_, mut inbox: Inbox| {
            let asker = self.uploads.join(address, inbox.outbox().clone(), place.activity.clone());
            let _ = joined.set(asker.bytes_sent());
            (self.on_event)(ServeEvent::Joined(address));
            let (content, faults) = (Arc::clone(&self.content), Arc::clone(&self.faults));
            inbox.serve(Serve { content, asker, faults, is_whole: true });
            tokio::select! {
                result = receive(inbox) => {
                    let goodbye = match result {
                        Ok(()) | Err(ConnectionError::Idle) => GoodbyeReason::Done,
                        Err(_) => GoodbyeReason::Protocol,
                    };
                    (result, goodbye)
                }
                () = place.lost.cancelled() => (Ok(()), NO_ROOM),
                () = shutdown.cancelled() => (Ok(()), GoodbyeReason::ShuttingDown),
            }
        };
        let ended = connection::run(connection, self.limit.clone(), receive).await;
        if let Some(sent) = joined.get() {
            (self.on_event)(ServeEvent::Left { address, sent: sent.load(Ordering::Relaxed) });
        }
        Ok(ended??)
    }
}

/// Receives until the peer leaves, while it is served. A seeder ignores everything but requests.
async fn receive(mut inbox: Inbox) -> Result<(), ConnectionError> {
    let mut bitfield_came = false;
    while let Some(message) = inbox.next().await? {
        match message {
            PeerMessage::KeepAlive | PeerMessage::Have { .. } | PeerMessage::Idle => {}
            PeerMessage::Bitfield { .. } if !bitfield_came => {
                bitfield_came = true;
                inbox.skip_payload().await?;
            }
            PeerMessage::Goodbye(_) => return Ok(()),
            message => return Err(ConnectionError::Unexpected(message)),
        }
    }
    Ok(())
}
