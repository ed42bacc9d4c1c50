//! A transfer as an onlooker sees it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use peer::upload_hub::{Receiver, UploadHub};
use swarm::Picture;

/// Minimum time between two pictures: one takes some milliseconds of a large share.
const PICTURE_INTERVAL: Duration = Duration::from_secs(1);

/// A transfer to look at. Clones look at the same. It costs nothing while nobody looks.
#[derive(Debug, Clone, Default)]
pub struct View(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_wanted: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    picture: Option<Arc<Picture>>,
    made: Option<Instant>,
    uploads: Weak<UploadHub>,
    /// When there is nothing to send any more.
    sent: u64,
}

impl View {
    /// The last picture of the transfer, if there is one; and the transfer is to make another one soon.
    pub fn picture(&self) -> Option<Arc<Picture>> {
        self.0.is_wanted.store(true, Ordering::Relaxed);
        self.seen().picture.clone()
    }

    /// The peers that may be sent chunks.
    pub fn receivers(&self) -> Vec<Receiver> {
        let uploads = self.seen().uploads.upgrade();
        uploads.map(|uploads| uploads.receivers()).unwrap_or_default()
    }

    /// Number of peers that may be sent chunks; `None` while nothing is served.
    pub fn receiver_count(&self) -> Option<usize> {
        Some(self.seen().uploads.upgrade()?.receiver_count())
    }

    /// Bytes of chunks that were sent to others.
    pub fn bytes_sent(&self) -> u64 {
        let mut seen = self.seen();
        seen.sent = seen.uploads.upgrade().map_or(seen.sent, |uploads| uploads.bytes_sent());
        seen.sent
    }

    /// Whether to call [`View::show`] now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let made = self.seen().made;
        match made {
            None => true,
            Some(made) => now >= made + PICTURE_INTERVAL && self.0.is_wanted.swap(false, Ordering::Relaxed),
        }
    }

    pub(crate) fn show(&self, picture: Option<Picture>, now: Instant) {
        let mut seen = self.seen();
        (seen.picture, seen.made) = (picture.map(Arc::new), Some(now));
    }

    /// Chunks are served by these uploads from now on.
    pub(crate) fn serve(&self, uploads: &Arc<UploadHub>) {
        self.seen().uploads = Arc::downgrade(uploads);
    }

    /// This is the last moment of the uploads.
    pub(crate) fn end(&self) {
        self.bytes_sent();
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
