//! Which request to serve next.
//!
//! Pure: time is an argument, and the caller moves the bytes. One [`Uploads`] serves one share.
//!
//! A receiver can pass on a chunk only when it is complete, so a few uploads at a time spread a share faster than many. The swarm
//! also multiplies a chunk faster than this side can. Hence the policy: Chunks that were never sent go first, then those that were
//! sent once, then all others. Among equals the peers go first that have least of the share ([`STEP_CHUNKS`]), then the peer that was served
//! least. [`PARALLEL`] uploads run at a time, more in a large share ([`LEN_PER_UPLOAD`]). A further one starts only when these take longer
//! than they should on this side's link, whose rate is what all uploads together have reached, or sooner while they leave a part of it unused.
//!
//! Peers lag that cannot be dialled, or receive slowly. If the others finish long before them, nobody needs what those that lag could
//! send, and their uplinks are idle. Fifty leechers, half of which can only dial, take 1.26 times the minimum time without this rule,
//! and 1.05 with it.
//!
//! An upload does not count while its receiver holds it up ([`link`]): its socket takes less than a sixteenth of its share of this
//! side's link, and the upload has run for a while. It continues beside the others, at the rate of the receiver. The next upload
//! to the same receiver does not count from its start, until one is as fast as it should be. So slow, suspended or hostile
//! receivers occupy no slot, and each still gets what it can take.
//!
//! Each request is answered once. A request that is cancelled in time is answered with a rejection. When no request waits, some
//! askers are notified, because they may have requests waiting at other peers.
//!
//! The figures in the comments of constants come from the simulation (the crate `sim`), if nothing else is named.

mod link;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use proto::{
    ChunkIndex,
    peer::{Form, MAX_PIPELINE, Wish},
    tracker::Completion,
};

use link::{Link, LinkState, MIN_CHUNK_TIME, RECENT_TIME, Upload};

/// In milliseconds: a peer with too many requests should ask again after this time.
pub const BUSY_RETRY_MS: u32 = 1_000;

/// A peer whose request waits is sent a keep-alive when it was sent nothing for this long.
pub const WAITING_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Default maximum number of peers that a seeder serves at the same time. Each costs a file descriptor and a few kilobytes.
pub const DEFAULT_MAX_ASKERS: usize = 500;

/// Maximum number of uploads of a share at a time that count.
pub const DEFAULT_SLOTS: usize = 16;

/// Least number of uploads that always run at a time. One would be best if every receiver could take all of the link. But some receive
/// from several peers at once, and another receiver can use the rest. Fifty leechers with twice as much downlink as uplink take
/// 1.24 times the minimum time with one upload at a time, 1.09 with two, 1.05 with three and 1.04 with four.
const PARALLEL: usize = 3;

/// One upload runs for this many bytes of a share, within [`PARALLEL`] and [`MAX_PARALLEL`]. In a large share it matters little that a
/// chunk takes longer until it can be passed on, and much that uplinks are full. Where downlinks are no faster than uplinks, they are not with three uploads, because
/// some receivers get more of them than they can take, and others too few. Fifty such leechers took 1.41 times the minimum time with three
/// uploads and 256 MiB, and 1.21 with eight. With 64 MiB eight uploads are worse: sixteen leechers in network namespaces took 1.12 in place of 1.10.
const LEN_PER_UPLOAD: u64 = 32 * 1024 * 1024;

/// Maximum number of uploads that always run. With 512 MiB, the fifty leechers of [`LEN_PER_UPLOAD`] took 1.18 times the minimum
/// time with eight, 1.10 with twelve and 1.10 with sixteen. If half of them can only dial, they took 1.04, 1.06 and 1.11.
const MAX_PARALLEL: usize = 12;

/// The first further upload starts after this time at the latest. On a link that sends no chunk in this time, there is then one
/// upload too many. With slow receivers that are not found out yet, a new one that may be fast gets its turn.
const PROBE_AFTER: Duration = Duration::from_millis(100);

/// For each upload that was found to be held up within this time, a further one may run. Where there are slow receivers there may
/// be hundreds, and finding them out three at a time would take long.
const BURST_TIME: Duration = Duration::from_secs(1);

/// Number of requests of each asker that are considered, oldest first. An asker seldom has more requests for full chunks, and the
/// order of small ones matters little.
const CONSIDERED: usize = 16;

