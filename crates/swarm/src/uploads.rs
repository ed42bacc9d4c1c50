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
//! link ([`SLOW`]), once it has run for a while ([`LEAST_JUDGED`]); it goes on beside the others, at the rate that the receiver can take. The next upload to the same
//! receiver does not count from its start, until one is as fast as it should be. So receivers that are slow, suspended or
//! hostile occupy no slot, and each of them still gets what it can take.
//!
//! Every request is answered once, and one that is cancelled in time with the word that its chunk will not come. When
//! no request waits, some askers are told so, because they may have requests waiting elsewhere.
//!
//! The figures behind the constants come from the simulation (the `sim` crate).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use proto::{CHUNK_LEN, ChunkIndex, peer::MAX_PIPELINE};

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

/// A further upload starts when all that count take this many times as long as their share of the link lets them.
const PATIENCE: f64 = 1.1;

/// ... and the first further one after this time at the latest. On a link that is so slow that no chunk is sent in this
/// time, that makes one upload more than there should be; with slow receivers that are not found out yet, it lets in a
/// newcomer that may be fast.
const PROBE_AFTER: Duration = Duration::from_millis(100);

/// An upload that is this many times slower than its share of the link lets it is held up by its receiver. Flows that
/// share a link fairly differ by less.
const SLOW: f64 = 4.0;

/// ... but none that has run for less than this. A connection that begins to send, or begins again, on a link that others fill
/// needs several round trips through the filled queue to get its share: without this time, sixteen leechers on links of
/// 100 Mbit/s in network namespaces needed 1.28 times the least time instead of 1.17.
const LEAST_JUDGED: Duration = Duration::from_millis(400);

/// For each upload that was found to be held up within this time, a further one may run: where there are slow receivers there
/// are more, and it would take long to find out hundreds of them three at a time.
const BURST_TIME: Duration = Duration::from_secs(1);

/// Uploads that do not count use part of the link. At least this part is taken to be left for those that do.
const LEAST_LEFT: f64 = 1.0 / 16.0;

/// The oldest requests of each asker that are considered: of full chunks there are hardly more, and of small ones it
/// matters little which is first.
const CONSIDERED: usize = 16;

/// A chunk that was sent this often is as well spread as any other.
const SPREAD: u32 = 2;

/// The time that this side's link is assumed to need for a chunk, before an upload has shown it: 40 Mbit/s. Ten such links
/// side by side look like slow receivers, so below a tenth of this rate uploads do not wait for each other.
const FIRST_CHUNK_TIME: Duration = Duration::from_millis(100);

/// No time of a chunk is taken to be shorter: timers cannot measure it.
const MIN_CHUNK_TIME: Duration = Duration::from_millis(2);

/// Uploads of fewer bytes than this tell nothing about the link: socket buffers take them in at once.
const MIN_MEASURED_LEN: u32 = CHUNK_LEN / 2;

/// The part of a longer upload that is added to the shortest time, so that a link that became slower is noticed.
const FORGET: u32 = 64;

/// A time of a chunk that no upload has shown for this long is taken to be twice as long, and so on.
const DOUBLING_TIME: Duration = Duration::from_secs(10);

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
    /// The time in which this side's link sends a chunk: the shortest that an upload took, slowly forgotten. And when the
    /// last one showed it.
    chunk_time: Option<(Duration, Instant)>,
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

