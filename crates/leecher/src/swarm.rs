//! The swarm of one transfer: the shell around [`Scheduler`] and [`PeerBook`].
//!
//! One task owns both and takes in everything that happens: what sessions receive, chunks that were proved,
//! addresses that were found, time. Sessions move bytes, blocking threads prove and write them; the swarm only
//! decides, so it is never long away. All its channels are bounded, and it never waits for a session.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU32},
    time::{Duration, Instant},
};

use proto::{
    ChunkIndex, Endpoint, InfoHash, PeerId,
    peer::{GoodbyeReason, PeerMessage, RejectReason},
};
use rand::rngs::StdRng;
use seeder::{outbox::Outbox, tracker_client::TrackerClient};
use store::{Content, Download, DownloadError, Output, Resumed, StoreChunkError};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    buffers::{BufferPool, ChunkBuffer},
    description::Description,
    error::FetchError,
    event::{FetchEvent, LeaveReason, PeerProgress, PeerShare, Progress, Started},
    peer_book::{Ending, PeerBook},
    scheduler::{Command, PeerKey, Received, Scheduler},
    session::{self, Context, SessionEvent},
    target::{Discovery, discover, resolve_peer},
};

/// Events of sessions that wait for the swarm. A session that finds the queue full waits, and its peer with it.
const EVENT_QUEUE: usize = 256;

/// Answers of trackers that wait for the swarm.
const DISCOVERY_QUEUE: usize = 16;

/// The share's description has to be here within this time, or there is nobody to ask.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(9);

/// Progress is told at this interval.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// The rate that is told is taken over this many intervals.
const RATE_WINDOW: usize = 15;

/// What arrived is made durable at this interval: as much is lost when the process is killed.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// A peer that left though it kept to the protocol is tried again after this time.
const REJOIN_AFTER: Duration = Duration::from_secs(2);

/// A peer that was too slow, or does not have the share, is left alone for this time.
const REST: Duration = Duration::from_secs(60);

/// How long sessions may take to say goodbye.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How a transfer is set up.
#[derive(Debug, Clone)]
pub(crate) struct SwarmConfig {
    pub(crate) infohash: InfoHash,
    /// Peers to connect to without asking a tracker.
    pub(crate) peers: Vec<Endpoint>,
    pub(crate) max_peers: usize,
    /// Give up when nothing arrives for this long.
    pub(crate) stall_timeout: Duration,
}

/// A swarm at work.
pub(crate) struct Swarm<F> {
    config: SwarmConfig,
    on_event: F,
    rng: StdRng,
    book: PeerBook,
    context: Arc<Context>,
    events: mpsc::Receiver<(PeerKey, SessionEvent)>,
    download: watch::Sender<Option<Arc<Download>>>,
    sessions: JoinSet<(PeerKey, SocketAddr, LeaveReason)>,
    /// Every session that was started, joined or not.
    peers: BTreeMap<PeerKey, Peer>,
    last_key: u64,
    discoveries: mpsc::Receiver<Discovery>,
    discovering: JoinSet<()>,
    hungry: watch::Sender<bool>,
    sources: Sources,
    /// What the last peer that failed had to say.
    last_trouble: String,
}

struct Peer {
    address: SocketAddr,
    stop: CancellationToken,
    /// Once the peer joined.
    outbox: Option<Outbox>,
    bytes: u64,
    /// Why the swarm ended the session, if it did.
    verdict: Option<LeaveReason>,
}

/// What became of the first question to every tracker and name.
#[derive(Debug, Default)]
struct Sources {
    asked: usize,
    answered: usize,
    unknown: usize,
    trouble: Option<String>,
}

/// What a transfer did.
pub(crate) struct Transferred {
    pub(crate) wasted: u64,
    pub(crate) peers: Vec<PeerShare>,
}

