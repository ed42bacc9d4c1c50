//! Simulated time.

use std::time::Duration;

/// Nanoseconds since the simulation began.
pub(crate) type Nanos = u64;

/// No time at all.
pub(crate) const NEVER: Nanos = Nanos::MAX;

pub(crate) fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}
