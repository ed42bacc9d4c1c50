//! Encoding and decoding the most frequent messages: a request for a chunk, and an announce.

use std::{hint::black_box, num::NonZeroU16};

use bytes::BytesMut;
use criterion::Criterion;
use proto::{
    ChunkIndex, InfoHash, PeerId, Secret, ShareName, Zone,
    peer::{PeerCodec, PeerMessage, encode_message},
    tracker::{
        Announce, Completion, Event, PeerAddress, PeerEntry, Peers, Reply, ReplyBody, Request, RequestBody,
        Token, TransactionId,
        codec::{decode_reply, decode_request, encode_reply, encode_request},
    },
};
use tokio_util::codec::Decoder;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    chunk_request(&mut criterion);
    announce(&mut criterion);
    peers(&mut criterion);
    connected(&mut criterion);
    criterion.final_summary();
}

fn chunk_request(criterion: &mut Criterion) {
    let request = PeerMessage::Request { chunk: ChunkIndex(123_456), progress: Completion::NOTHING };
    let mut buffer = BytesMut::with_capacity(4096);
    let mut group = criterion.benchmark_group("chunk request");
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            encode_message(black_box(&request), &mut buffer).unwrap();
        });
    });
    let frame = buffer.clone();
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            buffer.extend_from_slice(black_box(&frame));
            PeerCodec.decode(&mut buffer).unwrap()
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
    let mut buffer = BytesMut::with_capacity(4096);
    let mut group = criterion.benchmark_group("30 peers");
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            encode_reply(black_box(&reply), &mut buffer).unwrap();
        });
    });
    let datagram = buffer.freeze();
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
    let mut buffer = BytesMut::with_capacity(4096);
    let mut group = criterion.benchmark_group("announce");
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            encode_request(black_box(&request), &mut buffer).unwrap();
        });
    });
    let datagram = buffer.freeze();
    group.bench_function("decode", |bencher| bencher.iter(|| decode_request(black_box(&datagram)).unwrap()));
    group.finish();
}
