use std::{iter, net::Ipv4Addr};

use proptest::prelude::*;
use proto::{
    InfoHash, PREAMBLE, PeerId, Secret, ShareName, Zone,
    chunk::MAX_SHARE_LEN,
    tracker::{
        Announce, Completion, Event, Request, ShareCursor, Shares, Standing, Token, TransactionId,
        codec::{decode_reply, encode_request},
    },
};
use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::{DEFAULT_RATE, admission::ShareList};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const STANDING: Standing = Standing { votes: 1, seeders: 1, infohash: InfoHash([0; 32]) };
const BAD_TOKEN: Token = Token([0; 16]);

struct Bench {
    handler: Handler,
    now: Instant,
    rng: StdRng,
    buffer: BytesMut,
}

impl Bench {
    fn new() -> Bench {
        let mut rng = StdRng::seed_from_u64(1);
        let now = Instant::now();
        let handler = Handler::new(Rules::default(), now, &mut rng);
        Bench { handler, now, rng, buffer: BytesMut::from(&b"abc"[..]) }
    }

    fn handle(&mut self, datagram: &[u8], source: IpAddr) -> Option<&[u8]> {
        // Bytes that are there already stay.
        self.buffer.truncate(3);
        self.handler.preload(iter::once(datagram));
        let place = self.handler.handle(datagram, source, self.now, &mut self.rng, &mut self.buffer);
        assert_eq!(
            (&self.buffer[..3], self.buffer.len()),
            (&b"abc"[..], place.as_ref().map_or(3, |p| p.end))
        );
        place.map(|place| &self.buffer[place])
    }

    /// Sweeps as often as the handler requests, until `end`. Returns how many calls every turn took.
    fn sweep_until(&mut self, end: Instant) -> Vec<usize> {
        let mut turns = vec![0];
        loop {
            *turns.last_mut().unwrap() += 1;
            if let Swept::Until(next) = self.handler.sweep(self.now) {
                self.now = next.min(end);
                if next >= end {
                    return turns;
                }
                turns.push(0);
            }
        }
    }

    fn ask(&mut self, body: RequestBody, source: IpAddr) -> ReplyBody {
        let reply = self.handle(&datagram(body), source).expect("a reply");
        let reply = decode_reply(reply).unwrap();
        assert_eq!(reply.transaction, TransactionId(5));
        reply.body
    }

    fn connect(&mut self, source: IpAddr) -> Token {
        match self.ask(RequestBody::CONNECT, source) {
            ReplyBody::Connected { token, lifetime_s } => {
                assert_eq!(lifetime_s, token::LIFETIME_S);
                token
            }
            other => panic!("{other:?}"),
        }
    }
}

fn datagram(body: RequestBody) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode_request(&Request { transaction: TransactionId(5), body }, &mut bytes).unwrap();
    bytes
}

fn name() -> ShareName {
    ShareName::new("data.bin").unwrap()
}

fn announce(token: Token, peer: u8) -> Announce {
    Announce {
        token,
        infohash: InfoHash([1; 32]),
        peer_id: PeerId([peer; 16]),
        secret: Secret([7; 16]),
        port: (7_000 + u16::from(peer)).try_into().unwrap(),
        name: name(),
        size: 1 << 40,
        event: Event::Started,
        progress: Completion::COMPLETE,
        label: Default::default(),
        fetched: false,
        zone: Zone::NONE,
    }
}

/// Every kind of request that carries a token.
fn requests(token: Token) -> Vec<RequestBody> {
    let events = [Event::Started, Event::Heartbeat, Event::Completed, Event::Stopped];
    let announces = events.map(|event| RequestBody::Announce(Announce { event, ..announce(token, 1) }));
    let cursor = ShareCursor { name: name(), standing: STANDING };
    let lookups = [
        Query::Peers { infohash: InfoHash([1; 32]), want: 50, zone: Zone::NONE },
        Query::Named { name: ShareName::new("d").unwrap(), after: None },
        Query::Named { name: name(), after: Some(STANDING) },
        Query::List { after: None },
        Query::List { after: Some(cursor) },
        Query::Late { infohash: InfoHash([1; 32]), after: None },
        Query::Finished { infohash: InfoHash([1; 32]), after: 0 },
    ];
    announces.into_iter().chain(lookups.map(|query| RequestBody::Lookup { token, query })).collect()
}

