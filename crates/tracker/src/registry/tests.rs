use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use proto::{
    PeerId, Secret, ShareName,
    tracker::{Completion, PeerAddress, Token},
};
use rand::{SeedableRng, rngs::StdRng};

use super::*;

mod model;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const EXPIRE: Duration = Duration::from_secs(90);

/// A registry with its clock and randomness.
struct Bench {
    registry: Registry,
    now: Instant,
    rng: StdRng,
}

impl Bench {
    fn new(limits: Limits) -> Bench {
        let now = Instant::now();
        let rules = Rules { expire: EXPIRE, limits, ..Rules::default() };
        Bench { registry: Registry::new(rules, now), now, rng: StdRng::seed_from_u64(1) }
    }

    fn announce(&mut self, announce: &Announce, source: IpAddr) -> Result<Announced, ErrorCode> {
        self.registry.announce(announce, source, self.now)
    }

    fn counts(&mut self, announce: &Announce, source: IpAddr) -> (u32, u32) {
        let announced = self.announce(announce, source).unwrap();
        (announced.seeders, announced.leechers)
    }

    fn peers(&mut self, share: u32, requester: IpAddr) -> Result<Peers, ErrorCode> {
        self.registry.peers(&infohash(share), u8::MAX, requester, self.now, &mut self.rng)
    }

    fn only_peer(&mut self, share: u32, requester: IpAddr) -> PeerEntry {
        let peers = self.peers(share, requester).unwrap().peers;
        assert_eq!(peers.len(), 1);
        peers[0]
    }

    /// Every page of a list.
    fn pages(&mut self, name: Option<&str>) -> Vec<ShareEntry> {
        let mut all: Vec<ShareEntry> = Vec::new();
        loop {
            let page = match name {
                None => self.registry.list(all.last().map(ShareEntry::cursor), self.now),
                Some(text) => {
                    self.registry.named(name_of(text), all.last().map(ShareEntry::standing), self.now)
                }
            };
            let Shares { shares: page, more, total, .. } = page.expect("a page");
            assert!(page.len() == MAX_SHARES || !more);
            all.extend(page);
            if !more {
                assert!(total as usize >= all.len(), "{total} of {}", all.len());
                return all;
            }
        }
    }

    /// Infohashes of all shares of a name, by the number of the share, as they are listed.
    fn named(&mut self, name: &str) -> Vec<u32> {
        let number = |share: ShareEntry| u32::from_be_bytes(*share.infohash.0.first_chunk().unwrap());
        self.pages(Some(name)).into_iter().map(number).collect()
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

fn infohash(share: u32) -> InfoHash {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&share.to_be_bytes());
    InfoHash(bytes)
}

fn name_of(text: &str) -> ShareName {
    ShareName::new(text).unwrap()
}

fn host(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + number).into()
}

/// A leecher's heartbeat: it registers and renews alike.
fn leecher(share: u32, peer: u32) -> Announce {
    let mut id = [0; 16];
    // Many peers have the same first byte.
    id[0] = peer.to_le_bytes()[0] % 8;
    id[1..5].copy_from_slice(&peer.to_le_bytes());
    Announce {
        token: Token([0; 16]),
        infohash: infohash(share),
        peer_id: PeerId(id),
        secret: Secret([7; 16]),
        port: 7000.try_into().unwrap(),
        name: name_of(&format!("share {share}")),
        size: u64::from(share) + 1,
        event: Event::Heartbeat,
        progress: Completion::of(1, 2),
    }
}

fn seeder(share: u32, peer: u32) -> Announce {
    Announce { progress: Completion::COMPLETE, ..leecher(share, peer) }
}

fn stop(announce: Announce) -> Announce {
    Announce { event: Event::Stopped, ..announce }
}

fn small(limits: impl FnOnce(&mut Limits)) -> Limits {
    let mut small = Limits::default();
    limits(&mut small);
    small
}

fn assert_unknown(result: Result<Peers, ErrorCode>) {
    assert!(matches!(result, Err(ErrorCode::UnknownShare { .. })), "{result:?}");
}

#[test]
fn every_lookup_tells_how_long_it_takes_until_everybody_had_time_to_come_back() {
    let mut bench = Bench::new(Limits::default());
    bench.now += Duration::from_millis(200);
    bench.announce(&seeder(1, 1), host(1)).unwrap();
    for (after_s, left) in [(0, 45), (40, 5), (4, 1), (1, 0), (1_000_000, 0)] {
        bench.pass(after_s);
        bench.announce(&seeder(1, 1), host(1)).unwrap();
        let settles = |shares: Option<Shares>| shares.unwrap().settles_in_s;
        assert_eq!(bench.peers(2, host(2)), Err(ErrorCode::UnknownShare { settles_in_s: left }));
        assert_eq!(bench.peers(1, host(2)).unwrap().settles_in_s, left);
        assert_eq!(settles(bench.registry.named("unknown", None, bench.now)), left);
        assert_eq!(settles(bench.registry.list(None::<ShareCursor>, bench.now)), left);
    }
    let second = Duration::from_secs(1);
    for (heartbeat, expire, left) in [(70_000, 100_000, u16::MAX), (30, 31, 31), (1, 2, 2), (1, 90, 16)] {
        let rules = Rules { heartbeat: heartbeat * second, expire: expire * second, ..Rules::default() };
        bench.registry = Registry::new(rules, bench.now);
        assert_eq!(bench.peers(1, host(2)), Err(ErrorCode::UnknownShare { settles_in_s: left }));
    }
}

