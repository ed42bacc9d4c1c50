//! How many bytes have to be on their way to keep the link to a far peer full.
//!
//! That is its bandwidth × its delay, and neither is known at first: a rate that is measured with a small window is the rate of
//! that window. So both are measured as BBR does (draft-ietf-ccwg-bbr). The bandwidth is what arrived between a request and its
//! answer, divided by that time. The delay is the least time that a request took, without the time in which the link carries its
//! chunk. The window is a multiple of their product: if the link can carry more, more arrives in the same time, and the window grows
//! again.
//!
//! A sender that has just begun sends twice as much in each round trip (RFC 5681, slow start), so what arrived during a request says
//! little about the next one. Then the window is twice what has arrived so far: as much arrives within the next round trip, and again as
//! much while a loss is repaired. What was lost holds up all that follows, so nothing arrives meanwhile, and nothing new is requested.
//! With half of that a sender ran dry when it had filled the link and lost packets for the first time.
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

/// A sender counts as one that has just begun until this many bytes have arrived: what 1 Gbit/s carries in 250 ms.
const OPENING_LEN: u64 = 32 * 1024 * 1024;

/// A peer is far if nothing arrives within this time after the first request. Nearer ones have begun before it matters.
const FAR: Duration = Duration::from_millis(10);

/// The bytes that had arrived when a request was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Departure {
    at: Instant,
    arrived: u64,
}

/// The bandwidth and the delay of a peer, as far as they were measured.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// The time between the first request and the first bytes of its chunk.
    first_delay: Option<Duration>,
    /// All bytes of chunks that arrived from the peer.
    arrived: u64,
    /// The least time between a request and the end of its chunk, and the length of that chunk.
    least: Option<(Duration, u32)>,
    /// In bytes a second.
    bandwidth: f64,
    /// The last sample of it.
    rate: Option<f64>,
}

impl Flight {
    /// Records a request.
    pub(super) fn depart(&self, now: Instant) -> Departure {
        Departure { at: now, arrived: self.arrived }
    }

    /// Records that the first bytes of the chunk of that request are here.
    pub(super) fn begin(&mut self, departure: Departure, now: Instant) {
        let delay = now.saturating_duration_since(departure.at);
        self.first_delay.get_or_insert(delay);
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
        self.rate = Some(sample);
        self.bandwidth += (sample - self.bandwidth) * if sample < self.bandwidth { DECAY } else { 1.0 };
    }

    /// How many bytes should wait at a far peer that has just begun to send, and sends to nobody else; otherwise 0. One chunk more than has
    /// arrived counts, because only whole ones do.
    pub(super) fn opening(&self, chunk_len: u64) -> u64 {
        let is_opening = self.first_delay.is_some_and(|delay| delay >= FAR) && self.arrived < OPENING_LEN;
        if is_opening { 2 * (self.arrived + chunk_len) } else { 0 }
    }

    /// Whether the peer is far.
    pub(super) fn is_far(&self) -> bool {
        self.delay() >= FAR.as_secs_f64()
    }

    /// What arrived in a second while the last chunk was waited for, if that is known.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// The least time that a request took, without that in which the link carried its chunk, in seconds; 0 if nothing is known.
    pub(super) fn delay(&self) -> f64 {
        let Some((took, len)) = self.least else { return 0.0 };
        (took.as_secs_f64() - f64::from(len) / self.bandwidth.max(1.0)).max(0.0)
    }

    /// How many bytes should wait at the peer, 0 if nothing is known.
    pub(super) fn window(&self) -> u64 {
        let delay = self.delay();
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
    use proto::CHUNK_LEN;

    const CHUNK: u64 = CHUNK_LEN as u64;

    use super::*;

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
                (*free_at).max(now + round_trip / 2) + Duration::from_secs_f64(f64::from(CHUNK_LEN) / rate);
            waiting.push_back((flight.depart(now), *free_at + round_trip / 2));
        };
        for _ in 0..2 {
            ask(&flight, &mut waiting, &mut free_at, now);
        }
        while now < start + round_trip * round_trips {
            let (departure, arrives) = waiting.pop_front().unwrap();
            now = arrives;
            flight.arrive(departure, CHUNK_LEN, now);
            while waiting.len() as u64 * CHUNK < flight.window().max(2 * CHUNK) {
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
            assert!(window < 2 * CHUNK, "{window} at {rate}");
        }
    }

    #[test]
    fn the_delay_of_a_peer_is_measured_without_the_time_that_the_link_needs() {
        let (mut flight, now) = (Flight::default(), Instant::now());
        let departure = flight.depart(now);
        flight.arrive(departure, CHUNK_LEN, now + 4 * FAR);
        assert!(!flight.is_far(), "it may be a slow link");
        // Three more arrive in the same time.
        let departure = flight.depart(now + 4 * FAR);
        (0..4).for_each(|_| flight.arrive(departure, CHUNK_LEN, now + 8 * FAR));
        assert!(flight.is_far());
        assert_eq!(flight.delay(), 0.75 * (4 * FAR).as_secs_f64());
        assert_eq!(flight.rate(), Some(4.0 * f64::from(CHUNK_LEN) / (4 * FAR).as_secs_f64()));
    }

    #[test]
    fn nothing_is_assumed_of_an_unknown_peer() {
        assert_eq!((Flight::default().window(), Flight::default().opening(CHUNK)), (0, 0));
    }

    #[test]
    fn at_a_far_peer_that_begins_twice_as_much_waits_as_has_arrived() {
        let delays = [(Duration::from_millis(1), [0, 0]), (2 * FAR, [2 * CHUNK, 8 * CHUNK])];
        for (delay, windows) in delays {
            let (mut flight, now) = (Flight::default(), Instant::now());
            let departure = flight.depart(now);
            flight.begin(departure, now + delay);
            // Later ones wait for others.
            flight.begin(departure, now + 3 * FAR);
            assert_eq!(flight.opening(CHUNK), windows[0]);
            (0..3).for_each(|_| flight.arrive(departure, CHUNK_LEN, now + 4 * FAR));
            assert_eq!(flight.opening(CHUNK), windows[1]);
            (0..OPENING_LEN / CHUNK).for_each(|_| flight.arrive(departure, CHUNK_LEN, now + 5 * FAR));
            assert_eq!(flight.opening(CHUNK), 0, "its rate is known");
        }
    }
}
