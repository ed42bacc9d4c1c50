//! The rate of this side's link, and which uploads their receivers hold up.
//!
//! A chunk means [`CHUNK_LEN`] bytes here, in a share of small chunks too.

use std::time::{Duration, Instant};

use proto::CHUNK_LEN;

/// A further upload starts when all that count take this many times as long as their share of the link allows.
const PATIENCE: f64 = 1.1;

/// An upload is held up by its receiver if it is this many times slower than its share of the link allows. Where downlinks are as full as
/// uplinks, flows differ by several times. With 4 in place of 16, ever more uploads began to receivers that were full already: two
/// hundred leechers, half of them at a quarter of the rate, took 1.8 times the minimum time instead of 1.04.
const SLOW: f64 = 16.0;

/// An upload that has run for less than this does not count as held up. On a full link a connection needs several round trips through
/// the full queue to get its share. Without this time, sixteen leechers on links of 100 Mbit/s in network namespaces took 1.28 times
/// the minimum time instead of 1.17.
const LEAST_JUDGED: Duration = Duration::from_millis(400);

/// Uploads that do not count use part of the link. At least this part is assumed to be left for those that count.
const LEAST_LEFT: f64 = 1.0 / 16.0;

/// The same when it is judged whether an upload is held up. If only slow receivers have shown how fast the link is, they seem to use all of
/// it, and the next slow ones would seem to get their share.
const LEAST_LEFT_JUDGING: f64 = 3.0 / 4.0;

/// The assumed time of a chunk on this side's link before it is measured, and its maximum: 26 Mbit/s. If only slow receivers have shown how fast
/// the link is, they would take each slot for as long as they like without this maximum. On a link that is many times slower, all
/// uploads look held up, and more and more start. With 40 Mbit/s, and uploads that were held up at a quarter of their share, an origin of
/// 10 Mbit/s had 49 uploads at the same time, and fifty leechers took 1.19 times the minimum time for 128 MiB instead of 1.01.
const MAX_CHUNK_TIME: Duration = Duration::from_millis(160);

/// The rate of an upload is measured over this time at least, because socket buffers take in bytes in bursts.
pub(super) const RECENT_TIME: Duration = Duration::from_millis(100);

/// Minimum time of a chunk, because timers cannot measure less.
pub(super) const MIN_CHUNK_TIME: Duration = Duration::from_millis(2);

/// The link is measured over this many bytes of all uploads together, and over [`MEASURED_TIME`] at least.
const MEASURED_LEN: u64 = 4 * CHUNK_LEN as u64;

/// The sockets of the first uploads take in about this many bytes at once, however slow the link is. If these counted, a link would seem
/// a tenth faster than it is, and never full.
const FILL_LEN: u64 = CHUNK_LEN as u64;

/// Socket buffers take in bytes in bursts, which measure nothing.
const MEASURED_TIME: Duration = Duration::from_millis(20);

/// Whether the link is full is known from the rate of about this time.
const AVERAGE_TIME: Duration = Duration::from_millis(50);

/// A link is full if uploads use at least this part of it.
const FULL: f64 = 0.9;

/// A longer time of a chunk moves the measured one up by the difference ÷ `FORGET`, so that a link that became slower is noticed.
const FORGET: u32 = 64;

/// The measured time of a chunk doubles each time that nothing has shown it for this long.
const DOUBLING_TIME: Duration = Duration::from_secs(10);

/// The link, as far as uploads have shown it.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The time of a chunk on this side's link, and when it was last measured. It is the shortest one, which is slowly forgotten.
    chunk_time: Option<(Duration, Instant)>,
    /// The bytes that are not measured yet, if an upload is under way.
    unmeasured: Option<Unmeasured>,
    /// The rate of all uploads, if one was always under way for a while.
    average: Option<Average>,
}

/// The bytes that all uploads sent since a moment. One was always under way since then.
#[derive(Debug, Clone, Copy)]
struct Unmeasured {
    since: Instant,
    sent: u64,
    /// Whether sockets still fill ([`FILL_LEN`]).
    is_filling: bool,
}

/// A rate that forgets what is older than some [`AVERAGE_TIME`].
#[derive(Debug, Clone, Copy)]
struct Average {
    since: Instant,
    /// In bytes a second, at this moment.
    rate: f64,
    at: Instant,
}

