//! A clock that stops while this process does not run.
//!
//! A process can be stopped (Ctrl-Z, `SIGSTOP`, a suspended machine). When it continues, every deadline of the system's clock
//! has passed, although no peer was late. Therefore all deadlines of a transfer use this clock.

use std::time::{Duration, Instant};

/// A user of this clock must read it at least this often while the process runs.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A longer gap between two readings means that the process did not run. Even a busy machine is not as late.
const LONGEST_GAP: Duration = Duration::from_secs(3);

/// The time for which this process ran.
#[derive(Debug, Clone)]
pub(crate) struct RunClock {
    /// When it was last read, by the system's clock.
    looked: Instant,
    /// Time in which the process did not run.
    stopped: Duration,
}

impl RunClock {
    /// A clock that shows the system's time.
    pub(crate) fn new(now: Instant) -> RunClock {
        RunClock { looked: now, stopped: Duration::ZERO }
    }

    /// The time now.
    pub(crate) fn now(&mut self) -> Instant {
        self.at(Instant::now())
    }

    /// The time when the system's clock shows `now`.
    fn at(&mut self, now: Instant) -> Instant {
        let gap = now.saturating_duration_since(self.looked);
        if gap > LONGEST_GAP {
            tracing::debug!("did not run for {gap:?}");
            self.stopped += gap - LOOK_INTERVAL;
        }
        self.looked = self.looked.max(now);
        // The gaps lie between the first reading and this one, so the subtraction cannot underflow.
        self.looked - self.stopped
    }

    /// The system's time when this clock will show `at`, if the process is not stopped before.
    pub(crate) fn on_system(&self, at: Instant) -> Instant {
        at + self.stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_the_process_did_not_run_does_not_count() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut clock = RunClock::new(begun);
        assert_eq!(clock.at(at(1)), at(1));
        assert_eq!(clock.at(at(3)), at(3), "a busy machine");
        assert_eq!(clock.at(at(1_003)), at(4), "stopped for a quarter of an hour");
        assert_eq!(clock.at(at(1_004)), at(5));
        assert_eq!(clock.on_system(at(65)), at(1_064));
        assert_eq!(clock.at(at(2_004)), at(6), "and again");
    }
}