#[test]
fn connects_registers_and_looks_up() {
    let mut bench = Bench::new();
    let token = bench.connect(HERE);
    let announced = bench.ask(RequestBody::Announce(announce(token, 1)), HERE);
    assert!(matches!(announced, ReplyBody::Announced(announced) if announced.seeders == 1), "{announced:?}");
    let token = bench.connect(ELSEWHERE);
    let query = Query::Peers { infohash: InfoHash([1; 32]), want: 50, zone: Zone::NONE };
    match bench.ask(RequestBody::Lookup { token, query }, ELSEWHERE) {
        ReplyBody::Peers(peers) => {
            assert_eq!(peers.peers[0].socket_addr((HERE, 6020).into()), Some((HERE, 7001).into()));
        }
        other => panic!("{other:?}"),
    }
    for query in [Query::Named { name: name(), after: None }, Query::List { after: None }] {
        match bench.ask(RequestBody::Lookup { token, query }, ELSEWHERE) {
            ReplyBody::Shares(Shares { shares, more, .. }) => {
                assert_eq!((shares[0].infohash, shares[0].size, more), (InfoHash([1; 32]), 1 << 40, false));
            }
            other => panic!("{other:?}"),
        }
    }
    let counted = bench.handler.counters();
    let Counters { bytes_received, bytes_replied, .. } = counted;
    assert!(bytes_received > 200 && bytes_replied > 200, "{counted:?}");
    let counters = Counters {
        connects: 2,
        announces: 1,
        lookups: 3,
        bytes_received,
        bytes_replied,
        ..Counters::default()
    };
    assert_eq!(counted, counters);
}

#[test]
fn what_is_not_allowed_is_refused_with_the_reason() {
    let mut bench = Bench::new();
    let token = bench.connect(HERE);
    let deny = ShareList::parse(&format!("{}\n*.tmp", InfoHash([1; 32]))).unwrap();
    let _ = bench.handler.set_admission(Some(Arc::new(Admission { allow: None, deny: Some(deny) })));
    let named = |name| Query::Named { name: ShareName::new(name).unwrap(), after: None };
    for body in [
        RequestBody::Announce(announce(token, 1)),
        RequestBody::Lookup {
            token,
            query: Query::Peers { infohash: InfoHash([1; 32]), want: 50, zone: Zone::NONE },
        },
        RequestBody::Lookup { token, query: Query::Late { infohash: InfoHash([1; 32]), after: None } },
        RequestBody::Lookup { token, query: Query::Finished { infohash: InfoHash([1; 32]), after: 0 } },
        RequestBody::Lookup { token, query: named("a.tmp") },
        RequestBody::FirstLookup { query: named("a.tmp") },
    ] {
        assert_eq!(bench.ask(body, HERE), ReplyBody::Error(ErrorCode::NotAllowed));
    }
    assert_eq!(bench.handler.counters().not_allowed, 6);
    let other = Announce { infohash: InfoHash([2; 32]), ..announce(token, 1) };
    assert!(matches!(bench.ask(RequestBody::Announce(other), HERE), ReplyBody::Announced(_)));
    let query = named("data.bin");
    assert!(matches!(bench.ask(RequestBody::Lookup { token, query }, HERE), ReplyBody::Shares(_)));
    assert_eq!(bench.handler.counters().not_allowed, 6);
}

#[test]
fn an_ipv4_source_is_the_same_however_the_socket_writes_it() {
    let mut bench = Bench::new();
    let token = bench.connect("::ffff:192.0.2.1".parse().unwrap());
    let reply = bench.ask(RequestBody::Announce(announce(token, 1)), HERE);
    assert!(matches!(reply, ReplyBody::Announced(_)), "{reply:?}");
}

