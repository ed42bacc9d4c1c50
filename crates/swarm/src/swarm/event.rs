//! The events that a swarm receives.

use std::time::Duration;

use proto::{
    Bitfield, ChunkIndex, ChunkSpace,
    metainfo::MetainfoError,
    peer::{Form, Hello, RejectReason},
};

use super::{Answer, SourceId};
use crate::{
    leaving::LeaveReason,
    scheduler::{Have, PeerKey},
};

/// An event of a transfer.
#[derive(Debug)]
pub enum Event {
    /// A source answered.
    Answered(SourceId, Answer),
    /// An event of a connection.
    Peer(PeerKey, PeerEvent),
    /// The output is open.
    Opened {
        /// The chunks of the share.
        space: ChunkSpace,
        /// Those to fetch, and those that are in the output.
        wanted: Bitfield,
        /// Those that are in the output.
        have: Bitfield,
        /// Those of which this host has similar bytes.
        similar: Bitfield,
    },
    /// A chunk was proved and written.
    Stored {
        /// The peer that sent it.
        peer: PeerKey,
        /// The chunk.
        chunk: ChunkIndex,
        /// Time that it took to prove it.
        hashing: Duration,
        /// Time that it took to write it.
        writing: Duration,
    },
    /// What a peer sent of a chunk is right, and more is needed of it.
    AskAgain {
        /// The peer that sent it.
        peer: PeerKey,
        /// The chunk.
        chunk: ChunkIndex,
        /// In which form to ask for it next.
        form: Form,
    },
    /// A chunk was proved wrong.
    Wrong {
        /// The peer that sent it.
        peer: PeerKey,
        /// The chunk.
        chunk: ChunkIndex,
    },
    /// The share is durable and has its final name.
    Finished,
    /// A received file changed or cannot be read, so it cannot be served.
    Spoilt,
    /// This many bytes of chunks were sent to others so far.
    Uploaded(u64),
    /// A tracker counts this many hosts that have fetched the share.
    Completions(u32),
    /// Whether the transfer waits because of the user's download limit.
    Limited(bool),
    /// Maximum number of peers to connect to. Connections beyond it stay.
    MaxPeers(usize),
    /// The user stops the transfer.
    Stop,
}

/// The two things that a description consists of, in the order in which they are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DescriptionStage {
    /// Nothing about it can be proved before all of it is here.
    Metainfo,
    /// The metainfo is proved, so their number is known.
    Hashes,
}

/// An event of a connection.
#[derive(Debug)]
pub enum PeerEvent {
    /// The peer can be asked for the description.
    Ready {
        /// The time that it took to answer this side's `Hello`.
        answers_in: Duration,
    },
    /// The peer sent part of the metainfo or of the chunk hashes.
    Describing {
        /// Which of the two.
        stage: DescriptionStage,
        /// Bytes received so far.
        received: u64,
        /// Bytes to receive.
        total: u64,
    },
    /// The complete description is known and proved.
    Described,
    /// The metainfo has the right infohash and is malformed.
    BadShare(MetainfoError),
    /// The peer can be asked for chunks.
    Active {
        /// Its `Hello`.
        hello: Hello,
        /// The chunks that it has.
        have: Have,
    },
    /// The peer sends this chunk first, as if it had been requested.
    Chosen {
        /// The chunk. The share has it.
        chunk: ChunkIndex,
        /// How long ago this side asked for any chunk.
        waited: Duration,
    },
    /// The chunks that the peer has, if its bitfield comes later than [`PeerEvent::Active`].
    Bitfield(Bitfield),
    /// The peer has these chunks too.
    Haves(Vec<ChunkIndex>),
    /// The peer sent a keep-alive.
    Alive,
    /// The peer has nothing to send to any peer.
    Idle,
    /// The first bytes of a chunk arrived.
    Arriving(ChunkIndex),
    /// More of the same chunk arrived.
    Progress {
        /// Bytes of it so far.
        bytes: u32,
    },
    /// The peer does not read its messages.
    NotReading,
    /// The peer will not send a chunk.
    Rejected(ChunkIndex, RejectReason),
    /// The connection is over. This is its last event.
    Closed(LeaveReason),
}
