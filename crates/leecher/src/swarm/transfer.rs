//! The state of one transfer beside its peers: what is stored, what is being proved, what came from whom.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use proto::ChunkIndex;
use store::{Content, Download, DownloadError, Resumed, StoreChunkError, Stored};
use swarm::{
    account::{Account, Spent},
    scheduler::{PeerKey, Scheduler},
};
use tokio::task::JoinSet;

use super::peers::Peers;
use crate::{
    buffers::{ChunkBuffer, MAX_UNPROVED},
    event::{PeerProgress, PeerShare, Progress, Started},
};

/// The rate that is told is taken over this many intervals.
const RATE_WINDOW: usize = 15;

/// Chunks of this length at most are proved and written several at a time: to pass one to a thread and back takes
/// longer than the work itself.
const SMALL_LEN: usize = 64 * 1024;

/// What a transfer does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Chunks are missing.
    Fetching,
    /// Everything is here and is being made durable.
    Flushing,
    /// It is finished, and stays to serve others.
    Staying(Instant),
}

/// The state of a transfer beside its peers.
pub(super) struct Transfer {
    pub(super) download: Arc<Download>,
    pub(super) scheduler: Scheduler,
    pub(super) phase: Phase,
    pub(super) account: Account,
    /// Chunks being proved and written, those that a thread does in one go together.
    pub(super) verifying: JoinSet<Vec<Verified>>,
    /// Small chunks that the next thread takes together, while one is at work on those before.
    small: Vec<Arrived>,
    small_at_work: bool,
    /// Chunks that wait for a thread or have one.
    unproved: usize,
    pub(super) saving: JoinSet<Result<(), DownloadError>>,
    /// The last checkpoint failed, and the user knows.
    pub(super) is_unsaved: bool,
    pub(super) finishing: JoinSet<Result<(), DownloadError>>,
    /// Bytes that are here.
    pub(super) done: u64,
    /// A seeder was connected when the last chunk came.
    pub(super) is_spread: bool,
    /// Bytes that came in vain.
    pub(super) wasted: u64,
    pub(super) last_arrival: Instant,
    /// Proved bytes from each address, over all its sessions.
    shares: BTreeMap<SocketAddr, u64>,
    hashing: Duration,
    writing: Duration,
    /// When progress was told, and how much there was, in all and from each address.
    told: VecDeque<(Instant, u64, BTreeMap<SocketAddr, u64>)>,
}

/// A chunk as it came.
pub(super) struct Arrived {
    pub(super) key: PeerKey,
    pub(super) address: SocketAddr,
    pub(super) chunk: ChunkIndex,
    pub(super) buffer: ChunkBuffer,
}

/// A chunk that was hashed and, if it was right, written.
pub(super) struct Verified {
    pub(super) key: PeerKey,
    pub(super) address: SocketAddr,
    pub(super) chunk: ChunkIndex,
    pub(super) len: u32,
    pub(super) result: Result<Stored, StoreChunkError>,
}

