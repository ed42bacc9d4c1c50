//! How long not to ask a peer that reports that it is busy.

use std::{collections::BTreeMap, time::Duration};

use crate::{leaving::REDIAL_REST, scheduler::PeerKey};

/// Minimum wait before a busy peer is asked again. It doubles each time, up to [`MAX_BUSY_REST`], until the peer sends a chunk.
const BUSY_REST: Duration = Duration::from_millis(250);
const MAX_BUSY_REST: Duration = Duration::from_secs(15);

/// The peers that are busy.
#[derive(Debug, Default)]
pub(super) struct Busy {
    /// How often each peer answered that it is busy since it last sent a chunk.
    answers: BTreeMap<PeerKey, u32>,
}

impl Busy {
    /// A peer answered that it is busy for the time `retry_after`. Returns how long not to ask it.
    pub(super) fn answered(&mut self, key: PeerKey, retry_after: Duration) -> Duration {
        let times = self.answers.entry(key).or_default();
        *times = times.saturating_add(1);
        busy_rest(*times, retry_after)
    }

    /// A peer sent a chunk, or its connection is over.
    pub(super) fn forget(&mut self, key: PeerKey) {
        self.answers.remove(&key);
    }
}

/// How long not to ask a peer that answers for the `times`th time in a row that it is busy for the time `retry_after`.
fn busy_rest(times: u32, retry_after: Duration) -> Duration {
    let least = BUSY_REST.saturating_mul(2_u32.saturating_pow(times.saturating_sub(1))).min(MAX_BUSY_REST);
    retry_after.max(least).min(REDIAL_REST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_always_busy_is_asked_less_and_less_often() {
        let rests: Vec<_> = (1..=9).map(|times| busy_rest(times, Duration::ZERO).as_millis()).collect();
        assert_eq!(rests, [250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]);
        assert_eq!(busy_rest(u32::MAX, Duration::ZERO), MAX_BUSY_REST);
        assert_eq!(busy_rest(1, Duration::from_secs(7)), Duration::from_secs(7), "it is taken at its word");
        assert_eq!(busy_rest(1, Duration::MAX), REDIAL_REST, "within reason");
    }
}
