//! The writing side of a connection: sends what its [`Outbox`] holds.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::BytesMut;
use proto::{
    ChunkIndex,
    peer::{MAX_PART_LEN, PeerMessage, RejectReason, encode_message},
};
use store::{ChunkSource, Content, OpenChunkError};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, tcp::OwnedWriteHalf},
    time::{Instant, error::Elapsed, timeout},
};

use crate::{
    outbox::{Outbox, Outgoing},
    rate_limit::RateLimit,
    send_file::send_file,
    unsent::UnsentLimit,
    upload_hub::Asker,
};

/// Says that it is still here when it had nothing to say for this long.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// … and when a request of the peer waited for this long without a word.
const WAITING_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Gives up on a peer that takes longer than this for one message or chunk: less than 5 kB/s.
const SEND_TIMEOUT: Duration = Duration::from_secs(120);

/// What a connection serves, once that is known: a leecher learns only after it connected what the share is.
pub type ServeCell = Arc<OnceLock<Serve>>;

/// What a connection serves.
#[derive(Debug)]
pub struct Serve {
    /// The share.
    pub content: Arc<dyn Content>,
    /// The connection's place among those who are served chunks.
    pub asker: Asker,
}

/// Sends until the outbox is closed and empty, or the connection fails.
pub async fn send(
    mut stream: OwnedWriteHalf,
    outbox: Outbox,
    serve: ServeCell,
    limit: RateLimit,
) -> io::Result<()> {
    let mut frame = BytesMut::new();
    let mut unsent = UnsentLimit::new(stream.as_ref())?;
    let mut last_sent = Instant::now();
    loop {
        let outgoing = match timeout(WAITING_KEEP_ALIVE, outbox.next()).await {
            Ok(Some(outgoing)) => outgoing,
            Ok(None) => return stream.shutdown().await,
            // A peer whose request waits has to know that it is not forgotten.
            Err(Elapsed { .. })
                if last_sent.elapsed() >= KEEP_ALIVE
                    || serve.get().is_some_and(|serve| serve.asker.is_waiting()) =>
            {
                Outgoing::Message(PeerMessage::KeepAlive)
            }
            Err(Elapsed { .. }) => continue,
        };
        let sending = send_one(&mut stream, &mut frame, outgoing, &serve, &limit, &mut unsent);
        timeout(SEND_TIMEOUT, sending).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        last_sent = Instant::now();
    }
}

async fn send_one(
    stream: &mut OwnedWriteHalf,
    frame: &mut BytesMut,
    outgoing: Outgoing,
    serve: &ServeCell,
    limit: &RateLimit,
    unsent: &mut UnsentLimit,
) -> io::Result<()> {
    frame.clear();
    let known = || serve.get().ok_or_else(|| io::Error::other("asked for what is not known here yet"));
    match outgoing {
        Outgoing::Message(message) => {
            encode(&message, frame)?;
            stream.write_all(frame).await
        }
        Outgoing::Metainfo { offset } => {
            let bytes = known()?.content.metainfo().as_bytes();
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
            let hashes = known()?.content.hashes().range(first, count).unwrap_or_default();
            encode(&PeerMessage::Hashes { first, count: to_u32(hashes.len()) }, frame)?;
            hashes.iter().for_each(|hash| frame.extend_from_slice(&hash.0));
            stream.write_all(frame).await
        }
        Outgoing::Bitfield(field) => {
            let bytes = field.as_bytes();
            encode(&PeerMessage::Bitfield { len: to_u32(bytes.len()) }, frame)?;
            frame.extend_from_slice(bytes);
            stream.write_all(frame).await
        }
        Outgoing::Haves(chunks) => {
            for chunk in chunks {
                encode(&PeerMessage::Have { chunk }, frame)?;
            }
            stream.write_all(frame).await
        }
        Outgoing::Chunk(chunk) => {
            let Serve { content, asker } = known()?;
            match open(content, chunk).await {
                Ok(source) => {
                    encode(&PeerMessage::Chunk { chunk, len: source.len }, frame)?;
                    let begun = Instant::now();
                    stream.write_all(frame).await?;
                    send_limited(stream.as_ref(), &source, limit).await?;
                    asker.served(source.len);
                    unsent.adapt(stream.as_ref(), source.len, begun.elapsed())
                }
                Err(error) => {
                    asker.served(0);
                    encode(&PeerMessage::Reject { chunk, reason: reject_reason(chunk, &error) }, frame)?;
                    stream.write_all(frame).await
                }
            }
        }
    }
}

fn reject_reason(chunk: ChunkIndex, error: &OpenChunkError) -> RejectReason {
    match error {
        OpenChunkError::NotHave(_) => RejectReason::NotHave,
        OpenChunkError::Changed(_) | OpenChunkError::Path(_) => {
            tracing::warn!("cannot serve chunk {}: {error}", chunk.0);
            RejectReason::Gone
        }
    }
}

/// Sends a chunk, in slices if there is a limit.
async fn send_limited(stream: &TcpStream, source: &ChunkSource, limit: &RateLimit) -> io::Result<()> {
    let Some(slice_len) = limit.slice_len() else { return send_file(stream, source).await };
    let mut slice = source.clone();
    let end = source.offset + u64::from(source.len);
    while slice.offset < end {
        slice.len = u32::try_from(end - slice.offset).unwrap_or(u32::MAX).min(slice_len);
        limit.take(slice.len).await;
        send_file(stream, &slice).await?;
        slice.offset += u64::from(slice.len);
    }
    Ok(())
}

/// Opening a file can wait for a disk or a network file system; examining an open one does not.
async fn open(content: &Arc<dyn Content>, chunk: ChunkIndex) -> Result<ChunkSource, OpenChunkError> {
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
