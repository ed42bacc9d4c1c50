use std::num::NonZeroU16;

use proptest::prelude::*;

use super::*;
use crate::{
    InfoHash, Label, PeerId, Secret, ShareName, Zone,
    chunk::MAX_SHARE_LEN,
    golden::{assert_documented, bytes},
    name::MAX_NAME_LEN,
    tracker::message::{
        Announce, Announced, Completion, ErrorCode, Event, FinishedHost, FinishedHosts, LateHost, LateHosts,
        Limit, MAX_HOSTS, MAX_PEERS, MAX_SHARES, PeerAddress, PeerEntry, Peers, Query, ReplyBody,
        RequestBody, ShareCursor, ShareEntry, Shares, Standing, Token, TransactionId,
    },
};

const TOKEN: Token = Token([0x44; 16]);
const INFOHASH: InfoHash = InfoHash([0x11; 32]);

fn name(text: &str) -> ShareName {
    ShareName::new(text).unwrap()
}

fn port(port: u16) -> NonZeroU16 {
    NonZeroU16::new(port).unwrap()
}

fn percent(percent: u8) -> Completion {
    percent.try_into().unwrap()
}

fn zone() -> Zone {
    Zone::cut("rack7").unwrap()
}

fn label() -> Label {
    Label::cut("node7").unwrap()
}

fn late_peer() -> PeerEntry {
    PeerEntry { address: PeerAddress::V4([192, 0, 2, 1]), port: port(7000), progress: percent(40) }
}

fn finished_host() -> FinishedHost {
    FinishedHost { address: PeerAddress::V4([192, 0, 2, 1]), label: label() }
}

fn connect(transaction: u32) -> Request {
    Request { transaction: TransactionId(transaction), body: RequestBody::CONNECT }
}

fn announce(event: Event, progress: u8) -> Request {
    let body = RequestBody::Announce(Announce {
        token: TOKEN,
        infohash: INFOHASH,
        peer_id: PeerId([0x22; 16]),
        secret: Secret([0x33; 16]),
        port: port(7000),
        name: name("a.bin"),
        size: 1_048_577,
        event,
        progress: percent(progress),
        label: label(),
        fetched: progress < 100,
        zone: zone(),
    });
    Request { transaction: TransactionId(7), body }
}

fn lookup(query: Query) -> Request {
    Request { transaction: TransactionId(7), body: RequestBody::Lookup { token: TOKEN, query } }
}

fn first_lookup(query: Query) -> Request {
    Request { transaction: TransactionId(7), body: RequestBody::FirstLookup { query } }
}

fn reply(body: ReplyBody) -> Reply {
    Reply { transaction: TransactionId(7), body }
}

fn error(code: ErrorCode) -> Reply {
    reply(ReplyBody::Error(code))
}

fn shares_reply(restarted_ago_s: Option<u16>, shares: Vec<ShareEntry>, more: bool) -> Reply {
    let settles_in_s = restarted_ago_s.map_or(0, |ago_s| 45 - ago_s);
    let total = if more { 300 } else { 0 };
    reply(ReplyBody::Shares(Shares { settles_in_s, restarted_ago_s, total, shares, more, peers: None }))
}

fn sole_share_reply() -> Reply {
    let entry =
        PeerEntry { address: PeerAddress::V4([192, 0, 2, 1]), port: port(7000), progress: percent(100) };
    let peers =
        Peers { interval_s: 10, settles_in_s: 0, seeders: 4, leechers: 2, completed: 1, peers: vec![entry] };
    let (total, shares, peers) = (1, vec![share(name("a.bin"))], Some(peers));
    let shares = Shares { settles_in_s: 0, restarted_ago_s: None, total, shares, more: false, peers };
    reply(ReplyBody::Shares(shares))
}

fn share(name: ShareName) -> ShareEntry {
    ShareEntry {
        infohash: INFOHASH,
        name,
        size: 1_048_577,
        seeders: 4,
        leechers: 2,
        sites: 3,
        votes: 1,
        completed: 5,
    }
}

const STANDING: Standing = Standing { votes: 1, seeders: 4, infohash: INFOHASH };

