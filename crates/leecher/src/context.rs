//! What all sessions of a transfer have in common, and what they report to the driver.

use std::sync::{Arc, OnceLock};

use peer::{faults::Faults, have_log::HaveLog, outbox::Outbox, rate_limit::RateLimit, upload_hub::UploadHub};
use proto::{ChunkIndex, InfoHash, PeerId, peer::Hello};
use store::Download;
use swarm::{
    PeerEvent,
    scheduler::{Have, PeerKey},
};
use tokio::sync::{mpsc, watch};

use crate::{
    buffers::{BufferPool, ChunkBuffer},
    description::{Description, Known},
};

/// What all sessions of a swarm share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) infohash: InfoHash,
    pub(crate) peer_id: PeerId,
    pub(crate) events: mpsc::Sender<(PeerKey, SessionEvent)>,
    /// What peers have told of what the share is.
    pub(crate) known: watch::Sender<Known>,
    /// Where chunks go, once the output is ready.
    pub(crate) download: watch::Receiver<Option<Arc<Download>>>,
    pub(crate) buffers: BufferPool,
    /// TCP port that this leecher listens on, 0 if it does not.
    pub(crate) listen_port: u16,
    /// What this leecher serves to others; not set before the share is known, and never if it serves nothing.
    pub(crate) serving: OnceLock<Serving>,
    pub(crate) upload_limit: RateLimit,
    pub(crate) download_limit: RateLimit,
}

/// How a leecher serves what it has.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    pub(crate) uploads: Arc<UploadHub>,
    pub(crate) have_log: HaveLog,
    pub(crate) faults: Arc<Faults>,
}

/// What a session tells the driver.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// What only the swarm need know.
    Peer(PeerEvent),
    /// The peer has described the share.
    Described(Description),
    /// Chunks can be asked of the peer.
    Active { hello: Hello, have: Have, outbox: Outbox },
    /// A chunk arrived, unproved.
    Chunk(ChunkIndex, ChunkBuffer),
}

impl From<PeerEvent> for SessionEvent {
    fn from(event: PeerEvent) -> SessionEvent {
        SessionEvent::Peer(event)
    }
}
