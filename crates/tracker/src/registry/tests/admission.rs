use crate::admission::ShareList;

use super::*;

fn deny(list: &str) -> Option<Arc<Admission>> {
    Some(Arc::new(Admission { allow: None, deny: Some(ShareList::parse(list).unwrap()) }))
}

fn called(name: &str, announce: Announce) -> Announce {
    Announce { name: name_of(name), ..announce }
}

/// Ends what is not allowed, this much at a time, and returns how many registrations these were.
fn evict(registry: &mut Registry, shares: usize, peers: usize) -> u64 {
    let mut at = registry.begin_eviction();
    for _ in 0..1_000 {
        let (next, is_done) = registry.evict(at, shares, peers);
        if is_done {
            return next.ended;
        }
        at = next;
    }
    panic!("without end");
}

#[test]
fn what_is_not_allowed_any_more_is_gone_and_the_rest_stays() {
    for (shares, peers) in [(1, 1), (2, 3), (100, 100)] {
        let mut bench = Bench::new(Limits::default());
        for share in 1..=6 {
            for peer in 1..=share {
                let announce = seeder(share, 10 * share + peer);
                bench.announce(&called(&format!("n{share}"), announce), host(peer)).unwrap();
            }
        }
        // One share has two names.
        bench.announce(&called("other", seeder(5, 99)), host(9)).unwrap();
        let hex = infohash(2).to_string();
        bench.registry.set_admission(deny(&format!("{hex}\nn4\nn5\n")));
        assert_eq!(evict(&mut bench.registry, shares, peers), 2 + 4 + 5);
        let left: Vec<_> = bench.pages(None).into_iter().map(|share| share.name.to_string()).collect();
        assert_eq!(left, ["n1", "n3", "n6", "other"]);
        assert_eq!(bench.registry.stats(), Stats { shares: 4, seeders: 1 + 3 + 6 + 1, leechers: 0 });
        for share in [2, 4] {
            assert!(matches!(bench.peers(share, host(1)), Err(ErrorCode::UnknownShare { .. })));
        }
        assert_eq!(bench.peers(5, host(1)).unwrap().seeders, 1);
        assert_eq!(evict(&mut bench.registry, shares, peers), 0);
    }
}

#[test]
fn a_share_that_is_not_allowed_is_refused_and_a_registration_of_it_ends() {
    let mut bench = Bench::new(Limits::default());
    bench.announce(&called("a", seeder(1, 1)), host(1)).unwrap();
    bench.registry.set_admission(deny("b"));
    assert_eq!(bench.announce(&called("b", seeder(2, 2)), host(1)), Err(ErrorCode::NotAllowed));
    let thief = Announce { secret: Secret([8; 16]), ..called("b", seeder(1, 1)) };
    assert_eq!(bench.announce(&thief, host(1)), Err(ErrorCode::NotYours));
    assert_eq!(bench.registry.stats().peers(), 1);
    assert!(bench.announce(&called("a", seeder(1, 1)), host(1)).is_ok());
    assert_eq!(bench.announce(&called("b", seeder(1, 1)), host(1)), Err(ErrorCode::NotAllowed));
    assert_eq!(bench.registry.stats().peers(), 0);
    // Nothing prevents a peer from leaving.
    assert!(bench.announce(&stop(called("b", seeder(1, 1))), host(1)).is_ok());
    bench.registry.set_admission(None);
    assert!(bench.announce(&called("b", seeder(1, 1)), host(1)).is_ok());
}

#[test]
fn what_other_trackers_know_is_refused_too() {
    let mut bench = Bench::new(Limits::default());
    bench.announce(&called("a", seeder(1, 1)), host(1)).unwrap();
    let mut known = Vec::new();
    bench.registry.export(0, bench.now, |registration, _| known.push(registration));
    let mut other = Bench::new(Limits::default());
    other.registry.set_admission(deny("a"));
    assert!(!other.registry.merge(&known[0], EXPIRE, other.now));
    other.registry.set_admission(deny("b"));
    assert!(other.registry.merge(&known[0], EXPIRE, other.now));
}
