//! The writing side of a connection: sends what its [`Outbox`] holds.

mod outline;
mod parts;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::BytesMut;
use proto::{
    ChunkIndex, ShareName,
    peer::{
        Form, MAX_PART_LEN, MAX_PUSHED_PARTS, PeerMessage, RejectReason, Wish, description_parts,
        encode_message,
    },
};
use rustix::io::Errno;
use store::{ChunkSource, Content, OpenChunkError, PathError, is_zero_chunk};
use swarm::uploads::WAITING_KEEP_ALIVE;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, tcp::OwnedWriteHalf},
    time::{Instant, error::Elapsed, timeout},
};

use crate::{
    faults::Faults,
    outbox::{Outbox, Outgoing},
    rate_limit::RateLimit,
    send_file::{SendFileError, is_in_memory, load, read_now, send_file},
    socket::{Next, send_bytes},
    socket_limit::SocketLimit,
    upload_hub::Asker,
};

/// A keep-alive is sent when nothing else was sent for this long.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Chunks of at most this length are copied and sent together with everything else: for these that costs less than a system
/// call for each.
const SMALL_LEN: u32 = 16 * 1024;

/// The last bytes of a chunk wait until its file was checked again. If it changed meanwhile they are not sent. So the chunk
/// is never whole, and its honest sender does not look like a liar. The bytes before them are in the page cache until they
/// are sent (see [`crate::socket_limit`]), so a change within a few milliseconds after that check is not noticed, at a far peer within a round
/// trip.
const HELD_LEN: u32 = 16 * 1024;

/// Maximum number of chunks that are looked at for a choice. Most shares have a chunk that is not of zeros among as many.
const CANDIDATES: usize = 64;

/// A message with this many bytes is sent without adding more.
const FULL_LEN: usize = 64 * 1024;

/// When a peer should ask again for a chunk that cannot be opened because memory or file descriptors are short, in milliseconds.
const SHORTAGE_RETRY_MS: u32 = 1_000;

/// What a connection serves, once that is known. A leecher learns the share's content only after it connected.
pub type ServeCell = Arc<OnceLock<Serve>>;

/// What a connection serves.
#[derive(Debug)]
pub struct Serve {
    /// The share.
    pub content: Arc<dyn Content>,
    /// The connection's place among the askers of the share.
    pub asker: Asker,
    /// The faults of the share.
    pub faults: Arc<Faults>,
    /// Whether all of the share is here, so that this side may choose what it sends.
    pub is_whole: bool,
}

impl Serve {
    /// The chunk to send to a peer that asks for any. `None` if a choice would not help: the peer has to ask for more of the description
    /// first, or has all chunks that are worth sending.
    pub(crate) fn choose(&self) -> Option<ChunkIndex> {
        let metainfo = self.content.metainfo();
        let is_short = description_parts(metainfo).nth(MAX_PUSHED_PARTS as usize).is_none();
        let candidates = || (0..CANDIDATES).map_while(|_| self.asker.next_choice());
        let is_zeros = |&chunk: &ChunkIndex| is_zero_chunk(metainfo, self.content.hashes(), chunk);
        if self.is_whole && is_short { candidates().find(|chunk| !is_zeros(chunk)) } else { None }
    }
}

/// Sends until the outbox is closed and empty, or the connection fails.
pub async fn send(
    stream: OwnedWriteHalf,
    outbox: Outbox,
    serve: ServeCell,
    limit: RateLimit,
) -> io::Result<()> {
    let held = SocketLimit::new(stream.as_ref())?;
    let mut sender = Sender { stream, serve, limit, held, pending: BytesMut::new(), pending_small: false };
    let mut last_sent = Instant::now();
    loop {
        let outgoing = match timeout(WAITING_KEEP_ALIVE, outbox.next()).await {
            Ok(Some(outgoing)) => outgoing,
            Ok(None) => return sender.stream.shutdown().await,
            // A peer whose request waits must see that it is not forgotten.
            Err(Elapsed { .. }) if last_sent.elapsed() >= KEEP_ALIVE || sender.is_waited_for() => {
                Outgoing::Message(PeerMessage::KeepAlive)
            }
            Err(Elapsed { .. }) => continue,
        };
        sender.send_with_more(outgoing, &outbox).await?;
        last_sent = Instant::now();
    }
}

struct Sender {
    stream: OwnedWriteHalf,
    serve: ServeCell,
    limit: RateLimit,
    held: SocketLimit,
    /// Bytes for one system call: messages, and small chunks between them.
    pending: BytesMut,
    /// Whether it holds chunks.
    pending_small: bool,
}