#[test]
fn without_a_token_nothing_happens_and_no_reply_is_larger_than_its_request() {
    let mut bench = Bench::new();
    let token = bench.connect(HERE);
    bench.ask(RequestBody::Announce(announce(token, 1)), HERE);
    let stats = bench.handler.stats();
    let stolen = requests(token).into_iter().map(|body| (body, ELSEWHERE));
    for (body, source) in requests(BAD_TOKEN).into_iter().map(|body| (body, HERE)).chain(stolen) {
        let request = datagram(body);
        let reply = bench.handle(&request, source).expect("a refusal");
        assert!(reply.len() <= request.len(), "{} for {}", reply.len(), request.len());
        assert_eq!(decode_reply(reply).unwrap().body, ReplyBody::Error(ErrorCode::TokenRefused));
    }
    assert_eq!(bench.handler.stats(), stats);
    assert_eq!(bench.handler.counters().withheld, 0);
}

#[test]
fn a_connect_is_answered_by_no_more_than_it_is_whatever_its_transaction() {
    let mut bench = Bench::new();
    for transaction in [0, 250, 251, 65_535, 65_536, u32::MAX].map(TransactionId) {
        let mut request = BytesMut::new();
        encode_request(&Request { transaction, body: RequestBody::CONNECT }, &mut request).unwrap();
        assert!(bench.handle(&request, HERE).expect("a token").len() <= request.len());
    }
}

#[test]
fn a_token_ages_and_a_restarted_tracker_refuses_it() {
    let mut bench = Bench::new();
    let token = bench.connect(HERE);
    let lookup = RequestBody::Lookup { token, query: Query::List { after: None } };
    let empty = Shares {
        settles_in_s: 45,
        restarted_ago_s: None,
        total: 0,
        shares: Vec::new(),
        more: false,
        peers: None,
    };
    let empty = ReplyBody::Shares(empty);
    assert_eq!(bench.ask(lookup.clone(), HERE), empty);
    let refused = ReplyBody::Error(ErrorCode::TokenRefused);
    let mut restarted = Bench::new();
    restarted.handler = Handler::new(Rules::default(), restarted.now, &mut StdRng::seed_from_u64(2));
    assert_eq!(restarted.ask(lookup.clone(), HERE), refused);
    bench.now += token::LIFETIME + Duration::from_secs(1);
    assert_eq!(bench.ask(lookup, HERE), refused);
    assert_eq!(bench.handler.counters().tokens_refused, 1);
}

#[test]
fn the_largest_replies_fit_a_datagram() {
    let mut bench = Bench::new();
    for share in 0..4 {
        for peer in 0..60 {
            let source = IpAddr::from([
                0x20, 1, 0xd, 0xb8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, peer,
            ]);
            let token = bench.connect(source);
            let announce = Announce {
                infohash: InfoHash([share; 32]),
                name: ShareName::new(&"n".repeat(255)).unwrap(),
                size: MAX_SHARE_LEN,
                port: u16::MAX.try_into().unwrap(),
                ..announce(token, peer)
            };
            assert!(matches!(bench.ask(RequestBody::Announce(announce), source), ReplyBody::Announced(_)));
        }
    }
    let token = bench.connect(HERE);
    let query = Query::Peers { infohash: InfoHash([1; 32]), want: u8::MAX, zone: Zone::NONE };
    match bench.ask(RequestBody::Lookup { token, query }, HERE) {
        ReplyBody::Peers(peers) => assert_eq!((peers.peers.len(), peers.seeders), (50, 60)),
        other => panic!("{other:?}"),
    }
    match bench.ask(RequestBody::Lookup { token, query: Query::List { after: None } }, HERE) {
        ReplyBody::Shares(page) => assert_eq!((page.shares.len(), page.more), (3, true)),
        other => panic!("{other:?}"),
    }
}

