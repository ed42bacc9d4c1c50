//! A clock that stands still while this process does not run.
//!
//! A process that was stopped (Ctrl-Z, `SIGSTOP`, a suspended machine) finds on its return that every deadline is
//! past, though nobody failed it. All of a transfer's deadlines are compared with this clock instead of the
//! system's, so time in which the process could not have received anything counts against nobody.

use std::time::{Duration, Instant};

/// Whoever uses the clock looks at it at least this often while the process runs.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A longer gap between two looks means that the process did not run: even a busy machine is not as late.
const LONGEST_GAP: Duration = Duration::from_secs(3);

/// The time for which this process ran.
#[derive(Debug, Clone)]
pub(crate) struct RunClock {
    /// The last look, by the system's clock.
    looked: Instant,
    /// Time in which the process did not run.
    stopped: Duration,
}

impl RunClock {
    /// A clock that shows what the system's does.
    pub(crate) fn new(now: Instant) -> RunClock {
        RunClock { looked: now, stopped: Duration::ZERO }
    }

    /// What the clock shows now.
    pub(crate) fn now(&mut self) -> Instant {
        self.at(Instant::now())
    }

    /// What the clock shows when the system's shows `now`.
    fn at(&mut self, now: Instant) -> Instant {
        let gap = now.saturating_duration_since(self.looked);
        if gap > LONGEST_GAP {
            tracing::debug!("did not run for {gap:?}");
            self.stopped += gap - LOOK_INTERVAL;
        }
        self.looked = self.looked.max(now);
        // The gaps lie between the first look and this one, so their sum is less.
        self.looked - self.stopped
    }

    /// When the system's clock will show what this one shows as `at`, if the process goes on running.
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