impl Sender {
    fn is_waited_for(&self) -> bool {
        self.serve.get().is_some_and(|serve| serve.asker.is_waiting())
    }

    /// Sends an item, together with everything else that is waiting by now.
    async fn send_with_more(&mut self, outgoing: Outgoing, outbox: &Outbox) -> io::Result<()> {
        let mut next = Some(outgoing);
        while let Some(outgoing) = next {
            self.put(outgoing).await?;
            // After a chunk that was sent by itself nothing is pending, so there is nothing to add to.
            next = if (1..FULL_LEN).contains(&self.pending.len()) { outbox.try_next() } else { None };
        }
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.flush_before(Next::Unknown).await
    }

    async fn flush_before(&mut self, next: Next) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        send_bytes(self.stream.as_ref(), &self.pending, next).await?;
        if std::mem::take(&mut self.pending_small) {
            self.held.adapt(self.stream.as_ref(), to_u32(self.pending.len()), begun.elapsed())?;
        }
        self.pending.clear();
        Ok(())
    }

    async fn put(&mut self, outgoing: Outgoing) -> io::Result<()> {
        let pending = &mut self.pending;
        match outgoing {
            Outgoing::Message(message) => encode(&message, pending),
            Outgoing::Metainfo { offset } => {
                let bytes = serving(&self.serve)?.content.metainfo().as_bytes();
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
            Outgoing::Outline { first } => self.put_outline(first).await,
            Outgoing::Sections(set) => self.put_sections(set).await,
            Outgoing::Hashes { first, count } => {
                // The reader has checked that the range exists.
                let hashes = serving(&self.serve)?.content.hashes().range(first, count).unwrap_or_default();
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
            Outgoing::Chunk(Wish { chunk, form: Form::Whole }) => self.put_chunk(chunk).await,
            Outgoing::Chunk(Wish { chunk, form: Form::Leaves }) => self.put_leaves(chunk).await,
            Outgoing::Chunk(Wish { chunk, form: Form::Blocks(blocks) }) => {
                self.put_blocks(chunk, blocks).await
            }
        }
    }

    /// Opens a chunk that is to be sent. `None` if it cannot be: then the request is rejected.
    async fn open(&mut self, chunk: ChunkIndex) -> io::Result<Option<ChunkSource>> {
        let content = Arc::clone(&serving(&self.serve)?.content);
        if serving(&self.serve)?.faults.is_broken(chunk) {
            return self.reject(chunk, unreadable(&*content, chunk, Errno::IO.into())).map(|()| None);
        }
        let opened = match content.try_open_chunk(chunk) {
            Some(opened) => opened,
            None => {
                // A file that is ready does not wait for a disk.
                self.flush().await?;
                open(Arc::clone(&content), chunk).await
            }
        };
        match opened {
            Ok(source) => Ok(Some(source)),
            Err(error) => self.reject(chunk, error).map(|()| None),
        }
    }

    async fn put_chunk(&mut self, chunk: ChunkIndex) -> io::Result<()> {
        let Some(source) = self.open(chunk).await? else { return Ok(()) };
        let content = Arc::clone(&serving(&self.serve)?.content);
        let before = self.pending.len();
        let header = PeerMessage::Chunk { chunk, len: source.len };
        if source.len <= SMALL_LEN && self.limit.slice_len().is_none() {
            encode(&header, &mut self.pending)?;
            if let Ok(true) = read_now(&source, &mut self.pending) {
                // The bytes are a copy, so they are right if the file has not changed after the read.
                if let Err(error) = look_again(&content, chunk).await {
                    self.pending.truncate(before);
                    return self.reject(chunk, error);
                }
                self.pending_small = true;
                serving(&self.serve)?.asker.served(source.len);
                return Ok(());
            }
            self.pending.truncate(before);
        }
        // Before the header is sent, because a chunk must follow it.
        if let Err(error) = self.load(&source).await {
            return self.reject(chunk, unreadable(&*content, chunk, error));
        }
        encode(&header, &mut self.pending)?;
        // Under a limit the first bytes may come much later.
        let next = if self.limit.slice_len().is_none() { Next::More } else { Next::Unknown };
        self.flush_before(next).await?;
        let Serve { asker, faults, .. } = serving(&self.serve)?;
        let begun = Instant::now();
        let held = source.len.min(HELD_LEN);
        let first = ChunkSource { len: source.len - held, ..source.clone() };
        let last = ChunkSource { offset: source.offset + u64::from(first.len), len: held, ..source.clone() };
        let mut sent = send_limited(self.stream.as_ref(), &first, &self.limit, asker).await;
        if sent.is_ok() {
            if let Err(error) = look_again(&content, chunk).await {
                faults.report(error);
                return Err(io::Error::other("a file changed while a chunk of it was sent"));
            }
            sent = send_limited(self.stream.as_ref(), &last, &self.limit, asker).await;
        }
        match sent {
            Ok(()) => {}
            Err(SendFileError::Send(error)) => return Err(error),
            Err(SendFileError::Read(error)) => {
                faults.broke(chunk);
                faults.report(unreadable(&*content, chunk, error));
                return Err(io::Error::other("a chunk cannot be read to its end"));
            }
        }
        asker.served(source.len);
        self.held.adapt(self.stream.as_ref(), source.len, begun.elapsed())
    }

    /// Makes sure that a chunk can be read, without waiting for a disk.
    async fn load(&mut self, source: &ChunkSource) -> io::Result<()> {
        if !is_in_memory(source)? {
            self.flush().await?;
            load(source).await?;
        }
        Ok(())
    }

    /// Answers a request with the reason why its chunk is not sent.
    fn reject(&mut self, chunk: ChunkIndex, error: OpenChunkError) -> io::Result<()> {
        let Serve { asker, faults, .. } = serving(&self.serve)?;
        asker.served(0);
        let reason = reject_reason(&error);
        if reason == RejectReason::Gone {
            faults.report(error);
        }
        encode(&PeerMessage::Reject { chunk, reason }, &mut self.pending)
    }
}

/// Whether the file of an opened chunk is unchanged.
async fn look_again(content: &Arc<dyn Content>, chunk: ChunkIndex) -> Result<(), OpenChunkError> {
    let opened = match content.try_open_chunk(chunk) {
        Some(opened) => opened,
        // This file was closed meanwhile, because many files are served.
        None => open(Arc::clone(content), chunk).await,
    };
    match opened {
        Err(error) if reject_reason(&error) == RejectReason::Gone => Err(error),
        _ => Ok(()),
    }
}

/// Readers accept requests only when there is something to serve.
fn serving(cell: &ServeCell) -> io::Result<&Serve> {
    cell.get().ok_or_else(|| io::Error::other("asked for what is not known here yet"))
}

fn reject_reason(error: &OpenChunkError) -> RejectReason {
    match error {
        OpenChunkError::NotHave(_) => RejectReason::NotHave,
        OpenChunkError::Path(error) if is_shortage(&error.source) => {
            RejectReason::Busy { retry_after_ms: SHORTAGE_RETRY_MS }
        }
        _ => RejectReason::Gone,
    }
}

/// Whether this process or its host is short of something that it may have again soon. The file itself is fine.
fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR | Errno::AGAIN))
}

