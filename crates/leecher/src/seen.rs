//! What a leecher shows over HTTP. docs/http.md describes it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use leecher::{FetchEvent, Fetched, PeerPicture, Progress, Spent, Started, View};
use peer::upload_hub::Receiver;
use proto::InfoHash;
use serde::Serialize;
use startup::{Served, json};
use web::{Meter, Metric, Source, machine_name};

/// A leecher that can be looked at.
pub(crate) struct Seen {
    listens: Option<SocketAddr>,
    max_peers: usize,
    upload_limit: Option<u64>,
    download_limit: Option<u64>,
    started: Instant,
    transfers: Vec<Arc<SeenTransfer>>,
}

/// A transfer that can be looked at.
pub(crate) struct SeenTransfer {
    target: String,
    view: View,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    message: Option<String>,
    started: Option<Started>,
    progress: Progress,
    finished: Option<Fetched>,
    meter: Meter<SocketAddr>,
    whole: Meter<()>,
}

/// What a transfer does.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Waiting,
    Fetching,
    Saving,
    Done,
    Failed,
}

const PHASES: [Phase; 5] = [Phase::Waiting, Phase::Fetching, Phase::Saving, Phase::Done, Phase::Failed];

#[derive(Serialize)]
struct Status {
    role: &'static str,
    version: &'static str,
    machine: String,
    uptime_s: u64,
    listens: Option<SocketAddr>,
    shares: usize,
    peers: usize,
    max_peers: usize,
    received: u64,
    sent: u64,
    upload_limit: Option<u64>,
    download_limit: Option<u64>,
}

#[derive(Serialize)]
struct Shares {
    shares: Vec<Listed>,
    more: bool,
}

#[derive(Serialize)]
struct Listed {
    /// `None` until the share is known.
    infohash: Option<String>,
    name: String,
    size: u64,
    state: &'static str,
    message: Option<String>,
    done: u64,
    rate: u64,
    peers: usize,
    sent: u64,
}

#[derive(Serialize)]
struct Share {
    #[serde(flatten)]
    listed: Listed,
    chunks: u32,
    output: String,
    left_s: Option<u64>,
    wasted: u64,
    wrong_chunks: u64,
    upload_rate: u64,
    stored: Vec<u8>,
    sources: Vec<SeenSource>,
    receivers: Vec<SeenReceiver>,
    spent: Vec<json::Spent>,
}

#[derive(Serialize)]
struct SeenSource {
    address: SocketAddr,
    seeder: bool,
    received: u64,
    rate: u64,
    owed: u32,
    has: Vec<u8>,
    gave: Vec<u8>,
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

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Fetching => "fetching",
            Phase::Saving => "saving",
            Phase::Done => "done",
            Phase::Failed => "failed",
        }
    }
}

impl Seen {
    pub(crate) fn new(
        listens: Option<SocketAddr>,
        max_peers: usize,
        (upload_limit, download_limit): (Option<u64>, Option<u64>),
        transfers: Vec<Arc<SeenTransfer>>,
    ) -> Seen {
        Seen { listens, max_peers, upload_limit, download_limit, started: Instant::now(), transfers }
    }

    fn status(&self) -> Status {
        let listed: Vec<_> = self.transfers.iter().map(|transfer| transfer.listed()).collect();
        Status {
            role: "leecher",
            version: env!("CARGO_PKG_VERSION"),
            machine: machine_name(),
            uptime_s: self.started.elapsed().as_secs(),
            listens: self.listens,
            shares: listed.len(),
            peers: listed.iter().map(|share| share.peers).sum(),
            max_peers: self.max_peers,
            received: self.transfers.iter().map(|transfer| transfer.state().received()).sum(),
            sent: listed.iter().map(|share| share.sent).sum(),
            upload_limit: self.upload_limit,
            download_limit: self.download_limit,
        }
    }

    fn share(&self, infohash: InfoHash) -> Option<Share> {
        let is_it = |transfer: &&Arc<SeenTransfer>| transfer.state().infohash() == Some(infohash);
        Some(self.transfers.iter().find(is_it)?.share())
    }
}

impl SeenTransfer {
    /// A transfer of what the user asked for.
    pub(crate) fn new(target: String, view: View) -> SeenTransfer {
        SeenTransfer { target, view, state: Mutex::default() }
    }

    /// What the transfer is to show itself by.
    pub(crate) fn view(&self) -> View {
        self.view.clone()
    }