#[test]
fn every_event_but_stopped_registers_and_repeating_it_changes_nothing() {
    for event in [Event::Started, Event::Heartbeat, Event::Completed] {
        let mut bench = Bench::new(Limits::default());
        let announce = Announce { event, ..seeder(1, 1) };
        for _ in 0..3 {
            let announced = bench.announce(&announce, host(1)).unwrap();
            assert_eq!(announced, Announced { interval_s: 30, seeders: 1, leechers: 0 });
        }
        let peers = bench.peers(1, host(2)).unwrap();
        assert_eq!((peers.peers.len(), peers.interval_s), (1, 10));
    }
}

#[test]
fn a_leecher_that_completes_becomes_a_seeder() {
    let mut bench = Bench::new(Limits::default());
    assert_eq!(bench.counts(&leecher(1, 1), host(1)), (0, 1));
    assert_eq!(bench.counts(&leecher(1, 2), host(2)), (0, 2));
    assert_eq!(bench.counts(&Announce { event: Event::Completed, ..seeder(1, 1) }, host(1)), (1, 1));
    assert_eq!(bench.registry.stats(), Stats { shares: 1, seeders: 1, leechers: 1 });
}

#[test]
fn the_last_peer_to_stop_takes_the_share_with_it() {
    let mut bench = Bench::new(Limits::default());
    bench.announce(&seeder(1, 1), host(1)).unwrap();
    bench.announce(&leecher(1, 2), host(2)).unwrap();
    assert_eq!(bench.counts(&stop(seeder(1, 1)), host(1)), (0, 1));
    assert_eq!(bench.counts(&stop(leecher(1, 2)), host(2)), (0, 0));
    assert_unknown(bench.peers(1, host(1)));
    assert_eq!(bench.pages(None), []);
    // The answer may have been lost, so a second goodbye is fine.
    assert_eq!(bench.counts(&stop(leecher(1, 2)), host(2)), (0, 0));
    assert_eq!(bench.registry.stats(), Stats::default());
}

#[test]
fn a_registration_belongs_to_its_secret() {
    let mut bench = Bench::new(Limits::default());
    bench.announce(&seeder(1, 1), host(1)).unwrap();
    for event in [Event::Started, Event::Heartbeat, Event::Completed, Event::Stopped] {
        let thief = Announce { secret: Secret([8; 16]), event, ..seeder(1, 1) };
        assert_eq!(bench.announce(&thief, host(1)), Err(ErrorCode::NotYours));
    }
    assert_eq!(bench.only_peer(1, host(2)).address, PeerAddress::from(host(1)));
    // The same id in another share is another registration.
    let other = Announce { secret: Secret([8; 16]), ..seeder(2, 1) };
    assert_eq!(bench.counts(&other, host(1)), (1, 0));
}

#[test]
fn an_expired_registration_belongs_to_nobody() {
    let mut bench = Bench::new(Limits::default());
    bench.announce(&seeder(1, 1), host(1)).unwrap();
    bench.pass(91);
    let other = Announce { secret: Secret([8; 16]), ..seeder(1, 1) };
    assert_eq!(bench.counts(&other, host(2)), (1, 0));
    assert_eq!(bench.announce(&seeder(1, 1), host(1)), Err(ErrorCode::NotYours));
}

#[test]
fn a_renewal_may_change_address_port_and_progress_and_moves_the_count_of_its_address() {
    let mut bench = Bench::new(small(|limits| limits.registrations_per_ip = 1));
    bench.announce(&leecher(1, 1), host(1)).unwrap();
    let moved = Announce { port: 7001.try_into().unwrap(), progress: Completion::of(3, 4), ..leecher(1, 1) };
    bench.announce(&moved, host(2)).unwrap();
    let entry = bench.only_peer(1, host(3));
    assert_eq!(entry.socket_addr((LOOPBACK, 6020).into()), Some((host(2), 7001).into()));
    assert_eq!(entry.progress.percent(), 75);
    assert_eq!(bench.announce(&leecher(2, 2), host(2)), Err(ErrorCode::Full(Limit::Address)));
    assert!(bench.announce(&leecher(2, 2), host(1)).is_ok());
}