#[rustfmt::skip]
fn golden_requests() -> Vec<(&'static str, Request, &'static str)> {
    let cursor = || ShareCursor { name: name("a.bin"), standing: STANDING };
    vec![
        ("Request Connect", connect(7), "53484f414c 0a 07 00 00*24"),
        ("Request Connect, transaction 250", connect(250), "53484f414c 0a fa 00 00*24"),
        ("Request Connect, transaction 251", connect(251), "53484f414c 0a fbfb00 00 00*24"),
        ("Request Connect, transaction 65535", connect(65_535), "53484f414c 0a fbffff 00 00*24"),
        ("Request Connect, transaction 65536", connect(65_536), "53484f414c 0a fc00000100 00 00*24"),
        ("Request Connect, transaction 4294967295", connect(u32::MAX), "53484f414c 0a fcffffffff 00 00*24"),
        ("Request Announce, Started", announce(Event::Started, 0),
            "53484f414c 0a 07 01 44*16 11*32 22*16 33*16 fb581b 05612e62696e fc01001000 00 00 6e6f646537 00*27 01 7261636b37 00*27"),
        ("Request Announce, Heartbeat", announce(Event::Heartbeat, 50),
            "53484f414c 0a 07 01 44*16 11*32 22*16 33*16 fb581b 05612e62696e fc01001000 01 32 6e6f646537 00*27 01 7261636b37 00*27"),
        ("Request Announce, Completed", announce(Event::Completed, 100),
            "53484f414c 0a 07 01 44*16 11*32 22*16 33*16 fb581b 05612e62696e fc01001000 02 64 6e6f646537 00*27 00 7261636b37 00*27"),
        ("Request Announce, Stopped", announce(Event::Stopped, 99),
            "53484f414c 0a 07 01 44*16 11*32 22*16 33*16 fb581b 05612e62696e fc01001000 03 63 6e6f646537 00*27 01 7261636b37 00*27"),
        ("Request Lookup, Peers", lookup(Query::Peers { infohash: INFOHASH, want: 50, zone: zone() }),
            "53484f414c 0a 07 02 44*16 00 11*32 32 7261636b37 00*27"),
        ("Request Lookup, Named", lookup(Query::Named { name: name("a.bin"), after: None }),
            "53484f414c 0a 07 02 44*16 01 05612e62696e 00"),
        ("Request Lookup, Named, next page", lookup(Query::Named { name: name("a.bin"), after: Some(STANDING) }),
            "53484f414c 0a 07 02 44*16 01 05612e62696e 01 01 04 11*32"),
        ("Request Lookup, List", lookup(Query::List { after: None }), "53484f414c 0a 07 02 44*16 02 00"),
        ("Request Lookup, List, next page", lookup(Query::List { after: Some(cursor()) }),
            "53484f414c 0a 07 02 44*16 02 01 05612e62696e 01 04 11*32"),
        ("Request Lookup, Late", lookup(Query::Late { infohash: INFOHASH, after: None }),
            "53484f414c 0a 07 02 44*16 03 11*32 00"),
        ("Request Lookup, Late, next page", lookup(Query::Late { infohash: INFOHASH, after: Some(late_peer()) }),
            "53484f414c 0a 07 02 44*16 03 11*32 01 00 c0000201 fb581b 28"),
        ("Request Lookup, Finished", lookup(Query::Finished { infohash: INFOHASH, after: 7 }),
            "53484f414c 0a 07 02 44*16 04 11*32 07"),
        ("Request FirstLookup, Named", first_lookup(Query::Named { name: name("a.bin"), after: None }),
            "53484f414c 0a 07 03 01 05612e62696e 00 00*1184"),
        ("Request FirstLookup, Peers", first_lookup(Query::Peers { infohash: INFOHASH, want: 50, zone: zone() }),
            "53484f414c 0a 07 03 00 11*32 32 7261636b37 00*27 00*1126"),
    ]
}

