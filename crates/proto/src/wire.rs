//! The one file that names bincode.
//!
//! bincode is the encoding that the project's owner chose. It is no longer maintained
//! (RUSTSEC-2025-0141), so nothing else may depend on it: the release is pinned, every message has golden
//! bytes, and replacing it means replacing this file. The encoding is bincode 2's `standard` configuration
//! (little endian, variable-length integers), written down in `docs/protocol.md`.

use bytes::{BufMut, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

/// No message of either protocol is larger than this many bytes, so the decoder never has to allocate
/// more for one, whatever lengths the bytes claim.
pub(crate) const MAX_MESSAGE_LEN: usize = 1_200;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<MAX_MESSAGE_LEN>,
> = bincode::config::standard().with_limit::<MAX_MESSAGE_LEN>();

/// Why bytes are not a message, or a message cannot become bytes.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The bytes do not decode to a legal message.
    #[error("malformed message: {0}")]
    Malformed(#[source] bincode::error::DecodeError),
    /// A legal message was followed by this many more bytes.
    #[error("{0} bytes left over after a message")]
    TrailingBytes(usize),
    /// The message does not fit the size that its protocol allows.
    #[error("message does not fit in {limit} bytes")]
    TooLarge {
        /// Largest encoded size in bytes.
        limit: usize,
    },
}

/// Appends the encoding of `message` to `dst`; on error `dst` is as it was.
pub(crate) fn encode<T: Serialize>(message: &T, limit: usize, dst: &mut BytesMut) -> Result<(), WireError> {
    let start = dst.len();
    let result = bincode::serde::encode_into_writer(message, BytesWriter { dst, left: limit }, CONFIG);
    if result.is_err() {
        dst.truncate(start);
        return Err(WireError::TooLarge { limit });
    }
    Ok(())
}

/// Decodes a message that takes up all of `bytes`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let (message, used) = bincode::serde::decode_from_slice(bytes, CONFIG).map_err(WireError::Malformed)?;
    match bytes.len() - used {
        0 => Ok(message),
        left => Err(WireError::TrailingBytes(left)),
    }
}

struct BytesWriter<'a> {
    dst: &'a mut BytesMut,
    left: usize,
}

impl bincode::enc::write::Writer for BytesWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.left =
            self.left.checked_sub(bytes.len()).ok_or(bincode::error::EncodeError::UnexpectedEnd)?;
        self.dst.put_slice(bytes);
        Ok(())
    }
}