/// A chunk that is being sent.
#[derive(Debug, Clone, Copy)]
struct Upload {
    started: Instant,
    /// Bytes that the receiver's socket took in so far.
    taken: u32,
    /// Its receiver holds it up, so it does not count.
    held_up: bool,
    /// When that was found out, unless it was known before.
    found: Option<Instant>,
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
            chunk_time: None,
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
        if now >= taken.slow_from(self.link(now).possible_time(None)) {
            self.slow.insert(key);
            return;
        }
        self.slow.remove(&key);
        if upload.held_up {
            // It may have been, for a while.
            return;
        }
        let took = took.mul_f64(f64::from(CHUNK_LEN) / f64::from(bytes)).max(MIN_CHUNK_TIME);
        let best = match self.chunk_time {
            Some((best, _)) if took > best => best + (took - best) / FORGET,
            _ => took,
        };
        self.chunk_time = Some((best, now));
    }

    /// When [`Uploads::start`] may have something though no upload finished.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        if self.eligible == 0 {
            return None;
        }
        let link = self.link(now);
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
        let link = self.link(now);
        let mut is_other = false;
        for upload in self.active.values_mut().filter(|upload| !upload.held_up) {
            if now >= link.slow_from(upload) {
                (upload.held_up, upload.found) = (true, Some(now));
                is_other = true;
            }
        }
        if is_other { self.link(now) } else { link }
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

    /// The time in which the link sends a chunk. If no upload has shown it for long, the link may have become slower: or every
    /// upload would seem to be held up from then on.
    fn chunk_time(&self, now: Instant) -> Duration {
        let Some((shown, at)) = self.chunk_time else { return FIRST_CHUNK_TIME };
        let doublings = now.saturating_duration_since(at).as_secs_f64() / DOUBLING_TIME.as_secs_f64();
        // After so many doublings it is as long as any time that matters.
        shown.mul_f64(doublings.min(32.0).exp2()).min(FIRST_CHUNK_TIME.max(shown))
    }

    /// What is known of this side's link.
    fn link(&self, now: Instant) -> LinkState {
        let mut link = LinkState {
            now,
            slots: self.slots,
            chunk_time: self.chunk_time(now),
            counted: 0,
            used: 0.0,
            used_by_others: 0.0,
        };
        for upload in self.active.values() {
            let share = upload.share(now, link.chunk_time);
            link.used += share;
            link.counted += usize::from(!upload.held_up);
            link.used_by_others += if upload.held_up { share } else { 0.0 };
        }
        link
    }
}

/// What is known of this side's link at a moment.
struct LinkState {
    now: Instant,
    slots: usize,
    /// In which it sends a chunk.
    chunk_time: Duration,
    /// Uploads that count.
    counted: usize,
    /// The part of it that all uploads use.
    used: f64,
    /// The part that those use which do not count.
    used_by_others: f64,
}

impl LinkState {
    /// How long a chunk takes if the uploads that count share what the others leave.
    fn fair_time(&self) -> Duration {
        let left = (1.0 - self.used_by_others).max(LEAST_LEFT);
        self.chunk_time.mul_f64(self.counted.max(1) as f64 / left)
    }

    /// How long a chunk takes at most for a receiver that takes what it can get, beside all uploads but its own: it gets its share in
    /// any case, and what the others leave.
    fn possible_time(&self, own: Option<&Upload>) -> Duration {
        let own = own.map_or(0.0, |upload| upload.share(self.now, self.chunk_time));
        // More than there are slots are counted only until it is known which of them are held up.
        let share = 1.0 / self.counted.clamp(1, self.slots) as f64;
        self.chunk_time.div_f64((1.0 - (self.used - own)).max(share))
    }

    /// When an upload is found to be held up by its receiver, unless more bytes are taken in before.
    fn slow_from(&self, upload: &Upload) -> Instant {
        upload.slow_from(self.possible_time(Some(upload)))
    }
}

impl Upload {
    /// When it has taken too long for its bytes, if a chunk is possible in `possible`.
    fn slow_from(&self, possible: Duration) -> Instant {
        let parts = PATIENCE + SLOW * f64::from(self.taken) / f64::from(CHUNK_LEN);
        self.started + possible.mul_f64(parts).max(LEAST_JUDGED)
    }

