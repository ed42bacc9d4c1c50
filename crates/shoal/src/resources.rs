//! What the shares and transfers of a node use together: options, port and tasks.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use listen::ListenError;
use peer::{acceptor::Acceptor, rate_limit::RateLimit, server::Server, tracker_client::TrackerClient};
use proto::{Endpoint, Label};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The options of a node, its port and its tasks.
#[derive(Debug)]
pub(crate) struct Resources {
    pub(crate) trackers: Vec<Endpoint>,
    pub(crate) bind: Option<IpAddr>,
    pub(crate) label: Label,
    pub(crate) hash_cache: Option<PathBuf>,
    pub(crate) known_names: Option<PathBuf>,
    pub(crate) upload_limit: RateLimit,
    pub(crate) download_limit: RateLimit,
    /// Serves the shares.
    pub(crate) server: Server,
    pub(crate) port: u16,
    /// `None` until the node first shares or fetches something, and again once it was stopped.
    pub(crate) acceptor: Mutex<Option<Acceptor>>,
    /// Ends everything that the node started.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Resources {
    /// The node's port, which the first call takes; `None` if the node was stopped.
    pub(crate) fn acceptor(&self) -> Result<Option<Acceptor>, ListenError> {
        let mut acceptor = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner);
        // Checked under the lock: `stop` cancels first and then empties the place, so nothing is put there after that.
        if self.stop.is_cancelled() {
            return Ok(None);
        }
        if let Some(acceptor) = &*acceptor {
            return Ok(Some(acceptor.clone()));
        }
        let bound = Acceptor::bind(self.bind, self.port, &self.tasks)?;
        Ok(Some(acceptor.insert(bound).clone()))
    }

    /// Ends everything that the node started, and waits until none of its tasks is left.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.acceptor.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A client for each of the node's trackers. A client's task ends when the client is dropped.
    pub(crate) fn tracker_clients(&self) -> Vec<TrackerClient> {
        let client = |tracker: &Endpoint| TrackerClient::spawn(tracker.clone(), self.bind, &self.tasks);
        self.trackers.iter().map(client).collect()
    }
}
