//! Tests of the choice of describers, with a model of peers.

use super::*;

const MIB: u64 = 1024 * 1024;
const RTT: Duration = Duration::from_millis(10);

/// A model of peers that send at constant rates, in bytes a second.
struct Model {
    describers: Describers,
    start: Instant,
    rates: Vec<u64>,
    /// When each was asked, if it is being asked.
    asked: BTreeMap<PeerKey, Duration>,
    at: Duration,
}

impl Model {
    fn new(rates: Vec<u64>) -> Model {
        let mut describers = Describers::new(4);
        (0..rates.len()).for_each(|peer| describers.ready(PeerKey(peer as u64), RTT, Instant::now()));
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
                        self.describers.ready(key, RTT, now);
                    }
                }
            }
            assert!(self.describers.asked.values().filter(|asked| asked.received > 0).count() <= 4);
            assert!(self.describers.asked.values().filter(|asked| asked.received > SMALL).count() <= 1);
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
fn the_first_that_is_dialled_is_asked_with_the_hello_and_others_only_if_it_does_not_answer() {
    let now = Instant::now();
    let mut describers = Describers::new(4);
    assert!(describers.ask_early(PeerKey(0)));
    assert!(!describers.ask_early(PeerKey(1)));
    describers.ready(PeerKey(0), RTT, now);
    assert_eq!(describers.poll(false, now), None, "it is asked already");
    describers.ready(PeerKey(1), RTT, now);
    assert_eq!(describers.poll(false, now), None);
    let overdue = now + GRACE * RTT + MIN_GRACE;
    assert_eq!(describers.poll(false, overdue), Some(Turn::Begin(PeerKey(1))));
}

#[test]
fn a_peer_that_answers_before_the_one_that_is_asked_with_the_hello_is_asked_too() {
    let now = Instant::now();
    let mut describers = Describers::new(4);
    assert!(describers.ask_early(PeerKey(0)));
    describers.ready(PeerKey(1), RTT, now);
    assert_eq!(describers.poll(false, now), Some(Turn::Begin(PeerKey(1))));
    describers.left(PeerKey(1));
    describers.left(PeerKey(0));
    assert!(describers.ask_early(PeerKey(2)));
}

#[test]
fn a_fast_one_is_found_behind_many_that_are_silent_or_trickle() {
    for slow in [0, 100] {
        let mut rates = vec![slow; 60];
        rates.push(20 * MIB);
        let mut model = Model::new(rates);
        assert_eq!(model.run(32 * MIB).0, PeerKey(60));
        // The transfer itself takes 1.6 s of them.
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
fn the_hashes_are_measured_by_themselves_and_places_are_bounded() {
    let now = Instant::now();
    let (mut describers, later) = (Describers::new(4), now + Duration::from_secs(10));
    (0..3).for_each(|peer| describers.ready(PeerKey(peer), RTT, now));
    assert_eq!(describers.poll(false, now), Some(Turn::Begin(PeerKey(0))));
    assert_eq!(describers.poll(false, now), None);
    assert!(describers.progress(PeerKey(0), 5, 5, now));
    assert!(!describers.progress(PeerKey(0), 5, 5, now));
    describers.places = 1;
    assert!(describers.progress(PeerKey(0), MIB, 99 * MIB, later));
    let tried = later + TRIAL;
    assert_eq!(describers.poll(false, tried), None, "there is no other place, and nobody slower");
    describers.places = 2;
    assert_eq!(describers.poll(false, tried), Some(Turn::Begin(PeerKey(1))));
    describers.left(PeerKey(0));
    describers.ready(PeerKey(2), RTT, now);
    assert_eq!(describers.poll(false, tried + STAGGER), Some(Turn::Begin(PeerKey(2))));
    assert!(!describers.progress(PeerKey(0), 5, 5, tried));
}

#[test]
fn silent_peers_make_room_when_others_cannot_be_dialled_for_them() {
    let now = Instant::now();
    let mut describers = Describers::new(4);
    (0..2).for_each(|peer| describers.ready(PeerKey(peer), RTT, now));
    let overdue = now + GRACE * RTT + MIN_GRACE;
    assert_eq!(describers.poll(true, now), Some(Turn::Begin(PeerKey(0))));
    assert_eq!(describers.poll(true, now), None);
    assert_eq!(describers.next_timeout(now), Some(overdue));
    assert_eq!(describers.poll(true, overdue), Some(Turn::Begin(PeerKey(1))));
    assert_eq!(describers.poll(true, overdue), None);
    assert_eq!(describers.poll(false, now + SILENT_TRIAL), None);
    assert_eq!(describers.poll(true, now + SILENT_TRIAL), Some(Turn::Cut(PeerKey(0))));
    assert_eq!(describers.poll(true, now + SILENT_TRIAL), None);
    assert_eq!(describers.poll(true, overdue + SILENT_TRIAL), Some(Turn::Cut(PeerKey(1))));
}

/// Their hellos took half a second, so each may need a second to answer.
#[test]
fn silent_peers_of_a_slow_network_delay_an_honest_one_by_two_graces() {
    let now = Instant::now();
    let mut describers = Describers::new(4);
    (0..150).for_each(|peer| describers.ready(PeerKey(peer), Duration::from_millis(500), now));
    let mut at = now;
    let mut asked = 0;
    while asked < 150 {
        while let Some(Turn::Begin(_)) = describers.poll(false, at) {
            asked += 1;
        }
        at = describers.next_timeout(at).expect("there are more to ask");
    }
    assert!(at - now < 2 * MAX_GRACE + STAGGER, "{:?}", at - now);
}

/// No rule limits the bytes of others while the leader trickles.
#[test]
fn one_peer_at_a_time_may_send_much() {
    let mut model = Model::new(vec![10 * 1024; 4]);
    model.run(2 * MIB);
    assert!(model.at > Duration::from_secs(200), "{:?}", model.at);
}
