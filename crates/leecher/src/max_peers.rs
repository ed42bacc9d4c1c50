//! How many peers a transfer connects to.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Maximum number of peers to connect to at the same time, at least 1. Clones are the same maximum, which may change while transfers
/// run. Connections beyond it stay.
#[derive(Debug, Clone)]
pub struct MaxPeers(Arc<AtomicUsize>);

impl MaxPeers {
    /// This many. 0 counts as 1: without a peer nothing arrives.
    pub fn new(most: usize) -> MaxPeers {
        MaxPeers(Arc::new(most.max(1).into()))
    }

    /// The maximum now.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Changes it, for all that have a clone.
    pub fn set(&self, most: usize) {
        self.0.store(most.max(1), Ordering::Relaxed);
    }
}
