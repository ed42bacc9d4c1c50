//! `tracker::Handler` with its registry, as a state machine: any datagram from any source at any time.
//!
//! Without a token no reply is larger than its request, and nothing is registered. No reply is larger than a datagram, and each can
//! be decoded. A peer that was registered is counted. There are no more registrations than announces, and all are gone when nobody
//! has announced for long enough.

#![no_main]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use arbitrary::Arbitrary;
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use proto::{
    InfoHash, Label, PREAMBLE, PeerId, Secret, ShareName, Zone,
    tracker::{
        Announce, Event, MAX_DATAGRAM_LEN, Query, ReplyBody, Request, RequestBody, Token, TransactionId,
        codec::{decode_reply, decode_request, encode_request},
    },
};
use rand::{SeedableRng, rngs::StdRng};
use tracker::{Handler, Limits, Rules, Stats, Swept};

/// Steps of a run.
const MAX_STEPS: usize = 300;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    seed: u64,
    are_limits_small: bool,
    steps: Vec<Step<'a>>,
}

#[derive(Debug, Arbitrary)]
enum Step<'a> {
    Connect {
        source: u8,
    },
    Announce {
        source: u8,
        token: Proof,
        share: u8,
        peer: u8,
        secret: bool,
        port: u8,
        name: u8,
        event: u8,
        percent: u8,
    },
    Peers {
        source: u8,
        token: Proof,
        share: u8,
        want: u8,
    },
    /// Those that are late, or those that have finished.
    Hosts {
        source: u8,
        token: Proof,
        share: u8,
        after: u8,
    },
    /// A lookup with any bytes after the token: by name, or of all shares, or malformed.
    Lookup {
        source: u8,
        token: Proof,
        query: &'a [u8],
    },
    /// Any bytes, with or without a preamble.
    Bytes {
        source: u8,
        has_preamble: bool,
        bytes: &'a [u8],
    },
    Pass {
        ms: u16,
    },
    Sleep {
        seconds: u8,
    },
}

/// The token of a request.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Proof {
    Own,
    /// The token of another address.
    Stolen(u8),
    Made(u8),
}

fuzz_target!(|input: Input| {
    let start = Instant::now();
    let mut rng = StdRng::seed_from_u64(input.seed);
    let mut rules = Rules::default();
    if input.are_limits_small {
        let Limits { peers_per_site, .. } = rules.limits;
        rules.limits = Limits {
            peers: 12,
            shares: 4,
            peers_per_share: 6,
            registrations_per_ip: 5,
            peers_per_site,
            crowded_from: 3,
        };
    }
    let expire = rules.expire;
    let handler = Handler::new(rules, start, &mut rng);
    let mut world = World {
        handler,
        rng,
        now: start,
        tokens: BTreeMap::new(),
        registered: BTreeSet::new(),
        next_sweep: start,
    };
    for step in input.steps.into_iter().take(MAX_STEPS) {
        world.step(step);
    }
    world.sleep(expire + Duration::from_secs(10));
    assert_eq!(world.handler.stats(), Stats::default(), "nobody has announced for {expire:?}");
});

struct World {
    handler: Handler,
    rng: StdRng,
    now: Instant,
    /// The tokens of each source, the last one at the end.
    tokens: BTreeMap<IpAddr, Vec<Token>>,
    /// Every share and peer that was ever registered.
    registered: BTreeSet<(InfoHash, PeerId)>,
    next_sweep: Instant,
}

/// A few sites: IPv4 addresses, two hosts of one IPv6 network and one of another, loopback, and an address in two forms.
fn source(number: u8) -> IpAddr {
    let text = match number % 8 {
        0 => "192.0.2.1",
        1 => "192.0.2.2",
        2 => "::ffff:192.0.2.1",
        3 => "2001:db8::1",
        4 => "2001:db8::2",
        5 => "2001:db8:0:1::1",
        6 => "127.0.0.1",
        _ => "fe80::1",
    };
    text.parse().expect("an address")
}

fn infohash(number: u8) -> InfoHash {
    InfoHash([number % 6; 32])
}

fn name(number: u8) -> ShareName {
    let name = ["a", "b.bin", "データ", &"n".repeat(255)][usize::from(number % 4)].to_owned();
    ShareName::new(&name).expect("a plain name")
}

