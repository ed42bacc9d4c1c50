//! Names of shares: which are listed, in what order, and which votes they have.

use super::*;

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
        completed: 0,
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
fn the_newest_name_of_the_site_with_most_makes_room_or_one_that_no_seeder_has() {
    let called = |name: &str, announce: Announce| Announce { name: name_of(name), ..announce };
    let names = |bench: &mut Bench| {
        let pages = bench.pages(None);
        pages.iter().map(|share| share.name.as_str().to_owned()).collect::<Vec<_>>()
    };
    // All names are those of leechers, or of seeders of one site, or each of another site.
    let fill = |announce: fn(u32, u32) -> Announce, sites: u32| {
        let mut bench = Bench::new(Limits::default());
        for number in 0..names::MAX_NAMES as u32 {
            let fake = at_port(called(&format!("fake {number}"), announce(1, number)), 8_000 + number as u16);
            bench.announce(&fake, host(number % sites)).unwrap();
        }
        bench
    };
    let without = |name: &str| {
        let fakes = (0..names::MAX_NAMES).map(|number| format!("fake {number}"));
        fakes.filter(|fake| fake != name).collect::<Vec<_>>()
    };
    for mut bench in [fill(leecher, 1), fill(seeder, 1)] {
        bench.announce(&called("honest", seeder(1, 100)), host(100)).unwrap();
        assert_eq!(names(&mut bench), [without("fake 7"), vec!["honest".to_owned()]].concat());
    }
    // A site with one name brings another, of a share in which every site has one.
    let mut bench = fill(seeder, 8);
    bench.announce(&called("second", seeder(1, 100)), host(0)).unwrap();
    assert_eq!(names(&mut bench), without("none"));
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
