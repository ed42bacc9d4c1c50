//! Everything that runs in one test.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use leecher::{Destination, Target};
use peer::acceptor::Acceptor;
use peer::tracker_client::{TrackerClient, TrackerError};
use proto::{
    Endpoint, InfoHash, PeerId, Secret,
    tracker::{Announce, ErrorCode, Event as AnnounceEvent, Progress, Query, Token, client::CallError},
};
use seeder::{Event, Seeder};
use store::Content;
use tempfile::TempDir;
use tokio::{runtime, sync::watch, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracker::Tracker;

use crate::{
    fetch::Fetch,
    proxy::{Manner, Proxy},
    source::{Source, content},
};

/// Nothing in these tests needs nearly as long, even on a busy machine: a test that does hangs.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Every role has to be gone this long after it was told to stop. They allow themselves one or two seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// The shortest heartbeat that there is: what a restarted tracker forgot comes back soon.
const HEARTBEAT: Duration = Duration::from_secs(1);

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Runs a test in a swarm of its own, and fails if that does not come to an end.
pub(crate) fn test(body: impl AsyncFnOnce(&mut Swarm)) {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut swarm = Swarm::start().await;
        let ended = timeout(TEST_TIMEOUT, body(&mut swarm)).await;
        assert!(ended.is_ok(), "the test hangs");
        swarm.close().await;
    });
}

/// A tracker, whatever else a test starts, and the directory that it all works in.
pub(crate) struct Swarm {
    dir: TempDir,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Trackers are stopped last, so that everybody else can take leave of them.
    trackers: TaskTracker,
    stop_trackers: CancellationToken,
    tracker: RunningTracker,
    sources: u64,
    outputs: u64,
}

