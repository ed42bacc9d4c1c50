//! Sharing every entry of a directory, for as long as it is there.
//!
//! The system reports what changes (the crate `notify`). That is a hint where to look and no more: what counts is how entries look. So
//! nothing is lost where reports are: if the system drops some, on network file systems, or if there are too many directories to watch,
//! all of the directory is looked at, at the latest after [`Watch::rescan_every`].
//!
//! [`entries`] decides, without a clock or a disk of its own. Everything else is here.

mod entries;
mod print;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs, io, mem,
    ops::ControlFlow,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use proto::InfoHash;
use store::{Content, HashCache, OpenChunkError, Scan, ScanRules, ShareError, Shared};
use tokio::{
    sync::Notify,
    task::{JoinSet, spawn_blocking},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;

use crate::{Event, Seeder};
use entries::{Entries, Trust, may_be_shared};
use print::Print;

/// Time in which an entry must not change before it is shared.
const QUIET: Duration = Duration::from_secs(2);

/// Time between two looks at the whole directory, whatever the system reports.
const RESCAN_EVERY: Duration = Duration::from_secs(60);

/// Entries that are looked at one by one. If more have changed, the whole directory is looked at.
const MAX_HINTS: usize = 1_024;

/// Looking takes at most this part of the time.
const LOOK_PART: u32 = 10;

/// How to watch a directory.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The directory. Each of its entries is a share, except hidden ones (`.x`), those whose names look unfinished (`x.part`, `x.tmp`,
    /// `x~` and the like), and those that `rules` exclude.
    pub dir: PathBuf,
    /// Which entries of directories are shared, and what of them.
    pub rules: ScanRules,
    /// Where hashes are remembered.
    pub cache: Option<Arc<HashCache>>,
    /// Time in which an entry must not change before it is shared. By default 2 s.
    pub quiet: Duration,
    /// Time between two looks at the whole directory, whatever the system reports. By default a minute.
    pub rescan_every: Duration,
}

/// What happened in a watched directory.
#[derive(Debug)]
#[non_exhaustive]
pub enum WatchEvent {
    /// An entry is shared from now on.
    Shared {
        /// The entry.
        path: PathBuf,
        /// What is shared.
        content: Arc<Shared>,
    },
    /// The share of an entry ends.
    Ended {
        /// The entry.
        path: PathBuf,
        /// The share.
        infohash: InfoHash,
        /// Why it cannot be read, if it can't. Then it is tried again like one that failed. Otherwise it changed or is gone.
        fault: Option<OpenChunkError>,
    },
    /// An entry cannot be shared. It is tried again when it has changed, and from time to time. Reported once until then.
    Failed {
        /// The entry.
        path: PathBuf,
        /// Why.
        error: ShareError,
    },
    /// Something is wrong with the directory itself. Its shares stay, and it is looked at again.
    Trouble(io::Error),
    /// Something happened to a share.
    Share(Event),
}

/// What the system reported since the last look.
#[derive(Debug, Default)]
struct Hints {
    reported: Mutex<Reported>,
    any: Notify,
}

#[derive(Debug, Default)]
struct Reported {
    names: BTreeSet<OsString>,
    everything: bool,
    /// Entries that could not be read for a peer, each with its share.
    faults: BTreeMap<OsString, (InfoHash, OpenChunkError)>,
}

/// A directory that is being watched.
struct Watching<'a, F> {
    watch: &'a Watch,
    seeder: &'a Seeder,
    on_event: F,
    shutdown: &'a CancellationToken,
    hints: Arc<Hints>,
    entries: Entries,
    hashing: JoinSet<Hashed>,
    running: JoinSet<u64>,
    active: BTreeMap<OsString, (InfoHash, CancellationToken)>,
    /// Whether the last look at the directory failed.
    is_in_trouble: bool,
}

/// An entry that was hashed.
struct Hashed {
    name: OsString,
    print: Print,
    result: Result<Shared, ShareError>,
}

impl Watch {
    /// Watches `dir` with the defaults.
    pub fn new(dir: PathBuf) -> Watch {
        Watch { dir, rules: ScanRules::default(), cache: None, quiet: QUIET, rescan_every: RESCAN_EVERY }
    }

    /// Shares the entries of the directory until `shutdown`. Returns the number of bytes of chunks that were sent.
    pub async fn run(
        self,
        seeder: &Seeder,
        on_event: impl Fn(WatchEvent) + Clone + Send + Sync + 'static,
        shutdown: &CancellationToken,
    ) -> u64 {
        // The system reports paths as they were given.
        let dir = self.dir.clone();
        let hints = Arc::new(Hints::default());
        hints.report(None);
        let _watcher = match start(&dir, Arc::clone(&hints)) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                on_event(WatchEvent::Trouble(io::Error::other(error)));
                None
            }
        };
        let mut watching = Watching {
            watch: &self,
            seeder,
            on_event,
            shutdown,
            hints,
            entries: Entries::new(self.quiet),
            hashing: JoinSet::new(),
            running: JoinSet::new(),
            active: BTreeMap::new(),
            is_in_trouble: false,
        };
        watching.run().await
    }
}

