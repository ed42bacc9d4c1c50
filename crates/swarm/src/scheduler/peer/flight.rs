//! How many bytes have to be on their way to keep the link to a far peer full.
//!
//! That is its bandwidth × its delay, and neither is known at first: a rate that is measured with a small window is the rate of
//! that window. So both are measured as BBR does (draft-ietf-ccwg-bbr). The bandwidth is what arrived between a request and its
//! answer, divided by that time. The delay is the least time that a request took, without the time in which the link carries its
//! chunk. The window is a multiple of their product: if the link can carry more, more arrives in the same time, and the window grows
//! again.
//!
//! A near peer does not look far, although a chunk takes long on a slow link: that time is no delay. Nor does one that is busy with
//! others: its least time was measured when it had little to do, and it sends each asker less than its link carries.

use std::time::{Duration, Instant};

/// The window is this multiple of what arrives within the delay. It is more than the 2.89 of BBR's start, which lasts until a sender
/// that always had something to send has filled the link: with a smaller window it lasted for ever, and a fifth of all packets was
/// lost.
const GAIN: f64 = 4.0;

/// The weight of a lower sample of the bandwidth. Higher ones count at once, because a lower one may only mean that few requests
/// waited.
const DECAY: f64 = 1.0 / 16.0;

/// Maximum bytes that wait at a far peer: 2 × what a link with 10 Gbit/s and a round trip of 100 ms has on its way.
const MAX_WINDOW: u64 = 256 * 1024 * 1024;

/// The bytes that had arrived when a request was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Departure {
    at: Instant,
    arrived: u64,
}

/// The bandwidth and the delay of a peer, as far as they were measured.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// All bytes of chunks that arrived from the peer.
    arrived: u64,
    /// The least time between a request and the end of its chunk, and the length of that chunk.
    least: Option<(Duration, u32)>,
    /// In bytes a second.
    bandwidth: f64,
}

impl Flight {
    /// Records a request.
    pub(super) fn depart(&self, now: Instant) -> Departure {
        Departure { at: now, arrived: self.arrived }
    }

    /// Records that the chunk of that request is here.
    pub(super) fn arrive(&mut self, departure: Departure, len: u32, now: Instant) {
        self.arrived += u64::from(len);
        let took = now.saturating_duration_since(departure.at);
        let least = self.least.unwrap_or((took, len));
        self.least = Some(if took <= least.0 { (took, len) } else { least });
        if took.is_zero() {
            return;
        }
        let sample = (self.arrived - departure.arrived) as f64 / took.as_secs_f64();
        self.bandwidth += (sample - self.bandwidth) * if sample < self.bandwidth { DECAY } else { 1.0 };
    }

    /// How many bytes should wait at the peer, 0 if nothing is known.
    pub(super) fn window(&self) -> u64 {
        let Some((took, len)) = self.least else { return 0 };
        let delay = (took.as_secs_f64() - f64::from(len) / self.bandwidth.max(1.0)).max(0.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; too large a number becomes the largest"
        )]
        let window = (GAIN * self.bandwidth * delay) as u64;
        window.min(MAX_WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u32 = 512 * 1024;

    /// Fetches for a number of round trips over a link, always with as many bytes on their way as the window allows. Returns the window.
    fn fetch(round_trips: u32, round_trip: Duration, rate: f64) -> u64 {
        let (mut flight, start) = (Flight::default(), Instant::now());
        let mut waiting = std::collections::VecDeque::new();
        let (mut now, mut free_at) = (start, start);
        let ask = |flight: &Flight,
                   waiting: &mut std::collections::VecDeque<_>,
                   free_at: &mut Instant,
                   now: Instant| {
            // The peer sends one chunk after the other. Half of the round trip passes before and half after.
            *free_at =
                (*free_at).max(now + round_trip / 2) + Duration::from_secs_f64(f64::from(CHUNK) / rate);
            waiting.push_back((flight.depart(now), *free_at + round_trip / 2));
        };
        for _ in 0..2 {
            ask(&flight, &mut waiting, &mut free_at, now);
        }
        while now < start + round_trip * round_trips {
            let (departure, arrives) = waiting.pop_front().unwrap();
            now = arrives;
            flight.arrive(departure, CHUNK, now);
            while waiting.len() as u64 * u64::from(CHUNK) < flight.window().max(2 * u64::from(CHUNK)) {
                ask(&flight, &mut waiting, &mut free_at, now);
            }
        }
        flight.window()
    }

    #[test]
    fn the_window_grows_until_it_holds_four_times_what_the_link_carries_and_no_further() {
        let (round_trip, rate) = (Duration::from_millis(200), 300e6);
        let carried = (rate * round_trip.as_secs_f64()) as u64;
        let window = fetch(12, round_trip, rate);
        assert!((3 * carried..5 * carried).contains(&window), "{window} for {carried}");
        let later = fetch(100, round_trip, rate);
        assert!((3 * carried..5 * carried).contains(&later), "{later} for {carried}");
    }

    #[test]
    fn a_near_peer_needs_no_more_at_any_rate() {
        for rate in [125e6, 12.5e6, 1.25e6] {
            let window = fetch(10_000, Duration::from_micros(400), rate);
            assert!(window < 2 * u64::from(CHUNK), "{window} at {rate}");
        }
    }

    #[test]
    fn nothing_is_assumed_of_an_unknown_peer() {
        assert_eq!(Flight::default().window(), 0);
    }
}
