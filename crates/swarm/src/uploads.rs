//! Which of the waiting requests is served next.
//!
//! Pure: time is an argument, and the caller moves the bytes. One [`Uploads`] serves one share.
//!
//! A receiver can pass on a chunk only when it is whole, so a few uploads at a time spread a share faster than many side
//! by side; and the swarm multiplies a chunk faster than this side can. Hence the policy. Of the waiting requests, one for
//! a chunk that was never sent, or only once, goes first; among those, the peer that was served least. [`PARALLEL`]
//! uploads run at a time, and a further one starts only when those take longer than they should on this side's link.
//!
//! An upload that its receiver holds up does not count. Its socket takes fewer bytes than a quarter of its share of the
//! link ([`link::SLOW`]), once it has run for a while ([`link::LEAST_JUDGED`]); it goes on beside the others, at the rate that the receiver can take. The next upload to the same
//! receiver does not count from its start, until one is as fast as it should be. So receivers that are slow, suspended or
//! hostile occupy no slot, and each of them still gets what it can take.
//!
//! Every request is answered once, and one that is cancelled in time with the word that its chunk will not come. When
//! no request waits, some askers are told so, because they may have requests waiting elsewhere.
//!
//! The figures behind the constants come from the simulation (the `sim` crate).

mod link;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use proto::{ChunkIndex, peer::MAX_PIPELINE};

use link::{Link, LinkState, MIN_CHUNK_TIME, MIN_MEASURED_LEN, PATIENCE, Upload};

/// When a peer that asked for too much should ask again, in milliseconds.
pub const BUSY_RETRY_MS: u32 = 1_000;

/// A peer whose request waits hears that this side is still here when it heard nothing for this long.
pub const WAITING_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Peers that a seeder serves at a time unless it is told otherwise: each costs a file descriptor and a few
/// kilobytes.
pub const DEFAULT_MAX_ASKERS: usize = 500;

/// Maximum uploads of one share at a time that count.
pub const DEFAULT_SLOTS: usize = 8;

/// Uploads that always run at a time. One would be best if every receiver had room for it; but some receive from several
/// peers at once, and another receiver can use what their links have no room for. Fifty leechers with twice as much
/// downlink as uplink take 1.24 times the least time with one upload at a time, 1.09 with two, 1.05 with three and 1.04
/// with four.
const PARALLEL: usize = 3;

/// ... and the first further one after this time at the latest. On a link that is so slow that no chunk is sent in this
/// time, that makes one upload more than there should be; with slow receivers that are not found out yet, it lets in a
/// newcomer that may be fast.
const PROBE_AFTER: Duration = Duration::from_millis(100);

/// For each upload that was found to be held up within this time, a further one may run: where there are slow receivers there
/// are more, and it would take long to find out hundreds of them three at a time.
const BURST_TIME: Duration = Duration::from_secs(1);

/// The oldest requests of each asker that are considered: of full chunks there are hardly more, and of small ones it
/// matters little which is first.
const CONSIDERED: usize = 16;

/// A chunk that was sent this often is as well spread as any other.
const SPREAD: u32 = 2;

/// The least time between two notices that nothing waits: on a fast network it may come to that after every chunk.
const IDLE_INTERVAL: Duration = Duration::from_millis(20);

/// Askers that receive such a notice at a time. Each may then move one request here, so that this many uploads follow. Of
/// fifty leechers that all tell all, the slowest needs 1.07 times the least time; 1.04 with two, 1.03 with four or eight.
const IDLE_TOLD: usize = 8;

/// Names an asker for as long as it is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskerKey(pub u64);

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requested {
    /// It waits, or its chunk is being sent already.
    Waits,
    /// The peer has as many requests waiting as it may.
    TooMany,
}

/// The requests for chunks of one share.
#[derive(Debug)]
pub struct Uploads {
    slots: usize,
    askers: BTreeMap<AskerKey, Asker>,
    active: BTreeMap<AskerKey, Upload>,
    /// How many askers may be next.
    eligible: usize,
    /// Askers whose last upload they held up.
    slow: BTreeSet<AskerKey>,
    /// How often each chunk was sent.
    sent: Vec<u32>,
    link: Link,
    /// The askers were told that nothing waits, and nothing did since.
    is_known_idle: bool,
    /// When that was last told, and the last asker that was told.
    idle_told: Option<(Instant, AskerKey)>,
}

#[derive(Debug, Default)]
struct Asker {
    waiting: Vec<ChunkIndex>,
    served: u64,
    /// What is being sent to it.
    serving: Option<ChunkIndex>,
}

