//! What the workers of a tracker see of the task that connects it to its fleet ([`link`](super::link)).

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Instant,
};

use proto::InfoHash;
use tokio::sync::{Notify, mpsc};

/// Maximum lookups that wait for the task. More are answered with what is known.
const MAX_QUESTIONS: usize = 1_024;

/// A lookup of a share that is unknown here.
pub(crate) struct Question {
    pub(crate) source: SocketAddr,
    pub(crate) datagram: Box<[u8]>,
    pub(crate) infohash: InfoHash,
    pub(crate) at: Instant,
}

/// What the workers of a tracker in a fleet have.
pub(crate) struct FleetSide {
    /// Takes lookups that wait.
    pub(crate) questions: mpsc::Sender<Question>,
    /// To be notified when the handler has noted changes.
    pub(crate) changed: Notify,
    /// Notified when the store has been read for the first time, or could not be.
    pub(crate) first_read: Notify,
    pub(crate) counts: FleetCounts,
}

/// What the task has done so far.
#[derive(Default)]
pub(crate) struct FleetCounts {
    pub(crate) is_connected: AtomicBool,
    /// Changes that the store took.
    pub(crate) written: AtomicU64,
    /// Changes that found no room in a queue.
    pub(crate) dropped: AtomicU64,
    /// Registrations of other trackers that are, or were, taken in.
    pub(crate) taken_in: AtomicU64,
    /// Lookups that waited for the store, and those of them that it did not answer in time.
    pub(crate) waited: AtomicU64,
    pub(crate) late: AtomicU64,
    /// How often the connection was lost.
    pub(crate) lost: AtomicU64,
    /// Changes that wait to be written, as of the last look.
    pub(crate) queued: AtomicU64,
}

impl FleetSide {
    /// And the end of the queue that the task reads.
    pub(crate) fn new() -> (FleetSide, mpsc::Receiver<Question>) {
        let (questions, receiver) = mpsc::channel(MAX_QUESTIONS);
        let (changed, first_read, counts) = (Notify::new(), Notify::new(), FleetCounts::default());
        (FleetSide { questions, changed, first_read, counts }, receiver)
    }

    pub(crate) fn set_connected(&self, is_connected: bool) {
        self.counts.is_connected.store(is_connected, Ordering::Relaxed);
    }
}

impl FleetCounts {
    /// Writes them to the log.
    pub(crate) fn log(&self) {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        tracing::info!(
            connected = self.is_connected.load(Ordering::Relaxed),
            written = count(&self.written),
            dropped = count(&self.dropped),
            taken_in = count(&self.taken_in),
            waited = count(&self.waited),
            late = count(&self.late),
            lost = count(&self.lost),
            "registry"
        );
    }

    pub(crate) fn add(count: &AtomicU64, more: usize) {
        count.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
