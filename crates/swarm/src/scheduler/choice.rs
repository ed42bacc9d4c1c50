//! Which chunk to request next from a peer.

use std::time::Instant;

use proto::{
    ChunkIndex,
    peer::{Form, Wish},
};
use rand::Rng;

use super::{
    ChunkState, Command, Have, PeerKey, Place, Scheduler, note_asked,
    peer::{Peer, Room, UNIQUE_DEPTH},
};

/// While this many chunks are arriving, no more are requested from leechers. This side's link is then the limit, and another
/// sender could serve other peers.
pub(super) const MAX_ARRIVING: usize = 8;

/// While this many chunks are arriving from leechers, a seeder is asked for nothing that leechers have, because it would serve others with
/// chunks that nobody has meanwhile.
pub(super) const ENOUGH_ARRIVING: usize = 4;

/// While this many are, a seeder is asked for nothing, if the swarm is large ([`LARGE_SWARM`]). What none of the peers has that a leecher
/// knows may have been sent already. The origin of 200 leechers, half of them at a quarter of the rate, sent 1.15 copies without this, 1.13
/// with seven, 1.07 with six and 1.05 with five. Fifty leechers, half of which can only dial, took 1.06, 1.06, 1.08 and 1.09 times the minimum time.
pub(super) const MORE_THAN_ENOUGH: usize = 6;

/// A leecher that is connected to fewer leechers than this probably knows all of the swarm.
pub(super) const LARGE_SWARM: usize = 32;

impl Scheduler {
    /// Requests one chunk from a peer. False if it has enough requests or no chunk that is needed.
    pub(super) fn ask(&mut self, key: PeerKey, now: Instant, rng: &mut impl Rng) -> bool {
        let Some(chunk) = self.choose(key, now, rng) else { return false };
        self.request(key, chunk, now);
        true
    }

    /// Requests a chunk from a peer.
    pub(super) fn request(&mut self, key: PeerKey, chunk: ChunkIndex, now: Instant) {
        let wish = self.expect(key, chunk, now, now);
        self.commands.push_back(Command::Request(key, wish));
    }

    /// A peer sends a chunk of its choice, which this side asked for at `asked_at`, as if the chunk had been requested. A chunk that is
    /// not needed from it is cancelled.
    pub fn chosen(&mut self, key: PeerKey, chunk: ChunkIndex, asked_at: Instant, now: Instant) {
        let (Some(peer), Some(span)) = (self.peers.get_mut(&key), self.space.span(chunk)) else { return };
        let is_missing = self.states[chunk.0 as usize] == ChunkState::Missing;
        if is_missing && self.parts.form(chunk) == Form::Whole {
            self.expect(key, chunk, asked_at, now);
        } else {
            peer.expect_unwanted(chunk, span.len, now);
            self.commands.push_back(Command::Cancel(key, chunk));
        }
    }

    /// From now on a peer owes a missing chunk. Returns what is asked for of it.
    fn expect(&mut self, key: PeerKey, chunk: ChunkIndex, asked_at: Instant, now: Instant) -> Wish {
        self.missing.remove(chunk);
        self.parts.not_missing(chunk);
        self.states[chunk.0 as usize] = ChunkState::Asked;
        let wish = Wish { chunk, form: self.parts.form(chunk) };
        note_asked(&mut self.asked, chunk, key, now);
        self.idle.remove(&key);
        if let Some(peer) = self.peers.get_mut(&key) {
            let len = self.space.span(chunk).map_or(0, |span| wish.form.len(span.len));
            peer.ask(wish, len, asked_at, now);
            let timeout = peer.next_timeout(now);
            self.next_check = self.next_check.into_iter().chain(timeout).min();
        }
        wish
    }

