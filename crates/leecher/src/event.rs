//! What a transfer reports while it runs, and at its end.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use proto::{InfoHash, ShareName, peer::GoodbyeReason};
use swarm::account::Spent;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum FetchEvent {
    /// Nothing has begun yet; this is what the leecher waits for. Comes every second.
    Waiting(String),
    /// A tracker did not answer, or refused; others may.
    TrackerTrouble(String),
    /// What came is not saved, so some of it would be fetched again if the transfer stopped now. It goes on if it can.
    Unsaved(String),
    /// Part of what is here cannot be served to others, because its file changed or cannot be read. If the share was
    /// finished, the leecher leaves: it no longer announces the share.
    CannotServe(String),
    /// What an earlier run left is being proved.
    Proving {
        /// Bytes proved so far.
        done: u64,
        /// Bytes to prove at most.
        total: u64,
    },
    /// The share is known and the output is ready.
    Started(Started),
    /// A connection to a peer.
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
    /// Everything is here and proved; it is being made durable.
    Flushing,
    /// The share is whole, durable and has its name. The leecher may stay to serve others.
    Finished(Fetched),
}

/// What is being fetched.
#[derive(Debug, Clone)]
pub struct Started {
    /// The share.
    pub infohash: InfoHash,
    /// Its name.
    pub name: ShareName,
    /// Bytes in it.
    pub size: u64,
    /// Chunks in it.
    pub chunks: u32,
    /// Bytes that an earlier run left and that were proved again.
    pub resumed: u64,
    /// Chunks that an earlier run claimed, but that were not there.
    pub lost_chunks: u32,
    /// Where it will be.
    pub output: PathBuf,
}

/// How far a transfer is.
#[derive(Debug, Clone, Default)]
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
#[derive(Debug, Clone, Copy)]
pub struct PeerProgress {
    /// Its address.
    pub address: SocketAddr,
    /// Bytes of proved chunks from it.
    pub bytes: u64,
    /// Bytes a second, over the last seconds.
    pub rate: u64,
}

/// Why a peer is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaveReason {
    /// It could not be reached.
    Unreachable(String),
    /// It said goodbye.
    Goodbye(GoodbyeReason),
    /// It closed the connection, or the connection broke.
    Disconnected,
    /// It did not speak the protocol.
    Protocol(String),
    /// It sent something that was proved wrong.
    Lied,
    /// It did not deliver in time, again and again.
    TooSlow,
    /// Its files changed since it shared them.
    Gone,
    /// It is this process itself.
    Itself,
    /// The transfer is over.
    Finished,
}

impl fmt::Display for LeaveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeaveReason::Unreachable(why) => write!(f, "unreachable: {why}"),
            LeaveReason::Goodbye(reason) => write!(f, "{reason}"),
            LeaveReason::Disconnected => f.write_str("disconnected"),
            LeaveReason::Protocol(why) => write!(f, "it broke the protocol: {why}"),
            LeaveReason::Lied => f.write_str("sent wrong data; banned"),
            LeaveReason::TooSlow => f.write_str("it did not deliver in time"),
            LeaveReason::Gone => f.write_str("its file changed since it was shared"),
            LeaveReason::Itself => f.write_str("it is this leecher itself"),
            LeaveReason::Finished => f.write_str("finished"),
        }
    }
}

/// A finished transfer.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The share.
    pub infohash: InfoHash,
    /// Its name.
    pub name: ShareName,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes in it.
    pub size: u64,
    /// Bytes of chunks that were received in vain: duplicates and wrong ones.
    pub wasted: u64,
    /// Bytes of chunks that were sent to others.
    pub uploaded: u64,
    /// From when the share was asked for until all was durable.
    pub elapsed: Duration,
    /// What came from whom, most first.
    pub peers: Vec<PeerShare>,
    /// What the time went to, most first; the parts sum to `elapsed`.
    pub spent: Vec<(Spent, Duration)>,
}

/// What came from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerShare {
    /// Its address.
    pub address: SocketAddr,
    /// Bytes of proved chunks from it.
    pub bytes: u64,
}
