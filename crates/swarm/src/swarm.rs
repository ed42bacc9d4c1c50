//! The core of a transfer, which makes all its decisions.
//!
//! Pure, like a connection of quinn-proto. The caller passes in events ([`Swarm::handle`], [`Swarm::accept`],
//! [`Swarm::received`]) and carries out actions ([`Swarm::poll`]), at the latest at [`Swarm::next_timeout`]. Time and
//! randomness are arguments. The leecher drives it with sockets and disks, the simulation with a model of them.
//!
//! It joins these parts: the sources of addresses (`sources`), the connections (`peers`, with [`crate::peer_book`]), which peer
//! to ask for the description ([`crate::describers`]), and which chunk to request from which peer ([`crate::scheduler`]). Which
//! request to serve is decided in [`crate::uploads`], because a seeder, which fetches nothing, decides that too.
//!
//! Invariants: No action names a connection that is over or that this side ended. Events of a connection that this side ended
//! change nothing. A chunk is stored only if it was requested from the peer that sent it. The same events, times and random
//! numbers give the same actions.

mod action;
mod config;
mod event;
mod failure;
mod peers;
mod phases;
mod picture;
mod report;
mod sources;
mod transfer;
mod waiting;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use proto::{
    ChunkIndex,
    peer::{GoodbyeReason, Hello, RejectReason, Wish},
    tracker::client::TrackerError,
};
use rand::Rng;

use crate::{
    describers::Describers,
    leaving::LeaveReason,
    scheduler::{Have, PeerKey, Place, Received},
    violation::Violation,
};
use peers::{Peers, Verdict};
use sources::Sources;
use transfer::Transfer;

pub use action::Action;
pub use config::{Config, Stay, Summary};
pub use event::{DescriptionStage, Event, PeerEvent};
pub use failure::Failure;
pub use peers::NO_ROOM;
pub use picture::{PeerPicture, Picture};
pub use report::{Contribution, PeerProgress, Progress, Report, Waiting, WaitingFor};
pub use sources::{Answer, PeerNameError, Source, SourceId};

/// Maximum number of complete chunks in memory, 512 KiB each, that are being proved or written or wait for that.
pub const MAX_UNPROVED: usize = 16;

/// Interval between reports of progress.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Interval between reports of what is waited for.
pub const WAITING_INTERVAL: Duration = Duration::from_secs(1);

/// Interval at which received chunks are made durable. A killed process loses as much.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum number of peers that send the description at the same time. One of them may send all of it, the others 1 MiB.
const DESCRIBERS: usize = 4;

/// A swarm, as one of its leechers sees it.
#[derive(Debug)]
pub struct Swarm {
    config: Config,
    begun: Instant,
    phase: Phase,
    peers: Peers,
    sources: Sources,
    /// Since when too few peers can be asked for chunks ([`Peers::are_too_few`]); `None` if enough can.
    hungry_since: Option<Instant>,
    /// Set when the output is open.
    transfer: Option<Transfer>,
    next_report: Instant,
    next_checkpoint: Instant,
    uploaded: u64,
    /// Hosts that have fetched the share, as a tracker counts them.
    completions: u32,
    is_limited: bool,
    is_stopping: bool,
    /// Some of what is here cannot be served.
    is_spoilt: bool,
    actions: VecDeque<Action>,
    /// Nothing has happened since everything was last decided.
    is_decided: bool,
    /// When to decide again if nothing happens before.
    timeout: Option<Instant>,
}

/// The phase of a transfer.
#[derive(Debug)]
enum Phase {
    /// No peer has sent the description yet.
    Describing {
        describers: Describers,
        last_progress: Instant,
    },
    /// The output is being opened.
    Opening,
    /// Chunks are missing.
    Fetching,
    /// All chunks are here and are being made durable.
    Flushing,
    /// The share is finished since this time, and is served to others.
    Staying(Instant),
    Over,
}

