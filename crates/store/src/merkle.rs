//! The hash tree of BEP 52: SHA-256 over 16 KiB blocks, paired up to a root.
//!
//! A file of at most one chunk pads its leaves with zero hashes to the next power of two, and its one chunk hash is the
//! root. A longer file pads every chunk to as many leaves as a full one has ([`proto::ChunkSpace::leaf_count`]), and its row of chunk hashes
//! to the next power of two with the root of as many zero leaves. So its root is the same for chunks of any length. The tree does not
//! distinguish leaves from inner nodes, so a chunk's exact length must be checked before its hash.

use proto::{
    Digest,
    chunk::{BLOCK_LEN, CHUNK_LEN},
};
use sha2::{Digest as _, Sha256};

/// Blocks in the longest chunk.
const BLOCKS: usize = (CHUNK_LEN / BLOCK_LEN) as usize;

/// Hash of one chunk, whose tree has this many leaves.
///
/// # Panics
/// If `chunk` is empty or longer than its leaves.
pub fn chunk_hash(chunk: &[u8], leaf_count: u32) -> Digest {
    Leaves::of(chunk).root(leaf_count)
}

/// [`chunk_hash`] by `sha2`, one block after the other: the reference that the lanes of `tape_sha256` are checked against.
///
/// # Panics
/// If `chunk` is empty or longer than its leaves.
pub fn chunk_hash_by_sha2(chunk: &[u8], leaf_count: u32) -> Digest {
    let mut leaves = Leaves::default();
    for block in chunk.chunks(BLOCK_LEN as usize) {
        leaves.row[leaves.count] = Sha256::digest(block).into();
        leaves.count += 1;
    }
    leaves.root(leaf_count)
}

/// The best number of bytes to hash at a time on this processor: as many blocks as are hashed side by side.
///
/// More bytes would leave a core's own cache before they are hashed. With fewer, lanes stay empty.
pub(crate) fn batch_len() -> usize {
    tape_sha256::lane_width().clamp(1, BLOCKS) * BLOCK_LEN as usize
}

/// The leaves of one chunk, for callers that do not have all of it in memory at once.
#[derive(Debug, Clone, Default)]
pub struct Leaves {
    row: [[u8; Digest::LEN]; BLOCKS],
    count: usize,
}

impl Leaves {
    /// The leaves of a chunk.
    ///
    /// # Panics
    /// If it is longer than the longest chunk.
    pub fn of(chunk: &[u8]) -> Leaves {
        let mut leaves = Leaves::default();
        leaves.push(chunk);
        leaves
    }

    /// Leaves that somebody else has hashed. The first 32 count.
    pub fn from_hashes(hashes: impl IntoIterator<Item = Digest>) -> Leaves {
        let mut leaves = Leaves::default();
        for hash in hashes.into_iter().take(BLOCKS) {
            leaves.row[leaves.count] = hash.0;
            leaves.count += 1;
        }
        leaves
    }

    /// The hashes of the blocks.
    pub fn hashes(&self) -> &[[u8; Digest::LEN]] {
        &self.row[..self.count]
    }

    /// Hashes the next blocks: any number of whole ones; the chunk's last may be shorter.
    ///
    /// # Panics
    /// If that makes more than the longest chunk.
    pub fn push(&mut self, bytes: &[u8]) {
        let count = bytes.len().div_ceil(BLOCK_LEN as usize);
        assert!(self.count + count <= BLOCKS, "{} bytes after {} blocks", bytes.len(), self.count);
        let mut blocks: [&[u8]; BLOCKS] = [&[]; BLOCKS];
        for (block, bytes) in blocks.iter_mut().zip(bytes.chunks(BLOCK_LEN as usize)) {
            *block = bytes;
        }
        let leaves = &mut self.row[self.count..][..count];
        tape_sha256::hash_many(&blocks[..count], leaves);
        #[cfg(test)]
        faults::strike(leaves);
        self.count += count;
    }

    /// Hash of the chunk, padded to this many leaves, a power of two.
    ///
    /// # Panics
    /// If there are no leaves, or more than that.
    pub fn root(mut self, leaf_count: u32) -> Digest {
        let mut width = leaf_count as usize;
        assert!((1..=width).contains(&self.count), "{} of {width} leaves", self.count);
        while width > 1 {
            width /= 2;
            for node in 0..width {
                self.row[node] = parent(&self.row[2 * node], &self.row[2 * node + 1]);
            }
        }
        Digest(self.row[0])
    }
}

/// Root of the tree of a file of several chunks, from its row of chunk hashes, each over this many leaves. (The root of a file of one
/// chunk is that chunk's hash.)
///
/// # Panics
/// If there are no hashes.
pub fn root_of_chunks(hashes: &[Digest], leaf_count: u32) -> Digest {
    assert!(!hashes.is_empty(), "a file without chunks has no root");
    let mut row: Vec<[u8; Digest::LEN]> = hashes.iter().map(|hash| hash.0).collect();
    let mut padding = zero_root(leaf_count);
    while row.len() > 1 {
        if row.len() % 2 == 1 {
            row.push(padding);
        }
        row = row.chunks_exact(2).map(|pair| parent(&pair[0], &pair[1])).collect();
        padding = parent(&padding, &padding);
    }
    Digest(row[0])
}

/// Root over this number of zero leaves, a power of two.
fn zero_root(leaves: u32) -> [u8; Digest::LEN] {
    (0..leaves.ilog2()).fold([0; Digest::LEN], |node, _| parent(&node, &node))
}

