//! Looking for trackers in the local network.

use std::time::Duration;

use mdns_sd::ServiceEvent;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    SERVICE, VERSION_KEY,
    candidates::{Answer, Candidates, FoundTracker, Network},
    daemon::{Daemon, networks},
};

/// How long a round waits for a first answer. Answers come within 150 ms. The question is repeated after a second, because datagrams may be
/// lost.
const ROUND: Duration = Duration::from_millis(1_500);

/// How long a round waits for more answers after the first. A lookup by name needs all trackers that there are, and a busy host answers late.
const GRACE: Duration = Duration::from_secs(1);

/// Wait between the first two rounds. Each further wait is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// Longest wait between two rounds.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Maximum events of a round that are read. Hostile hosts may send any number.
const MAX_EVENTS: usize = 256;

/// A search for trackers. It asks in rounds. After each round everything that was received is forgotten, apart from the trackers found. So
/// nobody in the network can make a search keep more and more.
#[derive(Debug, Default)]
pub struct Search {
    candidates: Candidates,
    /// The wait before the next round, if there was one.
    pause: Option<Duration>,
}

impl Search {
    /// Asks once. Returns the trackers that were not found before. Takes 1.5 s at most, and no time on a host without a network.
    pub async fn round(&mut self) -> Vec<FoundTracker> {
        self.pause = Some(self.pause.map_or(FIRST_PAUSE, |pause| (2 * pause).min(MAX_PAUSE)));
        let networks = networks();
        if networks.is_empty() || self.candidates.is_full() {
            return Vec::new();
        }
        let daemon = match Daemon::start() {
            Ok(daemon) => daemon,
            Err(error) => {
                tracing::debug!("no search by multicast DNS: {error}");
                return Vec::new();
            }
        };
        let found = self.ask(&daemon, &networks).await;
        daemon.stop().await;
        found
    }

    /// Asks in rounds, with pauses of up to half a minute, until one finds trackers. Does not return when
    /// [`MAX_FOUND`](crate::MAX_FOUND) trackers were found.
    pub async fn next_round(&mut self) -> Vec<FoundTracker> {
        loop {
            if self.candidates.is_full() {
                std::future::pending::<()>().await;
            }
            sleep(self.pause.unwrap_or_default()).await;
            let found = self.round().await;
            if !found.is_empty() {
                return found;
            }
        }
    }

    async fn ask(&mut self, daemon: &Daemon, networks: &[Network]) -> Vec<FoundTracker> {
        let mut found = Vec::new();
        let Ok(events) = daemon.browse(SERVICE) else { return found };
        let mut until = Instant::now() + ROUND;
        for _ in 0..MAX_EVENTS {
            let Ok(Ok(event)) = timeout_at(until, events.recv_async()).await else { break };
            let ServiceEvent::ServiceResolved(service) = event else { continue };
            let answer = Answer {
                full_name: service.get_fullname(),
                port: service.get_port(),
                version: service.get_property_val_str(VERSION_KEY),
                addresses: service.get_addresses().iter().map(|address| address.to_ip_addr()).collect(),
            };
            match self.candidates.take(&answer, networks) {
                Some(tracker) => {
                    if found.is_empty() {
                        until = until.min(Instant::now() + GRACE);
                    }
                    found.push(tracker);
                }
                None => tracing::debug!(?answer, "an answer by multicast DNS is not used"),
            }
            if self.candidates.is_full() {
                break;
            }
        }
        found
    }
}
