//! What is known of this side's link, and which uploads their receivers hold up.

use std::time::{Duration, Instant};

use proto::CHUNK_LEN;

/// A further upload starts when all that count take this many times as long as their share of the link lets them.
pub(super) const PATIENCE: f64 = 1.1;

/// An upload that is this many times slower than its share of the link lets it is held up by its receiver. Flows that
/// share a link fairly differ by less.
const SLOW: f64 = 4.0;

/// ... but none that has run for less than this. A connection that begins to send, or begins again, on a link that others fill
/// needs several round trips through the filled queue to get its share: without this time, sixteen leechers on links of
/// 100 Mbit/s in network namespaces needed 1.28 times the least time instead of 1.17.
const LEAST_JUDGED: Duration = Duration::from_millis(400);

/// Uploads that do not count use part of the link. At least this part is taken to be left for those that do.
const LEAST_LEFT: f64 = 1.0 / 16.0;

/// The time that this side's link is assumed to need for a chunk, before an upload has shown it: 40 Mbit/s. Ten such links
/// side by side look like slow receivers, so below a tenth of this rate uploads do not wait for each other.
const FIRST_CHUNK_TIME: Duration = Duration::from_millis(100);

/// No time of a chunk is taken to be shorter: timers cannot measure it.
pub(super) const MIN_CHUNK_TIME: Duration = Duration::from_millis(2);

/// Uploads of fewer bytes than this tell nothing about the link: socket buffers take them in at once.
pub(super) const MIN_MEASURED_LEN: u32 = CHUNK_LEN / 2;

/// The part of a longer upload that is added to the shortest time, so that a link that became slower is noticed.
const FORGET: u32 = 64;

/// A time of a chunk that no upload has shown for this long is taken to be twice as long, and so on.
const DOUBLING_TIME: Duration = Duration::from_secs(10);

/// What uploads have shown of this side's link.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The time in which this side's link sends a chunk: the shortest that an upload took, slowly forgotten. And when the
    /// last one showed it.
    chunk_time: Option<(Duration, Instant)>,
}

/// A chunk that is being sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upload {
    pub(super) started: Instant,
    /// Bytes that the receiver's socket took in so far.
    pub(super) taken: u32,
    /// Its receiver holds it up, so it does not count.
    pub(super) held_up: bool,
    /// When that was found out, unless it was known before.
    pub(super) found: Option<Instant>,
}

impl Link {
    /// An upload of `bytes` that nobody held up took this time.
    pub(super) fn measured(&mut self, bytes: u32, took: Duration, now: Instant) {
        let took = took.mul_f64(f64::from(CHUNK_LEN) / f64::from(bytes)).max(MIN_CHUNK_TIME);
        let best = match self.chunk_time {
            Some((best, _)) if took > best => best + (took - best) / FORGET,
            _ => took,
        };
        self.chunk_time = Some((best, now));
    }

    /// The time in which the link sends a chunk. If no upload has shown it for long, the link may have become slower: or every
    /// upload would seem to be held up from then on.
    fn chunk_time(&self, now: Instant) -> Duration {
        let Some((shown, at)) = self.chunk_time else { return FIRST_CHUNK_TIME };
        let doublings = now.saturating_duration_since(at).as_secs_f64() / DOUBLING_TIME.as_secs_f64();
        // After so many doublings it is as long as any time that matters.
        shown.mul_f64(doublings.min(32.0).exp2()).min(FIRST_CHUNK_TIME.max(shown))
    }

    /// What is known of the link while these uploads are under way, of which `slots` may count.
    pub(super) fn state<'a>(
        &self,
        uploads: impl Iterator<Item = &'a Upload>,
        slots: usize,
        now: Instant,
    ) -> LinkState {
        let chunk_time = self.chunk_time(now);
        let mut state = LinkState { now, slots, chunk_time, counted: 0, used: 0.0, used_by_others: 0.0 };
        for upload in uploads {
            let share = upload.share(now, chunk_time);
            state.used += share;
            state.counted += usize::from(!upload.held_up);
            state.used_by_others += if upload.held_up { share } else { 0.0 };
        }
        state
    }
}

/// What is known of this side's link at a moment.
pub(super) struct LinkState {
    now: Instant,
    slots: usize,
    /// In which it sends a chunk.
    chunk_time: Duration,
    /// Uploads that count.
    pub(super) counted: usize,
    /// The part of it that all uploads use.
    used: f64,
    /// The part that those use which do not count.
    used_by_others: f64,
}

impl LinkState {
    /// How long a chunk takes if the uploads that count share what the others leave.
    pub(super) fn fair_time(&self) -> Duration {
        let left = (1.0 - self.used_by_others).max(LEAST_LEFT);
        self.chunk_time.mul_f64(self.counted.max(1) as f64 / left)
    }

    /// How long a chunk takes at most for a receiver that takes what it can get, beside all uploads but its own: it gets its share in
    /// any case, and what the others leave.
    pub(super) fn possible_time(&self, own: Option<&Upload>) -> Duration {
        let own = own.map_or(0.0, |upload| upload.share(self.now, self.chunk_time));
        // More than there are slots are counted only until it is known which of them are held up.
        let share = 1.0 / self.counted.clamp(1, self.slots) as f64;
        self.chunk_time.div_f64((1.0 - (self.used - own)).max(share))
    }

    /// When an upload is found to be held up by its receiver, unless more bytes are taken in before.
    pub(super) fn slow_from(&self, upload: &Upload) -> Instant {
        upload.slow_from(self.possible_time(Some(upload)))
    }
}

impl Upload {
    /// When it has taken too long for its bytes, if a chunk is possible in `possible`.
    pub(super) fn slow_from(&self, possible: Duration) -> Instant {
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
