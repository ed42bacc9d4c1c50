//! Chunks that come from other zones, if this side is in one.
//!
//! Peers of one zone are near each other, and what crosses between zones is scarce. So a chunk should cross into a zone once. A chunk
//! that a near leecher has is requested from near peers only. Any other chunk is requested across by one peer of the zone: the one
//! whose hash of its id and the chunk is the smallest (rendezvous hashing). All near peers can compute that, so no message is needed.
//! A peer compares itself with the near leechers that it is connected to, and with those that made room for others lately: connections
//! come and go, so after a second or two a peer has met most of a zone of a hundred. Two peers of a larger zone that have not met may both
//! be responsible for a chunk.
//!
//! In the endgame too, a chunk that a near leecher has is not requested across, however late it is. Any other is requested across from a
//! second peer when the first has had [`DRY_TIME`].
//!
//! A peer that receives nothing may be waiting for one that does nothing, or that lies about its zone. So after [`DRY_TIME`] it
//! requests any chunk from any peer, until a near leecher sends a chunk again.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use proto::{ChunkIndex, PeerId};

use super::{Have, PeerKey, Scheduler, peer::Peer};

/// Without a chunk that is requested or could be, for this time, zones no longer matter. A chunk that enters a zone is passed on sooner.
const DRY_TIME: Duration = Duration::from_secs(1);

/// Maximum number of peers that are asked for a chunk at the same time, if one of them is far. Most far peers have not sent a chunk yet, so
/// many would be tried.
const MAX_CROSSING: usize = 2;

/// A near leecher that made room for another is taken to be there for this time. If it is not, its chunks come when they are all that
/// this side lacks ([`DRY_TIME`]).
const AWAY_TIME: Duration = Duration::from_secs(60);

/// Maximum number of these, so that no peer fills the memory with ids: several times as many as a peer has connections.
const MAX_AWAY: usize = 512;

/// Where a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the zone of this side, or this side is in no zone.
    Near,
    /// Elsewhere.
    Far,
}

/// What this side knows of its zone.
#[derive(Debug)]
pub(super) struct Zone {
    own: PeerId,
    /// The near leechers.
    near: BTreeMap<PeerKey, PeerId>,
    /// Near leechers that made room for others, oldest first, and when.
    away: VecDeque<(PeerId, Instant)>,
    /// For each chunk, how many of these have it.
    copies: Vec<u32>,
    /// Since when nothing is requested.
    dry_since: Option<Instant>,
    /// Nothing came for long, and nothing came from a near leecher since.
    is_open: bool,
}

impl Zone {
    pub(super) fn new(own: PeerId, chunk_count: u32) -> Zone {
        Zone {
            own,
            near: BTreeMap::new(),
            away: VecDeque::new(),
            copies: vec![0; chunk_count as usize],
            dry_since: None,
            is_open: false,
        }
    }

    fn is_near(&self, key: PeerKey) -> bool {
        self.near.contains_key(&key)
    }

    /// A peer has one more chunk. True if it is the first near leecher that has it.
    pub(super) fn spreads(&mut self, key: PeerKey, chunk: ChunkIndex) -> bool {
        if !self.is_near(key) {
            return false;
        }
        let copies = &mut self.copies[chunk.0 as usize];
        *copies += 1;
        *copies == 1
    }

    /// Whether this side requests a chunk from another zone.
    pub(super) fn fetches(&self, chunk: ChunkIndex) -> bool {
        if self.is_open {
            return true;
        }
        let own = weight(self.own, chunk);
        let others = self.near.values().chain(self.away.iter().map(|(id, _)| id));
        self.copies[chunk.0 as usize] == 0 && others.into_iter().all(|&other| own < weight(other, chunk))
    }

