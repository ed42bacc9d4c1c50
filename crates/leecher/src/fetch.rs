//! Fetching a share, from what the user asked for to the finished file.

use std::{
    net::IpAddr,
    path::PathBuf,
    pin::pin,
    time::{Duration, Instant},
};

use peer::{acceptor::Acceptor, rate_limit::RateLimit, tracker_client::TrackerClient};
use proto::{Endpoint, InfoHash, ShareName};
use swarm::{DEFAULT_MAX_PEERS, Report, Stay};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::{LOOK_INTERVAL, RunClock},
    destination::Destination,
    driver::{Driver, Setup},
    error::FetchError,
    event::{FetchEvent, Fetched},
    target::{Missing, Target, Unresolved, resolve},
};

/// A transfer gives up when nothing arrives for this long, unless it is told otherwise.
pub const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What the leecher waits for is told at this interval.
pub(crate) const WAITING_INTERVAL: Duration = LOOK_INTERVAL;

/// Trackers are asked again after this time when they do not know what the user asked for.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(1);

/// What to fetch, whence and whither.
#[derive(Debug, Clone)]
pub struct Config {
    /// What to fetch.
    pub target: Target,
    /// Trackers to ask, beside those that a link names.
    pub trackers: Vec<Endpoint>,
    /// Peers to ask, beside those that a link names and trackers know.
    pub peers: Vec<Endpoint>,
    /// Where to put it.
    pub destination: Destination,
    /// Replace a file that has the output's name.
    pub overwrite: bool,
    /// Most peers to be connected to at a time.
    pub max_peers: usize,
    /// Give up when nothing arrives for this long. So long it is tried to begin, too.
    pub stall_timeout: Duration,
    /// Wait for this long, if it is longer, until somebody has the share, even if no tracker knows it.
    pub wait: Duration,
    /// Address to contact trackers from.
    pub bind: Option<IpAddr>,
    /// Where to serve what is here to others; not at all if `None`. Several transfers may have one port in common.
    pub acceptor: Option<Acceptor>,
    /// How long to go on serving when everything is here.
    pub stay: Stay,
    /// How fast to send chunks, to all peers together.
    pub upload_limit: RateLimit,
    /// How fast to receive chunks, from all peers together.
    pub download_limit: RateLimit,
}

impl Config {
    /// Fetches `target` into the working directory and serves nothing, with everything else as users get it by default.
    pub fn new(target: Target) -> Config {
        Config {
            target,
            trackers: Vec::new(),
            peers: Vec::new(),
            destination: Destination::Directory(PathBuf::new()),
            overwrite: false,
            max_peers: DEFAULT_MAX_PEERS,
            stall_timeout: DEFAULT_STALL_TIMEOUT,
            wait: Duration::ZERO,
            bind: None,
            acceptor: None,
            stay: Stay::default(),
            upload_limit: RateLimit::unlimited(),
            download_limit: RateLimit::unlimited(),
        }
    }
}

/// Fetches a share. `on_event` hears how it goes; cancelling `stop` ends it with what came so far kept.
pub async fn fetch(
    config: Config,
    mut on_event: impl FnMut(FetchEvent),
    stop: CancellationToken,
) -> Result<Fetched, FetchError> {
    let begun = Instant::now();
    let tasks = TaskTracker::new();
    let (trackers, peers) = endpoints(&config);
    let trackers: Vec<_> =
        trackers.into_iter().map(|endpoint| TrackerClient::spawn(endpoint, config.bind, &tasks)).collect();
    let (infohash, name) = find(&config, &trackers, &mut on_event, &stop).await?;
    if let Some(name) = &name {
        // Known now is better than known when the peers have answered.
        config.destination.output(name, config.overwrite).check_free()?;
    }
    let setup = Setup {
        infohash,
        trackers,
        peers,
        acceptor: config.acceptor.clone(),
        destination: config.destination.clone(),
        overwrite: config.overwrite,
        max_peers: config.max_peers,
        stall_timeout: config.stall_timeout,
        wait: config.wait,
        upload_limit: config.upload_limit.clone(),
        download_limit: config.download_limit.clone(),
        stay: config.stay,
        begun,
    };
    let result = Driver::new(setup, on_event).run(&stop).await;
    tasks.close();
    tasks.wait().await;
    result
}

/// Learns which share the target is, for as long as the user is patient.
async fn find(
    config: &Config,
    trackers: &[TrackerClient],
    on_event: &mut impl FnMut(FetchEvent),
    stop: &CancellationToken,
) -> Result<(InfoHash, Option<ShareName>), FetchError> {
    let endpoints = trackers.iter().map(|tracker| tracker.endpoint().clone()).collect();
    let mut missing = Missing::Answer { trackers: endpoints, last: None };
    let mut clock = RunClock::new(Instant::now());
    let give_up = clock.now() + config.stall_timeout.max(config.wait);
    let mut tick = interval(WAITING_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.reset();
    let ask = async |wait| {
        sleep(wait).await;
        resolve(&config.target, trackers).await
    };
    let mut resolving = pin!(ask(Duration::ZERO));
    loop {
        let now = clock.now();
        if now >= give_up {
            return Err(missing.into());
        }
        tokio::select! {
            resolved = &mut resolving => match resolved {
                Ok(found) => return Ok(found),
                Err(Unresolved::Final(error)) => return Err(error),
                Err(Unresolved::Settled(missing)) if config.wait.is_zero() => return Err(missing.into()),
                Err(Unresolved::Settled(still) | Unresolved::NotYet(still)) => {
                    missing = still;
                    resolving.set(ask(RESOLVE_INTERVAL));
                }
            },
            _ = tick.tick() => on_event(Report::Waiting(missing.clone().into()).into()),
            () = sleep_until(clock.on_system(give_up).into()) => {}
            () = stop.cancelled() => return Err(FetchError::Interrupted { part: None }),
        }
    }
}

/// The trackers and peers that the configuration and its link name.
fn endpoints(config: &Config) -> (Vec<Endpoint>, Vec<Endpoint>) {
    let (mut trackers, mut peers) = (config.trackers.clone(), config.peers.clone());
    if let Target::Link(link) = &config.target {
        trackers.extend(link.trackers.iter().filter(|tracker| !config.trackers.contains(tracker)).cloned());
        peers.extend(link.peers.iter().filter(|peer| !config.peers.contains(peer)).cloned());
    }
    (trackers, peers)
}
