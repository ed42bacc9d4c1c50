use rand::{SeedableRng, rngs::StdRng};

use super::*;

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn dials(book: &mut PeerBook, now: Instant, rng: &mut StdRng) -> usize {
    std::iter::from_fn(|| book.next_dial(now, rng)).count()
}

#[test]
fn dials_each_address_once_and_no_more_than_it_may() {
    let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut book = PeerBook::new(6);
    for port in [1, 2, 3, 2, 1] {
        book.discover(address(port), now);
    }
    assert_eq!(dials(&mut book, now, &mut rng), 3);
    (4..10).for_each(|port| _ = book.discover(address(port), now));
    assert_eq!(dials(&mut book, now, &mut rng), 3);
    book.connected(address(1), now);
    assert_eq!(dials(&mut book, now, &mut rng), 0);
    book.disconnected(address(1), Redial::Never, now, &mut rng);
    assert_eq!(dials(&mut book, now, &mut rng), 1);
}

#[test]
fn few_dials_are_under_way_at_a_time() {
    let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut book = PeerBook::new(500);
    (1..100).for_each(|port| _ = book.discover(address(port), now));
    assert_eq!(dials(&mut book, now, &mut rng), MAX_DIALS);
}

#[test]
fn failures_are_tried_again_after_longer_and_longer_waits() {
    let (mut now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut book = PeerBook::new(5);
    book.discover(address(1), now);
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert_eq!(book.next_dial(now, &mut rng), Some(address(1)));
        book.disconnected(address(1), Redial::BackOff, now, &mut rng);
        assert_eq!(book.next_dial(now, &mut rng), None);
        let next = book.next_timeout(now).unwrap();
        waits.push(next - now);
        now = next;
    }
    assert!(waits[..4].windows(2).all(|w| w[1] > w[0]), "{waits:?}");
    assert!(waits.iter().all(|&wait| wait < LAST_RETRY.mul_f64(1.2)), "{waits:?}");
}

