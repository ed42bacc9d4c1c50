//! What can fail on disk: operations on a path, and downloads.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::ChunkIndex;

use crate::{existing::Difference, hash_run::Stopped};

/// An operation on a path failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct PathError {
    /// The operation, as a verb.
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl PathError {
    /// Whether the file system, or the user's quota of it, is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Why a download cannot start, go on or finish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// A pattern matches no file of the share.
    #[error("nothing in the share matches '{0}'")]
    NothingMatches(String),
    /// The output's name is taken by a regular file.
    #[error("{} already exists", .0.display())]
    OutputExists(PathBuf),
    /// What has the output's name is not the share.
    #[error("{} already exists, and is not this share: {} {how}", path.display(), at.display())]
    OutputDiffers {
        /// The output.
        path: PathBuf,
        /// The output, or something in it.
        at: PathBuf,
        /// How it differs.
        how: Difference,
    },
    /// The directory that has the output's name is not replaced, because nothing in it has to do with the share.
    #[error("{} already exists, and nothing in it is of the share", .0.display())]
    Unrelated(PathBuf),
    /// The file system cannot replace a directory in one step.
    #[error("the file system of {} cannot replace a directory in one step", .0.display())]
    CannotExchange(PathBuf),
    /// The output's name is taken by something that is never replaced.
    #[error("{} already exists, and is not a regular file", .0.display())]
    NotReplaceable(PathBuf),
    /// The `.part` does not belong to this share, or holds something that does not.
    #[error("{} is in the way: {reason}", path.display())]
    PartInTheWay {
        /// The `.part`, something in it, or the `.resume`.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something that was being written to is no longer there.
    #[error("{} was removed or replaced while it was written to", .0.display())]
    PartGone(PathBuf),
    /// A file that the old version and the new one have in common was written to meanwhile.
    #[error("{} changed while the new version was made", .0.display())]
    LinkChanged(PathBuf),
    /// Another process works on the same output.
    #[error("another leecher is writing {}", .0.display())]
    Locked(PathBuf),
    /// The file system has too little room.
    #[error("{} needs {needed} more bytes, but the file system has {free} free", path.display())]
    NoSpace {
        /// The path of the output.
        path: PathBuf,
        /// Bytes still to be written.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// What was written since the last checkpoint may not be on disk. The download cannot go on.
    #[error("what was written since the last save may be lost: {}: {}", .0, .0.source)]
    NotDurable(Arc<PathError>),
    /// The chunks are on disk, but the resume file does not claim them. The download can go on.
    #[error(
        "cannot save how far the download is ({}: {}); if it stops now, some of it must be fetched again", .0, .0.source
    )]
    NotClaimed(PathError),
    /// A file operation failed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The progress callback stopped it.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl DownloadError {
    /// Whether the file system, or the user's quota of it, is full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            DownloadError::NoSpace { .. } => true,
            DownloadError::NotDurable(error) => error.is_disk_full(),
            DownloadError::NotClaimed(error) | DownloadError::Path(error) => error.is_disk_full(),
            _ => false,
        }
    }
}

/// Why a chunk was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreChunkError {
    /// It does not have the chunk's hash.
    #[error("chunk {} does not have its hash", .0.0)]
    Wrong(ChunkIndex),
    /// It was put together from blocks of a peer and from bytes of this host, and the latter have changed. It has to be fetched whole.
    #[error("the bytes on this host that are similar to chunk {} have changed", .0.0)]
    SimilarChanged(ChunkIndex),
    /// The two implementations of SHA-256 disagree about it, so one of them, or the processor or the memory, is faulty.
    #[error("two SHA-256 implementations disagree about chunk {}: this machine cannot be trusted", .0.0)]
    HashersDisagree(ChunkIndex),
    /// It could not be written.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// Adds the operation and the path to an I/O error.
pub(crate) trait AtPath<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, PathError>;
}

impl<T, E: Into<io::Error>> AtPath<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, PathError> {
        self.map_err(|source| PathError { action, path: path.to_owned(), source: source.into() })
    }
}
