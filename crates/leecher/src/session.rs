//! A session: one connection to a peer. It connects, exchanges hellos, fetches the description if it is asked to, and then
//! turns each message of the peer into an event for the swarm. It decides nothing.

use std::{future::ready, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use peer::{
    activity::Activity,
    connection::{self, ConnectionError, Inbox},
    handshake::{self, Ask, Connection, HandshakeError, Incoming},
    have_log::HaveLog,
    sender::Serve,
};
use proto::{
    BLOCK_LEN, Bitfield, ChunkIndex, Digest,
    peer::{BLOCKS_PER_CHUNK, BlockSet, Form, FrameError, GoodbyeReason, Hello, PeerMessage, Role, Wish},
};
use store::{Content, Download};
use swarm::{
    LeaveReason, PeerEvent, Unreachable, Violation,
    scheduler::{Have, PeerKey},
};
use tokio::{
    net::TcpStream,
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};

use crate::{
    context::{Context, SessionEvent},
    describer::{Choice, Describer, DescriptionError, Early, Owed},
    description::{Description, Known},
};

/// Maximum time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The assumed delay of a peer that connected to this one, because it was not measured.
const UNKNOWN_DELAY: Duration = Duration::from_millis(100);

/// Minimum interval between two reports about the same chunk.
const CHUNK_REPORT_INTERVAL: Duration = Duration::from_millis(250);

/// The first report of a chunk comes after this time, because it lets a second chunk be requested of a peer that is not trusted yet. A far
/// peer has sent a small chunk within three round trips, and would wait for that request.
const FIRST_REPORT: Duration = Duration::from_millis(30);

/// A peer that takes longer for a chunk is dropped if it sends at less than [`MIN_RATE`].
const TRICKLE_TIME: Duration = Duration::from_secs(60);

/// In bytes a second: a tenth of what a seeder with `--upload-limit 10K` sends. Without a minimum, a peer could keep its
/// connection for ever with a byte now and then.
const MIN_RATE: u64 = 1_000;

/// Maximum number of chunks in one event.
const MOST_HAVES: usize = 64;

/// What [`Inbox::next`] returns.
type Read = Result<Option<PeerMessage>, ConnectionError>;

/// How a session starts.
#[derive(Debug)]
pub(crate) enum Origin {
    /// By connecting to this address.
    Dial(SocketAddr),
    /// With a peer that connected to this one.
    Accepted(Incoming),
}

/// What the swarm asks of a session while it waits.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Notified when the session should ask the peer for the description.
    pub(crate) ask: Notify,
    /// Notified when the session should ask the peer for the rest of a large metainfo.
    pub(crate) rest: Notify,
}

/// Runs a session until the peer is gone or `stop` gives a reason to leave it, and returns why it ended.
pub(crate) async fn run(
    context: Arc<Context>,
    key: PeerKey,
    origin: Origin,
    turn: Arc<Turn>,
    stop: oneshot::Receiver<LeaveReason>,
) -> LeaveReason {
    // Without a sender the transfer is over.
    let mut stopped = pin!(async { stop.await.unwrap_or(LeaveReason::Finished) });
    let connected = tokio::select! {
        connected = connect(&context, origin, &turn) => connected,
        reason = &mut stopped => return reason,
    };
    let (connection, start) = match connected {
        Ok(connected) => connected,
        Err(reason) => return reason,
    };
    let receive = async |hello, inbox| {
        let reason = tokio::select! {
            reason = receive(&context, key, hello, inbox, (&turn, start)) => reason,
            reason = stopped => reason,
        };
        let goodbye = reason.goodbye();
        (reason, goodbye)
    };
    let left = connection::run(connection, context.upload_limit.clone(), receive).await;
    left.unwrap_or(LeaveReason::Disconnected)
}

/// How a connection began.
#[derive(Debug, Clone, Copy)]
struct Start {
    /// Where the peer is.
    address: SocketAddr,
    /// The role of this side.
    role: Role,
    /// When this side sent its `Hello`.
    begun: Instant,
    /// The time that the peer took to answer.
    answers_in: Duration,
    /// What was requested with the hello.
    asked: Ask,
}

