use proto::CHUNK_LEN;

use super::*;

const A: AskerKey = AskerKey(1);
const B: AskerKey = AskerKey(2);

fn chunks(uploads: &mut Uploads, now: Instant) -> Vec<(AskerKey, u32)> {
    std::iter::from_fn(|| {
        let (key, wish) = uploads.start(now)?;
        uploads.finished(key, CHUNK_LEN, now);
        Some((key, wish.chunk.0))
    })
    .collect()
}

#[test]
fn the_chunk_that_was_sent_least_goes_first() {
    let now = Instant::now();
    let mut uploads = Uploads::new(3, CHUNK_LEN, 1);
    uploads.request(A, ChunkIndex(0));
    assert_eq!(chunks(&mut uploads, now), [(A, 0)]);
    for chunk in [0, 1, 2] {
        uploads.request(B, ChunkIndex(chunk));
    }
    uploads.request(A, ChunkIndex(1));
    assert_eq!(chunks(&mut uploads, now), [(B, 1), (B, 2), (A, 1), (B, 0)]);
}

#[test]
fn of_many_requests_the_oldest_are_considered_and_all_are_answered() {
    let now = Instant::now();
    let mut uploads = Uploads::new(100, CHUNK_LEN, 1);
    let last = MAX_PIPELINE as u32 - 1;
    for chunk in 0..last {
        uploads.request(A, ChunkIndex(chunk));
    }
    chunks(&mut uploads, now);
    for chunk in 0..=last {
        uploads.request(B, ChunkIndex(chunk));
    }
    let answered = chunks(&mut uploads, now);
    // The only chunk that was not sent yet is sent as soon as its request is one of the oldest.
    let at = answered.iter().position(|&(_, chunk)| chunk == last).unwrap();
    assert_eq!(at, MAX_PIPELINE - CONSIDERED);
    assert_eq!(answered.len(), MAX_PIPELINE);
}

#[test]
fn every_asker_gets_its_turn() {
    let now = Instant::now();
    let mut uploads = Uploads::new(1_000, CHUNK_LEN, 8);
    for asker in 0..500 {
        for chunk in 0..10 {
            uploads.request(AskerKey(asker), ChunkIndex((asker as u32 * 7 + chunk) % 1_000));
        }
    }
    let mut first: Vec<_> = chunks(&mut uploads, now)[..1_000].iter().map(|&(key, _)| key).collect();
    first.sort();
    first.dedup();
    assert!(first.len() > 300, "{} of 500 were served in the first 1,000 uploads", first.len());
}

#[test]
fn an_asker_that_has_least_of_the_share_goes_first() {
    let now = Instant::now();
    let order = |percents: [u32; 3]| {
        let mut uploads = Uploads::new(1_000, CHUNK_LEN, 1);
        // C was served once, so it is the last of equals.
        let c = AskerKey(3);
        uploads.request(c, ChunkIndex(0));
        chunks(&mut uploads, now);
        for (key, percent) in [A, B, c].into_iter().zip(percents) {
            uploads.request(key, ChunkIndex(key.0 as u32));
            uploads.reports(key, Completion::of(percent, 100));
        }
        chunks(&mut uploads, now).into_iter().map(|(key, _)| key.0).collect::<Vec<_>>()
    };
    assert_eq!(order([50, 50, 40]), [3, 1, 2]);
    assert_eq!(order([50, 45, 40]), [3, 2, 1]);
    assert_eq!(order([53, 53, 51]), [1, 2, 3], "it is nearly as far");
}

#[test]
fn an_asker_that_hides_what_it_was_sent_does_not_gain() {
    let now = Instant::now();
    let mut uploads = Uploads::new(1_000, CHUNK_LEN, 1);
    uploads.reports(A, Completion::of(1, 1_000));
    uploads.reports(B, Completion::of(100, 1_000));
    for chunk in 0..200 {
        // Both were sent every chunk before, so only their order counts.
        uploads.request(if chunk < 100 { A } else { B }, ChunkIndex(chunk));
    }
    let served = chunks(&mut uploads, now);
    let first_of_b = served.iter().position(|&(key, _)| key == B).unwrap();
    assert!((90..=100).contains(&first_of_b), "B's turn comes after {first_of_b}");
}