/// A chunk that is being sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upload {
    pub(super) started: Instant,
    /// Bytes that the receiver's socket has taken in so far.
    pub(super) taken: u32,
    /// Until when its receiver took its part of the link ([`Upload::judge`]).
    in_time: Mark,
    /// When its rate was last measured.
    measured: Mark,
    /// That rate, over [`RECENT_TIME`] at least, in bytes a second.
    rate: Option<f64>,
    /// Whether its receiver holds it up, so that it does not count.
    pub(super) held_up: bool,
    /// When that was found out. `None` if it was known from the start.
    pub(super) found: Option<Instant>,
}

/// How far an upload was at a moment.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    /// Bytes that the receiver's socket had taken in.
    taken: u32,
}

impl Link {
    /// Records that an upload begins.
    pub(super) fn begins(&mut self, now: Instant) {
        self.unmeasured.get_or_insert(Unmeasured { since: now, sent: 0, is_filling: true });
        self.average.get_or_insert(Average { since: now, at: now, rate: 0.0 });
    }

    /// Records that no upload is under way.
    pub(super) fn rests(&mut self) {
        (self.unmeasured, self.average) = (None, None);
    }

    /// Records that uploads sent more bytes.
    pub(super) fn sent(&mut self, bytes: u64, now: Instant) {
        if let Some(average) = &mut self.average {
            average.sent(bytes, now);
        }
        let Some(Unmeasured { since, sent, is_filling }) = &mut self.unmeasured else { return };
        *sent += bytes;
        let took = now.saturating_duration_since(*since);
        let next = Unmeasured { since: now, sent: 0, is_filling: false };
        if *is_filling && *sent >= FILL_LEN {
            self.unmeasured = Some(next);
            return;
        }
        if *sent < MEASURED_LEN || took < MEASURED_TIME {
            return;
        }
        let took = took.mul_f64(f64::from(CHUNK_LEN) / *sent as f64).max(MIN_CHUNK_TIME);
        let best = match self.chunk_time {
            Some((best, _)) if took > best => best + (took - best) / FORGET,
            _ => took,
        };
        self.chunk_time = Some((best, now));
        self.unmeasured = Some(next);
    }

    /// The time of a chunk as measured. If nothing has shown it for long, it grows, because the link may have become slower. Otherwise
    /// every upload would then seem held up.
    fn measured_time(&self, now: Instant) -> Option<Duration> {
        let (shown, at) = self.chunk_time?;
        let doublings = now.saturating_duration_since(at).as_secs_f64() / DOUBLING_TIME.as_secs_f64();
        // After 32 doublings it is longer than any time that matters.
        Some(shown.mul_f64(doublings.min(32.0).exp2()))
    }

    /// Whether uploads use less of the link than they could. False as long as that is not known.
    fn has_room(&self, now: Instant) -> bool {
        let (Some(time), Some(average)) = (self.measured_time(now), self.average) else { return false };
        let used = average.rate * time.as_secs_f64() / f64::from(CHUNK_LEN);
        now >= average.since + 2 * AVERAGE_TIME && used < FULL
    }

    /// The state of the link with these uploads under way, of which `slots` may count.
    pub(super) fn state<'a>(
        &self,
        uploads: impl Iterator<Item = &'a Upload>,
        slots: usize,
        now: Instant,
    ) -> LinkState {
        let chunk_time = self.measured_time(now).map_or(MAX_CHUNK_TIME, |time| time.min(MAX_CHUNK_TIME));
        let has_room = self.has_room(now);
        let mut state =
            LinkState { now, slots, chunk_time, has_room, counted: 0, used: 0.0, used_by_others: 0.0 };
        for upload in uploads {
            let share = upload.share(now, chunk_time);
            if upload.held_up {
                state.used_by_others += share;
            } else {
                state.counted += 1;
                state.used += share;
            }
        }
        state
    }
}

impl Average {
    fn sent(&mut self, bytes: u64, now: Instant) {
        let age = now.saturating_duration_since(self.at).as_secs_f64() / AVERAGE_TIME.as_secs_f64();
        self.rate = self.rate * (-age).exp() + bytes as f64 / AVERAGE_TIME.as_secs_f64();
        self.at = now;
    }
}

/// The state of the link at a moment.
pub(super) struct LinkState {
    now: Instant,
    slots: usize,
    /// The time of a chunk.
    chunk_time: Duration,
    /// Whether more could be sent.
    has_room: bool,
    /// Number of uploads that count.
    pub(super) counted: usize,
    /// The part of the link that they use.
    used: f64,
    /// The part of the link that the uploads which do not count use.
    used_by_others: f64,
}

