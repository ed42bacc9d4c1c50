//! How fast a peer sends, and what follows from it: how many requests wait there, and how long to wait for it.

use std::time::{Duration, Instant};

use proto::{CHUNK_LEN, ChunkIndex};

use super::{Arriving, Have, PIPELINE_TIME, Peer};

/// Minimum chunks that wait at a peer: one that is being sent, and one that follows at once.
const MIN_DEPTH: u64 = 2;

/// Maximum bytes that wait at a near peer: what a fast network has on its way. At a far one it is as much as [`super::flight`]
/// finds.
const MAX_DEPTH: u64 = 16 * CHUNK_LEN as u64;

/// Time that the requests waiting at a leecher should take it. It is short because a leecher serves others too, and others have
/// the same chunks.
const LEECHER_PIPELINE_TIME: Duration = Duration::from_millis(25);

/// With more leechers than this, one waiting request for each is enough to receive without a gap.
const FEW_LEECHERS: usize = 4;

/// The weight of the latest chunk in the measured rate.
const RATE_WEIGHT: f64 = 0.3;

/// Minimum time over which a rate is measured.
const MIN_SAMPLE_TIME: Duration = Duration::from_millis(1);

/// A peer that owes chunks is late when it is silent for this many times as long as a chunk takes at its rate, within limits. A
/// peer that only lets this side wait sends keep-alives more often.
const PATIENCE: f64 = 8.0;
const MIN_PATIENCE: Duration = Duration::from_secs(3);
const MAX_PATIENCE: Duration = Duration::from_secs(30);

/// The patience with a peer whose rate is not known yet.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);

/// A peer that sends keep-alives but no chunk is overdue after [`PATIENCE`] × the time of a chunk, within these limits. It may be
/// busy, so others are asked, and later this peer again.
const MIN_FORBEARANCE: Duration = Duration::from_secs(5);
const MAX_FORBEARANCE: Duration = Duration::from_secs(60);
const FIRST_FORBEARANCE: Duration = Duration::from_secs(30);

/// Maximum expected time, because a rate can be almost zero.
const MAX_TIME_S: f64 = 3_600.0;

/// After this time the bytes of an arriving chunk show its rate. They are reported after 30 ms, then every 250 ms.
const MIN_PACE_TIME: Duration = Duration::from_millis(300);

/// A peer that has not sent a chunk yet is expected to take this many times as long as this side has already waited.
const DOUBT: f64 = 3.0;

/// The expectation for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scheduler) struct Outlook {
    /// Time since it was made.
    pub(in crate::scheduler) age: Duration,
    /// Expected time until it is answered.
    pub(in crate::scheduler) left: Duration,
}

impl Peer {
    /// How long one more chunk would take.
    pub(in crate::scheduler) fn expected_next(&self) -> Duration {
        let Some(rate) = self.far_rate() else { return self.time_for(self.owes() + self.chunk_len) };
        let queue = (self.owes() as f64 / rate).max(self.flight.delay());
        Duration::from_secs_f64((queue + self.chunk_len as f64 / rate).min(MAX_TIME_S))
    }

    /// Whether much is on its way from it before the first of it arrives.
    pub(in crate::scheduler) fn is_far(&self) -> bool {
        self.flight.is_far()
    }

    /// The rate of a far peer, in bytes a second, if it was measured.
    pub(in crate::scheduler) fn far_rate(&self) -> Option<f64> {
        self.flight.rate().filter(|_| self.flight.is_far())
    }

    /// Expected time until the arriving chunk is complete, by its bytes so far. `None` if none is arriving.
    fn rest_of_arriving(&self, now: Instant) -> Option<Duration> {
        let Arriving { chunk, since, bytes } = self.arriving?;
        let len = self.requests.iter().find(|request| request.chunk == chunk)?.len;
        let elapsed = now.saturating_duration_since(since);
        if elapsed < MIN_PACE_TIME {
            return Some(self.time_for(len.into()));
        }
        let pace = f64::from(bytes.max(1)) / elapsed.as_secs_f64();
        Some(Duration::from_secs_f64((f64::from(len.saturating_sub(bytes)) / pace).min(MAX_TIME_S)))
    }

    /// Whether it can confirm a cancellation within `time`. It sends messages only between chunks.
    pub(in crate::scheduler) fn answers_within(&self, time: Duration, now: Instant) -> bool {
        self.proven && self.rest_of_arriving(now).is_none_or(|rest| rest <= time)
    }

