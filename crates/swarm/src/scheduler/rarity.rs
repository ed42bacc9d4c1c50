//! The missing chunks, by how many peers have them.

use proto::{Bitfield, ChunkIndex};
use rand::{Rng, RngExt};

use super::Have;

/// Random tries in a bucket before all of it is searched.
const PROBES: usize = 8;

/// Chunks of a bucket that are looked at for one that comes from another zone: several times as many as a zone has peers that are known.
const SEARCHED: usize = 1_024;

/// Not in any bucket.
const ABSENT: u32 = u32::MAX;

/// A set of chunks in buckets of equal availability. Seeders do not count, because they have all chunks. Adding, removing and a
/// change of availability take constant time. A chunk takes 12 bytes.
#[derive(Debug)]
pub(super) struct Rarity {
    slots: Vec<Slot>,
    /// The chunks of the set, by the number of peers that have them.
    buckets: Vec<Vec<ChunkIndex>>,
    len: usize,
}

/// A chunk, in the set or not. Both fields are used for each chunk that a peer announces, so they are stored together.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Number of leechers that have it.
    available: u32,
    /// Its index in its bucket.
    position: u32,
}

impl Rarity {
    pub(super) fn new(chunk_count: u32) -> Rarity {
        let count = chunk_count as usize;
        let absent = Slot { available: 0, position: ABSENT };
        Rarity { slots: vec![absent; count], buckets: Vec::new(), len: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn contains(&self, chunk: ChunkIndex) -> bool {
        self.slots[chunk.0 as usize].position != ABSENT
    }

    pub(super) fn insert(&mut self, chunk: ChunkIndex) {
        if self.contains(chunk) {
            return;
        }
        let available = self.slots[chunk.0 as usize].available as usize;
        if self.buckets.len() <= available {
            self.buckets.resize_with(available + 1, Vec::new);
        }
        let bucket = &mut self.buckets[available];
        // A bucket holds each chunk once, and there are fewer chunks than u32::MAX.
        self.slots[chunk.0 as usize].position = u32::try_from(bucket.len()).unwrap_or(ABSENT);
        bucket.push(chunk);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, chunk: ChunkIndex) {
        let position = std::mem::replace(&mut self.slots[chunk.0 as usize].position, ABSENT);
        if position == ABSENT {
            return;
        }
        let bucket = &mut self.buckets[self.slots[chunk.0 as usize].available as usize];
        bucket.swap_remove(position as usize);
        if let Some(moved) = bucket.get(position as usize) {
            self.slots[moved.0 as usize].position = position;
        }
        self.len -= 1;
    }

    pub(super) fn more_available(&mut self, chunk: ChunkIndex) {
        self.change(chunk, |available| available + 1);
    }

    pub(super) fn less_available(&mut self, chunk: ChunkIndex) {
        self.change(chunk, |available| available - 1);
    }

    /// Number of leechers that have a chunk.
    pub(super) fn available(&self, chunk: ChunkIndex) -> u32 {
        self.slots[chunk.0 as usize].available
    }

    fn change(&mut self, chunk: ChunkIndex, change: impl FnOnce(u32) -> u32) {
        let present = self.contains(chunk);
        self.remove(chunk);
        let available = &mut self.slots[chunk.0 as usize].available;
        *available = change(*available);
        if present {
            self.insert(chunk);
        }
    }

    /// A random chunk of the set that no leecher has.
    pub(super) fn pick_unavailable(&self, rng: &mut impl Rng) -> Option<ChunkIndex> {
        let bucket = self.buckets.first().filter(|bucket| !bucket.is_empty())?;
        Some(bucket[rng.random_range(0..bucket.len())])
    }

    /// As [`Rarity::pick_unavailable`], of the chunks that are accepted.
    pub(super) fn pick_unavailable_where(
        &self,
        accepts: impl Fn(ChunkIndex) -> bool,
        rng: &mut impl Rng,
    ) -> Option<ChunkIndex> {
        search(self.buckets.first()?, accepts, rng)
    }

    /// As [`Rarity::pick`], of the chunks that are accepted.
    pub(super) fn pick_where(
        &self,
        have: &Have,
        accepts: impl Fn(ChunkIndex) -> bool,
        rng: &mut impl Rng,
    ) -> Option<ChunkIndex> {
        let has = |chunk| match have {
            Have::All => true,
            Have::Some(field) => field.contains(chunk),
        };
        self.buckets.iter().find_map(|bucket| search(bucket, |chunk| has(chunk) && accepts(chunk), rng))
    }

    /// A random one of the rarest chunks of the set that a peer has. The peer itself counts towards the availability.
    pub(super) fn pick(&self, have: &Have, rng: &mut impl Rng) -> Option<ChunkIndex> {
        match have {
            Have::All => {
                let mut buckets = self.buckets.iter().filter(|bucket| !bucket.is_empty());
                buckets.next().map(|bucket| bucket[rng.random_range(0..bucket.len())])
            }
            Have::Some(field) if field.is_empty() => None,
            Have::Some(field) => {
                let mut buckets = self.buckets.iter().skip(1).filter(|bucket| !bucket.is_empty());
                buckets.find_map(|bucket| pick_from(bucket, field, rng))
            }
        }
    }
}

/// A random one of the accepted chunks of a bucket, of which [`SEARCHED`] are looked at.
fn search(
    bucket: &[ChunkIndex],
    accepts: impl Fn(ChunkIndex) -> bool,
    rng: &mut impl Rng,
) -> Option<ChunkIndex> {
    if bucket.is_empty() {
        return None;
    }
    let (end, begin) = bucket.split_at(rng.random_range(0..bucket.len()));
    begin.iter().chain(end).copied().take(SEARCHED).find(|&chunk| accepts(chunk))
}

fn pick_from(bucket: &[ChunkIndex], field: &Bitfield, rng: &mut impl Rng) -> Option<ChunkIndex> {
    let probes = (0..PROBES).map(|_| bucket[rng.random_range(0..bucket.len())]);
    let found = probes.into_iter().find(|&chunk| field.contains(chunk));
    found.or_else(|| {
        let start = rng.random_range(0..bucket.len());
        let (end, begin) = (&bucket[start..], &bucket[..start]);
        end.iter().chain(begin).copied().find(|&chunk| field.contains(chunk))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    proptest! {
        #[test]
        fn picks_one_of_the_rarest_that_the_peer_has(
            edits in prop::collection::vec((0..4_u8, 0..12_u32), 0..120),
            held in prop::collection::vec(0..12_u32, 0..12),
            seed in any::<u64>(),
        ) {
            let mut rarity = Rarity::new(12);
            let (mut present, mut available) = ([false; 12], [0_u32; 12]);
            for (edit, index) in edits {
                let (chunk, at) = (ChunkIndex(index), index as usize);
                match edit {
                    0 => { rarity.insert(chunk); present[at] = true; }
                    1 => { rarity.remove(chunk); present[at] = false; }
                    2 => { rarity.more_available(chunk); available[at] += 1; }
                    _ if available[at] > 0 => { rarity.less_available(chunk); available[at] -= 1; }
                    _ => {}
                }
            }
            let mut field = Bitfield::empty(12);
            for index in held {
                field.insert(ChunkIndex(index));
            }
            let mut rng = StdRng::seed_from_u64(seed);
            for have in [Have::All, Have::Some(field)] {
                let has = |at: usize| match &have {
                    Have::All => true,
                    Have::Some(field) => field.contains(ChunkIndex(at as u32)),
                };
                let counts = |at: usize| have == Have::All || available[at] > 0;
                let rarest = (0..12).filter(|&at| present[at] && has(at) && counts(at)).map(|at| available[at]).min();
                let picked = rarity.pick(&have, &mut rng).map(|chunk| chunk.0 as usize);
                prop_assert_eq!(picked.map(|at| available[at]), rarest);
                prop_assert!(picked.is_none_or(|at| present[at] && has(at)));
            }
            prop_assert_eq!(rarity.is_empty(), !present.contains(&true));
        }
    }
}
