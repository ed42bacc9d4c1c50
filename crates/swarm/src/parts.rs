//! A share in few parts, for people to look at: each part is a run of chunks.
//!
//! A share may have millions of chunks, and a screen shows some hundred columns.

use proto::ChunkIndex;

/// Maximum number of parts.
pub const MAX_PARTS: u32 = 128;

/// How many chunks of each part something is true of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    chunks: u32,
    counts: Vec<u32>,
}

impl Tally {
    /// No chunk of a share that has `chunks` of them.
    pub fn new(chunks: u32) -> Tally {
        Tally { chunks, counts: vec![0; chunks.min(MAX_PARTS) as usize] }
    }

    /// One more chunk. A chunk that the share does not have counts for nothing.
    pub fn add(&mut self, chunk: ChunkIndex) {
        if chunk.0 < self.chunks {
            let part = self.part(chunk.0);
            self.counts[part] = self.counts[part].saturating_add(1);
        }
    }

    /// The percentage of each part, at most 100.
    pub fn percents(&self) -> Vec<u8> {
        let mut sizes = Tally::new(self.chunks);
        // The first chunk of each part, so that no chunk has to be counted.
        let first = |part: u64| (part * u64::from(self.chunks)).div_ceil(self.counts.len().max(1) as u64);
        for (part, size) in (0u64..).zip(&mut sizes.counts) {
            *size = u32::try_from(first(part + 1) - first(part)).unwrap_or(u32::MAX);
        }
        self.percents_of(&sizes)
    }

    /// The percentage of what another tally has in each part, at most 100; 100 of nothing.
    pub fn percents_of(&self, all: &Tally) -> Vec<u8> {
        let percent = |(&count, &all): (&u32, &u32)| match all {
            0 => 100,
            all => u8::try_from(u64::from(count.min(all)) * 100 / u64::from(all)).unwrap_or(100),
        };
        self.counts.iter().zip(&all.counts).map(percent).collect()
    }

    /// The part of a chunk that the share has.
    fn part(&self, chunk: u32) -> usize {
        // Less than the number of parts, because the chunk is less than their number.
        let part = u64::from(chunk) * self.counts.len() as u64 / u64::from(self.chunks);
        usize::try_from(part).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_any_size_has_full_parts_when_all_of_it_is_there() {
        for chunks in [0, 1, 2, 127, 128, 129, 200, 255, 1_000, 4_097] {
            let mut tally = Tally::new(chunks);
            assert_eq!(tally.percents(), vec![0; chunks.min(MAX_PARTS) as usize]);
            for chunk in 0..chunks + 5 {
                assert!(chunk == 0 || chunk >= chunks || tally.percents().contains(&0) || chunk > chunks / 2);
                tally.add(ChunkIndex(chunk));
            }
            assert_eq!(tally.percents(), vec![100; chunks.min(MAX_PARTS) as usize], "{chunks}");
        }
    }

    #[test]
    fn parts_are_in_the_order_of_the_chunks() {
        let mut tally = Tally::new(256);
        [0, 1, 2, 255].into_iter().map(ChunkIndex).for_each(|chunk| tally.add(chunk));
        let percents = tally.percents();
        assert_eq!((percents[0], percents[1], percents[2], percents[127]), (100, 50, 0, 50));
        let mut some = Tally::new(256);
        some.add(ChunkIndex(0));
        assert_eq!(some.percents_of(&tally)[..3], [50, 0, 100]);
    }
}
