//! What the tracker's own code takes of an answer, without sockets: batches of the requests of clients at work.
//!
//! 100,000 peers from 200 addresses, 10,000 shares of which a few are far more popular, as `tracker-load run` simulates them.

#![expect(clippy::disallowed_methods, reason = "a benchmark begins at any moment")]

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU16,
    time::Instant,
};

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput};
use proto::{
    InfoHash, Label, PeerId, Secret, ShareName, Zone,
    tracker::{
        Announce, Completion, Event, Query, Reply, ReplyBody, Request, RequestBody, Token, TransactionId,
        codec::{decode_reply, encode_request},
    },
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tracker::{Handler, Rules, datagrams::BATCH_LEN};

const PEERS: u32 = 100_000;
const SHARES: u32 = 10_000;
const ADDRESSES: u32 = 200;
const WANT: u8 = 30;

type Batch = Vec<(IpAddr, BytesMut)>;

/// A tracker in which everybody is registered, and the tokens of all addresses.
struct Bench {
    handler: Handler,
    tokens: Vec<Token>,
    now: Instant,
    rng: StdRng,
}

#[derive(Clone, Copy)]
enum Kind {
    Connect,
    Announce,
    Lookup,
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut bench = Bench::new();
    let kinds = [
        ("connects", [Kind::Connect; 4]),
        ("heartbeats", [Kind::Announce; 4]),
        ("lookups", [Kind::Lookup; 4]),
        ("half connects", [Kind::Connect, Kind::Connect, Kind::Announce, Kind::Lookup]),
    ];
    let mut group = criterion.benchmark_group("a batch of requests");
    group.throughput(Throughput::Elements(BATCH_LEN as u64));
    for (name, kinds) in kinds {
        // More than the caches of the processor hold.
        let batches: Vec<Batch> = (0..4_096).map(|_| bench.batch(kinds)).collect();
        let mut next = batches.iter().cycle();
        let mut replies = BytesMut::with_capacity(BATCH_LEN * 1_200);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || next.next(),
                |batch| batch.map(|batch| bench.answer(batch, &mut replies)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    criterion.final_summary();
}

impl Bench {
    fn new() -> Bench {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        // Without limits, because a second here has more answers than one of a network.
        let rules = Rules { rate: None, ..Rules::default() };
        let handler = Handler::new(rules, now, &mut rng);
        let mut bench = Bench { handler, tokens: Vec::new(), now, rng };
        for address in 0..ADDRESSES {
            let token = bench.ask(address, RequestBody::CONNECT);
            let ReplyBody::Connected { token, .. } = token else { panic!("no token") };
            bench.tokens.push(token);
        }
        for peer in 0..PEERS {
            let body = bench.body(Kind::Announce, peer);
            assert!(matches!(bench.ask(peer % ADDRESSES, body), ReplyBody::Announced(_)));
        }
        bench
    }

    fn ask(&mut self, address: u32, body: RequestBody) -> ReplyBody {
        let (datagram, mut replies) = (encoded(body), BytesMut::new());
        let source = source(address);
        self.handler.handle(&datagram, source, self.now, &mut self.rng, &mut replies).unwrap();
        let Reply { body, .. } = decode_reply(&replies).unwrap();
        body
    }

    fn batch(&mut self, kinds: [Kind; 4]) -> Batch {
        let request = |number: usize| {
            let peer = self.rng.random_range(0..PEERS);
            (source(peer % ADDRESSES), encoded(self.body(kinds[number % kinds.len()], peer)))
        };
        (0..BATCH_LEN).map(request).collect()
    }

    fn answer(&mut self, batch: &Batch, replies: &mut BytesMut) -> usize {
        replies.clear();
        self.handler.preload(batch.iter().map(|(_, datagram)| &datagram[..]));
        for (source, datagram) in batch {
            self.handler.handle(datagram, *source, self.now, &mut self.rng, replies);
        }
        replies.len()
    }

    fn body(&self, kind: Kind, peer: u32) -> RequestBody {
        let token = self.tokens.get((peer % ADDRESSES) as usize).copied().unwrap_or(Token([0; 16]));
        let mut rng = StdRng::seed_from_u64(peer.into());
        let share = f64::from(SHARES) * rng.random::<f64>().powi(2);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 10,000")]
        let share = share as u32;
        let infohash = InfoHash(StdRng::seed_from_u64((1_u64 << 32) + u64::from(share)).random());
        match kind {
            Kind::Connect => RequestBody::CONNECT,
            Kind::Announce => RequestBody::Announce(Announce {
                token,
                infohash,
                peer_id: PeerId(rng.random()),
                secret: Secret(rng.random()),
                port: NonZeroU16::new(rng.random_range(1_024..=u16::MAX)).unwrap(),
                name: ShareName::new(&format!("share-{share:07}.bin")).unwrap(),
                size: 1 << 30,
                event: Event::Heartbeat,
                progress: if rng.next_u32().is_multiple_of(4) {
                    Completion::of(1, 2)
                } else {
                    Completion::COMPLETE
                },
                label: Label::cut("some host").unwrap(),
                fetched: false,
                zone: Zone::NONE,
            }),
            Kind::Lookup => {
                RequestBody::Lookup { token, query: Query::Peers { infohash, want: WANT, zone: Zone::NONE } }
            }
        }
    }
}

fn source(address: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x7f00_0001 + address))
}

fn encoded(body: RequestBody) -> BytesMut {
    let mut datagram = BytesMut::new();
    encode_request(&Request { transaction: TransactionId(0x8000_0000), body }, &mut datagram).unwrap();
    datagram
}
