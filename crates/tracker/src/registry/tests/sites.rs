//! Addresses: what lookups name of them, how many registrations they may have, and how they appear to others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv6Addr, SocketAddr},
};

use super::*;

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
fn a_link_local_address_is_sent_only_to_hosts_on_a_link_with_the_tracker() {
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