#[test]
fn a_share_is_listed_under_every_name_that_a_live_peer_registered_it_by() {
    let mut bench = Bench::new(Limits::default());
    let called = |name: &str, announce: Announce| Announce { name: name_of(name), ..announce };
    let liar = Announce { size: 99, ..called("liar", seeder(1, 2)) };
    bench.announce(&seeder(1, 1), host(1)).unwrap();
    bench.announce(&liar, host(2)).unwrap();
    bench.announce(&leecher(1, 3), host(3)).unwrap();
    bench.announce(&seeder(1, 4), host(4)).unwrap();
    bench.announce(&at_port(seeder(1, 5), 8_000), host(4)).unwrap();
    let share = |name, seeders, leechers, sites| ShareEntry {
        infohash: infohash(1),
        name: name_of(name),
        size: 2,
        seeders,
        leechers,
        sites,
        votes: sites,
    };
    let (honest, lie) = (share("share 1", 3, 1, 2), share("liar", 1, 0, 1));
    assert_eq!(bench.pages(None), [lie.clone(), honest.clone()]);
    assert_eq!(bench.pages(Some("share 1")), [honest]);
    assert_eq!(bench.pages(Some("liar")), std::slice::from_ref(&lie));
    // A name is that of the registration, and goes with the last peer that has it.
    bench.announce(&called("liar", seeder(1, 1)), host(1)).unwrap();
    assert_eq!(bench.pages(Some("liar")), [lie]);
    bench.announce(&stop(liar.clone()), host(2)).unwrap();
    assert_eq!(bench.pages(Some("liar")), []);
    // The same peer, started again, may have another name.
    bench.announce(&called("renamed", seeder(1, 9)), host(1)).unwrap();
    assert_eq!(bench.pages(Some("renamed")).len(), 1);
    assert_eq!(bench.pages(Some("share 1"))[0].seeders, 2);
    bench.pass(91);
    assert_eq!(bench.pages(None), []);
    assert_eq!((bench.registry.directory.len(), bench.registry.votes.len()), (0, 0));
}

#[test]
fn an_only_peer_that_is_started_again_may_have_another_name() {
    let mut bench = Bench::new(Limits::default());
    for (peer, name) in [(1, "share 1"), (2, "other"), (3, "other"), (4, "share 1")] {
        let announce = Announce { name: name_of(name), ..seeder(1, peer) };
        assert_eq!(bench.counts(&announce, host(1)), (1, 0));
        let pages = bench.pages(None);
        assert_eq!((pages.len(), pages[0].name.as_str(), pages[0].votes), (1, name, 1));
    }
    assert_eq!(bench.registry.votes.len(), 1);
}

/// 10,000 shares that one address gives the name of an honest one, each with several seeders.
#[test]
fn one_address_cannot_hide_a_share_among_namesakes() {
    for attacker_comes_first in [true, false] {
        let mut bench = Bench::new(small(|limits| limits.registrations_per_ip = u32::MAX));
        let called = |announce: Announce| Announce { name: name_of("report.pdf"), ..announce };
        if !attacker_comes_first {
            bench.announce(&called(seeder(1, 1)), host(1)).unwrap();
        }
        for share in 0..10_000 {
            for peer in 0..2 {
                let fake = at_port(called(seeder(100 + share, peer)), 8_000 + peer as u16);
                bench.announce(&fake, host(66)).unwrap();
            }
        }
        bench.announce(&called(seeder(1, 1)), host(1)).unwrap();
        let first = bench.registry.named("report.pdf", None, bench.now).unwrap();
        assert_eq!((first.total, first.more), (10_001, true));
        let place = first.shares.iter().position(|share| share.infohash == infohash(1));
        assert!(place.is_some_and(|place| place < 2), "{first:?}");
        // With a second address it is first in any case.
        bench.announce(&called(seeder(1, 2)), host(2)).unwrap();
        let first = bench.registry.named("report.pdf", None, bench.now).unwrap();
        assert_eq!((first.shares[0].infohash, first.shares[0].sites), (infohash(1), 2));
    }
}

#[test]
fn a_site_votes_for_one_share_of_each_name_and_for_another_when_that_is_gone() {
    let mut bench = Bench::new(Limits::default());
    let called = |name: &str, announce: Announce| Announce { name: name_of(name), ..announce };
    let votes = |bench: &mut Bench, name| {
        let pages = bench.pages(Some(name));
        pages.into_iter().map(|share| (share.infohash, share.votes)).collect::<Vec<_>>()
    };
    for share in [3, 2, 1] {
        bench.announce(&called("a", seeder(share, 1)), host(1)).unwrap();
        bench.announce(&called("a", leecher(share, 2)), host(2)).unwrap();
    }
    bench.announce(&called("b", seeder(4, 1)), host(1)).unwrap();
    assert_eq!(votes(&mut bench, "a"), [(infohash(3), 1), (infohash(1), 0), (infohash(2), 0)]);
    assert_eq!(votes(&mut bench, "b"), [(infohash(4), 1)]);
    // A leecher becomes a seeder, and a seeder leaves: its vote goes to the share that it announces next.
    bench.announce(&called("a", seeder(2, 2)), host(2)).unwrap();
    bench.announce(&called("a", stop(seeder(3, 1))), host(1)).unwrap();
    assert_eq!(votes(&mut bench, "a"), [(infohash(2), 1), (infohash(1), 0), (infohash(3), 0)]);
    bench.announce(&called("a", seeder(1, 1)), host(1)).unwrap();
    assert_eq!(votes(&mut bench, "a"), [(infohash(2), 1), (infohash(1), 1), (infohash(3), 0)]);
    // An only peer too.
    bench.announce(&called("b", seeder(5, 1)), host(1)).unwrap();
    bench.announce(&called("b", stop(seeder(4, 1))), host(1)).unwrap();
    assert_eq!(votes(&mut bench, "b"), [(infohash(5), 0)]);
    bench.announce(&called("b", seeder(5, 1)), host(1)).unwrap();
    assert_eq!(votes(&mut bench, "b"), [(infohash(5), 1)]);
}

