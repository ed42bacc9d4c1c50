//! Keeps a share registered with a tracker.

use std::{mem, num::NonZeroU16, time::Duration};

use proto::{
    Label, Metainfo, PeerId, Secret, Zone,
    tracker::{
        client::CallError,
        message::{Announce, Announced, Completion, ErrorCode, Event, Token},
    },
};
use rand::{CryptoRng, Rng, RngExt};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::tracker_client::{TrackerClient, TrackerError};

/// Wait before announcing again to a tracker that did not answer.
const RETRY: Duration = Duration::from_secs(3);

/// Wait before announcing again to a tracker that has no room, or does not allow the share.
const FULL_RETRY: Duration = Duration::from_secs(30);

/// Longest and shortest heartbeat that is used, no matter which interval a tracker sends.
const MAX_INTERVAL: Duration = Duration::from_secs(3_600);
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// How long to try to end a registration.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// What a peer says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// The port that it listens on.
    pub port: NonZeroU16,
    /// What people call its host.
    pub label: Label,
    /// Where in a network it is.
    pub zone: Zone,
    /// Whether it fetches the share. Otherwise it has all of it from the start.
    pub fetches: bool,
}

/// Announces a share until `shutdown`, and then ends the registration. The peer has `progress` of the share. `on_result` receives the
/// outcome of every announce.
pub async fn announce(
    tracker: TrackerClient,
    own: Own,
    metainfo: &Metainfo,
    mut progress: watch::Receiver<Completion>,
    shutdown: CancellationToken,
    on_result: impl Fn(Result<Announced, TrackerError>),
) {
    let mut registration = Registration::new(&mut rand::rng());
    loop {
        let announced = *progress.borrow_and_update();
        let announce = registration.announce(metainfo, own, announced);
        let result = tokio::select! {
            result = tracker.announce(announce) => result,
            () = shutdown.cancelled() => break,
        };
        let wait = registration.after(&result, &mut rand::rng());
        let registered = result.is_ok();
        on_result(result);
        tokio::select! {
            () = sleep(wait) => {}
            // A peer that becomes a seeder announces at once.
            Ok(_) = progress.wait_for(|progress| progress.is_complete()),
                if registered && !announced.is_complete() => registration.event = Event::Completed,
            () = shutdown.cancelled() => break,
        }
    }
    // Even without an answer so far, because an interrupted announce may have arrived.
    let last = *progress.borrow();
    registration.event = Event::Stopped;
    let goodbye = registration.announce(metainfo, own, last);
    match timeout(STOP_TIMEOUT, tracker.announce(goodbye)).await {
        Ok(Ok(_)) => tracing::debug!(tracker = %tracker.endpoint(), "deregistered"),
        Ok(Err(error)) => tracing::debug!("not deregistered: {error}"),
        Err(_) => tracing::debug!(tracker = %tracker.endpoint(), "not deregistered: no answer in time"),
    }
}

/// The registration of one share with one tracker. Pure.
#[derive(Debug)]
struct Registration {
    /// Not the id that other peers receive: anybody who knows it could register it first after the tracker restarts. And no
    /// tracker can use this registration's secrets at another tracker.
    peer_id: PeerId,
    secret: Secret,
    /// The next event to announce.
    event: Event,
    /// Whether the heartbeats are out of step with other peers' already. After an outage all peers register at the same time.
    has_own_time: bool,
    /// Whether the last announce was refused because of the peer id.
    was_not_ours: bool,
}

impl Registration {
    fn new(rng: &mut impl CryptoRng) -> Registration {
        Registration {
            peer_id: PeerId::random(rng),
            secret: Secret::random(rng),
            event: Event::Started,
            has_own_time: false,
            was_not_ours: false,
        }
    }

    /// Handles the outcome of an announce, and returns how long to wait before the next one.
    fn after(&mut self, result: &Result<Announced, TrackerError>, rng: &mut impl CryptoRng) -> Duration {
        match result {
            Ok(Announced { interval_s, .. }) => {
                self.event = Event::Heartbeat;
                self.was_not_ours = false;
                let interval = Duration::from_secs((*interval_s).into()).min(MAX_INTERVAL);
                let had_own_time = mem::replace(&mut self.has_own_time, true);
                // Never late, because a tracker may forget a late peer. The first one may come at any time.
                let part =
                    if had_own_time { rng.random_range(0.9..=1.0) } else { rng.random_range(0.0..=1.0) };
                interval.mul_f64(part).max(MIN_INTERVAL)
            }
            Err(TrackerError::Call { error: CallError::Refused(ErrorCode::NotYours), .. }) => {
                let again = self.was_not_ours;
                *self = Registration { was_not_ours: true, ..Registration::new(rng) };
                // So a tracker that refuses every peer id is not asked all the time.
                if again { around(RETRY, rng) } else { Duration::ZERO }
            }
            Err(error) => {
                self.has_own_time = false;
                let lasts = matches!(
                    error,
                    TrackerError::Call {
                        error: CallError::Refused(ErrorCode::Full(_) | ErrorCode::NotAllowed),
                        ..
                    }
                );
                around(if lasts { FULL_RETRY } else { RETRY }, rng)
            }
        }
    }

