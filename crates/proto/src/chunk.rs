//! Chunks, blocks and the chunk space of a share.
//!
//! A chunk is the unit of request, verification and resume. The chunks of all files of a share are numbered in one sequence,
//! in `file tree` order. A chunk never spans two files, so the last chunk of each file may be short, and an empty file has
//! none.
//!
//! Chunks have 512 KiB, and those of a share below 256 MiB a quarter of that. A peer can pass on a chunk only when it has all of it, so a
//! swarm of N peers needs the time of some log2(N) chunks beyond the minimum, and in a small share that is much. The infohash is the same
//! for any length: both are rows of one hash tree (BEP 52).

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Bytes in every chunk but the last of each file, and BEP 52's `piece length`.
pub const CHUNK_LEN: u32 = 512 * 1024;

/// The same in a share of less than [`SMALL_SHARE_LEN`].
pub const SMALL_CHUNK_LEN: u32 = CHUNK_LEN / 4;

/// Shares of fewer bytes have small chunks. A share of this length has 512 chunks, and the last peer of a swarm of sixteen needs 2 % longer
/// than with small ones; with fewer chunks it is more (docs/benchmarks.md). With more, each costs its messages.
pub const SMALL_SHARE_LEN: u64 = 256 * 1024 * 1024;

/// Bytes in a leaf of the hash tree (BEP 52).
pub const BLOCK_LEN: u32 = 16 * 1024;

/// Maximum chunks in a share (2 TiB). A bitfield then has at most the size of a chunk, and the hashes of a share 128 MiB.
pub const MAX_CHUNKS: u32 = 4 * 1024 * 1024;

/// Maximum bytes in a share: [`MAX_CHUNKS`] whole chunks.
pub const MAX_SHARE_LEN: u64 = MAX_CHUNKS as u64 * CHUNK_LEN as u64;

/// Position of a chunk in the chunk space of its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkIndex(pub u32);

/// The place of a chunk: its file, its offset and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSpan {
    /// Position of the file in [`crate::Metainfo::files`].
    pub file: usize,
    /// First byte, counted from the start of the file.
    pub offset: u64,
    /// Bytes in the chunk, 1 to [`ChunkSpace::chunk_len`].
    pub len: u32,
    /// Leaves of its hash tree ([`ChunkSpace::leaf_count`]).
    pub leaf_count: u32,
}

/// How the files of a share divide into chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkSpace {
    chunk_len: u32,
    /// Length in bytes of each file.
    file_lens: Box<[u64]>,
    /// First chunk of each file; at the end, one past the last chunk.
    first_chunks: Box<[u32]>,
    total_len: u64,
}

/// The share has more than [`MAX_CHUNKS`] chunks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the share is larger than {MAX_CHUNKS} chunks of 512 KiB")]
pub struct TooLargeError;

impl ChunkSpace {
    /// Divides files of these lengths in bytes.
    pub fn new(file_lens: impl IntoIterator<Item = u64>) -> Result<ChunkSpace, TooLargeError> {
        let file_lens: Box<[u64]> = file_lens.into_iter().collect();
        let add = |sum: u64, len: &u64| sum.checked_add(*len).filter(|&sum| sum <= MAX_SHARE_LEN);
        let total_len = file_lens.iter().try_fold(0, add).ok_or(TooLargeError)?;
        let chunk_len = if total_len < SMALL_SHARE_LEN { SMALL_CHUNK_LEN } else { CHUNK_LEN };
        let mut first_chunks = Vec::with_capacity(file_lens.len() + 1);
        let mut chunks = 0_u32;
        for &len in &file_lens {
            first_chunks.push(chunks);
            let count = u32::try_from(len.div_ceil(u64::from(chunk_len))).map_err(|_| TooLargeError)?;
            chunks = chunks.checked_add(count).filter(|&all| all <= MAX_CHUNKS).ok_or(TooLargeError)?;
        }
        first_chunks.push(chunks);
        Ok(ChunkSpace { chunk_len, file_lens, first_chunks: first_chunks.into(), total_len })
    }

    /// Bytes in every chunk but the last of each file.
    pub fn chunk_len(&self) -> u32 {
        self.chunk_len
    }

    /// Leaves in the hash tree of each chunk of a file of this many bytes, a power of two. Those beyond its blocks are padding. A chunk
    /// that is all of its file has no more than it needs (BEP 52).
    pub fn leaf_count(&self, file_len: u64) -> u32 {
        let first_len = u32::try_from(file_len).unwrap_or(u32::MAX).min(self.chunk_len);
        first_len.div_ceil(BLOCK_LEN).next_power_of_two()
    }

