//! When a peer last did something, so that a server knows which peers are idle.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// When a peer last requested or received something.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Mutex<Instant>>);

impl Default for Activity {
    fn default() -> Activity {
        Activity(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Activity {
    /// The peer does something, or waits for its turn.
    pub(crate) fn touch(&self) {
        *self.lock() = Instant::now();
    }

    /// The time of its last activity.
    pub(crate) fn last(&self) -> Instant {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
