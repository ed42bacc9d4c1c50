//! Seeders beside leechers: what they are asked for, and what is withdrawn from them.

use super::{
    super::{
        choice::{ENOUGH_ARRIVING, LARGE_SWARM, MORE_THAN_ENOUGH},
        peer::UNIQUE_DEPTH,
    },
    *,
};

#[test]
fn what_no_leecher_has_is_asked_of_the_seeder_and_withdrawn_when_one_has_it() {
    let mut bench = Bench::new(100, 1);
    let seeder = bench.join(1, Have::All);
    let held: Vec<_> = (0..10).collect();
    let leecher = bench.join(2, Have::Some(field(100, &held)));
    let asked = |bench: &Bench, key| bench.waiting[&key].iter().filter(|chunk| chunk.0 < 10).count();
    assert_eq!(bench.asked(seeder) as u64, UNIQUE_DEPTH);
    assert!(asked(&bench, seeder) <= 2, "but for what it was asked when it was alone");
    assert_eq!((bench.asked(leecher), asked(&bench, leecher)), (2, 2));
    let waiting = *bench.waiting[&seeder].last().unwrap();
    bench.scheduler.add_haves(leecher, [waiting], bench.now).unwrap();
    bench.fill();
    assert!(!bench.waiting[&seeder].contains(&waiting));
    assert_eq!(bench.asked(seeder) as u64, UNIQUE_DEPTH, "something else is asked for in its place");
}

/// A seeder that joins a swarm of `all` leechers with the chunks below `have` of 100, while `senders` of them send one each. Returns the
/// number of chunks that the seeder is asked for, and the same when one of the leechers has sent its chunk.
fn asked_beside_senders(all: usize, senders: usize, have: u32) -> (usize, usize) {
    let mut bench = Bench::new(100, 1);
    let mut field = Bitfield::empty(100);
    (0..have).for_each(|chunk| _ = field.insert(ChunkIndex(chunk)));
    let leechers: Vec<_> = (0..all as u64).map(|key| bench.join(key, Have::Some(field.clone()))).collect();
    for &key in &leechers[..senders] {
        let chunk = bench.waiting[&key][0];
        bench.scheduler.arriving(key, chunk, bench.now);
    }
    let seeder = bench.join(99, Have::All);
    let beside_all = bench.asked(seeder);
    bench.deliver(leechers[0]);
    (beside_all, bench.asked(seeder))
}

#[test]
fn a_seeder_is_asked_for_what_leechers_have_only_while_few_of_them_send() {
    let (beside_all, beside_others) = asked_beside_senders(ENOUGH_ARRIVING, ENOUGH_ARRIVING, 100);
    assert_eq!(beside_all, 0);
    assert!(beside_others > 0);
}

#[test]
fn in_a_large_swarm_a_seeder_is_asked_for_nothing_while_many_leechers_send() {
    let (beside_all, beside_others) = asked_beside_senders(LARGE_SWARM, MORE_THAN_ENOUGH, 50);
    assert_eq!(beside_all, 0);
    assert!(beside_others > 0);
    let (in_small_swarm, _) = asked_beside_senders(LARGE_SWARM - 1, MORE_THAN_ENOUGH, 50);
    assert!(in_small_swarm > 0, "what it knows of nobody is new there");
}

#[test]
fn a_seeder_that_is_sending_a_chunk_is_let_go_on() {
    let mut bench = Bench::new(100, 1);
    let seeder = bench.join(1, Have::All);
    let leecher = bench.join(2, Have::Some(Bitfield::empty(100)));
    let coming = bench.waiting[&seeder][0];
    bench.scheduler.arriving(seeder, coming, bench.now);
    bench.scheduler.add_haves(leecher, [coming], bench.now).unwrap();
    bench.fill();
    assert!(bench.waiting[&seeder].contains(&coming));
    assert_eq!(bench.asked(leecher), 0);
}

#[test]
fn a_chunk_that_comes_although_it_was_withdrawn_is_requested_from_no_other_peer() {
    let mut bench = Bench::new(100, 1);
    bench.on_cancel = OnCancel::TooLate;
    let seeder = bench.join(1, Have::All);
    let leecher = bench.join(2, Have::Some(Bitfield::empty(100)));
    let chunk = *bench.waiting[&seeder].last().unwrap();
    bench.scheduler.add_haves(leecher, [chunk], bench.now).unwrap();
    bench.fill();
    assert_eq!(bench.waiting[&leecher], [chunk]);
    bench.scheduler.arriving(seeder, chunk, bench.now);
    bench.fill();
    assert_eq!(bench.asked(leecher), 0);
    bench.arrive(seeder, chunk);
    assert_eq!(bench.duplicates, 0);
}

#[test]
fn without_leechers_no_more_waits_at_a_seeder_than_its_rate_asks_for() {
    let mut bench = Bench::new(1_000, 1);
    let seeders = [bench.join(1, Have::All), bench.join(2, Have::All)];
    assert_eq!(seeders.map(|seeder| bench.asked(seeder)), [2, 2]);
}
