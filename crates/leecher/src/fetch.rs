//! Fetching a share, from what the user asked for to the finished file.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{Endpoint, ShareName};
use seeder::tracker_client::TrackerClient;
use store::{Content, Download, Output};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    error::FetchError,
    event::{FetchEvent, Fetched},
    swarm::{Swarm, SwarmConfig, Transferred},
    target::{Target, resolve},
};

/// Peers that a leecher connects to at a time unless it is told otherwise.
pub const DEFAULT_MAX_PEERS: usize = 50;

/// A transfer gives up when nothing arrives for this long, unless it is told otherwise.
pub const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(60);

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
}

/// Where a share goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Into this directory, as `leeched_<name>`.
    Directory(PathBuf),
    /// To this path.
    Path(PathBuf),
}

impl Destination {
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
    on_event: impl FnMut(FetchEvent),
    stop: CancellationToken,
) -> Result<Fetched, FetchError> {
    let begun = Instant::now();
    let tasks = TaskTracker::new();
    let (trackers, peers) = endpoints(&config);
    let trackers: Vec<_> =
        trackers.into_iter().map(|endpoint| TrackerClient::spawn(endpoint, None, &tasks)).collect();
    let resolved = tokio::select! {
        resolved = resolve(&config.target, &trackers) => resolved?,
        () = stop.cancelled() => return Err(FetchError::Interrupted { part: None }),
    };
    let (infohash, name) = resolved;
    if let Some(name) = &name {
        // Known now is better than known when the peers have answered.
        config.destination.output(name, config.overwrite).check_free()?;
    }
    let swarm_config =
        SwarmConfig { infohash, peers, max_peers: config.max_peers, stall_timeout: config.stall_timeout };
    let mut swarm = Swarm::new(swarm_config, &trackers, on_event);
    drop(trackers);
    let result = run(&mut swarm, &config, &stop).await;
    swarm.stop().await;
    tasks.close();
    tasks.wait().await;
    let (download, transferred) = result?;
    let metainfo = download.metainfo();
    Ok(Fetched {
        infohash,
        name: metainfo.name().clone(),
        path: download.output().path().to_owned(),
        size: metainfo.chunk_space().total_len(),
        wasted: transferred.wasted,
        elapsed: begun.elapsed(),
        peers: transferred.peers,
    })
}

async fn run<F: FnMut(FetchEvent)>(
    swarm: &mut Swarm<F>,
    config: &Config,
    stop: &CancellationToken,
) -> Result<(Arc<Download>, Transferred), FetchError> {
    let description = swarm.describe(stop).await?;
    let output = config.destination.output(description.metainfo.name(), config.overwrite);
    let download = swarm.open(description, output, stop).await?;
    let transferred = swarm.transfer(&download, stop).await?;
    swarm.finish(&download).await?;
    Ok((download, transferred))
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
