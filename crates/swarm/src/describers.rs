//! Which peers to ask for the description of the share.
//!
//! Pure. A description (metainfo and chunk hashes) is useful only when it is complete, so it comes from one peer. But the
//! first peer that is asked may be slow or send nothing. The asked peer that will be done first is the *leader*.
//!
//! The first peers that are dialled are asked with the hello, which saves a round trip. They may send a chunk after it, so that all of
//! them begin to send, and each begins slowly.
//!
//! Policy while no peer sends: The first peer is asked at once. A peer that does not start to answer within its grace (a
//! multiple of the delay of its `Hello`) is *overdue*. For each overdue peer another one is asked, so the number of silent
//! peers that were asked doubles with each grace. The grace of those that are asked next is shorter each time. And if this side could
//! connect to other peers in their place, silent ones are cut. So silent peers delay an honest one little, however many they are.
//!
//! Policy for a metainfo that is promised to be large (more than [`SMALL_METAINFO`]): It cannot be proved before all of it is here,
//! and the peer may lie about its length. So a peer sends one part, and then waits to be asked for the rest. Meanwhile others are
//! asked for their first part, which reveals what they promise, until the parts cost a fixed fraction of the promised length. A
//! peer that promises little is done with its first parts. Of the others, the one that would be done first goes on. Another one
//! goes on beside it only if the first turns out to be slow. So liars who promise much do not hide a peer that promises little.
//!
//! Policy once a leader sends: More peers are asked at intervals, until the leader is almost done. When the maximum number of
//! peers send, one that is slower than the leader is cut after [`TRIAL`], and the next is asked.
//! Only one peer may have sent more than [`SMALL`] bytes: a second one that does takes the place of the first, or is cut, whichever is
//! slower. So the memory for what is not proved is that of one description and a few small ones.
//!
//! The bytes of the others are wasted. When they exceed a fixed part of the leader's description, the others are cut and no more
//! peers are asked. So this side's link is not filled with copies of a large description.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use proto::peer::MAX_PART_LEN;

use self::asked::Asked;
use crate::{scheduler::PeerKey, swarm::DescriptionStage};

mod asked;

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

/// In bytes. A peer that promises more metainfo sends its first part, and the rest only when it is asked for it. (Ten thousand files
/// have as much.)
pub const SMALL_METAINFO: u64 = SMALL;

/// Maximum number of peers that wait to be asked for the rest of their metainfo. Each has sent a part of 256 KiB, or all four that it
/// sends with the hello.
const MAX_HOLDING: usize = 24;

/// Peers that are asked with the hello. Each sends at most 1 MiB of the description. Three connections that begin together fill a long link
/// one and a half round trips sooner than one.
const MAX_EARLY: usize = 3;

/// Time in which a peer can show its rate: several round trips around the world.
const TRIAL: Duration = Duration::from_secs(1);

/// No other peer is asked if the leader will be done within this time.
const NEARLY_THROUGH: Duration = Duration::from_secs(2);

/// Maximum bytes received from peers other than the leader: `SPARE`, plus one for every `SPARE_SHARE` bytes that it has to send.
const SPARE: u64 = 512 * 1024;
const SPARE_SHARE: u64 = 8;

/// A peer that sends the rest of its metainfo is slow if it will take this many times as long as another would.
const SLOWER: f64 = 2.0;

/// In bytes a second. A slower leader fills no link, so the bytes of others are not limited.
const TRICKLE: f64 = 16.0 * 1024.0;

/// Rates are measured over one to two times this window. So a leader that stops is noticed soon.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// An action for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Ask this peer.
    Begin(PeerKey),
    /// Ask this peer for the rest of its metainfo.
    GoOn(PeerKey),
    /// End the session with this peer, because it is slower than others and another peer waits.
    Cut(PeerKey),
}

/// Which peers can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// Those that will go on until they are done.
    Sending,
    Any,
}

/// The peers that can be asked, and those that are being asked.
#[derive(Debug)]
pub(crate) struct Describers {
    waiting: VecDeque<(PeerKey, Duration)>,
    asked: BTreeMap<PeerKey, Asked>,
    places: usize,
    /// The peers that are asked with the hello, until they have answered that.
    early: BTreeSet<PeerKey>,
    last_begun: Option<Instant>,
    /// Bytes from peers that were cut.
    wasted: u64,
}