/// Sends five chunks to others, one after the other, 20 ms each. Returns when, and the link is measured.
fn measure(uploads: &mut Uploads, start: Instant) -> Instant {
    let other = AskerKey(1_000);
    [0, 1, 2, 3, 3].iter().for_each(|&chunk| _ = uploads.request(other, ChunkIndex(chunk)));
    let mut now = start;
    for _ in 0..5 {
        assert!(uploads.start(now).is_some());
        now += Duration::from_millis(20);
        uploads.progress(|_| CHUNK_LEN, now);
        uploads.finished(other, CHUNK_LEN, now);
    }
    uploads.leave(other);
    now
}

#[test]
fn the_link_is_measured_by_all_uploads_together() {
    let mut uploads = Uploads::new(10, CHUNK_LEN, DEFAULT_SLOTS);
    let start = Instant::now();
    let ms = |ms| start + Duration::from_millis(ms);
    let start_all = |uploads: &mut Uploads, now| std::iter::from_fn(|| uploads.start(now)).count();
    (0..30).for_each(|key| _ = uploads.request(AskerKey(key), ChunkIndex(0)));
    for round in 0..3 {
        assert_eq!(start_all(&mut uploads, ms(60 * round)), PARALLEL, "round {round}");
        uploads.progress(|_| CHUNK_LEN, ms(60 * round + 60));
        (3 * round..3 * round + 3)
            .for_each(|key| uploads.finished(AskerKey(key), CHUNK_LEN, ms(60 * round + 60)));
    }
    assert_eq!(start_all(&mut uploads, ms(180)), PARALLEL);
    // Each took 60 ms, but the link sends a chunk in 20. So a fourth may start when the three take longer than that.
    let next = uploads.next_timeout(ms(180)).unwrap();
    assert!((ms(246)..ms(247)).contains(&next), "{:?}", next - start);
}

#[test]
fn another_upload_starts_only_when_the_receiver_is_the_limit() {
    let mut uploads = Uploads::new(10, CHUNK_LEN, PARALLEL + 1);
    let start = measure(&mut uploads, Instant::now());
    let ms = |ms| start + Duration::from_millis(ms);
    for key in 0..10 {
        uploads.request(AskerKey(key), ChunkIndex(1));
    }
    for _ in 0..PARALLEL {
        assert!(uploads.start(start).is_some());
    }
    uploads.progress(|_| CHUNK_LEN / 2, ms(60));
    // Three uploads divide the link, so each may take three times as long as one alone, and a tenth more.
    assert_eq!(uploads.start(ms(65)), None);
    let next = uploads.next_timeout(ms(65)).unwrap();
    assert!((ms(66)..ms(67)).contains(&next), "{:?}", next - start);
    assert!(uploads.start(next + Duration::from_millis(1)).is_some());
    uploads.progress(|_| CHUNK_LEN, ms(130));
    assert_eq!(uploads.start(ms(130)), None, "no further slot");
}

/// Receivers may take less than they get, because their own links are full, or their acknowledgements come late.
#[test]
fn further_uploads_start_soon_while_the_link_has_room() {
    // Of a link that sends a chunk in 20 ms, each upload takes this part.
    let uploads_after_300_ms = |part: f64| {
        let mut uploads = Uploads::new(100, CHUNK_LEN, DEFAULT_SLOTS);
        let start = measure(&mut uploads, Instant::now());
        (0..50).for_each(|key| _ = uploads.request(AskerKey(key), ChunkIndex(key as u32)));
        let mut under_way: Vec<(AskerKey, Instant)> = Vec::new();
        for ms in 0..300 {
            let now = start + Duration::from_millis(ms);
            let taken = |key| {
                let begun = under_way.iter().find(|upload| upload.0 == key).map_or(now, |upload| upload.1);
                (part * f64::from(CHUNK_LEN) / 20.0 * (now - begun).as_millis() as f64) as u32
            };
            uploads.progress(taken, now);
            under_way.extend(std::iter::from_fn(|| uploads.start(now)).map(|(key, _)| (key, now)));
        }
        under_way.len()
    };
    let (tenths, hundredths) = (uploads_after_300_ms(0.1), uploads_after_300_ms(0.01));
    assert!((9..=11).contains(&tenths), "{tenths}: ten fill the link");
    assert!(hundredths > 11, "{hundredths}");
}