    /// Something happened.
    pub(crate) fn note(&self, event: &FetchEvent) {
        let mut state = self.state();
        match event {
            FetchEvent::Waiting(waiting) => state.message = Some(waiting.to_string()),
            FetchEvent::Started(started) => {
                state.phase = Phase::Fetching;
                state.message = None;
                state.progress = Progress {
                    done: started.resumed + started.zeros + started.reused,
                    total: started.size,
                    ..Progress::default()
                };
                state.started = Some(started.clone());
            }
            FetchEvent::Progress(progress) => state.progress = progress.clone(),
            FetchEvent::Flushing => state.phase = Phase::Saving,
            FetchEvent::Finished(fetched) => {
                state.phase = Phase::Done;
                state.progress.done = fetched.wanted;
                state.progress.total = fetched.wanted;
                state.progress.wasted = fetched.wasted;
                state.progress.rate = 0;
                state.progress.peers.clear();
                state.finished = Some(fetched.clone());
            }
            FetchEvent::TrackerTrouble(error) => state.message = Some(error.to_string()),
            FetchEvent::Unsaved(error) => state.message = Some(error.to_string()),
            FetchEvent::CannotServe(error) => state.message = Some(error.to_string()),
            _ => {}
        }
    }

    /// The transfer failed.
    pub(crate) fn failed(&self, why: String) {
        let mut state = self.state();
        state.phase = Phase::Failed;
        state.progress.rate = 0;
        state.progress.peers.clear();
        state.message = Some(why);
    }

    /// What is served, once the transfer is done.
    pub(crate) fn served(&self) -> Option<Served> {
        let (peers, sent) = (self.view.receiver_count(), self.view.bytes_sent());
        let mut state = self.state();
        let finished = state.finished.as_ref()?;
        let (infohash, name, size) =
            (finished.infohash.to_string(), finished.name.to_string(), finished.size);
        let rate = state.whole.rate((), sent, Instant::now());
        Some(Served { infohash, name, size, peers: peers?, sent, rate })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listed(&self) -> Listed {
        let sent = self.view.bytes_sent();
        self.state().listed(&self.target, sent, self.view.receivers().len())
    }

    fn share(&self) -> Share {
        let (picture, receivers, sent) = (self.view.picture(), self.view.receivers(), self.view.bytes_sent());
        let (now, mut state) = (Instant::now(), self.state());
        let listed = state.listed(&self.target, sent, receivers.len());
        state.meter.keep(|address| receivers.iter().any(|receiver| receiver.address == *address));
        let upload_rate = state.whole.rate((), sent, now);
        let receivers =
            receivers.into_iter().map(|Receiver { address, sent, is_waiting, is_served, given }| {
                let rate = state.meter.rate(address, sent, now);
                SeenReceiver { address, sent, rate, waiting: is_waiting, served: is_served, given }
            });
        let receivers = receivers.collect();
        let Progress { done, total, rate, wasted, wrong_chunks, .. } = state.progress;
        let left_s = total.saturating_sub(done).checked_div(rate).filter(|_| state.phase == Phase::Fetching);
        let pictured = picture.iter().flat_map(|picture| &picture.peers);
        let sources = match state.phase {
            Phase::Fetching => pictured.map(|peer| state.source(peer)).collect(),
            _ => Vec::new(),
        };
        Share {
            chunks: state.started.as_ref().map_or(0, |started| started.chunks),
            output: state
                .started
                .as_ref()
                .map(|started| started.output.display().to_string())
                .unwrap_or_default(),
            left_s,
            wasted,
            wrong_chunks,
            upload_rate,
            stored: picture.as_ref().map(|picture| picture.stored.clone()).unwrap_or_default(),
            sources,
            receivers,
            spent: spent(state.spent(picture.as_ref().map(|picture| &picture.spent[..]))),
            listed,
        }
    }
}

impl State {
    fn infohash(&self) -> Option<InfoHash> {
        self.started.as_ref().map(|started| started.infohash)
    }

    /// Bytes of proved chunks that came from peers in this run.
    fn received(&self) -> u64 {
        let here =
            self.started.as_ref().map_or(0, |started| started.resumed + started.zeros + started.reused);
        self.progress.done.saturating_sub(here)
    }

    fn listed(&self, target: &str, sent: u64, receivers: usize) -> Listed {
        let sources = self.progress.peers.len();
        Listed {
            infohash: self.infohash().map(|infohash| infohash.to_string()),
            name: self.started.as_ref().map_or_else(|| target.to_owned(), |started| started.name.to_string()),
            size: self.progress.total,
            state: self.phase.name(),
            message: self.message.clone(),
            done: self.progress.done,
            rate: self.progress.rate,
            // A leecher that gives and takes is in both.
            peers: sources.max(receivers),
            sent,
        }
    }

    fn source(&self, peer: &PeerPicture) -> SeenSource {
        let PeerPicture { address, seeder, owed, has, gave } = peer.clone();
        let progress = self.progress.peers.iter().find(|progress| progress.address == address);
        let (received, rate) = progress.map_or((0, 0), |progress| (progress.bytes, progress.rate));
        SeenSource { address, seeder, received, rate, owed, has, gave }
    }