impl Swarm {
    /// A swarm without peers. The user started the transfer at `begun`.
    pub fn new(config: Config, begun: Instant, now: Instant) -> Swarm {
        let kinds: Vec<_> = config.sources.iter().map(|&(kind, _)| kind).collect();
        Swarm {
            begun,
            phase: Phase::Describing { describers: Describers::new(DESCRIBERS), last_progress: now },
            peers: Peers::new(config.own_id, config.max_peers),
            sources: Sources::new(&kinds),
            hungry_since: Some(now),
            transfer: None,
            next_report: now + WAITING_INTERVAL,
            next_checkpoint: now + CHECKPOINT_INTERVAL,
            uploaded: 0,
            completions: 0,
            is_limited: false,
            is_stopping: false,
            is_spoilt: false,
            actions: VecDeque::new(),
            is_decided: false,
            timeout: None,
            config,
        }
    }

    /// A peer connected from `address`. Returns its key, or `None` if there is no room for it.
    pub fn accept(&mut self, address: SocketAddr) -> Option<PeerKey> {
        self.peers.accept(address)
    }

    /// A chunk, or what was asked for of it, arrived: `len` bytes. Returns whether to prove and store it.
    pub fn received(&mut self, key: PeerKey, wish: impl Into<Wish>, len: u32, now: Instant) -> Received {
        let wish = wish.into();
        self.is_decided = false;
        let Some(transfer) = self.transfer.as_mut().filter(|_| self.peers.is_welcome(key)) else {
            return Received::Unrequested;
        };
        transfer.last_arrival = now;
        self.peers.delivered(key);
        let received = transfer.scheduler.received(key, wish, now);
        match received {
            Received::Verify => {
                transfer.unproved += 1;
                self.peers.proving(key);
            }
            Received::Duplicate => transfer.wasted += u64::from(len),
            Received::Unrequested => {
                self.leave(key, LeaveReason::Protocol(Violation::Unrequested(wish.chunk)), now);
            }
        }
        received
    }

    /// A peer announced that it has these chunks.
    pub fn add_haves(&mut self, key: PeerKey, chunks: impl IntoIterator<Item = ChunkIndex>, now: Instant) {
        // The scheduler ignores peers that are not welcome.
        let Some(transfer) = &mut self.transfer else { return };
        if let Err(chunk) = transfer.scheduler.add_haves(key, chunks, now) {
            self.leave(key, LeaveReason::Protocol(Violation::NoSuchChunk(chunk)), now);
        } else if transfer.scheduler.has_news() {
            self.is_decided = false;
        }
    }

    /// Handles an event.
    pub fn handle(&mut self, event: Event, now: Instant, rng: &mut impl Rng) {
        self.is_decided &= !self.may_matter(&event);
        match event {
            Event::Answered(source, answer) => {
                self.sources.answered(source, answer, &mut self.peers.book, now, rng);
            }
            Event::Peer(key, PeerEvent::Closed(reason)) => self.closed(key, reason, now, rng),
            Event::Peer(key, PeerEvent::Haves(chunks)) => self.add_haves(key, chunks, now),
            // These are proved, so they count even if this side has ended the connection meanwhile.
            Event::Peer(_, PeerEvent::Described) => {
                if let Phase::Describing { .. } = self.phase {
                    self.phase = Phase::Opening;
                    self.actions.push_back(Action::Open);
                }
            }
            Event::Peer(_, PeerEvent::BadShare(error)) => {
                if let Phase::Describing { .. } = self.phase {
                    self.phase = self.end(Err(Failure::BadShare(error)));
                }
            }
            Event::Peer(key, event) if self.peers.is_welcome(key) => self.peer_event(key, event, now, rng),
            // It was on its way when this side ended the connection.
            Event::Peer(..) => {}
            Event::Opened { space, wanted, have, similar } => {
                let mut transfer = Transfer::new(space, &wanted, &have, self.begun, now);
                if !self.config.zone.is_none() {
                    transfer.scheduler = transfer.scheduler.in_zone(self.config.own_id);
                }
                self.transfer.insert(transfer).scheduler.has_similar(&similar);
                self.phase = Phase::Fetching;
                self.next_report = now;
                self.next_checkpoint = now + CHECKPOINT_INTERVAL;
            }
            Event::Stored { peer, chunk, hashing, writing } => {
                let from = self.peers.address(peer);
                if let Some(transfer) = &mut self.transfer {
                    transfer.stored(chunk, from, hashing, writing);
                    self.actions.push_back(Action::Have(chunk, transfer.scheduler.spread(chunk)));
                }
                self.peers.proved(peer, now, rng);
            }
            Event::AskAgain { peer, chunk, form } => {
                if let Some(transfer) = &mut self.transfer {
                    transfer.unproved -= 1;
                    transfer.scheduler.ask_again(chunk, form);
                }
                self.peers.proved(peer, now, rng);
            }
            Event::Wrong { peer, chunk } => self.wrong(peer, chunk, now, rng),
            Event::Finished => {
                self.dismiss_seeders(now);
                let is_over = self.is_stopping || self.is_spoilt;
                self.phase = if is_over { self.end(Ok(())) } else { Phase::Staying(now) };
            }
            Event::Spoilt => {
                self.is_spoilt = true;
                // No peer should learn any more that the share is here.
                if let Phase::Staying(_) = self.phase {
                    self.phase = self.end(Ok(()));
                }
            }
            Event::Uploaded(bytes) => self.uploaded = bytes,
            Event::Completions(hosts) => self.completions = hosts,
            Event::Limited(is_limited) => self.is_limited = is_limited,
            Event::MaxPeers(most) => self.peers.set_most(most),
            Event::Stop => {
                self.is_stopping = true;
                match self.phase {
                    // The share will be finished in a moment.
                    Phase::Flushing | Phase::Over => {}
                    Phase::Staying(_) => self.phase = self.end(Ok(())),
                    _ => self.phase = self.end(Err(Failure::Interrupted)),
                }
            }
        }
    }