struct RunningTracker {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// A seeder that runs until the end of the test.
pub(crate) struct RunningSeeder {
    pub(crate) address: SocketAddr,
    announces: watch::Receiver<u32>,
    withdrawals: watch::Receiver<Vec<String>>,
}

/// A seeder that can be stopped.
pub(crate) struct BriefSeeder {
    stop: CancellationToken,
    task: JoinHandle<u64>,
}

impl BriefSeeder {
    /// Takes leave of its trackers, and ends.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

impl Swarm {
    async fn start() -> Swarm {
        let (trackers, stop_trackers) = (TaskTracker::new(), CancellationToken::new());
        let tracker = RunningTracker::start(0, &trackers, &stop_trackers).await;
        Swarm {
            dir: tempfile::tempdir().unwrap(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            trackers,
            stop_trackers,
            tracker,
            sources: 0,
            outputs: 0,
        }
    }

    async fn close(self) {
        for (stop, tasks) in [(self.stop, self.tasks), (self.stop_trackers, self.trackers)] {
            stop.cancel();
            tasks.close();
            let stopped = timeout(STOP_TIMEOUT, tasks.wait()).await;
            assert!(stopped.is_ok(), "{} tasks do not stop", tasks.len());
        }
    }

    /// Where the tracker listens.
    pub(crate) fn tracker(&self) -> Endpoint {
        endpoint(self.tracker.address)
    }

    /// Ends the tracker, which forgets everything, and starts it again on its port.
    pub(crate) async fn restart_tracker(&mut self) {
        self.tracker.stop.cancel();
        (&mut self.tracker.task).await.unwrap();
        let port = self.tracker.address.port();
        self.tracker = RunningTracker::start(port, &self.trackers, &self.stop_trackers).await;
    }

    /// Starts a second tracker, which knows nobody.
    pub(crate) async fn another_tracker(&self) -> Endpoint {
        endpoint(RunningTracker::start(0, &self.trackers, &self.stop_trackers).await.address)
    }

    /// Starts a tracker, and waits until it has been up for so long that it must know everybody who has a share.
    pub(crate) async fn settled_tracker(&self, infohash: InfoHash) -> Endpoint {
        let config = tracker::Config {
            bind: Some(LOCALHOST),
            port: 0,
            heartbeat: HEARTBEAT,
            expire: 2 * HEARTBEAT,
            ..tracker::Config::default()
        };
        let running = RunningTracker::start_with(config, &self.trackers, &self.stop_trackers).await;
        let tracker = TrackerClient::spawn(endpoint(running.address), Some(LOCALHOST), &self.tasks);
        loop {
            match tracker.peers(Query::Peers { infohash, want: 1 }).await {
                Err(TrackerError::Call {
                    source: CallError::Refused(ErrorCode::UnknownShare { settles_in_s: 0 }),
                    ..
                }) => return endpoint(running.address),
                Err(TrackerError::Call { source: CallError::Refused(_), .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Shares a new file of `len` bytes; no two have the same content.
    pub(crate) fn share(&mut self, name: &str, len: u64) -> Source {
        let path = self.new_dir().join(name);
        fs::write(&path, content(len, self.sources)).unwrap();
        Source::of(path)
    }

    /// Shares a new directory that `fill` puts something into.
    pub(crate) fn share_directory(&mut self, name: &str, fill: impl FnOnce(&Path)) -> Source {
        let path = self.new_dir().join(name);
        fs::create_dir(&path).unwrap();
        fill(&path);
        Source::of(path)
    }

    /// Another copy of a file, on a path of its own but with the same infohash.
    pub(crate) fn copy(&mut self, source: &Source) -> Source {
        let path = self.new_dir().join(source.name().as_str());
        fs::copy(&source.path, &path).unwrap();
        Source::of(path)
    }

    /// A seeder that is not registered anywhere.
    pub(crate) async fn seed_unannounced(&self, source: &Source) -> RunningSeeder {
        self.seed_with(seeder::Config { trackers: Vec::new(), ..self.seeder_config() }, source).await
    }

    /// A seeder that the tracker knows.
    pub(crate) async fn seed(&self, source: &Source) -> RunningSeeder {
        let mut seeder = self.seed_with(self.seeder_config(), source).await;
        seeder.announced(1).await;
        seeder
    }

    /// A seeder that is set up like this.
    pub(crate) async fn seed_with(&self, config: seeder::Config, source: &Source) -> RunningSeeder {
        self.seed_content(config, vec![Arc::clone(&source.shared) as Arc<dyn Content>]).await
    }

    /// A seeder that is set up like this and serves this.
    pub(crate) async fn seed_content(
        &self,
        config: seeder::Config,
        shares: Vec<Arc<dyn Content>>,
    ) -> RunningSeeder {
        let seeder = Seeder::bind(config, &self.tasks).unwrap();
        let address = seeder.local_addr();
        let (announced, announces) = watch::channel(0);
        let (withdrawn, withdrawals) = watch::channel(Vec::new());
        let (announced, withdrawn) = (Arc::new(announced), Arc::new(withdrawn));
        let on_event = move |event| match event {
            Event::Announced { .. } => announced.send_modify(|count| *count += 1),
            // A tracker that restarts does not answer for a while.
            Event::NotAnnounced { .. } => {}
            Event::Withdrawn { error, .. } => withdrawn.send_modify(|all| all.push(error.to_string())),
            _ => {}
        };
        for content in shares {
            self.tasks.spawn(seeder.share(content).unwrap().run(on_event.clone(), self.stop.clone()));
        }
        RunningSeeder { address, announces, withdrawals }
    }

    /// A seeder that the trackers know, until it is stopped.
    pub(crate) async fn seed_for_a_while(&self, config: seeder::Config, source: &Source) -> BriefSeeder {
        let stop = self.stop.child_token();
        let seeder = Seeder::bind(config, &self.tasks).unwrap();
        let content = Arc::clone(&source.shared) as Arc<dyn Content>;
        let task = self.tasks.spawn(seeder.share(content).unwrap().run(|_| {}, stop.clone()));
        BriefSeeder { stop, task }
    }

    /// How [`Swarm::seed`] sets a seeder up.
    pub(crate) fn seeder_config(&self) -> seeder::Config {
        seeder::Config {
            bind: Some(LOCALHOST),
            port: 0,
            trackers: vec![self.tracker()],
            ..seeder::Config::default()
        }
    }

    /// A proxy to a seeder that no tracker knows.
    pub(crate) async fn proxy(&self, seeder: &RunningSeeder, manner: Manner) -> Proxy {
        Proxy::start(seeder.address, manner, &self.tasks, &self.stop).await
    }

    /// So many of them.
    pub(crate) async fn proxies(&self, seeder: &RunningSeeder, manner: Manner, count: usize) -> Vec<Proxy> {
        let mut proxies = Vec::new();
        for _ in 0..count {
            proxies.push(self.proxy(seeder, manner).await);
        }
        proxies
    }

    /// Tells the tracker that there is a seeder of `source` at `address`. Nobody renews that.
    pub(crate) async fn announce(&self, source: &Source, address: SocketAddr) {
        let mut rng = rand::rng();
        let announce = Announce {
            token: Token([0; 16]),
            infohash: source.infohash(),
            peer_id: PeerId::random(&mut rng),
            secret: Secret::random(&mut rng),
            port: address.port().try_into().unwrap(),
            name: source.name(),
            size: source.size(),
            event: AnnounceEvent::Started,
            progress: Progress::COMPLETE,
        };
        TrackerClient::spawn(self.tracker(), Some(LOCALHOST), &self.tasks).announce(announce).await.unwrap();
    }

    /// Addresses of the peers of `source` that the tracker knows.
    pub(crate) async fn peers(&self, source: &Source) -> Vec<SocketAddr> {
        let client = TrackerClient::spawn(self.tracker(), Some(LOCALHOST), &self.tasks);
        let query = Query::Peers { infohash: source.infohash(), want: 50 };
        let (peers, _) = client.peers(query).await.unwrap();
        peers.peers.iter().map(|peer| SocketAddr::new(LOCALHOST, peer.port.get())).collect()
    }

    /// How many seeders of `source` the tracker knows.
    pub(crate) async fn seeders(&self, source: &Source) -> u32 {
        let client = TrackerClient::spawn(self.tracker(), Some(LOCALHOST), &self.tasks);
        match client.peers(Query::Peers { infohash: source.infohash(), want: 1 }).await {
            Ok((peers, _)) => peers.seeders,
            Err(TrackerError::Call {
                source: CallError::Refused(ErrorCode::UnknownShare { .. }), ..
            }) => 0,
            Err(error) => panic!("{error}"),
        }
    }

    /// Sets up a transfer into a new directory that asks nobody but `peers`.
    pub(crate) fn config(&mut self, source: &Source, peers: &[SocketAddr]) -> leecher::Config {
        let peers = peers.iter().copied().map(endpoint).collect();
        let target = Target::InfoHash(source.infohash());
        leecher::Config { trackers: Vec::new(), peers, ..self.config_for(target) }
    }

    /// Sets up a transfer into a new directory that asks the tracker.
    pub(crate) fn config_for(&mut self, target: Target) -> leecher::Config {
        self.outputs += 1;
        let output = self.dir.path().join(format!("output-{}", self.outputs));
        fs::create_dir(&output).unwrap();
        leecher::Config {
            trackers: vec![self.tracker()],
            destination: Destination::Directory(output),
            bind: Some(LOCALHOST),
            ..leecher::Config::new(target)
        }
    }

    /// Waits until the tracker knows a peer of a share, and says where it is.
    pub(crate) async fn known_peer(&self, infohash: InfoHash) -> SocketAddr {
        let tracker = TrackerClient::spawn(self.tracker(), Some(LOCALHOST), &self.tasks);
        loop {
            if let Ok((peers, reached_at)) = tracker.peers(Query::Peers { infohash, want: 1 }).await
                && let Some(peer) = peers.peers.first()
            {
                return peer.socket_addr(reached_at).unwrap();
            }
        }
    }

    /// Starts a transfer, on a port of its own.
    pub(crate) fn fetch(&self, mut config: leecher::Config) -> Fetch {
        config.acceptor = Some(Acceptor::bind(Some(LOCALHOST), 0, &self.tasks).unwrap());
        Fetch::start(config, &self.tasks, &self.stop)
    }

    fn new_dir(&mut self) -> PathBuf {
        self.sources += 1;
        let dir = self.dir.path().join(format!("source-{}", self.sources));
        fs::create_dir(&dir).unwrap();
        dir
    }
}

impl RunningTracker {
    async fn start(port: u16, tasks: &TaskTracker, stop: &CancellationToken) -> RunningTracker {
        let config = tracker::Config {
            bind: Some(LOCALHOST),
            port,
            heartbeat: HEARTBEAT,
            ..tracker::Config::default()
        };
        RunningTracker::start_with(config, tasks, stop).await
    }

    async fn start_with(
        config: tracker::Config,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> RunningTracker {
        let tracker = Tracker::bind(config).await.unwrap();
        let (address, stop) = (tracker.local_addr(), stop.child_token());
        let shutdown = stop.clone();
        let task = tasks.spawn(async move { tracker.run(shutdown).await.unwrap() });
        RunningTracker { address, stop, task }
    }
}

impl RunningSeeder {
    /// Waits until trackers have taken `count` announces in all.
    pub(crate) async fn announced(&mut self, count: u32) {
        self.announces.wait_for(|&announces| announces >= count).await.unwrap();
    }

    /// Waits until a share is withdrawn, and gives the reasons for all that are.
    pub(crate) async fn withdrawn(&mut self) -> Vec<String> {
        self.withdrawals.wait_for(|withdrawals| !withdrawals.is_empty()).await.unwrap().clone()
    }

    /// Waits until a tracker has taken one more announce.
    pub(crate) async fn announced_again(&mut self) {
        let before = *self.announces.borrow();
        self.announced(before + 1).await;
    }
}

/// An address in the form that users write.
pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { host: address.ip().to_string(), port: address.port() }
}
