//! Fetching a share, from the target that the user named to the finished file.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    pin::pin,
    time::{Duration, Instant},
};

use peer::{acceptor::Acceptor, rate_limit::RateLimit, tracker_client::TrackerClient};
use proto::{Endpoint, Label, ShareName, Zone};
use store::{FilePattern, ProofCache};
use swarm::{DEFAULT_MAX_PEERS, Report, Stay};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::{LOOK_INTERVAL, RunClock},
    description::Description,
    destination::{Destination, Replace, Saving},
    driver::{Driver, Goal, Setup},
    error::FetchError,
    event::{FetchEvent, Fetched},
    known_names,
    max_peers::MaxPeers,
    old_version::OldVersion,
    target::{Missing, Resolved, Target, Unresolved, resolve},
    task_output,
    view::View,
};

/// Default of [`Config::stall_timeout`].
pub const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum of [`Config::stall_timeout`] and [`Config::wait`]. Added to a time they cannot overflow it.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Interval at which the leecher reports what it waits for.
pub(crate) const WAITING_INTERVAL: Duration = LOOK_INTERVAL;

/// Wait before trackers are asked again for a share that they do not know.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(1);

/// What to fetch, from where, and where to save it.
#[derive(Debug, Clone)]
pub struct Config {
    /// What to fetch.
    pub target: Target,
    /// Trackers to ask, in addition to those of a link.
    pub trackers: Vec<Endpoint>,
    /// Peers to ask, in addition to those of a link and of trackers.
    pub peers: Vec<Endpoint>,
    /// Where to save it.
    pub destination: Destination,
    /// What to do about something else that has the output's name.
    pub replace: Replace,
    /// Files of the share to fetch; all if it is empty. Fetching more of the same share later adds to what is there.
    pub only: Vec<FilePattern>,
    /// Give files and links the times that the share keeps, if it keeps any.
    pub times: bool,
    /// Leave holes in files for chunks of zeros, which take no room. They are not received in any case.
    pub sparse: bool,
    /// Files and directories to take chunks from that are there already. They are only read.
    pub from: Vec<PathBuf>,
    /// Where to remember what was proved: files that have not changed since need not be read again. By default everything is read.
    pub proofs: Option<ProofCache>,
    /// Maximum number of peers to connect to at the same time.
    pub max_peers: MaxPeers,
    /// Give up when nothing arrives for this long, a year at most. The same limit holds for finding the share and a peer that has
    /// it.
    pub stall_timeout: Duration,
    /// Wait this long, if it is longer, until a peer has the share, even if no tracker knows it. A year at most.
    pub wait: Duration,
    /// File that remembers what each name led to when it was last fetched by. If a name leads to something else now,
    /// [`FetchEvent::NameMoved`] reports it. By default none.
    pub known_names: Option<PathBuf>,
    /// What people call this host. By default nothing.
    pub label: Label,
    /// Where in a network this host is. By default nowhere.
    pub zone: Zone,
    /// Address to contact trackers from.
    pub bind: Option<IpAddr>,
    /// Port to serve received chunks on; nothing is served if `None`. Several transfers may use one port.
    pub acceptor: Option<Acceptor>,
    /// How long to go on serving when the share is complete.
    pub stay: Stay,
    /// Maximum upload rate, to all peers together.
    pub upload_limit: RateLimit,
    /// Maximum download rate, from all peers together.
    pub download_limit: RateLimit,
    /// Shows the transfer to onlookers. By default nobody looks.
    pub view: Option<View>,
}

impl Config {
    /// Fetches `target` into the working directory and serves nothing. Everything else has its default.
    pub fn new(target: Target) -> Config {
        Config {
            target,
            trackers: Vec::new(),
            peers: Vec::new(),
            destination: Destination::Directory(PathBuf::new()),
            replace: Replace::Nothing,
            only: Vec::new(),
            times: false,
            sparse: true,
            from: Vec::new(),
            proofs: None,
            max_peers: MaxPeers::new(DEFAULT_MAX_PEERS),
            stall_timeout: DEFAULT_STALL_TIMEOUT,
            wait: Duration::ZERO,
            known_names: None,
            label: Label::NONE,
            zone: Zone::NONE,
            bind: None,
            acceptor: None,
            stay: Stay::default(),
            upload_limit: RateLimit::unlimited(),
            download_limit: RateLimit::unlimited(),
            view: None,
        }
    }

    fn saving(&self) -> Saving {
        Saving {
            destination: self.destination.clone(),
            replace: self.replace,
            only: self.only.clone(),
            from: self.from.clone(),
            times: self.times,
            sparse: self.sparse,
            proofs: self.proofs.clone(),
        }
    }