/// A chunk was opened, but reading it failed.
fn unreadable(content: &dyn Content, chunk: ChunkIndex, source: io::Error) -> OpenChunkError {
    let metainfo = content.metainfo();
    let Some(span) = metainfo.chunk_space().span(chunk) else { return OpenChunkError::NotHave(chunk) };
    let mut path = PathBuf::from(metainfo.name().as_str());
    path.extend(metainfo.files()[span.file].path.iter().map(ShareName::as_str));
    PathError { action: "read", path, source }.into()
}

/// Sends a chunk, in slices if there is a limit.
async fn send_limited(
    stream: &TcpStream,
    source: &ChunkSource,
    limit: &RateLimit,
    asker: &Asker,
) -> Result<(), SendFileError> {
    let taken = |bytes| asker.taken(bytes);
    let mut slice = source.clone();
    let end = source.offset + u64::from(source.len);
    while slice.offset < end {
        slice.len = u32::try_from(end - slice.offset).unwrap_or(u32::MAX);
        // Asked anew for each slice, because the limit may change.
        let Some(slice_len) = limit.slice_len() else { return send_file(stream, &slice, taken).await };
        slice.len = slice.len.min(slice_len);
        limit.take(slice.len).await;
        // Under a low limit a chunk takes so long that it may be dropped from memory again.
        if !is_in_memory(&slice).map_err(SendFileError::Read)? {
            load(&slice).await.map_err(SendFileError::Read)?;
        }
        send_file(stream, &slice, taken).await?;
        slice.offset += u64::from(slice.len);
    }
    Ok(())
}

