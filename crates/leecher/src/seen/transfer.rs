//! A transfer as it is shown over HTTP.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use leecher::{FetchEvent, Fetched, PeerPicture, Progress, Spent, Started, View};
use peer::upload_hub::Receiver;
use proto::InfoHash;
use serde::Serialize;
use startup::{Served, json};
use tokio_util::sync::CancellationToken;
use web::{Meter, ServedPeer};

/// A transfer that can be looked at.
pub(crate) struct SeenTransfer {
    target: String,
    /// Ends the transfer.
    stop: CancellationToken,
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
pub(super) enum Phase {
    #[default]
    Waiting,
    Fetching,
    Saving,
    Done,
    Failed,
}

pub(super) const PHASES: [Phase; 5] =
    [Phase::Waiting, Phase::Fetching, Phase::Saving, Phase::Done, Phase::Failed];

/// What only grows, of transfers together.
#[derive(Clone, Default)]
pub(super) struct Totals {
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) wasted: u64,
    pub(super) wrong: u64,
    pub(super) spent: BTreeMap<&'static str, Duration>,
}

#[derive(Serialize)]
pub(super) struct Listed {
    /// `None` until the share is known.
    infohash: Option<String>,
    name: String,
    size: u64,
    state: &'static str,
    message: Option<String>,
    done: u64,
    rate: u64,
    pub(super) peers: usize,
    sent: u64,
}

#[derive(Serialize)]
pub(super) struct Share {
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
    receivers: Vec<ServedPeer>,
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

impl Phase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Fetching => "fetching",
            Phase::Saving => "saving",
            Phase::Done => "done",
            Phase::Failed => "failed",
        }
    }
}

impl SeenTransfer {
    /// A transfer of what somebody asks for, which cancelling `stop` ends.
    pub(super) fn new(target: String, stop: CancellationToken) -> SeenTransfer {
        SeenTransfer { target, stop, view: View::default(), state: Mutex::default() }
    }

    /// What somebody asked for.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// The share, once it is known.
    pub(super) fn infohash(&self) -> Option<InfoHash> {
        self.state().infohash()
    }

    /// What it does, and bytes of the share in all and here.
    pub(super) fn standing(&self) -> (Phase, u64, u64) {
        let state = self.state();
        (state.phase, state.progress.total, state.progress.done)
    }

    /// Stops the transfer when it is cancelled.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Adds what the transfer has counted so far.
    pub(super) fn add_to(&self, totals: &mut Totals) {
        let (picture, sent) = (self.view.picture(), self.view.bytes_sent());
        let state = self.state();
        totals.received += state.received();
        totals.sent += sent;
        totals.wasted += state.progress.wasted;
        totals.wrong += state.progress.wrong_chunks;
        for &(on, time) in state.spent(picture.as_ref().map(|picture| &picture.spent[..])) {
            *totals.spent.entry(name(on)).or_default() += time;
        }
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

    pub(super) fn listed(&self) -> Listed {
        let sent = self.view.bytes_sent();
        self.state().listed(&self.target, sent, self.view.receivers().len())
    }

    pub(super) fn share(&self) -> Share {
        let (picture, receivers, sent) = (self.view.picture(), self.view.receivers(), self.view.bytes_sent());
        let (now, mut state) = (Instant::now(), self.state());
        let listed = state.listed(&self.target, sent, receivers.len());
        state.meter.keep(|address| receivers.iter().any(|receiver| receiver.address == *address));
        let upload_rate = state.whole.rate((), sent, now);
        let receivers =
            receivers.into_iter().map(|Receiver { address, sent, is_waiting, is_served, given }| {
                let rate = state.meter.rate(address, sent, now);
                ServedPeer { address, sent, rate, waiting: is_waiting, served: is_served, given }
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
