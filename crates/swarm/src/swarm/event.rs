//! What a swarm is told.

use std::time::Duration;

use proto::{
    Bitfield, ChunkIndex, ChunkSpace,
    metainfo::MetainfoError,
    peer::{Hello, RejectReason},
};

use super::{Answer, SourceId};
use crate::{
    leaving::LeaveReason,
    scheduler::{Have, PeerKey},
};

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A source that was asked has answered.
    Answered(SourceId, Answer),
    /// Something happened on a connection.
    Peer(PeerKey, PeerEvent),
    /// The output is open, and these chunks are in it.
    Opened {
        /// The chunks of the share.
        space: ChunkSpace,
        /// Those that are here.
        have: Bitfield,
    },
    /// A chunk that was to be stored is.
    Stored {
        /// Who sent it.
        peer: PeerKey,
        /// Which it is.
        chunk: ChunkIndex,
        /// Time that a thread took to prove it.
        hashing: Duration,
        /// Time that a thread took to write it.
        writing: Duration,
    },
    /// A chunk that was to be stored is not what it should be.
    Wrong {
        /// Who sent it.
        peer: PeerKey,
        /// Which it is.
        chunk: ChunkIndex,
    },
    /// The share is durable and has its name.
    Finished,
    /// What is here cannot all be served any more.
    Spoilt,
    /// Bytes of chunks were sent to others: so many in all.
    Uploaded(u64),
    /// Whether the user's own limit is what the transfer waits for.
    Limited(bool),
    /// The user has had enough.
    Stop,
}

/// Something that happened on a connection.
#[derive(Debug)]
pub enum PeerEvent {
    /// The peer can be asked what the share is. It took so long to answer this side's `Hello`.
    Ready {
        /// How long.
        answers_in: Duration,
    },
    /// It sent so much of the metainfo, or of the chunk hashes.
    Describing {
        /// Bytes that are here.
        received: u64,
        /// Bytes that it promised.
        total: u64,
    },
    /// The metainfo is known and proved: the share has so many chunks.
    Metainfo {
        /// How many.
        chunk_count: u32,
    },
    /// All of the description is known and proved.
    Described,
    /// What the infohash stands for is malformed.
    BadShare(MetainfoError),
    /// Chunks can be asked of the peer.
    Active {
        /// What it said of itself.
        hello: Hello,
        /// What it has.
        have: Have,
    },
    /// What the peer has, if it says so only now.
    Bitfield(Bitfield),
    /// The peer has one more chunk.
    Have(ChunkIndex),
    /// The peer is there, and has nothing to say.
    Alive,
    /// It has nothing to send to anybody.
    Idle,
    /// The first bytes of a chunk arrived.
    Arriving(ChunkIndex),
    /// More of it arrived: so many bytes by now.
    Progress {
        /// How many.
        bytes: u32,
    },
    /// It does not read what it is sent.
    Deaf,
    /// The peer will not send a chunk.
    Rejected(ChunkIndex, RejectReason),
    /// The connection is over. Nothing happens on it after this.
    Closed(LeaveReason),
}
