//! What a transfer does on the disk, each piece on a thread that may wait.

use std::{ops::ControlFlow, path::PathBuf, sync::Arc};

use proto::ChunkIndex;
use store::{Download, DownloadError, Output, Resumed, StoreChunkError, Stored};
use swarm::scheduler::PeerKey;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    buffers::ChunkBuffer, description::Description, destination::Destination, error::FetchError, task_output,
};

/// Chunks of this length at most are proved and written several at a time: to pass one to a thread and back takes
/// longer than the work itself.
const SMALL_LEN: usize = 64 * 1024;

/// The output of a transfer, and the work on it.
pub(super) struct Disk {
    jobs: JoinSet<Done>,
    /// Once the description is known.
    output: Option<Output>,
    /// Once it is open.
    download: Option<Arc<Download>>,
    /// Small chunks that the next thread takes together, while one is at work on those before.
    small: Vec<Arrived>,
    small_at_work: bool,
    is_saving: bool,
    /// The last checkpoint failed.
    is_unsaved: bool,
    /// Bytes of an earlier run that were proved, of how many.
    proved: watch::Receiver<(u64, u64)>,
    proving: watch::Sender<(u64, u64)>,
}

/// A chunk as it came.
pub(super) struct Arrived {
    pub(super) peer: PeerKey,
    pub(super) chunk: ChunkIndex,
    pub(super) buffer: ChunkBuffer,
}

/// A chunk that was hashed and, if it was right, written.
pub(super) struct Verified {
    pub(super) peer: PeerKey,
    pub(super) chunk: ChunkIndex,
    len: usize,
    pub(super) result: Result<Stored, StoreChunkError>,
}

/// Work that is done.
pub(super) enum Done {
    Opened(Result<(Arc<Download>, Resumed), FetchError>),
    Verified(Vec<Verified>),
    /// And whether the one before that had not failed.
    Saved(Result<(), DownloadError>, bool),
    Finished(Result<(), DownloadError>),
}

impl Disk {
    pub(super) fn new() -> Disk {
        let (proving, proved) = watch::channel((0, 0));
        Disk {
            jobs: JoinSet::new(),
            output: None,
            download: None,
            small: Vec::new(),
            small_at_work: false,
            is_saving: false,
            is_unsaved: false,
            proved,
            proving,
        }
    }

    /// What is fetched, once the output is open.
    pub(super) fn download(&self) -> Option<&Arc<Download>> {
        self.download.as_ref()
    }

    /// Where what came so far is.
    pub(super) fn part(&self) -> Option<PathBuf> {
        self.output.as_ref().map(Output::part_path)
    }

    /// How much of what an earlier run left was proved, of how much, if that is more than at the last call.
    pub(super) fn newly_proved(&mut self) -> Option<(u64, u64)> {
        let changed = self.proved.has_changed().unwrap_or(false);
        changed.then(|| *self.proved.borrow_and_update())
    }

    /// Prepares the output, and proves what an earlier run left in it until `stop` is cancelled.
    pub(super) fn open(
        &mut self,
        description: Description,
        destination: Destination,
        overwrite: bool,
        stop: CancellationToken,
    ) {
        let Description { metainfo, hashes } = description;
        let output = destination.output(metainfo.name(), overwrite);
        self.output = Some(output.clone());
        let (proving, total) = (self.proving.clone(), metainfo.chunk_space().total_len());
        self.jobs.spawn_blocking(move || {
            let progress = |bytes| {
                proving.send_modify(|(done, of)| (*done, *of) = (*done + bytes, total));
                if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let opened = destination.make_directory().map_err(FetchError::from).and_then(|()| {
                let (download, resumed) = Download::open(metainfo, hashes, output, &progress)?;
                Ok((Arc::new(download), resumed))
            });
            Done::Opened(opened)
        });
    }

    /// Proves a chunk and writes it.
    pub(super) fn store(&mut self, arrived: Arrived) {
        if arrived.buffer.len() > SMALL_LEN {
            self.store_all(vec![arrived]);
            return;
        }
        self.small.push(arrived);
        if !self.small_at_work {
            self.store_small();
        }
    }

    fn store_small(&mut self) {
        let small = std::mem::take(&mut self.small);
        self.small_at_work = !small.is_empty();
        if self.small_at_work {
            self.store_all(small);
        }
    }

    fn store_all(&mut self, arrived: Vec<Arrived>) {
        let Some(download) = self.download.clone() else { return };
        let store = move |Arrived { peer, chunk, buffer }| {
            let result = download.store(chunk, &buffer);
            Verified { peer, chunk, len: buffer.len(), result }
        };
        self.jobs.spawn_blocking(move || Done::Verified(arrived.into_iter().map(store).collect()));
    }

    /// Makes what came durable, unless that is under way already.
    pub(super) fn checkpoint(&mut self) {
        if !self.is_saving
            && let Some(download) = self.download.clone()
        {
            self.is_saving = true;
            let is_news = !self.is_unsaved;
            self.jobs.spawn_blocking(move || Done::Saved(download.checkpoint(), is_news));
        }
    }

    /// Makes the whole share durable and gives it its name.
    pub(super) fn finish(&mut self) {
        if let Some(download) = self.download.clone() {
            self.jobs.spawn_blocking(move || Done::Finished(download.finish()));
        }
    }

    /// Waits for work to be done; `None` while there is none. Cancel safe.
    pub(super) async fn next_done(&mut self) -> Option<Done> {
        let done = task_output(self.jobs.join_next().await?);
        match &done {
            Done::Opened(Ok((download, _))) => self.download = Some(Arc::clone(download)),
            Done::Verified(verified) if verified.iter().any(|one| one.len <= SMALL_LEN) => self.store_small(),
            Done::Saved(saved, _) => (self.is_saving, self.is_unsaved) = (false, saved.is_err()),
            _ => {}
        }
        Some(done)
    }

    /// Waits until nothing is under way, and claims what came. Fails if that could not be saved.
    pub(super) async fn settle(&mut self) -> Result<(), DownloadError> {
        while self.next_done().await.is_some() {}
        let Some(download) = self.download.clone() else { return Ok(()) };
        task_output(tokio::task::spawn_blocking(move || download.checkpoint()).await)
    }
}
