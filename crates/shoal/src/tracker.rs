//! A tracker in a task of its own.

use std::{future::pending, net::SocketAddr};

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
pub use tracker::{Config, Limits, MAX_SOCKETS, TrackerError as RunError};

use crate::task_output;

/// A tracker that runs in this process. It stops when this is dropped.
///
/// It needs no [`Node`](crate::Node). To use it in one: `Node::builder().tracker(handle.local_addr())`. If it listens on every
/// address, as it does by default, the links of that node's shares name this host's own address.
#[derive(Debug)]
pub struct TrackerHandle {
    local_addr: SocketAddr,
    /// Until its result is known.
    task: Option<JoinHandle<Result<(), RunError>>>,
    stop: DropGuard,
}

impl TrackerHandle {
    /// Takes the port and starts to answer requests. Needs a Tokio runtime.
    pub async fn start(config: Config) -> Result<TrackerHandle, RunError> {
        let tracker = tracker::Tracker::bind(config).await?;
        let local_addr = tracker.local_addr();
        let stop = CancellationToken::new();
        let task = tokio::spawn(tracker.run(stop.clone()));
        Ok(TrackerHandle { local_addr, task: Some(task), stop: stop.drop_guard() })
    }

    /// The address and UDP port that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Waits until the tracker fails, and returns the reason. After that the tracker answers no requests. While it runs, this waits for
    /// ever. Cancel safe.
    pub async fn failed(&mut self) -> RunError {
        if let Some(task) = &mut self.task {
            let result = task_output(task.await);
            self.task = None;
            if let Err(error) = result {
                return error;
            }
        }
        pending().await
    }

    /// Stops the tracker and waits until none of its threads is left. Its registrations are lost. Fails if the tracker had failed
    /// before, unless [`TrackerHandle::failed`] returned that.
    pub async fn stop(self) -> Result<(), RunError> {
        drop(self.stop);
        match self.task {
            Some(task) => task_output(task.await),
            None => Ok(()),
        }
    }
}
