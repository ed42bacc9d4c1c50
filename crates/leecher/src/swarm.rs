//! The swarm of one transfer: the shell around [`scheduler`](::swarm::scheduler) and [`peer_book`](::swarm::peer_book).
//!
//! One task owns both and takes in everything that happens: what sessions receive, chunks that were proved,
//! addresses that were found, time. Sessions move bytes, blocking threads prove and write them; the swarm only
//! decides, so it is never long away. All its channels are bounded, and it never waits for a session.

mod door;
mod peers;
mod preparing;
mod sources;
mod transfer;

use std::{
    sync::{Arc, OnceLock, atomic::AtomicU16},
    time::{Duration, Instant},
};

use peer::{rate_limit::RateLimit, tracker_client::TrackerClient};
use proto::{
    Endpoint, InfoHash, PeerId,
    peer::{PeerMessage, RejectReason},
    tracker::Progress as ShareProgress,
};
use rand::rngs::StdRng;
use store::{Content, Download, DownloadError, StoreChunkError};
use swarm::{
    account::Account,
    scheduler::{Command, Have, PeerKey, Received, Scheduler},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    buffers::BufferPool,
    clock::RunClock,
    description::Known,
    error::FetchError,
    event::{FetchEvent, Fetched, LeaveReason},
    fetch::Stay,
    joined,
    session::{Context, SessionEvent},
    target::{Discovery, SourceId, discover, resolve_peer},
};
use door::Door;
use peers::{Joining, Peers};
use sources::Sources;
use transfer::{Arrived, Phase, Transfer, Verified};

/// Events of sessions that wait for the swarm. A session that finds the queue full waits, and its peer with it.
const EVENT_QUEUE: usize = 256;

/// Answers of trackers that wait for the swarm.
const DISCOVERY_QUEUE: usize = 16;

/// Progress is told at this interval.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// What arrived is made durable at this interval: as much is lost when the process is killed.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// Most time that a finished leecher stays because others need what only it has.
const MAX_LINGER: Duration = Duration::from_secs(60);

/// How long trackers may take to hear that this peer is gone.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(2);

/// How a transfer is set up.
pub(crate) struct SwarmConfig {
    pub(crate) infohash: InfoHash,
    pub(crate) trackers: Vec<TrackerClient>,
    /// Peers to connect to without asking a tracker.
    pub(crate) peers: Vec<Endpoint>,
    /// Where others connect to this peer, if it serves.
    pub(crate) listener: Option<TcpListener>,
    pub(crate) max_peers: usize,
    /// Give up when nothing arrives for this long.
    pub(crate) stall_timeout: Duration,
    /// Wait for this long, if it is longer, until somebody has the share.
    pub(crate) wait: Duration,
    pub(crate) upload_limit: RateLimit,
    pub(crate) download_limit: RateLimit,
    /// What to do when everything is here.
    pub(crate) stay: Stay,
    /// When the user asked for the share.
    pub(crate) begun: Instant,
}

/// A swarm at work.
pub(crate) struct Swarm<F> {
    config: SwarmConfig,
    on_event: F,
    rng: StdRng,
    /// What deadlines are compared with.
    clock: RunClock,
    context: Arc<Context>,
    peers: Peers,
    door: Door,
    events: mpsc::Receiver<(PeerKey, SessionEvent)>,
    download: watch::Sender<Option<Arc<Download>>>,
    discoveries: mpsc::Receiver<(SourceId, Discovery)>,
    /// Lookups, and the upload hub.
    background: JoinSet<()>,
    announcers: TaskTracker,
    stop_announcing: CancellationToken,
    progress: watch::Sender<ShareProgress>,
    hungry: watch::Sender<bool>,
    /// Why part of what is here cannot be served to others; known once it is served.
    fault: Option<watch::Receiver<Option<String>>>,
    sources: Sources,
}

