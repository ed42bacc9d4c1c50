//! How many tasks wait for something.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts those who wait.
#[derive(Debug, Default)]
pub struct WaitCount(AtomicUsize);

/// Somebody who waits; no longer once it is dropped, whether it got what it waited for or was cancelled.
#[derive(Debug)]
pub struct Waiting<'a>(&'a AtomicUsize);

impl WaitCount {
    /// One more waits.
    pub fn enter(&self) -> Waiting<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Waiting(&self.0)
    }

    /// Whether somebody waits just now.
    pub fn is_waited(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