/// Makes the connection. If it is the session's turn already, the description is requested with the hello.
async fn connect(context: &Context, origin: Origin, turn: &Turn) -> Result<(Connection, Start), LeaveReason> {
    let whole = context.download.borrow().as_ref().is_some_and(|download| download.is_whole());
    let hello = Hello {
        infohash: context.infohash,
        peer_id: context.peer_id,
        role: if whole { Role::Seeder } else { Role::Leecher },
        listen_port: context.listen_port,
        zone: context.zone,
    };
    match origin {
        Origin::Dial(address) => {
            let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                .map_err(|error| LeaveReason::Unreachable(error.into()))?;
            let begun = Instant::now();
            let asked = tokio::select! {
                biased;
                () = turn.ask.notified() => match context.local {
                    Some(_) => Ask::Outline,
                    None if context.is_new => Ask::DescriptionAndChunk,
                    None => Ask::Description,
                },
                () = ready(()) => Ask::Nothing,
            };
            let connection = handshake::initiate_and_ask(stream, hello, asked).await;
            let connection = connection.map_err(handshake_failed)?;
            Ok((connection, Start { address, role: hello.role, begun, answers_in: begun.elapsed(), asked }))
        }
        Origin::Accepted(incoming) => {
            let address = incoming.address;
            let connection = incoming.accept(hello).await.map_err(handshake_failed)?;
            let (begun, answers_in, asked) = (Instant::now(), UNKNOWN_DELAY, Ask::Nothing);
            Ok((connection, Start { address, role: hello.role, begun, answers_in, asked }))
        }
    }
}

async fn receive(
    context: &Context,
    key: PeerKey,
    hello: Hello,
    mut inbox: Inbox,
    (turn, start): (&Turn, Start),
) -> LeaveReason {
    let choice = if start.asked == Ask::DescriptionAndChunk { Choice::Due } else { Choice::NotDue };
    let mut early = Early { choice, ..Early::default() };
    let owed = match describe(context, key, &mut inbox, &mut early, (turn, start)).await {
        Ok(owed) => owed,
        Err(DescriptionError::BadShare(error)) => {
            let _ = context.events.send((key, PeerEvent::BadShare(error).into())).await;
            return LeaveReason::Finished;
        }
        Err(error) => return not_described(error),
    };
    let mut download = context.download.clone();
    let download = match download.wait_for(Option::is_some).await.map(|download| download.clone()) {
        Ok(Some(download)) => download,
        Ok(None) | Err(_) => return LeaveReason::Finished,
    };
    let content = Arc::clone(&download) as Arc<dyn Content>;
    let (have, feed) = match context.serving.get() {
        Some(serving) => {
            let asker = serving.uploads.join(start.address, inbox.outbox().clone(), Activity::default());
            let (faults, is_whole) = (Arc::clone(&serving.faults), download.is_whole());
            inbox.serve(Serve { content, asker, faults, is_whole });
            // Take the place in the log first, then the bitfield. So a new chunk may be reported twice, but never missed.
            let feed = serving.have_log.feed();
            (download.have(), feed)
        }
        // A leecher that serves nothing reports no chunks.
        None => {
            inbox.expect(content);
            (Bitfield::empty(download.have().len()), HaveLog::default().feed())
        }
    };
    // A seeder sends no bitfield and needs none.
    if (hello.role, start.role) == (Role::Leecher, Role::Leecher)
        && inbox.outbox().bitfield(have, feed).is_err()
    {
        return LeaveReason::TooSlow;
    }
    let chunk_count = download.metainfo().chunk_space().chunk_count();
    let have = match initial_have(hello.role, &early, chunk_count) {
        Ok(have) => have,
        Err(violation) => return LeaveReason::Protocol(violation),
    };
    let (has_bitfield, late_parts) = (early.bitfield.is_some(), owed.left(download.metainfo()));
    let (choice, begun) = (early.choice, start.begun);
    let receiver = Receiver { context, key, download, inbox, has_bitfield, late_parts, choice, begun };
    receiver.run(hello, have).await.unwrap_or_else(|reason| reason)
}