    /// Number of chunks of the whole share.
    pub fn chunk_count(&self) -> u32 {
        self.first_chunks[self.file_lens.len()]
    }

    /// Bytes in the whole share.
    pub fn total_len(&self) -> u64 {
        self.total_len
    }

    /// The chunks of one file; empty for an empty file.
    pub fn chunks_of(&self, file: usize) -> Range<u32> {
        self.first_chunks[file]..self.first_chunks[file + 1]
    }

    /// Bytes in one file.
    pub fn file_len(&self, file: usize) -> u64 {
        self.file_lens[file]
    }

    /// Every chunk of the share, in order.
    pub fn chunks(&self) -> impl Iterator<Item = ChunkIndex> + use<> {
        (0..self.chunk_count()).map(ChunkIndex)
    }

    /// The place of `chunk`, or `None` if the share has no such chunk.
    pub fn span(&self, chunk: ChunkIndex) -> Option<ChunkSpan> {
        if chunk.0 >= self.chunk_count() {
            return None;
        }
        // An empty file has the same first chunk as the next file, so the last file that starts at or before the chunk holds it.
        let file = self.first_chunks.partition_point(|&first| first <= chunk.0) - 1;
        let offset = u64::from(chunk.0 - self.first_chunks[file]) * u64::from(self.chunk_len);
        let left = self.file_lens[file] - offset;
        let len = u32::try_from(left).unwrap_or(u32::MAX).min(self.chunk_len);
        let leaf_count = self.leaf_count(self.file_lens[file]);
        Some(ChunkSpan { file, offset, len, leaf_count })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn chunks_cover_every_file_once_and_in_order(
            lens in prop::collection::vec(prop_oneof![Just(0), 1..3_u64, 0..3_000_000_u64, Just(1 << 20)], 0..12),
        ) {
            let space = ChunkSpace::new(lens.clone()).unwrap();
            let mut reached = vec![0_u64; lens.len()];
            let mut last_file = 0;
            for chunk in space.chunks() {
                let span = space.span(chunk).unwrap();
                prop_assert!(span.file >= last_file);
                last_file = span.file;
                prop_assert_eq!(span.offset, reached[span.file]);
                prop_assert!(span.len > 0 && span.len <= CHUNK_LEN);
                prop_assert!(space.chunks_of(span.file).contains(&chunk.0));
                reached[span.file] += u64::from(span.len);
            }
            prop_assert_eq!(&reached, &lens);
            prop_assert_eq!(space.total_len(), lens.iter().sum::<u64>());
            prop_assert_eq!(space.span(ChunkIndex(space.chunk_count())), None);
        }
    }

    #[test]
    fn the_files_of_a_share_together_decide_how_long_its_chunks_are() {
        let chunk_len = |lens: &[u64]| ChunkSpace::new(lens.iter().copied()).unwrap().chunk_len();
        assert_eq!(chunk_len(&[]), SMALL_CHUNK_LEN);
        assert_eq!(chunk_len(&[SMALL_SHARE_LEN - 1]), SMALL_CHUNK_LEN);
        assert_eq!(chunk_len(&[SMALL_SHARE_LEN]), CHUNK_LEN);
        assert_eq!(chunk_len(&[1, SMALL_SHARE_LEN - 1, 0]), CHUNK_LEN);
    }

    #[test]
    fn the_tree_of_a_chunk_has_the_leaves_of_a_full_one_unless_it_is_all_of_its_file() {
        let lens = [1, 16_384, 16_385, 131_072, 131_073, 300_000, 524_289];
        let leaf_counts = |space: ChunkSpace| lens.map(|len| space.leaf_count(len));
        assert_eq!(leaf_counts(ChunkSpace::new([]).unwrap()), [1, 1, 2, 8, 8, 8, 8]);
        assert_eq!(leaf_counts(ChunkSpace::new([SMALL_SHARE_LEN]).unwrap()), [1, 1, 2, 8, 16, 32, 32]);
    }

    #[test]
    fn a_share_of_too_many_chunks_is_refused() {
        assert_eq!(ChunkSpace::new([u64::MAX]), Err(TooLargeError));
        assert!(ChunkSpace::new([MAX_SHARE_LEN]).is_ok());
        assert_eq!(ChunkSpace::new([MAX_SHARE_LEN, 1]), Err(TooLargeError));
    }
}
