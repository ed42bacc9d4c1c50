use std::num::NonZeroU16;

use proto::{
    Label, Secret, Zone,
    tracker::{Completion, Query, Reply, ReplyBody, Request, RequestBody, TransactionId, codec},
};
use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::{
    Handler, Rules,
    fleet::{secret::FleetSecret, time::StoreTime},
};

/// Trackers of a fleet without a store: what one notes, the others take in when they are told to.
struct Bench {
    trackers: Vec<Handler>,
    now: Instant,
    rng: StdRng,
}

impl Bench {
    fn new(trackers: usize) -> Bench {
        let mut rng = StdRng::seed_from_u64(1);
        let now = Instant::now();
        let trackers = (0..trackers).map(|_| tracker(now, &mut rng)).collect();
        Bench { trackers, now, rng }
    }

    fn ask(&mut self, tracker: usize, source: IpAddr, body: RequestBody) -> Option<ReplyBody> {
        let request = Request { transaction: TransactionId(1), body };
        let (mut datagram, mut replies) = (bytes::BytesMut::new(), bytes::BytesMut::new());
        codec::encode_request(&request, &mut datagram).unwrap();
        let tracker = &mut self.trackers[tracker];
        let reply = tracker.handle(&datagram, source, self.now, &mut self.rng, &mut replies)?;
        let Reply { body, .. } = codec::decode_reply(&replies[reply]).unwrap();
        Some(body)
    }

    fn token(&mut self, tracker: usize, source: IpAddr) -> Token {
        match self.ask(tracker, source, RequestBody::CONNECT) {
            Some(ReplyBody::Connected { token, .. }) => token,
            other => panic!("{other:?}"),
        }
    }

    /// Announces at one tracker with a token of another.
    fn announce(&mut self, tracker: usize, peer: u8, event: Event) -> ReplyBody {
        let source = host(peer);
        let token = self.token((tracker + 1) % self.trackers.len(), source);
        let announce = Announce { token, ..announce(peer, event) };
        self.ask(tracker, source, RequestBody::Announce(announce)).unwrap()
    }

    /// Seeders and leechers of the share, as a tracker knows them.
    fn counts(&mut self, tracker: usize) -> (u32, u32) {
        let query = Query::Peers { infohash: InfoHash([1; 32]), want: 50, zone: Zone::NONE };
        match self.ask(tracker, host(200), RequestBody::FirstLookup { query }) {
            Some(ReplyBody::Peers(peers)) => (peers.seeders, peers.leechers),
            Some(ReplyBody::Error(ErrorCode::UnknownShare { .. })) => (0, 0),
            other => panic!("{other:?}"),
        }
    }

    fn noted(&mut self, tracker: usize) -> Vec<Change> {
        self.trackers[tracker].fleet().unwrap().0.take_changes().0
    }