impl Asker {
    /// Whether it may be next: a request of it waits, and nothing is being sent to it.
    fn is_eligible(&self) -> bool {
        self.serving.is_none() && !self.waiting.is_empty()
    }
}

impl Uploads {
    /// No requests yet for a share of so many chunks, of which `slots` may be sent at a time.
    pub fn new(chunk_count: u32, slots: usize) -> Uploads {
        Uploads {
            slots,
            askers: BTreeMap::new(),
            active: BTreeMap::new(),
            eligible: 0,
            slow: BTreeSet::new(),
            sent: vec![0; chunk_count as usize],
            link: Link::default(),
            is_known_idle: false,
            idle_told: None,
        }
    }

    /// A peer asks for a chunk. A request for a chunk that the share does not have waits like any other, so
    /// that it is answered in turn.
    pub fn request(&mut self, key: AskerKey, chunk: ChunkIndex) -> Requested {
        let asker = self.askers.entry(key).or_default();
        if asker.waiting.len() >= MAX_PIPELINE {
            return Requested::TooMany;
        }
        let was_eligible = asker.is_eligible();
        asker.waiting.push(chunk);
        self.eligible += usize::from(asker.is_eligible() && !was_eligible);
        Requested::Waits
    }

    /// A peer no longer wants a chunk. False if it is too late: what is being sent goes on.
    pub fn cancel(&mut self, key: AskerKey, chunk: ChunkIndex) -> bool {
        let Some(asker) = self.askers.get_mut(&key) else { return false };
        let Some(at) = asker.waiting.iter().position(|&waiting| waiting == chunk) else { return false };
        let was_eligible = asker.is_eligible();
        asker.waiting.remove(at);
        self.eligible -= usize::from(was_eligible && !asker.is_eligible());
        true
    }

    /// Whom to tell now that no request waits and there is room for more uploads, if it has just come to that: a few,
    /// in turn, and not more often than every [`IDLE_INTERVAL`]. If all heard it, all would ask at once.
    pub fn take_idle(&mut self, now: Instant) -> Vec<AskerKey> {
        let counted = || self.counted().map(|(key, _)| key);
        let waits = self.eligible > 0 || counted().any(|key| self.is_waiting(key));
        if waits || counted().count() >= PARALLEL {
            self.is_known_idle = false;
            return Vec::new();
        }
        let recently = self.idle_told.is_some_and(|(told, _)| now < told + IDLE_INTERVAL);
        if self.is_known_idle || recently {
            return Vec::new();
        }
        let from = self.idle_told.map_or(AskerKey(0), |(_, last)| AskerKey(last.0 + 1));
        let (before, after) = (self.askers.range(..from), self.askers.range(from..));
        let told: Vec<_> = after.chain(before).map(|(&key, _)| key).take(IDLE_TOLD).collect();
        if let Some(&last) = told.last() {
            self.is_known_idle = true;
            self.idle_told = Some((now, last));
        }
        told
    }

    /// Whether a request of this peer waits.
    pub fn is_waiting(&self, key: AskerKey) -> bool {
        self.askers.get(&key).is_some_and(|asker| !asker.waiting.is_empty())
    }

    /// A peer left.
    pub fn leave(&mut self, key: AskerKey) {
        let asker = self.askers.remove(&key);
        self.eligible -= usize::from(asker.is_some_and(|asker| asker.is_eligible()));
        self.active.remove(&key);
        self.slow.remove(&key);
    }

    /// Whether it depends on the progress of those under way if another upload starts: then [`Uploads::progress`] has to
    /// be called before [`Uploads::start`].
    pub fn is_contended(&self) -> bool {
        self.eligible > 0 && self.active.len() >= PARALLEL
    }

    /// Takes note of how many bytes of each chunk under way its receiver's socket has taken in.
    pub fn progress(&mut self, taken: impl Fn(AskerKey) -> u32) {
        for (&key, upload) in &mut self.active {
            upload.taken = taken(key);
        }
    }

