use std::net::Ipv4Addr;

use proto::InfoHash;
use proto::Zone;
use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::{leaving::Unreachable, violation::Violation};

const OWN_ID: PeerId = PeerId([5; 16]);
const MAX_PEERS: usize = 8;

fn address(host: u8) -> SocketAddr {
    ([10, 0, 0, host], 7000).into()
}

fn hello(id: u8, listen_port: u16) -> Hello {
    let (infohash, peer_id) = (InfoHash([7; 32]), PeerId([id; 16]));
    Hello { infohash, peer_id, role: Role::Leecher, listen_port, zone: Zone::NONE }
}

/// Peers whose connections begin, enter and end as a test decides.
struct Bench {
    peers: Peers,
    now: Instant,
    rng: StdRng,
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "only differences to it matter")]
    fn new() -> Bench {
        let (peers, rng) = (Peers::new(OWN_ID, MAX_PEERS), StdRng::seed_from_u64(1));
        Bench { peers, now: Instant::now(), rng }
    }

    /// Connects to the only address that is due.
    fn dial(&mut self, address: SocketAddr) -> PeerKey {
        self.peers.book.discover(address, self.now);
        let (key, dialled) = self.peers.dial(self.now, &mut self.rng).unwrap();
        assert_eq!(dialled, address);
        key
    }

    fn enter(&mut self, key: PeerKey, hello: Hello) -> Verdict {
        self.peers.enter(key, hello, self.now, &mut self.rng)
    }

    fn close(&mut self, key: PeerKey, reason: LeaveReason) {
        self.peers.closed(key, reason, self.now, &mut self.rng).unwrap();
    }

    /// A peer connects and is let in, in place of another if there is no room.
    fn accept(&mut self, from: SocketAddr, listen_port: u16) {
        let key = self.peers.accept(from).unwrap();
        match self.enter(key, hello(1, listen_port)) {
            Verdict::Welcome => {}
            Verdict::Instead(other, reason) => self.close(other, reason),
            Verdict::Refused(reason) => panic!("{reason}"),
        }
    }
}

#[test]
fn peers_that_connect_do_not_stop_dials_and_are_bounded() {
    for listens in [true, false] {
        let mut bench = Bench::new();
        for port in 1..100 {
            let from = SocketAddr::new(address(1).ip(), port);
            bench.accept(from, if listens { port } else { 0 });
            assert!(bench.peers.peers.len() <= MAX_PEERS, "{port}");
        }
        (2..200).for_each(|host| _ = bench.peers.book.discover(address(host), bench.now));
        let dials = std::iter::from_fn(|| bench.peers.dial(bench.now, &mut bench.rng)).count();
        assert!((MAX_PEERS / 2..=MAX_PEERS).contains(&dials), "{dials}");
    }
}

#[test]
fn two_peers_that_dial_each_other_keep_the_connection_of_the_larger_id() {
    for (id, keeps_own) in [(4, true), (6, false)] {
        let mut bench = Bench::new();
        let dialled = bench.dial(address(1));
        assert!(matches!(bench.enter(dialled, hello(id, 7000)), Verdict::Welcome));
        let accepted = bench.peers.accept(SocketAddr::new(address(1).ip(), 50_000)).unwrap();
        match bench.enter(accepted, hello(id, 7000)) {
            Verdict::Refused(GoodbyeReason::Duplicate) => assert!(keeps_own, "{id}"),
            Verdict::Instead(other, _) => assert!(other == dialled && !keeps_own, "{id}"),
            _ => panic!("there is a twin"),
        }
    }
}

#[test]
fn a_peer_that_claims_the_id_of_another_is_not_taken_for_it() {
    let mut bench = Bench::new();
    let dialled = bench.dial(address(1));
    assert!(matches!(bench.enter(dialled, hello(6, 7000)), Verdict::Welcome));
    // Each differs from the twin in one thing: the host, the port, the direction.
    let elsewhere = bench.peers.accept(address(2)).unwrap();
    assert!(matches!(bench.enter(elsewhere, hello(6, 7000)), Verdict::Welcome));
    let other_port = bench.peers.accept(SocketAddr::new(address(1).ip(), 50_000)).unwrap();
    assert!(matches!(bench.enter(other_port, hello(6, 7001)), Verdict::Welcome));
    let same_direction = bench.dial(address(3));
    assert!(matches!(bench.enter(same_direction, hello(6, 7000)), Verdict::Welcome));
}

