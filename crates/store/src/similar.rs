//! Bytes on this host that are similar to chunks of a share: at the place of the chunk in an earlier version, and not the chunk.
//!
//! When a download begins, such bytes are hashed to find out whether they are the chunk. The sums of their blocks are kept, 8 bytes of
//! each hash. A peer's hashes of the chunk's blocks then show which blocks differ, and only those are fetched. The others are read
//! again, and the whole chunk is proved. So a sum proves nothing and need not: a wrong one costs the blocks that were fetched.
//!
//! Invariant: what is kept here is bounded, by [`MAX_SIMILAR`].

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proto::{
    Bitfield, ChunkIndex, ChunkSpan, Digest,
    peer::{BlockSet, Form, block_count},
};

use crate::{merkle::Leaves, reuse};

/// Maximum chunks whose sums are kept, 256 bytes each at most: 64 MiB, for 128 GiB of chunks that differ. More are fetched whole.
const MAX_SIMILAR: usize = 262_144;

/// A chunk with fewer blocks is fetched whole: that needs one round trip, and not two.
const MIN_BLOCKS: u32 = 4;

/// Bytes of a hash that are kept.
const SUM_LEN: usize = 8;

type Sum = [u8; SUM_LEN];

/// What is known of similar bytes.
#[derive(Debug, Default)]
pub(crate) struct Similar(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Where the bytes of each file of the share are. `None` stands for the part itself, into which the file was cloned.
    places: HashMap<usize, Option<PathBuf>>,
    sums: BTreeMap<ChunkIndex, Box<[Sum]>>,
    /// The file that was read last.
    open: Option<(usize, Arc<File>)>,
}

impl Similar {
    /// Notes the blocks of bytes that are not this chunk. They are in a file, or in the part. The first place of a file counts.
    pub(crate) fn note(&self, chunk: ChunkIndex, span: ChunkSpan, place: Option<&Path>, leaves: &Leaves) {
        let mut state = self.lock();
        if block_count(span.len) < MIN_BLOCKS || state.sums.len() >= MAX_SIMILAR {
            return;
        }
        let noted = state.places.entry(span.file).or_insert_with(|| place.map(Path::to_owned));
        if noted.as_deref() == place {
            state.sums.entry(chunk).or_insert_with(|| leaves.hashes().iter().map(sum).collect());
        }
    }

    /// The chunks of which there are similar bytes.
    pub(crate) fn chunks(&self, chunk_count: u32) -> Bitfield {
        let mut chunks = Bitfield::empty(chunk_count);
        self.lock().sums.keys().for_each(|&chunk| _ = chunks.insert(chunk));
        chunks
    }

    /// In which form to ask for a chunk whose blocks have these hashes: some of its blocks, or all of it if that is hardly more.
    pub(crate) fn compare(&self, chunk: ChunkIndex, leaves: &Leaves) -> Form {
        let state = self.lock();
        let Some(sums) = state.sums.get(&chunk).filter(|sums| sums.len() == leaves.hashes().len()) else {
            return Form::Whole;
        };
        let differing = differing(sums, leaves);
        let is_worth_it = 2 * differing.count() as usize <= sums.len();
        if is_worth_it && !differing.is_empty() { Form::Blocks(differing) } else { Form::Whole }
    }

    /// Whether these blocks of similar bytes are no longer what was noted.
    pub(crate) fn has_changed(&self, chunk: ChunkIndex, blocks: BlockSet, leaves: &Leaves) -> bool {
        let state = self.lock();
        let differing = |sums: &[Sum]| differing(sums, leaves).0 & blocks.0 != 0;
        state.sums.get(&chunk).is_none_or(|sums| differing(sums))
    }

    /// The file with the similar bytes of a file of the share, or `None` if they are in the part.
    pub(crate) fn file(&self, file: usize) -> Option<Arc<File>> {
        let mut state = self.lock();
        if let Some((_, open)) = state.open.as_ref().filter(|(index, _)| *index == file) {
            return Some(Arc::clone(open));
        }
        let open = Arc::new(reuse::open(state.places.get(&file)?.as_deref()?)?);
        state.open = Some((file, Arc::clone(&open)));
        Some(open)
    }

    /// Whether the similar bytes of a file of the share are in the part.
    pub(crate) fn is_in_part(&self, file: usize) -> bool {
        self.lock().places.get(&file).is_some_and(Option::is_none)
    }

    /// Forgets a chunk, which is here or is fetched whole.
    pub(crate) fn forget(&self, chunk: ChunkIndex) {
        self.lock().sums.remove(&chunk);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn differing(sums: &[Sum], leaves: &Leaves) -> BlockSet {
    let mut differing = BlockSet::default();
    for (block, (noted, leaf)) in (0..).zip(sums.iter().zip(leaves.hashes())) {
        if *noted != sum(leaf) {
            differing.insert(block);
        }
    }
    differing
}

fn sum(hash: &[u8; Digest::LEN]) -> Sum {
    let mut sum = Sum::default();
    sum.copy_from_slice(&hash[..SUM_LEN]);
    sum
}
