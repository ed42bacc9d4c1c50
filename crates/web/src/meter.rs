//! How fast counters grow that are looked at now and then.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// Rates are measured over about this time.
const WINDOW: Duration = Duration::from_secs(5);

/// Looks that are closer together than this count as one.
const MIN_PAUSE: Duration = Duration::from_millis(400);

/// Rates of counters with a key each. Pure: time is an argument.
#[derive(Debug)]
pub struct Meter<K> {
    looks: BTreeMap<K, VecDeque<(Instant, u64)>>,
}

impl<K: Ord> Default for Meter<K> {
    fn default() -> Meter<K> {
        Meter { looks: BTreeMap::new() }
    }
}

impl<K: Ord> Meter<K> {
    /// A counter has this value now. Returns how much it grew in a second, over the last seconds, or since the last look if that was
    /// longer ago.
    pub fn rate(&mut self, key: K, value: u64, now: Instant) -> u64 {
        let looks = self.looks.entry(key).or_default();
        let since = |at: Instant| now.saturating_duration_since(at);
        if looks.back().is_some_and(|&(_, before)| before > value) {
            looks.clear();
        }
        while looks.len() > 1 && looks.get(1).is_some_and(|&(at, _)| since(at) >= WINDOW) {
            looks.pop_front();
        }
        let rate = looks.front().map_or(0, |&(at, then)| {
            let ms = since(at).as_millis();
            let grown = u128::from(value - then) * 1_000;
            u64::try_from(grown.checked_div(ms).unwrap_or(0)).unwrap_or(u64::MAX)
        });
        if looks.back().is_none_or(|&(at, _)| since(at) >= MIN_PAUSE) {
            looks.push_back((now, value));
        }
        rate
    }

    /// Forgets the other counters.
    pub fn keep(&mut self, is_there: impl Fn(&K) -> bool) {
        self.looks.retain(|key, _| is_there(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut meter = Meter::default();
        assert_eq!(meter.rate(1, 500, at(0)), 0);
        assert_eq!(meter.rate(1, 1_500, at(1_000)), 1_000);
        assert_eq!(meter.rate(1, 1_500, at(2_000)), 500);
        assert_eq!(meter.rate(2, 7, at(2_000)), 0);
        for second in 3..20 {
            meter.rate(1, 1_500, at(second * 1_000));
        }
        assert_eq!(meter.rate(1, 2_100, at(20_000)), 120, "over the last five seconds");
        assert_eq!(meter.rate(1, 102_100, at(120_000)), 1_000, "nobody looked for long");
        assert_eq!(meter.rate(1, 3, at(121_000)), 0, "it began anew");
        assert!(meter.looks.values().all(|looks| looks.len() < 20));
        meter.keep(|&key| key == 2);
        assert_eq!(meter.looks.len(), 1);
    }
}