#[test]
fn names_beyond_the_maximum_make_room_for_those_of_other_sites() {
    use names::MAX_NAMES;
    let mut bench = Bench::new(Limits::default());
    let called = |name: &str, announce: Announce| Announce { name: name_of(name), ..announce };
    let has = |bench: &mut Bench, name: &str| !bench.named(name).is_empty();
    // One site fills all places, and gets no more.
    for number in 0..MAX_NAMES as u32 + 3 {
        let fake = at_port(called(&format!("fake {number}"), seeder(1, 100 + number)), 8_000 + number as u16);
        bench.announce(&fake, host(66)).unwrap();
    }
    assert_eq!(bench.pages(None).len(), MAX_NAMES);
    // Still all are peers.
    assert_eq!(bench.peers(1, host(9)).unwrap().seeders, MAX_NAMES as u32 + 3);
    // A seeder of another site gets a place, a leecher does not.
    bench.announce(&called("honest", leecher(1, 1)), host(1)).unwrap();
    assert!(!has(&mut bench, "honest"));
    bench.announce(&called("honest", seeder(1, 2)), host(2)).unwrap();
    assert!(has(&mut bench, "honest"));
    // The site with many names does not get it back, neither for a new peer nor for the one that lost it.
    bench.announce(&called("fake again", at_port(seeder(1, 200), 9_000)), host(66)).unwrap();
    for number in 0..MAX_NAMES as u32 + 3 {
        let fake = at_port(called(&format!("fake {number}"), seeder(1, 100 + number)), 8_000 + number as u16);
        bench.announce(&fake, host(66)).unwrap();
    }
    assert!(has(&mut bench, "honest"));
    assert_eq!(bench.pages(None).len(), MAX_NAMES);
    // Who has no name gets one with the next announce when there is room.
    bench.announce(&called("honest", leecher(1, 1)), host(1)).unwrap();
    assert_eq!(bench.pages(Some("honest"))[0].leechers, 1);
    bench.pass(60);
    bench.announce(&called("honest", seeder(1, 2)), host(2)).unwrap();
    bench.announce(&called("late", at_port(seeder(1, 200), 9_000)), host(66)).unwrap();
    bench.pass(60);
    bench.announce(&called("late", at_port(seeder(1, 200), 9_000)), host(66)).unwrap();
    assert_eq!(bench.pages(None).len(), 2);
    assert!(has(&mut bench, "late") && has(&mut bench, "honest"));
}

#[test]
fn a_name_that_many_sites_stand_behind_is_kept() {
    let mut bench = Bench::new(Limits::default());
    for peer in 0..2 {
        bench.announce(&seeder(1, peer), host(peer)).unwrap();
    }
    // Each of many sites brings another name.
    for number in 10..100 {
        let fake = Announce { name: name_of(&format!("fake {number}")), ..seeder(1, number) };
        bench.announce(&fake, host(number)).unwrap();
    }
    assert_eq!(bench.pages(None).len(), names::MAX_NAMES);
    assert_eq!(bench.pages(Some("share 1"))[0].sites, 2);
}

#[test]
fn a_tracker_that_had_peers_says_so_until_they_have_come_back() {
    let mut bench = Bench::new(Limits::default());
    let ago =
        |bench: &mut Bench| bench.registry.list(None::<ShareCursor>, bench.now).unwrap().restarted_ago_s;
    assert_eq!(ago(&mut bench), None);
    let rules = Rules { past: Past::Peers, ..Rules::default() };
    bench.registry = Registry::new(rules, bench.now);
    for (after_s, expected) in [(0, Some(0)), (8, Some(8)), (36, Some(44)), (1, None), (1_000, None)] {
        bench.pass(after_s);
        assert_eq!(ago(&mut bench), expected);
    }
}

#[test]
fn one_address_gets_no_more_than_its_part_of_a_share() {
    let mut bench = Bench::new(small(|limits| limits.peers_per_site = 3));
    for peer in 0..3 {
        bench.announce(&at_port(seeder(1, peer), 8_000 + peer as u16), host(1)).unwrap();
    }
    let fourth = at_port(seeder(1, 3), 9_000);
    assert_eq!(bench.announce(&fourth, host(1)), Err(ErrorCode::Full(Limit::Address)));
    // It has room in other shares, others have room in this one, and one that is started again takes its own place.
    bench.announce(&at_port(seeder(2, 3), 9_000), host(1)).unwrap();
    bench.announce(&fourth, host(2)).unwrap();
    bench.announce(&at_port(seeder(1, 9), 8_000), host(1)).unwrap();
    bench.announce(&stop(at_port(seeder(1, 9), 8_000)), host(1)).unwrap();
    bench.announce(&at_port(seeder(1, 4), 9_000), host(1)).unwrap();
    assert_eq!(bench.announce(&at_port(seeder(1, 5), 9_001), host(1)), Err(ErrorCode::Full(Limit::Address)));
}