impl<F: FnMut(FetchEvent)> Swarm<F> {
    /// Starts to look for peers.
    pub(crate) fn new(mut config: SwarmConfig, on_event: F) -> Swarm<F> {
        let (events_in, events) = mpsc::channel(EVENT_QUEUE);
        let (found, discoveries) = mpsc::channel(DISCOVERY_QUEUE);
        let (download, download_seen) = watch::channel(None);
        let (hungry, hungry_seen) = watch::channel(true);
        let listen_port =
            config.listener.as_ref().and_then(|l| l.local_addr().ok()).map_or(0, |address| address.port());
        let context = Arc::new(Context {
            infohash: config.infohash,
            peer_id: PeerId::random(&mut rand::rng()),
            events: events_in,
            known: watch::Sender::new(Known::Nothing),
            download: download_seen,
            buffers: BufferPool::new(),
            listen_port: AtomicU16::new(listen_port),
            serving: OnceLock::new(),
            upload_limit: config.upload_limit.clone(),
            download_limit: config.download_limit.clone(),
        });
        let mut background = JoinSet::new();
        for tracker in &config.trackers {
            let (id, tracker, found) = (SourceId(background.len()), tracker.clone(), found.clone());
            background.spawn(discover(id, tracker, config.infohash, found, hungry_seen.clone()));
        }
        for peer in config.peers.clone() {
            let (id, found) = (SourceId(background.len()), found.clone());
            background.spawn(resolve_peer(id, peer, found));
        }
        Swarm {
            sources: Sources::new(background.len()),
            peers: Peers::new(Arc::clone(&context), config.max_peers),
            door: Door::new(config.listener.take()),
            config,
            clock: RunClock::new(Instant::now()),
            on_event,
            rng: rand::make_rng(),
            context,
            events,
            download,
            discoveries,
            background,
            announcers: TaskTracker::new(),
            stop_announcing: CancellationToken::new(),
            progress: watch::channel(ShareProgress::of(0, 1)).0,
            hungry,
            fault: None,
        }
    }

    /// Fetches what is missing, gives the share its name, and stays for as long as it was asked to.
    pub(crate) async fn run(
        &mut self,
        download: &Arc<Download>,
        stop: &CancellationToken,
    ) -> Result<Fetched, FetchError> {
        let account = Account::new(self.config.begun);
        let mut transfer = Transfer::new(Arc::clone(download), account, self.clock.now());
        let result = self.run_transfer(&mut transfer, stop).await;
        if let Err(error) = &result {
            // What came is worth keeping, whatever else went wrong.
            tracing::debug!("transfer ends: {error}");
            while let Some(verified) = transfer.verifying.join_next().await {
                // Small chunks may wait for those before them.
                transfer.dealt_with(&joined(verified));
            }
            let download = Arc::clone(download);
            let saved = joined(tokio::task::spawn_blocking(move || download.checkpoint()).await);
            if let Err(unsaved) = &saved {
                tracing::debug!("what arrived last is not saved: {unsaved}");
            }
            if let Err(unsaved) = saved
                && !matches!(error, FetchError::Download(_))
            {
                (self.on_event)(FetchEvent::Unsaved(unsaved.to_string()));
            }
        }
        let mut fetched = result?;
        fetched.uploaded = self.bytes_uploaded();
        Ok(fetched)
    }