/// Fetches the description from this peer when it is its turn, unless another peer is faster. Returns what this peer still has to
/// send of it.
async fn describe(
    context: &Context,
    key: PeerKey,
    inbox: &mut Inbox,
    early: &mut Early,
    (turn, Start { answers_in, asked, .. }): (&Turn, Start),
) -> Result<Owed, DescriptionError> {
    let report = async |event: SessionEvent| context.events.send((key, event)).await.is_ok();
    let mut known = context.known.subscribe();
    let owed = Owed::after_hello(asked);
    let (rest, events) = (&turn.rest, &context.events);
    let mut describer = Describer { inbox, early, known: known.clone(), owed, rest, key, events };
    let mut is_turn = asked != Ask::Nothing;
    loop {
        if matches!(*known.borrow_and_update(), Known::All) {
            return Ok(describer.owed);
        }
        if !report(PeerEvent::Ready { answers_in }.into()).await {
            return Err(DescriptionError::Finished);
        }
        // Reported once for each turn, so that no turn is left over that the swarm does not know of.
        while !std::mem::take(&mut is_turn) {
            tokio::select! {
                _ = known.changed() => {
                    if matches!(*known.borrow_and_update(), Known::All) {
                        return Ok(describer.owed);
                    }
                }
                () = turn.ask.notified() => is_turn = true,
            }
        }
        let described = async {
            let known = describer.known.borrow_and_update().clone();
            let metainfo = match known {
                Known::All => return Err(DescriptionError::Overtaken),
                Known::Metainfo(metainfo) => {
                    describer.drain(&metainfo).await?;
                    if matches!(*describer.known.borrow_and_update(), Known::All) {
                        return Err(DescriptionError::Overtaken);
                    }
                    metainfo
                }
                Known::Nothing => {
                    let metainfo =
                        Arc::new(describer.metainfo(context.infohash, context.local.as_ref()).await?);
                    context.known.send_if_modified(|known| {
                        let first = matches!(known, Known::Nothing);
                        if first {
                            *known = Known::Metainfo(Arc::clone(&metainfo));
                        }
                        first
                    });
                    match describer.known.borrow_and_update().clone() {
                        Known::Metainfo(metainfo) => metainfo,
                        Known::Nothing | Known::All => return Err(DescriptionError::Overtaken),
                    }
                }
            };
            let hashes = describer.hashes(Arc::clone(&metainfo)).await?;
            Ok(Description { metainfo, hashes })
        };
        match described.await {
            Ok(description) => {
                if !report(SessionEvent::Described(description)).await {
                    return Err(DescriptionError::Finished);
                }
                // The driver sets it when it has the description.
                let _ = known.wait_for(|known| matches!(known, Known::All)).await;
            }
            Err(DescriptionError::Overtaken) => {}
            Err(error) => return Err(error),
        }
    }
}

fn initial_have(role: Role, early: &Early, chunk_count: u32) -> Result<Have, Violation> {
    if let Choice::Made(chunk) = early.choice
        && chunk.0 >= chunk_count
    {
        return Err(Violation::NoSuchChunk(chunk));
    }
    if role == Role::Seeder {
        return Ok(Have::All);
    }
    let mut field = match &early.bitfield {
        Some(bytes) => Bitfield::from_bytes(bytes, chunk_count)?,
        None => Bitfield::empty(chunk_count),
    };
    for &chunk in &early.haves {
        if chunk.0 >= chunk_count {
            return Err(Violation::NoSuchChunk(chunk));
        }
        field.insert(chunk);
    }
    Ok(Have::Some(field))
}

/// A chunk that is arriving, or blocks of one.
struct Arrival {
    chunk: ChunkIndex,
    /// Bytes that are here.
    filled: usize,
    /// Bytes that are missing.
    left: usize,
    /// Time spent waiting for the peer. Waiting for this side's own limit does not count.
    waited: Duration,
    next_report: Instant,
    /// A header alone is not an arrival, and most small chunks arrive in one piece.
    is_reported: bool,
}

struct Receiver<'a> {
    context: &'a Context,
    key: PeerKey,
    download: Arc<Download>,
    inbox: Inbox,
    /// The peer has sent its bitfield.
    has_bitfield: bool,
    /// Parts of the description that the peer still sends although they are no longer needed.
    late_parts: u32,
    choice: Choice,
    /// When this side sent its `Hello`.
    begun: Instant,
}

