//! What a peer asks for of a chunk: all of it, the hashes of its blocks, or some of its blocks.

use serde::{Deserialize, Serialize};

use super::PeerMessage;
use crate::{BLOCK_LEN, CHUNK_LEN, ChunkIndex, Digest, tracker::Completion};

/// Blocks in a full chunk.
pub const BLOCKS_PER_CHUNK: u32 = CHUNK_LEN / BLOCK_LEN;

/// Some blocks of a chunk, one bit each; the lowest bit is the first block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct BlockSet(pub u32);

/// In which form a chunk is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// All of its bytes.
    Whole,
    /// The hashes of its blocks, which show what of it is here already.
    Leaves,
    /// These blocks of it.
    Blocks(BlockSet),
}

/// A chunk that a peer asks for, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wish {
    /// The chunk.
    pub chunk: ChunkIndex,
    /// In which form.
    pub form: Form,
}

impl BlockSet {
    /// The first `count` blocks, 32 at most.
    pub fn first(count: u32) -> BlockSet {
        BlockSet(u32::MAX.checked_shr(BLOCKS_PER_CHUNK.saturating_sub(count)).unwrap_or(0))
    }

    /// Whether it is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Number of blocks.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether a block is one of them.
    pub fn contains(self, block: u32) -> bool {
        block < BLOCKS_PER_CHUNK && self.0 >> block & 1 == 1
    }

    /// Adds a block.
    ///
    /// # Panics
    /// If no chunk has a block of this number.
    pub fn insert(&mut self, block: u32) {
        assert!(block < BLOCKS_PER_CHUNK, "block {block}");
        self.0 |= 1 << block;
    }

    /// The blocks of a chunk of `chunk_len` bytes that are not in the set.
    pub fn others(self, chunk_len: u32) -> BlockSet {
        BlockSet(BlockSet::first(block_count(chunk_len)).0 & !self.0)
    }

    /// Whether it is not empty, and a chunk of `chunk_len` bytes has all of these blocks.
    pub fn fits(self, chunk_len: u32) -> bool {
        !self.is_empty() && self.0 & !BlockSet::first(block_count(chunk_len)).0 == 0
    }

    /// Bytes in these blocks of a chunk of `chunk_len` bytes.
    pub fn len(self, chunk_len: u32) -> u32 {
        self.ranges(chunk_len).map(|range| range.end - range.start).sum()
    }

    /// The bytes of these blocks in a chunk of `chunk_len` bytes. Blocks side by side are one range.
    pub fn ranges(self, chunk_len: u32) -> impl Iterator<Item = std::ops::Range<u32>> {
        let mut left = self.0 & BlockSet::first(block_count(chunk_len)).0;
        std::iter::from_fn(move || {
            let start = (left != 0).then(|| left.trailing_zeros())?;
            let count = (!(left >> start)).trailing_zeros().min(BLOCKS_PER_CHUNK - start);
            left &= !(BlockSet::first(count).0 << start);
            Some(start * BLOCK_LEN..((start + count) * BLOCK_LEN).min(chunk_len))
        })
    }
}

/// Number of blocks in a chunk of `chunk_len` bytes.
pub fn block_count(chunk_len: u32) -> u32 {
    chunk_len.div_ceil(BLOCK_LEN).min(BLOCKS_PER_CHUNK)
}

impl Form {
    /// Bytes that travel for a chunk of `chunk_len` bytes.
    pub fn len(self, chunk_len: u32) -> u32 {
        match self {
            Form::Whole => chunk_len,
            #[expect(clippy::cast_possible_truncation, reason = "32 bytes for each of 32 blocks")]
            Form::Leaves => block_count(chunk_len) * Digest::LEN as u32,
            Form::Blocks(blocks) => blocks.len(chunk_len),
        }
    }

    /// Whether a chunk of `chunk_len` bytes can be asked for in this form.
    pub fn fits(self, chunk_len: u32) -> bool {
        match self {
            Form::Whole | Form::Leaves => true,
            Form::Blocks(blocks) => blocks.fits(chunk_len),
        }
    }
}

impl Wish {
    /// The message by which a peer with this `progress` asks for it.
    pub fn request(self, progress: Completion) -> PeerMessage {
        let chunk = self.chunk;
        match self.form {
            Form::Whole => PeerMessage::Request { chunk, progress },
            Form::Leaves => PeerMessage::LeavesRequest { chunk, progress },
            Form::Blocks(blocks) => PeerMessage::BlocksRequest { chunk, blocks, progress },
        }
    }
}

impl From<ChunkIndex> for Wish {
    /// All of a chunk.
    fn from(chunk: ChunkIndex) -> Wish {
        Wish { chunk, form: Form::Whole }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_hold_each_block_of_the_set_once(bits in any::<u32>(), chunk_len in 1..=CHUNK_LEN) {
            let set = BlockSet(bits);
            let ranges: Vec<_> = set.ranges(chunk_len).collect();
            for at in (0..chunk_len).step_by(1_024).chain([chunk_len - 1]) {
                let times = ranges.iter().filter(|range| range.contains(&at)).count();
                prop_assert_eq!(times, usize::from(set.contains(at / BLOCK_LEN)), "byte {}", at);
            }
            prop_assert!(ranges.iter().all(|range| range.start < range.end && range.end <= chunk_len));
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            let rest = set.others(chunk_len);
            prop_assert_eq!(set.len(chunk_len) + rest.len(chunk_len), chunk_len);
            prop_assert_eq!(rest.is_empty() || rest.fits(chunk_len), true);
            prop_assert_eq!(set.fits(chunk_len), bits != 0 && (0..32).all(|block| !set.contains(block) || block * BLOCK_LEN < chunk_len));
        }
    }
}
