//! How many messages without use a peer may send.
//!
//! Pure: time is an argument. Some messages bring nothing: a keep-alive, a notice that a peer is idle, news that are old, a
//! request that has to be refused. An honest peer sends few of them. One that sends more than the [`Allowance`] is dropped,
//! because they cost this side work and its sender nothing.

use std::time::{Duration, Instant};

/// Each message uses up this time of the allowance. A peer on a fast network reports up to 50 times a second that it is idle, so an
/// honest one sends half of this rate at most.
const MESSAGE_TIME: Duration = Duration::from_millis(10);

/// Maximum number of messages at once. If this process is stopped, the messages of up to 90 s wait for it, after which a peer
/// takes it for gone. An honest peer sends 4,590 in that time.
const MAX_BURST: u32 = 5_000;

/// What one peer may still send.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowance {
    /// When all of it is there again, if nothing is sent before.
    full_at: Option<Instant>,
}

/// The peer sent too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it floods this side with messages that bring nothing")]
pub struct Exceeded;

impl Allowance {
    /// A message without use arrived.
    pub fn charge(&mut self, now: Instant) -> Result<(), Exceeded> {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + MESSAGE_TIME;
        if full_at.saturating_duration_since(now) > MESSAGE_TIME * MAX_BURST {
            return Err(Exceeded);
        }
        self.full_at = Some(full_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_a_flood_is_not() {
        let (mut allowance, now) = (Allowance::default(), Instant::now());
        (0..MAX_BURST).for_each(|_| allowance.charge(now).unwrap());
        assert_eq!(allowance.charge(now), Err(Exceeded));
        let later = now + 3 * MESSAGE_TIME;
        (0..3).for_each(|_| allowance.charge(later).unwrap());
        assert_eq!(allowance.charge(later), Err(Exceeded));
    }

    #[test]
    fn a_long_silence_saves_up_no_more_than_a_burst() {
        let (mut allowance, now) = (Allowance::default(), Instant::now());
        allowance.charge(now).unwrap();
        let later = now + Duration::from_secs(3_600);
        (0..MAX_BURST).for_each(|_| allowance.charge(later).unwrap());
        assert_eq!(allowance.charge(later), Err(Exceeded));
    }

    #[test]
    fn an_honest_peer_never_exceeds_it_even_if_this_process_was_stopped() {
        let (mut allowance, begun) = (Allowance::default(), Instant::now());
        // An hour of the most that an honest peer sends: a keep-alive a second, and 50 notices that it is idle.
        for ms in (0..3_600_000).step_by(1_000) {
            (0..51).for_each(|_| allowance.charge(begun + Duration::from_millis(ms)).unwrap());
        }
        // And then 90 seconds of it at once.
        let now = begun + Duration::from_secs(3_690);
        (0..90 * 51).for_each(|_| allowance.charge(now).unwrap());
    }
}
