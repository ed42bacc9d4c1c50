//! Whether a swarm can do without this peer.

use proto::Bitfield;

use super::{Have, Scheduler};

impl Scheduler {
    /// Whether some connected peer still needs chunks that, of all connected peers, only this one might send:
    /// there are fellows that are not finished, no seeder, and a chunk that none of those fellows has. (A fellow
    /// that is finished may leave any time, so it does not count.)
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
        union.is_some_and(|union| !union.is_full())
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

    /// Whether chunks were asked for that have not come.
    pub fn is_waiting(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Whether chunks are missing that nobody was asked for.
    pub fn has_missing(&self) -> bool {
        !self.missing.is_empty()
    }
}
