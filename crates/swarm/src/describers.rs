//! Which peers to ask for the description of the share.
//!
//! Pure. A description (metainfo and chunk hashes) is useful only when it is complete, so it comes from one peer. But the
//! first peer that is asked may be slow or send nothing. The fastest of the asked peers is the *leader*.
//!
//! The first peer that is dialled is asked with the hello, which saves a round trip.
//!
//! Policy while no peer sends: The first peer is asked at once. A peer that does not start to answer within its grace (a
//! multiple of the delay of its `Hello`) is *overdue*. For each overdue peer another one is asked, so the number of silent
//! peers that were asked doubles with each grace. The grace of those that are asked next is shorter each time. And if this side could
//! connect to other peers in their place, silent ones are cut. So silent peers delay an honest one little, however many they are.
//!
//! Policy once a leader sends: More peers are asked at intervals, until the leader is almost done. When the maximum number of
//! peers send, one that is slower than the leader is cut after [`TRIAL`], and the next is asked.
//! Only one peer may have sent more than [`SMALL`] bytes: a second one that does takes the place of the first, or is cut, whichever is
//! slower. So the memory for what is not proved is that of one description and a few small ones.
//!
//! The bytes of the others are wasted. When they exceed a fixed part of the leader's bytes, the others are cut and no more
//! peers are asked. So this side's link is not filled with copies of a large description.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use crate::scheduler::PeerKey;

/// While one peer sends, the others are asked at this interval. They may be faster, but most of the time they are not needed.
const STAGGER: Duration = Duration::from_millis(200);

/// A peer that does not start to answer within `GRACE` × the round trip of its `Hello` + [`MIN_GRACE`] is overdue.
const GRACE: u32 = 2;

/// The delay that a busy machine can cause.
const MIN_GRACE: Duration = Duration::from_millis(20);

/// Maximum grace. A peer whose `Hello` takes longer is not worth the wait.
const MAX_GRACE: Duration = Duration::from_secs(1);

/// The grace is halved when the number of overdue peers doubles, down to this time.
const SHORTEST_GRACE: Duration = Duration::from_millis(10);

/// A peer that has sent nothing is cut in favour of a stranger after twice its full grace, and after this time at the earliest.
const SILENT_TRIAL: Duration = Duration::from_millis(250);

/// Bytes of a description that each of several peers may have sent. They show which of them is faster.
const SMALL: u64 = 1024 * 1024;

/// Time in which a peer can show its rate: several round trips around the world.
const TRIAL: Duration = Duration::from_secs(1);

/// No other peer is asked if the leader will be done within this time.
const NEARLY_THROUGH: Duration = Duration::from_secs(2);

/// Maximum bytes received from peers other than the leader: `SPARE`, plus one for every `SPARE_SHARE` bytes of the leader.
const SPARE: u64 = 512 * 1024;
const SPARE_SHARE: u64 = 8;

/// In bytes a second. A slower leader fills no link, so the bytes of others are not limited.
const TRICKLE: f64 = 16.0 * 1024.0;

/// Rates are measured over one to two times this window. So a leader that stops is noticed soon.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// An action for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Ask this peer.
    Begin(PeerKey),
    /// End the session with this peer, because it is slower than others and another peer waits.
    Cut(PeerKey),
}

/// The peers that can be asked, and those that are being asked.
#[derive(Debug)]
pub(crate) struct Describers {
    waiting: VecDeque<(PeerKey, Duration)>,
    asked: BTreeMap<PeerKey, Asked>,
    places: usize,
    /// The peer that is asked with the hello, until it has answered that.
    early: Option<PeerKey>,
    last_begun: Option<Instant>,
    /// Bytes from peers that were cut.
    wasted: u64,
}

#[derive(Debug)]
struct Asked {
    begun: Instant,
    /// It is overdue after this time.
    grace: Duration,
    /// The time that its `Hello` makes likely.
    full_grace: Duration,
    received: u64,
    total: Option<u64>,
    /// Two moments, at least [`RATE_WINDOW`] apart, and the bytes received until each.
    marks: [(Instant, u64); 2],
}