/// A chunk that was sent at least this often counts as spread.
const SPREAD: u32 = 2;

/// Peers count as equally far in steps of one percent, and in a small share of as many percent as this number of chunks is. With wider
/// steps the origin of 200 unequal leechers sends more copies. With narrower ones the few chunks by which equal leechers differ count.
const STEP_CHUNKS: u64 = 32;

/// Minimum time between two notices that no request waits. On a fast network that may happen after every chunk.
const IDLE_INTERVAL: Duration = Duration::from_millis(20);

/// Number of askers that receive such a notice at a time. Each may then move one request here, so this many uploads follow. If fifty
/// leechers notify all others, the slowest takes 1.07 times the minimum time; it takes 1.04 with two notices and 1.03 with four or
/// eight.
const IDLE_NOTIFIED: usize = 8;

/// The key of an asker while it is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskerKey(pub u64);

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requested {
    /// It waits for its turn.
    Waits,
    /// It is refused, because the peer already has the maximum number of waiting requests.
    TooMany,
}

/// The requests for chunks of one share.
#[derive(Debug)]
pub struct Uploads {
    chunk_len: u32,
    slots: usize,
    /// Number of uploads that always run.
    parallel: usize,
    askers: BTreeMap<AskerKey, Asker>,
    active: BTreeMap<AskerKey, Upload>,
    /// Number of askers that may be next.
    eligible: usize,
    /// Askers that held up their last upload.
    slow: BTreeSet<AskerKey>,
    /// How often each chunk was sent.
    sent: Vec<u32>,
    link: Link,
    /// Askers were notified that no request waits, and none waited since.
    is_known_idle: bool,
    /// When askers were last notified, and the last one that was.
    idle_notified: Option<(Instant, AskerKey)>,
}

#[derive(Debug, Default)]
struct Asker {
    waiting: Vec<Wish>,
    served: u64,
    /// How much it has of what it wants, in percent, as it reports.
    percent: u8,
    /// What is being sent to it.
    serving: Option<Wish>,
}

impl Asker {
    /// Whether it may be next: it has a waiting request, and no chunk is being sent to it.
    fn is_eligible(&self) -> bool {
        self.serving.is_none() && !self.waiting.is_empty()
    }

    /// How far it is in a share of `all` chunks. What it was sent here counts, whatever it reports.
    fn level(&self, all: u64) -> u64 {
        let all = all.max(1);
        let percent = u64::from(self.percent).max(self.served * 100 / all);
        percent / (STEP_CHUNKS * 100 / all).max(1)
    }
}

impl Uploads {
    /// No requests yet, for a share of `chunk_count` chunks of `chunk_len` bytes. At most `slots` uploads count at a time.
    pub fn new(chunk_count: u32, chunk_len: u32, slots: usize) -> Uploads {
        let len = u64::from(chunk_count) * u64::from(chunk_len);
        let parallel = usize::try_from(len / LEN_PER_UPLOAD).unwrap_or(MAX_PARALLEL);
        let parallel = parallel.clamp(PARALLEL, MAX_PARALLEL);
        Uploads {
            chunk_len,
            slots,
            parallel: parallel.min(slots),
            askers: BTreeMap::new(),
            active: BTreeMap::new(),
            eligible: 0,
            slow: BTreeSet::new(),
            sent: vec![0; chunk_count as usize],
            link: Link::default(),
            is_known_idle: false,
            idle_notified: None,
        }
    }

    /// A peer requests a chunk, or a part of it. A request for a chunk that the share does not have waits like any other, and is answered in turn.
    pub fn request(&mut self, key: AskerKey, wish: impl Into<Wish>) -> Requested {
        let asker = self.askers.entry(key).or_default();
        if asker.waiting.len() >= MAX_PIPELINE {
            return Requested::TooMany;
        }
        let was_eligible = asker.is_eligible();
        asker.waiting.push(wish.into());
        self.eligible += usize::from(asker.is_eligible() && !was_eligible);
        Requested::Waits
    }

    /// A peer reports how much it has of what it wants.
    pub fn reports(&mut self, key: AskerKey, progress: Completion) {
        self.askers.entry(key).or_default().percent = progress.percent();
    }