/// Lets the system report what changes.
fn start(dir: &Path, hints: Arc<Hints>) -> notify::Result<RecommendedWatcher> {
    let root = dir.to_owned();
    let on_event = move |event: notify::Result<notify::Event>| match event {
        Ok(event) if !event.need_rescan() => {
            // Whoever reads a file, as this program does, changes nothing.
            let is_harmless =
                matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
            if !is_harmless {
                event.paths.iter().for_each(|path| hints.report(entry_of(&root, path)));
            }
        }
        Ok(_) | Err(_) => hints.report(None),
    };
    let mut watcher = notify::recommended_watcher(on_event)?;
    watcher.watch(dir, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// The entry of the directory that a path belongs to.
fn entry_of(root: &Path, path: &Path) -> Option<OsString> {
    match path.strip_prefix(root).ok()?.components().next()? {
        Component::Normal(name) => Some(name.to_owned()),
        _ => None,
    }
}

impl Hints {
    /// Something changed in this entry, or nobody knows where.
    fn report(&self, name: Option<OsString>) {
        let mut reported = self.lock();
        match name {
            Some(name) if reported.names.len() < MAX_HINTS => _ = reported.names.insert(name),
            _ => reported.everything = true,
        }
        drop(reported);
        self.any.notify_one();
    }

    /// This entry could not be read while it was shared.
    fn fault(&self, name: &OsString, infohash: InfoHash, error: OpenChunkError) {
        self.lock().faults.insert(name.clone(), (infohash, error));
        self.report(Some(name.clone()));
    }

    fn take(&self) -> Reported {
        mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Reported> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Fn(WatchEvent) + Clone + Send + Sync + 'static> Watching<'_, F> {
    async fn run(&mut self) -> u64 {
        let mut sent = 0;
        let (mut has_hints, mut next_look) = (false, Instant::now());
        let mut next_rescan = Instant::now() + self.watch.rescan_every;
        loop {
            // One is hashed at a time, by all cores.
            let due = self.entries.next_due().filter(|_| self.hashing.is_empty());
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                () = self.hints.any.notified(), if !has_hints => has_hints = true,
                () = sleep_until(next_look.into()), if has_hints => {
                    has_hints = false;
                    let began = Instant::now();
                    let reported = self.hints.take();
                    self.look(reported).await;
                    let took = began.elapsed();
                    next_look = Instant::now() + (self.watch.quiet / LOOK_PART).max(took * LOOK_PART);
                }
                () = sleep_until(next_rescan.into()) => {
                    next_rescan = Instant::now() + self.watch.rescan_every;
                    self.hints.report(None);
                }
                () = sleep_until(due.unwrap_or(next_rescan).into()), if due.is_some() => self.hash_next().await,
                Some(hashed) = self.hashing.join_next() => {
                    if let Ok(hashed) = hashed {
                        self.share(hashed);
                    }
                }
                Some(ended) = self.running.join_next() => {
                    sent += ended.unwrap_or_default();
                    self.entries.freed(Instant::now());
                }
            }
        }
        // They have the same token. A scan that is under way ends by it too.
        while let Some(ended) = self.running.join_next().await {
            sent += ended.unwrap_or_default();
        }
        while self.hashing.join_next().await.is_some() {}
        sent
    }

    /// Looks at what may have changed.
    async fn look(&mut self, Reported { mut names, everything, faults }: Reported) {
        if everything {
            match self.list().await {
                Ok(listed) => names.extend(listed),
                Err(error) => return self.trouble(error),
            }
            names.extend(self.entries.names().cloned());
        }
        self.is_in_trouble = false;
        names.retain(|name| may_be_shared(name));
        let (dir, exclude) = (self.watch.dir.clone(), self.watch.rules.exclude.clone());
        let looked = spawn_blocking(move || {
            let is_wanted = |name: &OsString| {
                let is_dir = dir.join(name).is_dir();
                !exclude.iter().any(|exclusion| exclusion.excludes(Path::new(name), is_dir))
            };
            let wanted = names.into_iter().filter(is_wanted);
            wanted.map(|name| (Print::of(&dir.join(&name), &exclude), name)).collect::<Vec<_>>()
        });
        let now = Instant::now();
        for (print, name) in looked.await.unwrap_or_default() {
            if self.entries.look(&name, print, now).is_some() {
                self.end(&name, None);
            }
        }
        for (name, (infohash, error)) in faults {
            // If it looks different, that was why, and its share has ended.
            if self.active.get(&name).is_some_and(|(shared, _)| *shared == infohash) {
                // The end of its share is the news.
                let _ = self.entries.failed(&name, now);
                self.end(&name, Some(error));
            }
        }
    }

    /// Ends the share of an entry.
    fn end(&mut self, name: &OsStr, fault: Option<OpenChunkError>) {
        if let Some((infohash, stop)) = self.active.remove(name) {
            stop.cancel();
            (self.on_event)(WatchEvent::Ended { path: self.watch.dir.join(name), infohash, fault });
        }
    }

    /// The names of all entries.
    async fn list(&self) -> io::Result<Vec<OsString>> {
        let dir = self.watch.dir.clone();
        let listed = spawn_blocking(move || match fs::read_dir(dir) {
            Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect(),
            // Everything in it is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        });
        listed.await.map_err(io::Error::other)?
    }

    fn trouble(&mut self, error: io::Error) {
        if !mem::replace(&mut self.is_in_trouble, true) {
            (self.on_event)(WatchEvent::Trouble(error));
        }
    }

    /// Begins to hash an entry that is due, if it looks as it did before.
    async fn hash_next(&mut self) {
        let Some(name) = self.entries.first_due(Instant::now()) else { return };
        // Not every change is reported.
        self.look(Reported { names: BTreeSet::from([name.clone()]), ..Reported::default() }).await;
        if self.entries.first_due(Instant::now()).as_ref() != Some(&name) {
            return;
        }
        let Some((print, trust)) = self.entries.begin(&name) else { return };
        let Watch { dir, rules, cache, .. } = self.watch;
        let (path, rules) = (dir.join(&name), rules.clone());
        let cache = cache.clone().filter(|_| trust == Trust::Cache);
        let stop = self.shutdown.clone();
        self.hashing.spawn_blocking(move || {
            let progress =
                |_| if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            let scan = Scan::new(&path, None, &rules).map_err(ShareError::from);
            let result = scan.and_then(|scan| scan.hash(cache.as_deref(), &progress));
            Hashed { name, print, result }
        });
    }

    /// Shares what was hashed, unless it has changed meanwhile.
    fn share(&mut self, Hashed { name, print, result }: Hashed) {
        if !self.entries.is_current(&name, print) {
            return;
        }
        let path = self.watch.dir.join(&name);
        let content = match result {
            Ok(shared) => Arc::new(shared),
            Err(error) => {
                let news = self.entries.failed(&name, Instant::now());
                if news.is_some() && !matches!(error, ShareError::Stopped(_)) {
                    (self.on_event)(WatchEvent::Failed { path, error });
                }
                return;
            }
        };
        let Ok(sharing) = self.seeder.share(content.clone()) else {
            tracing::debug!("'{}' is shared already", path.display());
            return self.entries.taken(&name);
        };
        self.entries.shared(&name);
        let (infohash, stop) = (content.metainfo().infohash(), self.shutdown.child_token());
        (self.on_event)(WatchEvent::Shared { path, content });
        let (on_event, hints, entry) = (self.on_event.clone(), Arc::clone(&self.hints), name.clone());
        let on_share_event = move |event| match event {
            // A look finds out whether it changed.
            Event::Withdrawn { infohash, error } => hints.fault(&entry, infohash, error),
            event => on_event(WatchEvent::Share(event)),
        };
        self.running.spawn(sharing.run(on_share_event, stop.clone()));
        self.active.insert(name, (infohash, stop));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proto::ChunkIndex;
    use tokio::sync::mpsc;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::Config;

    #[tokio::test]
    async fn a_share_that_cannot_be_read_ends_although_nothing_changed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("entry"), "content").unwrap();
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let config = Config { bind: Some(Ipv4Addr::LOCALHOST.into()), port: 0, ..Config::default() };
        let seeder = Seeder::bind(config, &tasks).unwrap();
        let watch = Watch { quiet: Duration::ZERO, ..Watch::new(dir.path().to_owned()) };
        let (sender, mut events) = mpsc::unbounded_channel();
        let mut watching = Watching {
            watch: &watch,
            seeder: &seeder,
            on_event: move |event| _ = sender.send(event),
            shutdown: &shutdown,
            hints: Arc::default(),
            entries: Entries::new(watch.quiet),
            hashing: JoinSet::new(),
            running: JoinSet::new(),
            active: BTreeMap::new(),
            is_in_trouble: false,
        };
        watching.look(Reported { everything: true, ..Reported::default() }).await;
        watching.hash_next().await;
        let hashed = watching.hashing.join_next().await.unwrap().unwrap();
        watching.share(hashed);
        let Ok(WatchEvent::Shared { content, .. }) = events.try_recv() else { panic!("it is not shared") };
        let infohash = content.metainfo().infohash();

        let name = OsString::from("entry");
        let other = InfoHash([7; 32]);
        watching.hints.fault(&name, other, OpenChunkError::NotHave(ChunkIndex(0)));
        let reported = watching.hints.take();
        watching.look(reported).await;
        assert!(watching.active.contains_key(&name), "an earlier share of this entry had the fault");

        watching.hints.fault(&name, infohash, OpenChunkError::NotHave(ChunkIndex(0)));
        let reported = watching.hints.take();
        watching.look(reported).await;
        let ended = loop {
            match events.try_recv() {
                Ok(WatchEvent::Share(_)) => {}
                event => break event,
            }
        };
        assert!(matches!(ended, Ok(WatchEvent::Ended { fault: Some(_), .. })), "{ended:?}");
        watching.running.join_next().await.expect("its share").expect("no panic");
        assert!(
            watching.entries.next_due().is_some_and(|due| due > Instant::now()),
            "it is tried again, later"
        );
    }
}