/// Opening a file can wait for a disk or a network file system. Examining an open one does not.
async fn open(content: Arc<dyn Content>, chunk: ChunkIndex) -> Result<ChunkSource, OpenChunkError> {
    let opened = tokio::task::spawn_blocking(move || content.open_chunk(chunk)).await;
    opened.unwrap_or(Err(OpenChunkError::NotHave(chunk)))
}

fn encode(message: &PeerMessage, frame: &mut BytesMut) -> io::Result<()> {
    encode_message(message, frame).map_err(io::Error::other)
}

/// Lengths of metainfo and hashes are far below this.
fn to_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::{fs, ops::ControlFlow, os::unix::fs::FileExt, path::Path};

    use proto::{CHUNK_LEN, SMALL_CHUNK_LEN};
    use store::{Scan, ScanRules};
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;
    use crate::upload_hub::UploadHub;

    fn serve_of(dir: &Path, outbox: &Outbox) -> Serve {
        let shared = Scan::new(dir, None, &ScanRules::default())
            .unwrap()
            .hash(None, &|_| ControlFlow::Continue(()))
            .unwrap();
        let hub = UploadHub::new(shared.metainfo().chunk_space().chunk_count(), SMALL_CHUNK_LEN, 1);
        let asker =
            hub.join(([127, 0, 0, 1], 1).into(), outbox.clone(), crate::activity::Activity::default());
        Serve { content: Arc::new(shared), asker, faults: Faults::new(|_| ()), is_whole: true }
    }

    /// A sender of a directory with these files, and the other end of its connection.
    async fn sender(files: &[(&str, u32)], outbox: &Outbox) -> (Sender, TcpStream, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        for &(name, len) in files {
            fs::write(dir.path().join(name), vec![7; len as usize]).unwrap();
        }
        let serve = serve_of(dir.path(), outbox);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let held = SocketLimit::new(&near).unwrap();
        let sender = Sender {
            stream: near.into_split().1,
            serve: Arc::new(OnceLock::from(serve)),
            limit: RateLimit::unlimited(),
            held,
            pending: BytesMut::new(),
            pending_small: false,
        };
        (sender, far, dir)
    }

    /// Nobody asks for chunks of zeros.
    #[tokio::test]
    async fn a_choice_is_each_chunk_in_turn_but_none_of_zeros_and_none_if_some_are_not_here() {
        let outbox = Outbox::default();
        let (sender, _, dir) =
            sender(&[("a", SMALL_CHUNK_LEN), ("b", SMALL_CHUNK_LEN), ("c", 9)], &outbox).await;
        let Sender { serve, .. } = sender;
        let serve = Arc::into_inner(serve).unwrap().into_inner().unwrap();
        let [first, choices @ ..] = [0; 4].map(|_| serve.choose().unwrap().0);
        assert_eq!(choices, [1, 2, 3].map(|turn| (first + turn) % 3));
        assert_eq!(Serve { is_whole: false, ..serve }.choose(), None);
        fs::write(dir.path().join("b"), vec![0; SMALL_CHUNK_LEN as usize]).unwrap();
        let serve = serve_of(dir.path(), &outbox);
        let mut choices = [0; 2].map(|_| serve.choose().unwrap().0);
        choices.sort_unstable();
        assert_eq!(choices, [0, 2]);
        for name in ["a", "c"] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        assert_eq!(serve_of(dir.path(), &outbox).choose(), None);
    }

    /// Otherwise a peer that asks several seeders would receive one chunk several times.
    #[test]
    fn seeders_that_have_just_begun_choose_different_chunks() {
        let choose = || {
            let hub = UploadHub::new(1 << 16, CHUNK_LEN, 1);
            hub.join(([127, 0, 0, 1], 1).into(), Outbox::default(), crate::activity::Activity::default())
                .next_choice()
        };
        let first = choose();
        assert!((0..8).any(|_| choose() != first));
    }

    /// The receiver never gets all of a chunk that changed.
    #[tokio::test]
    async fn a_chunk_whose_file_changes_while_it_is_sent_stays_incomplete() {
        // The same length as before: only its time differs.
        let faults = changed_while_it_is_sent(|file| {
            file.write_all_at(b"something else", 0).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        });
        let faults = faults.await;
        assert!(faults.is_reported() && !faults.is_broken(ChunkIndex(0)));
        let faults = changed_while_it_is_sent(|file| file.set_len(0).unwrap()).await;
        assert!(faults.is_reported() && faults.is_broken(ChunkIndex(0)));
    }

    /// Sends a chunk whose file `change` changes as soon as the chunk has begun. Returns the faults that were noticed.
    async fn changed_while_it_is_sent(change: impl FnOnce(fs::File)) -> Arc<Faults> {
        let outbox = Outbox::default();
        let (sender, _, dir) = sender(&[("a", SMALL_CHUNK_LEN)], &outbox).await;
        let Sender { serve, .. } = sender;
        // The socket buffer holds less than a chunk.
        let listener = tokio::net::TcpSocket::new_v4().unwrap();
        listener.set_recv_buffer_size(16 * 1024).unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(1).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let faults = Arc::clone(&serve.get().unwrap().faults);
        outbox.grant(ChunkIndex(0));
        let sending = tokio::spawn(send(near.into_split().1, outbox, serve, RateLimit::unlimited()));
        let mut reader = proto::peer::PeerReader::new(&mut far);
        let message = reader.next().await.unwrap();
        assert_eq!(message, Some(PeerMessage::Chunk { chunk: ChunkIndex(0), len: SMALL_CHUNK_LEN }));
        change(fs::File::options().write(true).open(dir.path().join("a")).unwrap());
        reader.read_payload(&mut vec![0; SMALL_CHUNK_LEN as usize]).await.unwrap_err();
        sending.await.unwrap().unwrap_err();
        faults
    }

    /// Otherwise a leecher would request it, and receive a part of it, again and again.
    #[tokio::test]
    async fn a_chunk_that_broke_off_once_is_refused_from_then_on() {
        let outbox = Outbox::default();
        let (mut sender, far, _dir) = sender(&[("a", 5), ("b", 9)], &outbox).await;
        serving(&sender.serve).unwrap().faults.broke(ChunkIndex(0));
        for chunk in [0, 1] {
            sender.put(Outgoing::Chunk(ChunkIndex(chunk).into())).await.unwrap();
        }
        sender.flush().await.unwrap();
        let mut reader = proto::peer::PeerReader::new(far);
        let refused = PeerMessage::Reject { chunk: ChunkIndex(0), reason: RejectReason::Gone };
        assert_eq!(reader.next().await.unwrap(), Some(refused));
        assert_eq!(reader.next().await.unwrap(), Some(PeerMessage::Chunk { chunk: ChunkIndex(1), len: 9 }));
    }

    /// Sending fails only because of a receiver that takes nothing, not because of this side's own limit.
    #[tokio::test]
    async fn a_chunk_takes_as_long_as_the_limit_makes_it() {
        const LEN: u32 = 3 * 1024;
        let outbox = Outbox::default();
        let (sender, mut far, _dir) = sender(&[("a", LEN)], &outbox).await;
        let Sender { stream, serve, .. } = sender;
        // The limit does not use the paused clock. It takes two seconds, in which hours seem to pass.
        tokio::time::pause();
        let limit = RateLimit::bytes_per_second(1_024);
        let sending = tokio::spawn(send(stream, outbox.clone(), serve, limit));
        outbox.grant(ChunkIndex(0));
        let mut reader = proto::peer::PeerReader::new(&mut far);
        let message = loop {
            match reader.next().await.unwrap() {
                Some(PeerMessage::KeepAlive) => {}
                message => break message,
            }
        };
        assert_eq!(message, Some(PeerMessage::Chunk { chunk: ChunkIndex(0), len: LEN }));
        let mut bytes = vec![0; LEN as usize];
        reader.read_payload(&mut bytes).await.unwrap();
        assert!(bytes.iter().all(|&byte| byte == 7));
        sending.abort();
    }

    #[tokio::test]
    async fn a_large_chunk_ends_what_is_sent_in_one_go() {
        let outbox = Outbox::default();
        let (mut sender, far, _dir) =
            sender(&[("a", SMALL_CHUNK_LEN), ("b", SMALL_CHUNK_LEN)], &outbox).await;
        let reading =
            tokio::spawn(async move { far.take(SMALL_CHUNK_LEN.into()).read_to_end(&mut Vec::new()).await });
        outbox.grant(ChunkIndex(1));
        sender.send_with_more(Outgoing::Chunk(ChunkIndex(0).into()), &outbox).await.unwrap();
        assert_eq!(
            outbox.try_next(),
            Some(Outgoing::Chunk(ChunkIndex(1).into())),
            "the next waits for the next go"
        );
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
        assert_eq!(outbox.try_next(), Some(Outgoing::Chunk(ChunkIndex(sent as u32).into())));
        assert!(sender.pending.is_empty());
        drop(sender);
        let mut bytes = Vec::new();
        far.read_to_end(&mut bytes).await.unwrap();
        assert!((sent * 4_096..(sent + 1) * 4_096).contains(&bytes.len()), "{}", bytes.len());
    }
}
