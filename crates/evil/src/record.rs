//! What happened to an evil peer.

use proto::peer::GoodbyeReason;

/// What happened to an evil peer so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Connections that began.
    pub connections: u32,
    /// Connections that are over.
    pub closed: u32,
    /// Requests for chunks that it received.
    pub requests: u32,
    /// Parts of a metainfo of 32 MiB that it sent, also if the last byte is missing.
    pub metainfo_parts: u32,
    /// Whole chunks with right bytes that it sent.
    pub right_chunks: u32,
    /// Whole chunks with wrong bytes that it sent.
    pub wrong_chunks: u32,
    /// Wrong hashes of the blocks of a chunk that it sent, once for each chunk.
    pub wrong_leaves: u32,
    /// How often it was dialled after a connection was over on which it had sent a wrong chunk, or wrong hashes of one.
    pub dialled_again: u32,
    /// The goodbyes that it received.
    pub goodbyes: Vec<GoodbyeReason>,
    /// The port that the last leecher listens on; 0 if none is known.
    pub leecher_port: u16,
}