impl<F: FnMut(FetchEvent)> Swarm<F> {
    /// Starts to look for peers.
    pub(crate) fn new(config: SwarmConfig, trackers: &[TrackerClient], on_event: F) -> Swarm<F> {
        let (events_in, events) = mpsc::channel(EVENT_QUEUE);
        let (found, discoveries) = mpsc::channel(DISCOVERY_QUEUE);
        let (download, download_seen) = watch::channel(None);
        let (hungry, hungry_seen) = watch::channel(true);
        let mut rng: StdRng = rand::make_rng();
        let context = Arc::new(Context {
            infohash: config.infohash,
            peer_id: PeerId::random(&mut rng),
            events: events_in,
            described: watch::channel(None).0,
            download: download_seen,
            buffers: BufferPool::new(),
            describing: AtomicU32::new(0),
        });
        let mut discovering = JoinSet::new();
        for tracker in trackers {
            discovering.spawn(discover(tracker.clone(), config.infohash, found.clone(), hungry_seen.clone()));
        }
        for peer in config.peers.clone() {
            let found = found.clone();
            discovering.spawn(async move { _ = found.send(resolve_peer(peer).await).await });
        }
        Swarm {
            book: PeerBook::new(config.max_peers),
            sources: Sources { asked: discovering.len(), ..Sources::default() },
            config,
            on_event,
            rng,
            context,
            events,
            download,
            sessions: JoinSet::new(),
            peers: BTreeMap::new(),
            last_key: 0,
            discoveries,
            discovering,
            hungry,
            last_trouble: String::from("none answered"),
        }
    }

