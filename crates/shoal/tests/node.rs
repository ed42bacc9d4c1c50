//! Nodes as a program embeds them, with a tracker in this process. Every wait is for something that happens, at most for
//! [`TEST_TIMEOUT`].
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    future::{Future, ready},
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use peer::outside;
use rand::Rng;
use shoal::{
    Endpoint, Fetch, FetchError, FetchEvent, Hashed, InfoHash, Node, ShareError, ShareEvent, ShareHandle,
    Stay, StreamExt, Target,
    tracker::{Config, TrackerHandle},
};
use tempfile::TempDir;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A test that takes longer hangs.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Several chunks, the last one short.
const FILE_LEN: usize = 1_500_000;

async fn within<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(TEST_TIMEOUT, test).await.expect("the test hangs")
}

/// A tracker, a node that knows it, and a place for files.
struct Bench {
    node: Node,
    dir: TempDir,
    tracker: TrackerHandle,
}

impl Bench {
    async fn new() -> Bench {
        let config = Config { bind: Some(LOCALHOST), port: 0, ..Config::default() };
        let tracker = TrackerHandle::start(config).await.unwrap();
        let node = Node::builder().tracker(tracker.local_addr()).bind(LOCALHOST).build();
        Bench { node, dir: TempDir::new().unwrap(), tracker }
    }

