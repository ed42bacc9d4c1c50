//! Why a share could not be fetched.

use std::path::PathBuf;

use listen::ListenError;
use proto::{ShareName, tracker::message::ShareEntry};
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
    #[error("{} shares {}", shares.len(), match name {
        Some(name) => format!("are called '{name}'"),
        None => "are available".to_owned(),
    })]
    Ambiguous {
        /// The name that was asked for.
        name: Option<ShareName>,
        /// The shares that match.
        shares: Vec<ShareEntry>,
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
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted {
        /// The `.part` with what was received so far, if there is one.
        part: Option<PathBuf>,
    },
}

impl From<Failure> for FetchError {
    fn from(failure: Failure) -> FetchError {
        match failure {
            Failure::Interrupted => FetchError::Interrupted { part: None },
            failure => FetchError::Swarm(failure),
        }
    }
}
