//! What a seeder shares while it runs: what it was started with, and what is added and removed over HTTP.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use proto::{InfoHash, ShareName};
use startup::{
    Failure, Output,
    json::{Event, print_event},
    print_line,
};
use store::{Content, HashCache, ScanRules, Shared};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    hashing::{hash, scan},
    printing::Printer,
};
use crate::{AlreadyRouted, Event as Happened, Seeder, registration_report::RegistrationReport, seen::Seen};

/// Orders that wait at most. Each is for one share.
pub(crate) const MAX_ORDERS: usize = 64;

/// What somebody asks for over HTTP.
#[derive(Debug)]
pub(crate) enum Order {
    /// Hash and share this.
    Add(Addition),
    /// Share this no longer.
    Remove(InfoHash),
}

/// Something to share.
#[derive(Debug)]
pub(crate) struct Addition {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What the share is called; `None` for the name of the file.
    pub(crate) name: Option<ShareName>,
    /// Nobody wants it any more.
    pub(crate) stop: CancellationToken,
}

/// How additions are hashed.
#[derive(Debug, Clone)]
pub(super) struct Hashing {
    pub(super) rules: ScanRules,
    pub(super) cache: Option<Arc<HashCache>>,
    pub(super) output: Output,
}

/// All shares.
pub(super) struct Shelf<'a, F> {
    seeder: Seeder,
    hashing: Hashing,
    on_event: F,
    shown: Shown<'a>,
    shutdown: &'a CancellationToken,
    running: JoinSet<(InfoHash, u64)>,
    active: BTreeMap<InfoHash, CancellationToken>,
    /// Those that are removed and still say goodbye to their peers.
    ending: BTreeSet<InfoHash>,
    /// Additions that are such a share, until it has ended.
    again: Vec<(PathBuf, Arc<Shared>)>,
}

/// Where the user sees what is shared.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) seen: &'a Seen,
    pub(super) names: &'a Mutex<RegistrationReport>,
    pub(super) printer: &'a Mutex<Printer>,
}

impl<'a, F: Fn(Happened) + Clone + Send + Sync + 'static> Shelf<'a, F> {
    /// An empty one. `shutdown` ends all its shares.
    pub(super) fn new(
        seeder: Seeder,
        hashing: Hashing,
        on_event: F,
        shown: Shown<'a>,
        shutdown: &'a CancellationToken,
    ) -> Shelf<'a, F> {
        let (running, active, ending) = (JoinSet::new(), BTreeMap::new(), BTreeSet::new());
        Shelf { seeder, hashing, on_event, shown, shutdown, running, active, ending, again: Vec::new() }
    }

    /// Shares this from now on.
    pub(super) fn share(&mut self, shared: Arc<Shared>) -> Result<(), AlreadyRouted> {
        let infohash = shared.metainfo().infohash();
        let sharing = self.seeder.share(shared)?;
        let (on_event, stop) = (self.on_event.clone(), self.shutdown.child_token());
        self.active.insert(infohash, stop.clone());
        self.running.spawn(async move { (infohash, sharing.run(on_event, stop).await) });
        Ok(())
    }

    /// Serves all shares, and does as it is asked, until the shutdown. Returns the number of bytes of chunks that were sent.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) -> u64 {
        let (mut sent, mut waiting, mut hashed) = (0, VecDeque::new(), JoinSet::new());
        loop {
            // One is hashed at a time, by all cores.
            if hashed.is_empty()
                && let Some(Addition { path, name, stop }) = waiting.pop_front()
            {
                let hashing = self.hashing.clone();
                hashed.spawn(async move {
                    let result = hashing.run(&path, name, stop).await;
                    (path, result)
                });
            }
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                Some(order) = orders.recv(), if waiting.len() < MAX_ORDERS => match order {
                    Order::Add(addition) => waiting.push_back(addition),
                    Order::Remove(infohash) => self.remove(&infohash),
                },
                Some(Ok((path, result))) = hashed.join_next() => match result {
                    Ok(shared) => self.add(path, Arc::new(shared)),
                    Err(failure) => self.shown.seen.not_added(&path, failure.message()),
                },
                Some(ended) = self.running.join_next() => sent += self.ended(ended.ok()),
            }
        }
        // The shares have the same token. So have additions, and a scan ends by it too.
        while let Some(ended) = self.running.join_next().await {
            sent += self.ended(ended.ok());
        }
        while hashed.join_next().await.is_some() {}
        sent
    }

    fn add(&mut self, path: PathBuf, shared: Arc<Shared>) {
        let metainfo = shared.metainfo().clone();
        if let Err(error) = self.share(Arc::clone(&shared)) {
            return match self.ending.contains(&metainfo.infohash()) {
                true => self.again.push((path, shared)),
                false => self.shown.seen.not_added(&path, error.to_string()),
            };
        }
        let Shown { seen, names, printer } = self.shown;
        seen.added(&path, &metainfo);
        names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(metainfo.infohash(), metainfo.name().clone());
        printer.lock().unwrap_or_else(PoisonError::into_inner).print(&path, &metainfo);
    }

    fn remove(&mut self, infohash: &InfoHash) {
        let Some(stop) = self.active.remove(infohash) else { return };
        stop.cancel();
        self.ending.insert(*infohash);
        let Shown { seen, names, printer } = self.shown;
        seen.end(infohash);
        printer.lock().unwrap_or_else(PoisonError::into_inner).forget(infohash);
        let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
        let name = names.name(infohash);
        names.remove(infohash);
        let message = format!("'{name}' is no longer shared, as asked over HTTP");
        match self.hashing.output {
            Output::Text => print_line(message),
            Output::Json => {
                print_event(&Event::Withdrawn { infohash: infohash.to_string(), name: &name, message });
            }
        }
    }

    /// A share has ended, if its task did not panic. Returns how much of it was sent.
    fn ended(&mut self, ended: Option<(InfoHash, u64)>) -> u64 {
        let Some((infohash, sent)) = ended else { return 0 };
        self.ending.remove(&infohash);
        let is_it = |(_, shared): &mut (PathBuf, Arc<Shared>)| shared.metainfo().infohash() == infohash;
        let again: Vec<_> = self.again.extract_if(.., is_it).collect();
        again.into_iter().for_each(|(path, shared)| self.add(path, shared));
        sent
    }
}

impl Hashing {
    async fn run(
        self,
        path: &Path,
        name: Option<ShareName>,
        stop: CancellationToken,
    ) -> Result<Shared, Failure> {
        let Hashing { rules, cache, output } = self;
        let scan = scan(path, name, rules, output).await?;
        hash(path, scan, cache, output, stop).await
    }
}