/// A client that has no token yet asks with a datagram as large as any answer.
#[test]
fn a_first_lookup_is_answered_at_once_and_never_with_more_than_it_sent() {
    let mut bench = Bench::new();
    for peer in 0..60 {
        let source =
            IpAddr::from([0x20, 1, 0xd, 0xb8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, peer]);
        let token = bench.connect(source);
        let name = ShareName::new(&"n".repeat(255)).unwrap();
        let announce = Announce { name, port: u16::MAX.try_into().unwrap(), ..announce(token, peer) };
        assert!(matches!(bench.ask(RequestBody::Announce(announce), source), ReplyBody::Announced(_)));
    }
    let name = ShareName::new(&"n".repeat(255)).unwrap();
    let by_name = RequestBody::FirstLookup { query: Query::Named { name, after: None } };
    match bench.ask(by_name.clone(), ELSEWHERE) {
        ReplyBody::Shares(Shares { shares, peers: Some(peers), .. }) => {
            assert_eq!((shares.len(), shares[0].infohash, peers.seeders), (1, InfoHash([1; 32]), 60));
            assert!(peers.peers.len() >= 30, "{} peers", peers.peers.len());
        }
        other => panic!("{other:?}"),
    }
    let by_infohash = RequestBody::FirstLookup {
        query: Query::Peers { infohash: InfoHash([1; 32]), want: 50, zone: Zone::NONE },
    };
    assert!(matches!(bench.ask(by_infohash, ELSEWHERE), ReplyBody::Peers(peers) if peers.peers.len() == 50));
    assert_eq!(bench.handler.counters().lookups, 2);
    // Without its padding it is a legal request, but the answer would be larger.
    let short = &datagram(by_name)[..300];
    assert_eq!(bench.handle(short, ELSEWHERE), None);
    assert_eq!(bench.handler.counters().withheld, 1);
}

#[test]
fn hosts_are_named_only_with_a_token_and_cost_more_than_peers() {
    let mut bench = Bench::new();
    let token = bench.connect(HERE);
    bench.ask(RequestBody::Announce(Announce { progress: Completion::NOTHING, ..announce(token, 1) }), HERE);
    let infohash = InfoHash([1; 32]);
    let late = || Query::Late { infohash, after: None };
    for query in [late(), Query::Finished { infohash, after: 0 }] {
        let refused = ReplyBody::Error(ErrorCode::TokenRefused);
        assert_eq!(bench.ask(RequestBody::FirstLookup { query }, HERE), refused);
    }
    let mut answers = 0;
    while let ReplyBody::Late(late) = bench.ask(RequestBody::Lookup { token, query: late() }, HERE) {
        assert_eq!(late.hosts.len(), 1);
        answers += 1;
    }
    // Peers of one share are named some ten thousand times a second.
    assert!((100..1_000).contains(&answers), "{answers} answers");
}

