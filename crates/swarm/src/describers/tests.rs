//! Tests of the choice of describers, with a model of peers.

use super::*;

const MIB: u64 = 1024 * 1024;
const RTT: Duration = Duration::from_millis(10);

/// A model of peers that send at constant rates, in bytes a second. A peer whose metainfo is large sends its first part, and the
/// rest when it is asked for it.
struct Model {
    describers: Describers,
    start: Instant,
    stage: DescriptionStage,
    peers: Vec<ModelPeer>,
    at: Duration,
}

struct ModelPeer {
    rate: u64,
    total: u64,
    is_honest: bool,
    /// When it was asked, if it is being asked.
    asked: Option<Duration>,
    /// When it was asked for the rest, and what it had sent.
    rest: Option<(Duration, u64)>,
}

impl ModelPeer {
    /// An honest peer, and a liar, who is banned when all that it promised is here.
    fn honest(rate: u64, total: u64) -> ModelPeer {
        ModelPeer { rate, total, is_honest: true, asked: None, rest: None }
    }

    fn liar(rate: u64, total: u64) -> ModelPeer {
        ModelPeer { is_honest: false, ..ModelPeer::honest(rate, total) }
    }

    fn sent(&self, stage: DescriptionStage, at: Duration) -> u64 {
        let Some(asked) = self.asked else { return 0 };
        let over = |since: Duration| self.rate * (at - since).saturating_sub(RTT).as_millis() as u64 / 1_000;
        let is_gated = stage == DescriptionStage::Metainfo && self.total > SMALL_METAINFO;
        match self.rest {
            Some((since, sent)) => sent + over(since),
            None if is_gated => over(asked).min(MAX_PART_LEN.into()),
            None => over(asked),
        }
    }
}

impl Model {
    /// Honest peers that send `total` bytes of hashes.
    fn of_hashes(rates: Vec<u64>, total: u64) -> Model {
        let peers = rates.into_iter().map(|rate| ModelPeer::honest(rate, total)).collect();
        Model { stage: DescriptionStage::Hashes, ..Model::new(peers) }
    }

    fn new(peers: Vec<ModelPeer>) -> Model {
        let mut describers = Describers::new(4);
        (0..peers.len()).for_each(|peer| describers.ready(PeerKey(peer as u64), RTT, Instant::now()));
        let (start, stage, at) = (Instant::now(), DescriptionStage::Metainfo, Duration::ZERO);
        Model { describers, start, stage, peers, at }
    }

    /// Runs until an honest peer has sent all; returns that peer and the bytes that the others sent.
    fn run(&mut self) -> (PeerKey, u64) {
        let mut vain = 0;
        loop {
            let now = self.start + self.at;
            while let Some(turn) = self.describers.poll(false, now) {
                match turn {
                    Turn::Begin(key) => self.peers[key.0 as usize].asked = Some(self.at),
                    Turn::GoOn(key) => {
                        let peer = &mut self.peers[key.0 as usize];
                        peer.rest = Some((self.at, peer.sent(self.stage, self.at)));
                    }
                    Turn::Cut(key) => {
                        vain += self.stop(key);
                        self.describers.ready(key, RTT, now);
                    }
                }
            }
            let asked = self.describers.asked.values();
            assert!(asked.clone().filter(|asked| asked.is_sending()).count() <= 4);
            assert!(asked.clone().filter(|asked| asked.received > SMALL).count() <= 1);
            assert!(asked.map(|asked| asked.received).sum::<u64>() <= 48 * MIB);
            for key in (0..self.peers.len()).map(|peer| PeerKey(peer as u64)) {
                let peer = &self.peers[key.0 as usize];
                let sent = peer.sent(self.stage, self.at).min(peer.total);
                if sent == peer.total && peer.is_honest {
                    let others = self.peers.iter().enumerate().filter(|&(other, _)| other as u64 != key.0);
                    return (key, vain + others.map(|(_, peer)| peer.sent(self.stage, self.at)).sum::<u64>());
                } else if sent == peer.total {
                    vain += self.stop(key);
                    self.describers.left(key);
                } else if sent > 0 {
                    self.describers.progress(key, self.stage, (sent, peer.total), now);
                }
            }
            self.at += Duration::from_millis(5);
            assert!(self.at < Duration::from_secs(3_600));
        }
    }

    /// A peer sends no more. Returns what it has sent.
    fn stop(&mut self, key: PeerKey) -> u64 {
        let peer = &mut self.peers[key.0 as usize];
        let sent = peer.sent(self.stage, self.at);
        (peer.asked, peer.rest) = (None, None);
        sent
    }
}

/// Each promises the longest metainfo that there may be. The honest one of an ordinary share is met last.
#[test]
fn liars_who_promise_much_do_not_hide_an_honest_peer() {
    for (count, most) in [(8, 100), (60, 5_000)] {
        for rate in [MIB, 20 * MIB, 1_000 * MIB] {
            let mut peers: Vec<_> = (0..count).map(|_| ModelPeer::liar(rate, 32 * MIB)).collect();
            peers.push(ModelPeer::honest(rate, 5_000));
            let mut model = Model::new(peers);
            assert_eq!(model.run().0, PeerKey(count));
            let most = if count == 60 && rate == MIB { 120_000 } else { most };
            assert!(model.at <= Duration::from_millis(most), "{count} at {rate}: {:?}", model.at);
        }
    }
}