impl Receiver<'_> {
    /// Receives until the peer is gone. Both `Ok` and `Err` hold the reason.
    async fn run(mut self, hello: Hello, have: Have) -> Result<LeaveReason, LeaveReason> {
        self.report(SessionEvent::Active { hello, have, outbox: self.inbox.outbox().clone() }).await?;
        if let Choice::Made(chunk) = self.choice {
            self.chosen(chunk).await?;
        }
        self.inbox.skip_payload().await.map_err(connection_failed)?;
        let mut read_ahead = None;
        loop {
            let message = match read_ahead.take() {
                Some(message) => message,
                None => self.inbox.next().await,
            };
            let Some(message) = message.map_err(connection_failed)? else {
                return Ok(LeaveReason::Disconnected);
            };
            match message {
                PeerMessage::Chunk { chunk, .. } => self.chunk(chunk, Form::Whole).await?,
                PeerMessage::Blocks { chunk, blocks, .. } => self.chunk(chunk, Form::Blocks(blocks)).await?,
                PeerMessage::Leaves { chunk, count } => self.leaves(chunk, count).await?,
                PeerMessage::Reject { chunk, reason } => {
                    self.report(PeerEvent::Rejected(chunk, reason)).await?;
                }
                PeerMessage::Have { chunk } => {
                    let chunks;
                    (chunks, read_ahead) = self.haves(chunk).await;
                    self.report(PeerEvent::Haves(chunks)).await?;
                }
                // It comes late if another peer has described the share meanwhile.
                PeerMessage::Chosen { chunk } if self.choice == Choice::Due => self.chosen(chunk).await?,
                PeerMessage::KeepAlive => self.report(PeerEvent::Alive).await?,
                PeerMessage::Idle => self.report(PeerEvent::Idle).await?,
                PeerMessage::Bitfield { len } => self.bitfield(len).await?,
                PeerMessage::Metainfo { .. }
                | PeerMessage::Hashes { .. }
                | PeerMessage::Outline { .. }
                | PeerMessage::Sections { .. }
                    if self.late_parts > 0 =>
                {
                    self.late_parts -= 1;
                    self.inbox.skip_payload().await.map_err(connection_failed)?;
                }
                PeerMessage::Goodbye(reason) => return Ok(LeaveReason::Goodbye(reason)),
                message => return Err(connection_failed(ConnectionError::Unexpected(message))),
            }
        }
    }

    /// The chunk that the peer has reported, those that it reports together with it, and what else was read. One event for several chunks
    /// costs less than one for each.
    async fn haves(&mut self, first: ChunkIndex) -> (Vec<ChunkIndex>, Option<Read>) {
        let mut chunks = vec![first];
        while chunks.len() < MOST_HAVES {
            tokio::select! {
                biased;
                read = self.inbox.next() => match read {
                    Ok(Some(PeerMessage::Have { chunk })) => chunks.push(chunk),
                    other => return (chunks, Some(other)),
                },
                () = ready(()) => break,
            }
        }
        (chunks, None)
    }

    async fn chosen(&mut self, chunk: ChunkIndex) -> Result<(), LeaveReason> {
        self.choice = Choice::NotDue;
        self.report(PeerEvent::Chosen { chunk, waited: self.begun.elapsed() }).await
    }

    async fn bitfield(&mut self, len: u32) -> Result<(), LeaveReason> {
        if std::mem::replace(&mut self.has_bitfield, true) {
            return Err(LeaveReason::Protocol(Violation::SecondBitfield));
        }
        let chunk_count = self.download.metainfo().chunk_space().chunk_count();
        let bytes = self.inbox.read_payload(len).await.map_err(connection_failed)?;
        let field = Bitfield::from_bytes(&bytes, chunk_count);
        let field = field.map_err(|error| LeaveReason::Protocol(error.into()))?;
        self.report(PeerEvent::Bitfield(field)).await
    }

    async fn leaves(&mut self, chunk: ChunkIndex, count: u32) -> Result<(), LeaveReason> {
        let len = Form::Leaves.len(count * BLOCK_LEN);
        let bytes = self.inbox.read_payload(len).await.map_err(connection_failed)?;
        self.context.download_limit.take(len).await;
        let leaves = bytes.as_chunks().0.iter().copied().map(Digest).collect();
        self.report(SessionEvent::Leaves(chunk, leaves)).await
    }

    /// Receives a chunk, or blocks of it to their places in a buffer.
    async fn chunk(&mut self, chunk: ChunkIndex, form: Form) -> Result<(), LeaveReason> {
        // The inbox has checked that the message fits the share.
        let len = self.download.metainfo().chunk_space().span(chunk).map_or(0, |span| span.len);
        let mut buffer = self.context.buffers.take(len);
        let blocks = match form {
            Form::Blocks(blocks) => blocks,
            Form::Whole | Form::Leaves => BlockSet::first(BLOCKS_PER_CHUNK),
        };
        let left = blocks.len(len) as usize;
        let mut arrival = Arrival {
            chunk,
            filled: 0,
            left,
            waited: Duration::ZERO,
            next_report: Instant::now() + FIRST_REPORT,
            is_reported: false,
        };
        for range in blocks.ranges(len) {
            self.fill(&mut buffer[range.start as usize..range.end as usize], &mut arrival).await?;
        }
        self.context.buffers.await_turn(&mut buffer).await;
        self.report(SessionEvent::Chunk(Wish { chunk, form }, buffer)).await
    }

    /// Receives bytes of a chunk.
    async fn fill(&mut self, bytes: &mut [u8], arrival: &mut Arrival) -> Result<(), LeaveReason> {
        let limit = &self.context.download_limit;
        let mut filled = 0;
        while filled < bytes.len() {
            // Asked anew each time, because the limit may change.
            let most = limit.slice_len().map_or(bytes.len(), |len| len as usize);
            let end = bytes.len().min(filled + most);
            let asked = Instant::now();
            let reading = self.inbox.read_some(&mut bytes[filled..end]);
            let count = reading.await.map_err(connection_failed)?;
            filled += count;
            arrival.waited += asked.elapsed();
            // `count` is at most a chunk, which fits a u32.
            limit.take(u32::try_from(count).unwrap_or(u32::MAX)).await;
            arrival.filled += count;
            arrival.left -= count;
            self.report_progress(arrival).await?;
        }
        Ok(())
    }

    /// Reports what of a chunk has arrived, unless it is complete.
    async fn report_progress(&self, arrival: &mut Arrival) -> Result<(), LeaveReason> {
        if arrival.left == 0 {
            return Ok(());
        }
        if !std::mem::replace(&mut arrival.is_reported, true) {
            self.report(PeerEvent::Arriving(arrival.chunk)).await?;
        }
        let now = Instant::now();
        if now >= arrival.next_report {
            arrival.next_report = now + CHUNK_REPORT_INTERVAL;
            let bytes = u32::try_from(arrival.filled).unwrap_or(u32::MAX);
            self.report(PeerEvent::Progress { bytes }).await?;
        }
        // Only if bytes are missing. If this process was stopped, a complete chunk may have waited for it.
        if is_trickle(arrival.filled, arrival.waited) {
            return Err(LeaveReason::TooSlow);
        }
        Ok(())
    }

    async fn report(&self, event: impl Into<SessionEvent>) -> Result<(), LeaveReason> {
        self.context.events.send((self.key, event.into())).await.map_err(|_| LeaveReason::Finished)
    }
}