    fn take_in(&mut self, tracker: usize, changes: &[Change]) -> usize {
        let now = self.now;
        let (seam, registry) = self.trackers[tracker].fleet().unwrap();
        changes.iter().filter(|change| seam.take_in(registry, change, now)).count()
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

impl Bench {
    /// Announces a leecher of a host at a tracker, and has the other one take in what follows.
    fn announce_leecher(&mut self, tracker: usize, peer: u8, event: Event, progress: Completion) {
        let token = self.token(tracker, host(peer));
        let label = Label::cut(&format!("host-{peer}")).unwrap();
        let announce = Announce { token, progress, label, fetched: true, ..announce(peer, event) };
        let reply = self.ask(tracker, host(peer), RequestBody::Announce(announce)).unwrap();
        assert!(is_ok(&reply), "{reply:?}");
        let changes = self.noted(tracker);
        self.take_in(1 - tracker, &changes);
    }

    /// Hosts that have fetched the share, as a tracker counts them.
    fn completed(&mut self, tracker: usize) -> u32 {
        let query = Query::Peers { infohash: InfoHash([1; 32]), want: 50, zone: Zone::NONE };
        match self.ask(tracker, host(200), RequestBody::FirstLookup { query }) {
            Some(ReplyBody::Peers(peers)) => peers.completed,
            other => panic!("{other:?}"),
        }
    }
}

fn tracker(now: Instant, rng: &mut StdRng) -> Handler {
    let mut tracker = Handler::new(Rules::default(), now, rng);
    let clock = StoreClock::new(now, StoreTime(1_800_000_000_000));
    tracker.join_fleet(clock);
    tracker.share_tokens(&FleetSecret([5; 32]), clock, now);
    tracker
}

fn host(number: u8) -> IpAddr {
    [192, 0, 2, number].into()
}

fn announce(peer: u8, event: Event) -> Announce {
    Announce {
        token: Token([0; 16]),
        infohash: InfoHash([1; 32]),
        peer_id: PeerId([peer; 16]),
        secret: Secret([peer; 16]),
        port: NonZeroU16::new(7000).unwrap(),
        name: "data.bin".parse().unwrap(),
        size: 5,
        event,
        progress: Completion::COMPLETE,
        label: Default::default(),
        fetched: false,
        zone: Zone::NONE,
    }
}

fn is_ok(reply: &ReplyBody) -> bool {
    matches!(reply, ReplyBody::Announced(_))
}

#[test]
fn a_host_that_has_fetched_a_share_counts_at_every_tracker_once() {
    let mut bench = Bench::new(2);
    bench.announce(0, 1, Event::Started);
    let changes = bench.noted(0);
    bench.take_in(1, &changes);
    for tracker in [0, 1] {
        bench.announce_leecher(tracker, 2, Event::Started, Completion::of(1, 2));
        bench.announce_leecher(tracker, 3, Event::Started, Completion::of(1, 2));
    }
    assert_eq!([bench.completed(0), bench.completed(1)], [0, 0]);
    bench.announce_leecher(0, 2, Event::Completed, Completion::COMPLETE);
    assert_eq!([bench.completed(0), bench.completed(1)], [1, 1]);
    // At the other tracker, after it left, and after it left without a word of its completion.
    bench.pass(20);
    bench.announce_leecher(1, 2, Event::Heartbeat, Completion::COMPLETE);
    bench.announce_leecher(1, 2, Event::Stopped, Completion::COMPLETE);
    assert_eq!([bench.completed(0), bench.completed(1)], [1, 1]);
    bench.announce_leecher(0, 3, Event::Stopped, Completion::COMPLETE);
    assert_eq!([bench.completed(0), bench.completed(1)], [2, 2]);
    // A tracker that starts learns of those that are there from the others, or from the store.
    bench.announce_leecher(0, 4, Event::Completed, Completion::COMPLETE);
    let mut rng = StdRng::seed_from_u64(2);
    bench.trackers.push(tracker(bench.now, &mut rng));
    let (seam, registry) = bench.trackers[0].fleet().unwrap();
    let mut known = Vec::new();
    seam.export(registry, 0, bench.now, |change| known.push(change));
    bench.take_in(2, &known);
    assert_eq!(bench.completed(2), 1);
}

#[test]
fn a_registration_at_one_tracker_is_known_at_another_and_is_renewed_and_ended_there() {
    let mut bench = Bench::new(2);
    assert!(is_ok(&bench.announce(0, 1, Event::Started)));
    let noted = bench.noted(0);
    assert_eq!((noted.len(), bench.take_in(1, &noted)), (1, 1));
    assert_eq!(bench.counts(1), (1, 0));
    bench.pass(60);
    assert!(is_ok(&bench.announce(1, 1, Event::Heartbeat)));
    let noted = bench.noted(1);
    assert_eq!((noted.len(), bench.take_in(0, &noted)), (1, 1));
    bench.pass(60);
    assert_eq!((bench.counts(0), bench.counts(1)), ((1, 0), (1, 0)));
    assert!(is_ok(&bench.announce(1, 1, Event::Stopped)));
    let noted = bench.noted(1);
    assert_eq!((noted.len(), bench.take_in(0, &noted)), (1, 1));
    assert_eq!((bench.counts(0), bench.counts(1)), ((0, 0), (0, 0)));
}

#[test]
fn a_registration_belongs_to_its_secret_at_all_trackers_and_none_has_the_secret() {
    let mut bench = Bench::new(2);
    bench.announce(0, 1, Event::Started);
    let noted = bench.noted(0);
    assert_ne!(noted[0].record().known.secret, Secret([1; 16]));
    bench.take_in(1, &noted);
    let token = bench.token(0, host(9));
    let stolen = Announce { token, secret: Secret([9; 16]), ..announce(1, Event::Stopped) };
    let reply = bench.ask(1, host(9), RequestBody::Announce(stolen));
    assert_eq!(reply, Some(ReplyBody::Error(ErrorCode::NotYours)));
    // Nor does the hash serve as a secret.
    let token = bench.token(0, host(9));
    let hash = Announce { token, secret: noted[0].record().known.secret, ..announce(1, Event::Stopped) };
    let reply = bench.ask(1, host(9), RequestBody::Announce(hash));
    assert_eq!(reply, Some(ReplyBody::Error(ErrorCode::NotYours)));
}

#[test]
fn a_peer_expires_at_all_trackers_as_long_after_its_announce() {
    let mut bench = Bench::new(2);
    bench.announce(0, 1, Event::Started);
    let noted = bench.noted(0);
    bench.pass(50);
    // A tracker that has just started, too.
    let fresh = Handler::new(Rules::default(), bench.now, &mut bench.rng);
    bench.trackers.push(fresh);
    let clock = StoreClock::new(bench.now, StoreTime(1_800_000_050_000));
    bench.trackers[2].join_fleet(clock);
    assert_eq!((bench.take_in(1, &noted), bench.take_in(2, &noted)), (1, 1));
    bench.pass(39);
    assert_eq!([0, 1, 2].map(|tracker| bench.counts(tracker)), [(1, 0); 3]);
    bench.pass(2);
    assert_eq!([0, 1, 2].map(|tracker| bench.counts(tracker)), [(0, 0); 3]);
    assert_eq!(bench.take_in(1, &noted), 0, "it does not come back");
}

#[test]
fn a_peer_that_left_does_not_come_back_by_what_was_known_before() {
    let mut bench = Bench::new(3);
    bench.announce(0, 1, Event::Started);
    let came = bench.noted(0);
    bench.take_in(1, &came);
    bench.pass(1);
    bench.announce(1, 1, Event::Stopped);
    let left = bench.noted(1);
    // What it did arrives in the other order, and twice.
    for tracker in 0..3 {
        bench.take_in(tracker, &left);
        bench.take_in(tracker, &came);
        assert_eq!(bench.counts(tracker), (0, 0));
    }
    bench.pass(1);
    assert!(is_ok(&bench.announce(2, 1, Event::Started)));
    let again = bench.noted(2);
    assert_eq!((bench.take_in(0, &again), bench.counts(0)), (1, (1, 0)));
}

#[test]
fn what_was_known_of_a_peer_before_changes_nothing_that_it_announced_since() {
    let mut bench = Bench::new(2);
    let source = host(1);
    let token = bench.token(0, source);
    let leecher = Announce { token, progress: Completion::of(0, 2), ..announce(1, Event::Started) };
    bench.ask(0, source, RequestBody::Announce(leecher));
    let before = bench.noted(0);
    bench.pass(30);
    bench.announce(1, 1, Event::Completed);
    assert_eq!(bench.take_in(1, &before), 0);
    assert_eq!(bench.counts(1), (1, 0));
    bench.pass(80);
    assert_eq!(bench.counts(1), (1, 0), "it lasts as long as what it announced");
}

#[test]
fn a_peer_that_came_back_is_not_ended_by_what_it_ended_before() {
    let mut bench = Bench::new(3);
    bench.announce(0, 1, Event::Started);
    bench.pass(1);
    bench.announce(0, 1, Event::Stopped);
    let left = bench.noted(0);
    bench.pass(1);
    bench.announce(1, 1, Event::Started);
    let back = bench.noted(1);
    assert_eq!(bench.take_in(2, &back), 1);
    for tracker in [1, 2] {
        assert_eq!(bench.take_in(tracker, &left), 0);
        assert_eq!(bench.counts(tracker), (1, 0));
    }
}

/// A client that knows the trackers one by one registers at each, under another id, and has one place all the same.
#[test]
fn of_two_registrations_at_one_port_the_later_stays_in_whichever_order_they_arrive() {
    let mut bench = Bench::new(3);
    bench.announce(0, 1, Event::Started);
    let earlier = bench.noted(0);
    bench.pass(30);
    let token = bench.token(0, host(1));
    let other = Announce { token, peer_id: PeerId([2; 16]), ..announce(1, Event::Started) };
    assert!(is_ok(&bench.ask(1, host(1), RequestBody::Announce(other)).unwrap()));
    let later = bench.noted(1);
    let both = [&earlier[..], &later].concat();
    let reversed: Vec<Change> = both.iter().rev().cloned().collect();
    for changes in [both, reversed] {
        bench.take_in(2, &changes);
        bench.take_in(1, &changes);
        assert_eq!((bench.counts(1), bench.counts(2)), ((1, 0), (1, 0)));
    }
    bench.pass(61);
    assert_eq!((bench.counts(1), bench.counts(2)), ((1, 0), (1, 0)), "the later one is still there");
}

#[test]
fn announces_that_change_nothing_are_written_twice_a_heartbeat() {
    let mut bench = Bench::new(1);
    let mut written = 0;
    // Ten a second, for a minute.
    for _ in 0..600 {
        assert!(is_ok(&bench.announce(0, 1, Event::Heartbeat)));
        written += bench.noted(0).len();
        bench.now += Duration::from_millis(100);
    }
    assert!((4..=6).contains(&written), "{written}");
    // At the usual pace, each is.
    for _ in 0..10 {
        bench.pass(27);
        bench.announce(0, 1, Event::Heartbeat);
        assert_eq!(bench.noted(0).len(), 1);
    }
}

#[test]
fn what_is_given_out_lasts_no_longer_where_it_is_taken_in() {
    let mut bench = Bench::new(2);
    bench.announce(0, 1, Event::Started);
    bench.announce(0, 2, Event::Started);
    for _ in 0..400 {
        bench.now += Duration::from_millis(230);
        for (from, to) in [(0, 1), (1, 0)] {
            let now = bench.now;
            let (seam, registry) = bench.trackers[from].fleet().unwrap();
            let mut all = Vec::new();
            seam.export(registry, 0, now, |change| all.push(change));
            bench.take_in(to, &all);
        }
    }
    // 92 s later.
    assert_eq!((bench.counts(0), bench.counts(1)), ((0, 0), (0, 0)));
}

#[test]
fn a_peer_on_the_host_of_a_tracker_is_given_out_where_other_hosts_reach_it() {
    let mut bench = Bench::new(1);
    let from = |bench: &mut Bench, source: IpAddr, peer| {
        let token = bench.token(0, source);
        bench.ask(0, source, RequestBody::Announce(Announce { token, ..announce(peer, Event::Started) }));
        bench.noted(0).first().map(|change| change.record().known.ip)
    };
    let localhost: IpAddr = [127, 0, 0, 1].into();
    assert_eq!(from(&mut bench, localhost, 1), Some(localhost), "the whole fleet may be on one host");
    bench.trackers[0].fleet().unwrap().0.set_own_ip([198, 51, 100, 7].into());
    assert_eq!(from(&mut bench, localhost, 2), Some([198, 51, 100, 7].into()));
    assert_eq!(from(&mut bench, host(3), 3), Some(host(3)));
    assert_eq!(from(&mut bench, "fe80::1".parse().unwrap(), 4), None, "good on one link only");
}

#[test]
fn zones_are_known_at_every_tracker() {
    let mut bench = Bench::new(2);
    let zone = Zone::cut("rack7").unwrap();
    // The zone of the first peer of a share is known when it announces again.
    for peer in [1, 2, 1] {
        let token = bench.token(0, host(peer));
        let announce = Announce { token, zone, ..announce(peer, Event::Started) };
        bench.ask(0, host(peer), RequestBody::Announce(announce));
        let noted = bench.noted(0);
        bench.take_in(1, &noted);
        bench.pass(20);
    }
    let now = bench.now;
    let (seam, registry) = bench.trackers[1].fleet().unwrap();
    let mut zones = Vec::new();
    seam.export(registry, 0, now, |change| zones.push(change.record().known.zone));
    assert_eq!(zones, [zone; 2]);
}

#[test]
fn a_lookup_of_an_unknown_share_waits_only_while_the_store_can_be_asked() {
    let mut bench = Bench::new(1);
    let query = || RequestBody::FirstLookup {
        query: Query::Peers { infohash: InfoHash([1; 32]), want: 50, zone: Zone::NONE },
    };
    let unknown =
        |reply: Option<ReplyBody>| matches!(reply, Some(ReplyBody::Error(ErrorCode::UnknownShare { .. })));
    let reply = bench.ask(0, host(1), query());
    assert!(unknown(reply));
    bench.trackers[0].fleet().unwrap().0.let_wait(true);
    assert_eq!(bench.ask(0, host(1), query()), None);
    assert_eq!(bench.trackers[0].fleet().unwrap().0.take_waiting(), Some(InfoHash([1; 32])));
    assert_eq!(bench.trackers[0].counters().put_off, 0);
    bench.announce(0, 1, Event::Started);
    assert_eq!(bench.counts(0), (1, 0));
    assert_eq!(bench.trackers[0].fleet().unwrap().0.take_waiting(), None);
}

#[test]
fn limits_hold_over_what_all_trackers_know() {
    let mut bench = Bench::new(2);
    let rules = Rules { limits: crate::Limits { peers: 2, ..crate::Limits::default() }, ..Rules::default() };
    let mut small = Handler::new(rules, bench.now, &mut bench.rng);
    let clock = StoreClock::new(bench.now, StoreTime(1_800_000_000_000));
    small.join_fleet(clock);
    small.share_tokens(&FleetSecret([5; 32]), clock, bench.now);
    bench.trackers[1] = small;
    for peer in 1..=3 {
        bench.announce(0, peer, Event::Started);
    }
    let noted = bench.noted(0);
    assert_eq!(bench.take_in(1, &noted), 2);
    let reply = bench.announce(1, 4, Event::Started);
    assert_eq!(reply, ReplyBody::Error(ErrorCode::Full(proto::tracker::Limit::Tracker)));
}