#[rustfmt::skip]
fn golden_replies() -> Vec<(&'static str, Reply, &'static str)> {
    let mut v6 = [0; 16];
    v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    v6[15] = 1;
    let peers = vec![
        PeerEntry { address: PeerAddress::V4([192, 0, 2, 1]), port: port(7000), progress: percent(100) },
        PeerEntry { address: PeerAddress::V6(v6), port: port(7001), progress: percent(50) },
        PeerEntry { address: PeerAddress::TrackerHost, port: port(7002), progress: percent(0) },
    ];
    vec![
        ("Reply Connected", reply(ReplyBody::Connected { token: TOKEN, lifetime_s: 120 }),
            "53484f414c 0a 07 00 44*16 78"),
        ("Reply Announced", reply(ReplyBody::Announced(Announced { interval_s: 30, seeders: 2, leechers: 300, completed: 1 })),
            "53484f414c 0a 07 01 1e 02 fb2c01 01"),
        ("Reply Peers", reply(ReplyBody::Peers(Peers { interval_s: 30, settles_in_s: 0, seeders: 1, leechers: 2, completed: 7, peers })),
            "53484f414c 0a 07 02 1e 00 01 02 07 03 \
            00 c0000201 fb581b 64  01 20010db8 00*11 01 fb591b 32  02 fb5a1b 00"),
        ("Reply Peers, none",
            reply(ReplyBody::Peers(Peers { interval_s: 30, settles_in_s: 90, seeders: 0, leechers: 0, completed: 0, peers: Vec::new() })),
            "53484f414c 0a 07 02 1e 5a 00 00 00 00"),
        ("Reply Shares", shares_reply(None, vec![share(name("a.bin"))], true),
            "53484f414c 0a 07 03 00 00 fb2c01 01  11*32 05612e62696e fc01001000 04 02 03 01 05  01 00"),
        ("Reply Shares, none", shares_reply(Some(5), Vec::new(), false), "53484f414c 0a 07 03 28 01 05 00 00 00 00"),
        ("Reply Shares, one and its peers", sole_share_reply(),
            "53484f414c 0a 07 03 00 00 01 01  11*32 05612e62696e fc01001000 04 02 03 01 05  00 \
            01 0a 00 04 02 01 01  00 c0000201 fb581b 64"),
        ("Reply Error, TokenRefused", error(ErrorCode::TokenRefused), "53484f414c 0a 07 04 00"),
        ("Reply Error, UnknownShare", error(ErrorCode::UnknownShare { settles_in_s: 0 }), "53484f414c 0a 07 04 01 00"),
        ("Reply Error, UnknownShare, soon after a start", error(ErrorCode::UnknownShare { settles_in_s: 300 }),
            "53484f414c 0a 07 04 01 fb2c01"),
        ("Reply Error, NotYours", error(ErrorCode::NotYours), "53484f414c 0a 07 04 02"),
        ("Reply Error, Full, tracker", error(ErrorCode::Full(Limit::Tracker)), "53484f414c 0a 07 04 03 00"),
        ("Reply Error, Full, shares", error(ErrorCode::Full(Limit::Shares)), "53484f414c 0a 07 04 03 01"),
        ("Reply Error, Full, share", error(ErrorCode::Full(Limit::Share)), "53484f414c 0a 07 04 03 02"),
        ("Reply Error, Full, address", error(ErrorCode::Full(Limit::Address)), "53484f414c 0a 07 04 03 03"),
        ("Reply Error, SlowDown", error(ErrorCode::SlowDown { retry_after_ms: 700 }), "53484f414c 0a 07 04 04 fbbc02"),
        ("Reply Error, NotAllowed", error(ErrorCode::NotAllowed), "53484f414c 0a 07 04 05"),
        ("Reply Late", reply(ReplyBody::Late(LateHosts { more: true, hosts: vec![LateHost { peer: late_peer(), label: label() }] })),
            "53484f414c 0a 07 05 01 01  00 c0000201 fb581b 28 6e6f646537 00*27"),
        ("Reply Late, none", reply(ReplyBody::Late(LateHosts { more: false, hosts: Vec::new() })), "53484f414c 0a 07 05 00 00"),
        ("Reply Finished", reply(ReplyBody::Finished(FinishedHosts { total: 8, hosts: vec![finished_host()] })),
            "53484f414c 0a 07 06 08 01  00 c0000201 6e6f646537 00*27"),
    ]
}

fn request_bytes(request: &Request) -> Vec<u8> {
    let mut dst = BytesMut::new();
    encode_request(request, &mut dst).unwrap();
    dst.to_vec()
}

fn reply_bytes(reply: &Reply) -> Vec<u8> {
    let mut dst = BytesMut::new();
    encode_reply(reply, &mut dst).unwrap();
    dst.to_vec()
}

#[test]
fn every_message_has_its_golden_bytes() {
    for (what, request, hex) in golden_requests() {
        assert_eq!(request_bytes(&request), bytes(hex), "{what}");
        assert_eq!(decode_request(&bytes(hex)).unwrap(), request, "{what}");
    }
    for (what, reply, hex) in golden_replies() {
        assert_eq!(reply_bytes(&reply), bytes(hex), "{what}");
        assert_eq!(decode_reply(&bytes(hex)).unwrap(), reply, "{what}");
    }
}

#[test]
fn the_protocol_page_has_the_golden_bytes() {
    let requests = golden_requests().into_iter().map(|(what, _, hex)| (what, bytes(hex)));
    let replies = golden_replies().into_iter().map(|(what, _, hex)| (what, bytes(hex)));
    assert_documented(&["Request", "Reply"], requests.chain(replies));
}

