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
    /// The share cannot be found, or nobody gives it.
    #[error(transparent)]
    Swarm(Failure),
    /// The trackers that answered know nothing of that name.
    #[error("no tracker knows a share called '{0}'")]
    UnknownName(ShareName),
    /// The trackers know no share at all, and none was named.
    #[error("the tracker knows no shares")]
    NothingShared,
    /// Several shares fit.
    #[error("{} shares {}", shares.len(), match name {
        Some(name) => format!("are called '{name}'"),
        None => "are available".to_owned(),
    })]
    Ambiguous {
        /// The name that was asked for.
        name: Option<ShareName>,
        /// The shares that fit.
        shares: Vec<ShareEntry>,
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
            Failure::Interrupted => FetchError::Interrupted { part: None },
            failure => FetchError::Swarm(failure),
        }
    }
}