impl World {
    fn token(&self, source: IpAddr, proof: Proof) -> Token {
        let held = |source: IpAddr| self.issued(source).last().copied().unwrap_or(Token([0; 16]));
        match proof {
            Proof::Own => held(source),
            Proof::Stolen(other) => held(self::source(other)),
            Proof::Made(byte) => Token([byte; 16]),
        }
    }

    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Connect { source } => self.request(self::source(source), RequestBody::CONNECT),
            Step::Announce { source, token, share, peer, secret, port, name, event, percent } => {
                let source = self::source(source);
                let events = [Event::Started, Event::Heartbeat, Event::Completed, Event::Stopped];
                let announce = Announce {
                    token: self.token(source, token),
                    infohash: infohash(share),
                    peer_id: PeerId([peer % 16; 16]),
                    secret: Secret([u8::from(secret); 16]),
                    port: (7_000 + u16::from(port % 4)).try_into().expect("not 0"),
                    name: self::name(name),
                    size: 1 << 20,
                    event: events[usize::from(event % 4)],
                    progress: percent.min(100).try_into().expect("at most 100"),
                    label: Label::cut(["", "a", "ä"][usize::from(name % 3)]).expect("a label"),
                    fetched: event & 4 != 0,
                    zone: Zone::NONE,
                };
                self.request(source, RequestBody::Announce(announce));
            }
            Step::Peers { source, token, share, want } => {
                self.look_up(
                    source,
                    token,
                    Query::Peers { infohash: infohash(share), want, zone: Zone::NONE },
                );
            }
            Step::Hosts { source, token, share, after } => {
                let infohash = infohash(share);
                let query = match after % 2 {
                    0 => Query::Late { infohash, after: None },
                    _ => Query::Finished { infohash, after: (after / 2).into() },
                };
                self.look_up(source, token, query);
            }
            Step::Lookup { source, token, query } => {
                let source = self::source(source);
                let Token(token) = self.token(source, token);
                // The transaction, the number of this kind of request, and its fields.
                self.datagram(source, &[&PREAMBLE[..], &[7, 2], &token, query].concat());
            }
            Step::Bytes { source, has_preamble, bytes } => {
                let preamble = if has_preamble { &PREAMBLE[..] } else { &[] };
                self.datagram(self::source(source), &[preamble, bytes].concat());
            }
            Step::Pass { ms } => self.sleep(Duration::from_millis(ms.into())),
            Step::Sleep { seconds } => self.sleep(Duration::from_secs(seconds.into())),
        }
    }

    fn look_up(&mut self, source: u8, proof: Proof, query: Query) {
        let source = self::source(source);
        let token = self.token(source, proof);
        self.request(source, RequestBody::Lookup { token, query });
    }

    fn request(&mut self, source: IpAddr, body: RequestBody) {
        let mut datagram = BytesMut::new();
        encode_request(&Request { transaction: TransactionId(7), body }, &mut datagram).expect("it fits");
        self.datagram(source, &datagram);
    }

    fn datagram(&mut self, source: IpAddr, datagram: &[u8]) {
        let before = self.handler.stats();
        let mut replies = BytesMut::from(&b"before"[..]);
        self.handler.preload(std::iter::once(datagram));
        let place = self.handler.handle(datagram, source, self.now, &mut self.rng, &mut replies);
        assert_eq!(&replies[..6], b"before", "the replies to others stay");
        let request = decode_request(datagram);
        let token = match request.as_ref().map(|request| &request.body) {
            Ok(RequestBody::Announce(announce)) => Some(announce.token),
            Ok(RequestBody::Lookup { token, .. }) => Some(*token),
            Ok(RequestBody::Connect { .. } | RequestBody::FirstLookup { .. }) | Err(_) => None,
        };
        let is_proved = token.is_some_and(|token| self.issued(source).contains(&token));
        if let Ok(Request { body: RequestBody::Announce(announce), .. }) = &request
            && is_proved
            && announce.event != Event::Stopped
        {
            // Whether or not it is answered.
            self.registered.insert((announce.infohash, announce.peer_id));
        }
        assert!(self.handler.stats().peers() <= self.registered.len(), "more peers than announced");
        assert!(self.handler.stats().shares <= self.handler.stats().peers(), "a share without peers");
        assert!(is_proved || self.handler.stats().peers() <= before.peers(), "registered without a token");
        assert_eq!(place.is_none(), replies.len() == 6);
        let Some(place) = place else { return };
        assert_eq!(place, 6..replies.len());
        let reply = &replies[place];
        assert!(is_proved || reply.len() <= datagram.len(), "{} bytes for {}", reply.len(), datagram.len());
        assert!(reply.len() <= MAX_DATAGRAM_LEN);
        let request = request.expect("only requests are answered");
        let answer = decode_reply(reply).expect("a reply that clients can read");
        assert_eq!(answer.transaction, request.transaction);
        match (request.body, answer.body) {
            (_, ReplyBody::Connected { token, .. }) => {
                self.tokens.entry(source.to_canonical()).or_default().push(token);
            }
            (RequestBody::Announce(announce), ReplyBody::Announced(counts)) => {
                assert!(is_proved, "{announce:?}");
                let counted = if announce.progress.is_complete() { counts.seeders } else { counts.leechers };
                assert!(counted >= 1 || announce.event == Event::Stopped, "it is not counted: {counts:?}");
            }
            (RequestBody::FirstLookup { .. }, ReplyBody::Peers(_) | ReplyBody::Shares(_)) => {}
            (
                _,
                ReplyBody::Announced(_)
                | ReplyBody::Peers(_)
                | ReplyBody::Shares(_)
                | ReplyBody::Late(_)
                | ReplyBody::Finished(_),
            ) => assert!(is_proved, "it is answered without a token"),
            (_, ReplyBody::Error(_)) => {}
        }
    }

    fn issued(&self, source: IpAddr) -> &[Token] {
        self.tokens.get(&source.to_canonical()).map_or(&[], Vec::as_slice)
    }

    fn sleep(&mut self, time: Duration) {
        let until = self.now + time;
        let mut calls = 0;
        while self.next_sweep <= until {
            self.now = self.now.max(self.next_sweep);
            match self.handler.sweep(self.now) {
                Swept::Until(next) => {
                    assert!(next > self.now, "it sweeps without end");
                    self.next_sweep = next;
                }
                Swept::InPart => {}
            }
            calls += 1;
            assert!(calls <= 1_000 + 100 * time.as_secs(), "it sweeps without end");
        }
        self.now = until;
    }
}