/// One at a time with `sha2`: setting up the lanes of `tape_sha256` costs more than it saves on 64 bytes.
fn parent(left: &[u8; Digest::LEN], right: &[u8; Digest::LEN]) -> [u8; Digest::LEN] {
    Sha256::new().chain_update(left).chain_update(right).finalize().into()
}

/// A processor whose lanes err, in the tests of this crate: on the thread that says so.
#[cfg(test)]
pub(crate) mod faults {
    use std::cell::Cell;

    use proto::Digest;

    thread_local! {
        static IS_FAULTY: Cell<bool> = const { Cell::new(false) };
    }

    pub(crate) fn set(is_faulty: bool) {
        IS_FAULTY.set(is_faulty);
    }

    pub(super) fn strike(leaves: &mut [[u8; Digest::LEN]]) {
        if IS_FAULTY.get() {
            leaves.iter_mut().for_each(|leaf| leaf[31] ^= 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::SMALL_CHUNK_LEN;
    use tape_sha256::{Message, backends};

    use super::*;

    fn sha256(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }

    /// The tree as BEP 52 defines it, over the whole padded row of the file's leaves, with `sha2`.
    fn naive_root(file: &[u8]) -> Digest {
        let mut leaves: Vec<[u8; 32]> = file.chunks(BLOCK_LEN as usize).map(sha256).collect();
        leaves.resize(leaves.len().next_power_of_two(), [0; 32]);
        Digest(fold(leaves))
    }

    fn fold(mut row: Vec<[u8; 32]>) -> [u8; 32] {
        while row.len() > 1 {
            row = row.chunks(2).map(|pair| sha256(pair.as_flattened())).collect();
        }
        row[0]
    }

    /// The leaves of each chunk of a file of this length.
    fn leaf_count(len: usize, chunk_len: u32) -> u32 {
        let blocks = u32::try_from(len.min(chunk_len as usize)).unwrap().div_ceil(BLOCK_LEN);
        blocks.next_power_of_two()
    }

    fn root(file: &[u8], chunk_len: u32) -> Digest {
        let leaves = leaf_count(file.len(), chunk_len);
        let hashes: Vec<_> = file.chunks(chunk_len as usize).map(|chunk| chunk_hash(chunk, leaves)).collect();
        if let [only] = hashes[..] { only } else { root_of_chunks(&hashes, leaves) }
    }

    fn bytes(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|i| ((i * 31) + (i >> 8) * 7 + seed) as u8).collect()
    }

    #[test]
    fn agrees_with_the_definition_at_every_edge() {
        let (block, chunk) = (BLOCK_LEN as usize, CHUNK_LEN as usize);
        let blocks = [1, block - 1, block, block + 1, 3 * block, 5 * block + 7];
        let chunks = [1, 2, 3, 5, 9].into_iter().flat_map(|count| [chunk, chunk / 4].map(|len| count * len));
        let around_chunks = chunks.flat_map(|len| [len - 1, len, len + 9]);
        for len in blocks.into_iter().chain(around_chunks) {
            let file = bytes(len, 3);
            for chunk_len in [CHUNK_LEN, SMALL_CHUNK_LEN] {
                assert_eq!(root(&file, chunk_len), naive_root(&file), "{len} in chunks of {chunk_len}");
            }
        }
    }

    /// A function that hashes messages side by side.
    type HashMany = fn(&[Message<'_>], &mut [[u8; Digest::LEN]]);

    /// What `tape_sha256` chose for this processor, and what it has for any.
    const LANES: [(&str, HashMany); 3] = [
        ("chosen", tape_sha256::hash_messages),
        ("8 lanes", backends::portable8),
        ("1 lane", backends::serial),
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// The lengths of messages differ, so lanes end at different times. More messages than any processor has lanes.
        #[test]
        fn all_lanes_agree_with_sha2(
            lens in prop::collection::vec(prop_oneof![0..200_usize, 0..20_000_usize, Just(BLOCK_LEN as usize)], 0..70),
            seed in any::<u8>(),
        ) {
            let messages: Vec<Vec<u8>> =
                lens.iter().enumerate().map(|(at, &len)| bytes(len, at + usize::from(seed))).collect();
            let expected: Vec<_> = messages.iter().map(|message| sha256(message)).collect();
            let borrowed: Vec<_> = messages.iter().map(|message| Message::new(message)).collect();
            for (name, hash) in LANES {
                let mut found = vec![[0; Digest::LEN]; messages.len()];
                hash(&borrowed, &mut found);
                prop_assert_eq!(&found, &expected, "{}", name);
            }
        }
    }

    #[test]
    fn a_row_longer_than_one_batch_is_paired_right() {
        let hashes: Vec<Digest> = (0..200_u8).map(|i| Digest(sha256(&[i]))).collect();
        let mut row: Vec<_> = hashes.iter().map(|hash| hash.0).collect();
        row.resize(256, fold(vec![[0; 32]; 8]));
        assert_eq!(root_of_chunks(&hashes, 8), Digest(fold(row)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn agrees_with_the_definition(len in 1..1_700_000_usize, seed in any::<u8>()) {
            let file = bytes(len, seed.into());
            for chunk_len in [CHUNK_LEN, SMALL_CHUNK_LEN] {
                prop_assert_eq!(root(&file, chunk_len), naive_root(&file));
                let chunk = &file[..file.len().min(chunk_len as usize)];
                let leaves = leaf_count(file.len(), chunk_len);
                prop_assert_eq!(chunk_hash_by_sha2(chunk, leaves), chunk_hash(chunk, leaves));
            }
        }
    }
}
