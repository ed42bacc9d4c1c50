//! The driver: connects a [`Swarm`] to sockets, disks and the clock.
//!
//! One task owns the core. It waits for an event, passes it to the core, and carries out the core's actions. Sessions move the
//! bytes, and blocking threads prove and write them, so the task is always soon free. All its channels are bounded. It never
//! waits for a session: it sends to sessions through their outboxes, which never block.

mod disk;
mod news;
mod serving;
mod sessions;

use std::{
    mem,
    num::NonZeroU16,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use peer::{
    acceptor::{Acceptor, Route},
    announcer::Own,
    handshake::Incoming,
    outbox::Outbox,
    rate_limit::RateLimit,
    tracker_client::TrackerClient,
};
use proto::{
    Bitfield, Digest, Endpoint, InfoHash, Label, PeerId, Zone,
    peer::{Form, Wish},
};
use rand::rngs::StdRng;
use store::{Content, Download, DownloadError, Local, Resumed, StoreChunkError};
use swarm::{
    Action, Answer, Config as SwarmConfig, Event, Failure, PeerEvent, Report, Source, SourceId, Stay, Swarm,
    scheduler::{PeerKey, Received},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;

use crate::{
    buffers::BufferPool,
    clock::{LOOK_INTERVAL, RunClock},
    context::{Context, SessionEvent},
    description::{Description, Known},
    destination::Saving,
    error::FetchError,
    event::{FetchEvent, Fetched, Started},
    max_peers::MaxPeers,
    old_version::is_much_of_the_new_description,
    target::{look_up, resolve_peer},
    task_output,
    view::View,
};
use disk::{Arrived, Disk, Done, Verified};
use news::News;
use serving::Service;
use sessions::Sessions;

/// Maximum number of events of sessions that wait for the driver. If the queue is full, the session waits, and its peer with it.
const EVENT_QUEUE: usize = 256;

/// The settings of a transfer.
pub(crate) struct Setup {
    pub(crate) infohash: InfoHash,
    pub(crate) trackers: Vec<TrackerClient>,
    /// First answers of trackers, which came with the share's name.
    pub(crate) named: Vec<(Endpoint, Answer)>,
    /// Peers to connect to without asking a tracker.
    pub(crate) peers: Vec<Endpoint>,
    /// Where other peers connect to this one; `None` if it serves nothing.
    pub(crate) acceptor: Option<Acceptor>,
    pub(crate) goal: Goal,
    pub(crate) saving: Saving,
    /// What is known of the version that is replaced.
    pub(crate) local: Option<Arc<Local>>,
    /// Nothing of the share is here, as far as its name shows, and all of it is wanted.
    pub(crate) is_new: bool,
    pub(crate) max_peers: MaxPeers,
    pub(crate) stall_timeout: Duration,
    pub(crate) wait: Duration,
    pub(crate) upload_limit: RateLimit,
    pub(crate) download_limit: RateLimit,
    pub(crate) stay: Stay,
    pub(crate) view: Option<View>,
    pub(crate) label: Label,
    pub(crate) zone: Zone,
    /// When the user asked for the share.
    pub(crate) begun: Instant,
}

/// What a transfer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// The share, or some of its files.
    Files,
    /// Only its description.
    Description,
}

/// What happens next.
enum Next {
    /// The user stops the transfer.
    Stopped,
    /// Work on the disk is done.
    Done(Done),
    /// Sessions sent events.
    Events(Vec<(PeerKey, SessionEvent)>),
    /// A peer connected.
    Incoming(Incoming),
    /// A source answered.
    Answered(SourceId, Answer),
    /// A time came, or the task of a session ended.
    Nothing,
}

/// A running transfer.
pub(crate) struct Driver<F> {
    setup: Setup,
    on_event: F,
    rng: StdRng,
    /// The clock of all deadlines.
    clock: RunClock,
    core: Swarm,
    context: Arc<Context>,
    sessions: Sessions,
    events: mpsc::Receiver<(PeerKey, SessionEvent)>,
    /// The events that are being handled.
    batch: Vec<(PeerKey, SessionEvent)>,
    /// The peers that connect, once there is something to serve to them.
    route: Option<Route>,
    lookups: JoinSet<(SourceId, Answer)>,
    /// Set when a peer has described the share, until the output is opened.
    description: Option<Description>,
    disk: Disk,
    opened: watch::Sender<Option<Arc<Download>>>,
    service: Service,
    news: News,
    /// Bytes that an earlier run had fetched.
    resumed: u64,
    /// Bytes that were found on this host.
    reused: u64,
    /// There was nothing to fetch.
    already_here: bool,
    /// Set when the share has its final name.
    fetched: Option<Fetched>,
    is_stopping: bool,
}

impl<F: FnMut(FetchEvent)> Driver<F> {
    pub(crate) fn new(setup: Setup, on_event: F) -> Driver<F> {
        let (events_in, events) = mpsc::channel(EVENT_QUEUE);
        let (opened, download) = watch::channel(None);
        let port = setup.acceptor.as_ref().map(|acceptor| acceptor.local_addr().port());
        let own_id = PeerId::random(&mut rand::rng());
        let trackers = setup.trackers.iter().map(|tracker| (Source::Tracker, tracker.endpoint().clone()));
        let peers = setup.peers.iter().map(|peer| (Source::Peer, peer.clone()));
        let config = SwarmConfig {
            infohash: setup.infohash,
            own_id,
            zone: setup.zone,
            sources: trackers.chain(peers).collect(),
            max_peers: setup.max_peers.count(),
            stall_timeout: setup.stall_timeout,
            wait: setup.wait,
            stay: port.map(|_| setup.stay),
        };
        let context = Arc::new(Context {
            infohash: setup.infohash,
            peer_id: own_id,
            events: events_in,
            known: watch::Sender::new(Known::Nothing),
            download,
            buffers: BufferPool::new(),
            listen_port: port.unwrap_or(0),
            zone: setup.zone,
            local: setup.local.clone().filter(|local| is_much_of_the_new_description(local)),
            is_new: setup.is_new,
            serving: OnceLock::new(),
            upload_limit: setup.upload_limit.clone(),
            download_limit: setup.download_limit.clone(),
        });
        let mut clock = RunClock::new(setup.begun);
        Driver {
            core: Swarm::new(config, setup.begun, clock.now()),
            setup,
            on_event,
            rng: rand::make_rng(),
            clock,
            sessions: Sessions::new(Arc::clone(&context)),
            context,
            events,
            batch: Vec::with_capacity(EVENT_QUEUE),
            route: None,
            lookups: JoinSet::new(),
            description: None,
            disk: Disk::new(),
            opened,
            service: Service::new(),
            news: News::default(),
            resumed: 0,
            reused: 0,
            already_here: false,
            fetched: None,
            is_stopping: false,
        }
    }

    /// Fetches the share, gives it its final name, and serves others as long as configured. When it returns, none of its tasks is
    /// left.
    pub(crate) async fn run(mut self, stop: &CancellationToken) -> Result<Fetched, FetchError> {
        let result = self.drive(stop).await;
        if let Err(error) = &result {
            // Save what was received, no matter what the error is.
            tracing::debug!("transfer ends: {error}");
            if let Err(unsaved) = self.disk.settle().await {
                tracing::debug!("what arrived last is not saved: {unsaved}");
                if !matches!(error, FetchError::Download(_)) {
                    (self.on_event)(FetchEvent::Unsaved(Arc::new(unsaved)));
                }
            }
        }
        self.leave().await;
        result.map(|()| self.fetched())
    }

    /// Fetches the description of the share and nothing else. When it returns, none of its tasks is left.
    pub(crate) async fn describe(mut self, stop: &CancellationToken) -> Result<Description, FetchError> {
        let result = self.drive(stop).await;
        self.leave().await;
        result.map(|()| self.description.take().expect("a transfer ends well only with what it is for"))
    }

    async fn leave(&mut self) {
        if let Some(view) = &self.setup.view {
            view.end();
        }
        self.service.stop_announcing();
        // No session waits to send an event, because the driver receives none any more.
        self.events.close();
        self.sessions.stop().await;
        self.service.stop().await;
        self.lookups.shutdown().await;
    }

    async fn drive(&mut self, stop: &CancellationToken) -> Result<(), FetchError> {
        loop {
            let now = self.clock.now();
            self.observe(now);
            while let Some(action) = self.core.poll(now, &mut self.rng) {
                match action {
                    Action::End(Ok(())) => return Ok(()),
                    Action::Open if self.setup.goal == Goal::Description => return Ok(()),
                    Action::End(Err(failure)) => return Err(self.failed(failure)),
                    action => self.act(action, now, stop),
                }
            }
            self.report_news(now);
            match self.next(stop).await {
                Next::Stopped => {
                    self.is_stopping = true;
                    self.handle(Event::Stop);
                }
                Next::Done(done) => self.done(done)?,
                Next::Events(mut events) => {
                    let now = self.clock.now();
                    events.drain(..).for_each(|(key, event)| self.session_event(key, event, now));
                    // Keeps its memory.
                    self.batch = events;
                }
                Next::Incoming(incoming) => match self.core.accept(incoming.address) {
                    Some(key) => self.sessions.accept(key, incoming),
                    None => self.sessions.refuse(incoming),
                },
                Next::Answered(source, answer) => {
                    tracing::debug!(?source, ?answer);
                    self.handle(Event::Answered(source, answer));
                }
                Next::Nothing => {}
            }
        }
    }

    /// When to look at the clock again at the latest: the core has to decide then, or the clock has to be read.
    fn wake(&self, now: Instant) -> Instant {
        let wake = self.core.next_timeout().into_iter().chain(self.news_due()).min();
        let look = now + LOOK_INTERVAL;
        wake.map_or(look, |wake| self.clock.on_system(wake).min(look))
    }

    /// When to inform the leechers of new chunks, if there are any.
    fn news_due(&self) -> Option<Instant> {
        self.news.due(self.sessions.leechers().count())
    }

    fn report_news(&mut self, now: Instant) {
        if self.news_due().is_some_and(|due| due <= now) {
            self.news.report(now);
            self.sessions.leechers().for_each(Outbox::wake);
        }
    }

    /// Waits for what happens next, at most until [`Driver::wake`]. All that is ready has the same chance, so peers
    /// that send without end hold up nothing else.
    async fn next(&mut self, stop: &CancellationToken) -> Next {
        let wake = self.wake(Instant::now());
        tokio::select! {
            () = stop.cancelled(), if !self.is_stopping => Next::Stopped,
            Some(done) = self.disk.next_done() => Next::Done(done),
            _ = self.events.recv_many(&mut self.batch, EVENT_QUEUE) => Next::Events(mem::take(&mut self.batch)),
            incoming = next_incoming(&mut self.route) => Next::Incoming(incoming),
            Some(answered) = self.lookups.join_next() => {
                let (source, answer) = task_output(answered);
                Next::Answered(source, answer)
            }
            // The session has sent its last event before, unless its task panicked, and then this does.
            Some(()) = self.sessions.next_ended() => Next::Nothing,
            () = sleep_until(wake.into()) => Next::Nothing,
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.clock.now();
        self.core.handle(event, now, &mut self.rng);
    }

    /// Passes values to the core that cause no event when they change.
    fn observe(&mut self, now: Instant) {
        let limited = self.setup.download_limit.is_waited_for();
        self.core.handle(Event::Limited(limited), now, &mut self.rng);
        self.core.handle(Event::MaxPeers(self.setup.max_peers.count()), now, &mut self.rng);
        self.core.handle(Event::Uploaded(self.bytes_uploaded()), now, &mut self.rng);
        self.core.handle(Event::Completions(self.service.completions()), now, &mut self.rng);
        if let Some(why) = self.service.new_fault() {
            (self.on_event)(FetchEvent::CannotServe(why));
            self.core.handle(Event::Spoilt, now, &mut self.rng);
        }
        if let Some((done, total)) = self.disk.newly_proved() {
            (self.on_event)(FetchEvent::Proving { done, total });
        }
    }

    fn act(&mut self, action: Action, now: Instant, stop: &CancellationToken) {
        match action {
            Action::LookUp(source) => self.look_up(source),
            Action::Dial(key, address) => self.sessions.dial(key, address),
            Action::AskDescription(key) => self.sessions.ask_description(key),
            Action::AskRest(key) => self.sessions.ask_rest(key),
            Action::Open => {
                // Only now, because the sessions of the other peers give up their descriptions when they see this.
                self.context.known.send_replace(Known::All);
                if let Some(description) = self.description.take() {
                    let (saving, local) = (self.setup.saving.clone(), self.setup.local.clone());
                    self.disk.open(description, saving, local, stop.clone());
                }
            }
            Action::Send(key, message) => {
                if !self.sessions.send(key, message) {
                    let full = PeerEvent::NotReading;
                    self.core.handle(Event::Peer(key, full), now, &mut self.rng);
                }
            }
            Action::Close(key, reason) => self.sessions.close(key, reason),
            Action::Have(chunk, spread) => {
                if let Some(serving) = self.context.serving.get() {
                    serving.have_log.push(chunk);
                    self.news.add(spread, now);
                }
            }
            Action::Announce(progress) => self.service.announce(progress),
            Action::Checkpoint => self.disk.checkpoint(),
            Action::Finish => {
                (self.on_event)(FetchEvent::Flushing);
                self.disk.finish();
            }
            Action::Report(report) => (self.on_event)(report.into()),
            Action::ReportProgress => {
                if let Some(progress) = self.core.progress(now) {
                    (self.on_event)(Report::Progress(progress).into());
                }
                self.show(now);
            }
            // Handled in `drive`, which returns then.
            Action::End(_) => {}
        }
    }

    /// Shows the transfer to onlookers, if there are any.
    fn show(&self, now: Instant) {
        if let Some(view) = self.setup.view.as_ref().filter(|view| view.is_due(now)) {
            view.show(self.core.picture(now), now);
        }
    }

    fn look_up(&mut self, source: SourceId) {
        match self.setup.trackers.get(source.0) {
            Some(tracker) => {
                let named = self.setup.named.iter().position(|(endpoint, _)| endpoint == tracker.endpoint());
                if let Some(named) = named {
                    let (_, answer) = self.setup.named.swap_remove(named);
                    self.lookups.spawn(async move { (source, answer) });
                    return;
                }
                let asking = look_up(tracker.clone(), self.setup.infohash, self.setup.zone);
                self.lookups.spawn(async move { (source, asking.await) });
            }
            None => {
                let Some(peer) = self.setup.peers.get(source.0 - self.setup.trackers.len()).cloned() else {
                    return;
                };
                self.lookups.spawn(async move { (source, resolve_peer(peer).await) });
            }
        }
    }

    fn session_event(&mut self, key: PeerKey, event: SessionEvent, now: Instant) {
        let event = match event {
            SessionEvent::Peer(event) => {
                if let PeerEvent::Closed(reason) = &event {
                    self.sessions.closed(key, reason);
                }
                event
            }
            SessionEvent::Described(description) => {
                // It may have been proved while another one was being opened. It would stay in memory.
                if !matches!(*self.context.known.borrow(), Known::All) {
                    self.description = Some(description);
                }
                PeerEvent::Described
            }
            SessionEvent::Active { hello, have, outbox } => {
                self.sessions.set_outbox(key, hello.role, outbox);
                PeerEvent::Active { hello, have }
            }
            SessionEvent::Chunk(wish, buffer) => {
                let len = wish.form.len(u32::try_from(buffer.len()).unwrap_or(u32::MAX));
                if self.core.received(key, wish, len, now) == Received::Verify {
                    self.disk.store(Arrived { peer: key, wish, buffer });
                }
                return;
            }
            SessionEvent::Leaves(chunk, leaves) => {
                let wish = Wish { chunk, form: Form::Leaves };
                let len = u32::try_from(leaves.len() * Digest::LEN).unwrap_or(u32::MAX);
                if self.core.received(key, wish, len, now) == Received::Verify
                    && let Some(download) = self.disk.download()
                {
                    // 31 hashes of 64 bytes: handing that to a thread would cost more.
                    let event = match download.compare(chunk, leaves) {
                        Ok(form) => Event::AskAgain { peer: key, chunk, form },
                        Err(error) => {
                            let address = self.core.address(key);
                            tracing::warn!(?address, "a peer sent wrong hashes: {error}");
                            Event::Wrong { peer: key, chunk }
                        }
                    };
                    self.core.handle(event, now, &mut self.rng);
                }
                return;
            }
        };
        self.core.handle(Event::Peer(key, event), now, &mut self.rng);
    }

    /// Handles the result of work on the disk.
    fn done(&mut self, done: Done) -> Result<(), FetchError> {
        match done {
            Done::Opened(opened) => {
                let (download, resumed) = opened.map_err(|error| match error {
                    FetchError::Download(DownloadError::Stopped(_)) => self.failed(Failure::Interrupted),
                    error => error,
                })?;
                self.opened(&download, resumed);
            }
            Done::Verified(verified) => {
                for Verified { peer, chunk, result, .. } in verified {
                    let event = match result {
                        Ok(stored) => {
                            self.reused += u64::from(stored.reused);
                            let (hashing, writing) = (stored.hashing, stored.writing);
                            Event::Stored { peer, chunk, hashing, writing }
                        }
                        Err(StoreChunkError::Wrong(_)) => {
                            let address = self.core.address(peer);
                            tracing::warn!(?address, chunk = chunk.0, "a peer sent a wrong chunk");
                            Event::Wrong { peer, chunk }
                        }
                        Err(StoreChunkError::SimilarChanged(_)) => {
                            Event::AskAgain { peer, chunk, form: Form::Whole }
                        }
                        Err(StoreChunkError::HashersDisagree(chunk)) => {
                            tracing::error!(chunk = chunk.0, "two SHA-256 implementations disagree");
                            return Err(FetchError::HashersDisagree);
                        }
                        Err(StoreChunkError::Path(error)) => return Err(error.into()),
                    };
                    self.handle(event);
                }
            }
            // If only the claim could not be written, the transfer continues.
            Done::Saved(Err(error @ DownloadError::NotClaimed(_)), is_news) => {
                if is_news {
                    (self.on_event)(FetchEvent::Unsaved(Arc::new(error)));
                }
            }
            Done::Saved(saved, _) => saved?,
            Done::Finished(finished) => {
                finished?;
                self.finished();
            }
        }
        Ok(())
    }

    /// The output is ready.
    fn opened(&mut self, download: &Arc<Download>, resumed: Resumed) {
        if let Some(error) = self.core.tracker_error() {
            // Other sources knew peers, so this is only a warning.
            (self.on_event)(FetchEvent::TrackerTrouble(error.clone()));
        }
        let started = started(download, resumed);
        self.resumed = started.resumed;
        (self.reused, self.already_here) = (started.reused, started.already_here);
        (self.on_event)(FetchEvent::Started(started));
        self.route = self.setup.acceptor.as_ref().and_then(|acceptor| acceptor.route(self.setup.infohash));
        if let Some(port) = self.route.as_ref().and_then(|route| NonZeroU16::new(route.port())) {
            let own = Own { port, label: self.setup.label, zone: self.setup.zone, fetches: true };
            let serving = self.service.start(download, own, &self.setup.trackers);
            if let Some(view) = &self.setup.view {
                view.serve(&serving.uploads);
            }
            // Set only once, because there is one download.
            let _ = self.context.serving.set(serving);
        }
        self.opened.send_replace(Some(Arc::clone(download)));
        let space = download.metainfo().chunk_space().clone();
        let wanted = download.wanted().clone();
        let (have, similar) = (download.have(), download.similar());
        self.handle(Event::Opened { space, wanted, have, similar });
    }

    /// The share has its final name.
    fn finished(&mut self) {
        let now = self.clock.now();
        let summary = self.core.summary(now);
        if let Some(download) = self.disk.download() {
            let metainfo = download.metainfo();
            let fetched = Fetched {
                infohash: metainfo.infohash(),
                name: metainfo.name().clone(),
                path: download.output().path().to_owned(),
                size: metainfo.chunk_space().total_len(),
                wanted: download.wanted_len(),
                zeros: download.zero_len(),
                resumed: self.resumed,
                reused: self.reused,
                already_here: self.already_here,
                wasted: summary.wasted,
                uploaded: self.bytes_uploaded(),
                elapsed: now.saturating_duration_since(self.setup.begun),
                peers: summary.peers,
                spent: summary.spent,
            };
            if let Some(view) = &self.setup.view {
                view.show(self.core.picture(now), now);
            }
            (self.on_event)(FetchEvent::Finished(fetched.clone()));
            self.fetched = Some(fetched);
        }
        self.handle(Event::Finished);
    }

    fn fetched(&mut self) -> Fetched {
        let mut fetched = self.fetched.take().expect("a swarm ends well only when it has finished");
        fetched.uploaded = self.bytes_uploaded();
        fetched
    }

    fn failed(&self, failure: Failure) -> FetchError {
        match failure {
            Failure::Interrupted => FetchError::Interrupted { part: self.disk.part() },
            failure => failure.into(),
        }
    }

    fn bytes_uploaded(&self) -> u64 {
        self.context.serving.get().map_or(0, |serving| serving.uploads.bytes_sent())
    }
}

/// Waits for the next peer that connects; for ever if nothing is served. Cancel safe.
async fn next_incoming(route: &mut Option<Route>) -> Incoming {
    match route {
        Some(route) => route.next().await,
        None => std::future::pending().await,
    }
}

fn started(download: &Download, resumed: Resumed) -> Started {
    let metainfo = download.metainfo();
    let space = metainfo.chunk_space();
    let len = |chunks: &Bitfield| -> u64 {
        chunks.iter().filter_map(|chunk| space.span(chunk)).map(|span| u64::from(span.len)).sum()
    };
    let reused = len(download.reused());
    Started {
        infohash: metainfo.infohash(),
        name: metainfo.name().clone(),
        size: space.total_len(),
        wanted: download.wanted_len(),
        chunks: space.chunk_count(),
        resumed: len(&download.have()) - reused - download.zero_len(),
        reused,
        already_here: download.is_finished(),
        zeros: download.zero_len(),
        removes: download.removes().into(),
        lost_chunks: resumed.lost,
        output: download.output().path().to_owned(),
    }
}

#[cfg(test)]
mod tests;
