//! What other peers have: how far a chunk has spread, whether they can do without this one, and which of them owe chunks.

use proto::{Bitfield, ChunkIndex};

use super::{ChunkState, Have, Scheduler};

/// A chunk is rare while fewer than one in this many of the connected leechers have it.
const RARE_PART: usize = 4;

/// How far a chunk has spread among the connected leechers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Few have it.
    Rare,
    /// Many have it, so one more holder matters little.
    Common,
}

impl Scheduler {
    /// How far a chunk has spread.
    pub(crate) fn spread(&self, chunk: ChunkIndex) -> Spread {
        let holders = self.missing.available(chunk) as usize;
        if holders * RARE_PART >= self.leechers { Spread::Common } else { Spread::Rare }
    }

    /// Whether a connected peer needs a chunk that only this one can send: no seeder is connected, and none of the unfinished leechers
    /// has the chunk. (A finished leecher may leave at any time, so it does not count.)
    pub fn is_needed(&self) -> bool {
        if self.knows_seeder() {
            return false;
        }
        let fields = self.peers.values().filter_map(|peer| match &peer.have {
            Have::Some(field) if !field.is_full() => Some(field),
            _ => None,
        });
        let mut union: Option<Bitfield> = None;
        for field in fields {
            match &mut union {
                Some(union) => field.iter().for_each(|chunk| _ = union.insert(chunk)),
                None => union = Some(field.clone()),
            }
        }
        let is_stored = |chunk: ChunkIndex| self.states[chunk.0 as usize] == ChunkState::Stored;
        union.is_some_and(|union| self.space.chunks().any(|chunk| is_stored(chunk) && !union.contains(chunk)))
    }

    /// Whether a seeder is connected.
    pub fn knows_seeder(&self) -> bool {
        self.peers.values().any(|peer| peer.have == Have::All)
    }

    /// The peers that owe chunks.
    pub fn debtors(&self) -> impl Iterator<Item = super::PeerKey> + '_ {
        let mut debtors: Vec<_> =
            self.asked.values().flat_map(|asked| asked.askers.iter().copied()).collect();
        debtors.sort_unstable();
        debtors.dedup();
        debtors.into_iter()
    }

    /// Whether requested chunks have not arrived.
    pub fn is_waiting(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Whether chunks are missing that were not requested.
    pub fn has_missing(&self) -> bool {
        !self.missing.is_empty()
    }
}
