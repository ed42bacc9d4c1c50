//! The share that evil peers have.

use std::path::Path;

use anyhow::{Context, Result};
use proto::{BLOCK_LEN, ChunkIndex, Digest, InfoHash, Metainfo, ShareName, metainfo::Tree};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use store::{ChunkHashes, Content, Scan, ScanRules, merkle::chunk_hash};

/// A share of one file, in memory.
#[derive(Debug)]
pub struct Share {
    metainfo: Metainfo,
    hashes: ChunkHashes,
    bytes: Vec<u8>,
}

impl Share {
    /// Reads and hashes a file.
    pub fn of_file(path: &Path) -> Result<Share> {
        let scan = Scan::new(path, None, &ScanRules::default())?;
        let shared = scan.hash(None, &|_| std::ops::ControlFlow::Continue(()))?;
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        Ok(Share { metainfo: shared.metainfo().clone(), hashes: shared.hashes().clone(), bytes })
    }

    /// Reads and hashes a directory. It has nothing but the description.
    pub fn of_directory(path: &Path) -> Result<Share> {
        let scan = Scan::new(path, None, &ScanRules::default())?;
        let shared = scan.hash(None, &|_| std::ops::ControlFlow::Continue(()))?;
        let (metainfo, hashes) = (shared.metainfo().clone(), shared.hashes().clone());
        Ok(Share { metainfo, hashes, bytes: Vec::new() })
    }

    /// Its id.
    pub fn infohash(&self) -> InfoHash {
        self.metainfo.infohash()
    }

    pub(crate) fn metainfo(&self) -> &Metainfo {
        &self.metainfo
    }

    /// The description of another share.
    pub(crate) fn other_metainfo(&self) -> Metainfo {
        let name = ShareName::new("other").expect("a legal name");
        Metainfo::new(name, Tree::Directory(Default::default())).expect("an empty directory is legal")
    }

    /// The description, with another hash for the first file: a legal one of another share.
    pub(crate) fn altered_metainfo(&self) -> Vec<u8> {
        const ROOT: &[u8] = b"11:pieces root32:";
        let mut bytes = self.metainfo.as_bytes().to_vec();
        if let Some(at) = bytes.windows(ROOT.len()).position(|some| some == ROOT) {
            bytes[at + ROOT.len()] ^= 1;
        }
        bytes
    }

    pub(crate) fn chunk_count(&self) -> u32 {
        self.metainfo.chunk_space().chunk_count()
    }

    pub(crate) fn hashes(&self, first: ChunkIndex, count: u32) -> Vec<u8> {
        let hashes = self.hashes.range(first, count).unwrap_or_default();
        hashes.iter().flat_map(|&Digest(hash)| hash).collect()
    }

    /// The bytes of a chunk; none if there is no such chunk.
    pub(crate) fn chunk(&self, chunk: ChunkIndex) -> &[u8] {
        let chunk_len = self.metainfo.chunk_space().chunk_len() as usize;
        let start = chunk.0 as usize * chunk_len;
        let end = self.bytes.len().min(start + chunk_len);
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// A chunk of a share that is described by hashes of one's own.
    pub(crate) fn own_chunk(&self, chunk: ChunkIndex) -> Vec<u8> {
        let mut bytes = vec![0; self.chunk(chunk).len()];
        StdRng::seed_from_u64(chunk.0.into()).fill(&mut bytes[..]);
        bytes
    }

    /// The hashes of [`Share::own_chunk`], which are right for its bytes and wrong for this share.
    pub(crate) fn own_hashes(&self, first: ChunkIndex, count: u32) -> Vec<u8> {
        let chunks = (first.0..first.0.saturating_add(count)).map(ChunkIndex);
        let leaf_count = self.metainfo.chunk_space().leaf_count(u64::MAX);
        chunks.flat_map(|chunk| chunk_hash(&self.own_chunk(chunk), leaf_count).0).collect()
    }

    /// The 64 bytes below the root of a full chunk: two nodes. They hash to the chunk's hash, as one block would.
    pub(crate) fn child_hashes(&self, chunk: ChunkIndex) -> Vec<u8> {
        let half_len = self.metainfo.chunk_space().chunk_len() / 2;
        let halves = self.chunk(chunk).chunks(half_len as usize);
        halves.flat_map(|half| chunk_hash(half, half_len / BLOCK_LEN).0).collect()
    }
}
