//! Shares that are not served as they should be.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use proto::{ChunkIndex, Metainfo, SMALL_CHUNK_LEN};
use store::{ChunkHashes, ChunkSource, Content, OpenChunkError, Shared};

use crate::program::PATIENCE;

/// Bytes that differ from chunk to chunk.
pub(crate) fn bytes(chunks: usize) -> Vec<u8> {
    (0..chunks)
        .flat_map(|chunk| (0..SMALL_CHUNK_LEN as usize).map(move |i| (i % 251 + chunk) as u8))
        .collect()
}

/// A share whose later chunks nobody gets: a transfer that stands still, for as long as a test wants.
#[derive(Debug)]
pub(crate) struct Withheld {
    pub(crate) shared: Arc<Shared>,
    /// The first chunk that is kept back.
    pub(crate) from: ChunkIndex,
}

/// A share of which this number of chunks is served at first, and the others when a file of this name exists.
#[derive(Debug)]
pub(crate) struct Gated {
    pub(crate) shared: Arc<Shared>,
    pub(crate) before: usize,
    /// Those that were served; a chunk may be opened more than once.
    pub(crate) passed: Mutex<BTreeSet<ChunkIndex>>,
    pub(crate) gate: PathBuf,
}

/// A share whose chunks come with the bytes of others.
#[derive(Debug)]
pub(crate) struct Wrong(pub(crate) Arc<Shared>);

impl Content for Withheld {
    fn metainfo(&self) -> &Metainfo {
        self.shared.metainfo()
    }

    fn hashes(&self) -> &ChunkHashes {
        self.shared.hashes()
    }

    fn try_open_chunk(&self, chunk: ChunkIndex) -> Option<Result<ChunkSource, OpenChunkError>> {
        if chunk >= self.from {
            Some(Err(OpenChunkError::NotHave(chunk)))
        } else {
            self.shared.try_open_chunk(chunk)
        }
    }

    fn open_chunk(&self, chunk: ChunkIndex) -> Result<ChunkSource, OpenChunkError> {
        self.shared.open_chunk(chunk)
    }
}

impl Content for Gated {
    fn metainfo(&self) -> &Metainfo {
        self.shared.metainfo()
    }

    fn hashes(&self) -> &ChunkHashes {
        self.shared.hashes()
    }

    /// Never: what waits does so on a thread that may.
    fn try_open_chunk(&self, _chunk: ChunkIndex) -> Option<Result<ChunkSource, OpenChunkError>> {
        None
    }

    fn open_chunk(&self, chunk: ChunkIndex) -> Result<ChunkSource, OpenChunkError> {
        let passes = {
            let mut passed = self.passed.lock().unwrap();
            passed.contains(&chunk) || passed.len() < self.before && passed.insert(chunk)
        };
        if !passes {
            let patience = Instant::now() + PATIENCE;
            while !self.gate.exists() && Instant::now() < patience {
                thread::yield_now();
            }
        }
        self.shared.open_chunk(chunk)
    }
}

impl Content for Wrong {
    fn metainfo(&self) -> &Metainfo {
        self.0.metainfo()
    }

    fn hashes(&self) -> &ChunkHashes {
        self.0.hashes()
    }

    fn try_open_chunk(&self, chunk: ChunkIndex) -> Option<Result<ChunkSource, OpenChunkError>> {
        self.0.try_open_chunk(ChunkIndex(chunk.0 ^ 1))
    }

    fn open_chunk(&self, chunk: ChunkIndex) -> Result<ChunkSource, OpenChunkError> {
        self.0.open_chunk(ChunkIndex(chunk.0 ^ 1))
    }
}