/// The first unused number of every enum. One more variant needs golden bytes, and a number here.
#[test]
fn unknown_variants_are_refused() {
    for request in [
        "53484f414c 0a 07 04",
        "53484f414c 0a 07 02 44*16 05",
        "53484f414c 0a 07 02 44*16 03 11*32 01 03",
        "53484f414c 0a 07 02 44*16 02 02",
        "53484f414c 0a 07 01 44*16 11*32 22*16 33*16 fb581b 05612e62696e fc01001000 04 00",
    ] {
        // Bytes for the fields of a further variant, so that the refusal is not because of a missing field.
        let padded = [bytes(request), vec![0; 64]].concat();
        assert_malformed(decode_request(&padded));
    }
    for reply in [
        "53484f414c 0a 07 07",
        "53484f414c 0a 07 04 06",
        "53484f414c 0a 07 04 03 04",
        "53484f414c 0a 07 02 1e 00 01 02 01 03",
    ] {
        assert_malformed(decode_reply(&[bytes(reply), vec![0; 64]].concat()));
    }
}

#[test]
fn illegal_values_are_refused() {
    let fields = "53484f414c 0a 07 01 44*16 11*32 22*16 33*16";
    for (what, rest) in [
        ("port 0", "00 05612e62696e 00 00 00"),
        ("no name", "01 00 00 00 00"),
        ("a name that leaves its directory", "01 022e2e 00 00 00"),
        ("a name with a separator", "01 03612f62 00 00 00"),
        ("a name that is not UTF-8", "01 02c328 00 00 00"),
        ("a name of 256 bytes", "01 fb0001 61*256 00 00 00"),
        ("101 percent", "01 0161 00 00 65"),
        ("a byte more than 2 TiB", "01 0161 fd0100000000020000 00 00"),
    ] {
        let datagram = bytes(&format!("{fields} {rest} 00*32 00 00*32"));
        assert!(matches!(decode_request(&datagram), Err(DatagramError::Wire(_))), "{what}");
        assert!(matches!(borrow_request(&datagram), Err(DatagramError::Wire(_))), "{what}");
    }
    for legal in ["01 0161 00 00 64", "01 0161 fd0000000000020000 00 00"] {
        assert!(decode_request(&bytes(&format!("{fields} {legal} 61*32 01 61*32"))).is_ok());
        for rest in [
            "ff*32 00 00*32",
            "1b 00*31 00 00*32",
            "00 61 00*30 00 00*32",
            "00*32 02 00*32",
            "00*32",
            "00*32 00 ff*32",
            "00*32 00 1b 00*31",
            "00*32 00 00 61 00*30",
            "00*32 00 00*31",
            "00*32 00 00*32 00",
        ] {
            let datagram = bytes(&format!("{fields} {legal} {rest}"));
            assert!(matches!(decode_request(&datagram), Err(DatagramError::Wire(_))), "{rest}");
            assert!(matches!(borrow_request(&datagram), Err(DatagramError::Wire(_))), "{rest}");
        }
    }
    let share = "53484f414c 0a 07 03 00 00 01 01 11*32 0161";
    assert_malformed(decode_reply(&bytes(&format!("{share} fd0100000000020000 01 00 01 01 00 00 00"))));
    assert!(decode_reply(&bytes(&format!("{share} fd0000000000020000 01 00 01 01 00 00 00"))).is_ok());
}

#[test]
fn a_datagram_without_the_preamble_of_this_version_is_refused() {
    let good = reply_bytes(&error(ErrorCode::Full(Limit::Tracker)));
    for bit in 0..PREAMBLE.len() * 8 {
        let mut datagram = good.clone();
        datagram[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(decode_reply(&datagram), Err(DatagramError::Preamble)), "bit {bit}");
    }
    for len in 0..PREAMBLE.len() {
        assert!(matches!(decode_reply(&good[..len]), Err(DatagramError::Preamble)), "{len} bytes");
    }
}

#[test]
fn the_codecs_take_one_datagram_at_a_time_and_leave_nothing_for_the_next() {
    let mut src = BytesMut::new();
    assert!(RequestCodec.decode(&mut src).unwrap().is_none());
    for (_, request, _) in golden_requests() {
        ReplyCodec.encode(request.clone(), &mut src).unwrap();
        assert_eq!(RequestCodec.decode(&mut src).unwrap(), Some(request));
        assert!(src.is_empty());
    }
    for (_, reply, _) in golden_replies() {
        RequestCodec.encode(reply.clone(), &mut src).unwrap();
        assert_eq!(ReplyCodec.decode(&mut src).unwrap(), Some(reply));
        assert!(src.is_empty());
    }
    src.put_slice(b"SHOAL\x03 and no message");
    assert!(RequestCodec.decode(&mut src).is_err());
    assert!(src.is_empty());
}

