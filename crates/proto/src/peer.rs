//! The TCP peer protocol.
//!
//! Each side sends the preamble and a [`Hello`]; then both send [`PeerMessage`]s, each in a frame: a u32 length (big endian)
//! and that number of bytes. Some messages announce a payload: raw bytes that follow the frame and never pass through the
//! message encoding. [`PeerReader`] and [`encode_message`] are the two directions; the codec under them is [`PeerCodec`].

#[cfg(feature = "codecs")]
pub mod codec;
mod description;
pub mod message;
mod wish;

#[cfg(feature = "codecs")]
pub use codec::{FrameError, PeerCodec, PeerReader, encode_message};
pub use description::{DescriptionPart, description_parts, unknown_hashes};
pub use message::{GoodbyeReason, Hello, PeerMessage, RejectReason, Role};
pub use wish::{BLOCKS_PER_CHUNK, BlockSet, Form, Wish, block_count};

/// The seeder's default TCP port.
pub const DEFAULT_PORT: u16 = 7000;

/// Largest frame in bytes, payload not counted.
pub const MAX_FRAME_LEN: usize = 256;

/// Largest payload in bytes of a `Metainfo` or `Hashes` message.
pub const MAX_PART_LEN: u32 = 256 * 1024;

/// Maximum chunk hashes in one `Hashes` message.
pub const MAX_HASHES: u32 = MAX_PART_LEN / 32;

/// Maximum sums in one `Outline` message.
pub const MAX_SUMS: u32 = MAX_PART_LEN / crate::outline::SUM_LEN;

/// Parts of a description that one `DescriptionRequest` brings: all of it for a share of up to some 12 GiB, and never more than 1 MiB
/// for nothing.
pub const MAX_PUSHED_PARTS: u32 = 4;

/// Maximum requests of a peer that may wait at another. Further ones are rejected as busy. It matters for small files at a distance:
/// this number of 4 KiB fills a link with 640 Mbit/s and a round trip of 100 ms. Of full chunks, a leecher requests less.
pub const MAX_PIPELINE: usize = 2_048;
