//! The disk work of a transfer, on blocking threads.

use std::{ops::ControlFlow, path::PathBuf, sync::Arc};

use proto::{
    ChunkIndex,
    peer::{Form, Wish},
};
use store::{Download, DownloadError, Local, Output, Resumed, StoreChunkError, Stored, Wanted};
use swarm::scheduler::PeerKey;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    buffers::ChunkBuffer, description::Description, destination::Saving, error::FetchError, task_output,
};

/// Chunks up to this length are proved and written several at a time, because handing one to a thread costs more than the
/// work itself.
const SMALL_LEN: usize = 64 * 1024;

/// The output of a transfer, and the work on it that is under way.
pub(super) struct Disk {
    jobs: JoinSet<Done>,
    /// Set when the description is known.
    output: Option<Output>,
    /// Set when the output is open.
    download: Option<Arc<Download>>,
    /// Small chunks that wait while a thread works on earlier ones. The next thread takes them all.
    small: Vec<Arrived>,
    small_at_work: bool,
    is_saving: bool,
    /// The last checkpoint failed.
    is_unsaved: bool,
    /// Bytes of an earlier run that were proved so far, and the total.
    proved: watch::Receiver<(u64, u64)>,
    proving: watch::Sender<(u64, u64)>,
}

/// A chunk that arrived, or blocks of it.
pub(super) struct Arrived {
    pub(super) peer: PeerKey,
    pub(super) wish: Wish,
    pub(super) buffer: ChunkBuffer,
}

/// A chunk that was hashed and, if it was correct, written.
pub(super) struct Verified {
    pub(super) peer: PeerKey,
    pub(super) chunk: ChunkIndex,
    len: usize,
    pub(super) result: Result<Stored, StoreChunkError>,
}

/// The result of some work.
pub(super) enum Done {
    Opened(Result<(Arc<Download>, Resumed), FetchError>),
    Verified(Vec<Verified>),
    /// A checkpoint, and whether the one before it succeeded.
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

    /// The download, if the output is open.
    pub(super) fn download(&self) -> Option<&Arc<Download>> {
        self.download.as_ref()
    }

    /// The path of the `.part`, if the description is known.
    pub(super) fn part(&self) -> Option<PathBuf> {
        self.output.as_ref().map(Output::part_path)
    }

    /// Bytes of an earlier run that were proved so far, and the total, if that changed since the last call.
    pub(super) fn newly_proved(&mut self) -> Option<(u64, u64)> {
        let changed = self.proved.has_changed().unwrap_or(false);
        changed.then(|| *self.proved.borrow_and_update())
    }

    /// Opens the output, and proves what an earlier run left in it. Ends early when `stop` is cancelled.
    pub(super) fn open(
        &mut self,
        description: Description,
        saving: Saving,
        local: Option<Arc<Local>>,
        stop: CancellationToken,
    ) {
        let Description { metainfo, hashes } = description;
        let output = saving.output(metainfo.name());
        self.output = Some(output.clone());
        let (proving, total) = (self.proving.clone(), metainfo.chunk_space().total_len());
        self.jobs.spawn_blocking(move || {
            let progress = |bytes| {
                proving.send_modify(|(done, of)| (*done, *of) = (*done + bytes, total));
                if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let open = || {
                let wanted = Wanted::of(&metainfo, &saving.only)?;
                saving.destination.make_directory()?;
                let (from, local) = (&saving.from, local.as_deref());
                let (download, resumed) =
                    Download::open(metainfo, hashes, output, wanted, from, local, &progress)?;
                Ok((Arc::new(download), resumed))
            };
            Done::Opened(open())
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
        let store = move |Arrived { peer, wish: Wish { chunk, form }, mut buffer }| {
            let result = match form {
                Form::Blocks(blocks) => download.store_blocks(chunk, blocks, &mut buffer),
                Form::Whole | Form::Leaves => download.store(chunk, &buffer),
            };
            Verified { peer, chunk, len: buffer.len(), result }
        };
        self.jobs.spawn_blocking(move || Done::Verified(arrived.into_iter().map(store).collect()));
    }

    /// Makes the received chunks durable, unless a checkpoint is already under way.
    pub(super) fn checkpoint(&mut self) {
        if !self.is_saving
            && let Some(download) = self.download.clone()
        {
            self.is_saving = true;
            let is_news = !self.is_unsaved;
            self.jobs.spawn_blocking(move || Done::Saved(download.checkpoint(), is_news));
        }
    }

    /// Makes the complete share durable and gives it its final name.
    pub(super) fn finish(&mut self) {
        if let Some(download) = self.download.clone() {
            self.jobs.spawn_blocking(move || Done::Finished(download.finish()));
        }
    }

    /// Waits for the next result; `None` if no work is under way. Cancel safe.
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

    /// Waits until no work is under way, then makes the received chunks durable.
    pub(super) async fn settle(&mut self) -> Result<(), DownloadError> {
        while self.next_done().await.is_some() {}
        let Some(download) = self.download.clone() else { return Ok(()) };
        task_output(tokio::task::spawn_blocking(move || download.checkpoint()).await)
    }
}