impl Describers {
    /// No peers yet. At most `places` peers may send at the same time. A peer that sends nothing takes no place.
    pub(crate) fn new(places: usize) -> Describers {
        let (waiting, asked) = (VecDeque::new(), BTreeMap::new());
        Describers { waiting, asked, places, early: None, last_begun: None, wasted: 0 }
    }

    /// Whether a peer that is dialled now should be asked with the hello. If so, it is.
    pub(crate) fn ask_early(&mut self, key: PeerKey) -> bool {
        let is_first = self.early.is_none() && self.asked.is_empty() && self.waiting.is_empty();
        if is_first {
            self.early = Some(key);
        }
        is_first
    }

    /// A peer can be asked, for the first time or again. It took `answers_in` to answer this side's `Hello`.
    pub(crate) fn ready(&mut self, key: PeerKey, answers_in: Duration, now: Instant) {
        self.asked.remove(&key);
        let grace = (answers_in * GRACE + MIN_GRACE).min(MAX_GRACE);
        if self.early == Some(key) {
            self.early = None;
            self.asked.insert(key, Asked::new(now, grace, grace));
            self.last_begun = Some(now);
        } else if !self.waiting.iter().any(|&(waiting, _)| waiting == key) {
            self.waiting.push_back((key, grace));
        }
    }

    /// A peer that is being asked has sent `received` of `total` bytes. Returns whether that is more than before.
    pub(crate) fn progress(&mut self, key: PeerKey, received: u64, total: u64, now: Instant) -> bool {
        let Some(asked) = self.asked.get_mut(&key) else { return false };
        if asked.total.is_some_and(|old| old != total) {
            // The hashes start, after the metainfo.
            *asked = Asked::new(now, asked.grace, asked.full_grace);
        }
        let more = asked.total.is_none() || received > asked.received;
        (asked.received, asked.total) = (received, Some(total));
        if now.saturating_duration_since(asked.marks[1].0) >= RATE_WINDOW {
            asked.marks = [asked.marks[1], (now, received)];
        }
        more
    }

    /// A peer is gone.
    pub(crate) fn left(&mut self, key: PeerKey) {
        self.waiting.retain(|&(waiting, _)| waiting != key);
        self.early = self.early.filter(|&early| early != key);
        if self.asked.remove(&key).is_some() {
            // If it was the leader, the others now have another leader to compare with.
            self.wasted = 0;
        }
    }

    /// The next action. `strangers` is whether this side could connect to more peers if it had fewer connections. Call until
    /// it returns `None`.
    pub(crate) fn poll(&mut self, strangers: bool, now: Instant) -> Option<Turn> {
        let leader = self.leader(now);
        if self.asked.values().filter(|asked| asked.received > SMALL).count() > 1 {
            return self.cut_large(now);
        }
        if leader.is_some_and(|leader| self.is_nearly_through(leader, now)) {
            return None;
        }
        if leader.is_some_and(|leader| !self.may_waste(leader, now)) {
            return self.cut(leader, TRIAL, now);
        }
        let sending = self.asked.values().filter(|asked| asked.received > 0).count();
        if sending > self.places {
            return self.cut(leader, Duration::ZERO, now);
        }
        if self.waiting.is_empty() {
            let silent = if strangers { self.cut_silent(now) } else { None };
            return if strangers { silent.or_else(|| self.cut(leader, TRIAL, now)) } else { None };
        }
        if leader.is_none_or(|leader| self.asked[&leader].rate(now) < TRICKLE) {
            let waited_for = self.asked.values().filter(|asked| !asked.is_overdue(now)).count();
            if waited_for < (self.asked.len() - waited_for).max(1) {
                return self.begin(now);
            }
        }
        if self.last_begun.is_some_and(|last| now < last + STAGGER) {
            return None;
        }
        if sending < self.places { self.begin(now) } else { self.cut(leader, TRIAL, now) }
    }