    /// Expected time until a requested chunk arrives, at this peer's rate. `None` if it was not requested.
    pub(in crate::scheduler) fn wait_for(&self, chunk: ChunkIndex) -> Option<Duration> {
        let mut ahead = 0;
        for request in self.debts() {
            ahead += u64::from(request.len);
            if request.chunk == chunk {
                return Some(self.time_for(ahead));
            }
        }
        None
    }

    /// The age of the request for a chunk, and the expected time until the chunk arrives. `None` if it was not requested.
    pub(in crate::scheduler) fn outlook(&self, chunk: ChunkIndex, now: Instant) -> Option<Outlook> {
        let oldest = self.debts().next()?.asked_at;
        let asked_at = self.debts().find(|request| request.chunk == chunk)?.asked_at;
        let age = now.saturating_duration_since(asked_at);
        let arriving = self.rest_of_arriving(now);
        if let Some(left) = arriving.filter(|_| self.is_sending(chunk)) {
            return Some(Outlook { age, left });
        }
        // The longer no complete chunk arrived, the less reliable the rate is, even if bytes trickle.
        let since = now.saturating_duration_since(self.began(oldest));
        let left = match arriving {
            Some(_) if self.flight.is_far() => self.wait_for(chunk)?,
            Some(rest) => rest + self.time_for(self.chunk_len),
            None if self.proven => self.wait_for(chunk)?,
            None => since.mul_f64(DOUBT),
        };
        Some(Outlook { age, left: left.max(since) })
    }

    /// The assumed rate while none is measured, in bytes a second.
    pub(super) fn first_rate(&self) -> f64 {
        self.chunk_len as f64 / PIPELINE_TIME.as_secs_f64()
    }

    /// Expected time to send `len` bytes.
    fn time_for(&self, len: u64) -> Duration {
        let rate = self.far_rate().or(self.rate).unwrap_or(self.first_rate());
        Duration::from_secs_f64((len as f64 / rate).min(MAX_TIME_S))
    }

    /// Whether more requests should wait at this peer. `leechers` is the number of peers that are not seeders.
    pub(in crate::scheduler) fn wants_more(&self, leechers: usize) -> bool {
        let leecher = self.have != Have::All;
        let least = self.chunk_len * if leecher && leechers > FEW_LEECHERS { 1 } else { MIN_DEPTH };
        let Some(rate) = self.rate else { return self.owes() < least };
        let time = if leecher { LEECHER_PIPELINE_TIME } else { PIPELINE_TIME };
        let more = if leecher { 0 } else { self.chunk_len };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; too large a number becomes the largest"
        )]
        let sent_meanwhile = (rate * time.as_secs_f64()) as u64;
        let near = sent_meanwhile.saturating_add(more).clamp(least, MAX_DEPTH);
        let opening = if leechers == 0 { self.flight.opening(self.chunk_len) } else { 0 };
        self.owes() < near.max(self.flight.window()).max(opening)
    }

    pub(super) fn patience(&self) -> Duration {
        match self.rate {
            Some(_) => self.time_for(self.chunk_len).mul_f64(PATIENCE).clamp(MIN_PATIENCE, MAX_PATIENCE),
            None => FIRST_PATIENCE,
        }
    }

    pub(super) fn forbearance(&self) -> Duration {
        match self.rate {
            Some(_) => {
                self.time_for(self.chunk_len).mul_f64(PATIENCE).clamp(MIN_FORBEARANCE, MAX_FORBEARANCE)
            }
            None => FIRST_FORBEARANCE,
        }
    }

    /// When this peer started to work on a chunk that was requested at `asked_at`: when the chunk before it had arrived, or at
    /// `asked_at` if that is later.
    pub(super) fn began(&self, asked_at: Instant) -> Instant {
        self.last_delivered.map_or(asked_at, |last| last.max(asked_at))
    }

    /// The rate at which a chunk arrived. Chunks that arrive within [`MIN_SAMPLE_TIME`] are measured together, because several small
    /// ones arrive at once.
    pub(super) fn sample(&mut self, len: u32, asked_at: Instant, now: Instant) -> Option<f64> {
        let began = self.began(asked_at);
        let before = self.unmeasured.take().filter(|_| began != asked_at);
        let (since, before) = before.unwrap_or((began, 0));
        let (bytes, time) = (before + u64::from(len), now.saturating_duration_since(since));
        if time < MIN_SAMPLE_TIME {
            self.unmeasured = Some((since, bytes));
            return None;
        }
        Some(rate(bytes, time))
    }

    pub(super) fn measured(&mut self, sample: f64) {
        self.rate = Some(self.rate.map_or(sample, |rate| rate + (sample - rate) * RATE_WEIGHT));
    }
}

/// A rate in bytes a second.
pub(super) fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.max(MIN_SAMPLE_TIME).as_secs_f64()
}
