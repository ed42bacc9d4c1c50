//! Chunks of which this host has similar bytes.

use proto::peer::BlockSet;

use super::*;

const LEAVES: Form = Form::Leaves;
const TWO: Form = Form::Blocks(BlockSet(0b101));

fn wish(chunk: u32, form: Form) -> Wish {
    Wish { chunk: ChunkIndex(chunk), form }
}

/// A bench with two chunks. This host has bytes that are similar to the first.
fn bench() -> Bench {
    let mut bench = Bench::new(2, 1);
    bench.scheduler.has_similar(&field(2, &[0]));
    bench
}

fn asked(bench: &Bench, key: PeerKey) -> Vec<Form> {
    bench.forms.get(&(key, ChunkIndex(0))).into_iter().flatten().copied().collect()
}

#[test]
fn the_leaves_come_first_and_then_the_blocks_that_differ() {
    let mut bench = bench();
    let peer = bench.join(1, Have::All);
    assert_eq!(asked(&bench, peer), [LEAVES]);
    assert_eq!(bench.forms[&(peer, ChunkIndex(1))], [Form::Whole]);
    assert_eq!(bench.scheduler.received(peer, wish(0, LEAVES), bench.now), Received::Verify);
    assert!(bench.scheduler.is_missing(ChunkIndex(0)));
    bench.forms.clear();
    bench.waiting.insert(peer, vec![ChunkIndex(1)]);
    bench.scheduler.ask_again(ChunkIndex(0), TWO);
    bench.fill();
    assert_eq!(asked(&bench, peer), [TWO]);
    assert_eq!(bench.scheduler.received(peer, wish(0, TWO), bench.now), Received::Verify);
    assert_eq!(bench.scheduler.stored(ChunkIndex(0)), 2 * 16 * 1024, "what came");
}

/// A liar has them too, and would then be asked for many blocks at once.
#[test]
fn right_hashes_of_blocks_bring_their_sender_no_trust() {
    let mut bench = Bench::new(9, 1);
    bench.trusts = false;
    bench.scheduler.has_similar(&field(9, &[0, 1, 2, 3, 4, 5, 6, 7, 8]));
    let peer = bench.join(1, Have::All);
    for chunk in bench.waiting[&peer].clone() {
        let leaves = Wish { chunk, form: LEAVES };
        assert_eq!(bench.scheduler.received(peer, leaves, bench.now), Received::Verify);
        bench.scheduler.ask_again(chunk, if chunk.0 % 2 == 0 { TWO } else { Form::Whole });
    }
    bench.waiting.insert(peer, Vec::new());
    bench.fill();
    assert!(!bench.scheduler.is_trusted(peer));
    assert_eq!(bench.asked(peer), 1);
}

/// The hashes of many small files that changed do not take a round trip each.
#[test]
fn hashes_of_blocks_are_asked_for_at_once_and_one_chunk_beside_them() {
    let mut bench = Bench::new(9, 1);
    bench.trusts = false;
    bench.scheduler.has_similar(&field(9, &[0, 1, 2, 3, 4, 5, 6, 7]));
    let peer = bench.join(1, Have::All);
    assert_eq!(bench.asked(peer), 9, "eight of them in parts");
    let [first, second, ..] = bench.waiting[&peer][..] else { panic!("{:?}", bench.waiting) };
    for chunk in [first, second].into_iter().filter(|&chunk| chunk != ChunkIndex(8)) {
        let leaves = Wish { chunk, form: LEAVES };
        assert_eq!(bench.scheduler.received(peer, leaves, bench.now), Received::Verify);
        bench.waiting.get_mut(&peer).unwrap().retain(|&waiting| waiting != chunk);
        bench.scheduler.ask_again(chunk, Form::Whole);
    }
    let asked = bench.asked(peer);
    bench.fill();
    assert_eq!(bench.asked(peer), asked, "no second chunk");
    // While the chunk is being proved, leaves are still of use.
    assert_eq!(bench.scheduler.received(peer, ChunkIndex(8), bench.now), Received::Verify);
    let chunk = bench.waiting[&peer].iter().copied().find(|&chunk| chunk != ChunkIndex(8)).unwrap();
    assert_eq!(bench.scheduler.received(peer, Wish { chunk, form: LEAVES }, bench.now), Received::Verify);
}