/// Whether a chunk arrives too slowly: `bytes` of it in the time `elapsed`.
fn is_trickle(bytes: usize, elapsed: Duration) -> bool {
    elapsed >= TRICKLE_TIME && (bytes as u64) < MIN_RATE * elapsed.as_secs()
}

fn connection_failed(error: ConnectionError) -> LeaveReason {
    match error {
        ConnectionError::Frame(error) => frame_error(error),
        ConnectionError::Send(_) | ConnectionError::Closed => LeaveReason::Disconnected,
        ConnectionError::Flood(exceeded) => LeaveReason::Protocol(exceeded.into()),
        ConnectionError::OutboxFull(_) | ConnectionError::Idle => LeaveReason::TooSlow,
        ConnectionError::Unexpected(message) => LeaveReason::Protocol(Violation::Unexpected(message)),
        ConnectionError::OutOfRange(message) => LeaveReason::Protocol(Violation::OutOfRange(message)),
    }
}

fn frame_error(error: FrameError) -> LeaveReason {
    LeaveReason::Protocol(match error {
        FrameError::Io(_) => return LeaveReason::Disconnected,
        FrameError::Preamble => Violation::Preamble,
        FrameError::TooLarge(len) => Violation::FrameTooLarge(len),
        FrameError::Wire(_) => Violation::Malformed,
        FrameError::Length(message) => Violation::Length(message),
    })
}

fn handshake_failed(error: HandshakeError) -> LeaveReason {
    match error {
        HandshakeError::SelfConnection | HandshakeError::Goodbye(GoodbyeReason::SelfConnection) => {
            LeaveReason::Itself
        }
        HandshakeError::Goodbye(reason) => LeaveReason::Goodbye(reason),
        HandshakeError::Frame(FrameError::Io(error)) => LeaveReason::Unreachable(error.into()),
        HandshakeError::Timeout => LeaveReason::Unreachable(Unreachable::Silent),
        HandshakeError::Frame(error) => frame_error(error),
        HandshakeError::OtherShare => LeaveReason::Protocol(Violation::OtherShare),
        HandshakeError::NoHello => LeaveReason::Protocol(Violation::NoHello),
    }
}

fn not_described(error: DescriptionError) -> LeaveReason {
    match error {
        DescriptionError::Lied(_) => LeaveReason::Lied,
        DescriptionError::Goodbye(reason) => LeaveReason::Goodbye(reason),
        DescriptionError::Disconnected => LeaveReason::Disconnected,
        DescriptionError::Silent => LeaveReason::TooSlow,
        DescriptionError::Connection(error) => connection_failed(error),
        // The peer did nothing wrong.
        DescriptionError::BadShare(_) | DescriptionError::Overtaken | DescriptionError::Finished => {
            LeaveReason::Finished
        }
    }
}

#[cfg(test)]
mod tests;