impl Transfer {
    pub(super) fn new(download: Arc<Download>, account: Account, now: Instant) -> Transfer {
        let scheduler = Scheduler::new(download.metainfo().chunk_space().clone(), &download.have());
        Transfer {
            done: bytes_in(&download),
            download,
            scheduler,
            phase: Phase::Fetching,
            account,
            verifying: JoinSet::new(),
            small: Vec::new(),
            small_at_work: false,
            unproved: 0,
            saving: JoinSet::new(),
            is_unsaved: false,
            finishing: JoinSet::new(),
            is_spread: false,
            wasted: 0,
            last_arrival: now,
            shares: BTreeMap::new(),
            hashing: Duration::ZERO,
            writing: Duration::ZERO,
            told: VecDeque::new(),
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.download.metainfo().chunk_space().total_len()
    }

    /// Proves and writes a chunk on a thread that may wait.
    pub(super) fn verify(&mut self, arrived: Arrived) {
        self.unproved += 1;
        if arrived.buffer.len() > SMALL_LEN {
            self.verify_all(vec![arrived]);
            return;
        }
        self.small.push(arrived);
        if !self.small_at_work {
            self.verify_small();
        }
    }

    /// Takes note of chunks that a thread has dealt with.
    pub(super) fn dealt_with(&mut self, verified: &[Verified]) {
        self.unproved -= verified.len();
        if verified.iter().any(|verified| verified.len as usize <= SMALL_LEN) {
            self.verify_small();
        }
    }

    fn verify_small(&mut self) {
        let small = std::mem::take(&mut self.small);
        self.small_at_work = !small.is_empty();
        if self.small_at_work {
            self.verify_all(small);
        }
    }

    fn verify_all(&mut self, arrived: Vec<Arrived>) {
        let download = Arc::clone(&self.download);
        let verify = move |Arrived { key, address, chunk, buffer }| {
            let result = download.store(chunk, &buffer);
            // A chunk has at most CHUNK_LEN bytes.
            let len = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            Verified { key, address, chunk, len, result }
        };
        self.verifying.spawn_blocking(move || arrived.into_iter().map(verify).collect());
    }

    /// A chunk from `address` was proved and written.
    pub(super) fn stored(&mut self, address: SocketAddr, chunk: ChunkIndex, len: u32, stored: Stored) {
        self.scheduler.stored(chunk);
        self.done += u64::from(len);
        *self.shares.entry(address).or_default() += u64::from(len);
        self.hashing += stored.hashing;
        self.writing += stored.writing;
    }

    /// Makes what came durable, unless that is under way already.
    pub(super) fn checkpoint(&mut self) {
        if self.saving.is_empty() {
            let download = Arc::clone(&self.download);
            self.saving.spawn_blocking(move || download.checkpoint());
        }
    }

    /// Begins to make the whole share durable and to give it its name.
    pub(super) fn finish(&mut self) {
        self.phase = Phase::Flushing;
        let download = Arc::clone(&self.download);
        self.finishing.spawn_blocking(move || download.finish());
    }

    /// What came from whom, most first.
    pub(super) fn shares(&self) -> Vec<PeerShare> {
        let shares = self.shares.iter().map(|(&address, &bytes)| PeerShare { address, bytes });
        let mut shares: Vec<_> = shares.collect();
        shares.sort_by_key(|share| std::cmp::Reverse(share.bytes));
        shares
    }

    /// What the time went to so far.
    pub(super) fn spent(&mut self, now: Instant) -> Vec<(Spent, Duration)> {
        self.account.book(now);
        // Hashing and writing are one piece of work for a thread; what waits for it waits for both.
        self.account.split(Spent::Writing, &[(Spent::Writing, self.writing), (Spent::Hashing, self.hashing)]);
        self.account.parts()
    }

    /// Books the time from now on to what holds the transfer up.
    pub(super) fn book(&mut self, peers: &Peers, limited: bool, now: Instant) {
        let spent = match self.phase {
            Phase::Flushing | Phase::Staying(_) => vec![Spent::Flushing],
            Phase::Fetching if limited => vec![Spent::OwnLimit],
            Phase::Fetching if self.unproved + 2 >= MAX_UNPROVED => vec![Spent::Writing],
            Phase::Fetching if self.scheduler.has_missing() && self.scheduler.is_waiting() => {
                vec![Spent::Receiving]
            }
            Phase::Fetching if peers.joined().next().is_none() => vec![Spent::NoPeers],
            Phase::Fetching => {
                let debtors = self.scheduler.debtors().filter_map(|key| peers.address(key));
                let debtors: Vec<_> = debtors.map(Spent::SlowPeer).collect();
                match (debtors.is_empty(), self.scheduler.has_missing()) {
                    (false, _) => debtors,
                    (true, true) => vec![Spent::RareChunk],
                    // Everything came and is being proved.
                    (true, false) => vec![Spent::Writing],
                }
            }
        };
        self.account.switch(spent, now);
    }

    pub(super) fn progress(&mut self, peers: &Peers) -> Progress {
        let now = Instant::now();
        self.told.push_back((now, self.done, self.shares.clone()));
        if self.told.len() > RATE_WINDOW {
            self.told.pop_front();
        }
        let nothing = (now, self.done, BTreeMap::new());
        let (then, done_then, shares_then) = self.told.front().unwrap_or(&nothing);
        let rate = |bytes: u64| {
            let ms = now.saturating_duration_since(*then).as_millis().max(1);
            u64::try_from(u128::from(bytes) * 1_000 / ms).unwrap_or(u64::MAX)
        };
        let peers = peers.joined().map(|(_, address)| {
            let bytes = self.shares.get(&address).copied().unwrap_or(0);
            let bytes_then = shares_then.get(&address).copied().unwrap_or(0);
            PeerProgress { address, bytes, rate: rate(bytes - bytes_then) }
        });
        Progress {
            done: self.done,
            total: self.total(),
            rate: rate(self.done - done_then),
            peers: peers.collect(),
        }
    }
}

pub(super) fn started(download: &Download, resumed: Resumed) -> Started {
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
