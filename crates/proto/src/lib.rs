//! Shoal's vocabulary and wire formats.
//!
//! Everything that two Shoal programs must agree on is here: ids and names, the metainfo that an
//! infohash is a hash of ([`metainfo`]), links ([`link`]), the UDP tracker messages ([`tracker`]), the TCP
//! peer messages ([`peer`]) and the pure logic of a tracker client ([`tracker::client`]).
//!
//! The codecs need tokio's crates, and so the feature `codecs`, which is on by default. Everything else works without it.
//!
//! This crate opens no socket, reads no clock and touches no file. Its invariant: **a decoded value is
//! already legal**. Every constructor, and so every decoder, refuses what the protocol does not allow.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]

pub mod bitfield;
pub mod chunk;
pub mod endpoint;
#[cfg(all(test, feature = "codecs"))]
mod golden;
pub mod id;
pub mod label;
pub mod link;
pub mod metainfo;
pub mod name;
pub mod outline;
pub mod peer;
pub mod tracker;
#[cfg_attr(not(feature = "codecs"), expect(dead_code, reason = "the codecs are what encodes and decodes"))]
mod wire;
pub mod zone;

pub use bitfield::Bitfield;
pub use chunk::{BLOCK_LEN, CHUNK_LEN, ChunkIndex, ChunkSpace, ChunkSpan, SMALL_CHUNK_LEN};
pub use endpoint::Endpoint;
pub use id::{Digest, InfoHash, PeerId, Secret};
pub use label::Label;
pub use link::Link;
pub use metainfo::Metainfo;
pub use name::{ShareName, ShareNameRef};
pub use wire::WireError;
pub use zone::Zone;

/// First bytes of every datagram and of every peer connection.
pub const MAGIC: [u8; 5] = *b"SHOAL";

/// Version of both wire formats, the byte after [`MAGIC`]. Any change of a golden byte raises it.
pub const VERSION: u8 = 10;

/// Length in bytes of [`PREAMBLE`].
pub const PREAMBLE_LEN: usize = MAGIC.len() + 1;

/// [`MAGIC`] followed by [`VERSION`].
pub const PREAMBLE: [u8; PREAMBLE_LEN] = [b'S', b'H', b'O', b'A', b'L', VERSION];
