pub(super) mod bench;
mod far;
mod in_parts;
mod property;
mod seeders;

use proto::SMALL_CHUNK_LEN;
use rand::{SeedableRng, rngs::StdRng};

use super::{choice::MAX_ARRIVING, deadlines::REVIEW_INTERVAL, endgame::ENDGAME_AGE, moves::MIN_MOVE_AGE, *};
use bench::{Bench, OnCancel, field, space};

#[test]
fn the_rarest_chunk_is_asked_for_first() {
    let mut bench = Bench::new(4, 1);
    for key in 1..4 {
        bench.scheduler.add_peer(PeerKey(key), Have::Some(field(4, &[0, 1, 3])), bench.now);
        bench.waiting.insert(PeerKey(key), Vec::new());
    }
    let seeder = PeerKey(0);
    bench.waiting.insert(seeder, Vec::new());
    bench.scheduler.add_peer(seeder, Have::All, bench.now);
    bench.fill();
    assert_eq!(bench.waiting[&seeder][0], ChunkIndex(2));
}

#[test]
fn a_chunk_is_rare_until_a_quarter_of_the_leechers_have_it() {
    let mut bench = Bench::new(2, 1);
    (0..7).for_each(|key| _ = bench.join(key, Have::Some(field(2, &[0]))));
    bench.join(7, Have::All);
    let late = bench.join(8, Have::Some(field(2, &[1])));
    assert_eq!(bench.scheduler.spread(ChunkIndex(0)), Spread::Common);
    assert_eq!(bench.scheduler.spread(ChunkIndex(1)), Spread::Rare);
    bench.scheduler.add_haves(PeerKey(0), [ChunkIndex(1)], bench.now).unwrap();
    assert_eq!(bench.scheduler.spread(ChunkIndex(1)), Spread::Common, "two of eight");
    bench.scheduler.remove_peer(late, bench.now);
    assert_eq!(bench.scheduler.spread(ChunkIndex(1)), Spread::Rare, "one of seven");
}

#[test]
fn a_chunk_that_comes_late_ends_the_second_request_for_it() {
    let mut bench = Bench::new(1, 1);
    bench.on_cancel = OnCancel::TooLate;
    let peer = bench.join(1, Have::All);
    for _ in 0..100 {
        bench.advance(Duration::from_secs(1));
        if !bench.crossed.is_empty() && bench.asked(peer) > 0 {
            break;
        }
    }
    assert_eq!((bench.crossed.pop(), bench.asked(peer)), (Some((peer, ChunkIndex(0))), 1));
    // The first peer sends the chunk after all.
    bench.scheduler.arriving(peer, ChunkIndex(0), bench.now);
    bench.fill();
    assert_eq!(bench.asked(peer), 0, "it was told so");
    bench.arrive(peer, ChunkIndex(0));
    assert!(bench.scheduler.is_finished());
}

#[test]
fn a_few_chunks_are_spread_over_all_peers() {
    let mut bench = Bench::new(3, 1);
    for key in 0..3 {
        bench.scheduler.add_peer(PeerKey(key), Have::All, bench.now);
        bench.waiting.insert(PeerKey(key), Vec::new());
    }
    bench.fill();
    assert_eq!((0..3).map(|key| bench.asked(PeerKey(key))).collect::<Vec<_>>(), [1, 1, 1]);
}

#[test]
fn a_chunk_that_a_peer_chose_is_not_requested_from_anybody() {
    let mut bench = Bench::new(2, 1);
    bench.trusts = false;
    bench.scheduler.add_peer(PeerKey(1), Have::All, bench.now);
    bench.waiting.insert(PeerKey(1), Vec::new());
    bench.choose(PeerKey(1), ChunkIndex(1));
    assert_eq!(bench.asked(PeerKey(1)), 1, "it is tried with this chunk");
    let other = bench.join(2, Have::All);
    assert_eq!(bench.waiting[&other], [ChunkIndex(0)]);
    bench.deliver(PeerKey(1));
    bench.deliver(other);
    assert!(bench.scheduler.is_finished());
    assert_eq!(bench.duplicates, 0);
}

