//! A directory whose entries are shared as they come and go.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    time::Duration,
};

use proto::InfoHash;
use seeder::{
    Config, Event, Seeder,
    watch::{Watch, WatchEvent},
};
use store::{Content, HashCache};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    dir: TempDir,
    events: mpsc::UnboundedReceiver<WatchEvent>,
    running: JoinHandle<u64>,
    stop: CancellationToken,
}

impl Bench {
    /// Watches a directory in which these entries are already.
    fn new(prepare: impl FnOnce(&Path)) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("watched")).unwrap();
        prepare(&dir.path().join("watched"));
        Bench::of(dir, Duration::from_secs(600))
    }

    fn of(dir: TempDir, rescan_every: Duration) -> Bench {
        let cache = HashCache::open(dir.path().join("cache")).unwrap();
        let watch = Watch {
            quiet: Duration::from_millis(20),
            rescan_every,
            cache: Some(cache.into()),
            ..Watch::new(dir.path().join("watched"))
        };
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let config = Config { bind: Some(Ipv4Addr::LOCALHOST.into()), port: 0, ..Config::default() };
        let seeder = Seeder::bind(config, &tasks).unwrap();
        let (sender, events) = mpsc::unbounded_channel();
        let token = stop.clone();
        let running = tokio::spawn(async move {
            let on_event = move |event| _ = sender.send(event);
            watch.run(&seeder, on_event, &token).await
        });
        Bench { dir, events, running, stop }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("watched").join(name)
    }

    /// In one step: on a busy machine an empty file could look quiet.
    fn write(&self, name: &str, content: &str) {
        let beside = self.dir.path().join("beside");
        fs::write(&beside, content).unwrap();
        fs::rename(beside, self.path(name)).unwrap();
    }

    async fn next(&mut self) -> WatchEvent {
        loop {
            let event = timeout(PATIENCE, self.events.recv()).await.expect("an event").unwrap();
            if !matches!(event, WatchEvent::Share(Event::Announced { .. } | Event::NotAnnounced { .. })) {
                return event;
            }
        }
    }

    /// Waits until an entry is shared.
    async fn shared(&mut self, name: &str) -> InfoHash {
        match self.next().await {
            WatchEvent::Shared { path, content } => {
                assert_eq!((path, content.metainfo().name().as_str()), (self.path(name), name));
                content.metainfo().infohash()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Waits until a share ends.
    async fn ended(&mut self, name: &str, infohash: InfoHash) {
        match self.next().await {
            WatchEvent::Ended { path, infohash: ended, .. } => {
                assert_eq!((path, ended), (self.path(name), infohash));
            }
            other => panic!("{other:?}"),
        }
    }

    async fn stop(mut self) -> TempDir {
        self.stop.cancel();
        timeout(PATIENCE, self.running).await.expect("the end").unwrap();
        while let Some(event) = self.events.recv().await {
            assert!(matches!(event, WatchEvent::Share(_)), "{event:?}");
        }
        self.dir
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_shared_as_they_come_change_and_go() {
    let mut bench = Bench::new(|dir| fs::write(dir.join("early"), "early").unwrap());
    bench.shared("early").await;
    bench.write("file", "1");
    let first = bench.shared("file").await;
    bench.write("file", "22");
    bench.ended("file", first).await;
    let second = bench.shared("file").await;
    assert_ne!(first, second);
    // In a directory everything below counts.
    fs::create_dir_all(bench.dir.path().join("other/deep/er")).unwrap();
    fs::write(bench.dir.path().join("other/deep/er/a"), "a").unwrap();
    fs::rename(bench.dir.path().join("other"), bench.path("dir")).unwrap();
    let before = bench.shared("dir").await;
    bench.write("dir/deep/er/b", "b");
    bench.ended("dir", before).await;
    assert_ne!(bench.shared("dir").await, before);
    fs::remove_file(bench.path("file")).unwrap();
    bench.ended("file", second).await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_and_unfinished_entries_wait_for_their_names() {
    let mut bench = Bench::new(|dir| {
        fs::write(dir.join(".hidden"), "1").unwrap();
        fs::write(dir.join("disk.img.part"), "2").unwrap();
    });
    // All of them are looked at together.
    bench.write("a", "3");
    bench.shared("a").await;
    fs::rename(bench.path("disk.img.part"), bench.path("disk.img")).unwrap();
    bench.shared("disk.img").await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_shared_is_reported_once_and_shared_when_it_can_be() {
    let mut bench = Bench::new(|_| {});
    let socket = UnixListener::bind(bench.path("entry")).unwrap();
    match bench.next().await {
        WatchEvent::Failed { path, .. } => assert_eq!(path, bench.path("entry")),
        other => panic!("{other:?}"),
    }
    // It is looked at again with everything else, and not reported again.
    bench.write("other", "1");
    bench.shared("other").await;
    drop(socket);
    fs::remove_file(bench.path("entry")).unwrap();
    bench.write("entry", "2");
    bench.shared("entry").await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_reports_is_found_by_looking() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    fs::create_dir(dir.path().join("watched")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), dir.path().join("watched/link")).unwrap();
    let mut bench = Bench::of(dir, Duration::from_millis(50));
    let before = bench.shared("link").await;
    // The system reports nothing of what a link leads to.
    fs::write(bench.dir.path().join("elsewhere/file"), "1").unwrap();
    bench.ended("link", before).await;
    assert_ne!(bench.shared("link").await, before);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_entries_are_the_same_shares_after_a_restart() {
    let mut bench = Bench::new(|dir| {
        for number in 0..1_000 {
            fs::write(dir.join(format!("file {number}")), number.to_string()).unwrap();
        }
    });
    let mut runs: Vec<BTreeMap<PathBuf, InfoHash>> = Vec::new();
    for run in 0..2 {
        let mut shares = BTreeMap::new();
        while shares.len() < 1_000 {
            match bench.next().await {
                WatchEvent::Shared { path, content } => {
                    shares.insert(path, content.metainfo().infohash());
                }
                other => panic!("{other:?}"),
            }
        }
        runs.push(shares);
        let dir = bench.stop().await;
        if run == 1 {
            break;
        }
        bench = Bench::of(dir, Duration::from_secs(600));
    }
    assert_eq!(runs[0], runs[1]);
}
