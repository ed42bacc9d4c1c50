//! A tracker in a task of its own.

use std::net::SocketAddr;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
pub use tracker::{Config, Limits, TrackerError};

use crate::task_output;

/// A tracker that runs in this process. It stops when this is dropped.
///
/// It needs no [`Node`](crate::Node). To use it in one: `Node::builder().tracker(handle.local_addr())`.
#[derive(Debug)]
pub struct TrackerHandle {
    local_addr: SocketAddr,
    task: JoinHandle<Result<(), TrackerError>>,
    stop: DropGuard,
}

impl TrackerHandle {
    /// Takes the port and starts to answer requests. Needs a Tokio runtime.
    pub async fn start(config: Config) -> Result<TrackerHandle, TrackerError> {
        let tracker = tracker::Tracker::bind(config).await?;
        let local_addr = tracker.local_addr();
        let stop = CancellationToken::new();
        let task = tokio::spawn(tracker.run(stop.clone()));
        Ok(TrackerHandle { local_addr, task, stop: stop.drop_guard() })
    }

    /// The address and UDP port that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops the tracker and waits until none of its threads is left. Its registrations are lost.
    pub async fn stop(self) -> Result<(), TrackerError> {
        drop(self.stop);
        task_output(self.task.await)
    }
}