/// A large metainfo costs a tenth more than its length, and the fastest of the first peers sends it.
#[test]
fn a_large_metainfo_comes_from_one_peer_of_the_first() {
    let mut peers: Vec<_> = (0..50).map(|_| ModelPeer::honest(MIB, 32 * MIB)).collect();
    peers[3].rate = 4 * MIB;
    let mut model = Model::new(peers);
    let (key, vain) = model.run();
    assert_eq!(key, PeerKey(3));
    assert!(vain <= 5 * MIB, "{vain}");
    assert!(model.at <= Duration::from_secs(9), "{:?}", model.at);
    // One that is just above the bound costs little more than itself.
    let mut model = Model::new((0..50).map(|_| ModelPeer::honest(MIB, 5 * MIB / 4)).collect());
    let (_, vain) = model.run();
    assert!(vain <= MIB, "{vain}");
}

/// Its rate counts over the last seconds.
#[test]
fn a_peer_that_stops_sending_a_large_metainfo_is_replaced() {
    let now = Instant::now();
    let mut describers = Describers::new(4);
    (0..2).for_each(|peer| describers.ready(PeerKey(peer), RTT, now));
    let metainfo = DescriptionStage::Metainfo;
    let (part, total) = (u64::from(MAX_PART_LEN), 32 * MIB);
    assert_eq!(describers.poll(false, now), Some(Turn::Begin(PeerKey(0))));
    assert!(describers.progress(PeerKey(0), metainfo, (part, total), now + RTT));
    assert_eq!(describers.poll(false, now + RTT), Some(Turn::Begin(PeerKey(1))));
    assert_eq!(describers.poll(false, now + RTT), None, "first the other has to show what it promises");
    assert!(describers.progress(PeerKey(1), metainfo, (part, total), now + 3 * RTT));
    assert_eq!(describers.poll(false, now + 3 * RTT), Some(Turn::GoOn(PeerKey(0))));
    let almost = now + 10 * RTT;
    assert!(describers.progress(PeerKey(0), metainfo, (total - 1, total), almost));
    assert_eq!(describers.poll(false, almost), None);
    let stuck = almost + 2 * RATE_WINDOW;
    assert!(!describers.progress(PeerKey(0), metainfo, (total - 1, total), stuck));
    assert_eq!(describers.poll(false, stuck + RATE_WINDOW), Some(Turn::GoOn(PeerKey(1))));
    let second = stuck + RATE_WINDOW + RTT;
    assert!(describers.progress(PeerKey(1), metainfo, (SMALL + 1, total), second));
    assert_eq!(describers.poll(false, second), Some(Turn::Cut(PeerKey(0))), "there is memory for one only");
}

#[test]
fn one_that_answers_at_once_is_the_only_one_asked() {
    let mut model = Model::of_hashes(vec![100 * MIB; 50], 32 * MIB);
    assert_eq!(model.run(), (PeerKey(0), 0));
}

#[test]
fn the_first_that_are_dialled_are_asked_with_the_hello_and_others_only_if_these_do_not_answer() {
    let now = Instant::now();
    let mut describers = Describers::new(4);
    assert_eq!([0, 1, 2, 3].map(|key| describers.ask_early(PeerKey(key))), [true, true, true, false]);
    for key in 0..3 {
        describers.ready(PeerKey(key), RTT, now);
        assert_eq!(describers.poll(false, now), None, "it is asked already");
        assert!(!describers.ask_early(PeerKey(3)));
    }
    describers.ready(PeerKey(3), RTT, now);
    assert_eq!(describers.poll(false, now), None);
    let overdue = now + GRACE * RTT + MIN_GRACE;
    assert_eq!(describers.poll(false, overdue), Some(Turn::Begin(PeerKey(3))));
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
        let mut model = Model::of_hashes(rates, 32 * MIB);
        assert_eq!(model.run().0, PeerKey(60));
        // The transfer itself takes 1.6 s of them.
        assert!(model.at < Duration::from_millis(2_500), "{:?}", model.at);
    }
}

#[test]
fn where_all_are_as_slow_little_is_received_in_vain() {
    let mut model = Model::of_hashes(vec![MIB / 4; 50], 32 * MIB);
    let (_, vain) = model.run();
    assert!(vain <= 6 * MIB, "{vain}");
    assert!(model.at <= Duration::from_secs(135), "{:?}", model.at);
}

#[test]
fn the_hashes_are_measured_by_themselves_and_places_are_bounded() {
    let now = Instant::now();
    let hashes = DescriptionStage::Hashes;
    let (mut describers, later) = (Describers::new(4), now + Duration::from_secs(10));
    (0..3).for_each(|peer| describers.ready(PeerKey(peer), RTT, now));
    assert_eq!(describers.poll(false, now), Some(Turn::Begin(PeerKey(0))));
    assert_eq!(describers.poll(false, now), None);
    assert!(describers.progress(PeerKey(0), hashes, (5, 5), now));
    assert!(!describers.progress(PeerKey(0), hashes, (5, 5), now));
    describers.places = 1;
    assert!(describers.progress(PeerKey(0), hashes, (MIB, 99 * MIB), later));
    let tried = later + TRIAL;
    assert_eq!(describers.poll(false, tried), None, "there is no other place, and nobody slower");
    describers.places = 2;
    assert_eq!(describers.poll(false, tried), Some(Turn::Begin(PeerKey(1))));
    describers.left(PeerKey(0));
    describers.ready(PeerKey(2), RTT, now);
    assert_eq!(describers.poll(false, tried + STAGGER), Some(Turn::Begin(PeerKey(2))));
    assert!(!describers.progress(PeerKey(0), hashes, (5, 5), tried));
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
    let mut model = Model::of_hashes(vec![10 * 1024; 4], 2 * MIB);
    model.run();
    assert!(model.at > Duration::from_secs(200), "{:?}", model.at);
}
