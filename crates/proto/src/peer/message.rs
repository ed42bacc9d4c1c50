//! The messages between peers.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    BLOCKS_PER_CHUNK, BlockSet,
    wish::{Form, Wish, block_count},
};
use crate::{
    ChunkIndex, Digest, InfoHash, Metainfo, PeerId, Zone,
    chunk::{BLOCK_LEN, CHUNK_LEN, MAX_CHUNKS},
    outline::{MAX_SECTIONS, SUM_LEN, SectionSet},
    tracker::Completion,
};

/// The first message of each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The share of the connection.
    pub infohash: InfoHash,
    /// The speaker's id.
    pub peer_id: PeerId,
    /// Whether the speaker has all of the share.
    pub role: Role,
    /// TCP port that the speaker listens on, 0 if it does not.
    pub listen_port: u16,
    /// Where in a network the speaker is.
    pub zone: Zone,
}

/// Whether a peer has all of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It has all of it and wants nothing.
    Seeder,
    /// It is still fetching.
    Leecher,
}

/// A message between peers. Those with a payload state its length: see [`PeerMessage::payload_len`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// First message of each side, once.
    Hello(Hello),
    /// The speaker is still there.
    KeepAlive,
    /// Send the metainfo from this byte on.
    MetainfoRequest {
        /// First byte wanted.
        offset: u32,
    },
    /// Part of the metainfo; the payload is that part.
    Metainfo {
        /// Bytes in the whole metainfo.
        total_len: u32,
        /// First byte of this part.
        offset: u32,
        /// Bytes in this part, at most [`super::MAX_PART_LEN`].
        len: u32,
    },
    /// Send the hashes of a range of chunks.
    HashesRequest {
        /// First chunk.
        first: ChunkIndex,
        /// Number of chunks, at most [`super::MAX_HASHES`].
        count: u32,
    },
    /// Hashes of a range of chunks; the payload is 32 bytes a chunk.
    Hashes {
        /// First chunk.
        first: ChunkIndex,
        /// Number of chunks.
        count: u32,
    },
    /// The chunks that the speaker has; the payload is a [`crate::Bitfield`]. Seeders need not send it.
    Bitfield {
        /// Bytes in the bitfield.
        len: u32,
    },
    /// The speaker has one more chunk.
    Have {
        /// The chunk that it has.
        chunk: ChunkIndex,
    },
    /// Send this chunk.
    Request {
        /// The chunk to send.
        chunk: ChunkIndex,
        /// How much the speaker has of what it wants. Those that lag behind others are served first.
        progress: Completion,
    },
    /// Forget the request for this chunk. If it still waits, it is rejected as [`RejectReason::Cancelled`].
    Cancel {
        /// The chunk that was requested.
        chunk: ChunkIndex,
    },
    /// A chunk; the payload is its bytes.
    Chunk {
        /// The chunk that is sent.
        chunk: ChunkIndex,
        /// Its length in bytes, at most [`CHUNK_LEN`].
        len: u32,
    },
    /// A request that will not be answered with a chunk.
    Reject {
        /// The chunk that was requested.
        chunk: ChunkIndex,
        /// The reason.
        reason: RejectReason,
    },
    /// Last message before the speaker closes the connection.
    Goodbye(GoodbyeReason),
    /// No peer's request waits at the speaker, and it could send more.
    Idle,
    /// Send the first [`super::MAX_PUSHED_PARTS`] parts of the description, in order ([`super::description_parts`]). At most once, and
    /// only to the peer that accepted the connection. It may follow `Hello` at once.
    DescriptionRequest {
        /// Send a chunk after it too: any.
        chunk: bool,
    },
    /// Send the hashes of this chunk's blocks. Like [`PeerMessage::Request`], this is answered once.
    LeavesRequest {
        /// The chunk.
        chunk: ChunkIndex,
        /// As in [`PeerMessage::Request`].
        progress: Completion,
    },
    /// The hashes of a chunk's blocks, in order; the payload is 32 bytes a block.
    Leaves {
        /// The chunk.
        chunk: ChunkIndex,
        /// Number of its blocks, 1 to [`BLOCKS_PER_CHUNK`].
        count: u32,
    },
    /// Send these blocks of this chunk. Like [`PeerMessage::Request`], this is answered once.
    BlocksRequest {
        /// The chunk.
        chunk: ChunkIndex,
        /// Which of its blocks, at least one.
        blocks: BlockSet,
        /// As in [`PeerMessage::Request`].
        progress: Completion,
    },
    /// Some blocks of a chunk; the payload is their bytes, in order.
    Blocks {
        /// The chunk.
        chunk: ChunkIndex,
        /// Which of its blocks, at least one.
        blocks: BlockSet,
        /// Bytes in these blocks.
        len: u32,
    },
    /// Send the outline of the metainfo from this section on. It may follow `Hello` at once.
    OutlineRequest {
        /// First section wanted.
        first: u32,
    },
    /// Part of the outline of the metainfo; the payload is 8 bytes a section.
    Outline {
        /// Sections in the whole metainfo.
        sections: u32,
        /// First section of this part.
        first: u32,
        /// Number of sections in this part, at most [`super::MAX_SUMS`].
        count: u32,
    },
    /// Send these sections of the metainfo.
    SectionsRequest(SectionSet),
    /// Some sections of the metainfo; the payload is their bytes, in order.
    Sections {
        /// Which sections.
        set: SectionSet,
        /// Bytes in these sections.
        len: u32,
    },
    /// The chunk that comes after the description, if one was asked for. From then on it counts as requested. Sent before the
    /// description, or not at all.
    Chosen {
        /// The chunk.
        chunk: ChunkIndex,
    },
}

