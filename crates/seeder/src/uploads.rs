//! Which of the requests that wait is served next.
//!
//! Pure: time is an argument, and whoever drives it moves the bytes. One [`Uploads`] serves one share.
//!
//! A chunk can be passed on only when it is whole, so a few uploads after another spread a share faster than
//! many side by side; and the copies of a chunk that a swarm already has are made faster by the swarm. Hence
//! the policy: of the requests that wait, a chunk that was not sent yet or only once; among those, the peer that
//! was served least; and [`PARALLEL`] uploads at a time, a further one only while those under way take longer
//! than so many at a time should, which means that the receivers are the limit and not this side's link.
//! The figures behind it are in the simulation (the `sim` crate).
//!
//! Every request is answered once, one that is cancelled in time with the word that its chunk will not come. When
//! none waits everybody is told so, for others may have requests waiting elsewhere.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proto::{ChunkIndex, peer::MAX_PIPELINE};

/// Most uploads of one share at a time.
pub const DEFAULT_SLOTS: usize = 8;

/// Uploads that are always worth having at a time. One after another would be best if every receiver had room for
/// it; but some are always being sent to by several peers at once, and what their links have no room for another
/// receiver can use. Fifty leechers with twice as much downlink as uplink take 1.24 times the least time with one
/// upload at a time, 1.09 with two, 1.05 with three and 1.04 with four.
const PARALLEL: usize = 3;

/// Several uploads share a link. One that takes this many times as long as its share of the link lets it, from what
/// one has taken at best, is held up by its receiver.
const PATIENCE: f64 = 1.1;

/// Of the requests that wait at an asker the oldest are considered, so many: of full chunks there are hardly more, and of
/// small ones it matters little which of them is first.
const CONSIDERED: usize = 16;

/// A chunk that was sent this often is as well spread as any other.
const SPREAD: u32 = 2;

/// What an upload is taken to need before one has shown it: a little more than at 50 Mbit/s.
const FIRST_PATIENCE: Duration = Duration::from_millis(100);

/// Patience is not shorter than timers can measure.
const MIN_PATIENCE: Duration = Duration::from_millis(2);

/// How much a longer upload counts in what an upload takes at best, so that a link that became slower is
/// noticed.
const FORGET: u32 = 64;

/// That nothing waits is told no more often: on a fast network it may come to that after every chunk.
const IDLE_INTERVAL: Duration = Duration::from_millis(20);

/// So many are told at a time. Each may then move one request here, so that this many uploads follow. Of fifty leechers
/// that all tell all, the slowest needs 1.07 times the least time; 1.04 with two, 1.03 with four or eight.
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
    active: BTreeMap<AskerKey, Instant>,
    /// Askers with requests that are not being served: those that may be next.
    eligible: usize,
    /// How often each chunk was sent.
    sent: Vec<u32>,
    /// Shortest time that an upload took, slowly forgotten.
    best: Option<Duration>,
    /// Everybody was told that nothing waits, and nothing did since.
    is_known_idle: bool,
    /// When that was last told, and who was the last to hear it.
    idle_told: Option<(Instant, AskerKey)>,
}

#[derive(Debug, Default)]
struct Asker {
    waiting: Vec<ChunkIndex>,
    served: u64,
    /// What is being sent to it.
    serving: Option<ChunkIndex>,
}

