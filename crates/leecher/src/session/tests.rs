//! Sessions with a peer that the test plays.

use std::{net::Ipv4Addr, sync::OnceLock};

use bytes::BytesMut;
use peer::rate_limit::RateLimit;
use proto::{
    Digest, Metainfo, PeerId, SMALL_CHUNK_LEN, ShareName, Zone,
    metainfo::{FileNode, MAX_METAINFO_LEN, Tree},
    peer::{MAX_PART_LEN, encode_message},
};
use swarm::SMALL_METAINFO;
use tokio::{
    io::AsyncWriteExt,
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::*;
use crate::{buffers::BufferPool, describer::MAX_EARLY_HAVES};

const KEY: PeerKey = PeerKey(7);

/// A session that has connected to a peer, which the test plays.
struct Bench {
    context: Arc<Context>,
    events: mpsc::Receiver<(PeerKey, SessionEvent)>,
    turn: Arc<Turn>,
    stop: oneshot::Sender<LeaveReason>,
    session: JoinHandle<LeaveReason>,
    peer: Connection,
    _opened: watch::Sender<Option<Arc<Download>>>,
}

impl Bench {
    async fn new() -> Bench {
        Bench::with(Arc::default()).await
    }

    /// With a `turn` that may have been given already.
    async fn with(turn: Arc<Turn>) -> Bench {
        let (events_in, events) = mpsc::channel(99);
        let (opened, download) = watch::channel(None);
        let context = Arc::new(Context {
            infohash: metainfo().infohash(),
            peer_id: PeerId([1; 16]),
            events: events_in,
            known: watch::Sender::new(Known::Nothing),
            download,
            buffers: BufferPool::new(),
            listen_port: 0,
            zone: Zone::NONE,
            local: None,
            is_new: true,
            serving: OnceLock::new(),
            upload_limit: RateLimit::unlimited(),
            download_limit: RateLimit::unlimited(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let origin = Origin::Dial(listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let running = run(Arc::clone(&context), KEY, origin, Arc::clone(&turn), stopped);
        let session = tokio::spawn(running);
        let (stream, address) = listener.accept().await.unwrap();
        let incoming = handshake::receive(stream, address).await.unwrap();
        let hello = Hello { peer_id: PeerId([2; 16]), role: Role::Seeder, ..incoming.hello };
        let peer = incoming.accept(hello).await.unwrap();
        Bench { context, events, turn, stop, session, peer, _opened: opened }
    }

    async fn event(&mut self) -> PeerEvent {
        match self.events.recv().await.unwrap() {
            (KEY, SessionEvent::Peer(event)) => event,
            other => panic!("{other:?}"),
        }
    }
}

/// The metainfo of a file of two chunks.
fn metainfo() -> Metainfo {
    let file = FileNode::new(2 * u64::from(SMALL_CHUNK_LEN), Some(Digest([7; 32])));
    Metainfo::new(ShareName::new("file").unwrap(), Tree::File(file)).unwrap()
}

/// The swarm gives a turn for each report that a peer is ready. A second report would make it count the peer as waiting
/// while the peer is being asked.
#[tokio::test]
async fn a_peer_that_waits_for_its_turn_reports_once_that_it_is_ready() {
    let mut bench = Bench::new().await;
    assert!(matches!(bench.event().await, PeerEvent::Ready { .. }));
    // Another peer has sent the metainfo.
    bench.context.known.send_replace(Known::Metainfo(Arc::new(metainfo())));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    bench.turn.ask.notify_one();
    assert!(matches!(bench.event().await, PeerEvent::Describing { received: 0, .. }));
    let asked = bench.peer.reader.next().await.unwrap();
    assert_eq!(asked, Some(PeerMessage::HashesRequest { first: ChunkIndex(0), count: 2 }));
    drop(bench.stop);
    assert_eq!(bench.session.await.unwrap(), LeaveReason::Finished);
}

/// The whole description comes without another request, so it is read although another peer has sent the metainfo meanwhile.
#[tokio::test]
async fn a_session_whose_turn_it_is_asks_for_the_description_with_the_hello() {
    let turn = Arc::<Turn>::default();
    turn.ask.notify_one();
    let mut bench = Bench::with(turn).await;
    let asked = bench.peer.reader.next().await.unwrap();
    assert_eq!(asked, Some(PeerMessage::DescriptionRequest { chunk: true }));
    assert!(matches!(bench.event().await, PeerEvent::Ready { .. }));
    let metainfo = metainfo();
    bench.context.known.send_replace(Known::Metainfo(Arc::new(metainfo.clone())));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let len = u32::try_from(metainfo.as_bytes().len()).unwrap();
    let parts = [
        (PeerMessage::Metainfo { total_len: len, offset: 0, len }, metainfo.as_bytes().to_vec()),
        (PeerMessage::Hashes { first: ChunkIndex(0), count: 2 }, vec![0; 64]),
    ];
    for (message, payload) in parts {
        let mut bytes = BytesMut::new();
        encode_message(&message, &mut bytes).unwrap();
        bench.peer.writer.write_all(&bytes).await.unwrap();
        bench.peer.writer.write_all(&payload).await.unwrap();
    }
    let hashes = |event: &PeerEvent| {
        let PeerEvent::Describing { stage, received, .. } = event else { panic!("{event:?}") };
        *stage == swarm::DescriptionStage::Hashes && *received == 64
    };
    while !hashes(&bench.event().await) {}
    // They are wrong.
    assert_eq!(bench.session.await.unwrap(), LeaveReason::Lied);
}

/// A session that was asked for the description, and whose peer has sent the first part of a metainfo of this length.
async fn with_a_first_part(total_len: u32) -> Bench {
    let mut bench = Bench::new().await;
    assert!(matches!(bench.event().await, PeerEvent::Ready { .. }));
    bench.turn.ask.notify_one();
    let asked = bench.peer.reader.next().await.unwrap();
    assert_eq!(asked, Some(PeerMessage::MetainfoRequest { offset: 0 }));
    let (mut bytes, len) = (BytesMut::new(), MAX_PART_LEN);
    encode_message(&PeerMessage::Metainfo { total_len, offset: 0, len }, &mut bytes).unwrap();
    bytes.resize(bytes.len() + len as usize, 0);
    bench.peer.writer.write_all(&bytes).await.unwrap();
    let is_whole = |event: &PeerEvent| matches!(event, PeerEvent::Describing { received, .. } if *received == u64::from(len));
    while !is_whole(&bench.event().await) {}
    bench
}

/// Of a metainfo that is promised to be large, nothing more is requested before the swarm wants it, and so nothing is owed if
/// another peer is faster.
#[tokio::test]
async fn the_rest_of_a_large_metainfo_waits_for_the_swarm() {
    let mut bench = with_a_first_part(MAX_METAINFO_LEN).await;
    bench.context.known.send_replace(Known::Metainfo(Arc::new(metainfo())));
    assert!(matches!(bench.event().await, PeerEvent::Ready { .. }));
    bench.turn.ask.notify_one();
    let asked = bench.peer.reader.next().await.unwrap();
    assert_eq!(asked, Some(PeerMessage::HashesRequest { first: ChunkIndex(0), count: 2 }));

    let mut bench = with_a_first_part(MAX_METAINFO_LEN).await;
    bench.turn.rest.notify_one();
    let asked = bench.peer.reader.next().await.unwrap();
    assert_eq!(asked, Some(PeerMessage::MetainfoRequest { offset: MAX_PART_LEN }));

    let mut bench = with_a_first_part(u32::try_from(SMALL_METAINFO).unwrap()).await;
    let asked = bench.peer.reader.next().await.unwrap();
    assert_eq!(asked, Some(PeerMessage::MetainfoRequest { offset: MAX_PART_LEN }));
}

/// The peer may choose one chunk, if it is asked to.
#[tokio::test]
async fn a_chunk_that_is_chosen_twice_or_without_a_request_ends_the_session() {
    let chunk = ChunkIndex(1);
    let asked = Arc::<Turn>::default();
    asked.ask.notify_one();
    for (turn, one_too_many) in [(asked, 2), (Arc::default(), 1)] {
        let mut bench = Bench::with(turn).await;
        bench.turn.ask.notify_one();
        let mut choices = BytesMut::new();
        for _ in 0..one_too_many {
            encode_message(&PeerMessage::Chosen { chunk }, &mut choices).unwrap();
        }
        bench.peer.writer.write_all(&choices).await.unwrap();
        let one_more = Violation::Unexpected(PeerMessage::Chosen { chunk });
        assert_eq!(bench.session.await.unwrap(), LeaveReason::Protocol(one_more));
    }
}

/// A bitfield may have 512 KiB, and one that comes before the share is known is kept.
#[tokio::test]
async fn a_second_bitfield_before_the_description_ends_the_session() {
    let mut bench = Bench::new().await;
    bench.turn.ask.notify_one();
    let mut bitfield = BytesMut::new();
    encode_message(&PeerMessage::Bitfield { len: 1 }, &mut bitfield).unwrap();
    bitfield.extend_from_slice(&[0]);
    for _ in 0..2 {
        bench.peer.writer.write_all(&bitfield).await.unwrap();
    }
    let second = Violation::Unexpected(PeerMessage::Bitfield { len: 1 });
    assert_eq!(bench.session.await.unwrap(), LeaveReason::Protocol(second));
}

/// They are kept until the share is known. An honest peer has announced few by then.
#[tokio::test]
async fn news_without_end_before_the_description_end_the_session() {
    let mut bench = Bench::new().await;
    bench.turn.ask.notify_one();
    let mut news = BytesMut::new();
    let chunk = ChunkIndex(3);
    (0..=MAX_EARLY_HAVES).for_each(|_| encode_message(&PeerMessage::Have { chunk }, &mut news).unwrap());
    bench.peer.writer.write_all(&news).await.unwrap();
    let one_more = Violation::Unexpected(PeerMessage::Have { chunk });
    assert_eq!(bench.session.await.unwrap(), LeaveReason::Protocol(one_more));
}

#[tokio::test]
async fn a_peer_that_is_left_before_it_described_the_share_receives_the_reason() {
    for reason in [LeaveReason::TooSlow, LeaveReason::Lied, LeaveReason::Finished] {
        let mut bench = Bench::new().await;
        assert!(matches!(bench.event().await, PeerEvent::Ready { .. }));
        bench.stop.send(reason.clone()).unwrap();
        let goodbye = bench.peer.reader.next().await.unwrap();
        assert_eq!(goodbye, Some(PeerMessage::Goodbye(reason.goodbye())));
        assert_eq!(bench.session.await.unwrap(), reason);
    }
}