#[test]
fn a_chunk_that_a_peer_chose_is_cancelled_if_it_is_not_needed() {
    let mut bench = Bench::new(2, 1);
    let peer = bench.join(1, Have::All);
    let chunk = bench.deliver(peer).unwrap();
    bench.choose(peer, chunk);
    assert_eq!(bench.waiting[&peer], [ChunkIndex(1 - chunk.0)]);
    // It crossed with the cancellation.
    bench.on_cancel = OnCancel::TooLate;
    bench.choose(peer, chunk);
    bench.arrive(peer, chunk);
    assert_eq!(bench.duplicates, 1);
    bench.deliver(peer);
    assert!(bench.scheduler.is_finished());
}

#[test]
fn a_faster_peer_gets_more_requests() {
    let mut bench = Bench::new(1_000, 1);
    let (fast, slow) = (bench.join(1, Have::All), bench.join(2, Have::All));
    for _ in 0..20 {
        for _ in 0..10 {
            bench.now += Duration::from_millis(5);
            bench.deliver(fast);
        }
        bench.deliver(slow);
    }
    // What it sends in 250 ms, and one more.
    assert_eq!(bench.asked(fast), 51);
    assert!(bench.asked(slow) <= 6, "{}", bench.asked(slow));
}

#[test]
fn of_small_chunks_more_are_asked_for_at_a_time() {
    // As many as two full chunks have bytes.
    let many = 2 * SMALL_CHUNK_LEN as usize / 4_096;
    let small_files = ChunkSpace::new([4_096; 1_000]).unwrap();
    let mut bench = Bench::of(small_files, 1);
    let seeder = bench.join(1, Have::All);
    assert_eq!(bench.asked(seeder), many);
    // However slowly its chunks arrive.
    for _ in 0..100 {
        bench.now += Duration::from_millis(40);
        bench.deliver(seeder);
        assert_eq!(bench.asked(seeder), many);
    }
}

#[test]
fn what_a_peer_owed_when_it_left_is_asked_of_others() {
    let mut bench = Bench::new(2, 1);
    let gone = bench.join(1, Have::All);
    assert_eq!(bench.asked(gone), 2);
    let other = bench.join(2, Have::All);
    assert_eq!(bench.asked(other), 1, "a newcomer is tried");
    bench.leave(gone);
    assert_eq!(bench.asked(other), 2);
}

#[test]
fn a_peer_that_sends_keep_alives_is_not_struck_and_its_chunks_go_to_others_in_time() {
    let mut bench = Bench::new(2, 1);
    let busy = bench.join(1, Have::All);
    for _ in 0..29 {
        bench.scheduler.alive(busy, bench.now);
        bench.advance(Duration::from_secs(1));
        assert_eq!(bench.asked(busy), 2);
    }
    bench.scheduler.alive(busy, bench.now);
    bench.advance(Duration::from_secs(2));
    assert_eq!(bench.asked(busy), 0);
    let other = bench.join(2, Have::All);
    assert_eq!(bench.asked(other), 2);
    assert!(bench.dropped.is_empty());
}

#[test]
fn leechers_are_not_asked_while_more_arrives_than_is_good() {
    let mut bench = Bench::new(1_000, 1);
    let leechers: Vec<_> = (0..30).map(|key| bench.join(key, Have::Some(Bitfield::full(1_000)))).collect();
    let sent: Vec<_> = leechers[..MAX_ARRIVING].iter().map(|&key| (key, bench.waiting[&key][0])).collect();
    for &(key, chunk) in &sent {
        bench.scheduler.arriving(key, chunk, bench.now);
    }
    let late = bench.join(100, Have::Some(Bitfield::full(1_000)));
    assert_eq!(bench.asked(late), 0);
    bench.deliver(sent[0].0);
    assert_eq!(bench.asked(late), 1);
}

