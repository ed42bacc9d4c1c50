//! Expiry, and the sweeps that give back the room of expired peers.

use super::*;

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
fn a_round_of_sweeping_finds_when_the_next_is_due() {
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
fn memory_is_given_back_when_all_peers_expired() {
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
