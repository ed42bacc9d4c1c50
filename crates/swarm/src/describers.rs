//! Which peers are asked what the share is.
//!
//! Pure. A description (metainfo and chunk hashes) is useless until all of it is here, so it comes from one peer. But the
//! first peer that is asked may be slow, or send nothing. Of the peers that are asked, the fastest is the *leader*.
//!
//! Policy while nobody sends: the first peer is asked at once. A peer that did not begin to answer within its grace (a
//! multiple of the time that its `Hello` took) is *overdue*, and for each overdue peer another one is asked. So the number
//! of silent peers that were asked doubles with each grace, and however many there are, they delay an honest one little.
//!
//! Policy once a leader sends: the next peers are asked at intervals, until the leader is nearly through. When
//! [`Describers::set_places`] peers are sending, one that is slower than the leader is cut for the next, after [`TRIAL`].
//! What the others send is wasted: when that is more than a fixed part of what the leader has sent, they are cut, and nobody
//! else is asked. So a description that fills this side's own link is not asked of everybody at once.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use crate::scheduler::PeerKey;

/// While one sends, the others are asked one after another with this delay: they may be faster, and mostly are not needed.
const STAGGER: Duration = Duration::from_millis(200);

/// A peer that does not begin to answer within GRACE × its `Hello`'s round trip + [`MIN_GRACE`] is overdue.
const GRACE: u32 = 2;

/// A busy machine may let a peer wait for this long.
const MIN_GRACE: Duration = Duration::from_millis(20);

/// The longest grace: a peer that takes longer to say hello is not worth waiting for.
const MAX_GRACE: Duration = Duration::from_secs(1);

/// A peer has this long to show how fast it is: several round trips around the world.
const TRIAL: Duration = Duration::from_secs(1);

/// Nobody else is asked while the leader is to be through within this time.
const NEARLY_THROUGH: Duration = Duration::from_secs(2);

/// Maximum bytes received from peers other than the leader: `SPARE`, plus one for every `SPARE_SHARE` bytes of the leader.
const SPARE: u64 = 512 * 1024;
const SPARE_SHARE: u64 = 8;

/// A leader that sends fewer bytes a second fills no link: whatever others send is worth it.
const TRICKLE: f64 = 16.0 * 1024.0;

/// Rates are measured over this time at least, and twice this at most: a leader that stops is soon found out.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Let this peer be asked.
    Begin(PeerKey),
    /// End the session with this peer: it is slower than others, and somebody else waits.
    Cut(PeerKey),
}

/// The peers that can be asked, and those that are.
#[derive(Debug)]
pub(crate) struct Describers {
    waiting: VecDeque<(PeerKey, Duration)>,
    asked: BTreeMap<PeerKey, Asked>,
    places: usize,
    last_begun: Option<Instant>,
    /// Bytes that peers sent which were cut.
    wasted: u64,
}

#[derive(Debug)]
struct Asked {
    begun: Instant,
    grace: Duration,
    received: u64,
    total: Option<u64>,
    /// Two moments, [`RATE_WINDOW`] apart or more, and how much had been received by then.
    marks: [(Instant, u64); 2],
}

impl Describers {
    /// No peers yet. At most `places` may send at a time. Those that send nothing take no place.
    pub(crate) fn new(places: usize) -> Describers {
        Describers { waiting: VecDeque::new(), asked: BTreeMap::new(), places, last_begun: None, wasted: 0 }
    }

    /// Changes how many may send at a time.
    pub(crate) fn set_places(&mut self, places: usize) {
        self.places = places;
    }

    /// A peer can be asked, or no longer is and can be asked again. It took `answers_in` to answer this side's `Hello`.
    pub(crate) fn ready(&mut self, key: PeerKey, answers_in: Duration) {
        self.asked.remove(&key);
        if !self.waiting.iter().any(|&(waiting, _)| waiting == key) {
            self.waiting.push_back((key, (answers_in * GRACE + MIN_GRACE).min(MAX_GRACE)));
        }
    }

