//! What a seeder shows over HTTP. docs/http.md describes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{Event, Seeder};
use peer::{tracker_client::TrackerError, upload_hub::Receiver};
use proto::{Endpoint, InfoHash, Metainfo, tracker::client::CallError};
use serde::Serialize;
use startup::Served;
use web::{Meter, Metric, Source, json, machine_name};

/// A seeder that can be looked at.
pub(crate) struct Seen {
    seeder: Seeder,
    max_peers: usize,
    upload_limit: Option<u64>,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shares: BTreeMap<InfoHash, Shared>,
    accepted: u64,
    refused: u64,
    failed: u64,
    meter: Meter<(InfoHash, SocketAddr)>,
    whole: Meter<InfoHash>,
}

/// A share.
struct Shared {
    name: String,
    size: u64,
    chunks: u32,
    withdrawn: Option<String>,
    trackers: BTreeMap<String, Registered>,
}

#[derive(Clone, Serialize)]
struct Registered {
    tracker: String,
    registered: bool,
    seeders: u32,
    leechers: u32,
    trouble: Option<String>,
}

#[derive(Serialize)]
struct Status {
    role: &'static str,
    version: &'static str,
    machine: String,
    uptime_s: u64,
    listens: SocketAddr,
    shares: usize,
    peers: usize,
    max_peers: usize,
    sent: u64,
    upload_limit: Option<u64>,
}

#[derive(Serialize)]
struct Shares {
    shares: Vec<Listed>,
    more: bool,
}

#[derive(Serialize)]
struct Listed {
    infohash: String,
    name: String,
    size: u64,
    state: &'static str,
    peers: usize,
    sent: u64,
    rate: u64,
}

#[derive(Serialize)]
struct Share {
    #[serde(flatten)]
    listed: Listed,
    chunks: u32,
    message: Option<String>,
    trackers: Vec<Registered>,
    receivers: Vec<SeenReceiver>,
}

#[derive(Serialize)]
struct SeenReceiver {
    address: SocketAddr,
    sent: u64,
    rate: u64,
    waiting: bool,
    served: bool,
    given: Vec<u8>,
}

impl Seen {
    pub(crate) fn new(seeder: Seeder, max_peers: usize, upload_limit: Option<u64>) -> Seen {
        Seen { seeder, max_peers, upload_limit, started: Instant::now(), state: Mutex::default() }
    }

    /// This is shared from now on.
    pub(crate) fn share(&self, metainfo: &Metainfo) {
        let space = metainfo.chunk_space();
        let shared = Shared {
            name: metainfo.name().to_string(),
            size: space.total_len(),
            chunks: space.chunk_count(),
            withdrawn: None,
            trackers: BTreeMap::new(),
        };
        self.state().shares.insert(metainfo.infohash(), shared);
    }

    /// This is no longer shared.
    #[cfg(feature = "watch")]
    pub(crate) fn end(&self, infohash: &InfoHash) {
        self.state().shares.remove(infohash);
    }

