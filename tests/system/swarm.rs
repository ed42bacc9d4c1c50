//! Everything that runs in one test.

#[cfg(target_os = "linux")]
use std::sync::Arc;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use peer::tracker_client::{TrackerClient, TrackerError};
use proto::{
    Endpoint, InfoHash, PeerId, Secret, Zone,
    tracker::{Announce, Completion, ErrorCode, Event as AnnounceEvent, Query, Token, client::CallError},
};
#[cfg(target_os = "linux")]
use seeder::{Event, Seeder};
use shoal::{
    Builder, Node, ShareEvent, StreamExt, Target,
    tracker::{self, TrackerHandle},
};
#[cfg(target_os = "linux")]
use store::Content;
use tempfile::TempDir;
use tokio::{runtime, sync::watch, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    fetch::{Fetch, Plan},
    proxy::{Manner, Proxy},
    source::{Source, content},
};

/// A test that takes longer hangs: none of them needs nearly as long, even on a busy machine.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Every role must be gone this long after it was stopped. They need one or two seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// The shortest possible heartbeat, so a restarted tracker soon knows everybody again.
const HEARTBEAT: Duration = Duration::from_secs(1);

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Runs a test in a swarm of its own, and fails if it does not end.
pub(crate) fn test(body: impl AsyncFnOnce(&mut Swarm)) {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut swarm = Swarm::start().await;
        let ended = timeout(TEST_TIMEOUT, body(&mut swarm)).await;
        assert!(ended.is_ok(), "the test hangs");
        swarm.close().await;
    });
}

/// A tracker, everything else that a test starts, and the directory of all their files.
pub(crate) struct Swarm {
    dir: TempDir,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// The first is the one that everybody uses.
    trackers: Vec<TrackerHandle>,
    sources: u64,
    outputs: u64,
}

/// A seeder that runs until the end of the test, or until it is stopped.
pub(crate) struct RunningSeeder {
    pub(crate) address: SocketAddr,
    announces: watch::Receiver<u32>,
    withdrawals: watch::Receiver<Vec<String>>,
    stop: CancellationToken,
    task: JoinHandle<u64>,
}

impl Swarm {
    async fn start() -> Swarm {
        Swarm {
            dir: tempfile::tempdir().unwrap(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            trackers: vec![TrackerHandle::start(tracker_config()).await.unwrap()],
            sources: 0,
            outputs: 0,
        }
    }

    async fn close(self) {
        let Swarm { tasks, stop, trackers, .. } = self;
        stop.cancel();
        tasks.close();
        let stopped = timeout(STOP_TIMEOUT, tasks.wait()).await;
        assert!(stopped.is_ok(), "{} tasks do not stop", tasks.len());
        // Last, so that everybody else can deregister.
        for tracker in trackers {
            timeout(STOP_TIMEOUT, tracker.stop()).await.expect("a tracker does not stop").unwrap();
        }
    }

    /// The address of the tracker.
    pub(crate) fn tracker(&self) -> Endpoint {
        self.trackers[0].local_addr().into()
    }

    /// A node that runs until the end of the test.
    pub(crate) fn node(&self, builder: Builder) -> Node {
        let node = builder.bind(LOCALHOST).build();
        let (running, stop) = (node.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            stop.cancelled().await;
            running.stop().await;
        });
        node
    }

    /// Ends the tracker, which forgets everything, and starts it again on its port.
    pub(crate) async fn restart_tracker(&mut self) {
        let tracker = self.trackers.remove(0);
        let config = tracker::Config { port: tracker.local_addr().port(), ..tracker_config() };
        tracker.stop().await.unwrap();
        self.trackers.insert(0, TrackerHandle::start(config).await.unwrap());
    }

    /// Ends the tracker, as if it had peers, and starts it again on its port. When peers would expire at the latest, it believes that
    /// it knows everybody.
    pub(crate) async fn restart_tracker_that_had_peers(&mut self, expire: Duration) {
        let tracker = self.trackers.remove(0);
        let marker = self.dir.path().join("tracker");
        fs::write(&marker, "").unwrap();
        let port = tracker.local_addr().port();
        let config = tracker::Config { port, expire, marker: Some(marker), ..tracker_config() };
        tracker.stop().await.unwrap();
        self.trackers.insert(0, TrackerHandle::start(config).await.unwrap());
    }

    /// Where tasks are spawned that end with the test.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Starts a second tracker, which knows nobody.
    pub(crate) async fn another_tracker(&mut self) -> Endpoint {
        self.start_tracker(tracker_config()).await
    }

