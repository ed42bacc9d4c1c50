//! The clock of a fleet: that of its store.
//!
//! Trackers ask the store for its time now and then, and count on from there by their own steady clock. So their own calendars may be
//! wrong, and while the store is away its time goes on.

use std::time::{Duration, Instant};

/// A time, in milliseconds since 1970 by the clock of the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreTime(pub u64);

/// A time in tenths of a second, as the store keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenths(pub u64);

/// What the clock of the store shows.
#[derive(Debug, Clone, Copy)]
pub struct StoreClock {
    at: Instant,
    shown: StoreTime,
}

impl StoreClock {
    /// It showed `shown` at `at`.
    pub fn new(at: Instant, shown: StoreTime) -> StoreClock {
        StoreClock { at, shown }
    }

    /// What it shows at `now`, which may be before it was last read.
    pub fn read(&self, now: Instant) -> StoreTime {
        let StoreTime(shown_ms) = self.shown;
        match now.checked_duration_since(self.at) {
            Some(since) => StoreTime(shown_ms.saturating_add(millis(since))),
            None => StoreTime(shown_ms.saturating_sub(millis(self.at.saturating_duration_since(now)))),
        }
    }
}

impl StoreTime {
    /// `time` later.
    pub fn plus(self, time: Duration) -> StoreTime {
        StoreTime(self.0.saturating_add(millis(time)))
    }

    /// Time from `earlier` to this; nothing if it is not earlier.
    pub fn since(self, earlier: StoreTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.0 / 1_000
    }
}

impl From<StoreTime> for Tenths {
    fn from(StoreTime(ms): StoreTime) -> Tenths {
        Tenths(ms / 100)
    }
}

impl From<Tenths> for StoreTime {
    fn from(Tenths(tenths): Tenths) -> StoreTime {
        StoreTime(tenths.saturating_mul(100))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_by_itself_in_both_directions() {
        let at = Instant::now();
        let clock = StoreClock::new(at, StoreTime(10_000));
        assert_eq!(clock.read(at + Duration::from_millis(250)), StoreTime(10_250));
        assert_eq!(clock.read(at), StoreTime(10_000));
        assert_eq!(clock.read(at.checked_sub(Duration::from_secs(4)).unwrap()), StoreTime(6_000));
        assert_eq!(StoreTime(5).since(StoreTime(9)), Duration::ZERO);
    }
}
