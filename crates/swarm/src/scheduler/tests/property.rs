//! Property test with peers that do anything.

use proptest::prelude::*;
use rand::RngExt;

use super::*;

/// What a random peer does next.
#[derive(Debug, Clone, Copy)]
enum Step {
    JoinSeeder,
    JoinLeecher,
    Leave,
    Deliver,
    DeliverLate,
    Wrong,
    NotHave,
    Busy,
    Have,
    Alive,
    Arriving,
    Idle,
    Choose,
    OnCancel(OnCancel),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::JoinSeeder),
        3 => Just(Step::JoinLeecher),
        2 => Just(Step::Leave),
        12 => Just(Step::Deliver),
        2 => Just(Step::DeliverLate),
        1 => Just(Step::Wrong),
        1 => Just(Step::NotHave),
        1 => Just(Step::Busy),
        3 => Just(Step::Have),
        1 => Just(Step::Alive),
        4 => Just(Step::Arriving),
        2 => Just(Step::Idle),
        2 => Just(Step::Choose),
        1 => prop_oneof![Just(OnCancel::Answer), Just(OnCancel::TooLate), Just(OnCancel::Silence)]
            .prop_map(Step::OnCancel),
        3 => prop_oneof![0..300_u64, 0..20_000_u64].prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever peers do, each chunk is stored once, none is lost, and one honest seeder at the end completes the share. The bench
    /// checks with each request that no chunk is requested from too many peers.
    #[test]
    fn every_chunk_is_stored_once_and_none_is_lost(
        chunks in 1..40_u32,
        steps in prop::collection::vec(steps(), 0..150),
        seed in any::<u64>(),
    ) {
        let mut bench = Bench::new(chunks, seed);
        bench.trusts = seed % 2 == 0;
        let mut rng = StdRng::seed_from_u64(!seed);
        let similar: Vec<_> = (0..chunks).filter(|_| seed % 3 == 0 && rng.random()).collect();
        bench.scheduler.has_similar(&field(chunks, &similar));
        for (number, step) in (1..).zip(steps) {
            let keys: Vec<_> = bench.waiting.keys().copied().collect();
            let key = if keys.is_empty() { PeerKey(0) } else { keys[rng.random_range(0..keys.len())] };
            let waiting = bench.waiting.get(&key).cloned().unwrap_or_default();
            let oldest = waiting.first().copied();
            let chunk = ChunkIndex(rng.random_range(0..chunks));
            match (step, oldest) {
                (Step::JoinSeeder, _) => _ = bench.join(number, Have::All),
                (Step::JoinLeecher, _) => {
                    let held: Vec<_> = (0..chunks).filter(|_| rng.random()).collect();
                    bench.join(number, Have::Some(field(chunks, &held)));
                }
                (Step::Leave, _) if !keys.is_empty() => bench.leave(key),
                (Step::Deliver, _) => _ = bench.deliver(key),
                (Step::DeliverLate, _) => {
                    bench.crossed.retain(|(key, _)| bench.waiting.contains_key(key));
                    if let Some((key, chunk)) = bench.crossed.pop() {
                        bench.arrive(key, chunk);
                    }
                }
                (Step::OnCancel(on_cancel), _) => bench.on_cancel = on_cancel,
                (Step::Wrong, Some(chunk)) => {
                    let wish = bench.wish(key, chunk);
                    let received = bench.scheduler.received(key, wish, bench.now);
                    bench.scheduler.remove_peer(key, bench.now);
                    bench.waiting.remove(&key);
                    if received == Received::Verify {
                        bench.scheduler.wrong(chunk);
                    }
                }
                (Step::NotHave, Some(chunk)) => {
                    bench.waiting.get_mut(&key).unwrap().remove(0);
                    bench.wish(key, chunk);
                    prop_assert!(bench.scheduler.not_have(key, chunk));
                }
                (Step::Busy, Some(chunk)) => {
                    bench.waiting.get_mut(&key).unwrap().remove(0);
                    bench.wish(key, chunk);
                    prop_assert!(bench.scheduler.busy(key, chunk, bench.now + Duration::from_millis(500)));
                }
                (Step::Have, _) => _ = bench.scheduler.add_haves(key, [chunk], bench.now),
                (Step::Idle, _) => bench.scheduler.idle(key, bench.now),
                (Step::Alive, _) => bench.scheduler.alive(key, bench.now),
                (Step::Choose, _) if !waiting.contains(&chunk) && bench.scheduler.has(key, chunk) => {
                    bench.choose(key, chunk);
                }
                (Step::Arriving, Some(chunk)) => {
                    // Sometimes the request was cancelled meanwhile.
                    let crossed = bench.crossed.iter().position(|&(asked, _)| asked == key);
                    let crossed = crossed.filter(|_| rng.random()).map(|at| bench.crossed.remove(at).1);
                    let chunk = crossed.unwrap_or(chunk);
                    bench.scheduler.arriving(key, chunk, bench.now);
                    if crossed.is_some() {
                        bench.fill();
                        let asked = bench.scheduler.asked.get(&chunk);
                        let is_wanted = asked.is_some_and(|asked| asked.askers.contains(&key));
                        // It is needed again, or is a duplicate.
                        match bench.waiting.get_mut(&key).filter(|waiting| is_wanted && !waiting.contains(&chunk)) {
                            // A later request for it was cancelled instead, and its answer must not come before this one.
                            Some(_) if bench.crossed.contains(&(key, chunk)) => bench.arrive(key, chunk),
                            Some(waiting) => waiting.push(chunk),
                            None => bench.crossed.push((key, chunk)),
                        }
                    }
                }
                (Step::Wait(ms), _) => bench.now += Duration::from_millis(ms),
                _ => {}
            }
            bench.fill();
        }
        let honest = bench.join(1_000_000, Have::All);
        for _ in 0..10_000 {
            if bench.scheduler.is_finished() {
                break;
            }
            match bench.deliver(honest) {
                Some(_) => bench.now += Duration::from_millis(10),
                None => {
                    let timeout = bench.scheduler.next_timeout(bench.now).expect("something to wait for");
                    bench.now = timeout.max(bench.now + Duration::from_millis(1));
                    bench.fill();
                }
            }
        }
        prop_assert!(bench.scheduler.is_finished());
        prop_assert!(bench.in_parts.iter().all(|(chunk, _)| similar.contains(&chunk.0)));
        bench.stored.sort();
        prop_assert_eq!(bench.stored, (0..chunks).map(ChunkIndex).collect::<Vec<_>>());
    }
}