fn largest_name() -> ShareName {
    name(&"n".repeat(MAX_NAME_LEN))
}

fn largest_peer() -> PeerEntry {
    PeerEntry { address: PeerAddress::V6([0xff; 16]), port: port(u16::MAX), progress: Completion::COMPLETE }
}

fn largest_share() -> ShareEntry {
    ShareEntry {
        infohash: INFOHASH,
        name: largest_name(),
        size: MAX_SHARE_LEN,
        seeders: u32::MAX,
        leechers: u32::MAX,
        sites: u32::MAX,
        votes: u32::MAX,
        completed: u32::MAX,
    }
}

const LARGEST_STANDING: Standing = Standing { votes: u32::MAX, seeders: u32::MAX, infohash: INFOHASH };

fn peers(count: usize) -> Reply {
    let peers = vec![largest_peer(); count];
    let body = ReplyBody::Peers(Peers {
        interval_s: u16::MAX,
        settles_in_s: u16::MAX,
        seeders: u32::MAX,
        leechers: u32::MAX,
        completed: u32::MAX,
        peers,
    });
    Reply { transaction: TransactionId(u32::MAX), body }
}

fn shares(count: usize) -> Reply {
    let shares = vec![largest_share(); count];
    let (settles_in_s, restarted_ago_s) = (u16::MAX, Some(u16::MAX));
    let body = ReplyBody::Shares(Shares {
        settles_in_s,
        restarted_ago_s,
        total: u32::MAX,
        shares,
        more: true,
        peers: None,
    });
    Reply { transaction: TransactionId(u32::MAX), body }
}

fn late(count: usize) -> Reply {
    let host = LateHost { peer: largest_peer(), label: Label::cut(&"n".repeat(32)).unwrap() };
    let body = ReplyBody::Late(LateHosts { more: true, hosts: vec![host; count] });
    Reply { transaction: TransactionId(u32::MAX), body }
}

fn finished(count: usize) -> Reply {
    let host = FinishedHost { address: largest_peer().address, label: Label::cut(&"n".repeat(32)).unwrap() };
    let body = ReplyBody::Finished(FinishedHosts { total: u32::MAX, hosts: vec![host; count] });
    Reply { transaction: TransactionId(u32::MAX), body }
}

/// Decoding is checked too, because the decoder's limit counts an integer by its size in memory.
#[test]
fn the_largest_messages_fit_a_datagram_both_ways() {
    for (reply, len) in [
        (peers(MAX_PEERS), 1_084),
        (shares(MAX_SHARES), 999),
        (late(MAX_HOSTS), 1_074),
        (finished(MAX_HOSTS), 998),
    ] {
        let datagram = reply_bytes(&reply);
        assert_eq!(datagram.len(), len);
        assert!(len <= MAX_DATAGRAM_LEN);
        assert_eq!(decode_reply(&datagram).unwrap(), reply);
    }
    let mut announce = announce(Event::Stopped, 100);
    announce.transaction = TransactionId(u32::MAX);
    let RequestBody::Announce(fields) = &mut announce.body else { unreachable!() };
    (fields.port, fields.size, fields.name) = (port(u16::MAX), MAX_SHARE_LEN, largest_name());
    let after = Some(ShareCursor { name: largest_name(), standing: LARGEST_STANDING });
    let body = RequestBody::Lookup { token: TOKEN, query: Query::List { after } };
    let list = Request { transaction: TransactionId(u32::MAX), body };
    for (request, len) in [(announce, 429), (list, 330)] {
        let datagram = request_bytes(&request);
        assert_eq!(datagram.len(), len);
        assert_eq!(decode_request(&datagram).unwrap(), request);
    }
}

#[test]
fn a_message_that_does_not_fit_is_refused_and_leaves_nothing_behind() {
    for reply in [peers(MAX_PEERS + 10), shares(MAX_SHARES + 1), late(MAX_HOSTS + 3), finished(MAX_HOSTS + 5)]
    {
        let mut dst = BytesMut::from(&b"before"[..]);
        let result = encode_reply(&reply, &mut dst);
        assert!(matches!(result, Err(DatagramError::Wire(WireError::TooLarge { .. }))));
        assert_eq!(dst, b"before"[..]);
    }
}