/// Why a chunk is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RejectReason {
    /// The peer does not have this chunk.
    NotHave,
    /// The peer has too much to do.
    Busy {
        /// Milliseconds after which to ask again.
        retry_after_ms: u32,
    },
    /// The chunk changed since the share was made: its file was modified or went away.
    Gone,
    /// The request was cancelled in time.
    Cancelled,
}

/// Why a peer closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GoodbyeReason {
    /// The peer does not have this share.
    UnknownShare,
    /// The peer has as many connections as it may.
    TooManyPeers {
        /// Milliseconds after which to try again.
        retry_after_ms: u32,
    },
    /// The speaker is connected to itself.
    SelfConnection,
    /// The two peers are connected already.
    Duplicate,
    /// The peer is stopping.
    ShuttingDown,
    /// The peer broke the protocol.
    Protocol,
    /// The peer sent data that was proved wrong.
    Banned,
    /// The speaker has no further use for the connection.
    Done,
}

impl fmt::Display for GoodbyeReason {
    /// As the receiver words it: the peer left, because …
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GoodbyeReason::UnknownShare => "it does not have this share",
            GoodbyeReason::TooManyPeers { .. } => "it is full: it serves as many peers as it may",
            GoodbyeReason::SelfConnection => "it is this program itself",
            GoodbyeReason::Duplicate => "it is connected already",
            GoodbyeReason::ShuttingDown => "it is stopping",
            GoodbyeReason::Protocol => "it did not understand what it was sent (another version of Shoal?)",
            GoodbyeReason::Banned => "it says that it was sent wrong data",
            GoodbyeReason::Done => "it needs nothing more",
        })
    }
}

impl PeerMessage {
    /// Bytes of raw payload after the frame.
    pub fn payload_len(&self) -> usize {
        match *self {
            PeerMessage::Metainfo { len, .. }
            | PeerMessage::Bitfield { len }
            | PeerMessage::Chunk { len, .. }
            | PeerMessage::Blocks { len, .. }
            | PeerMessage::Sections { len, .. } => len as usize,
            PeerMessage::Outline { count, .. } => count as usize * SUM_LEN as usize,
            PeerMessage::Hashes { count, .. } | PeerMessage::Leaves { count, .. } => {
                count as usize * Digest::LEN
            }
            PeerMessage::Hello(_)
            | PeerMessage::KeepAlive
            | PeerMessage::Idle
            | PeerMessage::DescriptionRequest { .. }
            | PeerMessage::MetainfoRequest { .. }
            | PeerMessage::OutlineRequest { .. }
            | PeerMessage::SectionsRequest(_)
            | PeerMessage::HashesRequest { .. }
            | PeerMessage::Have { .. }
            | PeerMessage::Chosen { .. }
            | PeerMessage::Request { .. }
            | PeerMessage::LeavesRequest { .. }
            | PeerMessage::BlocksRequest { .. }
            | PeerMessage::Cancel { .. }
            | PeerMessage::Reject { .. }
            | PeerMessage::Goodbye(_) => 0,
        }
    }