    /// The next action, if any. Call until it returns `None`.
    pub fn poll(&mut self, now: Instant, rng: &mut impl Rng) -> Option<Action> {
        let is_due = self.timeout.is_some_and(|at| at <= now);
        if self.actions.is_empty() && (!self.is_decided || is_due) {
            self.is_decided = true;
            self.decide(now, rng);
            self.timeout = self.timeout_after(now);
        }
        self.actions.pop_front()
    }

    /// When to call [`Swarm::poll`] again if nothing happens before. Valid after it has returned `None`.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timeout
    }

    /// When to decide again, if everything was decided now.
    fn timeout_after(&self, now: Instant) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Describing { describers, last_progress } => {
                [describers.next_timeout(now), Some(*last_progress + self.patience())]
            }
            Phase::Fetching => {
                let scheduler = self.transfer.as_ref().and_then(|t| t.scheduler.next_timeout(now));
                [scheduler, Some(self.next_checkpoint)]
            }
            Phase::Opening | Phase::Staying(_) => [None, None],
            Phase::Flushing | Phase::Over => return None,
        };
        let seeking = self
            .is_seeking()
            .then(|| [self.peers.next_timeout(now), self.sources.next_timeout(self.hungry_since)]);
        phase.into_iter().chain(seeking.into_iter().flatten()).flatten().chain([self.next_report]).min()
    }

    /// The progress of the transfer, if it has started. Call it once for each [`Action::ReportProgress`]: rates are those since the
    /// earlier calls.
    pub fn progress(&mut self, now: Instant) -> Option<Progress> {
        Some(self.transfer.as_mut()?.progress(&self.peers, now))
    }

    /// The result of the transfer so far.
    pub fn summary(&mut self, now: Instant) -> Summary {
        match &mut self.transfer {
            Some(transfer) => Summary {
                wasted: transfer.wasted,
                peers: transfer.contributions(),
                spent: transfer.spent_so_far(now),
            },
            None => Summary { wasted: 0, peers: Vec::new(), spent: Vec::new() },
        }
    }

    /// The error of a tracker, if one has failed.
    pub fn tracker_error(&self) -> Option<&TrackerError> {
        self.sources.tracker_error()
    }

    /// Where the other end of a connection is, or was, if a chunk from it is still being proved.
    pub fn address(&self, peer: PeerKey) -> Option<SocketAddr> {
        self.peers.address(peer)
    }

    /// Whether an event may require a decision. For the frequent events that seldom do, the scheduler is asked after it has handled
    /// them ([`Scheduler::has_news`](crate::scheduler::Scheduler::has_news)).
    fn may_matter(&self, event: &Event) -> bool {
        match event {
            Event::Limited(is_limited) => *is_limited != self.is_limited,
            Event::MaxPeers(most) => *most != self.peers.most(),
            Event::Uploaded(_) | Event::Completions(_) => matches!(self.phase, Phase::Staying(_)),
            Event::Peer(_, event) => !matches!(
                event,
                PeerEvent::Haves(_)
                    | PeerEvent::Alive
                    | PeerEvent::Idle
                    | PeerEvent::Arriving(_)
                    | PeerEvent::Progress { .. }
            ),
            _ => true,
        }
    }

    fn peer_event(&mut self, key: PeerKey, event: PeerEvent, now: Instant, rng: &mut impl Rng) {
        if let Phase::Describing { describers, last_progress } = &mut self.phase {
            match event {
                PeerEvent::Ready { answers_in } => {
                    self.peers.answered(key);
                    describers.ready(key, answers_in, now);
                }
                PeerEvent::Describing { stage, received, total } => {
                    let is_more = describers.progress(key, stage, (received, total), now);
                    *last_progress = if is_more { now } else { *last_progress };
                }
                // No other event comes before the output is open.
                _ => {}
            }
            return;
        }
        let Some(transfer) = &mut self.transfer else { return };
        let scheduler = &mut transfer.scheduler;
        match event {
            PeerEvent::Active { hello, have } => self.activate(key, hello, have, now, rng),
            PeerEvent::Chosen { chunk, waited } => {
                scheduler.chosen(key, chunk, now.checked_sub(waited).unwrap_or(now), now);
            }
            PeerEvent::Bitfield(field) => self.add_haves(key, field.iter(), now),
            PeerEvent::Haves(chunks) => self.add_haves(key, chunks, now),
            PeerEvent::Alive => scheduler.alive(key, now),
            PeerEvent::NotReading => self.leave(key, LeaveReason::TooSlow, now),
            PeerEvent::Idle => {
                scheduler.idle(key, now);
                self.is_decided &= !scheduler.has_news();
            }
            PeerEvent::Arriving(chunk) => {
                transfer.last_arrival = now;
                scheduler.arriving(key, chunk, now);
                self.is_decided &= !scheduler.has_news();
            }
            PeerEvent::Progress { bytes } => {
                transfer.last_arrival = now;
                scheduler.progressed(key, bytes, now);
                self.is_decided &= !scheduler.has_news();
            }
            PeerEvent::Rejected(chunk, reason) => {
                scheduler.alive(key, now);
                self.rejected(key, chunk, reason, now);
            }
            // It was still on its way when the description was complete.
            PeerEvent::Ready { .. }
            | PeerEvent::Describing { .. }
            | PeerEvent::Described
            | PeerEvent::BadShare(_)
            | PeerEvent::Closed(_) => {}
        }
    }

    /// A peer will not send a chunk.
    fn rejected(&mut self, key: PeerKey, chunk: ChunkIndex, reason: RejectReason, now: Instant) {
        let Some(Transfer { scheduler, .. }) = &mut self.transfer else { return };
        let was_requested = match reason {
            RejectReason::NotHave => scheduler.not_have(key, chunk),
            RejectReason::Busy { retry_after_ms } => {
                let retry_after = Duration::from_millis(retry_after_ms.into());
                scheduler.busy(key, chunk, now + self.peers.busy_rest(key, retry_after))
            }
            RejectReason::Cancelled => scheduler.cancelled(key, chunk, now),
            RejectReason::Gone => {
                // Its other files may be unchanged.
                self.peers.file_changed(key);
                scheduler.not_have(key, chunk)
            }
        };
        if !was_requested {
            self.leave(key, LeaveReason::Protocol(Violation::NotRequested(chunk)), now);
        }
    }

    /// A peer can be asked for chunks, if it is let in.
    fn activate(&mut self, key: PeerKey, hello: Hello, have: Have, now: Instant, rng: &mut impl Rng) {
        if self.is_host_tried(key) {
            return self.leave(key, LeaveReason::Goodbye(NO_ROOM), now);
        }
        let (id, place) = (hello.peer_id, self.place_of(&hello));
        match self.peers.enter(key, hello, now, rng) {
            Verdict::Refused(reason) => return self.leave(key, LeaveReason::Goodbye(reason), now),
            Verdict::Instead(other, reason) => self.leave(other, reason, now),
            Verdict::Welcome => {}
        }
        if let Some(address) = self.peers.address(key) {
            let seeder = have == Have::All;
            self.actions.push_back(Action::Report(Report::PeerJoined { address, seeder }));
        }
        if let Some(transfer) = &mut self.transfer {
            transfer.scheduler.add_peer_at(key, id, place, have, now);
        }
        self.update_hunger(now);
        if !matches!(self.phase, Phase::Fetching) {
            self.dismiss_seeders(now);
        }
    }

    /// Where a peer is, by its own word.
    fn place_of(&self, hello: &Hello) -> Place {
        let is_far = !self.config.zone.is_none() && !self.config.zone.is_shared_with(hello.zone);
        if is_far { Place::Far } else { Place::Near }
    }

    /// Whether another peer that connected from the same host is being tried with its first chunk, while no peer of that host has sent a
    /// right one. The new peer may be the same liar, who is known a moment later.
    fn is_host_tried(&self, key: PeerKey) -> bool {
        let Some(Transfer { scheduler, .. }) = &self.transfer else { return false };
        let others = || self.peers.others_of_its_host(key);
        others().any(|(other, dialled)| !dialled && scheduler.is_tried(other))
            && !others().any(|(other, _)| scheduler.is_trusted(other))
    }

    /// This side ends a connection.
    fn leave(&mut self, key: PeerKey, reason: LeaveReason, now: Instant) {
        self.remove_from_transfer(key, &reason, now);
        if let Phase::Describing { describers, .. } = &mut self.phase {
            describers.left(key);
        }
        if self.peers.leave(key, reason.clone(), now) {
            self.forget_actions(key);
            self.actions.push_back(Action::Close(key, reason));
        }
    }

    fn remove_from_transfer(&mut self, key: PeerKey, reason: &LeaveReason, now: Instant) {
        let Some(Transfer { scheduler, .. }) = &mut self.transfer else { return };
        if let LeaveReason::Goodbye(GoodbyeReason::TooManyPeers { .. }) = reason {
            scheduler.make_room(key, now);
        }
        scheduler.remove_peer(key, now);
    }

    /// Drops the actions that concern a connection.
    fn forget_actions(&mut self, key: PeerKey) {
        self.actions.retain(|action| action.peer() != Some(key));
    }

    /// Leaves the seeders: nothing more is needed from them, and they need nothing.
    fn dismiss_seeders(&mut self, now: Instant) {
        for seeder in self.peers.seeders() {
            self.leave(seeder, LeaveReason::Finished, now);
        }
    }

    /// A connection is over.
    fn closed(&mut self, key: PeerKey, reason: LeaveReason, now: Instant, rng: &mut impl Rng) {
        self.remove_from_transfer(key, &reason, now);
        if let Phase::Describing { describers, .. } = &mut self.phase {
            describers.left(key);
        }
        self.forget_actions(key);
        let Some(left) = self.peers.closed(key, reason, now, rng) else { return };
        // A connection that ended because the transfer ended is not reported.
        if (left.was_active || left.reason == LeaveReason::Lied) && left.reason != LeaveReason::Finished {
            let report = Report::PeerLeft { address: left.address, reason: left.reason };
            self.actions.push_back(Action::Report(report));
        }
        self.update_hunger(now);
    }

    /// Peers came or left.
    fn update_hunger(&mut self, now: Instant) {
        self.hungry_since = self.peers.are_too_few().then(|| self.hungry_since.unwrap_or(now));
    }

    fn wrong(&mut self, key: PeerKey, chunk: ChunkIndex, now: Instant, rng: &mut impl Rng) {
        if self.peers.is_welcome(key) {
            self.leave(key, LeaveReason::Lied, now);
        } else if let Some(address) = self.peers.ban_departed(key) {
            let report = Report::PeerLeft { address, reason: LeaveReason::Lied };
            self.actions.push_back(Action::Report(report));
        }
        self.peers.proved(key, now, rng);
        if let Some(transfer) = &mut self.transfer {
            transfer.wrong(chunk);
        }
    }

    fn end(&mut self, result: Result<(), Failure>) -> Phase {
        self.actions.push_back(Action::End(result));
        Phase::Over
    }
}