#[test]
fn a_list_that_claims_more_entries_than_it_has_is_refused() {
    for claim in ["04", "fbffff", "fcffffffff", "fdffffffffffffffff"] {
        for head in [
            "53484f414c 0a 07 02 1e 00 01 02 00",
            "53484f414c 0a 07 03 00 00 00",
            "53484f414c 0a 07 05 00",
            "53484f414c 0a 07 06 00",
        ] {
            for rest in ["", "02 fb5a1b 00", "00*64"] {
                assert_malformed(decode_reply(&bytes(&format!("{head} {claim} {rest}"))));
            }
        }
    }
}

#[test]
fn without_a_good_token_no_reply_is_larger_than_its_request() {
    for transaction in [0, 250, 251, 65_535, 65_536, u32::MAX].map(TransactionId) {
        let request_len = |body| request_bytes(&Request { transaction, body }).len();
        let reply_len = |body| reply_bytes(&Reply { transaction, body }).len();

        let connected = ReplyBody::Connected { token: TOKEN, lifetime_s: u16::MAX };
        assert!(reply_len(connected) <= request_len(RequestBody::CONNECT));

        let smallest_announce = RequestBody::Announce(Announce {
            token: TOKEN,
            infohash: INFOHASH,
            peer_id: PeerId([0; 16]),
            secret: Secret([0; 16]),
            port: port(1),
            name: name("n"),
            size: 0,
            event: Event::Stopped,
            progress: percent(0),
            label: Label::NONE,
            zone: Zone::NONE,
            fetched: false,
        });
        let smallest_lookups = [
            Query::Peers { infohash: INFOHASH, want: 0, zone: Zone::NONE },
            Query::Named { name: name("n"), after: None },
            Query::List { after: None },
            Query::Late { infohash: INFOHASH, after: None },
            Query::Finished { infohash: INFOHASH, after: 0 },
        ];
        let lookups = smallest_lookups.map(|query| RequestBody::Lookup { token: TOKEN, query });
        let smallest = lookups.into_iter().chain([smallest_announce]).map(request_len).min().unwrap();
        for code in error_codes() {
            assert!(reply_len(ReplyBody::Error(code)) <= smallest, "{code:?}");
        }
    }
}

fn error_codes() -> Vec<ErrorCode> {
    let unknown = [0, 90, u16::MAX].map(|settles_in_s| ErrorCode::UnknownShare { settles_in_s });
    let full = [Limit::Tracker, Limit::Shares, Limit::Share, Limit::Address].map(ErrorCode::Full);
    let slow = [0, u16::MAX].map(|retry_after_ms| ErrorCode::SlowDown { retry_after_ms });
    [ErrorCode::TokenRefused, ErrorCode::NotYours, ErrorCode::NotAllowed]
        .into_iter()
        .chain(unknown)
        .chain(full)
        .chain(slow)
        .collect()
}

fn assert_malformed<T: std::fmt::Debug>(result: Result<T, DatagramError>) {
    assert!(matches!(result, Err(DatagramError::Wire(WireError::Malformed(_)))), "{result:?}");
}

fn numbers() -> impl Strategy<Value = u32> {
    prop_oneof![0..=300_u32, 65_530..=65_540_u32, any::<u32>()]
}

fn sizes() -> impl Strategy<Value = u64> {
    prop_oneof![numbers().prop_map(u64::from), (1_u64 << 32) - 3..(1 << 32) + 3, 0..=MAX_SHARE_LEN]
}

fn names() -> impl Strategy<Value = ShareName> {
    prop_oneof![
        8 => "[a-z0-9 ä🐟._-]{1,24}".prop_filter_map("plain", |text| ShareName::new(&text).ok()),
        1 => (250..=MAX_NAME_LEN).prop_map(|len| name(&"n".repeat(len))),
    ]
}

fn infohashes() -> impl Strategy<Value = InfoHash> {
    any::<[u8; 32]>().prop_map(InfoHash)
}

fn tokens() -> impl Strategy<Value = Token> {
    any::<[u8; 16]>().prop_map(Token)
}

fn percents() -> impl Strategy<Value = Completion> {
    (0..=100_u8).prop_map(percent)
}

fn ports() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(port)
}

fn announces() -> impl Strategy<Value = Announce> {
    let events =
        prop::sample::select(vec![Event::Started, Event::Heartbeat, Event::Completed, Event::Stopped]);
    let ids = (tokens(), infohashes(), any::<[u8; 16]>(), any::<[u8; 16]>());
    (ids, ports(), names(), sizes(), events, percents(), labels(), any::<bool>(), zones()).prop_map(
        |(ids, port, name, size, event, progress, label, fetched, zone)| {
            let (token, infohash, peer_id, secret) = ids;
            let (peer_id, secret) = (PeerId(peer_id), Secret(secret));
            Announce {
                token,
                infohash,
                peer_id,
                secret,
                port,
                name,
                size,
                event,
                progress,
                label,
                fetched,
                zone,
            }
        },
    )
}