    /// Starts a tracker, and waits until it has been up long enough to know every peer.
    pub(crate) async fn settled_tracker(&mut self, infohash: InfoHash) -> Endpoint {
        let config = tracker::Config { expire: 2 * HEARTBEAT, ..tracker_config() };
        let address = self.start_tracker(config).await;
        let tracker = TrackerClient::spawn(address.clone(), Some(LOCALHOST), &self.tasks);
        loop {
            match tracker.peers(Query::Peers { infohash, want: 1, zone: Zone::NONE }).await {
                Err(TrackerError::Call {
                    error: CallError::Refused(ErrorCode::UnknownShare { settles_in_s: 0 }),
                    ..
                }) => return address,
                Err(TrackerError::Call { error: CallError::Refused(_), .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn start_tracker(&mut self, config: tracker::Config) -> Endpoint {
        let tracker = TrackerHandle::start(config).await.unwrap();
        let address = tracker.local_addr().into();
        self.trackers.push(tracker);
        address
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
        self.seed_with(Node::builder(), source).await
    }

    /// A seeder that the tracker knows.
    pub(crate) async fn seed(&self, source: &Source) -> RunningSeeder {
        let mut seeder = self.seed_with(Node::builder().tracker(self.tracker()), source).await;
        seeder.announced(1).await;
        seeder
    }

    /// A seeder on a node of its own, which is set up like this.
    pub(crate) async fn seed_with(&self, builder: Builder, source: &Source) -> RunningSeeder {
        self.seed_on(&self.node(builder), source).await
    }

    /// A seeder on a node that others may use too.
    pub(crate) async fn seed_on(&self, node: &Node, source: &Source) -> RunningSeeder {
        let mut handle = node.share(&*source.path).await.unwrap();
        let address = handle.local_addr();
        let (announced, announces) = watch::channel(0);
        let (withdrawn, withdrawals) = watch::channel(Vec::new());
        let stop = self.stop.child_token();
        let stopped = stop.clone();
        let task = self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    Some(event) = handle.events().next() => match event {
                        ShareEvent::Registered { .. } => announced.send_modify(|count| *count += 1),
                        ShareEvent::Withdrawn(error) => withdrawn.send_modify(|all| all.push(error.to_string())),
                        // A tracker that restarts does not answer for a while.
                        _ => {}
                    },
                    () = stopped.cancelled() => break handle.stop().await,
                    else => panic!("the share ended"),
                }
            }
        });
        RunningSeeder { address, announces, withdrawals, stop, task }
    }

    /// A seeder of content that no path can have.
    #[cfg(target_os = "linux")]
    pub(crate) async fn seed_content(&self, content: Arc<dyn Content>) -> RunningSeeder {
        let config = seeder::Config {
            bind: Some(LOCALHOST),
            port: 0,
            trackers: vec![self.tracker()],
            ..seeder::Config::default()
        };
        let seeder = Seeder::bind(config, &self.tasks).unwrap();
        let address = seeder.local_addr();
        let (announced, announces) = watch::channel(0);
        let (withdrawn, withdrawals) = watch::channel(Vec::new());
        let (announced, withdrawn) = (Arc::new(announced), Arc::new(withdrawn));
        let on_event = move |event| match event {
            Event::Announced { .. } => announced.send_modify(|count| *count += 1),
            Event::Withdrawn { error, .. } => withdrawn.send_modify(|all| all.push(error.to_string())),
            _ => {}
        };
        let stop = self.stop.child_token();
        let task = self.tasks.spawn(seeder.share(content).unwrap().run(on_event, stop.clone()));
        RunningSeeder { address, announces, withdrawals, stop, task }
    }

    /// A proxy to a seeder that no tracker knows.
    pub(crate) async fn proxy(&self, seeder: &RunningSeeder, manner: Manner) -> Proxy {
        Proxy::start(seeder.address, manner, &self.tasks, &self.stop).await
    }

    /// `count` proxies.
    pub(crate) async fn proxies(&self, seeder: &RunningSeeder, manner: Manner, count: usize) -> Vec<Proxy> {
        let mut proxies = Vec::new();
        for _ in 0..count {
            proxies.push(self.proxy(seeder, manner).await);
        }
        proxies
    }

    /// Registers a seeder of `source` at `address`. Nothing renews the registration.
    pub(crate) async fn announce(&self, source: &Source, address: SocketAddr) {
        let client = TrackerClient::spawn(self.tracker(), Some(LOCALHOST), &self.tasks);
        client.announce(seeder_at(source, address)).await.unwrap();
    }

    /// Addresses of the peers of `source` that the tracker knows.
    pub(crate) async fn peers(&self, source: &Source) -> Vec<SocketAddr> {
        let client = TrackerClient::spawn(self.tracker(), Some(LOCALHOST), &self.tasks);
        let query = Query::Peers { infohash: source.infohash(), want: 50, zone: Zone::NONE };
        let (peers, _) = client.peers(query).await.unwrap();
        peers.peers.iter().map(|peer| SocketAddr::new(LOCALHOST, peer.port.get())).collect()
    }

    /// How many seeders of `source` the tracker knows.
    pub(crate) async fn seeders(&self, source: &Source) -> u32 {
        let client = TrackerClient::spawn(self.tracker(), Some(LOCALHOST), &self.tasks);
        match client.peers(Query::Peers { infohash: source.infohash(), want: 1, zone: Zone::NONE }).await {
            Ok((peers, _)) => peers.seeders,
            Err(TrackerError::Call { error: CallError::Refused(ErrorCode::UnknownShare { .. }), .. }) => 0,
            Err(error) => panic!("{error}"),
        }
    }

    /// A transfer into a new directory that asks nobody but `peers`.
    pub(crate) fn plan(&mut self, source: &Source, peers: &[SocketAddr]) -> Plan {
        let peers = peers.iter().copied();
        self.plan_for(source.infohash()).asking(&[]).with(|fetch| peers.fold(fetch, shoal::Fetch::peer))
    }

    /// A transfer into a new directory that asks the tracker.
    pub(crate) fn plan_for(&mut self, target: impl Into<Target>) -> Plan {
        self.outputs += 1;
        let directory = self.dir.path().join(format!("output-{}", self.outputs));
        fs::create_dir(&directory).unwrap();
        Plan::new(shoal::Fetch::new(target), vec![self.tracker()], directory)
    }

    /// Waits until the tracker knows a peer of a share, and returns its address.
    pub(crate) async fn known_peer(&self, infohash: InfoHash) -> SocketAddr {
        let tracker = TrackerClient::spawn(self.tracker(), Some(LOCALHOST), &self.tasks);
        loop {
            if let Ok((peers, reached_at)) =
                tracker.peers(Query::Peers { infohash, want: 1, zone: Zone::NONE }).await
                && let Some(peer) = peers.peers.first()
            {
                return peer.socket_addr(reached_at).unwrap();
            }
        }
    }

    /// A leecher of `source` that knows one honest peer, which sends no chunk before it is opened. Returns the transfer, that peer, and
    /// the address where others reach the leecher.
    pub(crate) async fn fetch_from_one(&mut self, source: &Source) -> (Fetch, Proxy, SocketAddr) {
        let seeder = self.seed_unannounced(source).await;
        let honest = self.proxy(&seeder, Manner::Honest).await;
        let plan = self.plan_for(source.infohash()).with(|fetch| fetch.peer(honest.address));
        let mut fetch = self.fetch(plan);
        fetch.joined(honest.address).await;
        let leecher = self.known_peer(source.infohash()).await;
        (fetch, honest, leecher)
    }

    /// Starts a transfer.
    pub(crate) fn fetch(&self, plan: Plan) -> Fetch {
        let builder = plan.trackers.iter().cloned().fold(Node::builder(), Builder::tracker);
        Fetch::start(&self.node(builder), plan, &self.tasks, &self.stop)
    }

    pub(crate) fn new_dir(&mut self) -> PathBuf {
        self.sources += 1;
        let dir = self.dir.path().join(format!("source-{}", self.sources));
        fs::create_dir(&dir).unwrap();
        dir
    }
}

impl RunningSeeder {
    /// Deregisters and ends.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Waits until trackers have accepted `count` announces in all.
    pub(crate) async fn announced(&mut self, count: u32) {
        self.announces.wait_for(|&announces| announces >= count).await.unwrap();
    }

