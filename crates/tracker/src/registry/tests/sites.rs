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
fn an_address_with_many_peers_leaves_room_for_the_others_of_another_address() {
    let mut bench = Bench::new(Limits::default());
    for peer in 0..1_000 {
        bench.announce(&at_port(seeder(1, 100 + peer), 8_000 + peer as u16), host(66)).unwrap();
    }
    for peer in 0..13 {
        bench.announce(&at_port(seeder(1, peer), 7_000 + peer as u16), host(1)).unwrap();
    }
    bench.announce(&seeder(1, 50), host(2)).unwrap();
    let named = named(&mut bench, 50, 100);
    let honest: Vec<_> = named.iter().filter(|(address, _)| address.ip() != host(66)).collect();
    assert_eq!(honest.len(), 14);
    assert!(honest.iter().all(|&(_, &count)| count == 100), "each in every answer: {honest:?}");
    let crowded: Vec<_> = named.iter().filter(|(address, _)| address.ip() == host(66)).collect();
    assert!(
        crowded.len() == 1_000 && crowded.iter().all(|&(_, &count)| (3..=4).contains(&count)),
        "taking turns"
    );
}

/// A client that tries the peers of an answer in their order begins with different parties.
#[test]
fn an_answer_with_room_for_all_peers_has_each_once_and_first_one_of_each_address() {
    let mut bench = Bench::new(Limits::default());
    for peer in 0..20 {
        bench.announce(&at_port(seeder(1, peer), 8_000 + peer as u16), host(66)).unwrap();
    }
    for number in 0..4 {
        bench.announce(&seeder(1, 50 + number), host(number)).unwrap();
    }
    let mut firsts = BTreeSet::new();
    for want in [24, 30] {
        for _ in 0..100 {
            let peers = bench.registry.peers(&infohash(1), want, host(999), bench.now, &mut bench.rng);
            let peers: Vec<SocketAddr> = peers
                .unwrap()
                .peers
                .iter()
                .filter_map(|peer| peer.socket_addr((host(999), 6020).into()))
                .collect();
            assert_eq!((peers.len(), peers.iter().collect::<BTreeSet<_>>().len()), (24, 24));
            assert_eq!(peers[..5].iter().map(SocketAddr::ip).collect::<BTreeSet<_>>().len(), 5);
            firsts.extend([(0, peers[0]), (5, peers[5])]);
        }
    }
    let first_at = |place| firsts.iter().filter(|&&(at, _)| at == place).count();
    assert_eq!((first_at(0), first_at(5)), (5, 19), "both parts begin anywhere");
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
fn a_newcomer_at_a_full_tracker_takes_the_place_of_the_newest_of_the_most_crowded_address() {
    let mut bench = Bench::new(small(|limits| (limits.peers, limits.crowded_from) = (20, 4)));
    // Two addresses fill the tracker, each with shares of its own. Of a third one the only share is the oldest.
    bench.announce(&seeder(1, 1), host(1)).unwrap();
    for share in 0..12 {
        bench.announce(&seeder(100 + share, 1), host(66)).unwrap();
    }
    for share in 0..7 {
        bench.announce(&seeder(200 + share, 1), host(77)).unwrap();
    }
    let at = |bench: &Bench, number| bench.registry.census.registrations_from(host(number).into());
    // A new address, for a new share and for one that is there.
    assert_eq!(bench.counts(&seeder(2, 2), host(2)), (1, 0));
    assert_eq!(bench.counts(&seeder(1, 3), host(3)), (2, 0));
    assert_eq!([1, 66, 77, 2, 3].map(|number| at(&bench, number)), [1, 10, 7, 1, 1]);
    for (share, is_there) in [(109, true), (110, false), (111, false), (206, true)] {
        assert_eq!(bench.registry.shares.get(&infohash(share)).is_some(), is_there, "{share}");
    }
    // The less crowded of the two gets places until one more would only make it the other way round.
    bench.announce(&seeder(300, 1), host(77)).unwrap();
    assert_eq!([66, 77].map(|number| at(&bench, number)), [9, 8]);
    let more = |bench: &mut Bench, number| bench.announce(&seeder(400, 1), host(number));
    assert_eq!(more(&mut bench, 77), Err(ErrorCode::Full(Limit::Tracker)));
    assert_eq!(more(&mut bench, 66), Err(ErrorCode::Full(Limit::Tracker)));
    // Addresses with fewer registrations than make a crowd are left alone.
    for newcomer in 10..100 {
        let _ = bench.announce(&seeder(newcomer, 1), host(newcomer));
    }
    assert_eq!([1, 66, 77].map(|number| at(&bench, number)), [1, 3, 3]);
    assert_eq!(bench.registry.stats().peers(), 20);
}

/// Each address of an attacker has one registration less than the mirror at most, and tries to get more for ever.
#[test]
fn an_address_with_many_registrations_keeps_as_many_as_any_other_has_and_its_oldest() {
    const PLACES: u32 = 2_000;
    const MIRRORED: u32 = 100;
    for attackers in [20, 100] {
        let mut bench = Bench::new(small(|limits| (limits.peers, limits.crowded_from) = (PLACES, 4)));
        for share in 0..MIRRORED {
            bench.announce(&seeder(share, 1), host(1)).unwrap();
        }
        for round in 0..2 * MIRRORED {
            for attacker in 0..attackers {
                let at = host(1_000 + attacker);
                let count = bench.registry.census.registrations_from(at.into());
                if count < MIRRORED - 1 {
                    let _ = bench.announce(&seeder(1_000 + round * attackers + attacker, 1), at);
                }
            }
        }
        assert_eq!(bench.registry.stats().peers(), PLACES as usize);
        let kept = bench.registry.census.registrations_from(host(1).into());
        let even = PLACES / (attackers + 1);
        assert!(kept >= even.min(MIRRORED - 1), "{kept} of {MIRRORED}, against {attackers}");
        let is_there = |share| bench.registry.shares.get(&infohash(share)).is_some();
        assert!((0..MIRRORED).map(is_there).eq((0..MIRRORED).map(|share| share < kept)));
    }
}

#[test]
fn of_the_peers_of_a_crowded_address_in_a_share_the_newest_makes_room() {
    let mut bench = Bench::new(small(|limits| (limits.peers, limits.crowded_from) = (10, 4)));
    let peers = (0..10).map(|peer| at_port(seeder(1, peer), 8_000 + peer as u16)).collect::<Vec<_>>();
    for peer in &peers {
        bench.announce(peer, host(66)).unwrap();
    }
    for newcomer in 1..4 {
        bench.announce(&seeder(2, newcomer), host(newcomer)).unwrap();
    }
    let roster = &bench.registry.shares.get(&infohash(1)).unwrap().roster;
    let left = peers.iter().map(|peer| roster.find(peer.peer_id).is_some());
    assert!(left.eq((0..10).map(|peer| peer < 7)));
}

#[test]
fn a_new_share_at_a_tracker_with_too_many_takes_the_place_of_one_of_crowded_addresses_only() {
    let mut bench = Bench::new(small(|limits| (limits.shares, limits.crowded_from) = (10, 4)));
    for share in 0..10 {
        bench.announce(&seeder(share, 66), host(66)).unwrap();
        bench.announce(&seeder(share, 77), host(if share < 9 { 77 } else { 1 })).unwrap();
    }
    let has = |bench: &Bench, share| bench.registry.shares.get(&infohash(share)).is_some();
    bench.announce(&seeder(20, 1), host(2)).unwrap();
    // The last one has a peer of another address.
    assert!(has(&bench, 9) && !has(&bench, 8) && has(&bench, 20));
    assert_eq!(bench.registry.stats(), Stats { shares: 10, seeders: 19, leechers: 0 });
    // An address with as many registrations has to do with the shares that it has.
    for share in 30..60 {
        let _ = bench.announce(&seeder(share, 1), host(3));
    }
    let at = |number| bench.registry.census.registrations_from(host(number).into());
    assert!(at(3) >= 3 && at(3).abs_diff(at(66)) <= 2, "{} and {}", at(3), at(66));
    assert!(has(&bench, 9) && has(&bench, 20));
}

#[test]
fn a_large_share_is_not_dropped_for_a_new_one() {
    let mut bench = Bench::new(small(|limits| (limits.shares, limits.crowded_from) = (2, 4)));
    for peer in 0..9 {
        bench.announce(&at_port(seeder(2, peer), 8_000 + peer as u16), host(66)).unwrap();
        if peer == 5 {
            bench.announce(&seeder(1, 1), host(66)).unwrap();
        }
    }
    bench.announce(&seeder(3, 1), host(1)).unwrap();
    let has = |bench: &Bench, share| bench.registry.shares.get(&infohash(share)).is_some();
    assert!(!has(&bench, 1) && has(&bench, 2) && has(&bench, 3));
    assert_eq!(bench.announce(&seeder(4, 1), host(2)), Err(ErrorCode::Full(Limit::Shares)));
}

/// The shares of a crowded address are found through a list, which must not keep those that it has left.
#[test]
fn an_address_that_comes_and_goes_is_not_remembered_with_all_its_shares() {
    let mut bench = Bench::new(small(|limits| (limits.peers, limits.crowded_from) = (1_001, 4)));
    for share in 0..1_000 {
        bench.announce(&seeder(share, 1), host(66)).unwrap();
    }
    for share in (10..1_000).rev() {
        bench.announce(&stop(seeder(share, 1)), host(66)).unwrap();
    }
    let kept = bench.registry.census.crowded().kept(host(66).into());
    assert!((1..=2 * 10 + 4).contains(&kept), "{kept} shares of 10 registrations");
    for share in (0..10).rev() {
        bench.announce(&stop(seeder(share, 1)), host(66)).unwrap();
    }
    assert_eq!(bench.registry.census.crowded().kept(host(66).into()), 0);
    assert_eq!(bench.registry.census.crowded().all().count(), 0);
}
