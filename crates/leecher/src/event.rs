//! What a transfer reports while it runs, and at its end.

use std::{path::PathBuf, sync::Arc, time::Duration};

use proto::{InfoHash, ShareName, tracker::client::TrackerError};
use store::{DownloadError, OpenChunkError};
use swarm::{Contribution, Report, account::Spent};

/// Something that happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FetchEvent {
    /// What the leecher waits for, the peers that it is connected to, and how far it is.
    Swarm(Report),
    /// A tracker did not answer, or refused; others may.
    TrackerTrouble(TrackerError),
    /// What came is not saved, so some of it would be fetched again if the transfer stopped now. It goes on if it can.
    Unsaved(Arc<DownloadError>),
    /// Part of what is here cannot be served to others, because its file changed or cannot be read. If the share was
    /// finished, the leecher leaves: it no longer announces the share.
    CannotServe(Arc<OpenChunkError>),
    /// What an earlier run left is being proved.
    Proving {
        /// Bytes proved so far.
        done: u64,
        /// Bytes to prove at most.
        total: u64,
    },
    /// The share is known and the output is ready.
    Started(Started),
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
    pub peers: Vec<Contribution>,
    /// What the time went to, most first; the parts sum to `elapsed`.
    pub spent: Vec<(Spent, Duration)>,
}

impl From<Report> for FetchEvent {
    fn from(report: Report) -> FetchEvent {
        FetchEvent::Swarm(report)
    }
}
