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
    send_file::{read_now, send_file},
    unsent::UnsentLimit,
    upload_hub::Asker,
};

/// Says that it is still here when it had nothing to say for this long.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// … and when a request of the peer waited for this long without a word.
const WAITING_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Gives up on a peer that takes longer than this for what is sent to it in one go, a chunk at most and what small things
/// come before it: less than 5 kB/s.
const SEND_TIMEOUT: Duration = Duration::from_secs(120);

/// Chunks of this length at most are copied and sent together with what else there is: for so few bytes that takes less
/// than a call to the system for each.
const SMALL_LEN: u32 = 16 * 1024;

/// Enough to send: nothing more is put to it.
const FULL_LEN: usize = 64 * 1024;

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
    stream: OwnedWriteHalf,
    outbox: Outbox,
    serve: ServeCell,
    limit: RateLimit,
) -> io::Result<()> {
    let unsent = UnsentLimit::new(stream.as_ref())?;
    let mut sender = Sender { stream, serve, limit, unsent, pending: BytesMut::new(), pending_small: false };
    let mut last_sent = Instant::now();
    loop {
        let outgoing = match timeout(WAITING_KEEP_ALIVE, outbox.next()).await {
            Ok(Some(outgoing)) => outgoing,
            Ok(None) => return sender.stream.shutdown().await,
            // A peer whose request waits has to know that it is not forgotten.
            Err(Elapsed { .. }) if last_sent.elapsed() >= KEEP_ALIVE || sender.is_waited_for() => {
                Outgoing::Message(PeerMessage::KeepAlive)
            }
            Err(Elapsed { .. }) => continue,
        };
        let sending = sender.send_with_more(outgoing, &outbox);
        timeout(SEND_TIMEOUT, sending).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        last_sent = Instant::now();
    }
}

struct Sender {
    stream: OwnedWriteHalf,
    serve: ServeCell,
    limit: RateLimit,
    unsent: UnsentLimit,
    /// What goes to the system in one piece: messages, and the small chunks among them.
    pending: BytesMut,
    /// There are chunks in it.
    pending_small: bool,
}

impl Sender {
    fn is_waited_for(&self) -> bool {
        self.serve.get().is_some_and(|serve| serve.asker.is_waiting())
    }

    /// Sends something, and with it what else there is by now.
    async fn send_with_more(&mut self, outgoing: Outgoing, outbox: &Outbox) -> io::Result<()> {
        let mut next = Some(outgoing);
        while let Some(outgoing) = next {
            self.put(outgoing).await?;
            // After a chunk that was sent by itself nothing is pending: then this has taken long enough.
            next = if (1..FULL_LEN).contains(&self.pending.len()) { outbox.try_next() } else { None };
        }
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        self.stream.write_all(&self.pending).await?;
        if std::mem::take(&mut self.pending_small) {
            self.unsent.adapt(self.stream.as_ref(), to_u32(self.pending.len()), begun.elapsed())?;
        }
        self.pending.clear();
        Ok(())
    }

    async fn put(&mut self, outgoing: Outgoing) -> io::Result<()> {
        let known = || self.serve.get().ok_or_else(not_known);
        let pending = &mut self.pending;
        match outgoing {
            Outgoing::Message(message) => encode(&message, pending),
            Outgoing::Metainfo { offset } => {
                let bytes = known()?.content.metainfo().as_bytes();
                let start = (offset as usize).min(bytes.len());
                let part = &bytes[start..bytes.len().min(start + MAX_PART_LEN as usize)];
                let message = PeerMessage::Metainfo {
                    total_len: to_u32(bytes.len()),
                    offset: to_u32(start),
                    len: to_u32(part.len()),
                };
                encode(&message, pending)?;
                pending.extend_from_slice(part);
                Ok(())
            }
            Outgoing::Hashes { first, count } => {
                // A range that does not exist gets no hashes: the asker sees that its count is not met.
                let hashes = known()?.content.hashes().range(first, count).unwrap_or_default();
                encode(&PeerMessage::Hashes { first, count: to_u32(hashes.len()) }, pending)?;
                hashes.iter().for_each(|hash| pending.extend_from_slice(&hash.0));
                Ok(())
            }
            Outgoing::Bitfield(field) => {
                let bytes = field.as_bytes();
                encode(&PeerMessage::Bitfield { len: to_u32(bytes.len()) }, pending)?;
                pending.extend_from_slice(bytes);
                Ok(())
            }
            Outgoing::Haves(chunks) => {
                chunks.into_iter().try_for_each(|chunk| encode(&PeerMessage::Have { chunk }, pending))
            }
            Outgoing::Chunk(chunk) => self.put_chunk(chunk).await,
        }
    }