#[test]
fn a_silent_peer_loses_its_chunks_rests_and_is_dropped_in_the_end() {
    let mut bench = Bench::new(2, 1);
    let silent = bench.join(1, Have::All);
    bench.advance(Duration::from_millis(4_900));
    assert_eq!(bench.asked(silent), 2);
    bench.advance(Duration::from_millis(200));
    assert_eq!(bench.asked(silent), 0);
    let start = bench.now;
    while bench.dropped.is_empty() {
        let timeout = bench.scheduler.next_timeout(bench.now).expect("something to wait for");
        bench.advance(timeout - bench.now);
        assert!(bench.now < start + Duration::from_secs(60));
    }
    assert_eq!(bench.dropped, [silent]);
}

#[test]
fn bytes_on_the_way_are_reason_to_wait() {
    let mut bench = Bench::new(1, 1);
    let slow = bench.join(1, Have::All);
    for _ in 0..20 {
        bench.now += Duration::from_secs(4);
        bench.scheduler.progressed(slow, 1, bench.now);
        bench.fill();
    }
    assert_eq!(bench.asked(slow), 1);
    bench.deliver(slow);
    assert!(bench.scheduler.is_finished());
}

#[test]
fn a_chunk_that_comes_after_it_was_taken_back_still_counts() {
    let mut bench = Bench::new(1, 1);
    bench.on_cancel = OnCancel::TooLate;
    let late = bench.join(1, Have::All);
    bench.advance(Duration::from_secs(6));
    assert_eq!(bench.asked(late), 0);
    bench.arrive(late, ChunkIndex(0));
    assert!(bench.scheduler.is_finished());
    assert_eq!(bench.scheduler.received(late, ChunkIndex(0), bench.now), Received::Unrequested);
}

#[test]
fn the_last_chunks_of_a_slow_peer_are_asked_of_a_fast_one() {
    let mut bench = Bench::new(40, 1);
    let (fast, slow) = (bench.join(1, Have::All), bench.join(2, Have::All));
    while bench.stored.len() < 38 {
        bench.now += Duration::from_millis(2);
        bench.deliver(fast).expect("the fast one has work");
    }
    assert_eq!(bench.asked(slow), 2);
    bench.advance(ENDGAME_AGE);
    assert_eq!(bench.asked(fast), 2);
    while bench.deliver(fast).is_some() {}
    assert!(bench.scheduler.is_finished());
    assert_eq!(bench.asked(slow), 0, "what came from elsewhere is cancelled");
    assert_eq!(bench.duplicates, 0);
}

/// One peer has started to send it, and each of the others could send it much sooner.
#[test]
fn three_proven_peers_and_no_more_are_asked_for_a_chunk_that_does_not_come() {
    let mut bench = Bench::new(7, 1);
    let peers: Vec<_> = (0..6).map(|key| bench.join(key, Have::All)).collect();
    bench.now += Duration::from_millis(10);
    while bench.stored.len() < 6 {
        peers.iter().for_each(|&key| _ = bench.deliver(key));
        bench.advance(Duration::from_millis(1));
    }
    let (&first, waiting) = bench.waiting.iter().find(|(_, waiting)| !waiting.is_empty()).unwrap();
    let last = waiting[0];
    bench.scheduler.arriving(first, last, bench.now);
    let mut most = 0;
    // After three seconds they count as silent.
    for _ in 0..28 {
        bench.advance(Duration::from_millis(100));
        most = most.max(bench.askers(last).0);
    }
    assert_eq!(most, 3);
}

#[test]
fn two_unproven_peers_are_asked_for_a_chunk_beside_others_that_they_owe() {
    let mut bench = Bench::new(6, 1);
    (0..6).for_each(|key| bench.scheduler.add_peer(PeerKey(key), Have::All, bench.now));
    (0..6).for_each(|key| _ = bench.waiting.insert(PeerKey(key), Vec::new()));
    bench.scheduler.peers.values_mut().for_each(Peer::trust);
    bench.fill();
    assert!(bench.waiting.values().all(|waiting| waiting.len() == 1));
    let mut most = 0;
    // After five seconds they count as silent.
    for _ in 0..48 {
        bench.advance(Duration::from_millis(100));
        most = most.max((0..6).map(|chunk| bench.askers(ChunkIndex(chunk)).1).max().unwrap());
    }
    assert_eq!(most, 2);
}