impl Describers {
    /// No peers yet. At most `places` peers may send at the same time. A peer that sends nothing takes no place.
    pub(crate) fn new(places: usize) -> Describers {
        let (waiting, asked) = (VecDeque::new(), BTreeMap::new());
        Describers { waiting, asked, places, early: BTreeSet::new(), last_begun: None, wasted: 0 }
    }

    /// Whether a peer that is dialled now should be asked with the hello. If so, it is.
    pub(crate) fn ask_early(&mut self, key: PeerKey) -> bool {
        let is_early = self.early.len() + self.asked.len() < MAX_EARLY && self.waiting.is_empty();
        if is_early {
            self.early.insert(key);
        }
        is_early
    }

    /// A peer can be asked, for the first time or again. It took `answers_in` to answer this side's `Hello`.
    pub(crate) fn ready(&mut self, key: PeerKey, answers_in: Duration, now: Instant) {
        self.asked.remove(&key);
        let grace = (answers_in * GRACE + MIN_GRACE).min(MAX_GRACE);
        if self.early.remove(&key) {
            self.asked.insert(key, Asked::new(now, grace, grace));
            self.last_begun = Some(now);
        } else if !self.waiting.iter().any(|&(waiting, _)| waiting == key) {
            self.waiting.push_back((key, grace));
        }
    }

    /// A peer that is being asked has sent `received` of `total` bytes of its metainfo or its hashes. Returns whether that is more
    /// than before.
    pub(crate) fn progress(
        &mut self,
        key: PeerKey,
        stage: DescriptionStage,
        (received, total): (u64, u64),
        now: Instant,
    ) -> bool {
        self.asked.get_mut(&key).is_some_and(|asked| asked.progress(stage, received, total, now))
    }

    /// A peer is gone.
    pub(crate) fn left(&mut self, key: PeerKey) {
        self.waiting.retain(|&(waiting, _)| waiting != key);
        self.early.remove(&key);
        if self.asked.remove(&key).is_some() {
            self.forget_waste();
        }
    }

    /// The next action. `strangers` is whether this side could connect to more peers if it had fewer connections. Call until
    /// it returns `None`.
    pub(crate) fn poll(&mut self, strangers: bool, now: Instant) -> Option<Turn> {
        if self.asked.values().filter(|asked| asked.received > SMALL).count() > 1 {
            return self.cut_large(now);
        }
        if self.may_probe(now) {
            return self.begin(now);
        }
        if let Some(key) = self.next_to_go_on(now) {
            self.asked.get_mut(&key)?.go_on(now);
            return Some(Turn::GoOn(key));
        }
        let leader = self.leader(now);
        if leader.is_some_and(|leader| self.asked[&leader].ends_in_s(now) <= NEARLY_THROUGH.as_secs_f64()) {
            return None;
        }
        if leader.is_some_and(|leader| !self.may_waste(leader, now)) {
            return self.cut(leader, Whom::Sending, TRIAL, now);
        }
        let sending = self.asked.values().filter(|asked| asked.is_sending()).count();
        if sending > self.places {
            return self.cut(leader, Whom::Sending, Duration::ZERO, now);
        }
        if self.waiting.is_empty() {
            let silent = if strangers { self.cut_silent(now) } else { None };
            return if strangers { silent.or_else(|| self.cut(leader, Whom::Any, TRIAL, now)) } else { None };
        }
        if leader.is_none_or(|leader| self.asked[&leader].rate(now) < TRICKLE) {
            let (overdue, waited_for): (Vec<_>, Vec<_>) =
                self.asked.values().filter(|asked| !asked.holds()).partition(|asked| asked.is_overdue(now));
            if waited_for.len() < overdue.len().max(1) && self.has_room_to_hold() {
                return self.begin(now);
            }
        }
        if self.last_begun.is_some_and(|last| now < last + STAGGER) {
            return None;
        }
        match self.has_room_to_hold() {
            true if sending < self.places => self.begin(now),
            true => self.cut(leader, Whom::Sending, TRIAL, now),
            false => self.cut(leader, Whom::Any, TRIAL, now),
        }
    }