    /// The part of a link that it uses, if the link sends a chunk in `chunk_time`.
    fn share(&self, now: Instant, chunk_time: Duration) -> f64 {
        // What socket buffers take in at first was not sent yet.
        let time = now.saturating_duration_since(self.started).max(FIRST_CHUNK_TIME);
        let chunks = f64::from(self.taken) / f64::from(CHUNK_LEN);
        (chunks * chunk_time.as_secs_f64() / time.as_secs_f64()).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AskerKey = AskerKey(1);
    const B: AskerKey = AskerKey(2);

    fn chunks(uploads: &mut Uploads, now: Instant) -> Vec<(AskerKey, u32)> {
        std::iter::from_fn(|| {
            let (key, chunk) = uploads.start(now)?;
            uploads.finished(key, CHUNK_LEN, now);
            Some((key, chunk.0))
        })
        .collect()
    }

    #[test]
    fn the_chunk_that_was_sent_least_goes_first() {
        let now = Instant::now();
        let mut uploads = Uploads::new(3, 1);
        uploads.request(A, ChunkIndex(0));
        assert_eq!(chunks(&mut uploads, now), [(A, 0)]);
        for chunk in [0, 1, 2] {
            uploads.request(B, ChunkIndex(chunk));
        }
        uploads.request(A, ChunkIndex(1));
        assert_eq!(chunks(&mut uploads, now), [(B, 1), (B, 2), (A, 1), (B, 0)]);
    }

    #[test]
    fn of_many_requests_the_oldest_are_considered_and_all_are_answered() {
        let now = Instant::now();
        let mut uploads = Uploads::new(100, 1);
        let last = MAX_PIPELINE as u32 - 1;
        for chunk in 0..last {
            uploads.request(A, ChunkIndex(chunk));
        }
        chunks(&mut uploads, now);
        for chunk in 0..=last {
            uploads.request(B, ChunkIndex(chunk));
        }
        let answered = chunks(&mut uploads, now);
        // The only one that was not sent yet comes as soon as it is one of the oldest.
        let at = answered.iter().position(|&(_, chunk)| chunk == last).unwrap();
        assert_eq!(at, MAX_PIPELINE - CONSIDERED);
        assert_eq!(answered.len(), MAX_PIPELINE);
    }

    #[test]
    fn every_asker_gets_its_turn() {
        let now = Instant::now();
        let mut uploads = Uploads::new(1_000, 8);
        for asker in 0..500 {
            for chunk in 0..10 {
                uploads.request(AskerKey(asker), ChunkIndex((asker as u32 * 7 + chunk) % 1_000));
            }
        }
        let mut first: Vec<_> = chunks(&mut uploads, now)[..1_000].iter().map(|&(key, _)| key).collect();
        first.sort();
        first.dedup();
        assert!(first.len() > 300, "{} of 500 were served in the first 1,000 uploads", first.len());
    }

    #[test]
    fn another_upload_starts_only_when_the_receiver_is_the_limit() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut uploads = Uploads::new(10, PARALLEL + 1);
        uploads.request(A, ChunkIndex(0));
        assert!(uploads.start(start).is_some());
        uploads.finished(A, CHUNK_LEN, ms(20));
        for key in 0..10 {
            uploads.request(AskerKey(key), ChunkIndex(1));
        }
        for _ in 0..PARALLEL {
            assert!(uploads.start(ms(20)).is_some());
        }
        uploads.progress(|_| CHUNK_LEN / 2);
        // Three share the link, so each may take three times as long as one alone, and a tenth more.
        assert_eq!(uploads.start(ms(85)), None);
        let next = uploads.next_timeout(ms(85)).unwrap();
        assert!((ms(86)..ms(87)).contains(&next), "{:?}", next - start);
        assert!(uploads.start(next + Duration::from_millis(1)).is_some());
        uploads.progress(|_| CHUNK_LEN);
        assert_eq!(uploads.start(ms(150)), None, "no further slot");
    }

    #[test]
    fn receivers_that_take_nothing_hold_up_nobody() {
        let start = Instant::now();
        let mut uploads = Uploads::new(10, DEFAULT_SLOTS);
        let stuck: Vec<_> = (100..500).map(AskerKey).collect();
        let mut now = start;
        for &key in &stuck {
            uploads.request(key, ChunkIndex(0));
        }
        let mut under_way = 0;
        while under_way < stuck.len() {
            uploads.progress(|_| 0);
            under_way += std::iter::from_fn(|| uploads.start(now)).count();
            now = uploads.next_timeout(now).unwrap_or(now);
        }
        assert!(now <= start + Duration::from_secs(5), "it took {:?} to find them out", now - start);
        // Once they are found out they are in nobody's way.
        now += BURST_TIME;
        uploads.request(A, ChunkIndex(1));
        assert_eq!(uploads.start(now), Some((A, ChunkIndex(1))));
    }

