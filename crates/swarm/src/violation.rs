//! What a peer can do that the protocol does not allow.

use proto::{ChunkIndex, bitfield::BitfieldError, peer::PeerMessage};

use crate::allowance::Exceeded;

/// What a peer did that the protocol does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// It does not speak this version of the protocol.
    #[error("it does not speak Shoal's peer protocol, version {}", proto::VERSION)]
    Preamble,
    /// It did not begin with a `Hello`.
    #[error("it did not begin with a hello")]
    NoHello,
    /// It answered for another share than the one it was asked about.
    #[error("it named another share")]
    OtherShare,
    /// It sent a frame that is larger than any message.
    #[error("a frame of {0} bytes")]
    FrameTooLarge(usize),
    /// It sent a frame that is no message.
    #[error("a malformed message")]
    Malformed,
    /// It sent a message with a length that is not allowed.
    #[error("a message with an impossible length: {0:?}")]
    Length(PeerMessage),
    /// It sent a message that names a chunk, an offset or a length that this share does not have.
    #[error("{0:?} is not about this share")]
    OutOfRange(PeerMessage),
    /// It sent a message that has no place here.
    #[error("unexpected {0:?}")]
    Unexpected(PeerMessage),
    /// It sent a second bitfield.
    #[error("two bitfields")]
    SecondBitfield,
    /// It sent a bitfield that does not fit the share.
    #[error(transparent)]
    Bitfield(#[from] BitfieldError),
    /// It announced a chunk that the share does not have.
    #[error("it has chunk {}, which is not in the share", .0.0)]
    NoSuchChunk(ChunkIndex),
    /// It sent a chunk that it was not asked for.
    #[error("it sent chunk {} unasked", .0.0)]
    Unrequested(ChunkIndex),
    /// It answered that it will not send a chunk that it was not asked for, or whose request was not cancelled.
    #[error("it answered for chunk {}, which it was not asked for", .0.0)]
    NotRequested(ChunkIndex),
    /// It sends too many messages that bring nothing.
    #[error(transparent)]
    Flood(#[from] Exceeded),
}
