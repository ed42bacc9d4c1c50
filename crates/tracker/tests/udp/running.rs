//! A tracker in a task of its own.

use std::net::{IpAddr, SocketAddr};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracker::{Config, Tracker, TrackerError};

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), TrackerError>>,
}

impl Running {
    pub(crate) async fn start(bind: Option<IpAddr>) -> Result<Running, TrackerError> {
        Running::start_at(Config { bind, port: 0, ..Config::default() }).await
    }

    pub(crate) async fn start_at(config: Config) -> Result<Running, TrackerError> {
        Ok(Running::run(Tracker::bind(config).await?))
    }

    pub(crate) fn run(tracker: Tracker) -> Running {
        let (address, shutdown) = (tracker.local_addr(), CancellationToken::new());
        let task = tokio::spawn(tracker.run(shutdown.clone()));
        Running { address, shutdown, task }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}
