//! What a seeder shows over HTTP, and what can be changed there. docs/http.md describes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{
    Event, Seeder,
    cli::{Addition, Order, parse_count},
};
use peer::{rate_limit::RateLimit, tracker_client::TrackerError, upload_hub::Receiver};
use proto::{Endpoint, InfoHash, Metainfo, ShareName, tracker::client::CallError};
use serde::{Deserialize, Serialize};
use startup::Served;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use web::{Meter, Metric, Refusal, ServedPeer, Setting, Source, json, machine_name, read_body};

/// Additions that are hashed, or failed, at a time. A failed one stays in the list until it is removed.
const MAX_ADDITIONS: usize = 64;

/// A seeder that can be looked at and changed.
pub(crate) struct Seen {
    seeder: Seeder,
    additions: Additions,
    /// Stops the program.
    shutdown: CancellationToken,
    started: Instant,
    state: Mutex<State>,
}

/// How shares are added and removed while the seeder runs.
pub(crate) enum Additions {
    /// By these orders, if they are below one of `roots`.
    To { orders: mpsc::Sender<Order>, roots: Vec<PathBuf> },
    /// By what is in the watched directory.
    ByWatching,
}

#[derive(Default)]
struct State {
    shares: BTreeMap<InfoHash, Shared>,
    /// What is being hashed, or could not be.
    added: BTreeMap<PathBuf, Added>,
    /// Bytes that were sent of shares that are gone.
    sent_before: u64,
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

/// What somebody added.
enum Added {
    /// It is being hashed, or waits for that. Cancelling this ends it.
    Hashing(CancellationToken),
    /// It cannot be shared.
    Failed(String),
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
    /// `None` until it is known.
    infohash: Option<String>,
    name: String,
    size: u64,
    state: &'static str,
    message: Option<String>,
    peers: usize,
    sent: u64,
    rate: u64,
}

#[derive(Serialize)]
struct Share {
    #[serde(flatten)]
    listed: Listed,
    chunks: u32,
    trackers: Vec<Registered>,
    receivers: Vec<ServedPeer>,
}

#[derive(Serialize)]
struct Limits {
    upload_limit: Option<u64>,
    max_peers: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLimits {
    #[serde(default)]
    upload_limit: Setting,
    max_peers: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToAdd {
    path: PathBuf,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToRemove {
    share: String,
}

impl Seen {
    pub(crate) fn new(seeder: Seeder, additions: Additions, shutdown: CancellationToken) -> Seen {
        Seen { seeder, additions, shutdown, started: Instant::now(), state: Mutex::default() }
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
    pub(crate) fn end(&self, infohash: &InfoHash) {
        let sent = self.seeder.uploads(infohash).map_or(0, |uploads| uploads.bytes_sent());
        let mut state = self.state();
        state.shares.remove(infohash);
        state.sent_before += sent;
    }

    /// What was added is shared from now on.
    pub(crate) fn added(&self, path: &Path, metainfo: &Metainfo) {
        self.state().added.remove(path);
        self.share(metainfo);
    }

    /// What was added cannot be shared.
    pub(crate) fn not_added(&self, path: &Path, why: String) {
        // Unless it was removed meanwhile.
        if let Some(added) = self.state().added.get_mut(path) {
            *added = Added::Failed(why);
        }
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
        let (infohashes, sent_before) = {
            let state = self.state();
            (state.shares.keys().copied().collect::<Vec<_>>(), state.sent_before)
        };
        let served: Vec<_> = infohashes.iter().map(|infohash| self.served(infohash)).collect();
        Status {
            role: "seeder",
            version: env!("CARGO_PKG_VERSION"),
            machine: machine_name(),
            uptime_s: self.started.elapsed().as_secs(),
            listens: self.seeder.local_addr(),
            shares: infohashes.len(),
            peers: served.iter().map(|(peers, _)| peers.len()).sum(),
            max_peers: self.seeder.max_peers(),
            sent: sent_before + served.iter().map(|(_, sent)| sent).sum::<u64>(),
            upload_limit: self.seeder.upload_limit().per_second(),
        }
    }

    fn limits(&self) -> Limits {
        Limits { upload_limit: self.seeder.upload_limit().per_second(), max_peers: self.seeder.max_peers() }
    }

    fn set_limits(&self, NewLimits { upload_limit, max_peers }: NewLimits) -> Result<Limits, Refusal> {
        // All are read before the first is changed.
        let upload_limit = upload_limit.read(RateLimit::unlimited(), RateLimit::parse)?;
        let max_peers = max_peers.map(|count| parse_count(&count.to_string())).transpose();
        let max_peers = max_peers.map_err(|error| Refusal::Malformed(format!("max_peers: {error}")))?;
        if let Some(limit) = upload_limit {
            self.seeder.upload_limit().set(&limit);
        }
        if let Some(count) = max_peers {
            self.seeder.set_max_peers(count);
        }
        Ok(self.limits())
    }

    fn add(&self, ToAdd { path, name }: ToAdd) -> Result<Listed, Refusal> {
        let Additions::To { orders, roots } = &self.additions else { return Err(watched()) };
        if roots.is_empty() {
            let why = "nothing can be added: the seeder was started without --http-share-root";
            return Err(Refusal::Forbidden(why.to_owned()));
        }
        if !path.is_absolute() {
            return Err(Refusal::Malformed("the path has to begin with /".to_owned()));
        }
        // By default the name that was asked for, also if it is a link that leads to another.
        let name = name.or_else(|| Some(path.file_name()?.to_str()?.to_owned()));
        let name = name.map(|name| ShareName::new(&name)).transpose();
        let name = name.map_err(|error| Refusal::Malformed(error.to_string()))?;
        // The real path decides, with all links followed. The answer for a path outside does not show whether it exists.
        let outside =
            || Refusal::Forbidden("there is nothing of that name below --http-share-root".to_owned());
        let real = path.canonicalize().map_err(|_| outside())?;
        if !roots.iter().any(|root| real.starts_with(root)) {
            return Err(outside());
        }
        let stop = self.shutdown.child_token();
        let mut state = self.state();
        match state.added.get(&real) {
            Some(Added::Hashing(_)) => return Err(Refusal::Conflict("it is being added already".to_owned())),
            None if state.added.len() >= MAX_ADDITIONS => {
                return Err(Refusal::Conflict(
                    "too many additions wait, or failed and were not removed".to_owned(),
                ));
            }
            Some(Added::Failed(_)) | None => {}
        }
        let addition = Addition { path: real.clone(), name, stop: stop.clone() };
        let ordered = orders.try_send(Order::Add(addition));
        ordered.map_err(|_| Refusal::Conflict("too much is asked for at a time".to_owned()))?;
        let added = Added::Hashing(stop);
        let listed = added.listed(&real);
        state.added.insert(real, added);
        Ok(listed)
    }

    fn remove(&self, share: &str) -> Result<(), Refusal> {
        let Additions::To { orders, .. } = &self.additions else { return Err(watched()) };
        let mut state = self.state();
        if let Some(added) = state.added.remove(Path::new(share)) {
            if let Added::Hashing(stop) = added {
                stop.cancel();
            }
            return Ok(());
        }
        let infohash = share.parse().ok().filter(|infohash| state.shares.contains_key(infohash));
        let infohash = infohash.ok_or_else(|| Refusal::Unknown("this is not shared here".to_owned()))?;
        let ordered = orders.try_send(Order::Remove(infohash));
        ordered.map_err(|_| Refusal::Conflict("too much is asked for at a time".to_owned()))
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
            ServedPeer { address, sent, rate, waiting: is_waiting, served: is_served, given }
        });
        Some(Share {
            listed,
            chunks: share.chunks,
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
        let mut listed: Vec<_> = listed.collect();
        listed.extend(self.state().added.iter().map(|(path, added)| added.listed(path)));
        Shares { shares: listed, more: false }
    }
}

fn watched() -> Refusal {
    let why = "this seeder shares what is in a directory: move files there, or out of it";
    Refusal::Conflict(why.to_owned())
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
            infohash: Some(infohash.to_string()),
            name: self.name.clone(),
            size: self.size,
            state,
            message: self.withdrawn.clone(),
            peers,
            sent,
            rate,
        }
    }
}

impl Added {
    fn listed(&self, path: &Path) -> Listed {
        let (state, message) = match self {
            Added::Hashing(_) => ("hashing", None),
            Added::Failed(why) => ("failed", Some(why.clone())),
        };
        let name = path.display().to_string();
        Listed { infohash: None, name, size: 0, state, message, peers: 0, sent: 0, rate: 0 }
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
            ["limits"] => json(&self.limits()),
            ["shares"] => json(&self.shares()),
            ["shares", infohash] => json(&self.share_json(infohash.parse().ok()?)?),
            _ => return None,
        })
    }

    fn change(&self, path: &str, body: &[u8]) -> Result<String, Refusal> {
        match path {
            "limits" => Ok(json(&self.set_limits(read_body(body)?)?)),
            "shares" => Ok(json(&self.add(read_body(body)?)?)),
            "remove" => {
                let ToRemove { share } = read_body(body)?;
                self.remove(&share).map(|()| "{}".to_owned())
            }
            _ => Err(Refusal::Unknown("nothing can be changed here".to_owned())),
        }
    }

    fn stop(&self) {
        self.shutdown.cancel();
    }
}
