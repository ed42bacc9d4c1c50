//! Requests that move from the peer where they wait to another.
//!
//! A peer is asked for a chunk when it seems the best choice; later another may be. A request that moves is cancelled
//! first, and the other peer is asked when the first has said that it will not send the chunk: so a chunk that moves
//! does not come twice, and one that is on its way already simply comes.

use std::time::{Duration, Instant};

use proto::ChunkIndex;

use super::{
    Asked, Have, PeerKey, Scheduler,
    peer::{Peer, Standing},
};

/// A request is withdrawn from a seeder only if it would be answered no sooner than this: what is about to be
/// sent is best left alone.
const WITHDRAW_AHEAD: Duration = Duration::from_millis(100);

/// A request moves to an idle peer when it has waited so long, and for this part of what that peer is expected to
/// need: sooner, it may not even have been read where it is.
pub(super) const MIN_MOVE_AGE: Duration = Duration::from_millis(50);
const MOVE_AGE: f64 = 0.25;

impl Scheduler {
    /// A peer says that it has as good as nothing to send to anybody.
    pub fn idle(&mut self, key: PeerKey, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.heard(now);
            self.idle.insert(key);
            self.ready.insert(key);
        }
    }

    /// A peer will not send a chunk, for it was told in time that it need not. False if it was not told so: the
    /// peer does not keep to the protocol.
    pub fn cancelled(&mut self, key: PeerKey, chunk: ChunkIndex, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else { return true };
        let Some(standing) = peer.cancelled(chunk) else { return false };
        self.ready.insert(key);
        if let Standing::Moving { to, .. } = standing {
            let fellows = self.fellows;
            let can_take = |peer: &Peer| {
                peer.has(chunk) && peer.has_room() && !peer.is_paused(now) && peer.wants_more(fellows)
            };
            let is_asked_elsewhere = self.asked.get(&chunk).is_none_or(|asked| asked.askers != [key]);
            if !is_asked_elsewhere && self.peers.get(&to).is_some_and(can_take) {
                self.asked.remove(&chunk);
                self.request(to, chunk, now);
            } else {
                self.take_back(key, &[chunk]);
            }
        }
        true
    }

    /// Takes a chunk that a fellow has by now back from the seeder that was asked for it, unless the seeder is
    /// about to send it. Does not wait for the seeder's word: the fellow need not lose that time, and a chunk that
    /// comes from the seeder after all ends the request at the fellow.
    pub(super) fn withdraw(&mut self, chunk: ChunkIndex, now: Instant) {
        let Some(&[key]) = self.asked.get(&chunk).map(|asked| asked.askers.as_slice()) else { return };
        let Some(peer) = self.peers.get(&key).filter(|peer| peer.have == Have::All) else { return };
        let waits = peer.wait_for(chunk).is_some_and(|wait| wait >= WITHDRAW_AHEAD);
        if waits && !peer.is_sending(chunk) {
            self.cancel(key, chunk, Standing::Unwanted, now);
            self.take_back(key, &[chunk]);
        }
    }

    /// Moves the request that has waited longest to a fellow that has nothing to do. Seeders are spared.
    pub(super) fn move_to_idle(&mut self, key: PeerKey, now: Instant) {
        if !self.idle.contains(&key) {
            return;
        }
        let idle = |peer: &&Peer| peer.owes() == 0 && peer.have != Have::All;
        let Some(peer) = self.peers.get(&key).filter(idle) else { return };
        let least = peer.expected_next().mul_f64(MOVE_AGE).max(MIN_MOVE_AGE);
        let Some(latest) = now.checked_sub(least) else { return };
        let waiting = self.asked.iter().filter_map(|(&chunk, Asked { askers, since })| match askers[..] {
            [from] if *since <= latest && from != key && peer.has(chunk) => Some((*since, chunk, from)),
            _ => None,
        });
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_unstable();
        // The first may be on their way.
        let longest = waiting.into_iter().find(|&(_, chunk, from)| {
            let age = self.peers.get(&from).and_then(|holder| holder.waiting_for(chunk, now));
            age.is_some_and(|age| age >= least)
        });
        if let Some((_, chunk, from)) = longest
            && !self.peers.values().any(|other| other.is_moving_to(key))
        {
            self.cancel(from, chunk, Standing::Moving { to: key, since: now }, now);
        }
    }
}
