//! One simulated peer.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
};

use proto::{Bitfield, ChunkIndex};
use swarm::{Swarm, scheduler::PeerKey, uploads::Uploads};

use crate::{
    queue::{NEVER, Nanos},
    scenario::Nature,
};

/// Port that everybody listens on.
pub(crate) const PORT: NonZeroU16 = NonZeroU16::new(7_000).unwrap();

/// Names a peer: the origin is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) u32);

/// Names a connection, for both of its ends; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnId(pub(crate) u32);

/// What peers tell each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    Have(ChunkIndex),
    Request(ChunkIndex),
    Cancel(ChunkIndex),
    /// The first byte of a chunk.
    Header(ChunkIndex),
    /// More bytes of a chunk: so many by now.
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
    /// Its connections, by what its core calls the other ends.
    pub(crate) conns: BTreeMap<PeerKey, ConnId>,
    pub(crate) have: Bitfield,
    pub(crate) links: Vec<ConnId>,
    pub(crate) inbox: VecDeque<Incoming>,
    /// When [`crate::queue::Event::Inbox`] and [`crate::queue::Event::Wake`] come next.
    pub(crate) inbox_at: Nanos,
    pub(crate) wake_at: Nanos,
    pub(crate) arrived: Nanos,
    pub(crate) finished: Option<Nanos>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) duplicate: u64,
    pub(crate) wrong: u64,
    pub(crate) most_links: usize,
}

impl NodeId {
    pub(crate) const ORIGIN: NodeId = NodeId(0);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }

    pub(crate) fn ip(self) -> IpAddr {
        let [_, a, b, c] = self.0.to_be_bytes();
        Ipv4Addr::new(10, a, b, c).into()
    }

    pub(crate) fn address(self) -> SocketAddr {
        SocketAddr::new(self.ip(), PORT.get())
    }

    /// The node at an address. Nobody tells of an address that is none.
    pub(crate) fn at(address: SocketAddr) -> NodeId {
        match address.ip() {
            IpAddr::V4(ip) => {
                let [_, a, b, c] = ip.octets();
                NodeId(u32::from_be_bytes([0, a, b, c]))
            }
            IpAddr::V6(ip) => unreachable!("{ip} is nobody's"),
        }
    }
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
            conns: BTreeMap::new(),
            have,
            links: Vec::new(),
            inbox: VecDeque::new(),
            inbox_at: NEVER,
            wake_at: NEVER,
            arrived: 0,
            finished: None,
            sent: 0,
            received: 0,
            duplicate: 0,
            wrong: 0,
            most_links: 0,
        }
    }
}