#[test]
fn an_ipv6_48_gets_no_more_of_the_answers_than_a_few_addresses() {
    let mut bench = Bench::new(Limits::default());
    for part in 0..1_000 {
        let attacker = Ipv6Addr::new(0x2001, 0xdb8, 1, part, 0, 0, 0, 1);
        bench.announce(&seeder(1, 100 + u32::from(part)), attacker.into()).unwrap();
    }
    for peer in 0..8 {
        bench.announce(&seeder(1, peer), host(peer)).unwrap();
    }
    let named = named(&mut bench, 4, 10_000);
    let honest: u32 = named.iter().filter(|(address, _)| address.is_ipv4()).map(|(_, count)| count).sum();
    // Half of the answers; five standard deviations are some 500.
    assert!(honest.abs_diff(20_000) < 500, "{honest} of 40,000");
}

#[test]
fn a_peer_is_there_for_exactly_the_expiry_time_though_nothing_is_swept() {
    let mut bench = Bench::new(Limits::default());
    bench.now += Duration::from_millis(1_234);
    bench.announce(&seeder(1, 1), host(1)).unwrap();
    bench.now += EXPIRE;
    assert_eq!(bench.peers(1, host(2)).unwrap().seeders, 1);
    assert_eq!(bench.pages(None).len(), 1);
    bench.now += TICK;
    assert_eq!(bench.pages(None), []);
    assert_unknown(bench.peers(1, host(2)));
}

#[test]
fn a_peer_on_the_trackers_host_is_given_to_others_as_being_there() {
    let mut bench = Bench::new(Limits::default());
    let loopbacks = ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"];
    for loopback in loopbacks.map(|ip| ip.parse::<IpAddr>().unwrap()) {
        bench.announce(&seeder(1, 1), loopback).unwrap();
        for other in [host(1), "2001:db8::1".parse().unwrap()] {
            assert_eq!(bench.only_peer(1, other).address, PeerAddress::TrackerHost);
        }
        for local in loopbacks.map(|ip| ip.parse().unwrap()) {
            assert_eq!(bench.only_peer(1, local).address, PeerAddress::from(loopback));
        }
    }
    let public: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
    bench.announce(&seeder(1, 1), public).unwrap();
    assert_eq!(bench.only_peer(1, LOOPBACK).address, PeerAddress::V4([192, 0, 2, 1]));
}

#[test]
fn a_link_local_address_is_told_only_to_who_is_on_a_link_with_the_tracker() {
    let mut bench = Bench::new(Limits::default());
    bench.announce(&seeder(1, 1), "fe80::1".parse().unwrap()).unwrap();
    for elsewhere in [host(1), LOOPBACK, "2001:db8::1".parse().unwrap()] {
        let peers = bench.peers(1, elsewhere).unwrap();
        assert_eq!((peers.peers.len(), peers.seeders), (0, 1));
    }
    let on_link = "fe80::2".parse().unwrap();
    assert_eq!(bench.only_peer(1, on_link).address, PeerAddress::from("fe80::1".parse::<IpAddr>().unwrap()));
    bench.announce(&seeder(1, 1), LOOPBACK).unwrap();
    assert_eq!(bench.only_peer(1, on_link).address, PeerAddress::TrackerHost);
}

#[test]
fn the_addresses_of_an_ipv6_network_count_as_one() {
    let mut bench = Bench::new(small(|limits| limits.registrations_per_ip = 2));
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    bench.announce(&seeder(1, 1), ip("2001:db8:0:1::1")).unwrap();
    bench.announce(&seeder(1, 2), ip("2001:db8:0:1:ffff::2")).unwrap();
    let third = ip("2001:db8:0:1::3");
    assert_eq!(bench.announce(&seeder(1, 3), third), Err(ErrorCode::Full(Limit::Address)));
    bench.announce(&seeder(1, 3), ip("2001:db8:0:2::1")).unwrap();
    bench.announce(&stop(seeder(1, 1)), ip("2001:db8:0:1::1")).unwrap();
    bench.announce(&seeder(1, 4), third).unwrap();
}