    /// Forgets those that made room for others long ago, and any more than [`MAX_AWAY`]. Returns whether there were any.
    fn forget_away(&mut self, now: Instant) -> bool {
        let is_old = |&&(_, since): &&(PeerId, Instant)| now.saturating_duration_since(since) >= AWAY_TIME;
        let old = self.away.iter().take_while(is_old).count().max(self.away.len().saturating_sub(MAX_AWAY));
        self.away.drain(..old).len() > 0
    }
}

impl Scheduler {
    /// This side is in a zone, under this id. Call it before any peer is added.
    #[must_use]
    pub fn in_zone(mut self, own: PeerId) -> Scheduler {
        self.zone = Some(Zone::new(own, self.space.chunk_count()));
        self
    }

    /// A peer joined that is in the zone of this side or not. [`Scheduler::add_peer`] is for sides without a zone.
    pub fn add_peer_at(&mut self, key: PeerKey, id: PeerId, place: Place, have: Have, now: Instant) {
        if let (Some(zone), Have::Some(field), Place::Near) = (&mut self.zone, &have, place) {
            zone.near.insert(key, id);
            zone.away.retain(|&(away, _)| away != id);
            field.iter().for_each(|chunk| zone.copies[chunk.0 as usize] += 1);
        }
        self.add_peer(key, have, now);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.place = place;
        }
    }

    /// A peer made room for another, or this side did at the peer. Call it before [`Scheduler::remove_peer`].
    pub fn make_room(&mut self, key: PeerKey, now: Instant) {
        let Some(zone) = &mut self.zone else { return };
        if let Some(&id) = zone.near.get(&key) {
            zone.away.retain(|&(away, _)| away != id);
            zone.away.push_back((id, now));
        }
    }

    /// A near leecher left, with these chunks.
    pub(super) fn left_zone(&mut self, key: PeerKey, peer: &Peer) {
        let Some(zone) = &mut self.zone else { return };
        if zone.near.remove(&key).is_none() {
            return;
        }
        if let Have::Some(field) = &peer.have {
            field.iter().for_each(|chunk| zone.copies[chunk.0 as usize] -= 1);
        }
        self.ready_far();
    }

    /// A peer sent a chunk.
    pub(super) fn feeds_zone(&mut self, key: PeerKey) {
        if let Some(zone) = self.zone.as_mut().filter(|zone| zone.is_near(key)) {
            zone.is_open = false;
        }
    }

    /// Looks whether this side receives nothing, and from now on ignores zones if so.
    pub(super) fn look_for_drought(&mut self, now: Instant) {
        let is_dry = self.asked.is_empty() && !self.missing.is_empty();
        let Some(zone) = &mut self.zone else { return };
        let is_news = zone.forget_away(now);
        if !is_dry {
            zone.dry_since = None;
        } else if now.saturating_duration_since(*zone.dry_since.get_or_insert(now)) >= DRY_TIME
            && !zone.is_open
        {
            zone.is_open = true;
            self.ready_far();
        }
        if is_news {
            self.ready_far();
        }
    }

    /// Whether a far peer may be asked for a chunk that this number of peers were asked for, the first of them at this age.
    pub(super) fn may_cross_again(&self, chunk: ChunkIndex, age: Duration, askers: usize) -> bool {
        let is_late = age >= DRY_TIME && askers < MAX_CROSSING;
        self.zone.as_ref().is_none_or(|zone| zone.is_open || is_late && zone.fetches(chunk))
    }

    /// When to look for a drought.
    pub(super) fn drought_interval(&self) -> Option<Duration> {
        let zone = self.zone.as_ref()?;
        (self.asked.is_empty() && !self.missing.is_empty() && !zone.is_open && !self.peers.is_empty())
            .then_some(DRY_TIME / 4)
    }

    /// Looks again at what far peers have.
    fn ready_far(&mut self) {
        for (&key, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.place == Place::Far) {
            peer.nothing_to_ask = false;
            self.ready.insert(key);
        }
    }
}