impl Uploads {
    /// No requests yet for a share of so many chunks, of which `slots` may be sent at a time.
    pub fn new(chunk_count: u32, slots: usize) -> Uploads {
        Uploads {
            slots,
            askers: BTreeMap::new(),
            active: BTreeMap::new(),
            eligible: 0,
            sent: vec![0; chunk_count as usize],
            best: None,
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
        asker.waiting.push(chunk);
        if asker.waiting.len() == 1 && asker.serving.is_none() {
            self.eligible += 1;
        }
        Requested::Waits
    }

    /// A peer no longer wants a chunk. False if it is too late: what is being sent goes on.
    pub fn cancel(&mut self, key: AskerKey, chunk: ChunkIndex) -> bool {
        let Some(asker) = self.askers.get_mut(&key) else { return false };
        let Some(at) = asker.waiting.iter().position(|&waiting| waiting == chunk) else { return false };
        asker.waiting.remove(at);
        if asker.waiting.is_empty() && asker.serving.is_none() {
            self.eligible -= 1;
        }
        true
    }

    /// Whom to tell now that no request waits and there is room for more uploads, if it has just come to that: a few,
    /// in turn, and not more often than every [`IDLE_INTERVAL`]. If all heard it, all would ask at once.
    pub fn take_idle(&mut self, now: Instant) -> Vec<AskerKey> {
        let waits = self.eligible > 0 || self.active.keys().any(|&key| self.is_waiting(key));
        if waits || self.active.len() >= PARALLEL {
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
        if self.askers.remove(&key).is_some_and(|asker| asker.is_eligible()) {
            self.eligible -= 1;
        }
        self.active.remove(&key);
    }

    /// The next chunk to send and to whom, if one should be sent now. Call until it returns `None`.
    pub fn start(&mut self, now: Instant) -> Option<(AskerKey, ChunkIndex)> {
        if self.eligible == 0 || !self.may_start(now) {
            return None;
        }
        let sent = &self.sent;
        let eligible = self.askers.iter().filter(|(_, asker)| asker.is_eligible());
        let requests = eligible.flat_map(|(&key, asker)| {
            asker.waiting.iter().take(CONSIDERED).enumerate().map(move |(at, &chunk)| {
                let sent = sent.get(chunk.0 as usize).copied().unwrap_or(0);
                ((sent.min(SPREAD), asker.served, sent, at), key, chunk)
            })
        });
        let ((_, _, _, at), key, chunk) = requests.min()?;
        if let Some(asker) = self.askers.get_mut(&key) {
            asker.waiting.remove(at);
            asker.served += 1;
            asker.serving = Some(chunk);
            self.eligible -= 1;
        }
        if let Some(sent) = self.sent.get_mut(chunk.0 as usize) {
            *sent += 1;
        }
        self.active.insert(key, now);
        Some((key, chunk))
    }

    /// The upload to a peer is over.
    pub fn finished(&mut self, key: AskerKey, now: Instant) {
        let Some(started) = self.active.remove(&key) else { return };
        if let Some(asker) = self.askers.get_mut(&key) {
            asker.serving = None;
            self.eligible += usize::from(asker.is_eligible());
        }
        let took = now.saturating_duration_since(started);
        self.best = Some(match self.best {
            Some(best) if took > best => best + (took - best) / FORGET,
            _ => took,
        });
    }

    /// When [`Uploads::start`] may have something though no upload finished.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.eligible == 0 || self.active.len() >= self.slots {
            return None;
        }
        self.active.values().max().map(|&latest| latest + self.patience())
    }

    fn may_start(&self, now: Instant) -> bool {
        let patience = self.patience();
        let is_held_up = |&started| now.saturating_duration_since(started) >= patience;
        self.active.len() < self.slots
            && (self.active.len() < PARALLEL || self.active.values().all(is_held_up))
    }

    /// How long the uploads under way may take before they count as held up.
    fn patience(&self) -> Duration {
        let alone = self.best.map_or(FIRST_PATIENCE, |best| best.mul_f64(PATIENCE).max(MIN_PATIENCE));
        alone * u32::try_from(self.active.len()).unwrap_or(u32::MAX)
    }
}

impl Asker {
    fn is_eligible(&self) -> bool {
        self.serving.is_none() && !self.waiting.is_empty()
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
            uploads.finished(key, now);
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
        uploads.finished(A, ms(40));
        for key in 0..10 {
            uploads.request(AskerKey(key), ChunkIndex(1));
        }
        for _ in 0..PARALLEL {
            assert!(uploads.start(ms(40)).is_some());
        }
        // Three share the link, so each may take three times as long as one alone, and a tenth more.
        assert_eq!(uploads.start(ms(171)), None);
        assert_eq!(uploads.next_timeout(), Some(ms(172)));
        assert!(uploads.start(ms(172)).is_some());
        assert_eq!(uploads.start(ms(999)), None, "no further slot");
        assert_eq!(uploads.next_timeout(), None);
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
        uploads.finished(A, now);
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