#[test]
fn lookups_are_samples_without_repeats_that_reach_everyone() {
    for swarm in [1, 5, 64, 65, 200] {
        let mut bench = Bench::new(Limits::default());
        for peer in 0..swarm {
            let announce = if peer % 2 == 0 { seeder(1, peer) } else { leecher(1, peer) };
            bench.announce(&announce, host(peer)).unwrap();
        }
        let mut seen = BTreeSet::new();
        for _ in 0..100 {
            let sample = bench.peers(1, host(0)).unwrap();
            assert_eq!((sample.seeders, sample.leechers), (swarm.div_ceil(2), swarm / 2));
            let address = |peer: &PeerEntry| peer.socket_addr((host(0), 6020).into());
            let addresses: BTreeSet<_> = sample.peers.iter().map(address).collect();
            assert_eq!(addresses.len(), MAX_PEERS.min(swarm as usize));
            assert_eq!(addresses.len(), sample.peers.len());
            seen.extend(addresses);
        }
        assert_eq!(seen.len(), swarm as usize);
        let few = bench.registry.peers(&infohash(1), 3, host(0), bench.now, &mut bench.rng).unwrap();
        assert_eq!(few.peers.len(), 3.min(swarm as usize));
    }
}

/// A registration of many from one address.
fn at_port(announce: Announce, port: u16) -> Announce {
    Announce { port: port.try_into().unwrap(), ..announce }
}

/// How often each peer is named in `lookups` lookups of share 1 for `want` peers.
fn named(bench: &mut Bench, want: u8, lookups: u32) -> BTreeMap<SocketAddr, u32> {
    let mut named = BTreeMap::new();
    for _ in 0..lookups {
        let peers = bench.registry.peers(&infohash(1), want, host(999), bench.now, &mut bench.rng).unwrap();
        for peer in peers.peers {
            *named.entry(peer.socket_addr((host(999), 6020).into()).unwrap()).or_default() += 1;
        }
    }
    named
}

#[test]
fn an_address_has_one_share_of_the_answers_however_many_peers_it_registers() {
    let mut bench = Bench::new(Limits::default());
    for peer in 0..1_000 {
        bench.announce(&at_port(seeder(1, 100 + peer), 8_000 + peer as u16), host(66)).unwrap();
    }
    let honest = [1, 2, 3];
    for peer in honest {
        bench.announce(&seeder(1, peer), host(peer)).unwrap();
    }
    let all = named(&mut bench, 50, 100);
    for peer in honest {
        assert_eq!(all[&SocketAddr::new(host(peer), 7000)], 100, "in every answer that has room for it");
    }
    let few = named(&mut bench, 2, 10_000);
    for peer in honest {
        // Half of the answers; five standard deviations are some 250.
        assert!(few[&SocketAddr::new(host(peer), 7000)].abs_diff(5_000) < 250, "{peer}");
    }
    let crowded: Vec<_> = few.iter().filter(|(address, _)| address.ip() == host(66)).collect();
    assert_eq!(crowded.len(), 1_000, "the peers of an address take turns");
    assert!(crowded.iter().all(|&(_, &count)| (3..=7).contains(&count)), "{crowded:?}");
}

#[test]
fn an_ipv6_network_has_one_share_of_the_answers() {
    let mut bench = Bench::new(Limits::default());
    for peer in 0..200 {
        let attacker: Ipv6Addr = format!("2001:db8:0:1::{peer:x}").parse().unwrap();
        bench.announce(&seeder(1, 100 + peer), attacker.into()).unwrap();
    }
    let honest: Ipv6Addr = "2001:db8:0:2::1".parse().unwrap();
    bench.announce(&seeder(1, 1), honest.into()).unwrap();
    let named = named(&mut bench, 1, 10_000);
    assert!(named[&SocketAddr::new(honest.into(), 7000)].abs_diff(5_000) < 250);
}

#[test]
fn there_is_one_peer_at_an_address_and_port() {
    let mut bench = Bench::new(Limits::default());
    bench.announce(&leecher(1, 1), host(1)).unwrap();
    bench.announce(&leecher(1, 2), host(2)).unwrap();
    // One that was started again, with an id of its own.
    for (peer, seeders) in [(3, 1), (4, 1), (1, 1)] {
        assert_eq!(bench.counts(&seeder(1, peer), host(1)), (seeders, 1));
    }
    // One that moves to where another was.
    assert_eq!(bench.counts(&leecher(1, 2), host(1)), (0, 1));
    assert_eq!(bench.only_peer(1, host(9)).address, PeerAddress::from(host(1)));
    assert_eq!(bench.registry.stats(), Stats { shares: 1, seeders: 0, leechers: 1 });
    assert_eq!(bench.registry.census.registrations_from(host(1).into()), 1);
    assert_eq!(bench.registry.census.registrations_from(host(2).into()), 0);
}

#[test]
fn a_newcomer_from_a_new_address_takes_the_place_of_one_from_a_crowded_address() {
    for limits in [small(|limits| limits.peers_per_share = 4), small(|limits| limits.peers = 4)] {
        let mut bench = Bench::new(limits);
        bench.announce(&seeder(1, 1), host(1)).unwrap();
        for peer in 2..5 {
            bench.announce(&at_port(seeder(1, peer), 8_000 + peer as u16), host(66)).unwrap();
        }
        for newcomer in [5, 6] {
            assert_eq!(bench.counts(&leecher(1, newcomer), host(newcomer)).1, newcomer - 4);
        }
        // Now every peer has an address of its own, and nobody makes room. A second peer of an address never gets room this way.
        assert!(matches!(bench.announce(&leecher(1, 7), host(7)), Err(ErrorCode::Full(_))));
        let more = at_port(seeder(1, 8), 9_000);
        assert!(matches!(bench.announce(&more, host(66)), Err(ErrorCode::Full(_))));
        let named = named(&mut bench, 50, 1);
        for (peer, count) in [(1, 1), (66, 1), (5, 1), (6, 1)] {
            assert_eq!(named.keys().filter(|address| address.ip() == host(peer)).count(), count);
        }
        assert_eq!(bench.registry.census.registrations_from(host(66).into()), 1);
    }
}