#[test]
fn a_name_of_two_shares_brings_no_peers() {
    let mut bench = Bench::new();
    let token = bench.connect(HERE);
    for share in 1..=2 {
        let announce = Announce { infohash: InfoHash([share; 32]), ..announce(token, share) };
        bench.ask(RequestBody::Announce(announce), HERE);
    }
    let query = Query::Named { name: name(), after: None };
    match bench.ask(RequestBody::FirstLookup { query }, ELSEWHERE) {
        ReplyBody::Shares(Shares { shares, peers, .. }) => assert_eq!((shares.len(), peers), (2, None)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn sweeps_forget_all_expired_peers_within_five_seconds() {
    for wait_ms in (0..3_000).step_by(370) {
        let mut bench = Bench::new();
        let soon = bench.now + Duration::from_millis(wait_ms);
        bench.sweep_until(soon);
        let token = bench.connect(HERE);
        for peer in 0..=u8::MAX {
            let announce = Announce { infohash: InfoHash([peer; 32]), ..announce(token, peer) };
            bench.ask(RequestBody::Announce(announce), HERE);
            let a_moment = bench.now + Duration::from_millis(77);
            bench.sweep_until(a_moment);
        }
        let last = bench.now;
        bench.sweep_until(last + Duration::from_secs(89));
        assert!(bench.handler.stats().peers() > 0);
        bench.sweep_until(last + Duration::from_secs(95));
        assert_eq!(bench.handler.stats(), Stats::default());
    }
}

#[test]
fn an_idle_tracker_does_not_sweep() {
    let mut bench = Bench::new();
    let hour = bench.now + Duration::from_secs(3_600);
    let turns = bench.sweep_until(hour).len();
    assert!(turns <= 45, "{turns} turns in an hour without a peer");
    // With peers that announce, it is not much more.
    let token = bench.connect(HERE);
    let mut turns = 0;
    for _ in 0..120 {
        for peer in 0..20 {
            let announce = Announce { infohash: InfoHash([peer % 7; 32]), ..announce(token, peer) };
            bench.handler.registry.announce(&announce, HERE, bench.now).unwrap();
        }
        let heartbeat = bench.now + Duration::from_secs(30);
        turns += bench.sweep_until(heartbeat).len();
    }
    // Each interval ends with a turn that this test begins.
    assert!(turns <= 120 + 90, "{turns} turns in an hour with 20 peers");
    assert_eq!(bench.handler.stats().peers(), 20);
}

#[test]
fn a_turn_of_sweeping_is_cut_into_short_steps() {
    let mut bench = Bench::new();
    let token = bench.connect(HERE);
    let peers = u32::try_from(4 * SWEEP_STEP * TURNS_PER_ROUND / 2).unwrap();
    let sources = (0..).map(|host: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + host / 1_000)));
    for (number, source) in (0..peers).zip(sources) {
        let mut infohash = [0; 32];
        infohash[..4].copy_from_slice(&number.to_le_bytes());
        let announce = Announce { infohash: InfoHash(infohash), ..announce(token, 1) };
        bench.handler.registry.announce(&announce, source, bench.now).unwrap();
    }
    bench.now += Duration::from_secs(91);
    let round = bench.now + TURN_EVERY * u32::try_from(TURNS_PER_ROUND).unwrap();
    let mut before = bench.handler.stats().peers();
    while bench.now < round {
        let next = bench.now + TURN_EVERY;
        let calls: usize = bench.sweep_until(next).into_iter().sum();
        let left = bench.handler.stats().peers();
        assert!(calls <= 3 && before - left <= 2 * SWEEP_STEP, "{calls} calls, {}", before - left);
        before = left;
    }
    assert_eq!(bench.handler.stats(), Stats::default());
}

/// A client with a token asks for lists, which are many times as large as its requests.
#[test]
fn one_client_gets_large_answers_then_small_ones_then_none() {
    let mut bench = Bench::new();
    let token = bench.connect(ELSEWHERE);
    for share in 0..3 {
        let announce = Announce {
            infohash: InfoHash([share; 32]),
            name: ShareName::new(&"n".repeat(255)).unwrap(),
            ..announce(token, share)
        };
        bench.ask(RequestBody::Announce(announce), ELSEWHERE);
    }
    let token = bench.connect(HERE);
    let list = datagram(RequestBody::Lookup { token, query: Query::List { after: None } });
    let (mut large, mut small, mut none, mut bytes) = (0, 0, 0, 0);
    for _ in 0..2 * DEFAULT_RATE.get() {
        match bench.handle(&list, HERE).map(<[u8]>::len) {
            None => none += 1,
            Some(len) => {
                bytes += len;
                if len <= list.len() { small += 1 } else { large += 1 }
            }
        }
    }
    assert_eq!((large + small, none), (DEFAULT_RATE.get(), DEFAULT_RATE.get()));
    assert!(large < 2_500 && bytes < 2_300_000, "{large} large answers, {bytes} bytes in all");
    let counters = bench.handler.counters();
    assert_eq!((counters.slowed, counters.silenced), (small.into(), none.into()));
    // Others get everything, and so does this one in the next second.
    let other = bench.connect(ELSEWHERE);
    let query = || Query::List { after: None };
    let answer = bench.ask(RequestBody::Lookup { token: other, query: query() }, ELSEWHERE);
    assert!(matches!(answer, ReplyBody::Shares(_)), "{answer:?}");
    bench.now += Duration::from_secs(1);
    let answer = bench.ask(RequestBody::Lookup { token, query: query() }, HERE);
    assert!(matches!(answer, ReplyBody::Shares(_)), "{answer:?}");
}

/// Everybody behind one address comes back after a restart, and all are registered.
#[test]
fn a_client_over_its_bytes_can_still_announce_and_receives_when_to_ask_again() {
    let mut bench = Bench::new();
    let token = bench.connect(HERE);
    for share in 0..3 {
        let name = ShareName::new(&"n".repeat(255)).unwrap();
        let announce = Announce { infohash: InfoHash([share; 32]), name, ..announce(token, share) };
        bench.ask(RequestBody::Announce(announce), HERE);
    }
    bench.now += Duration::from_millis(300);
    let list = || RequestBody::Lookup { token, query: Query::List { after: None } };
    let slowed = (0..DEFAULT_RATE.get()).find_map(|_| match bench.ask(list(), HERE) {
        ReplyBody::Error(ErrorCode::SlowDown { retry_after_ms }) => Some(retry_after_ms),
        _ => None,
    });
    assert_eq!(slowed, Some(700));
    let answer = bench.ask(RequestBody::Announce(announce(token, 1)), HERE);
    assert!(matches!(answer, ReplyBody::Announced(_)), "{answer:?}");
}

#[test]
fn forged_tokens_do_not_use_up_what_an_address_may_ask() {
    let mut bench = Bench::new();
    let token = bench.connect(HERE);
    let forged = datagram(RequestBody::Announce(announce(BAD_TOKEN, 1)));
    let answered = (0..2 * DEFAULT_RATE.get()).filter(|_| bench.handle(&forged, HERE).is_some()).count();
    assert!(answered <= DEFAULT_RATE.get() as usize, "{answered}");
    let answer = bench.ask(RequestBody::Announce(announce(token, 1)), HERE);
    assert!(matches!(answer, ReplyBody::Announced(_)), "{answer:?}");
}

#[test]
fn a_thousand_seeders_behind_one_address_come_back_at_once() {
    let mut bench = Bench::new();
    for peer in 0..1_000_u16 {
        let token = bench.connect(HERE);
        for share in 0..3 {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&peer.to_le_bytes());
            let announce = Announce {
                infohash: InfoHash([share; 32]),
                peer_id: PeerId(id),
                port: (1_000 + peer).try_into().unwrap(),
                ..announce(token, 1)
            };
            let reply = bench.ask(RequestBody::Announce(announce), HERE);
            assert!(matches!(reply, ReplyBody::Announced(_)), "{reply:?}");
        }
    }
    assert_eq!(bench.handler.stats().seeders, 3_000);
}