    /// The next chunk to send and to whom, if one should be sent now. Call until it returns `None`.
    pub fn start(&mut self, now: Instant) -> Option<(AskerKey, ChunkIndex)> {
        if self.eligible == 0 {
            return None;
        }
        let link = self.find_held_up(now);
        // Uploads to those who hold them up do not count, so they start at any time.
        let is_time = self.may_start_from(&link, now).is_some_and(|at| at <= now);
        if !is_time && self.slow.is_empty() {
            return None;
        }
        let (key, chunk, at) = self.choose(|key| is_time || self.slow.contains(&key))?;
        if let Some(asker) = self.askers.get_mut(&key) {
            asker.waiting.remove(at);
            asker.served += 1;
            asker.serving = Some(chunk);
            self.eligible -= 1;
        }
        if let Some(sent) = self.sent.get_mut(chunk.0 as usize) {
            *sent += 1;
        }
        let held_up = self.slow.contains(&key);
        self.active.insert(key, Upload { started: now, taken: 0, held_up, found: None });
        Some((key, chunk))
    }

    /// The upload to a peer is over: so many bytes were sent, none if the request was rejected.
    pub fn finished(&mut self, key: AskerKey, bytes: u32, now: Instant) {
        let Some(upload) = self.active.remove(&key) else { return };
        if let Some(asker) = self.askers.get_mut(&key) {
            asker.serving = None;
            self.eligible += usize::from(asker.is_eligible());
        }
        if bytes < MIN_MEASURED_LEN {
            return;
        }
        let took = now.saturating_duration_since(upload.started);
        let taken = Upload { taken: bytes, ..upload };
        if now >= taken.slow_from(self.link_state(now).possible_time(None)) {
            self.slow.insert(key);
            return;
        }
        self.slow.remove(&key);
        if upload.held_up {
            // It may have been, for a while.
            return;
        }
        self.link.measured(bytes, took, now);
    }

    /// When [`Uploads::start`] may have something though no upload finished.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        if self.eligible == 0 {
            return None;
        }
        let link = self.link_state(now);
        let found_out = self.counted().map(|(_, upload)| link.slow_from(upload)).min();
        let further = self.may_start_from(&link, now);
        let next = found_out.into_iter().chain(further).min()?;
        // What is due by now was dealt with, unless receivers took in more meanwhile.
        Some(if next > now { next } else { now + MIN_CHUNK_TIME })
    }

    /// The request to serve next, of those of some askers, and its place among those of its asker. All askers are looked at in turn:
    /// they lie in memory in this order.
    fn choose(&self, may_be_next: impl Fn(AskerKey) -> bool) -> Option<(AskerKey, ChunkIndex, usize)> {
        let askers = self.askers.iter().map(|(&key, asker)| (key, asker));
        let askers = askers.filter(|&(key, asker)| asker.is_eligible() && may_be_next(key));
        let requests = askers.flat_map(|(key, asker)| {
            asker.waiting.iter().take(CONSIDERED).enumerate().map(move |(at, &chunk)| {
                let sent = self.sent.get(chunk.0 as usize).copied().unwrap_or(0);
                ((sent.min(SPREAD), asker.served, sent, at), key, chunk)
            })
        });
        requests.min().map(|((_, _, _, at), key, chunk)| (key, chunk, at))
    }

    /// Stops to count the uploads that their receivers hold up. Gives the state of the link then.
    fn find_held_up(&mut self, now: Instant) -> LinkState {
        let link = self.link_state(now);
        let mut is_other = false;
        for upload in self.active.values_mut().filter(|upload| !upload.held_up) {
            if now >= link.slow_from(upload) {
                (upload.held_up, upload.found) = (true, Some(now));
                is_other = true;
            }
        }
        if is_other { self.link_state(now) } else { link }
    }

    /// From when another upload may start, if those under way go on as they do.
    fn may_start_from(&self, link: &LinkState, now: Instant) -> Option<Instant> {
        let count = link.counted;
        let is_recent = |upload: &&Upload| upload.found.is_some_and(|found| now < found + BURST_TIME);
        let found = self.active.values().filter(is_recent).count();
        if count < PARALLEL.min(self.slots) + found {
            return Some(now);
        }
        let patience = link.fair_time().mul_f64(PATIENCE);
        let patience = if count <= PARALLEL { patience.min(PROBE_AFTER) } else { patience };
        let latest = self.counted().map(|(_, upload)| upload.started).max()?;
        (count < self.slots).then_some(latest + patience)
    }

    /// The uploads that count.
    fn counted(&self) -> impl Iterator<Item = (AskerKey, &Upload)> {
        self.active.iter().filter(|(_, upload)| !upload.held_up).map(|(&key, upload)| (key, upload))
    }

    /// What is known of this side's link.
    fn link_state(&self, now: Instant) -> LinkState {
        self.link.state(self.active.values(), self.slots, now)
    }
}
