//! The events of a transfer, and its result.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use proto::{InfoHash, ShareName, tracker::client::TrackerError};
use store::{DownloadError, OpenChunkError};
use swarm::{Contribution, LeaveReason, Progress, Report, Waiting, account::Spent};

/// An event of a transfer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FetchEvent {
    /// What the transfer waits for before it can start. Repeated every second.
    Waiting(Waiting),
    /// A peer can be asked for chunks.
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
        /// Why it left, or why this side left it.
        reason: LeaveReason,
    },
    /// The progress of the transfer. Repeated several times a second.
    Progress(Progress),
    /// A tracker did not answer, or refused. The transfer continues.
    TrackerTrouble(TrackerError),
    /// What was received could not be saved. The transfer continues if it can. If it stops now, some chunks must be fetched again.
    Unsaved(Arc<DownloadError>),
    /// A received file changed or cannot be read, so it cannot be served to others. The leecher leaves the swarm, as soon as the
    /// transfer is finished.
    CannotServe(Arc<OpenChunkError>),
    /// The leecher is proving what an earlier run left.
    Proving {
        /// Bytes proved so far.
        done: u64,
        /// Maximum bytes to prove.
        total: u64,
    },
    /// A name leads to another share than when it was last fetched by, if that is remembered (the setting `known_names`).
    /// The transfer continues.
    NameMoved {
        /// The name.
        name: ShareName,
        /// What it led to.
        before: InfoHash,
        /// What is fetched now.
        now: InfoHash,
    },
    /// The share is known and the output is ready.
    Started(Started),
    /// All chunks are received and proved, and are being made durable.
    Flushing,
    /// Everything that is wanted of the share is on disk under its final name. The leecher may stay to serve others.
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
    /// Bytes in the files of it that are fetched.
    pub wanted: u64,
    /// Chunks in it.
    pub chunks: u32,
    /// Bytes that an earlier run left and that were proved again.
    pub resumed: u64,
    /// Bytes that are here because they are zeros. They are not received.
    pub zeros: u64,
    /// Bytes that were found elsewhere on this host: in what is replaced, or where the user said.
    pub reused: u64,
    /// Everything that is wanted was there under its final name, and is right. There is nothing to fetch.
    pub already_here: bool,
    /// What is removed when the share gets its name, because the version that is replaced has it and the new one does not.
    pub removes: Arc<[PathBuf]>,
    /// Chunks that an earlier run claimed, but that were missing or wrong.
    pub lost_chunks: u32,
    /// Where it will be saved.
    pub output: PathBuf,
}

/// A finished transfer.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The share.
    pub infohash: InfoHash,
    /// Its name.
    pub name: ShareName,
    /// Where it is saved.
    pub path: PathBuf,
    /// Bytes in it.
    pub size: u64,
    /// Bytes in the files of it that are saved.
    pub wanted: u64,
    /// Bytes of it that are zeros and were not received.
    pub zeros: u64,
    /// Bytes that an earlier run had fetched.
    pub resumed: u64,
    /// Bytes that were found elsewhere on this host and not fetched.
    pub reused: u64,
    /// Everything was there before, and is right. Nothing was fetched.
    pub already_here: bool,
    /// Bytes of chunks that were received but not needed: duplicates and wrong ones.
    pub wasted: u64,
    /// Bytes of chunks that were sent to others.
    pub uploaded: u64,
    /// From the start of the transfer until the share was durable.
    pub elapsed: Duration,
    /// What came from each peer, largest first.
    pub peers: Vec<Contribution>,
    /// What the time was spent on, largest first. The parts sum to `elapsed`.
    pub spent: Vec<(Spent, Duration)>,
}

impl Fetched {
    /// Bytes of proved chunks that came from peers in this run.
    pub fn received(&self) -> u64 {
        self.peers.iter().map(|peer| peer.bytes).sum()
    }
}

impl From<Report> for FetchEvent {
    fn from(report: Report) -> FetchEvent {
        match report {
            Report::Waiting(waiting) => FetchEvent::Waiting(waiting),
            Report::PeerJoined { address, seeder } => FetchEvent::PeerJoined { address, seeder },
            Report::PeerLeft { address, reason } => FetchEvent::PeerLeft { address, reason },
            Report::Progress(progress) => FetchEvent::Progress(progress),
        }
    }
}
