//! A tracker and seeders inside the test.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    ops::ControlFlow,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use proto::{Endpoint, Link, ShareName};
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
use seeder::{Event, Seeder};
use store::{Content, Scan, ScanRules, Shared};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracker::Tracker;

use crate::program::PATIENCE;

/// A tracker, and the seeders that are started. All of it ends when this is dropped.
pub(crate) struct Network {
    runtime: Runtime,
    tracker: SocketAddr,
    files: TempDir,
    shared: AtomicU32,
}

impl Network {
    pub(crate) fn start() -> Network {
        Network::with(tracker::Config::default())
    }

    /// A network in which peers announce every second.
    pub(crate) fn lively() -> Network {
        Network::with(tracker::Config { heartbeat: Duration::from_secs(1), ..tracker::Config::default() })
    }

    pub(crate) fn with(config: tracker::Config) -> Network {
        let runtime = Runtime::new().unwrap();
        let config = tracker::Config { bind: Some(Ipv4Addr::LOCALHOST.into()), port: 0, ..config };
        let tracker = runtime.block_on(Tracker::bind(config)).unwrap();
        let address = tracker.local_addr();
        // Ends with the runtime.
        runtime.spawn(tracker.run(CancellationToken::new()));
        Network { runtime, tracker: address, files: tempfile::tempdir().unwrap(), shared: AtomicU32::new(0) }
    }

    /// What to give to `--tracker`.
    pub(crate) fn tracker(&self) -> String {
        self.tracker.to_string()
    }

    /// A share of one file.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> Arc<Shared> {
        self.directory(name, &[("", bytes)])
    }

    /// A share of these files, each a path with the bytes in it.
    pub(crate) fn directory(&self, name: &str, files: &[(&str, &[u8])]) -> Arc<Shared> {
        // Several shares may have one name.
        let number = self.shared.fetch_add(1, Ordering::Relaxed).to_string();
        let root = self.files.path().join(number).join(name);
        for (path, bytes) in files {
            let path = if path.is_empty() { root.clone() } else { root.join(path) };
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        share(&root, &ScanRules::default())
    }

    /// Starts a seeder, and returns its port when the tracker knows it.
    pub(crate) fn seed(&self, content: Arc<dyn Content>) -> u16 {
        let trackers = vec![self.tracker().parse().unwrap()];
        let config = seeder::Config {
            bind: Some(Ipv4Addr::LOCALHOST.into()),
            port: 0,
            trackers,
            ..seeder::Config::default()
        };
        let _runtime = self.runtime.enter();
        let seeder = Seeder::bind(config, &TaskTracker::new()).unwrap();
        let port = seeder.local_addr().port();
        let (announced, waiting) = mpsc::channel();
        let on_event = move |event| match event {
            // Heartbeats find nobody waiting.
            Event::Announced { .. } => _ = announced.send(()),
            Event::NotAnnounced { error, .. } => panic!("{error}"),
            Event::Withdrawn { error, .. } => panic!("{error}"),
            _ => {}
        };
        self.runtime.spawn(seeder.share(content).unwrap().run(on_event, CancellationToken::new()));
        waiting.recv_timeout(PATIENCE).expect("a registration");
        port
    }

    /// Runs something for as long as the network.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }
}

/// A share of this path.
pub(crate) fn share(path: &Path, rules: &ScanRules) -> Arc<Shared> {
    let scan = Scan::new(path, None, rules).unwrap();
    Arc::new(scan.hash(None, &|_| ControlFlow::Continue(())).unwrap())
}

/// A link to a share.
pub(crate) fn link(content: &dyn Content, trackers: &[String], peers: &[String]) -> String {
    let endpoints =
        |texts: &[String]| -> Vec<Endpoint> { texts.iter().map(|t| t.parse().unwrap()).collect() };
    let metainfo = content.metainfo();
    let name: ShareName = metainfo.name().clone();
    let (trackers, peers) = (endpoints(trackers), endpoints(peers));
    Link { infohash: metainfo.infohash(), name: Some(name), trackers, peers }.to_string()
}

/// A tracker that takes what it is sent and never answers.
pub(crate) fn silent_tracker() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

/// A TCP port that refuses connections, and that nobody else gets: bound, but not listened on.
pub(crate) fn refusing_peer() -> (OwnedFd, String) {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address: SocketAddr = getsockname(&socket).unwrap().try_into().unwrap();
    (socket, address.to_string())
}