    async fn run_transfer(
        &mut self,
        transfer: &mut Transfer,
        stop: &CancellationToken,
    ) -> Result<Fetched, FetchError> {
        let mut fetched = None;
        let mut events = Vec::with_capacity(EVENT_QUEUE);
        let mut tick = interval(PROGRESS_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut checkpoints = interval(CHECKPOINT_INTERVAL);
        checkpoints.set_missed_tick_behavior(MissedTickBehavior::Delay);
        checkpoints.reset();
        loop {
            let now = self.clock.now();
            if transfer.phase == Phase::Fetching {
                transfer.scheduler.fill(now, &mut self.rng);
                self.run_commands(&mut transfer.scheduler);
                if transfer.scheduler.is_finished() {
                    self.all_arrived(transfer);
                } else {
                    self.check_stall(transfer, now)?;
                }
            }
            let spoilt = self.check_fault(transfer);
            if let Some(fetched) = &fetched
                && (spoilt || self.may_leave(transfer, fetched, now))
            {
                break;
            }
            if transfer.phase == Phase::Fetching {
                // Whoever wants something of a finished peer finds it.
                self.peers.dial(now, &mut self.rng);
            }
            transfer.book(&self.peers, self.config.download_limit.is_waited_for(), Instant::now());
            let timeouts = [transfer.scheduler.next_timeout(now), self.peers.book.next_timeout(now)];
            let wake = timeouts.into_iter().flatten().min();
            tokio::select! {
                // What a session received comes before word that it ended, or its last chunk would be lost.
                biased;
                () = stop.cancelled() => match fetched.take() {
                    Some(fetched) => return Ok(fetched),
                    // A moment more, and it is whole.
                    None if transfer.phase == Phase::Flushing => {
                        while let Some(finished) = transfer.finishing.join_next().await {
                            joined(finished)?;
                        }
                        return Ok(self.finished(transfer));
                    }
                    None => {
                        let part = Some(transfer.download.output().part_path());
                        return Err(FetchError::Interrupted { part });
                    }
                },
                _ = tick.tick() => {
                    if transfer.phase == Phase::Fetching {
                        self.leave_changed(&mut transfer.scheduler);
                        self.tell_progress(&transfer.download);
                        let progress = transfer.progress(&self.peers);
                        (self.on_event)(FetchEvent::Progress(progress));
                    }
                }
                _ = checkpoints.tick(), if transfer.phase == Phase::Fetching => transfer.checkpoint(),
                _ = self.events.recv_many(&mut events, EVENT_QUEUE) => {
                    for (key, event) in events.drain(..) {
                        self.session_event(transfer, key, event);
                    }
                }
                Some(verified) = transfer.verifying.join_next() => {
                    let verified = joined(verified);
                    transfer.dealt_with(&verified);
                    for verified in verified {
                        self.verified(transfer, verified)?;
                    }
                }
                Some(ended) = self.peers.next_ended() => {
                    if let Some(key) = self.session_ended(ended) {
                        transfer.scheduler.remove_peer(key, self.clock.now());
                    }
                }
                accepted = self.door.accept() => match accepted {
                    Ok((stream, address)) => self.peers.accept(stream, address),
                    Err(error) => tracing::debug!("cannot accept a connection: {error}"),
                },
                Some((id, discovery)) = self.discoveries.recv() => {
                    self.sources.heard(id, discovery, &mut self.peers, now);
                }
                Some(saved) = transfer.saving.join_next() => self.saved(transfer, joined(saved))?,
                Some(finished) = transfer.finishing.join_next() => {
                    joined(finished)?;
                    fetched = Some(self.finished(transfer));
                }
                () = sleep_until(self.clock.on_system(wake.unwrap_or(now)).into()),
                    if wake.is_some() && transfer.phase == Phase::Fetching => {}
            }
        }
        // The loop ends only by a transfer that is finished.
        Ok(fetched.unwrap_or_else(|| self.finished(transfer)))
    }

    /// The last chunk is stored.
    fn all_arrived(&mut self, transfer: &mut Transfer) {
        let progress = transfer.progress(&self.peers);
        (self.on_event)(FetchEvent::Progress(progress));
        (self.on_event)(FetchEvent::Flushing);
        // Others have the seeders too.
        transfer.is_spread = transfer.scheduler.knows_seeder();
        self.peers.dismiss_seeders();
        self.tell_progress(&transfer.download);
        transfer.finish();
    }

    /// A checkpoint is over. The transfer goes on if only its claim could not be written.
    fn saved(&mut self, transfer: &mut Transfer, saved: Result<(), DownloadError>) -> Result<(), FetchError> {
        let was_unsaved = std::mem::replace(&mut transfer.is_unsaved, saved.is_err());
        match saved {
            Err(error @ DownloadError::NotClaimed(_)) if !was_unsaved => {
                (self.on_event)(FetchEvent::Unsaved(error.to_string()));
            }
            Err(DownloadError::NotClaimed(_)) => {}
            saved => saved?,
        }
        Ok(())
    }

    /// The share has its name.
    fn finished(&mut self, transfer: &mut Transfer) -> Fetched {
        let now = Instant::now();
        let metainfo = transfer.download.metainfo();
        let fetched = Fetched {
            infohash: metainfo.infohash(),
            name: metainfo.name().clone(),
            path: transfer.download.output().path().to_owned(),
            size: transfer.total(),
            wasted: transfer.wasted,
            uploaded: self.bytes_uploaded(),
            elapsed: now - self.config.begun,
            peers: transfer.shares(),
            spent: transfer.spent(now),
        };
        transfer.phase = Phase::Staying(self.clock.now());
        (self.on_event)(FetchEvent::Finished(fetched.clone()));
        fetched
    }

    /// Says it when part of what is here cannot be served any more. True if that ends the stay: the finished share is
    /// not what it was, so nobody should be told that it is here.
    fn check_fault(&mut self, transfer: &Transfer) -> bool {
        let Some(fault) = self.fault.as_mut().filter(|fault| fault.has_changed().unwrap_or(false)) else {
            return false;
        };
        let why = fault.borrow_and_update().clone();
        if let Some(why) = why {
            (self.on_event)(FetchEvent::CannotServe(format!("part of what is here cannot be served: {why}")));
        }
        matches!(transfer.phase, Phase::Staying(_))
    }

    /// Whether a finished transfer has served for as long as it should.
    fn may_leave(&self, transfer: &Transfer, fetched: &Fetched, now: Instant) -> bool {
        let Phase::Staying(since) = transfer.phase else { return false };
        let stayed = now.saturating_duration_since(since);
        if self.door.port().is_none() {
            return true;
        }
        match self.config.stay {
            Stay::Forever => false,
            Stay::For(time) => stayed >= time,
            Stay::Ratio(ratio) => self.bytes_uploaded() as f64 >= ratio * fetched.size as f64,
            Stay::WhileNeeded => {
                transfer.is_spread || stayed >= MAX_LINGER || !transfer.scheduler.is_needed()
            }
        }
    }

    /// Ends everything. Afterwards no task of the swarm is left.
    pub(crate) async fn stop(mut self) {
        self.stop_announcing.cancel();
        self.announcers.close();
        self.peers.stop().await;
        if timeout(DEREGISTER_TIMEOUT, self.announcers.wait()).await.is_err() {
            tracing::debug!("a tracker did not hear the goodbye");
        }
        self.background.shutdown().await;
    }

    fn bytes_uploaded(&self) -> u64 {
        self.context.serving.get().map_or(0, |serving| serving.uploads.bytes_sent())
    }

    /// Lets the announcers know how much is here.
    fn tell_progress(&self, download: &Download) {
        let have = download.have();
        self.progress.send_replace(ShareProgress::of(have.count(), have.len()));
    }

    fn session_event(&mut self, transfer: &mut Transfer, key: PeerKey, event: SessionEvent) {
        let now = self.clock.now();
        let Some(address) = self.peers.address(key).filter(|_| self.peers.is_welcome(key)) else { return };
        let scheduler = &mut transfer.scheduler;
        scheduler.alive(key, now);
        match event {
            SessionEvent::Joined { hello, have, outbox } => {
                match self.peers.join(key, hello, outbox, now, &mut self.rng) {
                    Joining::Refused => return,
                    Joining::Instead(other) => scheduler.remove_peer(other, now),
                    Joining::Welcome => {}
                }
                let seeder = have == Have::All;
                (self.on_event)(FetchEvent::PeerJoined { address, seeder });
                scheduler.add_peer(key, have, now);
                self.hungry.send_replace(false);
                if transfer.phase != Phase::Fetching {
                    self.peers.dismiss_seeders();
                }
            }
            SessionEvent::Bitfield(field) => {
                for chunk in field.iter() {
                    scheduler.add_have(key, chunk, now);
                }
            }
            SessionEvent::Have(chunk) => {
                if !scheduler.add_have(key, chunk, now) {
                    let why = format!("has chunk {}, which is not there", chunk.0);
                    self.end(scheduler, key, LeaveReason::Protocol(why));
                }
            }
            SessionEvent::Alive => {}
            SessionEvent::Idle => scheduler.idle(key),
            SessionEvent::Arriving(chunk) => {
                transfer.last_arrival = now;
                scheduler.arriving(key, chunk, now);
            }
            SessionEvent::Progress { bytes } => {
                transfer.last_arrival = now;
                scheduler.progressed(key, bytes, now);
            }
            SessionEvent::Chunk(chunk, buffer) => {
                transfer.last_arrival = now;
                self.peers.delivered(key);
                match scheduler.received(key, chunk, now) {
                    Received::Verify => transfer.verify(Arrived { key, address, chunk, buffer }),
                    Received::Duplicate => transfer.wasted += buffer.len() as u64,
                    Received::Unrequested => {
                        let why = format!("sent chunk {} unasked", chunk.0);
                        self.end(scheduler, key, LeaveReason::Protocol(why));
                    }
                }
            }
            SessionEvent::Reject(chunk, RejectReason::NotHave) => scheduler.not_have(key, chunk),
            SessionEvent::Reject(chunk, RejectReason::Busy { retry_after_ms }) => {
                let told = Duration::from_millis(retry_after_ms.into());
                scheduler.busy(key, chunk, now + self.peers.busy_rest(key, told));
            }
            SessionEvent::Reject(chunk, RejectReason::Cancelled) => {
                if !scheduler.cancelled(key, chunk, now) {
                    let why = format!("confirmed a cancellation of chunk {} that was not requested", chunk.0);
                    self.end(scheduler, key, LeaveReason::Protocol(why));
                }
            }
            SessionEvent::Reject(chunk, RejectReason::Gone) => {
                // Its other files may be what they were.
                scheduler.not_have(key, chunk);
                self.peers.told_change(key);
            }
            // What was still on its way when the share was described.
            SessionEvent::Ready { .. }
            | SessionEvent::Describing { .. }
            | SessionEvent::Described(_)
            | SessionEvent::BadShare(_) => {}
        }
    }

    fn verified(&mut self, transfer: &mut Transfer, verified: Verified) -> Result<(), FetchError> {
        let Verified { key, address, chunk, len, result } = verified;
        match result {
            Ok(stored) => {
                transfer.stored(address, chunk, len, stored);
                if let Some(serving) = self.context.serving.get() {
                    serving.have_log.push(chunk);
                    self.peers.wake_leechers();
                }
                Ok(())
            }
            Err(StoreChunkError::Wrong(_)) => {
                tracing::warn!(%address, chunk = chunk.0, "a peer sent a wrong chunk");
                transfer.wasted += u64::from(len);
                if self.peers.address(key).is_some() {
                    self.end(&mut transfer.scheduler, key, LeaveReason::Lied);
                } else {
                    let now = self.clock.now();
                    self.peers.ban_gone(key, address, now, &mut self.rng);
                    (self.on_event)(FetchEvent::PeerLeft { address, reason: LeaveReason::Lied });
                }
                transfer.scheduler.wrong(chunk);
                Ok(())
            }
            Err(StoreChunkError::Path(error)) => Err(error.into()),
        }
    }

    /// Ends a session for a reason that the swarm found.
    fn end(&mut self, scheduler: &mut Scheduler, key: PeerKey, reason: LeaveReason) {
        scheduler.remove_peer(key, self.clock.now());
        self.peers.end(key, reason);
    }

    /// Leaves peers whose files changed and that have nothing else that is wanted.
    fn leave_changed(&mut self, scheduler: &mut Scheduler) {
        for key in self.peers.changed() {
            if !scheduler.wants_of(key) {
                self.end(scheduler, key, LeaveReason::Gone);
            }
        }
    }

    /// Takes note that a session is over, and says which.
    fn session_ended(
        &mut self,
        ended: Result<(PeerKey, LeaveReason), tokio::task::JoinError>,
    ) -> Option<PeerKey> {
        let left = self.peers.ended(ended, self.clock.now(), &mut self.rng)?;
        let (address, reason) = (left.address, left.reason);
        // That a session ended because the transfer did is no news.
        if (left.joined || reason == LeaveReason::Lied) && reason != LeaveReason::Finished {
            (self.on_event)(FetchEvent::PeerLeft { address, reason });
        }
        if self.peers.joined().next().is_none() {
            self.hungry.send_replace(true);
        }
        Some(left.key)
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
            if !self.peers.send(key, message) {
                self.end(scheduler, key, LeaveReason::TooSlow);
            }
        }
    }

    fn check_stall(&self, transfer: &Transfer, now: Instant) -> Result<(), FetchError> {
        let all_banned = self.peers.book.is_all_banned() && transfer.verifying.is_empty();
        let after = self.config.stall_timeout;
        if all_banned && self.config.trackers.is_empty() {
            return Err(FetchError::OnlyLiars);
        }
        if transfer.verifying.is_empty() && self.peers.all_changed() {
            return Err(FetchError::AllChanged);
        }
        if now.saturating_duration_since(transfer.last_arrival) < after {
            return Ok(());
        }
        if all_banned {
            return Err(FetchError::OnlyLiars);
        }
        let why = self.peers.stalled();
        Err(FetchError::Stalled { after, done: transfer.done, total: transfer.total(), why })
    }
}
