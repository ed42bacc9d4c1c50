//! The state of a transfer of chunks: what is here, what came from which peer, and what the time was spent on.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use proto::{Bitfield, ChunkIndex, ChunkSpace, tracker::Completion};

use super::{
    MAX_UNPROVED,
    peers::Peers,
    report::{Contribution, PeerProgress, Progress},
};
use crate::{
    account::{Account, Spent},
    parts::Tally,
    scheduler::Scheduler,
};

/// Reported rates are measured over this many reports.
const RATE_WINDOW: usize = 15;

/// Addresses of which it is known which chunks came from them, for people to look at: 600 bytes each.
const MAX_GIVERS: usize = 500;

/// If at least this many chunks wait to be proved, proving and writing limit the transfer.
const MANY_UNPROVED: usize = MAX_UNPROVED - 2;

/// A transfer of chunks.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) scheduler: Scheduler,
    /// Bytes that are here.
    pub(super) done: u64,
    /// Bytes in the chunks that are wanted.
    pub(super) total: u64,
    /// Bytes that were received but not needed.
    pub(super) wasted: u64,
    pub(super) last_arrival: Instant,
    /// Chunks that are being proved or written.
    pub(super) unproved: usize,
    /// A seeder was connected when the last chunk arrived. So others can get the share without this peer.
    pub(super) is_spread: bool,
    account: Account,
    /// Proved bytes from each address, over all its connections.
    received: BTreeMap<SocketAddr, u64>,
    /// The proved chunks from each address.
    given: BTreeMap<SocketAddr, Tally>,
    /// Chunks that were proved wrong.
    wrong_chunks: u64,
    hashing: Duration,
    writing: Duration,
    /// The last reports: when they were made, and the bytes until then, in all and from each address.
    reported: VecDeque<(Instant, u64, BTreeMap<SocketAddr, u64>)>,
}

impl Transfer {
    /// A transfer of the chunks `wanted`, of which `have` is here. The user started it at `begun`.
    pub(super) fn new(
        space: ChunkSpace,
        wanted: &Bitfield,
        have: &Bitfield,
        begun: Instant,
        now: Instant,
    ) -> Transfer {
        let spans = |chunks: &Bitfield| {
            let spans = chunks.iter().filter_map(|chunk| space.span(chunk));
            spans.map(|span| u64::from(span.len)).sum()
        };
        Transfer {
            done: spans(have),
            total: spans(wanted),
            scheduler: Scheduler::new(space, wanted, have),
            wasted: 0,
            last_arrival: now,
            unproved: 0,
            is_spread: false,
            account: Account::new(begun),
            received: BTreeMap::new(),
            given: BTreeMap::new(),
            wrong_chunks: 0,
            hashing: Duration::ZERO,
            writing: Duration::ZERO,
            reported: VecDeque::new(),
        }
    }

    /// A chunk was proved and written. `hashing` and `writing` are the times that this took on a thread.
    pub(super) fn stored(
        &mut self,
        chunk: ChunkIndex,
        from: Option<SocketAddr>,
        hashing: Duration,
        writing: Duration,
    ) {
        let len = u64::from(self.len(chunk));
        self.unproved -= 1;
        // The rest was on this host.
        let came = u64::from(self.scheduler.stored(chunk));
        self.done += len;
        if let Some(from) = from {
            *self.received.entry(from).or_default() += came;
            let chunks = self.scheduler.space().chunk_count();
            if self.given.len() < MAX_GIVERS || self.given.contains_key(&from) {
                self.given.entry(from).or_insert_with(|| Tally::new(chunks)).add(chunk);
            }
        }
        self.hashing += hashing;
        self.writing += writing;
    }

    /// A chunk was proved wrong.
    pub(super) fn wrong(&mut self, chunk: ChunkIndex) {
        self.unproved -= 1;
        self.wasted += u64::from(self.scheduler.wrong(chunk));
        self.wrong_chunks += 1;
    }

    fn len(&self, chunk: ChunkIndex) -> u32 {
        self.scheduler.space().span(chunk).map_or(0, |span| span.len)
    }

    /// How much of the whole share is here, for trackers. So a peer that wants only a part never counts as a seeder.
    pub(super) fn completion(&self) -> Completion {
        Completion::of(self.scheduler.stored_count(), self.scheduler.space().chunk_count())
    }

    /// What came from each peer, largest first.
    pub(super) fn contributions(&self) -> Vec<Contribution> {
        let all = self.received.iter().map(|(&address, &bytes)| Contribution { address, bytes });
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|contribution| std::cmp::Reverse(contribution.bytes));
        all
    }

    /// The proved chunks from an address, if there are any.
    pub(super) fn given_by(&self, address: SocketAddr) -> Option<&Tally> {
        self.given.get(&address)
    }

    /// What the time was spent on so far.
    pub(super) fn spent_so_far(&self, now: Instant) -> Vec<(Spent, Duration)> {
        let mut account = self.account.clone();
        account.book(now);
        // One thread hashes and writes a chunk, so the time of waiting for it is divided between the two.
        account.split(Spent::Writing, &[(Spent::Writing, self.writing), (Spent::Hashing, self.hashing)]);
        account.parts()
    }

    /// Books the time from now on to what limits the transfer. `limited` is whether the user's own limit does.
    pub(super) fn book(&mut self, fetching: bool, limited: bool, peers: &Peers, now: Instant) {
        let spent = if !fetching {
            Spent::Flushing
        } else if limited {
            Spent::OwnLimit
        } else if self.unproved >= MANY_UNPROVED {
            Spent::Writing
        } else if self.scheduler.has_missing() && self.scheduler.is_waiting() {
            Spent::Receiving
        } else if peers.active().next().is_none() {
            Spent::NoPeers
        } else {
            let debtors = self.scheduler.debtors().filter_map(|key| peers.address(key));
            let debtors: Vec<_> = debtors.map(Spent::SlowPeer).collect();
            if !debtors.is_empty() {
                return self.account.switch(&debtors, now);
            }
            // If nothing is missing, all chunks have arrived and are being proved.
            if self.scheduler.has_missing() { Spent::RareChunk } else { Spent::Writing }
        };
        self.account.switch(&[spent], now);
    }

    /// The progress, for a report. Rates are those since the earlier calls.
    pub(super) fn progress(&mut self, peers: &Peers, now: Instant) -> Progress {
        self.reported.push_back((now, self.done, self.received.clone()));
        if self.reported.len() > RATE_WINDOW {
            self.reported.pop_front();
        }
        let nothing = (now, self.done, BTreeMap::new());
        let (then, done_then, received_then) = self.reported.front().unwrap_or(&nothing);
        let rate = |bytes: u64| {
            let ms = now.saturating_duration_since(*then).as_millis().max(1);
            u64::try_from(u128::from(bytes) * 1_000 / ms).unwrap_or(u64::MAX)
        };
        let peers = peers.active().map(|(_, address)| {
            let bytes = self.received.get(&address).copied().unwrap_or(0);
            let bytes_then = received_then.get(&address).copied().unwrap_or(0);
            PeerProgress { address, bytes, rate: rate(bytes - bytes_then) }
        });
        Progress {
            done: self.done,
            total: self.total,
            rate: rate(self.done - done_then),
            wasted: self.wasted,
            wrong_chunks: self.wrong_chunks,
            peers: peers.collect(),
        }
    }
}