#[test]
fn the_list_is_by_name_then_infohash_and_pages_leave_nothing_out() {
    let mut bench = Bench::new(Limits::default());
    let names = ["b", "a", "c"];
    for share in 0..30 {
        let announce = Announce { name: name_of(names[share as usize % 3]), ..leecher(share, 1) };
        bench.announce(&announce, host(1)).unwrap();
    }
    // A gap in the middle of a page, not swept.
    bench.pass(60);
    for share in (0..30).filter(|share| share % 7 != 0) {
        let announce = Announce { name: name_of(names[share as usize % 3]), ..leecher(share, 1) };
        bench.announce(&announce, host(1)).unwrap();
    }
    bench.pass(60);
    // All from one address, so the first of each name has its vote.
    let live = |name: &str| {
        let shares = (0..30).filter(|&share| share % 7 != 0 && names[share as usize % 3] == name);
        shares.map(|share| (name.to_owned(), infohash(share))).collect::<Vec<_>>()
    };
    let heads = |shares: Vec<ShareEntry>| {
        shares.into_iter().map(|share| (String::from(share.name), share.infohash)).collect::<Vec<_>>()
    };
    for name in names {
        assert_eq!(heads(bench.pages(Some(name))), live(name));
    }
    assert_eq!(heads(bench.pages(None)), [live("a"), live("b"), live("c")].concat());
    assert_eq!(bench.pages(Some("ab")), []);
}

#[test]
fn a_full_registry_refuses_newcomers_and_keeps_and_renews_who_is_there() {
    type Refused = fn() -> (Announce, IpAddr);
    let cases: [(Limits, Limit, Refused); 4] = [
        (small(|limits| limits.peers = 2), Limit::Tracker, || (seeder(1, 9), host(9))),
        (small(|limits| limits.shares = 2), Limit::Shares, || (seeder(9, 9), host(9))),
        (small(|limits| limits.peers_per_share = 1), Limit::Share, || (seeder(1, 9), host(9))),
        (small(|limits| limits.registrations_per_ip = 1), Limit::Address, || (seeder(9, 9), host(1))),
    ];
    for (limits, full, refused) in cases {
        let mut bench = Bench::new(limits);
        bench.announce(&seeder(1, 1), host(1)).unwrap();
        bench.announce(&seeder(2, 2), host(2)).unwrap();
        let (newcomer, source) = refused();
        bench.pass(60);
        assert_eq!(bench.announce(&newcomer, source), Err(ErrorCode::Full(full)));
        // An end of nothing does not register either.
        assert!(bench.announce(&stop(newcomer.clone()), source).is_ok());
        bench.announce(&seeder(1, 1), host(1)).unwrap();
        bench.announce(&seeder(2, 2), host(2)).unwrap();
        bench.pass(60);
        assert_eq!(bench.announce(&newcomer, source), Err(ErrorCode::Full(full)));
        assert_eq!(bench.registry.stats(), Stats { shares: 2, seeders: 2, leechers: 0 });
        // There is room again when a peer leaves. Expired peers make room when they are swept.
        bench.announce(&stop(seeder(1, 1)), host(1)).unwrap();
        bench.pass(91);
        bench.registry.sweep(bench.now, 10);
        assert!(bench.announce(&newcomer, source).is_ok());
    }
}

#[test]
fn a_sweep_keeps_to_its_budget_and_goes_everywhere() {
    let mut bench = Bench::new(Limits::default());
    for share in 0..1_000 {
        bench.announce(&leecher(share, 0), host(share)).unwrap();
    }
    bench.pass(91);
    // One live share among expired ones, and another with two peers, one of them expired.
    bench.announce(&leecher(500, 1), host(1)).unwrap();
    let mut calls = 0;
    while bench.registry.stats().shares > 1 {
        assert!(bench.registry.sweep(bench.now, 64).looked <= 64);
        calls += 1;
        assert!(calls <= 16, "1,000 peers in calls of 64");
    }
    assert_eq!(bench.registry.stats(), Stats { shares: 1, seeders: 0, leechers: 1 });
    assert_eq!((bench.registry.directory.len(), bench.registry.votes.len()), (1, 0));
    assert_eq!(bench.registry.census.registrations_from(host(2).into()), 0);
}

