//! When to write a summary to the log.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Minimum time between two summaries.
const EVERY: Duration = Duration::from_secs(60);

/// When the next summary is due. It is checked when requests are answered, so an idle tracker logs nothing.
#[derive(Debug)]
pub(crate) struct Summaries {
    start: Instant,
    /// Milliseconds since the start.
    next_ms: AtomicU64,
}

impl Summaries {
    pub(crate) fn new() -> Summaries {
        Summaries { start: Instant::now(), next_ms: AtomicU64::new(millis(EVERY)) }
    }

    /// Whether a summary is due. If several threads ask at the same time, this is true for one of them.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let (now_ms, next_ms) =
            (millis(now.saturating_duration_since(self.start)), self.next_ms.load(Ordering::Relaxed));
        let then = now_ms.saturating_add(millis(EVERY));
        now_ms >= next_ms
            && self.next_ms.compare_exchange(next_ms, then, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_summary_a_minute_at_most() {
        let summaries = Summaries::new();
        let at = |seconds| summaries.is_due(summaries.start + Duration::from_secs(seconds));
        let due: Vec<u64> = (0..200).filter(|&seconds| at(seconds) || at(seconds)).collect();
        assert_eq!(due, [60, 120, 180]);
        assert!(at(100_000) && !at(100_059) && at(100_060));
    }
}
