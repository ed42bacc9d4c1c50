//! What an update begins with: the version that is there, hashed while trackers are asked for the new one, unless an earlier run has
//! left its hashes.
//!
//! Only a directory of many small files is read before its new version is known. Its description is long, and is mostly the new
//! version's. Any other is read when the new version is known: then it is known what of it has to be read.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use store::{Local, OnProgress, ProofCache, ShareError};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    destination::{Destination, Replace},
    event::FetchEvent,
    fetch::{Config, WAITING_INTERVAL},
    target::Target,
    task_output,
};

/// With fewer files, the description is so short that it is received in the round trip that its outline would take.
const MIN_FILES: usize = 128;

/// With longer files, the description is less than a ten-thousandth of the share.
const MAX_MEAN_LEN: u64 = 1024 * 1024;

/// The version that is being read. Reading ends when this is dropped.
pub(crate) struct OldVersion {
    reading: JoinHandle<Option<Local>>,
    /// Bytes read so far, and the total.
    read: watch::Receiver<(u64, u64)>,
    _stop: DropGuard,
}

impl OldVersion {
    /// Begins to read what has the output's name, if an update replaces it and its name is known already.
    pub(crate) fn read(tasks: &TaskTracker, config: &Config, stop: &CancellationToken) -> Option<OldVersion> {
        if config.replace != Replace::Version {
            return None;
        }
        let name = match &config.target {
            Target::Name(name) => Some(name),
            Target::Link(link) => link.name.as_ref(),
            Target::InfoHash(_) | Target::Only => None,
        };
        let path = match (&config.destination, name) {
            (Destination::Path(path), _) => path.clone(),
            (destination, Some(name)) => destination.output(name, config.replace).path().to_owned(),
            (Destination::Directory(_), None) => return None,
        };
        let (stop, proofs) = (stop.child_token(), config.proofs.clone());
        let (reporting, read) = watch::channel((0, 0));
        let stopped = stop.clone();
        let reading = tasks.spawn_blocking(move || {
            let progress = |bytes| {
                reporting.send_modify(|(read, _)| *read += bytes);
                if stopped.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            // It may change meanwhile, or hold what cannot be read. Then it is looked at when the new version is known.
            let hashed =
                hash(&path, proofs.as_ref(), |total| reporting.send_modify(|(_, of)| *of = total), &progress);
            hashed.inspect_err(|error| tracing::debug!("cannot describe {}: {error}", path.display())).ok()?
        });
        Some(OldVersion { reading, read, _stop: stop.drop_guard() })
    }

    /// Waits until it is read. `None` if it is of no use.
    pub(crate) async fn finish(mut self, on_event: &mut impl FnMut(FetchEvent)) -> Option<Arc<Local>> {
        let mut tick = interval(WAITING_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.reset();
        loop {
            tokio::select! {
                local = &mut self.reading => return task_output(local).map(Arc::new),
                _ = tick.tick() => {
                    let (done, total) = *self.read.borrow_and_update();
                    on_event(FetchEvent::Proving { done, total });
                }
            }
        }
    }
}

/// Whether this is the description of many small files, so that a new version's is long and mostly the same.
pub(crate) fn is_much_of_the_new_description(local: &Local) -> bool {
    let files = local.metainfo().files().len();
    let mean_len = local.metainfo().chunk_space().total_len() / files.max(1) as u64;
    files >= MIN_FILES && mean_len <= MAX_MEAN_LEN
}

fn hash(
    path: &Path,
    proofs: Option<&ProofCache>,
    begins: impl FnOnce(u64),
    progress: OnProgress<'_>,
) -> Result<Option<Local>, ShareError> {
    if let Some(local) = proofs.and_then(|proofs| proofs.load(path)) {
        return Ok(Some(local));
    }
    // Of a file, or of nothing, there is nothing to describe.
    if !path.is_dir() {
        return Ok(None);
    }
    let Some(scan) = Local::scan(path, MIN_FILES, MAX_MEAN_LEN)? else { return Ok(None) };
    begins(scan.total_len());
    Local::hash(path, scan, progress).map(Some)
}