    fn within_limits(mut self) -> Config {
        self.stall_timeout = self.stall_timeout.min(LONGEST_WAIT);
        self.wait = self.wait.min(LONGEST_WAIT);
        self
    }
}

/// Fetches a share. `on_event` receives its events. Cancelling `stop` ends the transfer; what was received is kept. When it
/// returns, none of its tasks is left.
pub async fn fetch(
    config: Config,
    on_event: impl FnMut(FetchEvent),
    stop: CancellationToken,
) -> Result<Fetched, FetchError> {
    let config = config.within_limits();
    let tasks = TaskTracker::new();
    let result = fetch_among(&tasks, config, on_event, stop).await;
    tasks.close();
    tasks.wait().await;
    result
}

/// Fetches the description of a share, and no chunk of it: what [`Config`] says about the output and about serving does not
/// matter. `on_event` receives what is waited for. When it returns, none of its tasks is left.
pub async fn describe(
    config: Config,
    on_event: impl FnMut(FetchEvent),
    stop: CancellationToken,
) -> Result<Description, FetchError> {
    let config = Config { acceptor: None, ..config.within_limits() };
    let tasks = TaskTracker::new();
    let result = describe_among(&tasks, &config, on_event, stop).await;
    tasks.close();
    tasks.wait().await;
    result
}

async fn describe_among(
    tasks: &TaskTracker,
    config: &Config,
    mut on_event: impl FnMut(FetchEvent),
    stop: CancellationToken,
) -> Result<Description, FetchError> {
    let (setup, _) = prepare(tasks, config, Goal::Description, &mut on_event, &stop).await?;
    let infohash = setup.infohash;
    let description = Driver::new(setup, on_event).describe(&stop).await?;
    match &config.target {
        Target::Name(name) if description.metainfo.name() != name => {
            let real = description.metainfo.name().clone();
            Err(FetchError::Misnamed { name: name.clone(), real, infohash })
        }
        _ => Ok(description),
    }
}

/// Fetches a share. Its tasks are among `tasks`, and end when it has returned.
async fn fetch_among(
    tasks: &TaskTracker,
    config: Config,
    mut on_event: impl FnMut(FetchEvent),
    stop: CancellationToken,
) -> Result<Fetched, FetchError> {
    let old_version = OldVersion::read(tasks, &config, &stop);
    let (mut setup, name) = prepare(tasks, &config, Goal::Files, &mut on_event, &stop).await?;
    if let Some(name) = &name {
        // Checked now, so that the user learns it before peers are asked.
        let output = config.destination.output(name, config.replace);
        let is_new = task_output(spawn_blocking(move || output.is_new()).await)?;
        setup.is_new = is_new && config.only.is_empty() && config.from.is_empty();
    }
    if let Some(old_version) = old_version {
        setup.local = old_version.finish(&mut on_event).await;
    }
    let Target::Name(asked) = &config.target else { return Driver::new(setup, on_event).run(&stop).await };
    fetch_named(tasks, asked, config.known_names.as_deref(), setup, on_event, &stop).await
}

/// Finds the share, and its name if the target or a tracker gives one.
async fn prepare(
    tasks: &TaskTracker,
    config: &Config,
    goal: Goal,
    on_event: &mut impl FnMut(FetchEvent),
    stop: &CancellationToken,
) -> Result<(Setup, Option<ShareName>), FetchError> {
    let begun = Instant::now();
    let (trackers, peers) = endpoints(config);
    let trackers: Vec<_> =
        trackers.into_iter().map(|endpoint| TrackerClient::spawn(endpoint, config.bind, tasks)).collect();
    let Resolved { infohash, name, peers: named } = find(config, &trackers, on_event, stop).await?;
    if let (Target::Name(name), Some(path)) = (&config.target, config.known_names.clone()) {
        let asked = name.clone();
        let before = task_output(spawn_blocking(move || known_names::recall(&path, &asked)).await);
        if let Some(before) = before.filter(|&before| before != infohash) {
            on_event(FetchEvent::NameMoved { name: name.clone(), before, now: infohash });
        }
    }
    let setup = Setup {
        infohash,
        goal,
        saving: config.saving(),
        local: None,
        is_new: false,
        trackers,
        named,
        peers,
        acceptor: config.acceptor.clone(),
        max_peers: config.max_peers.clone(),
        stall_timeout: config.stall_timeout,
        wait: config.wait,
        upload_limit: config.upload_limit.clone(),
        download_limit: config.download_limit.clone(),
        stay: config.stay,
        view: config.view.clone(),
        label: config.label,
        zone: config.zone,
        begun,
    };
    Ok((setup, name))
}

