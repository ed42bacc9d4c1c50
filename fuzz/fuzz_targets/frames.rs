//! The bytes of a connection between peers, in either direction: both send the same messages.
//!
//! The bytes arrive in pieces, as on a network. The messages must not depend on where the pieces end. Every message is legal, is
//! encoded again, and decodes to the same message. The payloads are the bytes between the frames.
//!
//! Decodes: proto/src/peer/codec.rs: impl Decoder for PeerCodec

#![no_main]

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use arbitrary::Arbitrary;
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use proto::{
    CHUNK_LEN, PREAMBLE,
    peer::{MAX_FRAME_LEN, PeerCodec, PeerMessage, PeerReader, encode_message},
};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::codec::Decoder;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    /// The lengths of the pieces in which the bytes arrive. The last length repeats.
    pieces: [u8; 4],
    /// Whether to read or to skip payloads.
    skips: bool,
    bytes: &'a [u8],
}

fuzz_target!(|input: Input| {
    let in_pieces = read(&input, input.pieces.map(|len| 1 + usize::from(len)).to_vec());
    let at_once = read(&input, vec![usize::MAX]);
    assert_eq!(in_pieces, at_once, "pieces of {:?}", input.pieces);
});

/// What a connection delivered, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Delivered {
    messages: Vec<(PeerMessage, Vec<u8>)>,
    end: String,
}

fn read(input: &Input<'_>, pieces: Vec<usize>) -> Delivered {
    let bytes = [&PREAMBLE, input.bytes].concat();
    let mut reader = PeerReader::new(Pieces { bytes: &bytes, lens: pieces, next: 0 });
    now(reader.read_preamble()).expect("the preamble is there");
    let mut delivered = Delivered { messages: Vec::new(), end: String::new() };
    let end = loop {
        let message = match now(reader.next()) {
            Ok(Some(message)) => message,
            Ok(None) => break "closed".to_owned(),
            Err(error) => break error.to_string(),
        };
        check(&message);
        let mut payload = Vec::new();
        let result = if input.skips {
            now(reader.skip_payload())
        } else {
            payload = vec![0; message.payload_len()];
            now(reader.read_payload(&mut payload))
        };
        if let Err(error) = result {
            break error.to_string();
        }
        delivered.messages.push((message, payload));
    };
    delivered.end = end;
    delivered
}

fn check(message: &PeerMessage) {
    assert!(message.lengths_are_legal());
    assert!(message.payload_len() <= CHUNK_LEN as usize, "{message:?}");
    let mut frame = BytesMut::new();
    encode_message(message, &mut frame).expect("what was decoded fits a frame");
    assert!(frame.len() <= 4 + MAX_FRAME_LEN);
    let again = PeerCodec.decode(&mut frame).expect("its own encoding");
    assert_eq!(again, Some(*message));
    assert!(frame.is_empty());
}

/// A connection on which the bytes arrive in pieces.
struct Pieces<'a> {
    bytes: &'a [u8],
    lens: Vec<usize>,
    next: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = self.lens[self.next].min(buffer.remaining()).min(self.bytes.len());
        self.next = (self.next + 1).min(self.lens.len() - 1);
        let (piece, rest) = self.bytes.split_at(len);
        buffer.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

/// The result of a future that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the bytes are there, and it waits"),
    }
}