    /// Waits until a peer has described the share.
    pub(crate) async fn describe(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Arc<Description>, FetchError> {
        let mut described = self.context.described.subscribe();
        let deadline = Instant::now() + DESCRIBE_TIMEOUT;
        loop {
            self.dial();
            if let Some(error) = self.nobody_to_ask() {
                return Err(error);
            }
            let wake = self.book.next_timeout(Instant::now()).map_or(deadline, |at| at.min(deadline));
            tokio::select! {
                described = described.wait_for(Option::is_some) => {
                    if let Ok(Some(description)) = described.as_deref() {
                        return Ok(Arc::clone(description));
                    }
                }
                Some(discovery) = self.discoveries.recv() => self.discovered(discovery),
                Some(ended) = self.sessions.join_next() => { self.session_ended(ended); }
                () = sleep_until(wake.into()) => {
                    if Instant::now() >= deadline {
                        return Err(self.no_peer());
                    }
                }
                () = stop.cancelled() => return Err(FetchError::Interrupted { part: None }),
            }
        }
    }

    /// Prepares the output for the share, proving what an earlier run left.
    pub(crate) async fn open(
        &mut self,
        description: Arc<Description>,
        output: Output,
        stop: &CancellationToken,
    ) -> Result<Arc<Download>, FetchError> {
        let total = description.metainfo.chunk_space().total_len();
        let (proved, mut proving) = watch::channel(0_u64);
        let stopping = stop.clone();
        let part = output.part_path();
        let opening = tokio::task::spawn_blocking(move || {
            let progress = |bytes| {
                proved.send_modify(|done| *done += bytes);
                if stopping.is_cancelled() {
                    std::ops::ControlFlow::Break(())
                } else {
                    std::ops::ControlFlow::Continue(())
                }
            };
            let metainfo = Arc::new(description.metainfo.clone());
            Download::open(metainfo, description.hashes.clone(), output, &progress)
        });
        tokio::pin!(opening);
        let mut tick = interval(PROGRESS_INTERVAL);
        let opened = loop {
            tokio::select! {
                opened = &mut opening => break opened,
                _ = tick.tick() => {
                    let done = *proving.borrow_and_update();
                    if done > 0 {
                        (self.on_event)(FetchEvent::Proving { done, total });
                    }
                }
            }
        };
        let (download, resumed) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(DownloadError::Stopped(_))) => {
                return Err(FetchError::Interrupted { part: Some(part) });
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let download = Arc::new(download);
        (self.on_event)(FetchEvent::Started(started(&download, resumed)));
        self.download.send_replace(Some(Arc::clone(&download)));
        Ok(download)
    }

    /// Fetches what is missing.
    pub(crate) async fn transfer(
        &mut self,
        download: &Arc<Download>,
        stop: &CancellationToken,
    ) -> Result<Transferred, FetchError> {
        let mut transfer = Transfer::new(Arc::clone(download));
        let result = self.run_transfer(&mut transfer, stop).await;
        if let Err(error) = &result {
            // What came is worth keeping, whatever else went wrong.
            tracing::debug!("transfer ends: {error}");
            while transfer.verifying.join_next().await.is_some() {}
            let download = Arc::clone(download);
            let saved = tokio::task::spawn_blocking(move || download.checkpoint()).await;
            tracing::debug!("last checkpoint: {saved:?}");
        }
        result?;
        let mut peers: Vec<_> =
            transfer.shares.into_iter().map(|(address, bytes)| PeerShare { address, bytes }).collect();
        peers.sort_by_key(|share| std::cmp::Reverse(share.bytes));
        Ok(Transferred { wasted: transfer.wasted, peers })
    }

    async fn run_transfer(
        &mut self,
        transfer: &mut Transfer,
        stop: &CancellationToken,
    ) -> Result<(), FetchError> {
        let mut tick = interval(PROGRESS_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut checkpoints = interval(CHECKPOINT_INTERVAL);
        checkpoints.set_missed_tick_behavior(MissedTickBehavior::Delay);
        checkpoints.reset();
        loop {
            let now = Instant::now();
            transfer.scheduler.fill(now, &mut self.rng);
            self.run_commands(&mut transfer.scheduler);
            if transfer.scheduler.is_finished() {
                break;
            }
            self.dial();
            self.check_stall(transfer, now)?;
            let timeouts = [transfer.scheduler.next_timeout(now), self.book.next_timeout(now)];
            let wake = timeouts.into_iter().flatten().min();
            tokio::select! {
                Some((key, event)) = self.events.recv() => self.session_event(transfer, key, event),
                Some(verified) = transfer.verifying.join_next() => match verified {
                    Ok(verified) => self.verified(transfer, verified)?,
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                },
                Some(ended) = self.sessions.join_next() => {
                    if let Some(key) = self.session_ended(ended) {
                        transfer.scheduler.remove_peer(key, Instant::now());
                    }
                }
                Some(discovery) = self.discoveries.recv() => self.discovered(discovery),
                _ = tick.tick() => {
                    let progress = transfer.progress(&self.peers);
                    (self.on_event)(FetchEvent::Progress(progress));
                }
                _ = checkpoints.tick() => transfer.checkpoint(),
                Some(saved) = transfer.saving.join_next() => {
                    saved.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
                }
                () = sleep_until(wake.unwrap_or(now).into()), if wake.is_some() => {}
                () = stop.cancelled() => {
                    let part = Some(transfer.download.output().part_path());
                    return Err(FetchError::Interrupted { part });
                }
            }
        }
        let progress = transfer.progress(&self.peers);
        (self.on_event)(FetchEvent::Progress(progress));
        while let Some(saved) = transfer.saving.join_next().await {
            saved.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        }
        Ok(())
    }

    /// Makes the share durable and gives it its name.
    pub(crate) async fn finish(&mut self, download: &Arc<Download>) -> Result<(), FetchError> {
        (self.on_event)(FetchEvent::Flushing);
        let download = Arc::clone(download);
        match tokio::task::spawn_blocking(move || download.finish()).await {
            Ok(result) => Ok(result?),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Ends every session.
    pub(crate) async fn stop(mut self) {
        self.discovering.shutdown().await;
        self.peers.values().for_each(|peer| peer.stop.cancel());
        let goodbyes = async { while self.sessions.join_next().await.is_some() {} };
        if timeout(STOP_TIMEOUT, goodbyes).await.is_err() {
            self.sessions.shutdown().await;
        }
    }

    fn dial(&mut self) {
        while let Some(address) = self.book.next_dial(Instant::now(), &mut self.rng) {
            self.last_key += 1;
            let (key, stop) = (PeerKey(self.last_key), CancellationToken::new());
            let peer = Peer { address, stop: stop.clone(), outbox: None, bytes: 0, verdict: None };
            self.peers.insert(key, peer);
            let context = Arc::clone(&self.context);
            self.sessions
                .spawn(async move { (key, address, session::run(context, key, address, stop).await) });
        }
    }

    fn discovered(&mut self, discovery: Discovery) {
        // Trackers answer again and again; the first round is what tells whether there is anybody to ask.
        self.sources.answered += 1;
        match discovery {
            Discovery::Peers(addresses) => {
                let now = Instant::now();
                for address in addresses {
                    if self.book.discover(address, now) {
                        tracing::debug!(%address, "found a peer");
                    }
                }
            }
            Discovery::Unknown => self.sources.unknown += 1,
            Discovery::Trouble(trouble) => {
                tracing::debug!("{trouble}");
                if self.sources.trouble.is_none() {
                    (self.on_event)(FetchEvent::TrackerTrouble(trouble.clone()));
                }
                self.sources.trouble = Some(trouble);
            }
        }
    }

    /// The reason to give up before anything began: everybody was asked who has the share, and nobody does.
    fn nobody_to_ask(&self) -> Option<FetchError> {
        let Sources { asked, answered, unknown, trouble } = &self.sources;
        if answered < asked || !self.book.is_empty() {
            return None;
        }
        Some(match trouble {
            Some(trouble) if *unknown == 0 => FetchError::NoTracker(trouble.clone()),
            _ => FetchError::UnknownShare(self.config.infohash),
        })
    }

    fn no_peer(&self) -> FetchError {
        if self.book.is_empty() {
            let trouble = self.sources.trouble.clone();
            return FetchError::NoTracker(trouble.unwrap_or_else(|| self.last_trouble.clone()));
        }
        if self.book.is_all_banned() {
            return FetchError::OnlyLiars;
        }
        FetchError::NoPeer { known: self.book.len(), last: self.last_trouble.clone() }
    }

    fn session_event(&mut self, transfer: &mut Transfer, key: PeerKey, event: SessionEvent) {
        let now = Instant::now();
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.verdict.is_some() {
            return;
        }
        match event {
            SessionEvent::Joined { have, outbox } => {
                self.book.connected(peer.address);
                peer.outbox = Some(outbox);
                let seeder = have == crate::scheduler::Have::All;
                (self.on_event)(FetchEvent::PeerJoined { address: peer.address, seeder });
                transfer.scheduler.add_peer(key, have, now);
                self.hungry.send_replace(false);
            }
            SessionEvent::Have(chunk) => {
                if !transfer.scheduler.add_have(key, chunk) {
                    let why = format!("has chunk {}, which is not there", chunk.0);
                    self.end(&mut transfer.scheduler, key, LeaveReason::Protocol(why));
                }
            }
            SessionEvent::Progress => {
                transfer.last_arrival = now;
                transfer.scheduler.progressed(key, now);
            }
            SessionEvent::Chunk(chunk, buffer) => {
                transfer.last_arrival = now;
                match transfer.scheduler.received(key, chunk, now) {
                    Received::Verify => transfer.verify(key, chunk, buffer),
                    Received::Duplicate => transfer.wasted += buffer.len() as u64,
                    Received::Unrequested => {
                        let why = format!("sent chunk {} unasked", chunk.0);
                        self.end(&mut transfer.scheduler, key, LeaveReason::Protocol(why));
                    }
                }
            }
            SessionEvent::Reject(chunk, RejectReason::NotHave) => transfer.scheduler.not_have(key, chunk),
            SessionEvent::Reject(chunk, RejectReason::Busy { retry_after_ms }) => {
                let wait = Duration::from_millis(retry_after_ms.into()).min(REST);
                transfer.scheduler.busy(key, chunk, now + wait);
            }
            SessionEvent::Reject(_, RejectReason::Gone) => {
                self.end(&mut transfer.scheduler, key, LeaveReason::Gone);
            }
        }
    }

    fn verified(&mut self, transfer: &mut Transfer, verified: Verified) -> Result<(), FetchError> {
        let Verified { key, chunk, len, result } = verified;
        let address = self.peers.get(&key).map(|peer| peer.address);
        match result {
            Ok(()) => {
                transfer.scheduler.stored(chunk);
                transfer.done += u64::from(len);
                if let Some(address) = address.or_else(|| transfer.gone.get(&key).copied()) {
                    *transfer.shares.entry(address).or_default() += u64::from(len);
                }
                if let Some(peer) = self.peers.get_mut(&key) {
                    peer.bytes += u64::from(len);
                }
                Ok(())
            }
            Err(StoreChunkError::Wrong(_)) => {
                tracing::warn!(peer = ?address, chunk = chunk.0, "a peer sent a wrong chunk");
                transfer.wasted += u64::from(len);
                self.end(&mut transfer.scheduler, key, LeaveReason::Lied);
                transfer.scheduler.wrong(chunk);
                Ok(())
            }
            Err(StoreChunkError::Path(error)) => Err(error.into()),
        }
    }

    /// Ends a session for a reason that the swarm found.
    fn end(&mut self, scheduler: &mut Scheduler, key: PeerKey, reason: LeaveReason) {
        scheduler.remove_peer(key, Instant::now());
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let goodbye =
            if reason == LeaveReason::Lied { GoodbyeReason::Banned } else { GoodbyeReason::Protocol };
        if let Some(outbox) = &peer.outbox {
            outbox.close(goodbye);
        }
        peer.verdict = Some(reason);
        peer.stop.cancel();
    }

    /// Takes note that a session is over, and says which.
    fn session_ended(
        &mut self,
        ended: Result<(PeerKey, SocketAddr, LeaveReason), tokio::task::JoinError>,
    ) -> Option<PeerKey> {
        let (key, address, reason) = match ended {
            Ok(ended) => ended,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let peer = self.peers.remove(&key);
        let joined = peer.as_ref().is_some_and(|peer| peer.outbox.is_some());
        let reason = peer.and_then(|peer| peer.verdict).unwrap_or(reason);
        self.book.ended(address, ending(&reason), Instant::now(), &mut self.rng);
        tracing::debug!(%address, joined, "session over: {reason}");
        if joined || reason == LeaveReason::Lied {
            (self.on_event)(FetchEvent::PeerLeft { address, reason: reason.clone() });
        }
        self.last_trouble = format!("{address}: {reason}");
        if !self.peers.values().any(|peer| peer.outbox.is_some()) {
            self.hungry.send_replace(true);
        }
        Some(key)
    }

    fn run_commands(&mut self, scheduler: &mut Scheduler) {
        while let Some(command) = scheduler.poll_command() {
            let (key, message) = match command {
                Command::Request(key, chunk) => (key, PeerMessage::Request { chunk }),
                Command::Cancel(key, chunk) => (key, PeerMessage::Cancel { chunk }),
                Command::Drop(key) => {
                    self.end(scheduler, key, LeaveReason::TooSlow);
                    continue;
                }
            };
            let outbox = self.peers.get(&key).and_then(|peer| peer.outbox.as_ref());
            if outbox.is_some_and(|outbox| outbox.message(message).is_err()) {
                self.end(scheduler, key, LeaveReason::TooSlow);
            }
        }
    }

    fn check_stall(&self, transfer: &Transfer, now: Instant) -> Result<(), FetchError> {
        let after = self.config.stall_timeout;
        if self.book.is_all_banned()
            && transfer.verifying.is_empty()
            && self.sources.asked <= self.config.peers.len()
        {
            return Err(FetchError::OnlyLiars);
        }
        if now.saturating_duration_since(transfer.last_arrival) < after {
            return Ok(());
        }
        if self.book.is_all_banned() {
            return Err(FetchError::OnlyLiars);
        }
        let last = self.last_trouble.clone();
        Err(FetchError::Stalled { after, done: transfer.done, total: transfer.total(), last })
    }
}

/// When a peer that left for this reason may be dialled again.
fn ending(reason: &LeaveReason) -> Ending {
    match reason {
        LeaveReason::Lied | LeaveReason::Itself => Ending::Never,
        LeaveReason::Goodbye(GoodbyeReason::TooManyPeers { retry_after_ms }) => {
            Ending::RetryAfter(Duration::from_millis((*retry_after_ms).into()).min(REST))
        }
        LeaveReason::Goodbye(GoodbyeReason::UnknownShare)
        | LeaveReason::Gone
        | LeaveReason::TooSlow
        | LeaveReason::Protocol(_) => Ending::RetryAfter(REST),
        LeaveReason::Goodbye(_) => Ending::RetryAfter(REJOIN_AFTER),
        LeaveReason::Unreachable(_) | LeaveReason::Disconnected | LeaveReason::Finished => Ending::Failed,
    }
}

fn started(download: &Download, resumed: Resumed) -> Started {
    let metainfo = download.metainfo();
    let space = metainfo.chunk_space();
    Started {
        infohash: metainfo.infohash(),
        name: metainfo.name().clone(),
        size: space.total_len(),
        chunks: space.chunk_count(),
        resumed: bytes_in(download),
        lost_chunks: resumed.lost,
        output: PathBuf::from(download.output().path()),
    }
}

fn bytes_in(download: &Download) -> u64 {
    let space = download.metainfo().chunk_space();
    download.have().iter().filter_map(|chunk| space.span(chunk)).map(|span| u64::from(span.len)).sum()
}

/// The state of a transfer beside its peers.
struct Transfer {
    download: Arc<Download>,
    scheduler: Scheduler,
    verifying: JoinSet<Verified>,
    saving: JoinSet<Result<(), DownloadError>>,
    /// Bytes that are here.
    done: u64,
    wasted: u64,
    last_arrival: Instant,
    /// Proved bytes from each address, over all its sessions.
    shares: BTreeMap<SocketAddr, u64>,
    /// Addresses of peers that left with a chunk still being proved.
    gone: BTreeMap<PeerKey, SocketAddr>,
    /// When progress was told last, and how much there was.
    told: VecDeque<(Instant, u64)>,
}

/// A chunk that was hashed and, if it was right, written.
struct Verified {
    key: PeerKey,
    chunk: ChunkIndex,
    len: u32,
    result: Result<(), StoreChunkError>,
}

impl Transfer {
    fn new(download: Arc<Download>) -> Transfer {
        let scheduler = Scheduler::new(download.metainfo().chunk_space().clone(), &download.have());
        Transfer {
            done: bytes_in(&download),
            download,
            scheduler,
            verifying: JoinSet::new(),
            saving: JoinSet::new(),
            wasted: 0,
            last_arrival: Instant::now(),
            shares: BTreeMap::new(),
            gone: BTreeMap::new(),
            told: VecDeque::new(),
        }
    }

    fn total(&self) -> u64 {
        self.download.metainfo().chunk_space().total_len()
    }

    fn verify(&mut self, key: PeerKey, chunk: ChunkIndex, buffer: ChunkBuffer) {
        let download = Arc::clone(&self.download);
        self.verifying.spawn_blocking(move || {
            let result = download.store(chunk, &buffer);
            // A chunk has at most CHUNK_LEN bytes.
            let len = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            Verified { key, chunk, len, result }
        });
    }

    /// Makes what came durable, unless that is under way already.
    fn checkpoint(&mut self) {
        if self.saving.is_empty() {
            let download = Arc::clone(&self.download);
            self.saving.spawn_blocking(move || download.checkpoint());
        }
    }

    fn progress(&mut self, peers: &BTreeMap<PeerKey, Peer>) -> Progress {
        let now = Instant::now();
        self.told.push_back((now, self.done));
        if self.told.len() > RATE_WINDOW {
            self.told.pop_front();
        }
        let rate = self.told.front().map_or(0.0, |&(then, done)| {
            (self.done - done) as f64 / now.saturating_duration_since(then).as_secs_f64().max(1e-3)
        });
        let peers = peers.iter().filter(|(_, peer)| peer.outbox.is_some()).map(|(&key, peer)| PeerProgress {
            address: peer.address,
            bytes: peer.bytes,
            rate: to_u64(self.scheduler.rate(key).unwrap_or(0.0)),
        });
        Progress { done: self.done, total: self.total(), rate: to_u64(rate), peers: peers.collect() }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are not negative; `as` saturates"
)]
fn to_u64(rate: f64) -> u64 {
    rate as u64
}