/// Fetches a share that was found by its name. Anybody can give it any name at a tracker, but its metainfo has its own.
async fn fetch_named(
    tasks: &TaskTracker,
    asked: &ShareName,
    known_names: Option<&Path>,
    setup: Setup,
    mut on_event: impl FnMut(FetchEvent),
    stop: &CancellationToken,
) -> Result<Fetched, FetchError> {
    let infohash = setup.infohash;
    let (misnamed, mut real) = (stop.child_token(), None);
    let on_event = |event: FetchEvent| {
        match &event {
            FetchEvent::Started(started) if started.name != *asked => {
                real = Some(started.name.clone());
                return misnamed.cancel();
            }
            FetchEvent::Finished(_) => {
                if let Some(path) = known_names.map(Path::to_owned) {
                    let name = asked.clone();
                    tasks.spawn_blocking(move || {
                        if let Err(error) = known_names::remember(&path, &name, infohash) {
                            tracing::warn!(
                                "cannot remember in {} what '{name}' led to: {error}",
                                path.display()
                            );
                        }
                    });
                }
            }
            _ => {}
        }
        on_event(event);
    };
    let result = Driver::new(setup, on_event).run(&misnamed).await;
    match real {
        Some(real) if result.is_err() => Err(FetchError::Misnamed { name: asked.clone(), real, infohash }),
        _ => result,
    }
}

/// Finds the share that the target names. Gives up after the configured time.
async fn find(
    config: &Config,
    trackers: &[TrackerClient],
    on_event: &mut impl FnMut(FetchEvent),
    stop: &CancellationToken,
) -> Result<Resolved, FetchError> {
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
                Err(Unresolved::NotYet(missing)) if config.wait.is_zero() && missing.is_name_of_only_tracker() => {
                    return Err(missing.into());
                }
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

/// The trackers and peers of the configuration and of its link.
fn endpoints(config: &Config) -> (Vec<Endpoint>, Vec<Endpoint>) {
    let (mut trackers, mut peers) = (config.trackers.clone(), config.peers.clone());
    if let Target::Link(link) = &config.target {
        trackers.extend(link.trackers.iter().filter(|tracker| !config.trackers.contains(tracker)).cloned());
        peers.extend(link.peers.iter().filter(|peer| !config.peers.contains(peer)).cloned());
    }
    (trackers, peers)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::{
        runtime::{Builder, Handle},
        task::yield_now,
    };

    use super::*;

    /// The two ways in which it fails before the transfer begins.
    #[tokio::test]
    async fn no_task_is_left_when_the_share_is_not_found_or_the_output_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", directory.path().join("leeched_file")).unwrap();
        let nowhere = Endpoint { host: "127.0.0.1".to_owned(), port: 9 };
        let link = format!("magnet:?xt=urn:btmh:1220{}&dn=file", "07".repeat(32));
        for target in ["a name", &link] {
            let mut config = Config::new(target.parse().unwrap());
            config.trackers.push(nowhere.clone());
            config.destination = Destination::Directory(directory.path().to_owned());
            let stop = CancellationToken::new();
            if target == "a name" {
                stop.cancel();
            }
            let error = fetch(config, |_| {}, stop).await.unwrap_err();
            match error {
                FetchError::Interrupted { part: None } => assert_eq!(target, "a name"),
                FetchError::Download(_) => assert_eq!(target, link),
                error => panic!("{error}"),
            }
            assert_eq!(Handle::current().metrics().num_alive_tasks(), 0, "{target}");
        }
    }

    /// The only thread for work that blocks is busy, so nothing can look at the disk but the thread of the runtime.
    #[test]
    fn the_output_is_looked_at_off_the_runtime() {
        let runtime = Builder::new_current_thread().max_blocking_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            std::os::unix::fs::symlink("nowhere", directory.path().join("leeched_file")).unwrap();
            let (free, is_free) = mpsc::channel::<()>();
            let busy = spawn_blocking(move || is_free.recv());
            let link = format!("magnet:?xt=urn:btmh:1220{}&dn=file", "07".repeat(32));
            let mut config = Config::new(link.parse().unwrap());
            config.destination = Destination::Directory(directory.path().to_owned());
            let fetching = fetch(config, |_| {}, CancellationToken::new());
            tokio::pin!(fetching);
            for _ in 0..1_000 {
                tokio::select! {
                    biased;
                    result = &mut fetching => panic!("the thread of the runtime looked at the disk: {result:?}"),
                    () = yield_now() => {}
                }
            }
            free.send(()).unwrap();
            busy.await.unwrap().unwrap();
            let error = fetching.await.unwrap_err();
            assert!(matches!(error, FetchError::Download(_)), "{error}");
        });
    }
}
