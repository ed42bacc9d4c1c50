//! Codecs of the tracker's datagrams, for `tokio_util::udp::UdpFramed`.

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use tokio_util::codec::{Decoder, Encoder};

use super::{
    MAX_DATAGRAM_LEN,
    message::{Reply, ReplyBody, Request, TransactionId},
};
use crate::{PREAMBLE, wire, wire::WireError};

mod borrowed;
mod peers;

pub use borrowed::{Subject, borrow_request, peek_subject};

/// The tracker's side: decodes requests, encodes replies.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestCodec;

/// The client's side: decodes replies, encodes requests.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplyCodec;

/// Why a datagram is not a message, or a message cannot become one.
#[derive(Debug, thiserror::Error)]
pub enum DatagramError {
    /// Not a Shoal datagram, or one of another version.
    #[error("datagram without the preamble of this protocol version")]
    Preamble,
    /// A Shoal datagram with a malformed message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Encodes one request as a datagram.
pub fn encode_request<N: Serialize>(request: &Request<N>, dst: &mut BytesMut) -> Result<(), DatagramError> {
    let start = dst.len();
    encode(request, dst)?;
    if request.body.is_padded() {
        dst.resize(start + MAX_DATAGRAM_LEN, 0);
    }
    Ok(())
}

/// Decodes the datagram of one request.
pub fn decode_request(datagram: &[u8]) -> Result<Request, DatagramError> {
    let message = datagram.strip_prefix(&PREAMBLE).ok_or(DatagramError::Preamble)?;
    Ok(wire::decode_padded(message, |request: &Request| request.body.is_padded())?)
}

/// Encodes one reply as a datagram.
pub fn encode_reply(reply: &Reply, dst: &mut BytesMut) -> Result<(), DatagramError> {
    encode_answer(reply.transaction, &reply.body, dst)
}

/// Encodes the datagram of a reply from its two parts.
pub fn encode_answer(
    transaction: TransactionId,
    answer: &ReplyBody,
    dst: &mut BytesMut,
) -> Result<(), DatagramError> {
    match answer {
        ReplyBody::Peers(peers) => append(|limit, dst| peers::encode(transaction, peers, limit, dst), dst),
        _ => encode(&(transaction, answer), dst),
    }
}

/// Decodes the datagram of one reply.
pub fn decode_reply(datagram: &[u8]) -> Result<Reply, DatagramError> {
    let message = datagram.strip_prefix(&PREAMBLE).ok_or(DatagramError::Preamble)?;
    Ok(wire::decode(message)?)
}

impl Decoder for RequestCodec {
    type Item = Request;
    type Error = DatagramError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Request>, DatagramError> {
        decode_datagram(src, decode_request)
    }
}

impl Encoder<Reply> for RequestCodec {
    type Error = DatagramError;

    fn encode(&mut self, reply: Reply, dst: &mut BytesMut) -> Result<(), DatagramError> {
        encode_reply(&reply, dst)
    }
}

impl Decoder for ReplyCodec {
    type Item = Reply;
    type Error = DatagramError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Reply>, DatagramError> {
        decode_datagram(src, decode_reply)
    }
}

impl Encoder<Request> for ReplyCodec {
    type Error = DatagramError;

    fn encode(&mut self, request: Request, dst: &mut BytesMut) -> Result<(), DatagramError> {
        encode_request(&request, dst)
    }
}

fn encode<T: Serialize>(message: &T, dst: &mut BytesMut) -> Result<(), DatagramError> {
    append(|limit, dst| wire::encode(message, limit, dst), dst)
}

/// Appends the preamble and the message that `write` appends. On error `dst` does not change.
fn append(
    write: impl FnOnce(usize, &mut BytesMut) -> Result<(), WireError>,
    dst: &mut BytesMut,
) -> Result<(), DatagramError> {
    let start = dst.len();
    dst.put_slice(&PREAMBLE);
    let result = write(MAX_DATAGRAM_LEN - PREAMBLE.len(), dst);
    if result.is_err() {
        dst.truncate(start);
    }
    Ok(result?)
}

/// One datagram is one message. After success or failure, none of its bytes may be left for the next.
fn decode_datagram<T>(
    src: &mut BytesMut,
    decode: impl Fn(&[u8]) -> Result<T, DatagramError>,
) -> Result<Option<T>, DatagramError> {
    if src.is_empty() {
        return Ok(None);
    }
    decode(&src.split()).map(Some)
}

#[cfg(test)]
mod tests;
