//! Keeps a share registered with a tracker.

use std::{num::NonZeroU16, time::Duration};

use proto::{
    Metainfo, PeerId, Secret,
    tracker::message::{Announce, Announced, Event, Progress, Token},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::tracker_client::{TrackerClient, TrackerError};

/// Wait before announcing again to a tracker that did not answer.
const RETRY: Duration = Duration::from_secs(3);

/// Longest and shortest heartbeat that a tracker can ask for, whatever it says.
const MAX_INTERVAL: Duration = Duration::from_secs(3_600);
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// How long to try to tell a tracker goodbye.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// What a peer says of itself to trackers.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The peer.
    pub peer_id: PeerId,
    /// What proves later announces to be the same peer's.
    pub secret: Secret,
    /// Where it listens.
    pub port: NonZeroU16,
}

/// Announces a share, of which the peer has `progress`, until `shutdown`, and then ends the registration.
/// `on_result` hears of the outcome of every announce.
pub async fn announce(
    tracker: TrackerClient,
    registration: Registration,
    metainfo: &Metainfo,
    mut progress: watch::Receiver<Progress>,
    shutdown: CancellationToken,
    on_result: impl Fn(Result<Announced, TrackerError>),
) {
    let announce = |event, progress| registration.announce(metainfo, event, progress);
    let mut event = Event::Started;
    loop {
        let announced = *progress.borrow_and_update();
        let result = tokio::select! {
            result = tracker.announce(announce(event, announced)) => result,
            () = shutdown.cancelled() => break,
        };
        let wait = match &result {
            Ok(announced) => {
                event = Event::Heartbeat;
                Duration::from_secs(announced.interval_s.into()).clamp(MIN_INTERVAL, MAX_INTERVAL)
            }
            Err(_) => RETRY,
        };
        let registered = result.is_ok();
        on_result(result);
        tokio::select! {
            () = sleep(wait) => {}
            // Becoming a seeder is news that does not wait.
            Ok(_) = progress.wait_for(|progress| progress.is_complete()),
                if registered && !announced.is_complete() => event = Event::Completed,
            () = shutdown.cancelled() => break,
        }
    }
    // Even without an answer so far: an announce that was cut off may have arrived.
    let last = *progress.borrow();
    match timeout(STOP_TIMEOUT, tracker.announce(announce(Event::Stopped, last))).await {
        Ok(Ok(_)) => tracing::debug!(tracker = %tracker.endpoint(), "deregistered"),
        Ok(Err(error)) => tracing::debug!("not deregistered: {error}"),
        Err(_) => tracing::debug!(tracker = %tracker.endpoint(), "not deregistered: no answer in time"),
    }
}

impl Registration {
    fn announce(&self, metainfo: &Metainfo, event: Event, progress: Progress) -> Announce {
        Announce {
            token: Token([0; 16]),
            infohash: metainfo.infohash(),
            peer_id: self.peer_id,
            secret: self.secret,
            port: self.port,
            name: metainfo.name().clone(),
            size: metainfo.chunk_space().total_len(),
            event,
            progress,
        }
    }
}
