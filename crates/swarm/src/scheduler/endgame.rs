//! The endgame: chunks that are late, when nothing else is left to request.
//!
//! No peer keeps a chunk that another could send much sooner. If the chunk only waits at a peer that answers soon, its request
//! moves ([`super::moves`]). Otherwise the other peer is asked too, and the first to send the chunk ends the other requests. This
//! is the rule at the end of a transfer. Before, it applies only to chunks that have waited for [`HOSTAGE_AGE`] at peers that have
//! not sent a chunk yet, if a proven peer has nothing else to do.
//!
//! A far peer answers late and has much in its socket, so a request is taken back from it without waiting for the answer. Some of these
//! chunks come all the same. Their number is bounded ([`REPEATED_SHARE`]).

use std::time::{Duration, Instant};

use proto::ChunkIndex;

use super::{
    Asked, PeerKey, Place, Scheduler,
    peer::{Outlook, Peer, Standing},
};

/// Another peer is asked for a chunk only if it is expected to deliver it this many times sooner. Otherwise the duplicate would
/// waste bytes and save little time.
const ENDGAME_GAIN: f64 = 3.0;

/// The same for a chunk of a far peer. The request is taken back, so most do not come twice.
const FAR_GAIN: f64 = 1.5;

/// The same if as many came twice as may. A far peer from which nothing arrives for so long has stopped: repairing a loss takes several round
/// trips, and then all that it sent meanwhile arrives at once.
const FAR_LAST_GAIN: f64 = 8.0;

/// Of the chunks of a share, one in this many may come twice because it was taken back from a far peer too late.
const REPEATED_SHARE: u32 = 128;

/// Minimum age of a request before another peer is asked. Most of the last chunks of a fast transfer are already on their way.
pub(super) const ENDGAME_AGE: Duration = Duration::from_millis(150);

/// The same for a request to a peer that has not sent a chunk yet.
const UNPROVEN_AGE: Duration = Duration::from_millis(25);

/// The same before the endgame. A leecher that serves others first may take as long.
const HOSTAGE_AGE: Duration = Duration::from_secs(2);

/// Maximum number of proven peers that are asked for the same chunk. Each must be several times faster than the ones before, so
/// more would seldom help.
const MAX_PROVEN_ASKERS: usize = 3;

/// An unproven peer is asked for a chunk only if fewer peers than this were asked for it. This does not hold for a new peer that is
/// tried with the chunk.
const MAX_UNPROVEN_ASKERS: usize = 2;

impl Scheduler {
    /// Whether all missing chunks were requested.
    pub(super) fn is_endgame(&self) -> bool {
        self.missing.is_empty() && !self.asked.is_empty() && self.peers.len() > 1
    }

    /// Of the chunks that this peer would deliver much sooner than the peers that were asked, the one expected last. If its request
    /// can move to this peer, it moves, and nothing is returned.
    pub(super) fn endgame_pick(&mut self, key: PeerKey, now: Instant) -> Option<ChunkIndex> {
        let peer = self.peers.get(&key)?;
        let (own, proven) = (peer.expected_next(), peer.is_proven());
        let (chunk, from) = self.latest(key, now)?;
        let holder = self.peers.get(&from)?;
        let waits = holder.waiting_for(chunk, now).is_some()
            && self.asked.get(&chunk).is_some_and(|asked| asked.askers.len() == 1);
        if self.leechers == 0 && holder.is_far() && proven {
            self.repeated += 1;
            // An answer would take a round trip, and comes behind all that the peer's socket holds.
            if waits {
                self.cancel(from, chunk, Standing::Unwanted, now);
                self.take_back(from, &[chunk]);
            }
            return Some(chunk);
        }
        let moves = waits && holder.answers_within(own, now);
        if !moves {
            return Some(chunk);
        }
        // A request moves only to a proven peer. Another might deliver nothing.
        if proven {
            self.cancel(from, chunk, Standing::Moving { to: key, since: now }, now);
            return None;
        }
        Some(chunk)
    }

    /// Whether few chunks come twice if one more is asked for at another peer than a far one.
    fn may_repeat(&self) -> bool {
        self.repeated <= self.space.chunk_count() / REPEATED_SHARE
    }