#[test]
fn a_liar_that_left_before_its_lie_was_found_is_banned() {
    let mut bench = Bench::new();
    let liar = bench.dial(address(1));
    assert!(matches!(bench.enter(liar, hello(1, 7000)), Verdict::Welcome));
    (0..2).for_each(|_| bench.peers.proving(liar));
    bench.close(liar, LeaveReason::Disconnected);
    assert_eq!(bench.peers.ban_departed(liar), Some(address(1)));
    assert_eq!(bench.peers.ban_departed(liar), None, "reported once");
    let again = bench.peers.accept(address(1)).unwrap();
    let verdict = bench.enter(again, hello(1, 0));
    assert!(matches!(verdict, Verdict::Refused(GoodbyeReason::Banned)), "from this moment on");
    assert!(!bench.peers.book.is_all_banned(), "another chunk is being proved");
    (0..2).for_each(|_| bench.peers.proved(liar, bench.now, &mut bench.rng));
    assert!(bench.peers.book.is_all_banned());
    let again = bench.peers.accept(address(1)).unwrap();
    assert!(matches!(bench.enter(again, hello(1, 0)), Verdict::Refused(GoodbyeReason::Banned)));
}

/// Another peer may listen there, behind the same NAT.
#[test]
fn a_liar_that_connected_does_not_get_the_address_banned_that_it_claims() {
    let mut bench = Bench::new();
    bench.accept(SocketAddr::new(address(1).ip(), 50_000), 7000);
    bench.close(PeerKey(1), LeaveReason::Lied);
    assert!(bench.peers.dial(bench.now, &mut bench.rng).is_none());
    bench.now += REDIAL_REST;
    bench.dial(address(1));
}

#[test]
fn connections_that_have_not_entered_are_bounded() {
    let mut bench = Bench::new();
    let from = |host: u16| SocketAddr::from((Ipv4Addr::new(10, 1, 0, 1).to_ipv6_mapped(), host));
    let accepted: Vec<_> = (1..100).map_while(|port| bench.peers.accept(from(port))).collect();
    assert_eq!(accepted.len(), ACCEPTED_FACTOR * MAX_PEERS);
    let first = bench.peers.address(accepted[0]);
    assert_eq!(first, Some(([10, 1, 0, 1], 1).into()), "an IPv4 address has one form");
    bench.close(accepted[0], LeaveReason::Disconnected);
    assert!(bench.peers.accept(from(100)).is_some() && bench.peers.accept(from(101)).is_none());
}

#[test]
fn a_liar_that_is_leaving_for_another_reason_is_banned_and_reported_as_a_liar() {
    let mut bench = Bench::new();
    let liar = bench.dial(address(1));
    assert!(matches!(bench.enter(liar, hello(1, 7000)), Verdict::Welcome));
    bench.peers.leave(liar, LeaveReason::TooSlow, bench.now);
    assert_eq!(bench.peers.ban_departed(liar), None);
    let left = bench.peers.closed(liar, LeaveReason::Disconnected, bench.now, &mut bench.rng).unwrap();
    assert_eq!(left.reason, LeaveReason::Lied);
    assert!(bench.peers.book.is_all_banned());
}

#[test]
fn a_liar_does_not_come_again_while_its_connection_ends() {
    let mut bench = Bench::new();
    for (host, leaves_first) in [(1, false), (2, true)] {
        let liar = bench.peers.accept(address(host)).unwrap();
        assert!(matches!(bench.enter(liar, hello(1, 0)), Verdict::Welcome));
        if leaves_first {
            bench.peers.leave(liar, LeaveReason::TooSlow, bench.now);
            assert_eq!(bench.peers.ban_departed(liar), None);
        } else {
            bench.peers.leave(liar, LeaveReason::Lied, bench.now);
        }
        let again = bench.peers.accept(address(host)).unwrap();
        assert!(matches!(bench.enter(again, hello(1, 0)), Verdict::Refused(GoodbyeReason::Banned)));
    }
}

