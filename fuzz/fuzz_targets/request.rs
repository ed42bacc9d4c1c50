//! Datagrams that a tracker receives.
//!
//! Both decoders of requests must agree on every datagram: the one through serde, and the one by hand that the tracker uses. What
//! they accept is encoded again, fits a datagram, and decodes to the same request.
//!
//! The input has no preamble, so the corpus stays good when the version of the protocol changes.
//!
//! Decodes: proto/src/tracker/codec.rs: fn decode_request
//! Decodes: proto/src/tracker/codec.rs: impl Decoder for RequestCodec
//! Decodes: proto/src/tracker/codec/borrowed.rs: fn borrow_request
//! Decodes: proto/src/label.rs: impl TryFrom<[u8; MAX_LABEL_LEN]> for Label
//! Decodes: proto/src/tracker/codec/borrowed.rs: fn peek_subject
//! Decodes: proto/src/wire.rs: fn decode
//! Decodes: proto/src/wire.rs: fn decode_padded

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use proto::{
    PREAMBLE,
    tracker::{
        MAX_DATAGRAM_LEN, Query, RequestBody, RequestCodec,
        codec::{Subject, borrow_request, decode_request, encode_request, peek_subject},
    },
};
use tokio_util::codec::Decoder;

fuzz_target!(|message: &[u8]| {
    // Without a preamble nothing is accepted, but the input may happen to begin with one.
    check(message);
    check(&[&PREAMBLE, message].concat());
});

fn check(datagram: &[u8]) {
    let by_serde = decode_request(datagram);
    let by_hand = borrow_request(datagram);
    let subject = peek_subject(datagram);
    let by_codec = RequestCodec.decode(&mut BytesMut::from(datagram));
    assert_eq!(by_codec.is_ok_and(|request| request.is_some()), by_serde.is_ok());
    let (request, borrowed) = match (by_serde, by_hand) {
        (Ok(request), Ok(borrowed)) => (request, borrowed),
        (Err(_), Err(_)) => return,
        (by_serde, by_hand) => panic!("serde: {by_serde:?}, by hand: {by_hand:?}"),
    };
    let (mut one, mut other) = (BytesMut::new(), BytesMut::new());
    encode_request(&request, &mut one).expect("what was decoded fits a datagram");
    encode_request(&borrowed, &mut other).expect("what was decoded fits a datagram");
    assert_eq!(one, other, "{request:?} and {borrowed:?}");
    assert!(one.len() <= MAX_DATAGRAM_LEN);
    assert_eq!(decode_request(&one).expect("its own encoding"), request);
    let expected = match &request.body {
        RequestBody::Announce(announce) => Some(Subject::Announce(announce.infohash, announce.peer_id)),
        RequestBody::Lookup { query: Query::Peers { infohash, .. }, .. }
        | RequestBody::FirstLookup { query: Query::Peers { infohash, .. } } => {
            Some(Subject::Lookup(*infohash))
        }
        RequestBody::Connect { .. } | RequestBody::Lookup { .. } | RequestBody::FirstLookup { .. } => None,
    };
    assert_eq!(subject, expected);
}