/// A legal datagram of which some bytes were changed, cut off or added.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let legal = (0..10_usize).prop_map(|kind| {
        let mut bodies = requests(BAD_TOKEN);
        bodies.push(RequestBody::CONNECT);
        datagram(bodies.swap_remove(kind)).to_vec()
    });
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (legal, edits, any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..3)).prop_map(
        |(mut bytes, edits, cut, more)| {
            for (place, byte) in edits {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            if cut.index(2) == 0 {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            bytes.extend(more);
            bytes
        },
    )
}

proptest! {
    #[test]
    fn bytes_from_strangers_are_never_answered(bytes in prop::collection::vec(any::<u8>(), 0..1_500)) {
        let mut bench = Bench::new();
        prop_assert_eq!(bench.handle(&bytes, HERE), None);
        let bytes_received = bytes.len() as u64;
        let counters = Counters { malformed: 1, bytes_received, ..Counters::default() };
        prop_assert_eq!(bench.handler.counters(), counters);
    }

    /// With the preamble, random bytes may be a request. Then at most a connect is answered.
    #[test]
    fn near_misses_do_no_harm(
        bytes in prop_oneof![
            mutated(),
            prop::collection::vec(any::<u8>(), 0..1_500).prop_map(|bytes| [&PREAMBLE[..], &bytes].concat()),
        ]
    ) {
        let mut bench = Bench::new();
        if let Some(reply) = bench.handle(&bytes, HERE) {
            prop_assert!(reply.len() <= bytes.len());
            let reply = decode_reply(reply).unwrap().body;
            prop_assert!(
                matches!(reply, ReplyBody::Connected { .. } | ReplyBody::Error(ErrorCode::TokenRefused)),
                "{reply:?}"
            );
        }
        prop_assert_eq!(bench.handler.stats(), Stats::default());
        let counters = bench.handler.counters();
        let Counters { connects, tokens_refused, malformed, bytes_received, bytes_replied, .. } = counters;
        prop_assert_eq!(connects + tokens_refused + malformed, 1);
        let expected = Counters {
            connects,
            tokens_refused,
            malformed,
            bytes_received,
            bytes_replied,
            ..Counters::default()
        };
        prop_assert_eq!(counters, expected);
    }
}

#[test]
fn a_datagram_of_excessive_length_is_dropped() {
    let mut bench = Bench::new();
    let mut bytes = datagram(RequestBody::CONNECT).to_vec();
    bytes.resize(MAX_DATAGRAM_LEN + 1, 0);
    assert_eq!(bench.handle(&bytes, HERE), None);
    assert_eq!(bench.handler.counters().malformed, 1);
}