    /// What it asks for, if it asks for a chunk or for something of one.
    pub fn wish(&self) -> Option<Wish> {
        match *self {
            PeerMessage::Request { chunk, .. } => Some(Wish { chunk, form: Form::Whole }),
            PeerMessage::LeavesRequest { chunk, .. } => Some(Wish { chunk, form: Form::Leaves }),
            PeerMessage::BlocksRequest { chunk, blocks, .. } => {
                Some(Wish { chunk, form: Form::Blocks(blocks) })
            }
            _ => None,
        }
    }

    /// Whether every chunk number, offset and length in the message fits this share.
    pub fn fits(&self, metainfo: &Metainfo) -> bool {
        let space = metainfo.chunk_space();
        let metainfo_len = metainfo.as_bytes().len();
        match *self {
            PeerMessage::MetainfoRequest { offset } => (offset as usize) < metainfo_len,
            PeerMessage::Metainfo { total_len, .. } => total_len as usize == metainfo_len,
            PeerMessage::HashesRequest { first, count } | PeerMessage::Hashes { first, count } => {
                first.0.checked_add(count).is_some_and(|end| end <= space.chunk_count())
            }
            PeerMessage::Bitfield { len } => len == space.chunk_count().div_ceil(8),
            PeerMessage::Have { chunk }
            | PeerMessage::Request { chunk, .. }
            | PeerMessage::LeavesRequest { chunk, .. }
            | PeerMessage::Cancel { chunk }
            | PeerMessage::Chosen { chunk }
            | PeerMessage::Reject { chunk, .. } => chunk.0 < space.chunk_count(),
            PeerMessage::Leaves { chunk, count } => {
                space.span(chunk).is_some_and(|span| block_count(span.len) == count)
            }
            PeerMessage::BlocksRequest { chunk, blocks, .. } => {
                space.span(chunk).is_some_and(|span| blocks.fits(span.len))
            }
            PeerMessage::Blocks { chunk, blocks, len } => {
                space.span(chunk).is_some_and(|span| blocks.fits(span.len) && blocks.len(span.len) == len)
            }
            PeerMessage::Chunk { chunk, len } => space.span(chunk).is_some_and(|span| span.len == len),
            // The lengths of sections follow from the bytes of the metainfo, so a decoder cannot check them.
            PeerMessage::OutlineRequest { .. }
            | PeerMessage::SectionsRequest(_)
            | PeerMessage::Outline { .. }
            | PeerMessage::Sections { .. }
            | PeerMessage::Hello(_)
            | PeerMessage::KeepAlive
            | PeerMessage::Goodbye(_)
            | PeerMessage::Idle
            | PeerMessage::DescriptionRequest { .. } => true,
        }
    }

    /// Whether the protocol allows every length in the message.
    pub fn lengths_are_legal(&self) -> bool {
        match *self {
            PeerMessage::Metainfo { total_len, offset, len } => {
                total_len <= crate::metainfo::MAX_METAINFO_LEN
                    && (1..=super::MAX_PART_LEN).contains(&len)
                    && offset.checked_add(len).is_some_and(|end| end <= total_len)
            }
            PeerMessage::HashesRequest { first, count } | PeerMessage::Hashes { first, count } => {
                (1..=super::MAX_HASHES).contains(&count)
                    && first.0.checked_add(count).is_some_and(|end| end <= MAX_CHUNKS)
            }
            PeerMessage::OutlineRequest { first } => first < MAX_SECTIONS,
            PeerMessage::Outline { sections, first, count } => {
                sections <= MAX_SECTIONS
                    && (1..=super::MAX_SUMS).contains(&count)
                    && first.checked_add(count).is_some_and(|end| end <= sections)
            }
            PeerMessage::SectionsRequest(set) => set.is_legal(),
            PeerMessage::Sections { set, len } => set.is_legal() && set.lens().contains(&len),
            PeerMessage::Bitfield { len } => len <= MAX_BITFIELD_LEN,
            PeerMessage::Chunk { len, .. } => (1..=CHUNK_LEN).contains(&len),
            PeerMessage::Leaves { count, .. } => (1..=BLOCKS_PER_CHUNK).contains(&count),
            PeerMessage::BlocksRequest { blocks, .. } => !blocks.is_empty(),
            // Only the last block of a file may be shorter than others.
            PeerMessage::Blocks { blocks, len, .. } => {
                !blocks.is_empty() && len.div_ceil(BLOCK_LEN) == blocks.count()
            }
            _ => true,
        }
    }
}

/// Largest bitfield in bytes: that of the largest share.
const MAX_BITFIELD_LEN: u32 = MAX_CHUNKS / 8;