    /// The chunk to request from a peer, if any.
    fn choose(&mut self, key: PeerKey, now: Instant, rng: &mut impl Rng) -> Option<ChunkIndex> {
        let peer = self.peers.get(&key)?;
        if peer.is_paused(now) {
            return None;
        }
        match peer.room() {
            Room::Nothing => return None,
            Room::Leaves => return self.choose_leaves(key, rng),
            Room::Everything => {}
        }
        let alone = self.leechers == 0;
        let is_large = self.leechers >= LARGE_SWARM;
        if peer.have == Have::All && is_large && self.is_served_by_leechers(MORE_THAN_ENOUGH, now) {
            self.held_back.push(key);
            return None;
        }
        if peer.have == Have::All && !alone && peer.owes() < UNIQUE_DEPTH * self.chunk_len() {
            // A chunk that no leecher has, unless another was begun.
            let crossing = self.zone.as_ref().filter(|_| peer.place == Place::Far);
            let unavailable = match crossing {
                Some(zone) => self.missing.pick_unavailable_where(|chunk| zone.fetches(chunk), rng),
                None => self.parts.pick(peer).or_else(|| self.missing.pick_unavailable(rng)),
            };
            if unavailable.is_some() {
                return unavailable;
            }
        }
        if !peer.wants_more(self.leechers) || alone && self.has_its_part(key) {
            return None;
        }
        let has_enough = match peer.have {
            Have::All => self.is_served_by_leechers(ENOUGH_ARRIVING, now),
            Have::Some(_) => self.is_flooded(now),
        };
        if has_enough {
            self.held_back.push(key);
            return None;
        }
        let peer = self.peers.get_mut(&key)?;
        let crossing = self.zone.as_ref().filter(|_| peer.place == Place::Far);
        let pick = |peer: &Peer, rng| match crossing {
            Some(zone) => self.missing.pick_where(&peer.have, |chunk| zone.fetches(chunk), rng),
            None => self.parts.pick(peer).or_else(|| self.missing.pick(&peer.have, rng)),
        };
        let chunk = if peer.nothing_to_ask { None } else { pick(peer, rng) };
        if chunk.is_none() {
            peer.nothing_to_ask = true;
            if peer.place == Place::Far && !self.is_endgame() {
                return None;
            }
            self.move_to_idle(key, now);
            return self.endgame_pick(key, now);
        }
        chunk
    }

    /// The chunk of which to request the leaves from a peer, if any.
    fn choose_leaves(&self, key: PeerKey, rng: &mut impl Rng) -> Option<ChunkIndex> {
        let peer = self.peers.get(&key)?;
        if self.parts.is_empty() || peer.nothing_to_ask || !peer.wants_more(self.leechers) {
            return None;
        }
        let crossing = self.zone.as_ref().filter(|_| peer.place == Place::Far);
        let is_allowed = |chunk| crossing.is_none_or(|zone| zone.fetches(chunk));
        let is_leaves = |chunk| self.parts.form(chunk) == Form::Leaves && is_allowed(chunk);
        self.missing.pick_where(&peer.have, is_leaves, rng)
    }

    /// Whether a far peer would still send when all others are done, if it were asked for one more chunk. What waits at it would then
    /// have to be asked for at others again, a round trip later.
    fn has_its_part(&self, key: PeerKey) -> bool {
        // Who owes nothing is asked, or the last chunk would be left if each alone needs longer for it than all together.
        let Some(peer) = self.peers.get(&key).filter(|peer| peer.owes() > 0) else { return false };
        let Some(rate) = peer.far_rate() else { return false };
        let others = self.peers.values().map(|peer| (peer.owes(), peer.far_rate().unwrap_or(0.0)));
        let (owed, rates) = others.fold((0, 0.0), |(owed, rates), peer| (owed + peer.0, rates + peer.1));
        let left = owed + self.missing.len() as u64 * self.chunk_len();
        (peer.owes() + self.chunk_len()) as f64 / rate > left as f64 / rates
    }

    /// The length of a full chunk.
    fn chunk_len(&self) -> u64 {
        self.space.chunk_len().into()
    }

    /// Whether this many chunks are arriving from leechers.
    fn is_served_by_leechers(&self, enough: usize, now: Instant) -> bool {
        self.leechers >= enough && self.receiving(now).filter(|peer| peer.have != Have::All).count() >= enough
    }

    /// Whether [`MAX_ARRIVING`] chunks are arriving.
    fn is_flooded(&self, now: Instant) -> bool {
        self.arriving.len() >= MAX_ARRIVING && self.receiving(now).count() >= MAX_ARRIVING
    }

    /// The peers from which a chunk is arriving.
    fn receiving(&self, now: Instant) -> impl Iterator<Item = &Peer> {
        let arriving = self.arriving.iter().filter_map(|key| self.peers.get(key));
        arriving.filter(move |peer| peer.is_receiving(now))
    }
}