    fn announce(&self, metainfo: &Metainfo, own: Own, progress: Completion) -> Announce {
        Announce {
            token: Token([0; 16]),
            infohash: metainfo.infohash(),
            peer_id: self.peer_id,
            secret: self.secret,
            port: own.port,
            name: metainfo.name().clone(),
            size: metainfo.chunk_space().total_len(),
            event: self.event,
            progress,
            label: own.label,
            fetched: own.fetches,
            zone: own.zone,
        }
    }
}

fn around(wait: Duration, rng: &mut impl Rng) -> Duration {
    wait.mul_f64(rng.random_range(0.8..1.2))
}

#[cfg(test)]
mod tests {
    use proto::tracker::Limit;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    const OK: Result<Announced, TrackerError> =
        Ok(Announced { interval_s: 30, seeders: 1, leechers: 0, completed: 0 });

    fn failed(source: CallError) -> Result<Announced, TrackerError> {
        Err(TrackerError::Call { endpoint: "127.0.0.1:6020".parse().unwrap(), error: source })
    }

    fn refused(code: ErrorCode) -> Result<Announced, TrackerError> {
        failed(CallError::Refused(code))
    }

    fn registrations(seeds: std::ops::Range<u64>) -> Vec<(Registration, StdRng)> {
        let new = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            (Registration::new(&mut rng), rng)
        };
        seeds.map(new).collect()
    }

    fn assert_spread_over_the_interval(mut waits: Vec<Duration>) {
        waits.sort();
        let quarter = waits.len() / 4;
        for (place, expected_s) in [(quarter, 7.5), (2 * quarter, 15.0), (3 * quarter, 22.5)] {
            let wait_s = waits[place].as_secs_f64();
            assert!((wait_s - expected_s).abs() < 3.0, "{wait_s} s");
        }
        assert!(*waits.last().unwrap() <= Duration::from_secs(30));
    }

    #[test]
    fn peers_that_register_together_do_not_stay_in_phase() {
        let mut peers = registrations(0..400);
        let mut waits =
            |result: &_| -> Vec<_> { peers.iter_mut().map(|(peer, rng)| peer.after(result, rng)).collect() };
        assert_spread_over_the_interval(waits(&OK));
        // From then on every peer keeps its time, never later than the tracker requests.
        for wait in waits(&OK) {
            assert!((27.0..=30.0).contains(&wait.as_secs_f64()), "{wait:?}");
        }
        // After an outage they are in step again.
        waits(&failed(CallError::Unanswered));
        assert_spread_over_the_interval(waits(&OK));
    }

    #[test]
    fn no_tracker_makes_a_peer_announce_all_the_time_or_almost_never() {
        for (mut peer, mut rng) in registrations(0..100) {
            for (interval_s, expected) in
                [(0, MIN_INTERVAL..=MIN_INTERVAL), (u16::MAX, MIN_INTERVAL..=MAX_INTERVAL)]
            {
                let announced = Announced { interval_s, seeders: 1, leechers: 0, completed: 0 };
                let wait = peer.after(&Ok(announced), &mut rng);
                assert!(expected.contains(&wait), "{interval_s} s: {wait:?}");
            }
        }
    }

    #[test]
    fn a_peer_id_that_is_not_ours_is_replaced_at_once_but_not_all_the_time() {
        let (mut peer, mut rng) = registrations(1..2).remove(0);
        peer.after(&OK, &mut rng);
        let before = (peer.peer_id, peer.secret);
        assert_eq!(peer.after(&refused(ErrorCode::NotYours), &mut rng), Duration::ZERO);
        assert!(peer.peer_id != before.0 && peer.secret != before.1 && peer.event == Event::Started);
        assert!(peer.after(&refused(ErrorCode::NotYours), &mut rng) > RETRY / 2);
        peer.after(&OK, &mut rng);
        assert_eq!(peer.after(&refused(ErrorCode::NotYours), &mut rng), Duration::ZERO);
    }

    #[test]
    fn a_full_tracker_is_asked_less_often_than_one_that_does_not_answer() {
        let (mut peer, mut rng) = registrations(1..2).remove(0);
        let silent = peer.after(&failed(CallError::Unanswered), &mut rng);
        let full = peer.after(&refused(ErrorCode::Full(Limit::Tracker)), &mut rng);
        assert!(silent < RETRY * 2 && full > FULL_RETRY / 2, "{silent:?}, {full:?}");
        assert_eq!(peer.event, Event::Started);
    }
}