    /// Waits until a share is withdrawn, and returns the reasons of all withdrawn shares.
    pub(crate) async fn withdrawn(&mut self) -> Vec<String> {
        self.withdrawals.wait_for(|withdrawals| !withdrawals.is_empty()).await.unwrap().clone()
    }

    /// Waits until a tracker has accepted one more announce.
    pub(crate) async fn announced_again(&mut self) {
        let before = *self.announces.borrow();
        self.announced(before + 1).await;
    }
}

/// The first announce of a seeder of `source` that listens on the port of `address`.
pub(crate) fn seeder_at(source: &Source, address: SocketAddr) -> Announce {
    let mut rng = rand::rng();
    Announce {
        token: Token([0; 16]),
        infohash: source.infohash(),
        peer_id: PeerId::random(&mut rng),
        secret: Secret::random(&mut rng),
        port: address.port().try_into().unwrap(),
        name: source.name(),
        size: source.size(),
        event: AnnounceEvent::Started,
        progress: Completion::COMPLETE,
        label: Default::default(),
        fetched: false,
        zone: Zone::NONE,
    }
}

fn tracker_config() -> tracker::Config {
    tracker::Config { bind: Some(LOCALHOST), port: 0, heartbeat: HEARTBEAT, ..tracker::Config::default() }
}
