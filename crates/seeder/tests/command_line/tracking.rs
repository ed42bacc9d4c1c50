//! A tracker inside the test.

use std::net::SocketAddr;

use peer::tracker_client::{TrackerClient, TrackerError};
use proto::{
    InfoHash, Zone,
    tracker::{ErrorCode, Query, client::CallError},
};
use tokio::runtime::Runtime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracker::Tracker;

/// A tracker that runs until it is dropped.
pub(crate) struct Tracking {
    runtime: Runtime,
    address: SocketAddr,
}

impl Tracking {
    pub(crate) fn start() -> Tracking {
        let runtime = Runtime::new().unwrap();
        let config =
            tracker::Config { bind: Some([127, 0, 0, 1].into()), port: 0, ..tracker::Config::default() };
        let tracker = runtime.block_on(Tracker::bind(config)).unwrap();
        let address = tracker.local_addr();
        // Ends with the runtime.
        runtime.spawn(tracker.run(CancellationToken::new()));
        Tracking { runtime, address }
    }

    /// What to give to `--tracker`.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ports of the seeders that the tracker knows for a share.
    pub(crate) fn seeder_ports(&self, infohash: InfoHash) -> Vec<u16> {
        let found = self.runtime.block_on(async {
            let tasks = TaskTracker::new();
            let client = TrackerClient::spawn(self.address().parse().unwrap(), None, &tasks);
            client.peers(Query::Peers { infohash, want: 10, zone: Zone::NONE }).await
        });
        match found {
            Ok((peers, _)) => peers.peers.iter().map(|peer| peer.port.get()).collect(),
            Err(TrackerError::Call { error: CallError::Refused(ErrorCode::UnknownShare { .. }), .. }) => {
                Vec::new()
            }
            Err(error) => panic!("{error}"),
        }
    }
}
