//! Encoding and decoding the most frequent messages of peers and trackers.

use std::{hint::black_box, num::NonZeroU16};

use bytes::BytesMut;
use criterion::Criterion;
use proto::{
    CHUNK_LEN, ChunkIndex, InfoHash, PeerId, Secret, ShareName, Zone,
    peer::{PeerCodec, PeerMessage, encode_message},
    tracker::{
        Announce, Completion, Event, PeerAddress, PeerEntry, Peers, Reply, ReplyBody, Request, RequestBody,
        Token, TransactionId,
        codec::{borrow_request, decode_reply, decode_request, encode_reply, encode_request},
    },
};
use tokio_util::codec::Decoder;

/// A chunk of a large share, whose number takes as many bytes as any.
const CHUNK: ChunkIndex = ChunkIndex(123_456);
/// Chunks that are announced together.
const HAVES: u32 = 64;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    peer_message(
        &mut criterion,
        "chunk request",
        &[PeerMessage::Request { chunk: CHUNK, progress: Completion::NOTHING }],
    );
    peer_message(&mut criterion, "header of a chunk", &[PeerMessage::Chunk { chunk: CHUNK, len: CHUNK_LEN }]);
    let haves: Vec<_> =
        (0..HAVES).map(|number| PeerMessage::Have { chunk: ChunkIndex(number * 4_099) }).collect();
    peer_message(&mut criterion, "64 announced chunks", &haves);
    announce(&mut criterion);
    peers(&mut criterion);
    connected(&mut criterion);
    criterion.final_summary();
}

/// Messages that are sent together.
fn peer_message(criterion: &mut Criterion, name: &str, messages: &[PeerMessage]) {
    let encode = |buffer: &mut BytesMut| {
        buffer.clear();
        for message in messages {
            encode_message(black_box(message), buffer).unwrap();
        }
    };
    let mut buffer = BytesMut::with_capacity(4096);
    encode(&mut buffer);
    let frames = buffer.clone();
    let mut group = criterion.benchmark_group(name);
    group.bench_function("encode", |bencher| bencher.iter(|| encode(&mut buffer)));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            buffer.extend_from_slice(black_box(&frames));
            while let Some(message) = PeerCodec.decode(&mut buffer).unwrap() {
                black_box(message);
            }
        });
    });
    group.finish();
}

fn peers(criterion: &mut Criterion) {
    let port = NonZeroU16::new(7000).unwrap();
    let peer = |host| PeerEntry {
        address: PeerAddress::V4([192, 0, 2, host]),
        port,
        progress: Completion::COMPLETE,
    };
    let peers = (1..=30).map(peer).collect();
    let body = ReplyBody::Peers(Peers {
        interval_s: 30,
        settles_in_s: 0,
        seeders: 20,
        leechers: 20,
        completed: 0,
        peers,
    });
    let reply = Reply { transaction: TransactionId(0x8000_0007), body };
    let encode = |buffer: &mut BytesMut| {
        buffer.clear();
        encode_reply(black_box(&reply), buffer).unwrap();
    };
    let mut buffer = BytesMut::with_capacity(4096);
    encode(&mut buffer);
    let datagram = buffer.clone();
    let mut group = criterion.benchmark_group("30 peers");
    group.bench_function("encode", |bencher| bencher.iter(|| encode(&mut buffer)));
    group.bench_function("decode", |bencher| bencher.iter(|| decode_reply(black_box(&datagram)).unwrap()));
    group.finish();
}

fn connected(criterion: &mut Criterion) {
    let body = ReplyBody::Connected { token: Token([1; 16]), lifetime_s: 120 };
    let reply = Reply { transaction: TransactionId(0x8000_0007), body };
    let mut buffer = BytesMut::with_capacity(4096);
    criterion.bench_function("token: encode", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            encode_reply(black_box(&reply), &mut buffer).unwrap();
        });
    });
}

fn announce(criterion: &mut Criterion) {
    let request = Request {
        transaction: TransactionId(7),
        body: RequestBody::Announce(Announce {
            token: Token([1; 16]),
            infohash: InfoHash([2; 32]),
            peer_id: PeerId([3; 16]),
            secret: Secret([4; 16]),
            port: NonZeroU16::new(7000).unwrap(),
            name: ShareName::new("model-weights.safetensors").unwrap(),
            size: 15 << 30,
            event: Event::Heartbeat,
            progress: Completion::of(40, 100),
            label: Default::default(),
            fetched: false,
            zone: Zone::NONE,
        }),
    };
    let encode = |buffer: &mut BytesMut| {
        buffer.clear();
        encode_request(black_box(&request), buffer).unwrap();
    };
    let mut buffer = BytesMut::with_capacity(4096);
    encode(&mut buffer);
    let datagram = buffer.clone();
    let mut group = criterion.benchmark_group("announce");
    group.bench_function("encode", |bencher| bencher.iter(|| encode(&mut buffer)));
    group.bench_function("decode by serde", |bencher| {
        bencher.iter(|| decode_request(black_box(&datagram)).unwrap());
    });
    group.bench_function("decode by hand", |bencher| {
        bencher.iter(|| black_box(borrow_request(black_box(&datagram)).unwrap()));
    });
    group.finish();
}