#[test]
fn on_a_slow_link_uploads_do_not_count_as_held_up_before_it_is_measured() {
    let start = Instant::now();
    let mut uploads = Uploads::new(100, CHUNK_LEN, DEFAULT_SLOTS);
    (0..50).for_each(|key| _ = uploads.request(AskerKey(key), ChunkIndex(key as u32)));
    let mut under_way = 0;
    for ms in (0..1_200).step_by(50) {
        // 10 Mbit/s in all.
        let now = start + Duration::from_millis(ms);
        uploads.progress(|_| u32::try_from(1_250 * ms).unwrap() / under_way.max(1), now);
        under_way += std::iter::from_fn(|| uploads.start(now)).count() as u32;
    }
    assert!(under_way <= 2 * PARALLEL as u32, "{under_way} uploads");
}

#[test]
fn in_a_large_share_more_uploads_run() {
    let now = Instant::now();
    for (chunks, expected) in [(1, 3), (128, 3), (320, 5), (768, 12), (200_000, 12)] {
        let mut uploads = Uploads::new(chunks, CHUNK_LEN, DEFAULT_SLOTS);
        (0..50).for_each(|key| _ = uploads.request(AskerKey(key), ChunkIndex(0)));
        assert_eq!(std::iter::from_fn(|| uploads.start(now)).count(), expected, "{chunks} chunks");
    }
}

/// Has 400 receivers whose sockets take in `buffered` bytes at once, and then nothing. Returns how long it takes to find them out.
fn find_out_receivers_of(buffered: u32) -> Duration {
    let start = Instant::now();
    let mut uploads = Uploads::new(10, CHUNK_LEN, DEFAULT_SLOTS);
    let stuck: Vec<_> = (100..500).map(AskerKey).collect();
    let mut now = start;
    for &key in &stuck {
        uploads.request(key, ChunkIndex(0));
    }
    let mut under_way = 0;
    while under_way < stuck.len() {
        uploads.progress(|_| buffered, now);
        under_way += std::iter::from_fn(|| uploads.start(now)).count();
        now = uploads.next_timeout(now).unwrap_or(now);
    }
    let took = now - start;
    // When they are found out they block no other.
    now += BURST_TIME;
    uploads.request(A, ChunkIndex(1));
    assert_eq!(uploads.start(now), Some((A, ChunkIndex(1).into())));
    took
}

#[test]
fn receivers_that_take_nothing_hold_up_no_others() {
    let took = find_out_receivers_of(0);
    assert!(took <= Duration::from_secs(5), "it took {took:?} to find them out");
}

#[test]
fn receivers_that_only_fill_their_buffers_hold_up_no_others() {
    let took = find_out_receivers_of(200 * 1024);
    assert!(took <= Duration::from_secs(5), "it took {took:?} to find them out");
}

#[test]
fn a_slow_receiver_is_served_beside_the_others_until_it_is_fast() {
    let mut uploads = Uploads::new(100, CHUNK_LEN, PARALLEL);
    let start = measure(&mut uploads, Instant::now());
    let ms = |ms| start + Duration::from_millis(ms);
    let (slow, fast) = (AskerKey(100), [A, B, AskerKey(3)]);
    for &key in fast.iter().chain([&slow]) {
        for chunk in 0..10 {
            uploads.request(key, ChunkIndex(chunk));
        }
    }
    let served = |uploads: &mut Uploads, now| -> Vec<_> {
        std::iter::from_fn(|| uploads.start(now)).map(|(key, _)| key).collect()
    };
    assert_eq!(served(&mut uploads, start), fast);
    fast.iter().for_each(|&key| uploads.finished(key, CHUNK_LEN, ms(30)));
    assert_eq!(served(&mut uploads, ms(30)), [slow, A, B]);
    [A, B].iter().for_each(|&key| uploads.finished(key, CHUNK_LEN, ms(60)));
    // It took an eighth of a chunk while each of the others took a complete one.
    uploads.progress(|key| if key == slow { CHUNK_LEN / 8 } else { 0 }, ms(500));
    assert_eq!(served(&mut uploads, ms(500)), [AskerKey(3), A, B]);
    uploads.finished(slow, CHUNK_LEN, ms(520));
    uploads.progress(|_| CHUNK_LEN / 2, ms(521));
    // It is served although all slots are taken.
    assert_eq!(served(&mut uploads, ms(521)), [slow]);
    uploads.finished(slow, CHUNK_LEN, ms(551));
    assert_eq!(served(&mut uploads, ms(551)), [], "it is as fast as the others now and waits for its turn");
}

