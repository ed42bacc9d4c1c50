//! Requests that move from one peer to another.
//!
//! A peer that was the best choice when it was asked may not be later. A request that moves is cancelled first. The other peer is
//! asked when the first has confirmed the cancellation. So a chunk that moves does not arrive twice, and one that is already on
//! its way simply arrives.

use std::time::{Duration, Instant};

use proto::ChunkIndex;

use super::{
    Asked, Have, PeerKey, Place, Scheduler,
    peer::{Peer, Room, Standing},
};

/// A request is withdrawn from a seeder only if its chunk is expected no sooner than this. A chunk that is about to be sent is
/// left alone.
const WITHDRAW_AHEAD: Duration = Duration::from_millis(100);

/// A request moves to an idle peer when it has waited for this time, and for [`MOVE_AGE`] × the time that the idle peer is expected
/// to need. A younger one may not even have been read.
pub(super) const MIN_MOVE_AGE: Duration = Duration::from_millis(50);
const MOVE_AGE: f64 = 0.25;

impl Scheduler {
    /// A peer reports that it has almost nothing to send.
    pub fn idle(&mut self, key: PeerKey, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.alive(now);
            self.idle.insert(key);
            self.ready.insert(key);
        }
    }

    /// A peer confirmed a cancellation. False if none was sent, which violates the protocol.
    pub fn cancelled(&mut self, key: PeerKey, chunk: ChunkIndex, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else { return true };
        let Some(standing) = peer.cancelled(chunk) else { return false };
        if standing == Standing::Unwanted && peer.is_far() {
            // It does not come twice.
            self.repeated = self.repeated.saturating_sub(1);
        }
        self.ready.insert(key);
        if let Standing::Moving { to, .. } = standing {
            let leechers = self.leechers;
            let can_take = |peer: &Peer| {
                peer.has(chunk)
                    && peer.room() == Room::Everything
                    && !peer.is_paused(now)
                    && peer.wants_more(leechers)
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

    /// As [`Scheduler::withdraw`], from a peer of another zone: a near leecher now has the chunk.
    pub(super) fn withdraw_far(&mut self, chunk: ChunkIndex, now: Instant) {
        let Some(&[key]) = self.asked.get(&chunk).map(|asked| asked.askers.as_slice()) else { return };
        let is_far = |peer: &&Peer| peer.place == Place::Far && !peer.is_sending(chunk);
        if self.peers.get(&key).filter(is_far).is_some() {
            self.cancel(key, chunk, Standing::Unwanted, now);
            self.take_back(key, &[chunk]);
        }
    }

    /// Withdraws the request for a chunk from a seeder, because a leecher now has the chunk, unless the seeder is about to send it.
    /// It does not wait for the seeder's confirmation. If the chunk still arrives from the seeder, that ends the request at the
    /// leecher.
    pub(super) fn withdraw(&mut self, chunk: ChunkIndex, now: Instant) {
        let Some(&[key]) = self.asked.get(&chunk).map(|asked| asked.askers.as_slice()) else { return };
        let Some(peer) = self.peers.get(&key).filter(|peer| peer.have == Have::All) else { return };
        let waits = peer.wait_for(chunk).is_some_and(|wait| wait >= WITHDRAW_AHEAD);
        if waits && !peer.is_sending(chunk) {
            self.cancel(key, chunk, Standing::Unwanted, now);
            self.take_back(key, &[chunk]);
        }
    }

    /// Moves the request that has waited longest to an idle leecher. Seeders get none.
    pub(super) fn move_to_idle(&mut self, key: PeerKey, now: Instant) {
        if !self.idle.contains(&key) {
            return;
        }
        let idle = |peer: &&Peer| peer.owes() == 0 && peer.have != Have::All && peer.place == Place::Near;
        let Some(peer) = self.peers.get(&key).filter(idle) else { return };
        let least = peer.expected_next().mul_f64(MOVE_AGE).max(MIN_MOVE_AGE);
        let Some(latest) = now.checked_sub(least) else { return };
        let waiting = self.asked.iter().filter_map(|(&chunk, Asked { askers, since })| match askers[..] {
            [from] if *since <= latest && from != key && peer.has(chunk) => Some((*since, chunk, from)),
            _ => None,
        });
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_unstable();
        // The oldest chunks may already be on their way.
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
