use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf};

use peer::handshake;
use proto::{
    Metainfo, ShareName, Zone,
    metainfo::Tree,
    peer::{Hello, Role},
};
use store::ChunkHashes;
use tokio::{net::TcpStream, task::yield_now, time::timeout};
use tokio_util::task::TaskTracker;

use super::*;
use crate::destination::{Destination, Replace};

const INFOHASH: InfoHash = InfoHash([7; 32]);

/// A driver that serves on a free port and knows no peer.
fn driver(directory: PathBuf, tasks: &TaskTracker) -> (Driver<impl FnMut(FetchEvent) + use<>>, Acceptor) {
    let acceptor = Acceptor::bind(Some(Ipv4Addr::LOCALHOST.into()), 0, tasks).unwrap();
    let setup = Setup {
        infohash: INFOHASH,
        trackers: Vec::new(),
        named: Vec::new(),
        peers: Vec::new(),
        acceptor: Some(acceptor.clone()),
        goal: Goal::Files,
        local: None,
        is_new: false,
        saving: Saving {
            destination: Destination::Directory(directory),
            replace: Replace::Nothing,
            only: Vec::new(),
            from: Vec::new(),
            times: false,
            sparse: true,
            proofs: None,
        },
        max_peers: MaxPeers::new(9),
        stall_timeout: Duration::from_secs(60),
        wait: Duration::ZERO,
        upload_limit: RateLimit::unlimited(),
        download_limit: RateLimit::unlimited(),
        view: None,
        label: Default::default(),
        zone: Zone::NONE,
        stay: Stay::default(),
        begun: Instant::now(),
    };
    (Driver::new(setup, |_| {}), acceptor)
}

/// Peers may send messages without end. They hold up neither work on the disk, nor newcomers, nor lookups, nor the user.
#[tokio::test]
async fn a_flood_of_events_holds_up_nothing_else() {
    let (directory, tasks) = (tempfile::tempdir().unwrap(), TaskTracker::new());
    let (mut driver, acceptor) = driver(directory.path().to_owned(), &tasks);
    let metainfo = Metainfo::new(ShareName::new("empty").unwrap(), Tree::Directory(BTreeMap::new())).unwrap();
    let hashes = ChunkHashes::prove(&metainfo, Vec::new()).unwrap();
    let description = Description { metainfo: Arc::new(metainfo), hashes };
    driver.disk.open(description, driver.setup.saving.clone(), None, CancellationToken::new());
    driver.lookups.spawn(async { (SourceId(0), Answer::Unknown { settled: true }) });
    driver.route = acceptor.route(INFOHASH);
    let address = acceptor.local_addr();
    tasks.spawn(async move {
        let peer_id = PeerId([2; 16]);
        let hello =
            Hello { infohash: INFOHASH, peer_id, role: Role::Leecher, listen_port: 0, zone: Zone::NONE };
        _ = handshake::initiate(TcpStream::connect(address).await.unwrap(), hello).await;
    });
    let stop = CancellationToken::new();
    let events = driver.context.events.clone();
    let mut missing = vec!["work on the disk", "lookup", "newcomer", "the user"];
    let flood = async {
        while !missing.is_empty() {
            while events.try_send((PeerKey(1), PeerEvent::Alive.into())).is_ok() {}
            let happened = match driver.next(&stop).await {
                Next::Done(_) => "work on the disk",
                Next::Answered(..) => "lookup",
                Next::Incoming(_) => "newcomer",
                Next::Stopped => "the user",
                Next::Events(_) | Next::Nothing => "",
            };
            missing.retain(|&other| other != happened);
            if missing == ["the user"] {
                stop.cancel();
            }
            yield_now().await;
        }
    };
    let over = timeout(Duration::from_secs(30), flood).await;
    assert!(over.is_ok(), "held up: {missing:?}");
    drop((driver, acceptor));
    tasks.close();
    tasks.wait().await;
}

/// While the share is made durable the core waits for nothing. That time would count as time in which the process did not run.
#[tokio::test]
async fn the_clock_is_read_also_while_the_core_waits_for_nothing() {
    let (directory, tasks) = (tempfile::tempdir().unwrap(), TaskTracker::new());
    let (driver, acceptor) = driver(directory.path().to_owned(), &tasks);
    assert_eq!(driver.core.next_timeout(), None);
    let now = Instant::now();
    assert_eq!(driver.wake(now), now + LOOK_INTERVAL);
    drop((driver, acceptor));
    tasks.close();
    tasks.wait().await;
}

/// Otherwise the core would wait for its last event for ever.
#[tokio::test]
async fn a_session_that_panics_ends_the_transfer() {
    let (directory, tasks) = (tempfile::tempdir().unwrap(), TaskTracker::new());
    let (mut driver, acceptor) = driver(directory.path().to_owned(), &tasks);
    driver.sessions.spawn(async { panic!("a test") });
    let driving = tokio::spawn(async move {
        let stop = CancellationToken::new();
        loop {
            driver.next(&stop).await;
            yield_now().await;
        }
    });
    let ended: Result<Result<(), _>, _> = timeout(Duration::from_secs(30), driving).await;
    assert!(ended.expect("the panic was ignored").unwrap_err().is_panic());
    drop(acceptor);
    tasks.close();
    tasks.wait().await;
}
