//! A peer that is asked for the description: what it promised, what it sent, and how fast.

use std::time::{Duration, Instant};

use proto::peer::MAX_PART_LEN;

use super::{RATE_WINDOW, SILENT_TRIAL, SMALL_METAINFO, TRICKLE};
use crate::swarm::DescriptionStage;

/// A peer that is being asked.
#[derive(Debug)]
pub(super) struct Asked {
    /// When it was asked, or asked for the rest.
    pub(super) begun: Instant,
    /// It is overdue after this time.
    grace: Duration,
    /// The time that its `Hello` makes likely.
    full_grace: Duration,
    stage: DescriptionStage,
    rest: Rest,
    /// Bytes of this stage.
    pub(super) received: u64,
    /// Bytes that do not count as wasted, because they were sent while another peer led.
    forgiven: u64,
    pub(super) total: Option<u64>,
    /// Two moments, at least [`RATE_WINDOW`] apart, and the bytes received until each.
    marks: [(Instant, u64); 2],
}

/// Whether a peer may send the rest of its metainfo.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rest {
    /// It has not sent its first part, or it promised little.
    NotDue,
    /// It waits to be asked for the rest. It sent its first part at this rate, in bytes a second.
    Held(f64),
    /// It was asked for the rest.
    Asked,
}

impl Asked {
    /// A peer that is asked now.
    pub(super) fn new(now: Instant, grace: Duration, full_grace: Duration) -> Asked {
        Asked {
            begun: now,
            grace,
            full_grace,
            stage: DescriptionStage::Metainfo,
            rest: Rest::NotDue,
            received: 0,
            forgiven: 0,
            total: None,
            marks: [(now, 0); 2],
        }
    }

    /// It has sent `received` of `total` bytes. Returns whether that is more than before.
    pub(super) fn progress(
        &mut self,
        stage: DescriptionStage,
        received: u64,
        total: u64,
        now: Instant,
    ) -> bool {
        if self.stage != stage && self.total.is_some() {
            *self = Asked::new(now, self.grace, self.full_grace);
        }
        self.stage = stage;
        let more = self.total.is_none() || received > self.received;
        (self.received, self.total) = (received, Some(total));
        if now.saturating_duration_since(self.marks[1].0) >= RATE_WINDOW {
            self.marks = [self.marks[1], (now, received)];
        }
        if self.promises_much() && self.rest == Rest::NotDue && received >= MAX_PART_LEN.into() {
            self.rest = Rest::Held(self.rate(now));
        }
        more
    }

    /// It is asked for the rest.
    pub(super) fn go_on(&mut self, now: Instant) {
        self.rest = Rest::Asked;
        self.begun = now;
        self.marks = [(now, self.received); 2];
    }

    /// What it sent so far is no waste.
    pub(super) fn forgive(&mut self) {
        self.forgiven = self.received;
    }

    /// Bytes that are wasted if another peer's description is used.
    pub(super) fn wasted(&self) -> u64 {
        self.received.saturating_sub(self.forgiven)
    }

    /// Whether it promises a large metainfo, which is not proved.
    pub(super) fn promises_much(&self) -> bool {
        self.stage == DescriptionStage::Metainfo && self.total.is_some_and(|total| total > SMALL_METAINFO)
    }

    /// Whether its first part is on its way.
    pub(super) fn is_probed(&self) -> bool {
        let is_known_small = self.total.is_some() && !self.promises_much();
        self.rest == Rest::NotDue && !is_known_small
    }

    /// Whether it waits to be asked for the rest.
    pub(super) fn holds(&self) -> bool {
        matches!(self.rest, Rest::Held(_))
    }

    /// Whether it was asked for the rest.
    pub(super) fn goes_on(&self) -> bool {
        self.rest == Rest::Asked
    }

    /// Whether it has begun to send, and goes on until it is done.
    pub(super) fn is_sending(&self) -> bool {
        self.received > 0 && (self.goes_on() || !self.promises_much())
    }

    /// How long it may send nothing if a stranger waits for its place.
    pub(super) fn silent_trial(&self) -> Duration {
        (2 * self.full_grace).max(SILENT_TRIAL)
    }

    /// When it becomes overdue if it sends nothing.
    pub(super) fn overdue_at(&self) -> Instant {
        self.begun + self.grace
    }

    /// Whether its grace is over and it sends nothing, or almost nothing.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        now >= self.overdue_at() && self.rate(now) < TRICKLE
    }

    /// Seconds until it will be done, at the rate that it sends at, or sent at before it had to wait.
    pub(super) fn ends_in_s(&self, now: Instant) -> f64 {
        let rate = match self.rest {
            Rest::Held(rate) => rate,
            Rest::NotDue | Rest::Asked => self.rate(now),
        };
        let left = self.total.unwrap_or(u64::MAX).saturating_sub(self.received);
        left as f64 / rate.max(f64::MIN_POSITIVE)
    }

    /// Recent rate, in bytes a second.
    pub(super) fn rate(&self, now: Instant) -> f64 {
        // If the later mark is old enough, nothing arrived since, and it counts alone.
        let late = now.saturating_duration_since(self.marks[1].0) >= RATE_WINDOW;
        let (since, before) = self.marks[usize::from(late)];
        // A rate over less than a millisecond means nothing.
        let seconds = now.saturating_duration_since(since).as_secs_f64().max(0.001);
        self.received.saturating_sub(before) as f64 / seconds
    }
}