/// A peer with rate r takes over what others keep, and is never idle while they do.
#[test]
fn peers_that_trickle_or_send_nothing_keep_no_chunk_from_a_proven_one() {
    let mut bench = Bench::new(24, 1);
    bench.on_cancel = OnCancel::Silence;
    let chunk_time = Duration::from_millis(80);
    let steady = bench.join(0, Have::All);
    bench.now += chunk_time;
    bench.deliver(steady);
    let trickling: Vec<_> = (1..5).map(|key| bench.join(key, Have::All)).collect();
    for key in 5..9 {
        bench.join(key, Have::All);
    }
    for &key in &trickling {
        bench.scheduler.arriving(key, bench.waiting[&key][0], bench.now);
    }
    let start = bench.now;
    while !bench.scheduler.is_finished() {
        for step in 1..=4 {
            bench.advance(chunk_time / 4);
            trickling.iter().for_each(|&key| bench.scheduler.progressed(key, step, bench.now));
        }
        bench.deliver(steady);
        assert!(bench.now < start + Duration::from_secs(10), "{} are here", bench.stored.len());
    }
    let alone = chunk_time * 23;
    assert!(bench.now - start <= alone.mul_f64(1.1), "{:?} instead of {alone:?}", bench.now - start);
}

#[test]
fn an_idle_peer_gets_what_waits_elsewhere_once_that_is_cancelled() {
    let mut bench = Bench::new(1, 1);
    let busy = bench.join(1, Have::Some(Bitfield::full(1)));
    let other = bench.join(2, Have::Some(Bitfield::full(1)));
    bench.advance(MIN_MOVE_AGE);
    assert_eq!((bench.asked(busy), bench.asked(other)), (1, 0), "it may be as busy");
    bench.scheduler.idle(other, bench.now);
    bench.on_cancel = OnCancel::Silence;
    bench.advance(REVIEW_INTERVAL);
    assert_eq!((bench.asked(busy), bench.asked(other)), (0, 0), "the chunk may be on its way");
    assert!(bench.scheduler.cancelled(busy, ChunkIndex(0), bench.now));
    bench.fill();
    assert_eq!(bench.asked(other), 1);
    bench.deliver(other);
    assert!(bench.scheduler.is_finished());
}

#[test]
fn a_chunk_that_comes_while_its_request_moves_is_requested_from_no_other_peer() {
    let mut bench = Bench::new(1, 1);
    bench.on_cancel = OnCancel::TooLate;
    let busy = bench.join(1, Have::Some(Bitfield::full(1)));
    let idle = bench.join(2, Have::Some(Bitfield::full(1)));
    bench.scheduler.idle(idle, bench.now);
    bench.advance(2 * REVIEW_INTERVAL);
    assert_eq!(bench.crossed, [(busy, ChunkIndex(0))]);
    bench.arrive(busy, ChunkIndex(0));
    assert!(bench.scheduler.is_finished());
    assert_eq!(bench.asked(idle), 0);
}

#[test]
fn a_peer_that_does_not_answer_to_a_cancel_does_not_keep_its_chunk() {
    let mut bench = Bench::new(1, 1);
    bench.on_cancel = OnCancel::Silence;
    bench.join(1, Have::Some(Bitfield::full(1)));
    let idle = bench.join(2, Have::Some(Bitfield::full(1)));
    bench.scheduler.idle(idle, bench.now);
    for _ in 0..60 {
        bench.advance(REVIEW_INTERVAL);
    }
    assert_eq!(bench.asked(idle), 1);
}

#[test]
fn a_peer_that_answers_what_it_was_not_asked_is_found_out() {
    let mut bench = Bench::new(2, 1);
    let peer = bench.join(1, Have::All);
    assert!(!bench.scheduler.cancelled(peer, ChunkIndex(0), bench.now));
    assert_eq!(bench.asked(peer), 2);
    (0..2).for_each(|_| _ = bench.deliver(peer).unwrap());
    assert!(!bench.scheduler.not_have(peer, ChunkIndex(0)));
    assert!(!bench.scheduler.busy(peer, ChunkIndex(1), bench.now));
}