#[test]
fn an_address_that_fails_rests_longer_and_longer_and_a_steady_connection_is_no_failure() {
    let (mut now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut book = PeerBook::new(5);
    book.discover(address(1), now);
    let mut meet = |lasts: Duration| {
        assert_eq!(book.next_dial(now, &mut rng), Some(address(1)));
        book.connected(address(1), now);
        now += lasts;
        book.disconnected(address(1), Redial::After(Duration::ZERO), now, &mut rng);
        let wait = book.next_timeout(now).unwrap() - now;
        now += wait;
        wait
    };
    let waits: Vec<_> = (0..4).map(|_| meet(Duration::ZERO)).collect();
    assert!(waits.windows(2).all(|w| w[1] > w[0]), "{waits:?}");
    assert!(meet(STEADY) < FIRST_RETRY.mul_f64(1.2));
}

#[test]
fn a_peer_that_asks_to_rest_does_and_a_liar_rests_for_ever() {
    let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut book = PeerBook::new(5);
    book.discover(address(1), now);
    book.next_dial(now, &mut rng);
    book.disconnected(address(1), Redial::After(Duration::from_secs(7)), now, &mut rng);
    assert_eq!(book.next_timeout(now), Some(now + Duration::from_secs(7)));
    let later = now + Duration::from_secs(7);
    assert_eq!(book.next_dial(later, &mut rng), Some(address(1)));
    book.disconnected(address(1), Redial::Never, later, &mut rng);
    assert!(book.is_all_banned());
    assert_eq!(book.next_timeout(later), None);
    assert!(!book.discover(address(1), later));
    assert_eq!(book.next_dial(later + Duration::from_secs(999), &mut rng), None);
}

#[test]
fn a_newcomer_finds_room_and_each_is_met_once() {
    let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut book = PeerBook::new(4);
    for port in 1..3 {
        book.discover(address(port), now);
        assert_eq!(book.next_dial(now, &mut rng), Some(address(port)));
        book.connected(address(port), now);
    }
    assert_eq!(book.admit(address(100), now, &mut rng), Admission::Welcome);
    assert_eq!(book.admit(address(100), now, &mut rng), Admission::Duplicate);
    book.disconnected(address(100), Redial::Duplicate, now, &mut rng);
    assert_eq!(book.admit(address(100), now, &mut rng), Admission::Duplicate, "the first is still there");
    assert_eq!(book.admit(address(101), now, &mut rng), Admission::Welcome);
    assert_eq!(book.connections(), 4);
    let Admission::Replaces(gone) = book.admit(address(102), now, &mut rng) else {
        panic!("a newcomer finds room");
    };
    assert!([address(100), address(101)].contains(&gone), "what this side dialled is kept");
    assert_eq!(book.connections(), 4);
    book.disconnected(gone, Redial::BackOff, now, &mut rng);
    assert_eq!(book.connections(), 4);
    book.disconnected(address(102), Redial::Never, now, &mut rng);
    assert_eq!(book.admit(address(102), now, &mut rng), Admission::Banned);
    assert_eq!(book.connections(), 3);
}

#[test]
fn a_leecher_that_dialled_all_has_no_room() {
    let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut book = PeerBook::new(1);
    book.discover(address(1), now);
    let dialled = book.next_dial(now, &mut rng).unwrap();
    book.connected(dialled, now);
    assert_eq!(book.admit(address(2), now, &mut rng), Admission::Full);
}

#[test]
fn a_flood_of_addresses_is_bounded() {
    let now = Instant::now();
    let mut book = PeerBook::new(5);
    (1..5_000).for_each(|port| _ = book.discover(address(port), now));
    assert_eq!(book.len(), MAX_ADDRESSES);

    // A stranger that comes again and again and listens at another port each time, and the one that it replaces.
    let (mut rng, stranger) = (StdRng::seed_from_u64(1), |port| SocketAddr::from(([10, 0, 0, 1], port)));
    for port in 1..5_000 {
        assert_ne!(book.admit(stranger(port), now, &mut rng), Admission::Full);
        if port % 2 == 0 {
            book.disconnected(stranger(port), Redial::BackOff, now, &mut rng);
        }
        assert!(book.len() <= MAX_ADDRESSES + 5, "{}", book.len());
    }
}

#[test]
fn peers_that_connect_leave_half_of_the_places_to_be_dialled() {
    let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut book = PeerBook::new(6);
    (100..200).for_each(|port| _ = book.admit(address(port), now, &mut rng));
    assert_eq!(book.connections(), 6);
    (1..100).for_each(|port| _ = book.discover(address(port), now));
    let dialled: Vec<_> = std::iter::from_fn(|| book.next_dial(now, &mut rng)).collect();
    assert_eq!(dialled.len(), 3);
    dialled.iter().for_each(|&address| book.connected(address, now));
    assert_eq!(dials(&mut book, now, &mut rng), 0);
    assert!(matches!(book.admit(address(200), now, &mut rng), Admission::Replaces(_)));
}

#[test]
fn a_new_address_is_dialled_soon_however_many_dead_ones_are_known() {
    let (mut now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut book = PeerBook::new(50);
    let (named, new) = (address(1), address(9_999));
    book.discover_named(named, now);
    // Dead ones fail after five seconds, and the tracker names all of them again and again.
    let mut dead: Vec<u16> = (2..3_002).collect();
    for _ in 0..100 {
        dead.rotate_left(50);
        dead[..50].iter().for_each(|&port| _ = book.discover(address(port), now));
        let dialled: Vec<_> = std::iter::from_fn(|| book.next_dial(now, &mut rng)).collect();
        now += Duration::from_secs(5);
        dialled.iter().for_each(|&address| book.disconnected(address, Redial::BackOff, now, &mut rng));
        assert!(book.len() <= MAX_ADDRESSES);
    }
    assert_eq!(book.len(), MAX_ADDRESSES);
    assert!(book.addresses().any(|address| address == named), "the user's own is kept");
    assert!(book.discover(new, now));
    let dialled: Vec<_> = std::iter::from_fn(|| book.next_dial(now, &mut rng)).collect();
    assert!(dialled.contains(&new));
    assert!(dialled.iter().filter(|&&address| address != new).count() > 10, "the others have turns too");
}

#[test]
fn bans_are_bounded_and_no_peer_is_let_in_from_the_host_of_a_liar() {
    let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut book = PeerBook::new(50);
    let liar = |number: u16| SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 7000));
    for number in 0..2 * MAX_BANNED as u16 {
        book.discover(liar(number), now);
        assert_eq!(book.next_dial(now, &mut rng), Some(liar(number)));
        book.disconnected(liar(number), Redial::Never, now, &mut rng);
        assert!(book.is_all_banned());
    }
    assert_eq!(book.len(), MAX_BANNED);
    let (oldest, last) = (liar(0), liar(2 * MAX_BANNED as u16 - 1));
    assert!(!book.is_barred(oldest.ip()), "its ban was lifted for another");
    assert!(book.discover(oldest, now));
    assert!(book.is_barred(last.ip()));
    let other_port = SocketAddr::new(last.ip(), 7001);
    assert_eq!(book.admit(other_port, now, &mut rng), Admission::Banned);
    assert!(book.discover(other_port, now), "it can be dialled where it listens");
}

