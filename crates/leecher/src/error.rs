//! Why a share could not be fetched.

use std::path::PathBuf;

use listen::ListenError;
use proto::{Endpoint, InfoHash, ShareName, tracker::message::ShareEntry};
use store::{DownloadError, PathError};
use swarm::Failure;

/// Why a share could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The share could not be found, or no peer sends it.
    #[error(transparent)]
    Swarm(Failure),
    /// The trackers that answered know no share of this name.
    #[error("no tracker knows a share called '{0}'")]
    UnknownName(ShareName),
    /// The user named no share, and the trackers know none.
    #[error("the tracker knows no shares")]
    NothingShared,
    /// Several shares match.
    #[error("{total} shares {}", match name {
        Some(name) => format!("are called '{name}'"),
        None => "are available".to_owned(),
    })]
    Ambiguous {
        /// The name that was asked for.
        name: Option<ShareName>,
        /// The shares that match, best supported first: by how many addresses announce them, each counting for one share of a
        /// name. Not all if there are many.
        shares: Vec<ShareEntry>,
        /// How many match.
        total: usize,
    },
    /// A tracker that restarted knows one share that matches, and other peers may not have come back yet.
    #[error("tracker {tracker} restarted, and others may share something else{}", match name {
        Some(name) => format!(" under '{name}'"),
        None => String::new(),
    })]
    Unsettled {
        /// The tracker.
        tracker: Endpoint,
        /// The name that was asked for.
        name: Option<ShareName>,
        /// Seconds until all peers had time to come back.
        settles_in_s: u16,
    },
    /// A tracker lists a share under a name that it does not have.
    #[error("the trackers call {infohash} '{name}', but its name is '{real}'")]
    Misnamed {
        /// The name that was asked for.
        name: ShareName,
        /// The name of the share.
        real: ShareName,
        /// The share.
        infohash: InfoHash,
    },
    /// The leecher cannot listen on its port.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The output cannot be written.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// A chunk cannot be written.
    #[error(transparent)]
    Write(#[from] PathError),
    /// This machine computes wrong hashes, with one of its two implementations.
    #[error("two SHA-256 implementations disagree: this machine cannot be trusted")]
    HashersDisagree,
    /// The user stopped it, or its handle or its node was. The same fetch resumes it.
    #[error("interrupted")]
    Interrupted {
        /// The `.part` with what was received so far, if there is one.
        part: Option<PathBuf>,
    },
}

impl FetchError {
    /// Whether no tracker knows the share, or there is none to choose.
    pub fn is_unknown(&self) -> bool {
        matches!(
            self,
            FetchError::UnknownName(_)
                | FetchError::NothingShared
                | FetchError::Swarm(Failure::UnknownShare(_))
        )
    }

    /// Whether the file system, or the user's quota of it, is full. What was received is kept, and the same fetch resumes it.
    pub fn is_disk_full(&self) -> bool {
        match self {
            FetchError::Download(error) => error.is_disk_full(),
            FetchError::Write(error) => error.is_disk_full(),
            _ => false,
        }
    }
}

impl From<Failure> for FetchError {
    fn from(failure: Failure) -> FetchError {
        match failure {
            Failure::Interrupted => FetchError::Interrupted { part: None },
            failure => FetchError::Swarm(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_full_disk_is_distinguished_from_other_trouble_wherever_it_shows() {
        let path = |kind: io::ErrorKind| PathError { action: "write", path: "x".into(), source: kind.into() };
        let full = || path(io::ErrorKind::StorageFull);
        for error in [
            FetchError::Write(full()),
            FetchError::Write(path(io::ErrorKind::QuotaExceeded)),
            DownloadError::Path(full()).into(),
            DownloadError::NotClaimed(full()).into(),
            DownloadError::NotDurable(full().into()).into(),
            DownloadError::NoSpace { path: "x".into(), needed: 2, free: 1 }.into(),
        ] {
            assert!(error.is_disk_full() && !error.is_unknown(), "{error}");
        }
        let denied = FetchError::Write(path(io::ErrorKind::PermissionDenied));
        assert!(!denied.is_disk_full() && !FetchError::NothingShared.is_disk_full());
        assert!(FetchError::NothingShared.is_unknown());
    }
}
