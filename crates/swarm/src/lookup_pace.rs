//! How often to ask a tracker for peers. Pure: randomness is an argument, and the caller waits.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Wait between the first two lookups, which then grows by [`GROWTH`] each time. Leechers that start together register with the tracker
/// only when they have the description, so the second lookup finds more of them.
const FIRST_INTERVAL: Duration = Duration::from_millis(60);

/// The wait grows by this factor with each lookup, so a leecher asks some ten times before the long run begins.
const GROWTH: f64 = 2.0;

/// The same for a leecher that is short of peers. Where most of the addresses that a tracker has are an attacker's, each answer has an
/// honest one only by chance. With this factor a leecher asks ten times in the first two seconds.
const HUNGRY_GROWTH: f64 = 1.25;

/// Wait between two lookups in the long run, unless the tracker sends another value.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);

/// Bounds of the wait that a tracker can send. So no tracker can make a leecher ask without pause, or never again.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
const MAX_INTERVAL: Duration = Duration::from_secs(600);

/// A leecher that is short of peers asks this many times as often. So a tracker that wants fewer lookups also gets fewer of these.
const HUNGRY_FACTOR: u32 = 5;

/// When to ask one tracker again.
#[derive(Debug)]
pub(crate) struct LookupPace {
    /// Wait at the start, while lookups are frequent.
    beginning: Wait,
    /// Wait in the long run.
    interval: Duration,
}

/// The wait until the next lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    /// For a leecher that has peers enough.
    pub(crate) fed: Duration,
    /// For a leecher that is short of them.
    pub(crate) hungry: Duration,
}

impl Default for LookupPace {
    /// The pace for a tracker that was not asked yet.
    fn default() -> LookupPace {
        LookupPace {
            beginning: Wait { fed: FIRST_INTERVAL, hungry: FIRST_INTERVAL },
            interval: DEFAULT_INTERVAL,
        }
    }
}

impl LookupPace {
    /// The tracker sent the interval that it wants between lookups.
    pub(crate) fn set_interval(&mut self, interval_s: u16) {
        self.interval = Duration::from_secs(interval_s.into()).clamp(MIN_INTERVAL, MAX_INTERVAL);
    }

    /// The wait until the next lookup. Each call counts as one lookup.
    pub(crate) fn next(&mut self, rng: &mut impl Rng) -> Wait {
        // So that leechers that started together do not ask together every time.
        let jitter = rng.random_range(0.8..1.2);
        let Wait { fed, hungry } = self.beginning;
        self.beginning = Wait {
            fed: fed.mul_f64(GROWTH).min(MAX_INTERVAL),
            hungry: hungry.mul_f64(HUNGRY_GROWTH).min(MAX_INTERVAL),
        };
        let (fed, hungry) = (fed.min(self.interval), hungry.min(self.interval / HUNGRY_FACTOR));
        Wait { fed: fed.mul_f64(jitter), hungry: hungry.mul_f64(jitter) }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    /// The waits after many lookups, in milliseconds.
    fn settled(interval_s: Option<u16>) -> (u128, u128) {
        let (mut pace, mut rng) = (LookupPace::default(), StdRng::seed_from_u64(1));
        if let Some(interval_s) = interval_s {
            pace.set_interval(interval_s);
        }
        let waits: Vec<_> = (0..200).map(|_| pace.next(&mut rng)).skip(100).collect();
        let mean = |wait: fn(&Wait) -> Duration| waits.iter().map(wait).sum::<Duration>().as_millis() / 100;
        (mean(|wait| wait.fed), mean(|wait| wait.hungry))
    }

    #[test]
    fn lookups_come_fast_at_first_and_then_as_the_tracker_asks() {
        let (mut pace, mut rng) = (LookupPace::default(), StdRng::seed_from_u64(1));
        let first = pace.next(&mut rng);
        assert!(first.fed < Duration::from_millis(75) && first.hungry == first.fed, "{first:?}");
        for (sent, expected) in [(None, 10_000), (Some(30), 30_000), (Some(300), 300_000)] {
            let (fed, hungry) = settled(sent);
            assert!(fed.abs_diff(expected) < expected / 20, "{sent:?}: {fed} ms");
            assert!(hungry.abs_diff(expected / 5) < expected / 100, "{sent:?}: {hungry} ms");
        }
    }

    #[test]
    fn no_tracker_makes_a_leecher_ask_all_the_time_or_never_again() {
        let ((busy, _), (idle, _)) = (settled(Some(0)), settled(Some(u16::MAX)));
        assert!(busy > 900 && idle < 660_000, "{busy} ms, {idle} ms");
    }
}