    /// A peer that is being asked has sent `received` of `total` bytes. Says whether that is more than before.
    pub(crate) fn progress(&mut self, key: PeerKey, received: u64, total: u64, now: Instant) -> bool {
        let Some(asked) = self.asked.get_mut(&key) else { return false };
        if asked.total.is_some_and(|old| old != total) {
            // The next part of the description begins: hashes after metainfo.
            *asked = Asked::new(now, asked.grace);
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
        if self.asked.remove(&key).is_some() {
            // If that was the leader, the others are compared with somebody else now.
            self.wasted = 0;
        }
    }

    /// What to do now; `strangers` says whether there are peers that this side could connect to if it had fewer connections.
    /// Call until it returns `None`.
    pub(crate) fn poll(&mut self, strangers: bool, now: Instant) -> Option<Turn> {
        let leader = self.leader(now);
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
            return if strangers { self.cut(leader, TRIAL, now) } else { None };
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

    /// When to call [`Describers::poll`] again though nothing happened.
    pub(crate) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let overdue = self.asked.values().map(|asked| asked.begun + asked.grace).filter(|&at| at > now);
        let stagger = (self.waiting.len() + self.asked.len() > 1).then(|| now + STAGGER);
        overdue.chain(stagger).min()
    }

    fn begin(&mut self, now: Instant) -> Option<Turn> {
        let (key, grace) = self.waiting.pop_front()?;
        self.asked.insert(key, Asked::new(now, grace));
        self.last_begun = Some(now);
        Some(Turn::Begin(key))
    }

    /// Gives up the slowest peer that was tried for `trial`.
    fn cut(&mut self, leader: Option<PeerKey>, trial: Duration, now: Instant) -> Option<Turn> {
        let tried = self.asked.iter().filter(|&(&key, asked)| {
            Some(key) != leader && now.saturating_duration_since(asked.begun) >= trial
        });
        let (&slowest, _) = tried.min_by(|a, b| a.1.rate(now).total_cmp(&b.1.rate(now)))?;
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
    fn new(now: Instant, grace: Duration) -> Asked {
        Asked { begun: now, grace, received: 0, total: None, marks: [(now, 0); 2] }
    }

    /// Whether nobody need wait for it any more: it had its time and sends nothing, or next to nothing.
    fn is_overdue(&self, now: Instant) -> bool {
        now >= self.begun + self.grace && self.rate(now) < TRICKLE
    }

    /// Bytes a second, of late.
    fn rate(&self, now: Instant) -> f64 {
        // The later mark counts by itself once it is old enough: then nothing has come since.
        let late = now.saturating_duration_since(self.marks[1].0) >= RATE_WINDOW;
        let (since, before) = self.marks[usize::from(late)];
        // Less than a millisecond says nothing.
        let seconds = now.saturating_duration_since(since).as_secs_f64().max(0.001);
        self.received.saturating_sub(before) as f64 / seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;
    const RTT: Duration = Duration::from_millis(10);

    /// A model of peers that send at constant rates, in bytes a second.
    struct Model {
        describers: Describers,
        start: Instant,
        rates: Vec<u64>,
        /// When each was asked, while it is.
        asked: BTreeMap<PeerKey, Duration>,
        at: Duration,
    }

    impl Model {
        fn new(rates: Vec<u64>) -> Model {
            let mut describers = Describers::new(4);
            (0..rates.len()).for_each(|peer| describers.ready(PeerKey(peer as u64), RTT));
            let (asked, at) = (BTreeMap::new(), Duration::ZERO);
            Model { describers, start: Instant::now(), rates, asked, at }
        }

        /// Runs until a peer has sent `total` bytes; returns that peer and the bytes that the others sent.
        fn run(&mut self, total: u64) -> (PeerKey, u64) {
            let mut vain = 0;
            loop {
                let now = self.start + self.at;
                while let Some(turn) = self.describers.poll(false, now) {
                    match turn {
                        Turn::Begin(key) => _ = self.asked.insert(key, self.at),
                        Turn::Cut(key) => {
                            vain += self.sent(key);
                            self.asked.remove(&key).expect("it was asked");
                            self.describers.ready(key, RTT);
                        }
                    }
                }
                assert!(self.describers.asked.values().filter(|asked| asked.received > 0).count() <= 4);
                for &key in self.asked.keys() {
                    let sent = self.sent(key);
                    if sent >= total {
                        let others = self.asked.keys().filter(|&&other| other != key);
                        return (key, vain + others.map(|&other| self.sent(other)).sum::<u64>());
                    }
                    if sent > 0 {
                        self.describers.progress(key, sent, total, now);
                    }
                }
                self.at += Duration::from_millis(5);
                assert!(self.at < Duration::from_secs(3_600));
            }
        }

        fn sent(&self, key: PeerKey) -> u64 {
            let ms = (self.at - self.asked[&key]).saturating_sub(RTT).as_millis() as u64;
            self.rates[key.0 as usize] * ms / 1_000
        }
    }

    #[test]
    fn one_that_answers_at_once_is_the_only_one_asked() {
        let mut model = Model::new(vec![100 * MIB; 50]);
        assert_eq!(model.run(32 * MIB), (PeerKey(0), 0));
    }

    #[test]
    fn a_fast_one_is_found_behind_many_that_are_silent_or_trickle() {
        for slow in [0, 100] {
            let mut rates = vec![slow; 60];
            rates.push(20 * MIB);
            let mut model = Model::new(rates);
            assert_eq!(model.run(32 * MIB).0, PeerKey(60));
            // Of which the transfer is 1.6 s.
            assert!(model.at < Duration::from_millis(2_500), "{:?}", model.at);
        }
    }

    #[test]
    fn where_all_are_as_slow_little_is_received_in_vain() {
        let mut model = Model::new(vec![MIB / 4; 50]);
        let (_, vain) = model.run(32 * MIB);
        assert!(vain <= 6 * MIB, "{vain}");
        assert!(model.at <= Duration::from_secs(135), "{:?}", model.at);
    }

    #[test]
    fn the_hashes_are_measured_by_themselves_and_places_can_change() {
        let now = Instant::now();
        let (mut describers, later) = (Describers::new(4), now + Duration::from_secs(10));
        (0..3).for_each(|peer| describers.ready(PeerKey(peer), RTT));
        assert_eq!(describers.poll(false, now), Some(Turn::Begin(PeerKey(0))));
        assert_eq!(describers.poll(false, now), None);
        assert!(describers.progress(PeerKey(0), 5, 5, now));
        assert!(!describers.progress(PeerKey(0), 5, 5, now));
        describers.set_places(1);
        assert!(describers.progress(PeerKey(0), MIB, 99 * MIB, later));
        let tried = later + TRIAL;
        assert_eq!(describers.poll(false, tried), None, "there is no other place, and nobody slower");
        describers.set_places(2);
        assert_eq!(describers.poll(false, tried), Some(Turn::Begin(PeerKey(1))));
        describers.left(PeerKey(0));
        describers.ready(PeerKey(2), RTT);
        assert_eq!(describers.poll(false, tried + STAGGER), Some(Turn::Begin(PeerKey(2))));
        assert!(!describers.progress(PeerKey(0), 5, 5, tried));
    }

    #[test]
    fn silent_peers_make_room_when_others_cannot_be_dialled_for_them() {
        let now = Instant::now();
        let mut describers = Describers::new(4);
        (0..2).for_each(|peer| describers.ready(PeerKey(peer), RTT));
        let overdue = now + GRACE * RTT + MIN_GRACE;
        assert_eq!(describers.poll(true, now), Some(Turn::Begin(PeerKey(0))));
        assert_eq!(describers.poll(true, now), None);
        assert_eq!(describers.next_timeout(now), Some(overdue));
        assert_eq!(describers.poll(true, overdue), Some(Turn::Begin(PeerKey(1))));
        assert_eq!(describers.poll(true, overdue), None);
        assert_eq!(describers.poll(false, overdue + TRIAL), None);
        assert_eq!(describers.poll(true, overdue + TRIAL), Some(Turn::Cut(PeerKey(0))));
    }
}