/// A liar sends no more wrong bytes in them than in the chunk that it is asked for.
#[test]
fn no_more_hashes_of_blocks_are_asked_for_at_once_than_are_as_long_as_a_chunk() {
    let mut bench = Bench::new(600, 1);
    bench.trusts = false;
    bench.scheduler.has_similar(&Bitfield::full(600));
    let peer = bench.join(1, Have::All);
    assert_eq!(bench.asked(peer), 512);
}

/// The local bytes may have changed, or most blocks differ.
#[test]
fn a_chunk_can_be_asked_for_whole_after_its_parts() {
    let mut bench = bench();
    let peer = bench.join(1, Have::All);
    for form in [TWO, Form::Whole] {
        let before = asked(&bench, peer)[0];
        assert_eq!(bench.scheduler.received(peer, wish(0, before), bench.now), Received::Verify);
        bench.forms.clear();
        bench.waiting.insert(peer, vec![ChunkIndex(1)]);
        bench.scheduler.ask_again(ChunkIndex(0), form);
        bench.fill();
        assert_eq!(asked(&bench, peer), [form]);
    }
}

#[test]
fn what_was_not_asked_for_of_a_chunk_violates_the_protocol() {
    for form in [Form::Whole, TWO] {
        let mut bench = bench();
        let peer = bench.join(1, Have::All);
        assert_eq!(bench.scheduler.received(peer, wish(0, form), bench.now), Received::Unrequested);
        assert_eq!(bench.scheduler.received(peer, wish(1, LEAVES), bench.now), Received::Unrequested);
    }
}

/// Another peer may begin them anew.
#[test]
fn the_parts_of_a_peer_that_leaves_are_asked_of_another() {
    let mut bench = bench();
    let first = bench.join(1, Have::All);
    assert_eq!(bench.scheduler.received(first, wish(0, LEAVES), bench.now), Received::Verify);
    bench.forms.clear();
    bench.waiting.insert(first, vec![ChunkIndex(1)]);
    bench.scheduler.ask_again(ChunkIndex(0), TWO);
    bench.fill();
    assert_eq!(asked(&bench, first), [TWO]);
    bench.leave(first);
    let second = bench.join(2, Have::All);
    assert_eq!(asked(&bench, second), [TWO]);
}

/// Two were asked, and the answers cross.
#[test]
fn leaves_that_come_twice_count_once() {
    let mut bench = bench();
    bench.on_cancel = OnCancel::TooLate;
    let peers = [bench.join(1, Have::All), bench.join(2, Have::All)];
    let both = (0..100).any(|_| {
        bench.advance(Duration::from_millis(200));
        peers.iter().all(|&peer| asked(&bench, peer).contains(&LEAVES))
    });
    assert!(both, "a second peer is asked: {:?}", bench.forms);
    assert_eq!(bench.scheduler.received(peers[0], wish(0, LEAVES), bench.now), Received::Verify);
    bench.scheduler.ask_again(ChunkIndex(0), TWO);
    assert_eq!(bench.scheduler.received(peers[1], wish(0, LEAVES), bench.now), Received::Duplicate);
    bench.scheduler.fill(bench.now, &mut bench.rng);
    let requested = std::iter::from_fn(|| bench.scheduler.poll_command());
    assert!(
        requested.into_iter().any(|command| matches!(command, Command::Request(_, it) if it == wish(0, TWO)))
    );
}

/// Each that is begun occupies memory.
#[test]
fn chunks_that_were_begun_are_finished_before_others_are_begun() {
    let mut bench = Bench::new(4_000, 1);
    bench.scheduler.has_similar(&Bitfield::full(4_000));
    let peer = bench.join(1, Have::All);
    let mut begun = 0_usize;
    while !bench.scheduler.is_finished() {
        bench.now += Duration::from_micros(100);
        bench.deliver(peer).expect("nothing is lost");
        let known = |(_, form): &&(ChunkIndex, Form)| matches!(form, Form::Leaves);
        let leaves = bench.in_parts.iter().filter(known).count();
        begun = begun.max(leaves - bench.stored.len().min(leaves));
    }
    assert!(begun <= proto::peer::MAX_PIPELINE, "{begun} were begun");
}