    /// Finds the chunks that have waited for long only at peers that have sent no chunk. Not needed in the endgame, which looks at
    /// all chunks.
    pub(super) fn find_hostages(&mut self, now: Instant) {
        self.hostages.clear();
        if self.missing.is_empty() {
            return;
        }
        let is_old = |since| now.saturating_duration_since(since) >= HOSTAGE_AGE;
        let proves = |key: &PeerKey| self.peers.get(key).is_some_and(Peer::is_proven);
        let hostages =
            self.asked.iter().filter(|(_, asked)| is_old(asked.since) && !asked.askers.iter().any(proves));
        self.hostages.extend(hostages.map(|(&chunk, _)| chunk));
    }

    /// Of the chunks that a peer would deliver much sooner than all peers that were asked for them, the one expected last, and the
    /// peer it is expected from.
    fn latest(&self, key: PeerKey, now: Instant) -> Option<(ChunkIndex, PeerKey)> {
        let peer = self.peers.get(&key)?;
        let own = peer.expected_next();
        let is_end = self.missing.is_empty();
        let is_new = !peer.is_proven() && peer.owes() == 0;
        let all = is_end.then_some(&self.asked).into_iter().flatten();
        let hostages = if is_end || !peer.is_proven() { &[][..] } else { &self.hostages };
        let hostages = hostages.iter().filter_map(|chunk| self.asked.get_key_value(chunk));
        // A younger request is not late at any peer.
        let min_age = if is_new { Duration::ZERO } else { UNPROVEN_AGE.max(own) };
        let may_repeat = self.may_repeat();
        let late = all.chain(hostages).filter_map(|(&chunk, Asked { askers, since })| {
            let age = now.saturating_duration_since(*since);
            if age < min_age || askers.contains(&key) || !peer.has(chunk) {
                return None;
            }
            if peer.place == Place::Far && !self.may_cross_again(chunk, age, askers.len()) {
                return None;
            }
            let (outlook, from) = self.first_expected(askers, chunk, now)?;
            let holder = self.peers.get(&from)?;
            let min_age = match (is_end, holder.is_proven()) {
                (true, true) => ENDGAME_AGE,
                (true, false) => UNPROVEN_AGE,
                (false, false) if peer.is_proven() => HOSTAGE_AGE,
                (false, _) => return None,
            };
            let has_room = if peer.is_proven() {
                askers.iter().filter(|asker| self.is_proven(asker)).count() < MAX_PROVEN_ASKERS
            } else {
                askers.len() < MAX_UNPROVEN_ASKERS
            };
            let gain = match self.leechers == 0 && holder.is_far() {
                true if may_repeat => FAR_GAIN,
                true => FAR_LAST_GAIN,
                false => ENDGAME_GAIN,
            };
            let is_late = has_room && outlook.age >= min_age.max(own) && outlook.left > own.mul_f64(gain);
            // A new peer is tried with one chunk of unproven peers, however many were asked: a chunk that waits behind others there,
            // or has not arrived for a while.
            let may_try = is_end && is_new && !holder.is_proven();
            let is_tried = may_try && (outlook.age >= ENDGAME_AGE || holder.is_behind_others(chunk));
            let is_moving = askers.iter().filter_map(|asker| self.peers.get(asker));
            let is_moving = is_moving.into_iter().any(|asker: &Peer| asker.will_answer(chunk, now));
            ((is_late || is_tried) && !is_moving).then_some((outlook.left, chunk, from))
        });
        late.max().map(|(_, chunk, from)| (chunk, from))
    }

    /// The peer from which a requested chunk is expected first, and when. If all are unproven and none is sending it, the one that
    /// was asked first counts. Otherwise each new peer that is tried would make the chunk seem early again.
    fn first_expected(
        &self,
        askers: &[PeerKey],
        chunk: ChunkIndex,
        now: Instant,
    ) -> Option<(Outlook, PeerKey)> {
        let outlook = |&asker: &PeerKey| Some((self.peers.get(&asker)?.outlook(chunk, now)?, asker));
        let is_sending = |asker: &PeerKey| self.peers.get(asker).is_some_and(|peer| peer.is_sending(chunk));
        let shows = |asker: &&PeerKey| self.is_proven(asker) || is_sending(asker);
        let shown = askers.iter().filter(shows).filter_map(outlook).min_by_key(|(outlook, _)| outlook.left);
        shown.or_else(|| askers.iter().filter_map(outlook).max_by_key(|(outlook, _)| outlook.left))
    }

    pub(super) fn is_proven(&self, key: &PeerKey) -> bool {
        self.peers.get(key).is_some_and(Peer::is_proven)
    }
}