fn zones() -> impl Strategy<Value = Zone> {
    labels().prop_map(|label| Zone::cut(label.as_str()).unwrap())
}

fn labels() -> impl Strategy<Value = Label> {
    "[a-z0-9 ä🐟._-]{0,40}".prop_filter_map("plain", |text| Label::cut(&text).ok())
}

fn standings() -> impl Strategy<Value = Standing> {
    (numbers(), numbers(), infohashes()).prop_map(|(votes, seeders, infohash)| Standing {
        votes,
        seeders,
        infohash,
    })
}

fn queries() -> impl Strategy<Value = Query> {
    let cursors = (names(), standings()).prop_map(|(name, standing)| ShareCursor { name, standing });
    prop_oneof![
        (infohashes(), any::<u8>(), zones()).prop_map(|(infohash, want, zone)| Query::Peers {
            infohash,
            want,
            zone
        }),
        (names(), prop::option::of(standings())).prop_map(|(name, after)| Query::Named { name, after }),
        prop::option::of(cursors).prop_map(|after| Query::List { after }),
        (infohashes(), prop::option::of(peer_entries()))
            .prop_map(|(infohash, after)| Query::Late { infohash, after }),
        (infohashes(), numbers()).prop_map(|(infohash, after)| Query::Finished { infohash, after }),
    ]
}

fn requests() -> impl Strategy<Value = Request> {
    let bodies = prop_oneof![
        1 => any::<[u8; 24]>().prop_map(|padding| RequestBody::Connect { padding }),
        3 => announces().prop_map(RequestBody::Announce),
        3 => (tokens(), queries()).prop_map(|(token, query)| RequestBody::Lookup { token, query }),
        2 => queries().prop_map(|query| RequestBody::FirstLookup { query }),
    ];
    (numbers(), bodies).prop_map(|(id, body)| Request { transaction: TransactionId(id), body })
}

fn addresses() -> impl Strategy<Value = PeerAddress> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(PeerAddress::V4),
        any::<[u8; 16]>().prop_map(PeerAddress::V6),
        Just(PeerAddress::TrackerHost),
    ]
}

fn peer_entries() -> impl Strategy<Value = PeerEntry> {
    (addresses(), ports(), percents()).prop_map(|(address, port, progress)| PeerEntry {
        address,
        port,
        progress,
    })
}

fn share_entries() -> impl Strategy<Value = ShareEntry> {
    let numbers = [(); 5].map(|()| numbers());
    (infohashes(), names(), sizes(), numbers).prop_map(|(infohash, name, size, numbers)| {
        let [seeders, leechers, sites, votes, completed] = numbers;
        ShareEntry { infohash, name, size, seeders, leechers, sites, votes, completed }
    })
}

fn replies() -> impl Strategy<Value = Reply> {
    let errors = prop::sample::select(error_codes());
    let entries = prop_oneof![
        prop::collection::vec(peer_entries(), 0..=3),
        prop::collection::vec(peer_entries(), 0..=MAX_PEERS),
    ];
    let bodies = prop_oneof![
        (tokens(), any::<u16>()).prop_map(|(token, lifetime_s)| ReplyBody::Connected { token, lifetime_s }),
        (any::<u16>(), numbers(), numbers(), numbers()).prop_map(
            |(interval_s, seeders, leechers, completed)| {
                ReplyBody::Announced(Announced { interval_s, seeders, leechers, completed })
            }
        ),
        (any::<[u16; 2]>(), [numbers(), numbers(), numbers()], entries).prop_map(
            |(seconds, counts, peers)| {
                let ([interval_s, settles_in_s], [seeders, leechers, completed]) = (seconds, counts);
                ReplyBody::Peers(Peers { interval_s, settles_in_s, seeders, leechers, completed, peers })
            }
        ),
        (
            (any::<u16>(), any::<Option<u16>>(), numbers()),
            prop::collection::vec(share_entries(), 0..=MAX_SHARES),
            any::<bool>(),
        )
            .prop_map(|((settles_in_s, restarted_ago_s, total), shares, more)| {
                ReplyBody::Shares(Shares { settles_in_s, restarted_ago_s, total, shares, more, peers: None })
            }),
        errors.prop_map(ReplyBody::Error),
        (any::<bool>(), prop::collection::vec((peer_entries(), labels()), 0..=MAX_HOSTS)).prop_map(
            |(more, hosts)| {
                let hosts = hosts.into_iter().map(|(peer, label)| LateHost { peer, label }).collect();
                ReplyBody::Late(LateHosts { more, hosts })
            }
        ),
        (numbers(), prop::collection::vec((addresses(), labels()), 0..=MAX_HOSTS)).prop_map(
            |(total, hosts)| {
                let hosts =
                    hosts.into_iter().map(|(address, label)| FinishedHost { address, label }).collect();
                ReplyBody::Finished(FinishedHosts { total, hosts })
            }
        ),
    ];
    (numbers(), bodies).prop_map(|(id, body)| Reply { transaction: TransactionId(id), body })
}