    /// When to call [`Describers::poll`] again if nothing happens before.
    pub(crate) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let times = |asked: &Asked| [asked.overdue_at(), asked.begun + asked.silent_trial()];
        let going_on = self.asked.values().filter(|asked| asked.goes_on()).map(|asked| asked.begun + TRIAL);
        let overdue = self.asked.values().flat_map(times).chain(going_on).filter(|&at| at > now);
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

    /// The peer to ask for the rest of its metainfo now; `None` while others may still show that they promise less.
    fn next_to_go_on(&self, now: Instant) -> Option<PeerKey> {
        if self.asked.values().any(|asked| asked.total.is_none() && !asked.is_overdue(now)) {
            return None;
        }
        let holding = self.asked.iter().filter(|(_, asked)| asked.holds());
        let (&next, best) = holding.min_by(|a, b| a.1.ends_in_s(now).total_cmp(&b.1.ends_in_s(now)))?;
        let mut going_on = self.asked.values().filter(|asked| asked.goes_on());
        let Some(first) = going_on.next() else { return Some(next) };
        let is_slow = now >= first.begun + TRIAL && first.ends_in_s(now) > SLOWER * best.ends_in_s(now);
        (is_slow && going_on.next().is_none()).then_some(next)
    }

    /// Whether to ask one more peer what it promises, because another promises much.
    fn may_probe(&self, now: Instant) -> bool {
        let large = self.asked.values().filter(|asked| asked.promises_much());
        let Some(promised) = large.filter_map(|asked| asked.total).min() else { return false };
        let leader = self.leader(now);
        let others = self.asked.iter().filter(|&(&key, _)| Some(key) != leader);
        // What an asked peer has not sent of its first part, it soon will.
        let cost = |asked: &Asked| if asked.is_probed() { MAX_PART_LEN.into() } else { asked.wasted() };
        let spent = self.wasted + others.map(|(_, asked)| cost(asked)).sum::<u64>();
        let is_cheap = spent + u64::from(MAX_PART_LEN) <= SPARE + promised / SPARE_SHARE;
        is_cheap && !self.waiting.is_empty() && self.has_room_to_hold()
    }

    /// Whether there is memory for one more peer that waits to be asked for the rest.
    fn has_room_to_hold(&self) -> bool {
        self.asked.values().filter(|asked| asked.holds()).count() < MAX_HOLDING
    }

    /// What was wasted while another peer led counts no longer.
    fn forget_waste(&mut self) {
        self.wasted = 0;
        self.asked.values_mut().for_each(Asked::forgive);
    }

    /// Cuts the slowest of the peers that were asked at least `trial` ago.
    fn cut(&mut self, leader: Option<PeerKey>, whom: Whom, trial: Duration, now: Instant) -> Option<Turn> {
        let tried = self.asked.iter().filter(|&(&key, asked)| {
            Some(key) != leader
                && now.saturating_duration_since(asked.begun) >= trial
                && (whom == Whom::Any || asked.is_sending() || !asked.promises_much())
        });
        let (&slowest, _) = tried.min_by(|a, b| a.1.rate(now).total_cmp(&b.1.rate(now)))?;
        self.wasted += self.asked.remove(&slowest)?.wasted();
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
        self.asked.remove(&slowest)?;
        self.forget_waste();
        Some(Turn::Cut(slowest))
    }

    fn leader(&self, now: Instant) -> Option<PeerKey> {
        let sending = self.asked.iter().filter(|(_, asked)| asked.is_sending());
        sending.min_by(|a, b| a.1.ends_in_s(now).total_cmp(&b.1.ends_in_s(now))).map(|(&key, _)| key)
    }

    fn may_waste(&self, leader: PeerKey, now: Instant) -> bool {
        let (total, rate) =
            self.asked.get(&leader).map_or((0, 0.0), |leader| (leader.total.unwrap_or(0), leader.rate(now)));
        let others = self.asked.iter().filter(|&(&key, _)| key != leader).map(|(_, asked)| asked.wasted());
        rate < TRICKLE || self.wasted + others.sum::<u64>() <= SPARE + total / SPARE_SHARE
    }
}

#[cfg(test)]
mod tests;