    /// A peer cancels a request. False if it is too late, because its chunk is being sent.
    pub fn cancel(&mut self, key: AskerKey, chunk: ChunkIndex) -> bool {
        let Some(asker) = self.askers.get_mut(&key) else { return false };
        let Some(at) = asker.waiting.iter().position(|waiting| waiting.chunk == chunk) else { return false };
        let was_eligible = asker.is_eligible();
        asker.waiting.remove(at);
        self.eligible -= usize::from(was_eligible && !asker.is_eligible());
        true
    }

    /// The askers to notify that no request waits and there is room for more uploads, if that is new. They are a few at a time, in
    /// turn, at most every [`IDLE_INTERVAL`]. If all were notified, all would ask at once.
    pub fn take_idle(&mut self, now: Instant) -> Vec<AskerKey> {
        let counted = || self.counted().map(|(key, _)| key);
        let waits = self.eligible > 0 || counted().any(|key| self.is_waiting(key));
        if waits || counted().count() >= PARALLEL {
            self.is_known_idle = false;
            return Vec::new();
        }
        let recently = self.idle_notified.is_some_and(|(notified, _)| now < notified + IDLE_INTERVAL);
        if self.is_known_idle || recently {
            return Vec::new();
        }
        let from = self.idle_notified.map_or(AskerKey(0), |(_, last)| AskerKey(last.0 + 1));
        let (before, after) = (self.askers.range(..from), self.askers.range(from..));
        let notified: Vec<_> = after.chain(before).map(|(&key, _)| key).take(IDLE_NOTIFIED).collect();
        if let Some(&last) = notified.last() {
            self.is_known_idle = true;
            self.idle_notified = Some((now, last));
        }
        notified
    }

    /// Whether a request of this peer waits.
    pub fn is_waiting(&self, key: AskerKey) -> bool {
        self.askers.get(&key).is_some_and(|asker| !asker.waiting.is_empty())
    }

    /// Whether a chunk is being sent to this peer.
    pub fn is_served(&self, key: AskerKey) -> bool {
        self.askers.get(&key).is_some_and(|asker| asker.serving.is_some())
    }

    /// What is being sent to this peer.
    pub fn serving(&self, key: AskerKey) -> Option<Wish> {
        self.askers.get(&key)?.serving
    }

    /// A peer left.
    pub fn leave(&mut self, key: AskerKey) {
        let asker = self.askers.remove(&key);
        self.eligible -= usize::from(asker.is_some_and(|asker| asker.is_eligible()));
        self.active.remove(&key);
        self.slow.remove(&key);
        self.rest_if_idle();
    }

    /// Whether another upload may start depending on the progress of those under way. If so, call [`Uploads::progress`] before
    /// [`Uploads::start`].
    pub fn is_contended(&self) -> bool {
        self.eligible > 0 && !self.active.is_empty()
    }

    /// Updates the bytes that each receiver's socket has taken in. Call it before [`Uploads::finished`] too: the link is measured by all uploads.
    pub fn progress(&mut self, taken: impl Fn(AskerKey) -> u32, now: Instant) {
        let mut sent = 0;
        for (&key, upload) in &mut self.active {
            // Of an upload that is over, the caller may know nothing any more.
            let taken = taken(key).max(upload.taken);
            sent += u64::from(taken - upload.taken);
            upload.taken = taken;
        }
        self.link.sent(sent, now);
        let link = self.link_state(now);
        for upload in self.active.values_mut() {
            upload.judge(link.possible_time(Some(upload)), now);
        }
    }

    /// What to send next and its receiver, if something should be sent now. Call until it returns `None`.
    pub fn start(&mut self, now: Instant) -> Option<(AskerKey, Wish)> {
        if self.eligible == 0 {
            return None;
        }
        let link = self.find_held_up(now);
        // Uploads to slow receivers do not count, so they may start at any time.
        let is_time = self.may_start_from(&link, now).is_some_and(|at| at <= now);
        if !is_time && self.slow.is_empty() {
            return None;
        }
        let (key, wish, at) = self.choose(|key| is_time || self.slow.contains(&key))?;
        if let Some(asker) = self.askers.get_mut(&key) {
            asker.waiting.remove(at);
            asker.served += 1;
            asker.serving = Some(wish);
            self.eligible -= 1;
        }
        // Who receives blocks of a chunk has the others. With the hashes of its blocks alone, nobody can pass it on.
        if let Some(sent) = self.sent.get_mut(wish.chunk.0 as usize)
            && wish.form != Form::Leaves
        {
            *sent += 1;
        }
        let held_up = self.slow.contains(&key);
        self.link.begins(now);
        self.active.insert(key, Upload::new(held_up, now));
        Some((key, wish))
    }

