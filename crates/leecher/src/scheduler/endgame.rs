//! The end of a transfer: nothing is left to ask for, and what was asked for is late at some peer.
//!
//! A request that only waits there moves to a peer that is expected to be much sooner ([`super::moves`]). A chunk that
//! a peer has begun to send, but slowly, and one of which a peer will not even say whether it comes, is asked of a
//! second peer, and the first to send it ends the other's request.

use std::time::{Duration, Instant};

use proto::ChunkIndex;

use super::{PeerKey, Scheduler, peer::Standing};

/// Another peer is asked for a chunk if it is expected to deliver it this much sooner: an early duplicate wastes
/// bytes, a late one saves nothing.
const ENDGAME_GAIN: f64 = 3.0;

/// A request younger than this is let be: most of a fast transfer's last chunks are just on their way.
pub(super) const ENDGAME_AGE: Duration = Duration::from_millis(150);

impl Scheduler {
    /// Whether all that is missing was asked for.
    pub(super) fn is_endgame(&self) -> bool {
        self.missing.is_empty() && !self.asked.is_empty() && self.peers.len() > 1
    }

    /// The chunk to ask a second peer for, of those that this one would deliver much sooner the one that is expected
    /// last. If that only waits, its request moves instead.
    pub(super) fn endgame_pick(&mut self, key: PeerKey, now: Instant) -> Option<ChunkIndex> {
        if !self.missing.is_empty() {
            return None;
        }
        let (chunk, from) = self.latest(key, now)?;
        if self.peers.get(&from)?.waiting_for(chunk, now).is_some() {
            self.cancel(from, chunk, Standing::Moving { to: key, since: now });
            return None;
        }
        Some(chunk)
    }

    /// Of the chunks that a peer would deliver much sooner than whoever was asked for them, the one that is expected
    /// last, and who was asked for it.
    fn latest(&self, key: PeerKey, now: Instant) -> Option<(ChunkIndex, PeerKey)> {
        let peer = self.peers.get(&key)?;
        let own = peer.expected_next().mul_f64(ENDGAME_GAIN);
        let late = self.asked.iter().filter_map(|(&chunk, askers)| {
            // One that was asked of two already is as good as it can be.
            let &[from] = askers.as_slice() else { return None };
            let asked = self.peers.get(&from)?;
            let outlook = asked.outlook(chunk, now)?;
            let comes = asked.will_come(chunk, own, now) || asked.will_answer(chunk, now);
            let is_late = outlook.age >= ENDGAME_AGE.max(own) && outlook.left > own;
            (from != key && peer.has(chunk) && !comes && is_late).then_some((outlook.left, chunk, from))
        });
        late.max().map(|(_, chunk, from)| (chunk, from))
    }
}
