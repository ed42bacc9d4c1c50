//! The content that a chunk server serves from.

use std::{fmt, fs::File, io, sync::Arc};

use proto::{ChunkIndex, Metainfo};

use crate::{
    error::PathError,
    hash_run,
    hashes::ChunkHashes,
    identity::FileChange,
    merkle::{Leaves, batch_len},
};

/// A share whose chunks can be read: a [`crate::Shared`] path, or a [`crate::Download`] under way.
pub trait Content: fmt::Debug + Send + Sync {
    /// What the share is.
    fn metainfo(&self) -> &Metainfo;

    /// Its chunk hashes.
    fn hashes(&self) -> &ChunkHashes;

    /// Where to read a chunk, or `None` if its file would have to be opened first. Does not block.
    fn try_open_chunk(&self, chunk: ChunkIndex) -> Option<Result<ChunkSource, OpenChunkError>>;

    /// Where to read a chunk. Blocks, if its file has to be opened first.
    fn open_chunk(&self, chunk: ChunkIndex) -> Result<ChunkSource, OpenChunkError>;

    /// Fails if a file changed, as far as its path shows. Blocks; ends early when `is_stopped` returns true. Content that watches
    /// its files itself need not implement it.
    fn check(&self, _is_stopped: &dyn Fn() -> bool) -> Result<(), OpenChunkError> {
        Ok(())
    }
}

/// Where the bytes of a chunk are.
#[derive(Debug, Clone)]
pub struct ChunkSource {
    /// The open file.
    pub file: Arc<File>,
    /// First byte of the chunk in the file.
    pub offset: u64,
    /// Bytes in the chunk.
    pub len: u32,
}

impl ChunkSource {
    /// Reads the chunk and hashes its blocks. Blocks.
    pub fn read_leaves(&self) -> io::Result<Leaves> {
        hash_run::leaves(&self.file, self.offset, self.len, &mut vec![0; batch_len()])
    }
}

/// Why a chunk cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenChunkError {
    /// The share has no such chunk, or the download does not have it yet.
    #[error("chunk {} is not here", .0.0)]
    NotHave(ChunkIndex),
    /// The file changed since it was hashed.
    #[error("{} changed since it was shared: {change}", path.display())]
    Changed {
        /// The file.
        path: std::path::PathBuf,
        /// How it changed.
        change: FileChange,
    },
    /// The file cannot be opened or examined.
    #[error(transparent)]
    Path(#[from] PathError),
}