#[test]
fn rejects_and_small_chunks_measure_nothing_of_the_link() {
    let now = Instant::now();
    let mut uploads = Uploads::new(10, CHUNK_LEN, DEFAULT_SLOTS);
    for bytes in [0, 1, CHUNK_LEN / 2 - 1] {
        uploads.request(A, ChunkIndex(0));
        assert!(uploads.start(now).is_some());
        uploads.finished(A, bytes, now);
    }
    for key in 0..10 {
        uploads.request(AskerKey(key), ChunkIndex(1));
    }
    assert_eq!(std::iter::from_fn(|| uploads.start(now)).count(), PARALLEL);
    assert_eq!(uploads.start(now + Duration::from_millis(50)), None);
}

#[test]
fn there_are_no_more_uploads_than_slots() {
    let now = Instant::now();
    let mut uploads = Uploads::new(10, CHUNK_LEN, 1);
    uploads.request(A, ChunkIndex(0));
    uploads.request(B, ChunkIndex(0));
    assert_eq!(uploads.start(now), Some((A, ChunkIndex(0).into())));
    assert_eq!(uploads.start(now), None);
    assert!(!uploads.is_waiting(A));
    assert!(uploads.is_waiting(B));
}

#[test]
fn a_request_can_be_cancelled_while_it_waits_and_goes_with_its_asker() {
    let now = Instant::now();
    let mut uploads = Uploads::new(100, CHUNK_LEN, 8);
    for chunk in [1, 2, 2] {
        assert_eq!(uploads.request(A, ChunkIndex(chunk)), Requested::Waits);
    }
    assert!(uploads.cancel(A, ChunkIndex(1)));
    assert!(!uploads.cancel(A, ChunkIndex(1)), "it waits no more");
    uploads.request(B, ChunkIndex(9));
    uploads.leave(B);
    assert_eq!(chunks(&mut uploads, now), [(A, 2), (A, 2)], "each request is answered");
    uploads.request(A, ChunkIndex(3));
    assert!(uploads.start(now).is_some());
    assert!(!uploads.cancel(A, ChunkIndex(3)), "it is being sent");
    uploads.finished(A, CHUNK_LEN, now);
    for chunk in 0..MAX_PIPELINE as u32 {
        uploads.request(A, ChunkIndex(chunk));
    }
    assert_eq!(uploads.request(A, ChunkIndex(99)), Requested::TooMany);
}

#[test]
fn a_few_learn_once_that_nothing_waits_and_others_the_next_time() {
    let start = Instant::now();
    let mut uploads = Uploads::new(100, CHUNK_LEN, 1);
    let everybody: Vec<_> = (0..12).map(AskerKey).collect();
    everybody.iter().for_each(|&key| _ = uploads.request(key, ChunkIndex(0)));
    assert_eq!(uploads.take_idle(start), []);
    chunks(&mut uploads, start);
    assert_eq!(uploads.take_idle(start), everybody[..IDLE_NOTIFIED]);
    assert_eq!(uploads.take_idle(start + IDLE_INTERVAL), [], "they know");
    uploads.request(A, ChunkIndex(1));
    assert_eq!(uploads.take_idle(start + IDLE_INTERVAL), []);
    chunks(&mut uploads, start + IDLE_INTERVAL);
    let notified = uploads.take_idle(start + IDLE_INTERVAL);
    assert_eq!(notified[..5], [8, 9, 10, 11, 0].map(AskerKey));
    uploads.request(A, ChunkIndex(2));
    assert_eq!(uploads.take_idle(start + IDLE_INTERVAL), []);
    chunks(&mut uploads, start + IDLE_INTERVAL);
    assert_eq!(uploads.take_idle(start + IDLE_INTERVAL), [], "so soon after the last time");
}

#[test]
fn the_hashes_of_a_chunk_do_not_count_as_the_chunk() {
    let now = Instant::now();
    let mut uploads = Uploads::new(2, CHUNK_LEN, 1);
    let leaves = Wish { chunk: ChunkIndex(0), form: Form::Leaves };
    uploads.request(A, leaves);
    assert_eq!(uploads.start(now), Some((A, leaves)));
    assert_eq!(uploads.serving(A), Some(leaves));
    uploads.finished(A, 1_024, now);
    // Both were never sent.
    uploads.request(B, ChunkIndex(1));
    uploads.request(B, ChunkIndex(0));
    assert_eq!(uploads.start(now), Some((B, ChunkIndex(1).into())));
    uploads.finished(B, CHUNK_LEN, now);
    let blocks = Wish { chunk: ChunkIndex(1), form: Form::Blocks(proto::peer::BlockSet(1)) };
    uploads.request(A, blocks);
    assert!(uploads.cancel(A, ChunkIndex(1)), "a cancellation names the chunk alone");
}
