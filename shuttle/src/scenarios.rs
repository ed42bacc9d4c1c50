//! The scenarios. Each runs inside Shuttle, and panics if something does not hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use proto::{
    Bitfield, ChunkIndex, SMALL_CHUNK_LEN,
    peer::{GoodbyeReason, PeerMessage, RejectReason},
    tracker::Completion,
};
use shuttle::future::{block_on, spawn, yield_now};
use swarm::MAX_UNPROVED;

use crate::{
    activity::Activity,
    buffers::BufferPool,
    have_log::HaveLog,
    outbox::{Outbox, Outgoing},
    upload_hub::UploadHub,
};

/// Chunks of the share in these scenarios.
const CHUNKS: u32 = 4;

/// Several tasks fill an outbox while its sender waits and sends. All that they put in is sent, without any later event that would wake
/// the sender.
///
/// Catches a wake-up that is lost, for example one that only reaches a sender that waits already: then a peer gets no answer until
/// something else happens on its connection.
pub fn outbox_delivers() {
    let (outbox, log) = (Outbox::default(), HaveLog::default());
    let feed = log.feed();
    let sender = spawn({
        let outbox = outbox.clone();
        async move {
            let (mut parts, mut haves, mut others) = (Vec::new(), Vec::new(), 0);
            while parts.len() + haves.len() + others < 3 + CHUNKS as usize + 3 {
                match outbox.next().await.expect("it is not closed") {
                    Outgoing::Metainfo { offset } => parts.push(offset),
                    Outgoing::Haves(chunks) => haves.extend(chunks),
                    Outgoing::Bitfield(_) | Outgoing::Chunk(_) | Outgoing::Message(PeerMessage::Idle) => {
                        others += 1
                    }
                    other => panic!("{other:?} was not put in"),
                }
            }
            assert_eq!(parts, [0, 1, 2], "messages keep their order");
            assert!(haves.into_iter().eq((0..CHUNKS).map(ChunkIndex)), "each chunk is reported once");
        }
    });
    let reader = spawn({
        let outbox = outbox.clone();
        async move { (0..3).for_each(|offset| outbox.metainfo(offset).expect("there is room")) }
    });
    let driver = spawn({
        let outbox = outbox.clone();
        async move {
            for chunk in (0..CHUNKS).map(ChunkIndex) {
                log.push(chunk);
                outbox.wake();
            }
        }
    });
    outbox.grant(ChunkIndex(1));
    outbox.idle();
    outbox.bitfield(Bitfield::empty(CHUNKS), feed).expect("there is room");
    for task in [sender, reader, driver] {
        block_on(task).expect("a task that ends");
    }
}

/// An outbox is closed while others fill it. The goodbye is sent once, nothing follows it, and the sender ends.
///
/// Catches whatever is put in after the goodbye, for example a chunk that the upload hub grants to a connection that is ending. The
/// connection would stay until that is sent.
pub fn outbox_ends() {
    let (outbox, log) = (Outbox::default(), HaveLog::default());
    outbox.bitfield(Bitfield::empty(CHUNKS), log.feed()).expect("there is room");
    let sender = spawn({
        let outbox = outbox.clone();
        async move {
            let mut sent = Vec::new();
            while let Some(outgoing) = outbox.next().await {
                sent.push(outgoing);
            }
            sent
        }
    });
    let filling = spawn({
        let outbox = outbox.clone();
        async move {
            outbox.metainfo(0).expect("there is room");
            log.push(ChunkIndex(2));
            outbox.wake();
            outbox.idle();
        }
    });
    let granting = spawn({
        let outbox = outbox.clone();
        async move { outbox.grant(ChunkIndex(1)) }
    });
    let closing = spawn(async move {
        outbox.close(GoodbyeReason::Done);
        outbox.close(GoodbyeReason::Protocol);
    });
    for task in [filling, granting, closing] {
        block_on(task).expect("a task that ends");
    }
    let sent = block_on(sender).expect("a sender that ends");
    let is_goodbye = |outgoing: &Outgoing| matches!(outgoing, Outgoing::Message(PeerMessage::Goodbye(_)));
    assert_eq!(sent.iter().position(is_goodbye), Some(sent.len() - 1), "{sent:?}");
    assert_eq!(sent.last(), Some(&Outgoing::Message(PeerMessage::Goodbye(GoodbyeReason::Done))));
}

/// Several peers request chunks, cancel one, and are served by one slot, while another peer leaves in the middle of an upload. Each
/// request is answered once, with the chunk or with a rejection, and whoever waits gets the slot.
///
/// Catches a request that is answered twice or never because a cancellation crosses its grant, a slot that a peer takes with it when
/// it leaves, and a change after which nobody looks for the next upload.
pub fn upload_hub_answers() {
    let hub = UploadHub::new(CHUNKS, SMALL_CHUNK_LEN, 1);
    let running = spawn({
        let hub = Arc::clone(&hub);
        async move { hub.run().await }
    });
    let peers = [0, 1].map(|first| spawn(be_served(Arc::clone(&hub), first)));
    let leaving = spawn(leave_in_the_middle(Arc::clone(&hub)));
    for task in peers.into_iter().chain([leaving]) {
        block_on(task).expect("a task that ends");
    }
    // The slot is free again.
    block_on(be_served(Arc::clone(&hub), 2));
    assert_eq!(hub.bytes_sent() % u64::from(SMALL_CHUNK_LEN), 0);
    running.abort();
}