    async fn put_chunk(&mut self, chunk: ChunkIndex) -> io::Result<()> {
        let content = Arc::clone(&self.serve.get().ok_or_else(not_known)?.content);
        let opened = match content.try_open_chunk(chunk) {
            Some(opened) => opened,
            None => {
                // What is ready does not wait for a disk.
                self.flush().await?;
                open(content, chunk).await
            }
        };
        let Serve { asker, .. } = self.serve.get().ok_or_else(not_known)?;
        let source = match opened {
            Ok(source) => source,
            Err(error) => {
                asker.served(0);
                let reason = reject_reason(chunk, &error);
                return encode(&PeerMessage::Reject { chunk, reason }, &mut self.pending);
            }
        };
        encode(&PeerMessage::Chunk { chunk, len: source.len }, &mut self.pending)?;
        let is_small = source.len <= SMALL_LEN && self.limit.slice_len().is_none();
        if is_small && read_now(&source, &mut self.pending)? {
            self.pending_small = true;
            asker.served(source.len);
            return Ok(());
        }
        self.flush().await?;
        let begun = Instant::now();
        send_limited(self.stream.as_ref(), &source, &self.limit).await?;
        self.serve.get().ok_or_else(not_known)?.asker.served(source.len);
        self.unsent.adapt(self.stream.as_ref(), source.len, begun.elapsed())
    }
}

fn not_known() -> io::Error {
    io::Error::other("asked for what is not known here yet")
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
async fn open(content: Arc<dyn Content>, chunk: ChunkIndex) -> Result<ChunkSource, OpenChunkError> {
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

#[cfg(test)]
mod tests {
    use std::{fs, ops::ControlFlow};

    use proto::CHUNK_LEN;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;
    use crate::upload_hub::UploadHub;

    /// A sender of a directory with these files, and the other end of its connection.
    async fn sender(files: &[(&str, u32)], outbox: &Outbox) -> (Sender, TcpStream, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        for &(name, len) in files {
            fs::write(dir.path().join(name), vec![7; len as usize]).unwrap();
        }
        let shared = store::share(dir.path(), None, None, |_| (), &|_| ControlFlow::Continue(())).unwrap();
        let hub = UploadHub::new(shared.metainfo().chunk_space().chunk_count(), 1);
        let serve = Serve { content: Arc::new(shared), asker: hub.join(outbox.clone()) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let unsent = UnsentLimit::new(&near).unwrap();
        let sender = Sender {
            stream: near.into_split().1,
            serve: Arc::new(OnceLock::from(serve)),
            limit: RateLimit::unlimited(),
            unsent,
            pending: BytesMut::new(),
            pending_small: false,
        };
        (sender, far, dir)
    }

    /// Or a peer that always has something coming would be given up on after [`SEND_TIMEOUT`].
    #[tokio::test]
    async fn a_large_chunk_ends_what_is_sent_in_one_go() {
        let outbox = Outbox::default();
        let (mut sender, far, _dir) = sender(&[("a", CHUNK_LEN), ("b", CHUNK_LEN)], &outbox).await;
        let reading =
            tokio::spawn(async move { far.take(CHUNK_LEN.into()).read_to_end(&mut Vec::new()).await });
        outbox.grant(ChunkIndex(1));
        sender.send_with_more(Outgoing::Chunk(ChunkIndex(0)), &outbox).await.unwrap();
        assert_eq!(outbox.try_next(), Some(Outgoing::Chunk(ChunkIndex(1))), "the next waits for the next go");
        assert!(sender.pending.is_empty());
        drop(sender);
        reading.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn small_chunks_and_messages_go_in_one_piece_up_to_a_limit() {
        let outbox = Outbox::default();
        let names: Vec<_> = (0..100).map(|number| format!("{number:02}")).collect();
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), 4_096)).collect();
        let (mut sender, mut far, _dir) = sender(&files, &outbox).await;
        (0..99).for_each(|chunk| outbox.grant(ChunkIndex(chunk)));
        outbox.message(PeerMessage::KeepAlive).unwrap();
        let first = outbox.next().await.unwrap();
        sender.send_with_more(first, &outbox).await.unwrap();
        // The message, and of chunks the first to reach the limit and those before it.
        let sent = FULL_LEN / 4_096;
        assert_eq!(outbox.try_next(), Some(Outgoing::Chunk(ChunkIndex(sent as u32))));
        assert!(sender.pending.is_empty());
        drop(sender);
        let mut bytes = Vec::new();
        far.read_to_end(&mut bytes).await.unwrap();
        assert!((sent * 4_096..(sent + 1) * 4_096).contains(&bytes.len()), "{}", bytes.len());
    }
}
