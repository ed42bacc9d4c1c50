//! Why a share could not be fetched.

use std::{path::PathBuf, time::Duration};

use humantime::format_duration;
use listen::ListenError;
use proto::{InfoHash, metainfo::MetainfoError, tracker::message::ShareEntry};
use store::{DownloadError, PathError};
use swarm::Failure;

/// Why a share could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No tracker answered, and no peer was named.
    #[error("no tracker can be reached: {0}")]
    NoTracker(String),
    /// The trackers that answered know nothing of that name.
    #[error("no tracker knows a share called '{0}'")]
    UnknownName(String),
    /// The trackers that answered do not know the share.
    #[error("no tracker knows the share {0}")]
    UnknownShare(InfoHash),
    /// The trackers know no share at all, and none was named.
    #[error("the tracker knows no shares")]
    NothingShared,
    /// Several shares fit.
    #[error("{} shares {}", shares.len(), match name { Some(name) => format!("are called '{name}'"), None => "are available".to_owned() })]
    Ambiguous {
        /// The name that was asked for.
        name: Option<String>,
        /// The shares that fit.
        shares: Vec<ShareEntry>,
    },
    /// There are peers, but none gave the share's description.
    #[error("{}: {last}", match known {
        0 => "there is no other peer".to_owned(),
        1 => "the only known peer could not be reached".to_owned(),
        _ => format!("none of {known} known peers could be reached"),
    })]
    NoPeer {
        /// Peers that were tried.
        known: usize,
        /// The last one's trouble.
        last: String,
    },
    /// A peer that was named does not exist.
    #[error("{0}")]
    PeerName(String),
    /// All peers that had the share changed it.
    #[error("the share changed at every peer that had it")]
    AllChanged,
    /// All known peers have the maximum number of connections.
    #[error("{}", match known { 1 => "the only known peer is full".to_owned(), _ => format!("all {known} known peers are full") })]
    AllFull {
        /// How many are known.
        known: usize,
    },
    /// The infohash is that of something malformed.
    #[error("the share itself is malformed: {0}")]
    BadShare(MetainfoError),
    /// Every peer sent wrong data.
    #[error("every peer sent wrong data")]
    OnlyLiars,
    /// No data arrived for too long.
    #[error("nothing arrived for {} ({done} of {total} bytes are here); {why}", format_duration(*after))]
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
    /// The port to serve others on cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The output cannot be made.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// A chunk cannot be written.
    #[error(transparent)]
    Write(#[from] PathError),
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted {
        /// What was made so far, if anything.
        part: Option<PathBuf>,
    },
}

impl From<Failure> for FetchError {
    fn from(failure: Failure) -> FetchError {
        match failure {
            Failure::NoTracker(why) => FetchError::NoTracker(why),
            Failure::UnknownShare(infohash) => FetchError::UnknownShare(infohash),
            Failure::NoPeer { known, last } => FetchError::NoPeer { known, last },
            Failure::PeerName(why) => FetchError::PeerName(why),
            Failure::AllChanged => FetchError::AllChanged,
            Failure::AllFull { known } => FetchError::AllFull { known },
            Failure::BadShare(error) => FetchError::BadShare(error),
            Failure::OnlyLiars => FetchError::OnlyLiars,
            Failure::Stalled { after, done, total, why } => FetchError::Stalled { after, done, total, why },
            Failure::Interrupted => FetchError::Interrupted { part: None },
        }
    }
}
