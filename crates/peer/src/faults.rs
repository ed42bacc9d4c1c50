//! What goes wrong with the files of a share while it is served.
//!
//! A share with a file that changed, went away or cannot be read is of less use than others are told. Whoever serves it
//! has to know, but once: a leecher asks for hundreds of chunks, and each of them fails alike.

use std::{
    collections::BTreeSet,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use proto::ChunkIndex;
use store::{Content, OpenChunkError};
use tokio::time::sleep;

/// Files are looked at as often as trackers are told of them.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// … but looking at many takes no more than this part of the time.
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

    /// A chunk cannot be served for this reason.
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

    /// A chunk could not be read to its end after it was begun. It is not begun again, or whoever wants it would come
    /// back for it without end.
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

/// Looks at the files of a share now and then, until one is not what it was: trackers should not go on sending leechers
/// here only because none has come yet.
pub(crate) async fn watch(content: Arc<dyn Content>, faults: Arc<Faults>) {
    let mut wait = CHECK_INTERVAL;
    loop {
        sleep(wait).await;
        let content = Arc::clone(&content);
        let checked = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            (content.check(), begun.elapsed())
        });
        let Ok((result, took)) = checked.await else { return };
        match result {
            Err(OpenChunkError::Path(error)) if error.source.kind() != io::ErrorKind::NotFound => {
                // A file system that is out of reach for a moment. Whoever asks for a chunk finds out.
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