#[test]
fn no_more_hosts_rest_than_a_book_remembers() {
    let now = Instant::now();
    let mut book = PeerBook::new(5);
    let host = |number: usize| IpAddr::from([10, 0, (number / 250) as u8, (number % 250) as u8]);
    (0..=MAX_BANNED).for_each(|number| book.rest_host(host(number), now + REPLACED_REST));
    assert_eq!(book.resting.len(), MAX_BANNED);
    assert!(!book.is_resting(host(0), now) && book.is_resting(host(1), now));
    book.rest_host(host(1), now);
    assert!(!book.is_resting(host(1), now), "the latest time holds");
    assert!(book.is_resting(host(2), now) && !book.is_resting(host(2), now + REPLACED_REST));
    (0..MAX_BANNED).for_each(|_| book.rest_host(host(2), now + REPLACED_REST));
    assert!(book.is_resting(host(3), now), "one host keeps no other out of the list");
}

#[test]
fn this_process_is_no_peer_and_no_liar() {
    let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut book = PeerBook::new(5);
    book.discover(address(1), now);
    book.next_dial(now, &mut rng);
    book.disconnected(address(1), Redial::Itself, now, &mut rng);
    assert!(book.is_empty() && !book.is_all_banned() && !book.is_barred(address(1).ip()));
    assert!(!book.discover(address(1), now));
    assert_eq!(book.next_dial(now + REPLACED_REST, &mut rng), None);
}

/// A thousand ports of one host that never failed, as of strangers that connected and were replaced.
#[test]
fn the_ports_of_one_host_keep_no_other_host_out() {
    let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut book = PeerBook::new(80);
    (1..=1_000).for_each(|port| _ = book.discover(address(port), now));
    assert!(!book.discover(address(1_001), now), "the same host gains nothing");
    let other = |host: u8| SocketAddr::from(([10, 0, 0, host], 7000));
    (1..=50).for_each(|host| assert!(book.discover(other(host), now), "{host}"));
    assert_eq!(book.len(), MAX_ADDRESSES);
    assert!((1..=50).all(|host| book.addresses().any(|known| known == other(host))));
    // The other hosts are dialled first, apart from one in fifty.
    let dialled = std::iter::from_fn(|| book.next_dial(now, &mut rng)).take(50);
    let same = dialled.filter(|dialled| dialled.ip() == address(1).ip()).count();
    assert!(same < 10, "{same}");
}

#[test]
fn a_full_book_of_many_hosts_forgets_what_failed_and_nothing_else() {
    let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut book = PeerBook::new(80);
    let host = |number: u16| SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 7000));
    (0..1_000).for_each(|number| assert!(book.discover(host(number), now)));
    assert!(!book.discover(host(1_000), now));
    let failed = book.next_dial(now, &mut rng).unwrap();
    book.disconnected(failed, Redial::BackOff, now, &mut rng);
    assert!(book.discover(host(1_000), now));
    assert!(!book.addresses().any(|known| known == failed));
}
