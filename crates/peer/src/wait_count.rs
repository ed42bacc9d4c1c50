//! The number of tasks that wait for something.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts tasks that wait.
#[derive(Debug, Default)]
pub struct WaitCount(AtomicUsize);

/// A task that waits, until this is dropped, after success or cancellation.
#[derive(Debug)]
pub struct Waiting<'a>(&'a AtomicUsize);

impl WaitCount {
    /// Counts one more task.
    pub fn enter(&self) -> Waiting<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Waiting(&self.0)
    }

    /// Whether a task waits now.
    pub fn is_waited(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