#[test]
fn a_peer_that_is_not_trusted_gets_one_chunk_in_before_it_is_proved() {
    let mut bench = Bench::new(9, 1);
    bench.trusts = false;
    let peer = bench.join(1, Have::All);
    let [first] = bench.waiting[&peer][..] else { panic!("{:?}", bench.waiting) };
    assert_eq!(bench.scheduler.received(peer, first, bench.now), Received::Verify);
    bench.fill();
    assert_eq!(bench.asked(peer), 1, "it is not asked again while its chunk is being proved");
    bench.scheduler.stored(first);
    bench.fill();
    assert!(bench.asked(peer) > 1);
}

/// For a moment it is still there.
#[test]
fn a_wrong_chunk_brings_its_sender_no_trust() {
    let mut bench = Bench::new(9, 1);
    bench.trusts = false;
    let liar = bench.join(1, Have::All);
    let [first] = bench.waiting[&liar][..] else { panic!("{:?}", bench.waiting) };
    assert_eq!(bench.scheduler.received(liar, first, bench.now), Received::Verify);
    bench.waiting.insert(liar, Vec::new());
    bench.scheduler.wrong(first);
    assert!(!bench.scheduler.is_trusted(liar));
    bench.fill();
    assert_eq!(bench.asked(liar), 1);
}

/// It keeps silent until it is asked again, and then sends both chunks.
#[test]
fn of_two_chunks_of_a_peer_that_is_not_trusted_one_is_proved() {
    let mut bench = Bench::new(9, 1);
    (bench.trusts, bench.on_cancel) = (false, OnCancel::Silence);
    let peer = bench.join(1, Have::All);
    let first = bench.waiting[&peer][0];
    // Its request is withdrawn, and it is asked again, for the same chunk or for another.
    let second = (0..1_000).find_map(|_| {
        bench.advance(Duration::from_millis(100));
        bench.waiting[&peer].iter().copied().find(|&chunk| chunk != first)
    });
    let second = second.expect("another chunk is requested");
    assert_eq!(bench.scheduler.received(peer, first, bench.now), Received::Verify);
    assert_eq!(bench.scheduler.received(peer, second, bench.now), Received::Duplicate);
    bench.scheduler.remove_peer(peer, bench.now);
    bench.waiting.remove(&peer);
    bench.scheduler.wrong(first);
    let honest = bench.join(2, Have::All);
    while !bench.scheduler.is_finished() {
        bench.deliver(honest).expect("nothing is lost");
    }
}

#[test]
fn peers_of_one_rate_cause_no_duplicates() {
    let mut bench = Bench::new(200, 1);
    let peers: Vec<_> = (0..4).map(|key| bench.join(key, Have::All)).collect();
    let mut requests = 0;
    while !bench.scheduler.is_finished() {
        bench.now += Duration::from_millis(20);
        requests += peers.iter().filter_map(|&peer| bench.deliver(peer)).count();
    }
    assert_eq!(requests, 200);
}

#[test]
fn a_wrong_chunk_is_missing_again() {
    let mut bench = Bench::new(1, 1);
    let liar = bench.join(1, Have::All);
    assert_eq!(bench.scheduler.received(liar, ChunkIndex(0), bench.now), Received::Verify);
    bench.scheduler.remove_peer(liar, bench.now);
    bench.scheduler.wrong(ChunkIndex(0));
    let honest = bench.join(2, Have::All);
    bench.deliver(honest);
    assert!(bench.scheduler.is_finished());
}

#[test]
fn a_busy_peer_is_left_alone_until_the_time_that_it_gave() {
    let mut bench = Bench::new(3, 1);
    let busy = bench.join(1, Have::All);
    let until = bench.now + Duration::from_secs(1);
    for chunk in bench.waiting[&busy].clone() {
        assert!(bench.scheduler.busy(busy, chunk, until));
    }
    bench.waiting.insert(busy, Vec::new());
    bench.fill();
    assert_eq!(bench.asked(busy), 0);
    assert_eq!(bench.scheduler.next_timeout(bench.now), Some(until));
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.asked(busy), 2);
}

