//! Zones: what lookups name of them, and what claiming one is worth.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn zone(name: &str) -> Zone {
    Zone::cut(name).unwrap()
}

fn register(bench: &mut Bench, peer: u32, from: u32, name: &str) {
    bench.announce(&Announce { zone: zone(name), ..leecher(1, peer) }, host(from)).unwrap();
}

/// Three zones of a hundred hosts each: host n is in zone n % 3.
fn three_zones() -> Bench {
    let mut bench = Bench::new(Limits::default());
    // The zone of the first peer of a share is known when it announces again.
    for _ in 0..2 {
        (0..300).for_each(|peer| register(&mut bench, peer, peer, ["a", "b", "c"][peer as usize % 3]));
    }
    bench
}

/// The hosts that an answer to someone in a zone names.
fn named(bench: &mut Bench, zone: Zone) -> Vec<u32> {
    let asker = Asker { ip: host(999), zone };
    let peers = bench.registry.peers(&infohash(1), 50, asker, bench.now, &mut bench.rng).unwrap().peers;
    let ip = |peer: &PeerEntry| peer.socket_addr((host(999), 6020).into()).unwrap().ip();
    let number = |ip| if let IpAddr::V4(ip) = ip { u32::from(ip) - 0x0a00_0000 } else { unreachable!() };
    peers.iter().map(|peer| number(ip(peer))).collect()
}

#[test]
fn most_of_an_answer_comes_from_the_zone_of_who_asks_and_everybody_is_in_some() {
    let mut bench = three_zones();
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    for _ in 0..2_000 {
        let named = named(&mut bench, zone("b"));
        assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), 50, "{named:?}");
        assert!(named.iter().filter(|&&host| host % 3 == 1).count() >= 45, "{named:?}");
        named.into_iter().for_each(|host| *counts.entry(host).or_default() += 1);
    }
    // Of the zone 45 and a fifth of the other five, so 46.1 of a hundred; of each other one in 51. Five standard deviations are 112 and 31.
    for host in 0..300 {
        let (expected, most) = if host % 3 == 1 { (922, 112) } else { (39, 31) };
        let count = counts.get(&host).copied().unwrap_or(0);
        assert!(count.abs_diff(expected) < most, "host {host}: {count} times, {expected} expected");
    }
}

#[test]
fn a_small_zone_is_named_whole() {
    let mut bench = three_zones();
    (300..307).for_each(|peer| register(&mut bench, peer, peer, "small"));
    for _ in 0..100 {
        let named: BTreeSet<_> = named(&mut bench, zone("small")).into_iter().collect();
        assert!(named.len() == 50 && (300..307).all(|host| named.contains(&host)), "{named:?}");
    }
}

#[test]
fn who_claims_a_zone_gets_no_more_of_its_answers_than_his_addresses() {
    let mut bench = three_zones();
    // Ten addresses with twenty registrations each, beside the hundred of the zone.
    (0..200).for_each(|peer| register(&mut bench, 1_000 + peer, 2_000 + peer % 10, "a"));
    let named = (0..2_000).flat_map(|_| named(&mut bench, zone("a")));
    let attackers = named.filter(|&host| host >= 2_000).count() as u32;
    // A tenth of the part that comes from the zone, and a little of the rest: 45 / 11 and 5 * 5.9 / 265 in each answer.
    assert!(attackers.abs_diff(2_000 * 42 / 10) < 400, "{attackers} of 100,000");
}

#[test]
fn one_address_with_many_zones_leaves_room_for_others() {
    let mut bench = Bench::new(Limits { peers_per_site: 1_000, ..Limits::default() });
    (0..300).for_each(|peer| {
        let announce = at_port(leecher(1, peer), 1_000 + peer as u16);
        bench.announce(&Announce { zone: zone(&format!("{peer}")), ..announce }, host(500)).unwrap();
    });
    (0..200).for_each(|peer| register(&mut bench, 1_000 + peer, peer, ["a", "b"][peer as usize % 2]));
    assert!(named(&mut bench, zone("a")).iter().filter(|&&host| host % 2 == 0).count() >= 45);
}

#[test]
fn more_zones_than_a_share_may_have_are_treated_as_none() {
    let mut bench = Bench::new(Limits::default());
    (0..600).for_each(|peer| register(&mut bench, peer, peer, &format!("{}", peer / 2)));
    let mut named_both = |number: u32| {
        let named = named(&mut bench, zone(&format!("{number}")));
        assert_eq!(named.len(), 50);
        named.contains(&(2 * number)) && named.contains(&(2 * number + 1))
    };
    assert!((1..200).all(&mut named_both));
    assert!(!(290..300).all(&mut named_both));
}

#[test]
fn who_is_in_no_zone_gets_the_same_answers_as_if_there_were_none() {
    let mut bench = three_zones();
    let mut plain = Bench::new(Limits::default());
    for _ in 0..2 {
        (0..300).for_each(|peer| register(&mut plain, peer, peer, ""));
    }
    for _ in 0..100 {
        assert_eq!(named(&mut bench, Zone::NONE), named(&mut plain, Zone::NONE));
        assert_eq!(named(&mut plain, Zone::NONE), named(&mut bench, Zone::NONE));
    }
}

#[test]
fn a_peer_that_says_its_zone_later_is_found_there() {
    let mut bench = three_zones();
    register(&mut bench, 300, 300, "");
    register(&mut bench, 300, 300, "alone");
    assert!(named(&mut bench, zone("alone")).contains(&300));
    register(&mut bench, 300, 300, "moved");
    assert!((0..20).all(|_| named(&mut bench, zone("moved")).contains(&300)));
    assert!(!(0..20).all(|_| named(&mut bench, zone("alone")).contains(&300)));
}
