use std::net::Ipv4Addr;

use proto::{
    Label, PeerId, Secret, ShareName, Zone,
    tracker::{Completion, Limit, PeerAddress, ShareCursor, ShareEntry, Shares, Token, message::MAX_SHARES},
};
use rand::{SeedableRng, rngs::StdRng};

use super::*;

mod admission;
mod listing;
mod model;
mod sites;
mod sweeping;
mod zones;

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
            // Also for a list that repeats itself, which would fill the memory before anybody noticed.
            assert!(all.len() <= total as usize, "{} of {total}", all.len());
            if !more {
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
        label: Default::default(),
        fetched: false,
        zone: Zone::NONE,
    }
}

fn seeder(share: u32, peer: u32) -> Announce {
    Announce { progress: Completion::COMPLETE, ..leecher(share, peer) }
}

fn stop(announce: Announce) -> Announce {
    Announce { event: Event::Stopped, ..announce }
}

/// A registration of many from one address.
fn at_port(announce: Announce, port: u16) -> Announce {
    Announce { port: port.try_into().unwrap(), ..announce }
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
fn every_lookup_states_how_long_it_takes_until_all_peers_had_time_to_come_back() {
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
            assert_eq!(announced, Announced { interval_s: 30, seeders: 1, leechers: 0, completed: 0 });
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
fn an_expired_registration_is_free() {
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
fn a_tracker_that_had_peers_reports_that_until_they_have_come_back() {
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
fn a_full_registry_refuses_newcomers_and_keeps_and_renews_its_peers() {
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
fn hosts_that_have_fetched_a_share_are_counted_once_and_stay_counted() {
    let mut bench = Bench::new(Limits::default());
    bench.announce(&seeder(1, 1), host(1)).unwrap();
    let fetching = |peer, label: &str, event, announce: Announce| Announce {
        peer_id: PeerId([peer; 16]),
        label: Label::cut(label).unwrap(),
        fetched: true,
        zone: Zone::NONE,
        event,
        ..announce
    };
    let mut completed = |announce: &Announce, from| bench.announce(announce, host(from)).unwrap().completed;
    assert_eq!(completed(&fetching(2, "a", Event::Started, leecher(1, 2)), 2), 0);
    assert_eq!(completed(&fetching(2, "a", Event::Completed, seeder(1, 2)), 2), 1);
    assert_eq!(completed(&fetching(2, "a", Event::Heartbeat, seeder(1, 2)), 2), 1);
    assert_eq!(completed(&fetching(2, "a", Event::Stopped, seeder(1, 2)), 2), 1, "it left");
    assert_eq!(completed(&fetching(3, "a", Event::Started, seeder(1, 3)), 2), 1, "it started again");
    assert_eq!(
        completed(&fetching(4, "b", Event::Stopped, seeder(1, 4)), 2),
        2,
        "its first announce was late"
    );
    assert_eq!(completed(&fetching(5, "c", Event::Stopped, leecher(1, 5)), 2), 2, "it gave up");
    assert_eq!(completed(&seeder(1, 6), 3), 2, "it had all of it from the start");
    let thief = Announce { secret: Secret([8; 16]), ..fetching(3, "d", Event::Completed, seeder(1, 3)) };
    assert_eq!(bench.announce(&thief, host(4)), Err(ErrorCode::NotYours));
    let peers = bench.registry.peers(&infohash(1), 9, host(1), bench.now, &mut bench.rng).unwrap();
    assert_eq!(peers.completed, 2);
    assert_eq!(bench.pages(None)[0].completed, 2);
    // When nobody has the share any more, it begins anew.
    for peer in [1, 3, 6] {
        let of =
            if peer == 3 { fetching(3, "a", Event::Stopped, leecher(1, 3)) } else { stop(seeder(1, peer)) };
        bench.announce(&of, host(1)).unwrap();
    }
    assert_eq!(bench.announce(&seeder(1, 1), host(1)).unwrap().completed, 0);
}
