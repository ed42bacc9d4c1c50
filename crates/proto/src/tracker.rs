//! The UDP tracker protocol.
//!
//! One request, one reply, each a datagram of at most [`MAX_DATAGRAM_LEN`] bytes: the preamble, then one
//! [`message`]. The [`codec`] is for `tokio_util::udp::UdpFramed`; [`client`] is the pure logic of a client. A reply to a request without a valid token is never larger than the request, so a tracker cannot be used for reflection.

pub mod client;
#[cfg(feature = "codecs")]
pub mod codec;
pub mod message;

#[cfg(feature = "codecs")]
pub use codec::{ReplyCodec, RequestCodec};
pub use message::{
    Announce, Announced, Completion, ErrorCode, Event, Limit, PeerAddress, PeerEntry, Peers, Query, Reply,
    ReplyBody, Request, RequestBody, ShareCursor, ShareEntry, Shares, Standing, Token, TransactionId,
};

/// The tracker's default UDP port.
pub const DEFAULT_PORT: u16 = 6020;

/// Largest datagram in bytes: it crosses the internet without being split (RFC 8200 guarantees 1,280
/// bytes of IPv6 packet).
pub const MAX_DATAGRAM_LEN: usize = 1_200;
