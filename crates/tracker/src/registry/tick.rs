//! The registry's coarse clock.

use std::time::Duration;

/// Resolution of the times when peers were last seen.
pub const TICK: Duration = Duration::from_millis(TICK_MS as u64);

const TICK_MS: u32 = 100;

/// A time, in [`TICK`]s since the registry began; the last one is in 13 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u32);

impl Tick {
    pub(super) const LAST: Tick = Tick(u32::MAX);

    /// The tick that `elapsed` since the beginning falls into.
    pub(super) fn at(elapsed: Duration) -> Tick {
        let of_seconds = elapsed.as_secs().saturating_mul(u64::from(1_000 / TICK_MS));
        let ticks = of_seconds.saturating_add(u64::from(elapsed.subsec_millis() / TICK_MS));
        Tick(u32::try_from(ticks).unwrap_or(u32::MAX))
    }

    /// The beginning of this tick.
    pub(super) fn since_beginning(self) -> Duration {
        TICK * self.0
    }

    /// The latest tick that ended at least `age` before the end of this one.
    pub(super) fn before(self, age: Duration) -> Tick {
        let Tick(ticks) = Tick::at(age.saturating_add(TICK - Duration::from_nanos(1)));
        Tick(self.0.saturating_sub(ticks))
    }
}

impl Default for Tick {
    fn default() -> Tick {
        Tick::LAST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_live_for_the_whole_age_and_little_longer() {
        let age = Duration::from_millis(90_000);
        for seen_ms in (0..500).step_by(7) {
            let seen = Tick::at(Duration::from_millis(seen_ms));
            let live = |after_ms| seen >= Tick::at(Duration::from_millis(seen_ms + after_ms)).before(age);
            assert!(live(90_000));
            assert!(!live(90_101));
        }
    }

    #[test]
    fn ticks_of_ages_are_rounded_up_and_end_somewhere() {
        let at = |ms| Tick::at(Duration::from_millis(ms));
        assert_eq!((at(0), at(99), at(100), at(1_099)), (Tick(0), Tick(0), Tick(1), Tick(10)));
        assert_eq!(at(1_000).before(Duration::from_millis(200)), Tick(8));
        assert_eq!(at(1_000).before(Duration::from_millis(201)), Tick(7));
        assert_eq!(at(1_000).before(Duration::MAX), Tick(0));
        assert_eq!(Tick::at(Duration::MAX), Tick::LAST);
    }
}
