//! Frames of peer messages, and a reader that returns payloads without copying them.

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_stream::StreamExt;
use tokio_util::codec::{Decoder, Encoder, FramedRead};

use super::{MAX_FRAME_LEN, message::PeerMessage};
use crate::{PREAMBLE, PREAMBLE_LEN, wire, wire::WireError};

/// Bytes in the length prefix of a frame.
const PREFIX_LEN: usize = 4;

/// Bytes that a reader reads ahead of the current frame. The number is small, because payload bytes among them have to be
/// copied.
const READ_AHEAD_LEN: usize = 4 * 1024;

/// The same after a chunk of at most [`SMALL_PAYLOAD_LEN`]. Then they hold many frames with their payloads, and copying
/// these costs less than a system call for each.
const READ_FAR_AHEAD_LEN: usize = 64 * 1024;

/// Copying a payload of this length takes about as long as a system call; copying a longer one takes longer.
const SMALL_PAYLOAD_LEN: usize = 16 * 1024;

/// Bytes of an unwanted payload that are read at a time.
const SKIPPED_LEN: usize = 4 * 1024;

/// The codec of frames. It does not handle payloads: its caller reads them from the stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeerCodec;

/// Why the bytes of a connection are not messages.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer does not speak this version of this protocol.
    #[error("the other side does not speak Shoal's peer protocol, version {}", crate::VERSION)]
    Preamble,
    /// A frame larger than [`MAX_FRAME_LEN`].
    #[error("a frame of {0} bytes")]
    TooLarge(usize),
    /// A frame that holds no legal message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A message with a length that the protocol does not allow.
    #[error("a message with an impossible length: {0:?}")]
    Length(PeerMessage),
    /// The connection failed, or ended inside a frame or payload.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Decoder for PeerCodec {
    type Item = PeerMessage;
    type Error = FrameError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<PeerMessage>, FrameError> {
        let Some(prefix) = src.first_chunk::<PREFIX_LEN>() else { return Ok(None) };
        let len = u32::from_be_bytes(*prefix) as usize;
        if len > MAX_FRAME_LEN {
            return Err(FrameError::TooLarge(len));
        }
        if src.len() < PREFIX_LEN + len {
            return Ok(None);
        }
        src.advance(PREFIX_LEN);
        let message: PeerMessage = wire::decode(&src.split_to(len))?;
        if message.lengths_are_legal() { Ok(Some(message)) } else { Err(FrameError::Length(message)) }
    }
}

impl Encoder<&PeerMessage> for PeerCodec {
    type Error = FrameError;

    fn encode(&mut self, message: &PeerMessage, dst: &mut BytesMut) -> Result<(), FrameError> {
        if !message.lengths_are_legal() {
            return Err(FrameError::Length(*message));
        }
        let start = dst.len();
        dst.put_u32(0);
        if let Err(error) = wire::encode(message, MAX_FRAME_LEN, dst) {
            dst.truncate(start);
            return Err(error.into());
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most MAX_FRAME_LEN")]
        let len = (dst.len() - start - PREFIX_LEN) as u32;
        dst[start..start + PREFIX_LEN].copy_from_slice(&len.to_be_bytes());
        Ok(())
    }
}

/// Appends the frame of `message` to `dst`. The caller sends the payload after it, if there is one.
pub fn encode_message(message: &PeerMessage, dst: &mut BytesMut) -> Result<(), FrameError> {
    PeerCodec.encode(message, dst)
}

/// The receiving half of a peer connection.
#[derive(Debug)]
pub struct PeerReader<R> {
    framed: FramedRead<R, PeerCodec>,
    read_ahead_len: usize,
    payload_left: usize,
}

impl<R: AsyncRead + Unpin> PeerReader<R> {
    /// Reads from `source`, where the preamble comes first.
    pub fn new(source: R) -> PeerReader<R> {
        let framed = FramedRead::with_capacity(source, PeerCodec, READ_AHEAD_LEN);
        PeerReader { framed, read_ahead_len: READ_AHEAD_LEN, payload_left: 0 }
    }

    /// Reads the preamble. Call it once, before anything else.
    pub async fn read_preamble(&mut self) -> Result<(), FrameError> {
        let mut preamble = [0; PREAMBLE_LEN];
        self.framed.get_mut().read_exact(&mut preamble).await?;
        if preamble == PREAMBLE { Ok(()) } else { Err(FrameError::Preamble) }
    }

    /// Reads the next message, or `None` if the other side closed the connection between two messages.
    /// Cancel safe.
    ///
    /// # Panics
    /// If the payload of the previous message has not been read.
    pub async fn next(&mut self) -> Result<Option<PeerMessage>, FrameError> {
        assert_eq!(self.payload_left, 0, "payload not read");
        self.make_room();
        let Some(message) = self.framed.next().await.transpose()? else { return Ok(None) };
        self.payload_left = message.payload_len();
        if let PeerMessage::Chunk { .. } | PeerMessage::Blocks { .. } = message {
            let is_small = self.payload_left <= SMALL_PAYLOAD_LEN;
            self.read_ahead_len = if is_small { READ_FAR_AHEAD_LEN } else { READ_AHEAD_LEN };
        }
        Ok(Some(message))
    }

    /// Sets how much is read ahead next.
    fn make_room(&mut self) {
        let (len, buffer) = (self.read_ahead_len, self.framed.read_buffer_mut());
        if buffer.is_empty() {
            // Frees the memory of what has been read, which may be larger than the next read needs.
            buffer.reserve(len);
            if buffer.capacity() > len {
                *buffer = BytesMut::with_capacity(len);
            }
        }
    }

    /// Reads some of the payload of the last message into the front of `buf`, and returns the number of bytes, 0 only at the
    /// end of the payload. Bytes go from the socket into `buf`, except for the few that were read ahead. Cancel safe.
    pub async fn read_payload_some(&mut self, buf: &mut [u8]) -> Result<usize, FrameError> {
        let want = buf.len().min(self.payload_left);
        if want == 0 {
            return Ok(0);
        }
        let ahead = self.framed.read_buffer_mut();
        let count = if ahead.is_empty() {
            self.framed.get_mut().read(&mut buf[..want]).await?
        } else {
            let count = want.min(ahead.len());
            ahead.copy_to_slice(&mut buf[..count]);
            count
        };
        if count == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        self.payload_left -= count;
        Ok(count)
    }

    /// Reads the rest of the last message's payload and drops it. Cancel safe.
    pub async fn skip_payload(&mut self) -> Result<(), FrameError> {
        let mut nowhere = [0; SKIPPED_LEN];
        while self.payload_left > 0 {
            self.read_payload_some(&mut nowhere).await?;
        }
        Ok(())
    }

    /// Reads the payload of the last message, all of it.
    ///
    /// # Panics
    /// If `buf` is not as long as the payload.
    pub async fn read_payload(&mut self, buf: &mut [u8]) -> Result<(), FrameError> {
        assert_eq!(buf.len(), self.payload_left, "payload length");
        let mut filled = 0;
        while filled < buf.len() {
            filled += self.read_payload_some(&mut buf[filled..]).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