#[test]
fn a_chunk_that_a_peer_turns_out_not_to_have_is_not_asked_of_it_again() {
    let mut bench = Bench::new(2, 1);
    let peer = bench.join(1, Have::All);
    assert!(bench.scheduler.not_have(peer, ChunkIndex(0)));
    bench.waiting.insert(peer, vec![ChunkIndex(1)]);
    bench.fill();
    assert_eq!(bench.waiting[&peer], [ChunkIndex(1)]);
    bench.deliver(peer);
    let other = bench.join(2, Have::Some(Bitfield::empty(2)));
    assert_eq!(bench.asked(other), 0);
    assert_eq!(bench.scheduler.add_haves(other, [ChunkIndex(0)], bench.now), Ok(()));
    bench.fill();
    assert_eq!(bench.waiting[&other], [ChunkIndex(0)]);
    assert_eq!(bench.scheduler.add_haves(other, [ChunkIndex(2)], bench.now), Err(ChunkIndex(2)));
}

#[test]
fn what_is_here_already_is_not_asked_for() {
    let have = field(5, &[0, 2, 3]);
    let mut bench = Bench::new(5, 1);
    bench.scheduler = Scheduler::new(space(5), &Bitfield::full(5), &have);
    let peer = bench.join(1, Have::All);
    let mut asked = bench.waiting[&peer].clone();
    asked.sort();
    assert_eq!(asked, [ChunkIndex(1), ChunkIndex(4)]);
    while bench.deliver(peer).is_some() {}
    assert!(bench.scheduler.is_finished());
}

#[test]
fn a_chunk_that_is_not_wanted_is_never_asked_for() {
    let (wanted, have) = (field(6, &[1, 2, 4]), field(6, &[2]));
    let mut bench = Bench::new(6, 1);
    bench.scheduler = Scheduler::new(space(6), &wanted, &have);
    // One has everything, one says so chunk by chunk, one has only what is not wanted.
    let peers = [Have::All, Have::Some(Bitfield::empty(6)), Have::Some(field(6, &[0, 3, 5]))];
    let [seeder, leecher, useless] = [0, 1, 2].map(|key| bench.join(key, peers[key as usize].clone()));
    for chunk in 0..6 {
        bench.scheduler.add_haves(leecher, [ChunkIndex(chunk)], bench.now).unwrap();
    }
    assert!(bench.scheduler.wants_of(seeder) && !bench.scheduler.wants_of(useless));
    for _ in 0..50 {
        bench.advance(Duration::from_millis(200));
        while bench.deliver(seeder).is_some() || bench.deliver(leecher).is_some() {}
        assert_eq!(bench.asked(useless), 0);
    }
    bench.stored.sort();
    assert_eq!(bench.stored, [ChunkIndex(1), ChunkIndex(4)]);
    assert!(bench.scheduler.is_finished());
    assert_eq!(bench.scheduler.stored_count(), 3);
}

/// Otherwise two leechers that know no seeder would wait for each other.
#[test]
fn a_peer_that_reports_chunks_that_are_here_does_not_need_this_one() {
    let all = Bitfield::full(4);
    let mut bench = Bench::new(4, 1);
    bench.scheduler = Scheduler::new(space(4), &all, &all);
    let other = bench.join(1, Have::Some(field(4, &[0])));
    bench.scheduler.add_haves(other, [1, 2].map(ChunkIndex), bench.now).unwrap();
    assert!(bench.scheduler.is_needed());
    bench.scheduler.add_haves(other, [ChunkIndex(3)], bench.now).unwrap();
    assert!(!bench.scheduler.is_needed());
    bench.scheduler.remove_peer(other, bench.now);
}

/// A leecher that wants a part is needed only for what it has.
#[test]
fn a_peer_with_a_part_is_needed_while_another_lacks_some_of_that_part() {
    let wanted = field(4, &[0, 1]);
    let mut bench = Bench::new(4, 1);
    bench.scheduler = Scheduler::new(space(4), &wanted, &wanted);
    assert!(!bench.scheduler.is_needed());
    let other = bench.join(1, Have::Some(field(4, &[0])));
    assert!(bench.scheduler.is_needed());
    bench.scheduler.remove_peer(other, bench.now);
    bench.join(2, Have::Some(wanted));
    assert!(!bench.scheduler.is_needed(), "nobody can get the other chunks from here");
}