/// A connection: its reader requests three chunks and cancels one, while its sender sends what is granted.
async fn be_served(hub: Arc<UploadHub>, first: u32) {
    let outbox = Outbox::default();
    let asker = Arc::new(hub.join(([127, 0, 0, 1], 1).into(), outbox.clone(), Activity::default()));
    let chunks = [0, 1, 2].map(|at| ChunkIndex((first + at) % CHUNKS));
    let reader = spawn({
        let asker = Arc::clone(&asker);
        async move {
            for chunk in chunks {
                asker.request(chunk, Completion::NOTHING).expect("there is room");
            }
            asker.cancel(chunks[1]).expect("there is room");
        }
    });
    let mut answers: BTreeMap<ChunkIndex, usize> = BTreeMap::new();
    while answers.len() < chunks.len() {
        match outbox.next().await.expect("it is not closed") {
            Outgoing::Chunk(wish) => {
                asker.taken(SMALL_CHUNK_LEN as usize);
                *answers.entry(wish.chunk).or_default() += 1;
                asker.served(SMALL_CHUNK_LEN);
            }
            Outgoing::Message(PeerMessage::Reject { chunk, reason: RejectReason::Cancelled }) => {
                *answers.entry(chunk).or_default() += 1;
            }
            Outgoing::Message(PeerMessage::Idle) => {}
            other => panic!("{other:?} is no answer"),
        }
    }
    reader.await.expect("a reader that ends");
    while let Some(more) = outbox.try_next() {
        assert_eq!(more, Outgoing::Message(PeerMessage::Idle), "all requests are answered");
    }
    assert!(
        answers.into_iter().eq(chunks.into_iter().collect::<BTreeSet<_>>().into_iter().map(|it| (it, 1)))
    );
}

/// A connection that ends while a chunk is granted to it, or before.
async fn leave_in_the_middle(hub: Arc<UploadHub>) {
    let outbox = Outbox::default();
    let asker = hub.join(([127, 0, 0, 1], 1).into(), outbox.clone(), Activity::default());
    for chunk in [0, 3].map(ChunkIndex) {
        asker.request(chunk, Completion::NOTHING).expect("there is room");
    }
    yield_now().await;
    outbox.close(GoodbyeReason::ShuttingDown);
    drop(asker);
}

/// More sessions than may pass on chunks take buffers, wait for their turn, and give both back. Some give up while they wait.
///
/// Catches a turn that is lost with a session that gives up, which in the end would stop the transfer; more chunks in memory than the
/// bound; and a buffer that two sessions write to.
pub fn buffers_take_turns() {
    let pool = Arc::new(BufferPool::new());
    let passed_on = Arc::new(AtomicUsize::new(0));
    let session = |number: usize| {
        let (pool, passed_on) = (Arc::clone(&pool), Arc::clone(&passed_on));
        async move {
            for _ in 0..2 {
                let mut buffer = pool.take(8);
                buffer.fill(number as u8);
                pool.await_turn(&mut buffer).await;
                assert!(
                    passed_on.fetch_add(1, Ordering::Relaxed) < MAX_UNPROVED,
                    "too many chunks are passed on"
                );
                yield_now().await;
                assert!(
                    buffer.iter().all(|&byte| byte == number as u8),
                    "another session wrote to this buffer"
                );
                passed_on.fetch_sub(1, Ordering::Relaxed);
            }
        }
    };
    let staying: Vec<_> = (0..MAX_UNPROVED + 1).map(|number| spawn(session(number))).collect();
    // These wait for a turn, and then are not there any more.
    let leaving = [101, 102].map(|number: u8| {
        let pool = Arc::clone(&pool);
        spawn(async move {
            let mut buffer = pool.take(8);
            buffer.fill(number);
            pool.await_turn(&mut buffer).await;
            yield_now().await;
        })
    });
    leaving.iter().for_each(|task| task.abort());
    staying.into_iter().for_each(|task| block_on(task).expect("a session that ends"));
    for task in leaving {
        let _ = block_on(task);
    }
    // All turns are there.
    let mut all: Vec<_> = (0..MAX_UNPROVED).map(|_| pool.take(8)).collect();
    all.iter_mut().for_each(|buffer| block_on(pool.await_turn(buffer)));
    let distinct: BTreeSet<_> = all.iter().map(|buffer| buffer.as_ptr()).collect();
    assert_eq!(distinct.len(), MAX_UNPROVED);
}
