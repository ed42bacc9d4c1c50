//! Why a tracker cannot start or go on.

use std::io;

use listen::ListenError;

#[cfg(feature = "registry")]
use crate::fleet::redis::StoreError;

/// Why a tracker cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrackerError {
    /// The port cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A socket broke while in use.
    #[error("cannot receive any more")]
    Receive(#[source] io::Error),
    /// The system gave no thread, or no way to wait for the socket.
    #[error("cannot serve a socket")]
    Serve(#[source] io::Error),
    /// The store of the fleet cannot be used.
    #[cfg(feature = "registry")]
    #[error("the registry at {target} cannot be used: {error}")]
    Registry {
        /// Where it is.
        target: String,
        /// Why.
        error: StoreError,
    },
}
