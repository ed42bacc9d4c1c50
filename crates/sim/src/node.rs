//! One simulated peer.

use std::collections::{BTreeMap, VecDeque};

use proto::{Bitfield, ChunkIndex, Zone, tracker::Completion};
use swarm::{Swarm, scheduler::PeerKey, uploads::Uploads};

use crate::{
    names::{ConnId, NodeId},
    scenario::Nature,
    time::{NEVER, Nanos},
};

/// A message between peers. Which chunks a peer has is not sent: others read it in its log ([`Neighbour::read`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    Request(ChunkIndex, Completion),
    Cancel(ChunkIndex),
    /// The first byte of a chunk.
    Header(ChunkIndex),
    /// More bytes of a chunk: this number so far.
    Part {
        bytes: u32,
    },
    /// The last byte of a chunk.
    Chunk(ChunkIndex),
    NotHave(ChunkIndex),
    Busy(ChunkIndex),
    Cancelled(ChunkIndex),
    Idle,
    KeepAlive,
}

/// A message and when it can be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming {
    pub(crate) at: Nanos,
    pub(crate) conn: ConnId,
    pub(crate) message: Message,
}

/// A peer's side of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neighbour {
    pub(crate) conn: ConnId,
    /// The other end, and what this peer's core calls it.
    pub(crate) id: NodeId,
    pub(crate) key: PeerKey,
    /// One way to it.
    pub(crate) latency: Nanos,
    /// How far this peer has read in the other's log of stored chunks.
    pub(crate) read: usize,
}

/// A peer and its policies.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) nature: Nature,
    pub(crate) online: bool,
    /// What decides for it, from when it arrives, if it fetches.
    pub(crate) core: Option<Swarm>,
    pub(crate) uploads: Uploads,
    pub(crate) max_peers: usize,
    /// One way from it to the middle of the network.
    pub(crate) distance: Nanos,
    /// Whether others can dial it.
    pub(crate) is_reachable: bool,
    /// Where in the network it is.
    pub(crate) zone: Zone,
    /// Its connections, by what its core calls the other ends.
    pub(crate) conns: BTreeMap<PeerKey, ConnId>,
    pub(crate) have: Bitfield,
    /// Its connections, in the order in which they were made.
    pub(crate) links: Vec<Neighbour>,
    pub(crate) inbox: VecDeque<Incoming>,
    /// When it next reads which chunks others have.
    pub(crate) news_at: Nanos,
    pub(crate) arrived: Nanos,
    pub(crate) finished: Option<Nanos>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) duplicate: u64,
    /// Bytes received from other zones.
    pub(crate) crossed: u64,
    pub(crate) wrong: u64,
    pub(crate) most_links: usize,
}

impl Node {
    pub(crate) fn new(
        id: NodeId,
        nature: Nature,
        uploads: Uploads,
        max_peers: usize,
        have: Bitfield,
    ) -> Node {
        Node {
            id,
            nature,
            online: false,
            core: None,
            uploads,
            max_peers,
            distance: 0,
            is_reachable: true,
            zone: Zone::NONE,
            conns: BTreeMap::new(),
            have,
            links: Vec::new(),
            inbox: VecDeque::new(),
            news_at: NEVER,
            arrived: 0,
            finished: None,
            sent: 0,
            received: 0,
            duplicate: 0,
            crossed: 0,
            wrong: 0,
            most_links: 0,
        }
    }
}