    /// What the time was spent on: at the end, or as of the last picture.
    fn spent<'a>(&'a self, pictured: Option<&'a [(Spent, Duration)]>) -> &'a [(Spent, Duration)] {
        self.finished.as_ref().map(|fetched| &fetched.spent[..]).or(pictured).unwrap_or_default()
    }
}

/// What time was spent on, by names that do not change.
pub(crate) fn spent(parts: &[(Spent, Duration)]) -> Vec<json::Spent> {
    let part = |&(on, time): &(Spent, Duration)| {
        let peer = match on {
            Spent::SlowPeer(address) => Some(address),
            _ => None,
        };
        json::Spent { on: name(on), peer, seconds: time.as_secs_f64() }
    };
    parts.iter().map(part).collect()
}

/// A name that does not change with the text for users.
fn name(spent: Spent) -> &'static str {
    match spent {
        Spent::Starting => "starting",
        Spent::NoPeers => "no_peers",
        Spent::Receiving => "receiving",
        Spent::RareChunk => "rare_chunk",
        Spent::SlowPeer(_) => "slow_peer",
        Spent::Hashing => "hashing",
        Spent::Writing => "writing",
        Spent::OwnLimit => "own_limit",
        Spent::Flushing => "flushing",
        _ => "other",
    }
}

impl Source for Seen {
    fn metrics(&self) -> Vec<Metric> {
        let status = self.status();
        let mut phases = PHASES.map(|phase| (phase.name(), 0));
        let mut times: BTreeMap<&str, Duration> = BTreeMap::new();
        let (mut size, mut done, mut wasted, mut wrong) = (0, 0, 0, 0);
        for transfer in &self.transfers {
            let picture = transfer.view.picture();
            let state = transfer.state();
            phases
                .iter_mut()
                .filter(|(name, _)| *name == state.phase.name())
                .for_each(|(_, count)| *count += 1);
            size += state.progress.total;
            done += state.progress.done;
            wasted += state.progress.wasted;
            wrong += state.progress.wrong_chunks;
            for &(on, time) in state.spent(picture.as_ref().map(|picture| &picture.spent[..])) {
                *times.entry(name(on)).or_default() += time;
            }
        }
        let mut spent = Metric::counters(
            "shoal_leecher_spent_seconds",
            "Seconds of all transfers together, by what they were spent on.",
            "on",
            &times.keys().map(|&on| (on, 0)).collect::<Vec<_>>(),
        );
        for (sample, time) in spent.samples.iter_mut().zip(times.values()) {
            sample.value = time.as_secs_f64();
        }
        vec![
            Metric::gauge(
                "shoal_leecher_uptime_seconds",
                "Seconds since the leecher started.",
                status.uptime_s,
            ),
            Metric::gauges("shoal_leecher_transfers", "Transfers, by what they do.", "state", &phases),
            Metric::gauge("shoal_leecher_share_bytes", "Bytes in all shares together.", size),
            Metric::gauge("shoal_leecher_done_bytes", "Bytes of them that are here and proved.", done),
            Metric::counter(
                "shoal_leecher_received_bytes",
                "Bytes of proved chunks that came from peers.",
                status.received,
            ),
            Metric::counter(
                "shoal_leecher_wasted_bytes",
                "Bytes of chunks that came and were not needed.",
                wasted,
            ),
            Metric::counter(
                "shoal_leecher_sent_bytes",
                "Bytes of chunks that were sent to others.",
                status.sent,
            ),
            Metric::counter("shoal_leecher_proof_failures", "Chunks that were proved wrong.", wrong),
            Metric::gauge("shoal_leecher_peers", "Connected peers.", status.peers as u64),
            Metric::gauge(
                "shoal_leecher_peers_limit",
                "Maximum peers to fetch from.",
                status.max_peers as u64,
            ),
            Metric::gauge(
                "shoal_leecher_upload_limit_bytes_per_second",
                "Maximum upload rate; 0 if there is none.",
                status.upload_limit.unwrap_or(0),
            ),
            Metric::gauge(
                "shoal_leecher_download_limit_bytes_per_second",
                "Maximum download rate; 0 if there is none.",
                status.download_limit.unwrap_or(0),
            ),
            spent,
        ]
    }

    fn resource(&self, path: &str, _: &str) -> Option<String> {
        let parts: Vec<_> = path.split('/').collect();
        Some(match parts[..] {
            ["status"] => web::json(&self.status()),
            ["shares"] => {
                let shares = self.transfers.iter().map(|transfer| transfer.listed()).collect();
                web::json(&Shares { shares, more: false })
            }
            ["shares", infohash] => web::json(&self.share(infohash.parse().ok()?)?),
            _ => return None,
        })
    }
}