    /// When to call [`Describers::poll`] again if nothing happens before.
    pub(crate) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let times = |asked: &Asked| [asked.begun + asked.grace, asked.begun + asked.silent_trial()];
        let overdue = self.asked.values().flat_map(times).filter(|&at| at > now);
        let stagger = (self.waiting.len() + self.asked.len() > 1).then(|| now + STAGGER);
        overdue.chain(stagger).min()
    }

    fn begin(&mut self, now: Instant) -> Option<Turn> {
        let (key, full_grace) = self.waiting.pop_front()?;
        let overdue = self.asked.values().filter(|asked| asked.is_overdue(now)).count();
        let halvings = (overdue + 1).ilog2();
        let grace = (full_grace / 2_u32.saturating_pow(halvings)).max(SHORTEST_GRACE).min(full_grace);
        self.asked.insert(key, Asked::new(now, grace, full_grace));
        self.last_begun = Some(now);
        Some(Turn::Begin(key))
    }

    /// Cuts the slowest of the peers that were asked at least `trial` ago.
    fn cut(&mut self, leader: Option<PeerKey>, trial: Duration, now: Instant) -> Option<Turn> {
        let tried = self.asked.iter().filter(|&(&key, asked)| {
            Some(key) != leader && now.saturating_duration_since(asked.begun) >= trial
        });
        let (&slowest, _) = tried.min_by(|a, b| a.1.rate(now).total_cmp(&b.1.rate(now)))?;
        self.wasted += self.asked.remove(&slowest)?.received;
        Some(Turn::Cut(slowest))
    }

    /// Cuts a peer that was asked long ago and has sent nothing.
    fn cut_silent(&mut self, now: Instant) -> Option<Turn> {
        let is_silent = |asked: &Asked| asked.received == 0 && now >= asked.begun + asked.silent_trial();
        let (&silent, _) = self.asked.iter().find(|(_, asked)| is_silent(asked))?;
        self.asked.remove(&silent);
        Some(Turn::Cut(silent))
    }

    /// Cuts the slowest of the peers that sent much.
    fn cut_large(&mut self, now: Instant) -> Option<Turn> {
        let large = self.asked.iter().filter(|(_, asked)| asked.received > SMALL);
        let (&slowest, _) = large.min_by(|a, b| a.1.rate(now).total_cmp(&b.1.rate(now)))?;
        self.wasted += self.asked.remove(&slowest)?.received;
        Some(Turn::Cut(slowest))
    }

    fn leader(&self, now: Instant) -> Option<PeerKey> {
        let sending = self.asked.iter().filter(|(_, asked)| asked.received > 0);
        sending.max_by(|a, b| a.1.rate(now).total_cmp(&b.1.rate(now))).map(|(&key, _)| key)
    }

    fn is_nearly_through(&self, leader: PeerKey, now: Instant) -> bool {
        self.asked.get(&leader).is_some_and(|asked| {
            let left = asked.total.unwrap_or(u64::MAX).saturating_sub(asked.received);
            left as f64 / asked.rate(now) <= NEARLY_THROUGH.as_secs_f64()
        })
    }

    fn may_waste(&self, leader: PeerKey, now: Instant) -> bool {
        let (sent, rate) =
            self.asked.get(&leader).map_or((0, 0.0), |leader| (leader.received, leader.rate(now)));
        let others = self.asked.iter().filter(|&(&key, _)| key != leader).map(|(_, asked)| asked.received);
        rate < TRICKLE || self.wasted + others.sum::<u64>() <= SPARE + sent / SPARE_SHARE
    }
}

impl Asked {
    fn new(now: Instant, grace: Duration, full_grace: Duration) -> Asked {
        Asked { begun: now, grace, full_grace, received: 0, total: None, marks: [(now, 0); 2] }
    }

    /// How long it may send nothing if a stranger waits for its place.
    fn silent_trial(&self) -> Duration {
        (2 * self.full_grace).max(SILENT_TRIAL)
    }

    /// Whether its grace is over and it sends nothing, or almost nothing.
    fn is_overdue(&self, now: Instant) -> bool {
        now >= self.begun + self.grace && self.rate(now) < TRICKLE
    }

    /// Recent rate, in bytes a second.
    fn rate(&self, now: Instant) -> f64 {
        // If the later mark is old enough, nothing arrived since, and it counts alone.
        let late = now.saturating_duration_since(self.marks[1].0) >= RATE_WINDOW;
        let (since, before) = self.marks[usize::from(late)];
        // A rate over less than a millisecond means nothing.
        let seconds = now.saturating_duration_since(since).as_secs_f64().max(0.001);
        self.received.saturating_sub(before) as f64 / seconds
    }
}

#[cfg(test)]
mod tests;