    /// Something happened to a share.
    pub(crate) fn note(&self, event: &Event) {
        let mut state = self.state();
        match event {
            Event::Announced { tracker, infohash, announced } => {
                state.accepted += 1;
                let registered = Registered {
                    tracker: tracker.to_string(),
                    registered: true,
                    seeders: announced.seeders,
                    leechers: announced.leechers,
                    trouble: None,
                };
                state.registered(infohash, registered);
            }
            Event::NotAnnounced { infohash, error } => {
                let is_refused = matches!(error, TrackerError::Call { error: CallError::Refused(_), .. });
                *(if is_refused { &mut state.refused } else { &mut state.failed }) += 1;
                let tracker = Endpoint::to_string(error.endpoint());
                let trouble = Some(error.to_string());
                state.registered(
                    infohash,
                    Registered { tracker, registered: false, seeders: 0, leechers: 0, trouble },
                );
            }
            Event::Withdrawn { infohash, error } => {
                if let Some(share) = state.shares.get_mut(infohash) {
                    share.withdrawn = Some(error.to_string());
                    share.trackers.values_mut().for_each(|tracker| tracker.registered = false);
                }
            }
            Event::PeerJoined { .. } | Event::PeerLeft { .. } => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peers of a share, and the bytes that were sent.
    fn served(&self, infohash: &InfoHash) -> (Vec<Receiver>, u64) {
        let uploads = self.seeder.uploads(infohash);
        uploads.map(|uploads| (uploads.receivers(), uploads.bytes_sent())).unwrap_or_default()
    }

    fn status(&self) -> Status {
        let infohashes: Vec<_> = self.state().shares.keys().copied().collect();
        let served: Vec<_> = infohashes.iter().map(|infohash| self.served(infohash)).collect();
        Status {
            role: "seeder",
            version: env!("CARGO_PKG_VERSION"),
            machine: machine_name(),
            uptime_s: self.started.elapsed().as_secs(),
            listens: self.seeder.local_addr(),
            shares: infohashes.len(),
            peers: served.iter().map(|(peers, _)| peers.len()).sum(),
            max_peers: self.max_peers,
            sent: served.iter().map(|(_, sent)| sent).sum(),
            upload_limit: self.upload_limit,
        }
    }

    /// What is served now.
    pub(crate) fn serving(&self) -> Vec<Served> {
        let now = Instant::now();
        let infohashes: Vec<_> = self.state().shares.keys().copied().collect();
        let served = infohashes.into_iter().filter_map(|infohash| {
            let uploads = self.seeder.uploads(&infohash);
            let counts = uploads.map(|uploads| (uploads.receiver_count(), uploads.bytes_sent()));
            let (peers, sent) = counts.unwrap_or_default();
            let mut state = self.state();
            let rate = state.whole.rate(infohash, sent, now);
            let Shared { name, size, .. } = state.shares.get(&infohash)?;
            Some(Served {
                infohash: infohash.to_string(),
                name: name.clone(),
                size: *size,
                peers,
                sent,
                rate,
            })
        });
        served.collect()
    }

    fn share_json(&self, infohash: InfoHash) -> Option<Share> {
        let (peers, sent) = self.served(&infohash);
        let (now, mut state) = (Instant::now(), self.state());
        let State { shares, meter, whole, .. } = &mut *state;
        let share = shares.get(&infohash)?;
        let addresses: BTreeSet<_> = peers.iter().map(|peer| peer.address).collect();
        meter.keep(|(of, address)| *of != infohash || addresses.contains(address));
        let listed = share.listed(infohash, peers.len(), sent, whole.rate(infohash, sent, now));
        let receivers = peers.into_iter().map(|Receiver { address, sent, is_waiting, is_served, given }| {
            let rate = meter.rate((infohash, address), sent, now);
            SeenReceiver { address, sent, rate, waiting: is_waiting, served: is_served, given }
        });
        Some(Share {
            listed,
            chunks: share.chunks,
            message: share.withdrawn.clone(),
            trackers: share.trackers.values().cloned().collect(),
            receivers: receivers.collect(),
        })
    }

    fn shares(&self) -> Shares {
        let infohashes: Vec<_> = self.state().shares.keys().copied().collect();
        let listed = infohashes.into_iter().filter_map(|infohash| {
            let (peers, sent) = self.served(&infohash);
            let mut state = self.state();
            let rate = state.whole.rate(infohash, sent, Instant::now());
            Some(state.shares.get(&infohash)?.listed(infohash, peers.len(), sent, rate))
        });
        Shares { shares: listed.collect(), more: false }
    }
}

impl State {
    fn registered(&mut self, infohash: &InfoHash, registered: Registered) {
        if let Some(share) = self.shares.get_mut(infohash) {
            share.trackers.insert(registered.tracker.clone(), registered);
        }
    }
}

impl Shared {
    fn listed(&self, infohash: InfoHash, peers: usize, sent: u64, rate: u64) -> Listed {
        let state = if self.withdrawn.is_some() { "withdrawn" } else { "seeding" };
        Listed {
            infohash: infohash.to_string(),
            name: self.name.clone(),
            size: self.size,
            state,
            peers,
            sent,
            rate,
        }
    }
}

impl Source for Seen {
    fn metrics(&self) -> Vec<Metric> {
        let status = self.status();
        let state = self.state();
        let shares = || state.shares.values();
        let registrations = shares().flat_map(|share| share.trackers.values());
        let registered = registrations.filter(|tracker| tracker.registered).count();
        let withdrawn = shares().filter(|share| share.withdrawn.is_some()).count();
        vec![
            Metric::gauge(
                "shoal_seeder_uptime_seconds",
                "Seconds since the seeder started.",
                status.uptime_s,
            ),
            Metric::gauge("shoal_seeder_shares", "Shares that are served.", status.shares as u64),
            Metric::gauge(
                "shoal_seeder_shares_withdrawn",
                "Shares that are no longer announced, because a file changed.",
                withdrawn as u64,
            ),
            Metric::gauge(
                "shoal_seeder_share_bytes",
                "Bytes in all shares together.",
                shares().map(|share| share.size).sum(),
            ),
            Metric::gauge("shoal_seeder_peers", "Connected peers.", status.peers as u64),
            Metric::gauge("shoal_seeder_peers_limit", "Maximum connected peers.", status.max_peers as u64),
            Metric::counter("shoal_seeder_sent_bytes", "Bytes of chunks that were sent.", status.sent),
            Metric::gauge(
                "shoal_seeder_upload_limit_bytes_per_second",
                "Maximum upload rate; 0 if there is none.",
                status.upload_limit.unwrap_or(0),
            ),
            Metric::gauge(
                "shoal_seeder_registrations",
                "Registrations with trackers that hold, one for each share and tracker.",
                registered as u64,
            ),
            Metric::counters(
                "shoal_seeder_announces",
                "Announces to trackers, by their outcome.",
                "outcome",
                &[("accepted", state.accepted), ("refused", state.refused), ("unanswered", state.failed)],
            ),
        ]
    }

    fn resource(&self, path: &str, _: &str) -> Option<String> {
        let parts: Vec<_> = path.split('/').collect();
        Some(match parts[..] {
            ["status"] => json(&self.status()),
            ["shares"] => json(&self.shares()),
            ["shares", infohash] => json(&self.share_json(infohash.parse().ok()?)?),
            _ => return None,
        })
    }
}