fn subject(request: &Request) -> Option<Subject> {
    match &request.body {
        RequestBody::Announce(announce) => Some(Subject::Announce(announce.infohash, announce.peer_id)),
        RequestBody::Lookup { query: Query::Peers { infohash, .. }, .. }
        | RequestBody::FirstLookup { query: Query::Peers { infohash, .. } } => {
            Some(Subject::Lookup(*infohash))
        }
        RequestBody::Connect { .. } | RequestBody::Lookup { .. } | RequestBody::FirstLookup { .. } => None,
    }
}

/// `datagram` with each of its bits wrong in turn.
fn each_bit_flipped(datagram: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..datagram.len() * 8).map(|bit| {
        let mut flipped = datagram.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_request_decodes_to_itself_and_never_from_a_part(request in requests(), more in any::<u8>()) {
        let mut datagram = request_bytes(&request);
        prop_assert!(datagram.len() <= MAX_DATAGRAM_LEN);
        prop_assert_eq!(&decode_request(&datagram).unwrap(), &request);
        let mut again = BytesMut::new();
        encode_request(&borrow_request(&datagram).unwrap(), &mut again).unwrap();
        prop_assert_eq!(&again[..], &datagram[..]);
        prop_assert_eq!(peek_subject(&datagram), subject(&request));
        let is_padded = request.body.is_padded();
        for len in 0..datagram.len() {
            // Without some of the padding it is the same.
            match decode_request(&datagram[..len]) {
                Ok(part) => prop_assert!(is_padded && part == request, "{} bytes", len),
                Err(_) => prop_assert!(!is_padded || len < datagram.len() / 2, "{} bytes", len),
            }
        }
        datagram.push(more);
        match decode_request(&datagram) {
            Err(DatagramError::Wire(WireError::TrailingBytes(1))) => prop_assert!(!is_padded),
            // Longer than any datagram.
            Err(DatagramError::Wire(WireError::TooLarge { .. })) | Ok(_) => prop_assert!(is_padded),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn a_reply_decodes_to_itself_and_never_from_a_part(reply in replies(), more in any::<u8>()) {
        let mut datagram = reply_bytes(&reply);
        prop_assert!(datagram.len() <= MAX_DATAGRAM_LEN);
        let mut by_serde = BytesMut::new();
        encode(&reply, &mut by_serde).unwrap();
        prop_assert_eq!(&by_serde[..], &datagram[..]);
        prop_assert_eq!(decode_reply(&datagram).unwrap(), reply);
        for len in 0..datagram.len() {
            prop_assert!(decode_reply(&datagram[..len]).is_err(), "{} bytes", len);
        }
        datagram.push(more);
        let result = decode_reply(&datagram);
        prop_assert!(matches!(result, Err(DatagramError::Wire(WireError::TrailingBytes(1)))), "{:?}", result);
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..1_300)) {
        let datagram = [&PREAMBLE[..], &bytes].concat();
        for datagram in [&bytes, &datagram] {
            let _ = decode_request(datagram);
            let _ = decode_reply(datagram);
            let _ = peek_subject(datagram);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// A wrong bit may give another message, but then one that is legal and encodes again.
    #[test]
    fn a_wrong_bit_never_panics(request in requests(), reply in replies()) {
        for datagram in each_bit_flipped(&request_bytes(&request)) {
            prop_assert_eq!(borrow_request(&datagram).is_ok(), decode_request(&datagram).is_ok());
            if let Ok(other) = decode_request(&datagram) {
                prop_assert_eq!(decode_request(&request_bytes(&other)).unwrap(), other);
            }
        }
        for datagram in each_bit_flipped(&reply_bytes(&reply)) {
            if let Ok(other) = decode_reply(&datagram) {
                prop_assert_eq!(decode_reply(&reply_bytes(&other)).unwrap(), other);
            }
        }
    }
}
