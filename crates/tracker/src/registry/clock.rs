//! The times of a registry.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use super::{
    rules::Rules,
    tick::{TICK, Tick},
    whole_seconds,
};

/// Turns times into what the registry counts them in. Many requests are answered at one time, so what follows from the last time is
/// kept.
pub(super) struct Clock {
    start: Instant,
    /// When the [`Tick`]s began.
    epoch: Instant,
    expire: Duration,
    /// Everybody who was registered elsewhere or before is known this long after the start.
    settles_after: Duration,
    last: Cell<Moment>,
}

/// What follows from a time.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    tick: Tick,
    oldest_live: Tick,
    settles_in_s: u16,
}

impl Clock {
    pub(super) fn new(rules: &Rules, now: Instant) -> Clock {
        let (expire, settles_after) = (rules.expire, rules.settles_after());
        let last = Cell::new(Moment::of(now, (now, now), expire, settles_after));
        Clock { start: now, epoch: now, expire, settles_after, last }
    }

    /// The tick that this time is in.
    pub(super) fn tick(&self, now: Instant) -> Tick {
        self.moment(now).tick
    }

    /// A peer that was last seen before this tick has expired.
    pub(super) fn oldest_live(&self, now: Instant) -> Tick {
        self.moment(now).oldest_live
    }

    /// Seconds until everybody is known.
    pub(super) fn settles_in_s(&self, now: Instant) -> u16 {
        self.moment(now).settles_in_s
    }

    /// How long ago the registry began.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }

    /// When a tick began.
    pub(super) fn time_of(&self, tick: Tick) -> Instant {
        self.epoch + tick.since_beginning()
    }

    /// When a peer that was last seen in `tick` has expired.
    pub(super) fn expiry_of(&self, tick: Tick) -> Instant {
        // The peer was seen at some time of the tick, and is live for the rest of the tick in which it expires.
        self.time_of(tick) + self.expire + 2 * TICK
    }

    /// Lets ticks begin so early that there are some for peers that other trackers saw before the start.
    pub(super) fn predate(&mut self) {
        if let Some(epoch) = self.start.checked_sub(self.expire + TICK) {
            self.epoch = epoch;
            self.forget_last();
        }
    }

    /// Everybody is known from `after` on.
    pub(super) fn settle(&mut self, after: Duration, now: Instant) {
        self.settles_after = self.age(now).saturating_add(after);
        self.forget_last();
    }

    fn moment(&self, now: Instant) -> Moment {
        let last = self.last.get();
        if last.at == now { last } else { self.turn_to(now) }
    }

    fn forget_last(&self) {
        self.turn_to(self.last.get().at);
    }

    #[cold]
    fn turn_to(&self, now: Instant) -> Moment {
        let moment = Moment::of(now, (self.start, self.epoch), self.expire, self.settles_after);
        self.last.set(moment);
        moment
    }
}

impl Moment {
    fn of(
        at: Instant,
        (start, epoch): (Instant, Instant),
        expire: Duration,
        settles_after: Duration,
    ) -> Moment {
        let tick = Tick::at(at.saturating_duration_since(epoch));
        let settles_in = settles_after.saturating_sub(at.saturating_duration_since(start));
        Moment { at, tick, oldest_live: tick.before(expire), settles_in_s: whole_seconds(settles_in) }
    }
}
