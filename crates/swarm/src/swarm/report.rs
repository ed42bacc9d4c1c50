//! What a swarm reports to the user, and why it can fail.

use std::{net::SocketAddr, time::Duration};

use proto::{InfoHash, metainfo::MetainfoError};

use crate::leaving::LeaveReason;

/// Something that the user may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Nothing has begun yet; this is what is waited for. Comes every second.
    Waiting(String),
    /// Chunks can be asked of a peer.
    PeerJoined {
        /// Its address.
        address: SocketAddr,
        /// Whether it has all of the share.
        seeder: bool,
    },
    /// A peer is gone.
    PeerLeft {
        /// Its address.
        address: SocketAddr,
        /// Why.
        reason: LeaveReason,
    },
    /// How far the transfer is. Comes several times a second.
    Progress(Progress),
}

/// How far a transfer is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes proved and written, those of earlier runs included.
    pub done: u64,
    /// Bytes in the share.
    pub total: u64,
    /// Bytes a second, over the last seconds.
    pub rate: u64,
    /// The connected peers.
    pub peers: Vec<PeerProgress>,
}

/// What a peer contributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerProgress {
    /// Its address.
    pub address: SocketAddr,
    /// Bytes of proved chunks from it.
    pub bytes: u64,
    /// Bytes a second, over the last seconds.
    pub rate: u64,
}

/// What came from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerShare {
    /// Its address.
    pub address: SocketAddr,
    /// Bytes of proved chunks from it.
    pub bytes: u64,
}

/// Why a swarm gave up. Whoever drives it puts that into words.
#[derive(Debug)]
pub enum Failure {
    /// No tracker answered, and no peer was named.
    NoTracker(String),
    /// The trackers that answered do not know the share.
    UnknownShare(InfoHash),
    /// There are peers, but none gave the share's description.
    NoPeer {
        /// Peers that were tried.
        known: usize,
        /// The last one's trouble.
        last: String,
    },
    /// A peer that was named does not exist.
    PeerName(String),
    /// All peers that had the share changed it.
    AllChanged,
    /// All known peers have the maximum number of connections.
    AllFull {
        /// How many are known.
        known: usize,
    },
    /// The infohash is that of something malformed.
    BadShare(MetainfoError),
    /// Every peer sent wrong data.
    OnlyLiars,
    /// No data arrived for too long.
    Stalled {
        /// For how long.
        after: Duration,
        /// Bytes that are here.
        done: u64,
        /// Bytes in the share.
        total: u64,
        /// Why, as far as that is known.
        why: String,
    },
    /// The user stopped it.
    Interrupted,
}
