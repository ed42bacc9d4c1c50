//! What a leecher shows over HTTP, and what can be changed there. docs/http.md describes it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use leecher::{FetchEvent, Fetched, PeerPicture, Progress, Spent, Started, Target, View};
use peer::{rate_limit::RateLimit, upload_hub::Receiver};
use proto::InfoHash;
use serde::{Deserialize, Serialize};
use startup::{Served, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use web::{Meter, Metric, Refusal, Setting, Source, machine_name, read_body};

use crate::cli::parse_target;

/// Transfers at a time, if some are added over HTTP. Each has a task, and files.
const MAX_TRANSFERS: usize = 1_000;

/// Orders that wait at most. They are taken at once.
pub(crate) const MAX_ORDERS: usize = 16;

/// A leecher that can be looked at and changed.
pub(crate) struct Seen {
    listens: Option<SocketAddr>,
    max_peers: usize,
    upload_limit: RateLimit,
    download_limit: RateLimit,
    /// Where what is added goes; `None` if nothing can be added.
    orders: Option<mpsc::Sender<Order>>,
    /// Stops the program.
    shutdown: CancellationToken,
    started: Instant,
    list: Mutex<List>,
}

/// Somebody asks for a transfer over HTTP.
pub(crate) struct Order {
    pub(crate) target: Target,
    pub(crate) seen: Arc<SeenTransfer>,
}

#[derive(Default)]
struct List {
    transfers: Vec<Arc<SeenTransfer>>,
    /// Counts of those that were removed.
    before: Totals,
}

/// What only grows, of transfers together.
#[derive(Clone, Default)]
struct Totals {
    received: u64,
    sent: u64,
    wasted: u64,
    wrong: u64,
    spent: BTreeMap<&'static str, Duration>,
}

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

#[derive(Serialize)]
struct Limits {
    upload_limit: Option<u64>,
    download_limit: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLimits {
    #[serde(default)]
    upload_limit: Setting,
    #[serde(default)]
    download_limit: Setting,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToAdd {
    target: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToRemove {
    share: String,
}

impl Seen {
    pub(crate) fn new(
        listens: Option<SocketAddr>,
        max_peers: usize,
        (upload_limit, download_limit): (RateLimit, RateLimit),
        orders: Option<mpsc::Sender<Order>>,
        shutdown: CancellationToken,
    ) -> Seen {
        let (started, list) = (Instant::now(), Mutex::default());
        Seen { listens, max_peers, upload_limit, download_limit, orders, shutdown, started, list }
    }

    /// A transfer of what somebody asks for begins.
    pub(crate) fn begin(&self, target: String) -> Arc<SeenTransfer> {
        let transfer = Arc::new(SeenTransfer {
            target,
            stop: self.shutdown.child_token(),
            view: View::default(),
            state: Mutex::default(),
        });
        self.list().transfers.push(Arc::clone(&transfer));
        transfer
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All transfers, and the counts of those that were removed.
    fn all(&self) -> (Vec<Arc<SeenTransfer>>, Totals) {
        let list = self.list();
        (list.transfers.clone(), list.before.clone())
    }

    fn status(&self) -> Status {
        let (transfers, mut totals) = self.all();
        let listed: Vec<_> = transfers.iter().map(|transfer| transfer.listed()).collect();
        transfers.iter().for_each(|transfer| transfer.add_to(&mut totals));
        Status {
            role: "leecher",
            version: env!("CARGO_PKG_VERSION"),
            machine: machine_name(),
            uptime_s: self.started.elapsed().as_secs(),
            listens: self.listens,
            shares: listed.len(),
            peers: listed.iter().map(|share| share.peers).sum(),
            max_peers: self.max_peers,
            received: totals.received,
            sent: totals.sent,
            upload_limit: self.upload_limit.per_second(),
            download_limit: self.download_limit.per_second(),
        }
    }

    fn share(&self, infohash: InfoHash) -> Option<Share> {
        let (transfers, _) = self.all();
        transfers.iter().find(|transfer| transfer.state().infohash() == Some(infohash)).map(|it| it.share())
    }

    fn limits(&self) -> Limits {
        Limits {
            upload_limit: self.upload_limit.per_second(),
            download_limit: self.download_limit.per_second(),
        }
    }

    fn set_limits(&self, NewLimits { upload_limit, download_limit }: NewLimits) -> Result<Limits, Refusal> {
        let read = |limit: Setting| limit.read(RateLimit::unlimited(), RateLimit::parse);
        // Both are read before the first is changed.
        let (upload_limit, download_limit) = (read(upload_limit)?, read(download_limit)?);
        if let Some(limit) = upload_limit {
            self.upload_limit.set(&limit);
        }
        if let Some(limit) = download_limit {
            self.download_limit.set(&limit);
        }
        Ok(self.limits())
    }

    fn add(&self, ToAdd { target }: ToAdd) -> Result<Listed, Refusal> {
        let conflict = |why: &str| Refusal::Conflict(why.to_owned());
        let Some(orders) = &self.orders else { return Err(conflict("this leecher fetches nothing")) };
        let target: Target = parse_target(&target).map_err(Refusal::Malformed)?;
        let name = target.to_string();
        let (transfers, _) = self.all();
        if transfers.len() >= MAX_TRANSFERS {
            return Err(conflict("there are too many transfers; remove some"));
        }
        if transfers.iter().any(|transfer| transfer.target == name) {
            return Err(conflict("this is being fetched already"));
        }
        // Room first, so that what is in the list is being fetched.
        let order = orders
            .try_reserve()
            .map_err(|_| conflict("the leecher is about to end, or has too much to do"))?;
        let seen = self.begin(name);
        let listed = seen.listed();
        order.send(Order { target, seen });
        Ok(listed)
    }

    /// Ends a transfer and forgets it. What has arrived stays.
    fn remove(&self, share: &str) -> Result<(), Refusal> {
        let infohash: Option<InfoHash> = share.parse().ok();
        let is_it = |transfer: &Arc<SeenTransfer>| {
            transfer.target == share || infohash.is_some() && transfer.state().infohash() == infohash
        };
        let mut list = self.list();
        let at = list.transfers.iter().position(is_it);
        let at = at.ok_or_else(|| Refusal::Unknown("this is not fetched here".to_owned()))?;
        let transfer = list.transfers.remove(at);
        transfer.add_to(&mut list.before);
        transfer.stop.cancel();
        Ok(())
    }
}

impl SeenTransfer {
    /// Stops the transfer when it is cancelled.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Adds what the transfer has counted so far.
    fn add_to(&self, totals: &mut Totals) {
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
        let (transfers, mut totals) = self.all();
        let (mut size, mut done) = (0, 0);
        for transfer in &transfers {
            transfer.add_to(&mut totals);
            let state = transfer.state();
            phases
                .iter_mut()
                .filter(|(name, _)| *name == state.phase.name())
                .for_each(|(_, count)| *count += 1);
            size += state.progress.total;
            done += state.progress.done;
        }
        let Totals { received, sent, wasted, wrong, spent: times } = totals;
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
                received,
            ),
            Metric::counter(
                "shoal_leecher_wasted_bytes",
                "Bytes of chunks that came and were not needed.",
                wasted,
            ),
            Metric::counter("shoal_leecher_sent_bytes", "Bytes of chunks that were sent to others.", sent),
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
            ["limits"] => web::json(&self.limits()),
            ["shares"] => {
                let (transfers, _) = self.all();
                let shares = transfers.iter().map(|transfer| transfer.listed()).collect();
                web::json(&Shares { shares, more: false })
            }
            ["shares", infohash] => web::json(&self.share(infohash.parse().ok()?)?),
            _ => return None,
        })
    }

    fn change(&self, path: &str, body: &[u8]) -> Result<String, Refusal> {
        match path {
            "limits" => Ok(web::json(&self.set_limits(read_body(body)?)?)),
            "shares" => Ok(web::json(&self.add(read_body(body)?)?)),
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