    /// A file of random bytes.
    fn file(&self, name: &str) -> PathBuf {
        let mut bytes = vec![0; FILE_LEN];
        rand::rng().fill_bytes(&mut bytes);
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A share that the tracker knows.
    async fn registered(&self, path: &Path) -> ShareHandle {
        let mut share = self.node.share(path).await.unwrap();
        let tracker = &share.link().trackers[0].clone();
        match share.events().next().await {
            Some(ShareEvent::Registered { tracker: at, .. }) => assert_eq!(at, *tracker),
            other => panic!("{other:?}"),
        }
        share
    }

    /// Waits until the tracker knows no share any more.
    async fn nothing_is_listed(&self) {
        while !self.node.list().await.unwrap().is_empty() {}
    }

    async fn end(self) {
        self.node.stop().await;
        self.tracker.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_node_shares_and_fetches_several_at_a_time() {
    within(async {
        let bench = Bench::new().await;
        let (one, two) = (bench.file("one"), bench.file("two"));
        let first = bench.registered(&one).await;
        let second = bench.registered(&two).await;
        let listed = bench.node.list().await.unwrap();
        let mut names: Vec<_> = listed.iter().map(|share| share.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["one", "two"]);

        let output = bench.dir.path().join("copy");
        fs::write(&output, "in the way").unwrap();
        let mut by_link = bench.node.fetch(Fetch::new(first.link().clone()).output(&output).overwrite());
        let by_name = bench.node.fetch("two".parse::<Fetch>().unwrap().directory(bench.dir.path()));
        let mut saw_start = false;
        while let Some(event) = by_link.events().next().await {
            match event {
                FetchEvent::Started(started) => {
                    assert_eq!(started.infohash, first.infohash());
                    saw_start = true;
                }
                FetchEvent::Finished(fetched) => assert_eq!(fetched.size, FILE_LEN as u64),
                _ => {}
            }
        }
        assert!(saw_start);
        let (copy_of_one, copy_of_two) =
            (by_link.finished().await.unwrap(), by_name.finished().await.unwrap());
        assert_eq!(copy_of_one.path, output);
        assert!(fs::read(&output).unwrap() == fs::read(&one).unwrap());
        assert!(fs::read(&copy_of_two.path).unwrap() == fs::read(&two).unwrap());

        let sent = first.stop().await + second.stop().await;
        assert_eq!(sent, 2 * FILE_LEN as u64);
        bench.nothing_is_listed().await;
        bench.end().await;
    })
    .await;
}

#[tokio::test]
async fn everything_of_a_node_is_on_one_port() {
    within(async {
        let bench = Bench::new().await;
        let (one, two) = (bench.file("one"), bench.file("two"));
        let (first, second) = (bench.registered(&one).await, bench.registered(&two).await);
        assert_eq!(first.local_addr(), second.local_addr());
        let again = bench.node.share(one).await.unwrap_err();
        assert!(matches!(again, ShareError::AlreadyRouted(_)), "{again}");

        // A node that fetches both serves both, and the share that it has itself, on a port of its own.
        let other = Node::builder().tracker(bench.tracker.local_addr()).bind(LOCALHOST).build();
        let third = other.share(bench.file("three")).await.unwrap();
        let stay = |share: &ShareHandle, name| {
            let target = Target::from(share.infohash());
            Fetch::new(target).output(bench.dir.path().join(name)).stay(Stay::Forever)
        };
        let mut fetches = [other.fetch(stay(&first, "1")), other.fetch(stay(&second, "2"))];
        for fetch in &mut fetches {
            while !matches!(fetch.events().next().await, Some(FetchEvent::Finished(_))) {}
        }
        let infohashes = [first.infohash(), second.infohash()];
        first.stop().await;
        second.stop().await;
        let last = Node::builder().bind(LOCALHOST).build();
        for (infohash, name) in infohashes.into_iter().zip(["3", "4"]) {
            let copy = Fetch::new(infohash).peer(third.local_addr()).output(bench.dir.path().join(name));
            last.fetch(copy).finished().await.unwrap();
        }
        for fetch in fetches {
            fetch.stop().await.unwrap();
        }
        third.stop().await;
        bench.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_share_ends_when_its_handle_is_dropped() {
    within(async {
        let bench = Bench::new().await;
        let share = bench.registered(&bench.file("file")).await;
        drop(share);
        bench.nothing_is_listed().await;
        bench.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_transfer_can_be_stopped_and_ends_with_its_node() {
    within(async {
        let bench = Bench::new().await;
        let nobody_has = || Fetch::new(InfoHash([7; 32])).directory(bench.dir.path()).wait(2 * TEST_TIMEOUT);
        let stopped = bench.node.fetch(nobody_has());
        assert!(matches!(stopped.stop().await, Err(FetchError::Interrupted { part: None })));

        let handle = bench.node.fetch(nobody_has());
        let node = bench.node.clone();
        bench.end().await;
        assert!(matches!(handle.finished().await, Err(FetchError::Interrupted { part: None })));
        let later = node.fetch("anything".parse::<Target>().unwrap());
        assert!(matches!(later.finished().await, Err(FetchError::Interrupted { part: None })));
    })
    .await;
}

#[tokio::test]
async fn a_node_that_was_stopped_takes_no_port() {
    within(async {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "12345").unwrap();
        let node = Node::builder().bind(LOCALHOST).build();
        // Its task runs only after `stop` has begun.
        let sharing = node.share(&path);
        node.stop().await;
        let stopped = sharing.await.unwrap_err();
        assert!(matches!(stopped, ShareError::Content(_)), "{stopped}");

        // Trying to take this port would be another error.
        let taken = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let node = Node::builder().bind(LOCALHOST).port(taken.local_addr().unwrap().port()).build();
        node.stop().await;
        let stopped = node.share(&path).await.unwrap_err();
        assert!(matches!(stopped, ShareError::Content(_)), "{stopped}");
        let stopped = node.fetch(InfoHash([7; 32])).finished().await;
        assert!(matches!(stopped, Err(FetchError::Interrupted { part: None })), "{stopped:?}");
    })
    .await;
}

#[tokio::test]
async fn handles_can_be_waited_for_and_used_afterwards() {
    within(async {
        let mut bench = Bench::new().await;
        let mut share = bench.registered(&bench.file("file")).await;
        let mut fetch = bench.node.fetch(Fetch::new(share.link().clone()).directory(bench.dir.path()));
        tokio::select! {
            biased;
            ended = &mut share => panic!("{ended:?}"),
            ended = bench.tracker.failed() => panic!("{ended:?}"),
            ended = &mut fetch => panic!("{ended:?}"),
            () = ready(()) => {}
        }
        // None of them ends because a wait for it was given up.
        let fetched = (&mut fetch).await.unwrap();
        assert_eq!(fetched.size, FILE_LEN as u64);
        bench.node.stop().await;
        assert_eq!((&mut share).await, FILE_LEN as u64);
        bench.end().await;
    })
    .await;
}

#[tokio::test]
async fn natural_limits_are_taken_as_they_are_meant() {
    within(async {
        let bench = Bench::new().await;
        let node = Node::builder().bind(LOCALHOST).max_peers(usize::MAX).build();
        let share = node.share(bench.file("file")).await.unwrap();
        for (count, directory) in [(usize::MAX, "most"), (0, "fewest")] {
            let fetch = Fetch::new(share.link().clone()).directory(bench.dir.path().join(directory));
            let fetch = fetch.wait(Duration::MAX).stall_timeout(Duration::MAX).max_peers(count);
            bench.node.fetch(fetch).finished().await.unwrap();
        }
        node.stop().await;
        bench.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_link_of_a_node_without_trackers_leads_to_the_node() {
    within(async {
        let bench = Bench::new().await;
        let source = bench.file("file");
        let node = Node::builder().bind(LOCALHOST).hash_cache(bench.dir.path().join("hashes")).build();
        let share = node.share(source.as_path()).await.unwrap();
        assert_eq!(share.link().peers, [share.local_addr().into()]);
        let fetch = Fetch::new(share.link().clone()).directory(bench.dir.path()).no_serve();
        let fetched = Node::default().fetch(fetch).finished().await.unwrap();
        assert!(fs::read(&fetched.path).unwrap() == fs::read(&source).unwrap());
        node.stop().await;
        bench.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_link_leads_here_from_other_machines_though_the_tracker_is_named_by_loopback() {
    within(async {
        let tracker = TrackerHandle::start(Config { port: 0, ..Config::default() }).await.unwrap();
        let port = tracker.local_addr().port();
        let node = Node::builder().tracker((LOCALHOST, port)).build();
        let dir = TempDir::new().unwrap();
        let source = dir.path().join("file");
        fs::write(&source, "12345").unwrap();
        let share = node.share(&source).await.unwrap();
        assert_eq!(share.local_link().trackers, [Endpoint::from((LOCALHOST, port))]);
        // A machine without a network has no other address.
        let own = outside::own_address(None).unwrap_or(LOCALHOST);
        assert_eq!(share.link().trackers, [Endpoint::from((own, port))]);
        let fetch = Fetch::new(share.link().clone()).directory(dir.path());
        let fetched = Node::default().fetch(fetch).finished().await.unwrap();
        assert_eq!(fs::read(fetched.path).unwrap(), b"12345");
        node.stop().await;
        tracker.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn hashing_reports_how_far_it_is() {
    within(async {
        let bench = Bench::new().await;
        let mut hashing = bench.node.share(bench.file("file"));
        let mut last = Hashed::default();
        while let Some(hashed) = hashing.progress().next().await {
            assert!(hashed.done >= last.done);
            last = hashed;
        }
        assert_eq!(last, Hashed { done: FILE_LEN as u64, total: FILE_LEN as u64 });
        let share = hashing.await.unwrap();
        drop(share);
        let other = bench.file("other");
        drop(bench.node.share(&other));
        // If hashing had gone on, the file would be shared already.
        bench.node.share(&other).await.unwrap();
        bench.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_tracker_ends_when_its_handle_is_dropped() {
    within(async {
        let config = Config { bind: Some(LOCALHOST), port: 0, ..Config::default() };
        let first = TrackerHandle::start(config.clone()).await.unwrap();
        let again = Config { port: first.local_addr().port(), ..config };
        TrackerHandle::start(again.clone()).await.unwrap_err();
        drop(first);
        // The port is free as soon as its thread is gone.
        while TrackerHandle::start(again.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Nobody but a tracker knows names, so there is nothing to wait for.
#[tokio::test(start_paused = true)]
async fn a_name_without_a_tracker_fails_at_once() {
    let begun = tokio::time::Instant::now();
    let mut fetch = Node::default().fetch("some.bin".parse::<Fetch>().unwrap().no_serve());
    assert!(fetch.events().next().await.is_none(), "nothing was waited for");
    let error = fetch.finished().await.unwrap_err();
    assert!(matches!(error, FetchError::Swarm(shoal::Failure::NoTracker { .. })), "{error}");
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_path_that_is_not_there_is_an_error() {
    let error = Node::default().share("no such file").await.unwrap_err();
    assert!(matches!(error, ShareError::Content(_)), "{error}");
}