#[test]
fn a_round_of_sweeping_tells_when_the_next_is_due() {
    let mut bench = Bench::new(Limits::default());
    let all = |bench: &mut Bench| bench.registry.sweep(bench.now, usize::MAX).nobody_before.unwrap();
    let slack = 3 * TICK;
    // A peer that comes now cannot expire earlier.
    let due = all(&mut bench);
    assert!(due >= bench.now + EXPIRE && due <= bench.now + EXPIRE + slack);
    bench.announce(&seeder(1, 1), host(1)).unwrap();
    let first = bench.now;
    bench.pass(30);
    bench.announce(&seeder(2, 1), host(1)).unwrap();
    let due = all(&mut bench);
    assert!(due >= first + EXPIRE && due <= first + EXPIRE + slack);
    // A round of several calls does not miss a peer that comes meanwhile.
    bench.now = due;
    assert_eq!(bench.registry.sweep(bench.now, 1).nobody_before, None);
    bench.announce(&seeder(3, 1), host(1)).unwrap();
    let due = all(&mut bench);
    assert_eq!(bench.registry.stats().seeders, 2);
    assert!(due <= first + Duration::from_secs(30) + EXPIRE + slack);
    bench.now = due;
    all(&mut bench);
    assert_eq!(bench.registry.stats().seeders, 1);
}

#[test]
fn memory_is_given_back_when_everybody_expired() {
    let mut bench = Bench::new(small(|limits| limits.registrations_per_ip = u32::MAX));
    for share in 0..20_000 {
        bench.announce(&leecher(share, 0), host(1)).unwrap();
    }
    assert!(bench.registry.shares.capacity() >= 20_000);
    bench.pass(60);
    bench.announce(&leecher(5, 0), host(1)).unwrap();
    bench.pass(60);
    while bench.registry.sweep(bench.now, 1_000).nobody_before.is_none() {}
    assert_eq!(bench.registry.stats().shares, 1);
    assert!(bench.registry.shares.capacity() < 100, "{}", bench.registry.shares.capacity());
    assert_eq!(bench.only_peer(5, host(2)).address, PeerAddress::from(host(1)));
}

#[test]
fn what_happened_is_in_the_journal() {
    let mut bench = Bench::new(small(|limits| limits.peers = 2));
    bench.announce(&seeder(1, 1), host(1)).unwrap();
    bench.registry.keep_journal();
    bench.announce(&seeder(1, 2), host(2)).unwrap();
    bench.announce(&seeder(1, 1), host(1)).unwrap();
    bench.announce(&seeder(1, 3), host(3)).unwrap_err();
    bench.announce(&stop(seeder(1, 1)), host(1)).unwrap();
    bench.pass(91);
    bench.registry.sweep(bench.now, 10);
    let journal = format!("{:?}", bench.registry.take_journal());
    let order = ["Registered", "Refused(Tracker)", "Left", "Expired"].map(|what| journal.find(what));
    assert!(order.is_sorted() && order.iter().all(Option::is_some), "{journal}");
    assert_eq!(journal.matches("what:").count(), 4, "{journal}");
    assert!(!format!("{:?}", bench.registry.take_journal()).contains("what:"));
}

#[test]
fn a_sweep_misses_nothing_though_shares_come_and_go_meanwhile() {
    let mut bench = Bench::new(Limits::default());
    for share in 0..100 {
        bench.announce(&leecher(share, 0), host(0)).unwrap();
    }
    bench.pass(91);
    for round in 0..100 {
        bench.registry.sweep(bench.now, 1);
        // A new share, and one that goes, so the last share fills its position.
        bench.announce(&leecher(1_000 + round, 0), host(1)).unwrap();
        bench.announce(&stop(leecher(1_000 + round / 2, 0)), host(1)).unwrap();
    }
    assert_eq!(bench.registry.census.registrations_from(host(0).into()), 0);
}

#[test]
fn a_look_at_the_list_is_put_off_rather_than_long() {
    let mut bench = Bench::new(small(|limits| limits.registrations_per_ip = u32::MAX));
    let expiring = 2 * (MAX_DROPPED as u32 + 1);
    for share in 0..expiring {
        let announce = Announce { name: name_of("b"), ..leecher(share, 0) };
        bench.announce(&announce, host(1)).unwrap();
    }
    bench.pass(91);
    let before = Announce { name: name_of("a"), ..leecher(expiring, 0) };
    let after = Announce { name: name_of("b"), ..leecher(expiring + 1, 0) };
    bench.announce(&before, host(1)).unwrap();
    bench.announce(&after, host(1)).unwrap();
    // The live shares before the expired ones are sent, and that there may be more.
    let Shares { shares: page, more, .. } =
        bench.registry.list(None::<ShareCursor>, bench.now).expect("a page");
    assert_eq!((page.len(), more), (1, true));
    assert_eq!(page[0].infohash, before.infohash);
    assert_eq!(bench.registry.list(Some(page[0].cursor()), bench.now), None);
    let Shares { shares: page, more, .. } =
        bench.registry.named(name_of("b"), None, bench.now).expect("a page");
    assert_eq!((page.len(), more), (1, false));
    assert_eq!(page[0].infohash, after.infohash);
}
