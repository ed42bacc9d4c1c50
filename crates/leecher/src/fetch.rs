//! Fetching a share, from what the user asked for to the finished file.

use std::{
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use proto::{Endpoint, ShareName};
use seeder::{rate_limit::RateLimit, tracker_client::TrackerClient};
use startup::{ListenError, asked_address, listen_tcp};
use store::{Output, PathError};
use tokio::{net::TcpListener, time::interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    error::FetchError,
    event::{FetchEvent, Fetched},
    swarm::{Swarm, SwarmConfig},
    target::{Target, resolve},
};

/// Peers that a leecher connects to at a time unless it is told otherwise.
pub const DEFAULT_MAX_PEERS: usize = 50;

/// A transfer gives up when nothing arrives for this long, unless it is told otherwise.
pub const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What the leecher waits for is told at this interval.
pub(crate) const WAITING_INTERVAL: Duration = Duration::from_secs(1);

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
    /// Give up when nothing arrives for this long.
    pub stall_timeout: Duration,
    /// Where to serve what is here to others; not at all if `None`.
    pub listen: Option<Listen>,
    /// How long to go on serving when everything is here.
    pub stay: Stay,
    /// How fast to send chunks, to all peers together.
    pub upload_limit: RateLimit,
    /// How fast to receive chunks, from all peers together.
    pub download_limit: RateLimit,
}

impl Config {
    /// Fetches `target` into the working directory, with everything else as users get it by default.
    pub fn new(target: Target) -> Config {
        Config {
            target,
            trackers: Vec::new(),
            peers: Vec::new(),
            destination: Destination::Directory(PathBuf::new()),
            overwrite: false,
            max_peers: DEFAULT_MAX_PEERS,
            stall_timeout: DEFAULT_STALL_TIMEOUT,
            listen: Some(Listen::default()),
            stay: Stay::default(),
            upload_limit: RateLimit::unlimited(),
            download_limit: RateLimit::unlimited(),
        }
    }
}

/// Where a leecher can be reached by other leechers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listen {
    /// Address to listen on, and to reach trackers from; every address if `None`.
    pub bind: Option<IpAddr>,
    /// TCP port; 0 for any that is free.
    pub port: u16,
}

/// How long a finished leecher goes on serving.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Stay {
    /// While others are connected that need chunks which nobody else they know has, a minute at most.
    #[default]
    WhileNeeded,
    /// Until it is stopped.
    Forever,
    /// For this long.
    For(Duration),
    /// Until it has sent so many times the size of the share.
    Ratio(f64),
}

/// Where a share goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Into this directory, as `leeched_<name>`. It is made if it does not exist.
    Directory(PathBuf),
    /// To this path.
    Path(PathBuf),
}

impl Destination {
    /// Makes the directory that the user named. Not earlier than there is something to put into it.
    async fn make_directory(&self) -> Result<(), PathError> {
        let Destination::Directory(dir) = self else { return Ok(()) };
        let made = tokio::fs::create_dir_all(dir).await;
        made.map_err(|source| PathError { action: "make", path: dir.clone(), source })
    }

    fn output(&self, name: &ShareName, overwrite: bool) -> Output {
        let output = match self {
            Destination::Directory(dir) => Output::in_dir(dir, name),
            Destination::Path(path) => Output::at(path.clone()),
        };
        if overwrite { output.replacing_file() } else { output }
    }
}

/// Fetches a share. `on_event` hears how it goes; cancelling `stop` ends it with what came so far kept.
pub async fn fetch(
    config: Config,
    mut on_event: impl FnMut(FetchEvent),
    stop: CancellationToken,
) -> Result<Fetched, FetchError> {
    let begun = Instant::now();
    let listener = config.listen.map(|listen| listen_tcp(listen.bind, listen.port)).transpose()?;
    let listener = listener.map(TcpListener::from_std).transpose().map_err(|source| {
        let Listen { bind, port } = config.listen.unwrap_or_default();
        ListenError::Other { address: asked_address(bind, port), source }
    })?;
    let tasks = TaskTracker::new();
    let (trackers, peers) = endpoints(&config);
    let bind = config.listen.and_then(|listen| listen.bind);
    let trackers: Vec<_> =
        trackers.into_iter().map(|endpoint| TrackerClient::spawn(endpoint, bind, &tasks)).collect();
    let (infohash, name) = {
        let names: Vec<_> = trackers.iter().map(|tracker| tracker.endpoint().to_string()).collect();
        let waiting = format!("Asking tracker {} …", names.join(", "));
        let mut tick = interval(WAITING_INTERVAL);
        tick.reset();
        let resolving = resolve(&config.target, &trackers);
        tokio::pin!(resolving);
        loop {
            tokio::select! {
                resolved = &mut resolving => break resolved?,
                _ = tick.tick() => on_event(FetchEvent::Waiting(waiting.clone())),
                () = stop.cancelled() => return Err(FetchError::Interrupted { part: None }),
            }
        }
    };
    if let Some(name) = &name {
        // Known now is better than known when the peers have answered.
        config.destination.output(name, config.overwrite).check_free()?;
    }
    let swarm_config = SwarmConfig {
        infohash,
        trackers,
        peers,
        listener,
        max_peers: config.max_peers,
        stall_timeout: config.stall_timeout,
        upload_limit: config.upload_limit.clone(),
        download_limit: config.download_limit.clone(),
        stay: config.stay,
        begun,
    };
    let mut swarm = Swarm::new(swarm_config, on_event);
    let result = run(&mut swarm, &config, &stop).await;
    swarm.stop().await;
    tasks.close();
    tasks.wait().await;
    result
}

async fn run<F: FnMut(FetchEvent)>(
    swarm: &mut Swarm<F>,
    config: &Config,
    stop: &CancellationToken,
) -> Result<Fetched, FetchError> {
    let description = swarm.describe(stop).await?;
    let output = config.destination.output(description.metainfo.name(), config.overwrite);
    config.destination.make_directory().await?;
    let download = swarm.open(description, output, stop).await?;
    swarm.run(&download, stop).await
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
