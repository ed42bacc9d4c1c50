//! What the sessions of a transfer share, and the events that they send to the driver.

use std::sync::{Arc, OnceLock};

use peer::{faults::Faults, have_log::HaveLog, outbox::Outbox, rate_limit::RateLimit, upload_hub::UploadHub};
use proto::{
    ChunkIndex, Digest, InfoHash, PeerId, Zone,
    peer::{Hello, Wish},
};
use store::{Download, Local};
use swarm::{
    PeerEvent,
    scheduler::{Have, PeerKey},
};
use tokio::sync::{mpsc, watch};

use crate::{
    buffers::{BufferPool, ChunkBuffer},
    description::{Description, Known},
};

/// What the sessions of a transfer share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) infohash: InfoHash,
    pub(crate) peer_id: PeerId,
    pub(crate) events: mpsc::Sender<(PeerKey, SessionEvent)>,
    /// How much of the description is known.
    pub(crate) known: watch::Sender<Known>,
    /// The download, once the output is open.
    pub(crate) download: watch::Receiver<Option<Arc<Download>>>,
    pub(crate) buffers: BufferPool,
    /// What is known of the version that is replaced.
    pub(crate) local: Option<Arc<Local>>,
    /// Nothing of the share is here, as far as its name shows, and all of it is wanted.
    pub(crate) is_new: bool,
    /// TCP port that this leecher listens on; 0 if it does not listen.
    pub(crate) listen_port: u16,
    /// Where in a network this host is.
    pub(crate) zone: Zone,
    /// What this leecher serves to others. Set when the share is known, and never if the leecher serves nothing.
    pub(crate) serving: OnceLock<Serving>,
    pub(crate) upload_limit: RateLimit,
    pub(crate) download_limit: RateLimit,
}

/// What a leecher needs to serve its chunks.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    pub(crate) uploads: Arc<UploadHub>,
    pub(crate) have_log: HaveLog,
    pub(crate) faults: Arc<Faults>,
}

/// An event that a session sends to the driver.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// An event for the swarm.
    Peer(PeerEvent),
    /// The peer has described the share.
    Described(Description),
    /// The peer can be asked for chunks.
    Active { hello: Hello, have: Have, outbox: Outbox },
    /// A chunk arrived, or some of its blocks, at their places in the buffer. They are not proved yet.
    Chunk(Wish, ChunkBuffer),
    /// The hashes of a chunk's blocks arrived. They are not proved yet.
    Leaves(ChunkIndex, Vec<Digest>),
}

impl From<PeerEvent> for SessionEvent {
    fn from(event: PeerEvent) -> SessionEvent {
        SessionEvent::Peer(event)
    }
}