/// Where a peer is among those that may fetch a chunk: the least one fetches it. Everybody must compute the same. It is no secret:
/// who tries out ids gains little, because it is another order for each chunk.
fn weight(PeerId(id): PeerId, ChunkIndex(chunk): ChunkIndex) -> (u64, PeerId) {
    let (one, other) = id.split_at(8);
    let word = |bytes: &[u8]| bytes.iter().fold(0_u64, |word, &byte| word << 8 | u64::from(byte));
    // SplitMix64, whose steps change half of the bits for each bit that differs.
    let mix = |word: u64| {
        let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    };
    let seed = mix(word(one) ^ u64::from(chunk).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (mix(seed ^ word(other)), PeerId(id))
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::{
        super::{
            Command,
            tests::bench::{field, space},
        },
        *,
    };

    const CHUNKS: u32 = 64;

    fn id(number: u8) -> PeerId {
        PeerId([number; 16])
    }

    fn scheduler() -> Scheduler {
        let (none, all) = (proto::Bitfield::empty(CHUNKS), proto::Bitfield::full(CHUNKS));
        Scheduler::new(space(CHUNKS), &all, &none).in_zone(id(0))
    }

    fn requested(scheduler: &mut Scheduler, now: Instant) -> Vec<(PeerKey, ChunkIndex)> {
        scheduler.fill(now, &mut StdRng::seed_from_u64(1));
        let commands = std::iter::from_fn(|| scheduler.poll_command());
        let requests = commands.filter_map(|command| match command {
            Command::Request(key, wish) => Some((key, wish.chunk)),
            Command::Cancel(..) | Command::Drop(_) => None,
        });
        requests.collect()
    }

    #[test]
    fn one_peer_of_a_zone_that_is_fully_meshed_fetches_each_chunk() {
        let zone = |own: u8| {
            let mut zone = Zone::new(id(own), CHUNKS);
            zone.near = (0..5).filter(|&key| key != own).map(|key| (PeerKey(key.into()), id(key))).collect();
            zone
        };
        let zones: Vec<_> = (0..5).map(zone).collect();
        for chunk in (0..CHUNKS).map(ChunkIndex) {
            assert_eq!(zones.iter().filter(|zone| zone.fetches(chunk)).count(), 1);
        }
        assert!(zones.iter().all(|zone| (0..CHUNKS).any(|chunk| zone.fetches(ChunkIndex(chunk)))));
    }

    #[test]
    fn what_a_near_leecher_has_is_not_requested_across() {
        let (mut scheduler, now) = (scheduler(), Instant::now());
        let (near, far) = (PeerKey(1), PeerKey(2));
        let chunks: Vec<u32> = (0..CHUNKS).collect();
        scheduler.add_peer_at(far, id(2), Place::Far, Have::Some(field(CHUNKS, &chunks)), now);
        scheduler.add_peer_at(near, id(1), Place::Near, Have::Some(field(CHUNKS, &chunks)), now);
        let requests = requested(&mut scheduler, now);
        assert!(!requests.is_empty() && requests.iter().all(|&(key, _)| key == near), "{requests:?}");
    }

    #[test]
    fn a_silent_peer_of_the_zone_delays_others_and_cannot_starve_them() {
        let (mut scheduler, now) = (scheduler(), Instant::now());
        scheduler.add_peer_at(PeerKey(1), id(1), Place::Near, Have::Some(field(CHUNKS, &[])), now);
        let theirs =
            (0..CHUNKS).find(|&chunk| weight(id(1), ChunkIndex(chunk)) < weight(id(0), ChunkIndex(chunk)));
        let theirs = theirs.unwrap();
        scheduler.add_peer_at(PeerKey(2), id(2), Place::Far, Have::Some(field(CHUNKS, &[theirs])), now);
        assert_eq!(requested(&mut scheduler, now), []);
        let later = now + DRY_TIME;
        assert_eq!(requested(&mut scheduler, later), [(PeerKey(2), ChunkIndex(theirs))]);
    }

    /// A chunk that this peer of the zone fetches, and not this side.
    fn of(other: u8) -> u32 {
        let is_theirs =
            |chunk: &u32| weight(id(other), ChunkIndex(*chunk)) < weight(id(0), ChunkIndex(*chunk));
        (0..CHUNKS).find(is_theirs).unwrap()
    }

    #[test]
    fn a_near_leecher_that_made_room_still_fetches_its_chunks_for_a_while() {
        let now = Instant::now();
        let theirs = of(1);
        for (makes_room, after, expected) in [
            (true, Duration::ZERO, None),
            (true, AWAY_TIME, Some(PeerKey(2))),
            (false, Duration::ZERO, Some(PeerKey(2))),
        ] {
            let mut scheduler = scheduler();
            scheduler.add_peer_at(PeerKey(1), id(1), Place::Near, Have::Some(field(CHUNKS, &[])), now);
            if makes_room {
                scheduler.make_room(PeerKey(1), now);
            }
            scheduler.remove_peer(PeerKey(1), now);
            // Not a drought yet.
            let later = now + after;
            scheduler.add_peer_at(PeerKey(2), id(2), Place::Far, Have::Some(field(CHUNKS, &[theirs])), later);
            let requests = requested(&mut scheduler, later);
            assert_eq!(requests.first().map(|&(key, _)| key), expected, "{makes_room} {after:?}");
        }
    }

    #[test]
    fn those_that_made_room_are_bounded() {
        let (mut scheduler, now) = (scheduler(), Instant::now());
        for number in 0..2 * MAX_AWAY as u64 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            scheduler.add_peer_at(
                PeerKey(number),
                PeerId(id),
                Place::Near,
                Have::Some(field(CHUNKS, &[])),
                now,
            );
            scheduler.make_room(PeerKey(number), now);
            scheduler.remove_peer(PeerKey(number), now);
        }
        scheduler.fill(now, &mut StdRng::seed_from_u64(1));
        assert_eq!(scheduler.zone.unwrap().away.len(), MAX_AWAY);
    }

    #[test]
    fn what_comes_late_from_a_near_leecher_is_not_requested_across_too() {
        let now = Instant::now();
        for (place, is_asked) in [(Place::Near, true), (Place::Far, false)] {
            // The last chunk that this side lacks.
            let (last, all) = (CHUNKS - 1, proto::Bitfield::full(CHUNKS));
            let have = field(CHUNKS, &(0..last).collect::<Vec<_>>());
            let mut scheduler = Scheduler::new(space(CHUNKS), &all, &have).in_zone(id(0));
            scheduler.add_peer_at(PeerKey(1), id(1), Place::Near, Have::Some(field(CHUNKS, &[last])), now);
            assert_eq!(requested(&mut scheduler, now), [(PeerKey(1), ChunkIndex(last))]);
            let later = now + Duration::from_millis(500);
            scheduler.add_peer_at(PeerKey(2), id(2), place, Have::Some(field(CHUNKS, &[last])), later);
            assert_eq!(!requested(&mut scheduler, later).is_empty(), is_asked, "{place:?}");
        }
    }

    #[test]
    fn what_crosses_late_is_requested_from_one_more_far_peer_and_no_third() {
        let now = Instant::now();
        let (last, all) = (CHUNKS - 1, proto::Bitfield::full(CHUNKS));
        let have = field(CHUNKS, &(0..last).collect::<Vec<_>>());
        let mut scheduler = Scheduler::new(space(CHUNKS), &all, &have).in_zone(id(0));
        let mut asked = Vec::new();
        for (number, after_ms) in [(1, 0), (2, 500), (3, 1_500), (4, 2_500)] {
            let now = now + Duration::from_millis(after_ms);
            let far = Have::Some(field(CHUNKS, &[last]));
            scheduler.add_peer_at(PeerKey(number), id(1), Place::Far, far, now);
            asked.push(requested(&mut scheduler, now).len());
        }
        assert_eq!(asked, [1, 0, 1, 0]);
    }
}
