//! The chunk hashes of a share, proved against its metainfo.

use proto::{ChunkIndex, Digest, Metainfo};

use crate::merkle;

/// Hash of every chunk of a share, proved against its infohash.
///
/// 32 bytes a chunk. A peer proves chunks with them and sends them to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkHashes(Vec<Digest>);

/// Why chunk hashes are not those of the share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashesError {
    /// There is not one hash for each chunk.
    #[error("{got} chunk hashes for {expected} chunks")]
    WrongCount {
        /// Chunks in the share.
        expected: u32,
        /// Hashes offered.
        got: usize,
    },
    /// The hashes of a file do not give its root.
    #[error("the chunk hashes do not match the metainfo")]
    WrongRoot,
}

impl ChunkHashes {
    /// Proves the hashes of all chunks against the metainfo.
    pub fn prove(metainfo: &Metainfo, hashes: Vec<Digest>) -> Result<ChunkHashes, HashesError> {
        let space = metainfo.chunk_space();
        if hashes.len() != space.chunk_count() as usize {
            return Err(HashesError::WrongCount { expected: space.chunk_count(), got: hashes.len() });
        }
        for (file, entry) in metainfo.files().iter().enumerate() {
            let chunks = space.chunks_of(file);
            let leaf_count = space.leaf_count(entry.node.len);
            let root = file_root(&hashes[chunks.start as usize..chunks.end as usize], leaf_count);
            if root != entry.node.pieces_root {
                return Err(HashesError::WrongRoot);
            }
        }
        Ok(ChunkHashes(hashes))
    }

    /// The hash of a chunk, `None` if the share has no such chunk.
    pub fn get(&self, chunk: ChunkIndex) -> Option<Digest> {
        self.0.get(chunk.0 as usize).copied()
    }

    /// The hashes of `count` chunks from `first` on, `None` if the share does not have them all.
    pub fn range(&self, first: ChunkIndex, count: u32) -> Option<&[Digest]> {
        self.0.get(first.0 as usize..)?.get(..count as usize)
    }
}

/// The root of a file from the hashes of its chunks, each over this many leaves; `None` for an empty file.
pub(crate) fn file_root(hashes: &[Digest], leaf_count: u32) -> Option<Digest> {
    match hashes {
        [] => None,
        [only] => Some(*only),
        many => Some(merkle::root_of_chunks(many, leaf_count)),
    }
}