    #[test]
    fn a_slow_receiver_is_served_beside_the_others_until_it_is_fast() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut uploads = Uploads::new(100, PARALLEL);
        let (slow, fast) = (AskerKey(100), [A, B, AskerKey(3)]);
        for &key in fast.iter().chain([&slow]) {
            for chunk in 0..10 {
                uploads.request(key, ChunkIndex(chunk));
            }
        }
        let served = |uploads: &mut Uploads, now| -> Vec<_> {
            std::iter::from_fn(|| uploads.start(now)).map(|(key, _)| key).collect()
        };
        assert_eq!(served(&mut uploads, start), fast);
        fast.iter().for_each(|&key| uploads.finished(key, CHUNK_LEN, ms(30)));
        assert_eq!(served(&mut uploads, ms(30)), [slow, A, B]);
        [A, B].iter().for_each(|&key| uploads.finished(key, CHUNK_LEN, ms(60)));
        // It took an eighth of a chunk while the others took a whole one.
        uploads.progress(|key| if key == slow { CHUNK_LEN / 8 } else { 0 });
        assert_eq!(served(&mut uploads, ms(500)), [AskerKey(3), A, B]);
        uploads.finished(slow, CHUNK_LEN, ms(520));
        uploads.progress(|_| CHUNK_LEN / 2);
        // All slots are taken, and yet it is served.
        assert_eq!(served(&mut uploads, ms(521)), [slow]);
        uploads.finished(slow, CHUNK_LEN, ms(551));
        assert_eq!(
            served(&mut uploads, ms(551)),
            [],
            "it is as fast as the others now and waits for its turn"
        );
    }

    #[test]
    fn rejects_and_small_chunks_tell_nothing_about_the_link() {
        let now = Instant::now();
        let mut uploads = Uploads::new(10, DEFAULT_SLOTS);
        for bytes in [0, 1, MIN_MEASURED_LEN - 1] {
            uploads.request(A, ChunkIndex(0));
            assert!(uploads.start(now).is_some());
            uploads.finished(A, bytes, now);
        }
        for key in 0..10 {
            uploads.request(AskerKey(key), ChunkIndex(1));
        }
        assert_eq!(std::iter::from_fn(|| uploads.start(now)).count(), PARALLEL);
        assert_eq!(uploads.start(now + Duration::from_millis(50)), None);
    }

    #[test]
    fn there_are_no_more_uploads_than_slots() {
        let now = Instant::now();
        let mut uploads = Uploads::new(10, 1);
        uploads.request(A, ChunkIndex(0));
        uploads.request(B, ChunkIndex(0));
        assert_eq!(uploads.start(now), Some((A, ChunkIndex(0))));
        assert_eq!(uploads.start(now), None);
        assert!(!uploads.is_waiting(A));
        assert!(uploads.is_waiting(B));
    }

    #[test]
    fn a_request_can_be_cancelled_while_it_waits_and_goes_with_its_asker() {
        let now = Instant::now();
        let mut uploads = Uploads::new(100, 8);
        for chunk in [1, 2, 2] {
            assert_eq!(uploads.request(A, ChunkIndex(chunk)), Requested::Waits);
        }
        assert!(uploads.cancel(A, ChunkIndex(1)));
        assert!(!uploads.cancel(A, ChunkIndex(1)), "it waits no more");
        uploads.request(B, ChunkIndex(9));
        uploads.leave(B);
        assert_eq!(chunks(&mut uploads, now), [(A, 2), (A, 2)], "each request is answered");
        uploads.request(A, ChunkIndex(3));
        assert!(uploads.start(now).is_some());
        assert!(!uploads.cancel(A, ChunkIndex(3)), "it is being sent");
        uploads.finished(A, CHUNK_LEN, now);
        for chunk in 0..MAX_PIPELINE as u32 {
            uploads.request(A, ChunkIndex(chunk));
        }
        assert_eq!(uploads.request(A, ChunkIndex(99)), Requested::TooMany);
    }

    #[test]
    fn a_few_hear_once_that_nothing_waits_and_others_the_next_time() {
        let start = Instant::now();
        let mut uploads = Uploads::new(100, 1);
        let everybody: Vec<_> = (0..12).map(AskerKey).collect();
        everybody.iter().for_each(|&key| _ = uploads.request(key, ChunkIndex(0)));
        assert_eq!(uploads.take_idle(start), []);
        chunks(&mut uploads, start);
        assert_eq!(uploads.take_idle(start), everybody[..IDLE_TOLD]);
        assert_eq!(uploads.take_idle(start + IDLE_INTERVAL), [], "they know");
        uploads.request(A, ChunkIndex(1));
        assert_eq!(uploads.take_idle(start + IDLE_INTERVAL), []);
        chunks(&mut uploads, start + IDLE_INTERVAL);
        let told = uploads.take_idle(start + IDLE_INTERVAL);
        assert_eq!(told[..5], [8, 9, 10, 11, 0].map(AskerKey));
        uploads.request(A, ChunkIndex(2));
        assert_eq!(uploads.take_idle(start + IDLE_INTERVAL), []);
        chunks(&mut uploads, start + IDLE_INTERVAL);
        assert_eq!(uploads.take_idle(start + IDLE_INTERVAL), [], "so soon after the last time");
    }
}