impl LinkState {
    /// How long after the last upload another one may start, if the longest chunk has `len` bytes. On a full link that is the time of such a
    /// chunk, if the uploads that count divide what the others leave. On one with room it is the time of a chunk on all of the link, so
    /// the room is filled as fast as the link could send.
    pub(super) fn pause(&self, len: u32) -> Duration {
        let time = self.chunk_time.mul_f64(PATIENCE * f64::from(len) / f64::from(CHUNK_LEN));
        if self.has_room {
            return time;
        }
        let left = (1.0 - self.used_by_others).max(LEAST_LEFT);
        time.mul_f64(self.counted.max(1) as f64 / left)
    }

    /// The maximum time of a chunk for a receiver that takes all it can get. It gets its share of the link, or what the other uploads
    /// leave if that is more. `own` is its own upload, if that is under way and counts.
    pub(super) fn possible_time(&self, own: Option<&Upload>) -> Duration {
        let own = own.map_or(0.0, |upload| upload.share(self.now, self.chunk_time));
        let left = (1.0 - self.used_by_others).max(LEAST_LEFT_JUDGING);
        // There are more uploads than slots only until those that are held up are found out.
        let share = left / self.counted.clamp(1, self.slots) as f64;
        self.chunk_time.div_f64((left - (self.used - own)).max(share))
    }

    /// When an upload counts as held up by its receiver, unless more bytes are taken in before.
    pub(super) fn slow_from(&self, upload: &Upload) -> Instant {
        upload.slow_from(self.possible_time(Some(upload)))
    }
}

impl Upload {
    /// An upload that begins. `held_up` if it does not count from its start.
    pub(super) fn new(held_up: bool, now: Instant) -> Upload {
        let start = Mark { at: now, taken: 0 };
        Upload { started: now, taken: 0, in_time: start, measured: start, rate: None, held_up, found: None }
    }

    /// Notes that the receiver took its part of the link until now, if it did. `possible` is the time of a chunk. So bytes that were taken
    /// in faster do not count later: a socket buffer takes in up to some hundred kilobytes at once, whatever the receiver does.
    pub(super) fn judge(&mut self, possible: Duration, now: Instant) {
        let mark = Mark { at: now, taken: self.taken };
        if now <= self.in_time.at + slow_time(possible, self.taken - self.in_time.taken) {
            self.in_time = mark;
        }
        if now >= self.measured.at + RECENT_TIME {
            (self.rate, self.measured) = (Some(self.rate_since_measured(now)), mark);
        }
    }

    fn rate_since_measured(&self, now: Instant) -> f64 {
        let time = now.saturating_duration_since(self.measured.at).max(RECENT_TIME);
        f64::from(self.taken - self.measured.taken) / time.as_secs_f64()
    }

    /// When it has taken too long for its bytes, if `possible` is the time of a chunk.
    pub(super) fn slow_from(&self, possible: Duration) -> Instant {
        let patience = possible.mul_f64(PATIENCE);
        let slow_time = slow_time(possible, self.taken - self.in_time.taken);
        self.in_time.at + (slow_time + patience).max(LEAST_JUDGED)
    }

    /// Whether `bytes` took too long from its start until now.
    pub(super) fn was_slow(&self, bytes: u32, possible: Duration, now: Instant) -> bool {
        let whole = Upload { taken: bytes, in_time: Mark { at: self.started, taken: 0 }, ..*self };
        now >= whole.slow_from(possible)
    }

    /// The part of the link that it uses, if `chunk_time` is the time of a chunk.
    fn share(&self, now: Instant, chunk_time: Duration) -> f64 {
        let rate = self.rate.unwrap_or_else(|| self.rate_since_measured(now));
        (rate * chunk_time.as_secs_f64() / f64::from(CHUNK_LEN)).min(1.0)
    }
}

/// The time in which a receiver takes this many bytes that is just not slow, if `possible` is the time of a chunk.
fn slow_time(possible: Duration, bytes: u32) -> Duration {
    possible.mul_f64(SLOW * f64::from(bytes) / f64::from(CHUNK_LEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_fill_sockets_at_first_are_not_measured() {
        let (mut link, start) = (Link::default(), Instant::now());
        link.begins(start);
        link.sent(CHUNK_LEN.into(), start);
        for chunk in 1..=4 {
            assert_eq!(link.measured_time(start), None);
            link.sent(CHUNK_LEN.into(), start + chunk * Duration::from_millis(20));
        }
        assert_eq!(link.measured_time(start), Some(Duration::from_millis(20)));
    }
}
