//! The writing side of a connection: sends what its [`Outbox`] holds.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::BytesMut;
use proto::peer::{MAX_PART_LEN, PeerMessage, RejectReason, encode_message};
use store::{ChunkSource, Content, OpenChunkError};
use tokio::{
    io::AsyncWriteExt,
    net::tcp::OwnedWriteHalf,
    time::{error::Elapsed, timeout},
};

use crate::{
    outbox::{Outbox, Outgoing},
    send_file::send_file,
};

/// Says that it is still here when it had nothing to say for this long.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Gives up on a peer that takes longer than this for one message or chunk: less than 5 kB/s.
const SEND_TIMEOUT: Duration = Duration::from_secs(120);

/// What a connection serves. A leecher learns only after it connected what the share is.
pub type ContentCell = Arc<OnceLock<Arc<dyn Content>>>;

/// Hears of each chunk that was sent, with its length in bytes.
pub type OnSent = Arc<dyn Fn(u32) + Send + Sync>;

/// Sends until the outbox is closed and empty, or the connection fails.
pub async fn send(
    mut stream: OwnedWriteHalf,
    outbox: Outbox,
    content: ContentCell,
    on_sent: OnSent,
) -> io::Result<()> {
    let mut frame = BytesMut::new();
    loop {
        let outgoing = match timeout(KEEP_ALIVE, outbox.next()).await {
            Ok(Some(outgoing)) => outgoing,
            Ok(None) => return stream.shutdown().await,
            Err(Elapsed { .. }) => Outgoing::Message(PeerMessage::KeepAlive),
        };
        timeout(SEND_TIMEOUT, send_one(&mut stream, &mut frame, outgoing, &content, &on_sent))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    }
}

async fn send_one(
    stream: &mut OwnedWriteHalf,
    frame: &mut BytesMut,
    outgoing: Outgoing,
    content: &ContentCell,
    on_sent: &OnSent,
) -> io::Result<()> {
    frame.clear();
    let known = || content.get().ok_or_else(|| io::Error::other("asked for what is not known here yet"));
    match outgoing {
        Outgoing::Message(message) => {
            encode(&message, frame)?;
            stream.write_all(frame).await
        }
        Outgoing::Metainfo { offset } => {
            let bytes = known()?.metainfo().as_bytes();
            let start = (offset as usize).min(bytes.len());
            let part = &bytes[start..bytes.len().min(start + MAX_PART_LEN as usize)];
            let message = PeerMessage::Metainfo {
                total_len: to_u32(bytes.len()),
                offset: to_u32(start),
                len: to_u32(part.len()),
            };
            encode(&message, frame)?;
            frame.extend_from_slice(part);
            stream.write_all(frame).await
        }
        Outgoing::Hashes { first, count } => {
            // A range that does not exist gets no hashes: the asker sees that its count is not met.
            let hashes = known()?.hashes().range(first, count).unwrap_or_default();
            encode(&PeerMessage::Hashes { first, count: to_u32(hashes.len()) }, frame)?;
            hashes.iter().for_each(|hash| frame.extend_from_slice(&hash.0));
            stream.write_all(frame).await
        }
        Outgoing::Chunk(chunk) => match open(known()?, chunk).await {
            Ok(source) => {
                encode(&PeerMessage::Chunk { chunk, len: source.len }, frame)?;
                stream.write_all(frame).await?;
                send_file(stream.as_ref(), &source).await?;
                on_sent(source.len);
                Ok(())
            }
            Err(error) => {
                let reason = match &error {
                    OpenChunkError::NotHave(_) => RejectReason::NotHave,
                    OpenChunkError::Changed(_) | OpenChunkError::Path(_) => {
                        tracing::warn!("cannot serve chunk {}: {error}", chunk.0);
                        RejectReason::Gone
                    }
                };
                encode(&PeerMessage::Reject { chunk, reason }, frame)?;
                stream.write_all(frame).await
            }
        },
    }
}

/// Opening a file can wait for a disk or a network file system; examining an open one does not.
async fn open(content: &Arc<dyn Content>, chunk: proto::ChunkIndex) -> Result<ChunkSource, OpenChunkError> {
    if let Some(result) = content.try_open_chunk(chunk) {
        return result;
    }
    let content = Arc::clone(content);
    let opened = tokio::task::spawn_blocking(move || content.open_chunk(chunk)).await;
    opened.unwrap_or(Err(OpenChunkError::NotHave(chunk)))
}

fn encode(message: &PeerMessage, frame: &mut BytesMut) -> io::Result<()> {
    encode_message(message, frame).map_err(io::Error::other)
}

/// Lengths of metainfo and hashes are bounded far below.
fn to_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