#[test]
fn a_peer_that_left_with_a_chunk_unproved_is_not_let_in_again_before_it_is_proved() {
    let mut bench = Bench::new();
    let from = |port| SocketAddr::new(address(1).ip(), port);
    let liar = bench.peers.accept(from(1)).unwrap();
    assert!(matches!(bench.enter(liar, hello(1, 0)), Verdict::Welcome));
    bench.peers.proving(liar);
    bench.close(liar, LeaveReason::Disconnected);
    let again = bench.peers.accept(from(2)).unwrap();
    assert!(matches!(bench.enter(again, hello(1, 0)), Verdict::Refused(reason) if reason == NO_ROOM));
    bench.peers.proved(liar, bench.now, &mut bench.rng);
    let again = bench.peers.accept(from(3)).unwrap();
    assert!(matches!(bench.enter(again, hello(1, 0)), Verdict::Welcome), "the chunk was right");
    // A peer that this side dialled is known by its address, and others of its host may come.
    let dialled = bench.dial(address(2));
    assert!(matches!(bench.enter(dialled, hello(2, 7000)), Verdict::Welcome));
    bench.peers.proving(dialled);
    bench.close(dialled, LeaveReason::Disconnected);
    bench.accept(address(2), 7001);
}

#[test]
fn a_peer_that_connected_and_broke_the_protocol_is_not_let_in_again_for_a_minute() {
    let mut bench = Bench::new();
    let flooder = bench.peers.accept(address(1)).unwrap();
    assert!(matches!(bench.enter(flooder, hello(1, 0)), Verdict::Welcome));
    bench.close(flooder, LeaveReason::Protocol(Violation::Malformed));
    for listen_port in [0, 7000] {
        let again = bench.peers.accept(address(1)).unwrap();
        assert!(
            matches!(bench.enter(again, hello(1, listen_port)), Verdict::Refused(reason) if reason == NO_ROOM)
        );
        bench.close(again, LeaveReason::Goodbye(NO_ROOM));
    }
    // A peer that this side dialled rests at the address where it listens, and others of its host may come.
    let dialled = bench.dial(address(2));
    assert!(matches!(bench.enter(dialled, hello(2, 7000)), Verdict::Welcome));
    bench.close(dialled, LeaveReason::Protocol(Violation::Malformed));
    bench.accept(address(2), 7001);
    bench.now += REDIAL_REST;
    bench.accept(address(1), 0);
}

/// Each accepts the connection and sends nothing.
#[test]
fn an_address_that_does_not_answer_makes_room_for_another() {
    let mut bench = Bench::new();
    (1..=20).for_each(|host| _ = bench.peers.book.discover(address(host), bench.now));
    let dial = |bench: &mut Bench| std::iter::from_fn(|| bench.peers.dial(bench.now, &mut bench.rng)).count();
    assert_eq!(dial(&mut bench), MAX_PEERS);
    let begun = bench.now;
    assert_eq!(bench.peers.unanswered(bench.now), None);
    assert_eq!(bench.peers.next_timeout(bench.now), Some(begun + DIAL_PATIENCE));
    bench.now += DIAL_PATIENCE;
    // One has answered.
    bench.peers.answered(PeerKey(1));
    let leave_silent = |bench: &mut Bench| {
        let mut left = Vec::new();
        while let Some(key) = bench.peers.unanswered(bench.now) {
            bench.peers.leave(key, LeaveReason::Unreachable(Unreachable::Silent), bench.now);
            left.push(key);
        }
        left.iter().for_each(|&key| bench.close(key, LeaveReason::Finished));
        left.len()
    };
    assert_eq!(leave_silent(&mut bench), MAX_PEERS - 1);
    assert_eq!(dial(&mut bench), MAX_PEERS - 1);
    // No more of them make room than there are addresses.
    bench.now += DIAL_PATIENCE;
    assert_eq!(leave_silent(&mut bench), 20 - (2 * MAX_PEERS - 1));
}
