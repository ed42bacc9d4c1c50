//! Faults of the files of a share while it is served.
//!
//! If a file of a share changed, went away or cannot be read, the share should no longer be announced. Its owner must learn
//! that, but only once: a leecher requests hundreds of chunks, and each fails in the same way.

use std::{
    collections::BTreeSet,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use proto::ChunkIndex;
use store::{Content, OpenChunkError};
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::task::task_output;

/// Files are checked as often as a share is announced.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// But checking many files takes at most this part of the time.
const CHECK_PART: u32 = 100;

/// The faults of one share.
pub struct Faults {
    state: Mutex<State>,
    on_first: Box<dyn Fn(OpenChunkError) + Send + Sync>,
}

#[derive(Debug, Default)]
struct State {
    reported: bool,
    /// Chunks that could not be read to their end after they were begun.
    broken: BTreeSet<ChunkIndex>,
}

impl Faults {
    /// No faults so far; `on_first` is called with the first.
    pub fn new(on_first: impl Fn(OpenChunkError) + Send + Sync + 'static) -> Arc<Faults> {
        Arc::new(Faults { state: Mutex::default(), on_first: Box::new(on_first) })
    }

    /// Reports why a chunk cannot be served.
    pub fn report(&self, error: OpenChunkError) {
        let first = !std::mem::replace(&mut self.lock().reported, true);
        tracing::debug!(first, "a chunk cannot be served: {error}");
        if first {
            (self.on_first)(error);
        }
    }

    /// Whether anything was reported.
    #[cfg(test)]
    pub(crate) fn is_reported(&self) -> bool {
        self.lock().reported
    }

    /// A chunk could not be read to its end after it was begun. It is not begun again. Otherwise a leecher would request it
    /// again and again.
    pub(crate) fn broke(&self, chunk: ChunkIndex) {
        self.lock().broken.insert(chunk);
    }

    /// Whether a chunk could not be read to its end before.
    pub(crate) fn is_broken(&self, chunk: ChunkIndex) -> bool {
        self.lock().broken.contains(&chunk)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks the files of a share from time to time, until one has changed. Otherwise trackers would go on sending leechers
/// here if no leecher had come yet. Ends when `stop` is cancelled, and then no thread is checking any more.
pub(crate) async fn watch(content: Arc<dyn Content>, faults: Arc<Faults>, stop: CancellationToken) {
    let mut wait = CHECK_INTERVAL;
    while stop.run_until_cancelled(sleep(wait)).await.is_some() {
        let (content, stop) = (Arc::clone(&content), stop.clone());
        let checked = spawn_blocking(move || {
            let begun = Instant::now();
            (content.check(&|| stop.is_cancelled()), begun.elapsed())
        });
        let (result, took) = task_output(checked.await);
        match result {
            Err(OpenChunkError::Path(error)) if error.source.kind() != io::ErrorKind::NotFound => {
                // The file system may be out of reach for a moment. The next request for a chunk will show it.
                tracing::debug!("cannot look at a file: {error}: {}", error.source);
            }
            Err(error) => return faults.report(error),
            Ok(()) => {}
        }
        wait = CHECK_INTERVAL.max(took * CHECK_PART);
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("state", &self.state).finish_non_exhaustive()
    }
}
