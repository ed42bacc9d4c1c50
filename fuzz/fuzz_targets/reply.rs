//! Datagrams that a client of a tracker receives.
//!
//! What is accepted is encoded again, fits a datagram, and decodes to the same reply. Every address in it can be made from every
//! address that a tracker may have.
//!
//! Decodes: proto/src/tracker/codec.rs: fn decode_reply
//! Decodes: proto/src/tracker/codec.rs: impl Decoder for ReplyCodec
//! Decodes: proto/src/tracker/message.rs: impl TryFrom<u8> for Completion

#![no_main]

use std::net::SocketAddr;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use proto::{
    PREAMBLE,
    tracker::{
        MAX_DATAGRAM_LEN, ReplyBody, ReplyCodec,
        codec::{decode_reply, encode_reply},
        message::{MAX_HOSTS, MAX_PEERS, MAX_SHARES},
    },
};
use tokio_util::codec::Decoder;

fuzz_target!(|message: &[u8]| {
    check(message);
    check(&[&PREAMBLE, message].concat());
});

fn check(datagram: &[u8]) {
    let decoded = decode_reply(datagram);
    let by_codec = ReplyCodec.decode(&mut BytesMut::from(datagram));
    assert_eq!(by_codec.is_ok_and(|reply| reply.is_some()), decoded.is_ok());
    let Ok(reply) = decoded else { return };
    let mut encoded = BytesMut::new();
    encode_reply(&reply, &mut encoded).expect("what was decoded fits a datagram");
    assert!(encoded.len() <= MAX_DATAGRAM_LEN);
    assert_eq!(decode_reply(&encoded).expect("its own encoding"), reply);
    match reply.body {
        ReplyBody::Peers(peers) => {
            assert!(peers.peers.len() <= MAX_PEERS);
            for peer in peers.peers {
                assert!(peer.progress.percent() <= 100);
                for tracker in
                    ["192.0.2.1:6020", "[2001:db8::1]:6020", "[fe80::1%3]:6020", "[::ffff:192.0.2.1]:1"]
                {
                    let tracker: SocketAddr = tracker.parse().expect("an address");
                    let address = peer.socket_addr(tracker);
                    assert!(address.is_none_or(|address| address.port() == peer.port.get()));
                }
            }
        }
        ReplyBody::Shares(shares) => assert!(shares.shares.len() <= MAX_SHARES),
        ReplyBody::Late(late) => assert!(late.hosts.len() <= MAX_HOSTS),
        ReplyBody::Finished(finished) => assert!(finished.hosts.len() <= MAX_HOSTS),
        ReplyBody::Connected { .. } | ReplyBody::Announced(_) | ReplyBody::Error(_) => {}
    }
}