    /// The upload to a peer is over. `bytes` were sent; 0 if the request was rejected.
    pub fn finished(&mut self, key: AskerKey, bytes: u32, now: Instant) {
        let Some(upload) = self.active.remove(&key) else { return };
        if let Some(asker) = self.askers.get_mut(&key) {
            asker.serving = None;
            self.eligible += usize::from(asker.is_eligible());
        }
        self.link.sent(bytes.saturating_sub(upload.taken).into(), now);
        self.rest_if_idle();
        // A short upload shows nothing about its receiver, because socket buffers take it in at once.
        if bytes < self.chunk_len / 2 {
            return;
        }
        if upload.was_slow(bytes, self.link_state(now).possible_time(None), now) {
            self.slow.insert(key);
        } else {
            self.slow.remove(&key);
        }
    }

    /// When to call [`Uploads::start`] again if no upload finishes before.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        if self.eligible == 0 {
            return None;
        }
        let link = self.link_state(now);
        let found_out = self.counted().map(|(_, upload)| link.slow_from(upload)).min();
        let further = self.may_start_from(&link, now);
        // What uploads take of the link is known again after a moment.
        let found_out = found_out.map(|at| at.min(now + RECENT_TIME));
        let next = found_out.into_iter().chain(further).min()?;
        // What is due now was handled, unless receivers took in more bytes meanwhile.
        Some(if next > now { next } else { now + MIN_CHUNK_TIME })
    }

    /// The request to serve next among those of the askers for which `may_be_next` is true: the asker, its wish, and the index of that
    /// among the asker's requests. The loop follows the order of the askers in memory.
    fn choose(&self, may_be_next: impl Fn(AskerKey) -> bool) -> Option<(AskerKey, Wish, usize)> {
        let chunks = self.sent.len() as u64;
        let askers = self.askers.iter().map(|(&key, asker)| (key, asker));
        let askers = askers.filter(|&(key, asker)| asker.is_eligible() && may_be_next(key));
        let requests = askers.flat_map(|(key, asker)| {
            let level = asker.level(chunks);
            asker.waiting.iter().take(CONSIDERED).enumerate().map(move |(at, &wish)| {
                let sent = self.sent.get(wish.chunk.0 as usize).copied().unwrap_or(0);
                ((sent.min(SPREAD), level, asker.served, sent, at), key, wish)
            })
        });
        requests.min().map(|((.., at), key, wish)| (key, wish, at))
    }

    /// Finds the uploads that their receivers hold up, so that they no longer count. Returns the state of the link after that.
    fn find_held_up(&mut self, now: Instant) -> LinkState {
        let link = self.link_state(now);
        let mut is_other = false;
        for upload in self.active.values_mut().filter(|upload| !upload.held_up) {
            if now >= link.slow_from(upload) {
                (upload.held_up, upload.found) = (true, Some(now));
                is_other = true;
            }
        }
        if is_other { self.link_state(now) } else { link }
    }

    /// When another upload may start, if those under way continue at their rates.
    fn may_start_from(&self, link: &LinkState, now: Instant) -> Option<Instant> {
        let count = link.counted;
        let is_recent = |upload: &&Upload| upload.found.is_some_and(|found| now < found + BURST_TIME);
        let found = self.active.values().filter(is_recent).count();
        if count < self.parallel + found {
            return Some(now);
        }
        let pause = link.pause(self.chunk_len);
        let pause = if count <= PARALLEL { pause.min(PROBE_AFTER) } else { pause };
        let latest = self.counted().map(|(_, upload)| upload.started).max()?;
        (count < self.slots).then_some(latest + pause)
    }

    /// Ends the measurement of the link if there is nothing to send.
    fn rest_if_idle(&mut self) {
        if self.active.is_empty() && self.eligible == 0 {
            self.link.rests();
        }
    }

    /// The uploads that count.
    fn counted(&self) -> impl Iterator<Item = (AskerKey, &Upload)> {
        self.active.iter().filter(|(_, upload)| !upload.held_up).map(|(&key, upload)| (key, upload))
    }

    /// The state of this side's link.
    fn link_state(&self, now: Instant) -> LinkState {
        self.link.state(self.active.values(), self.slots, now)
    }
}
