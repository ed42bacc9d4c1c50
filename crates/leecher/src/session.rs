//! A connection to one peer: connects, says hello, helps to learn what the share is, and from then on turns
//! what the peer sends into events for the swarm. It decides nothing.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use proto::{
    Bitfield, ChunkIndex, InfoHash, PeerId,
    peer::{GoodbyeReason, Hello, PeerMessage, PeerReader, RejectReason, Role},
};
use seeder::{
    handshake::{self, Connection, HandshakeError},
    outbox::Outbox,
    sender::{self, ContentCell},
    server::IDLE_TIMEOUT,
};
use store::{Content, Download};
use tokio::{
    net::{TcpStream, tcp::OwnedReadHalf},
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    buffers::{BufferPool, ChunkBuffer},
    description::{self, Description, DescriptionError, EarlyHaves},
    event::LeaveReason,
    scheduler::{Have, PeerKey},
};

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Peers are asked for the share's description one after another with this delay, until one has given it: the
/// first mostly does, and the others need not.
const DESCRIBE_STAGGER: Duration = Duration::from_millis(200);

/// The swarm hears of part of a chunk at this interval at most.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// How long to try to say goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

/// What all sessions of a swarm share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) infohash: InfoHash,
    pub(crate) peer_id: PeerId,
    pub(crate) events: mpsc::Sender<(PeerKey, SessionEvent)>,
    /// What the share is, once a peer has described it.
    pub(crate) described: watch::Sender<Option<Arc<Description>>>,
    /// Where chunks go, once the output is ready.
    pub(crate) download: watch::Receiver<Option<Arc<Download>>>,
    pub(crate) buffers: BufferPool,
    /// Sessions that have waited or wait for their turn to ask for the description.
    pub(crate) describing: AtomicU32,
}

/// What a session tells the swarm.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// The peer is ready to be asked for chunks.
    Joined { have: Have, outbox: Outbox },
    /// The peer has one more chunk.
    Have(ChunkIndex),
    /// Part of a chunk arrived.
    Progress,
    /// A chunk arrived, unproved.
    Chunk(ChunkIndex, ChunkBuffer),
    /// The peer will not send a chunk.
    Reject(ChunkIndex, RejectReason),
}

/// Runs a session until the peer is gone or `stop` is cancelled, and says why it ended.
pub(crate) async fn run(
    context: Arc<Context>,
    key: PeerKey,
    address: SocketAddr,
    stop: CancellationToken,
) -> LeaveReason {
    let connecting = async {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| LeaveReason::Unreachable(error.to_string()))?;
        let hello = Hello {
            infohash: context.infohash,
            peer_id: context.peer_id,
            role: Role::Leecher,
            listen_port: 0,
        };
        handshake::initiate(stream, hello).await.map_err(LeaveReason::from)
    };
    let connection = tokio::select! {
        connection = connecting => connection,
        () = stop.cancelled() => return LeaveReason::Finished,
    };
    match connection {
        Ok(connection) => connected(context, key, connection, stop).await,
        Err(reason) => reason,
    }
}

async fn connected(
    context: Arc<Context>,
    key: PeerKey,
    connection: Connection,
    stop: CancellationToken,
) -> LeaveReason {
    let Connection { hello, reader, writer } = connection;
    let outbox = Outbox::default();
    let content = ContentCell::default();
    let sending = sender::send(writer, outbox.clone(), Arc::clone(&content), Arc::new(|_| ()));
    let receiving = async {
        let reason = tokio::select! {
            reason = receive(&context, key, hello.role, reader, &outbox, &content) => reason,
            () = stop.cancelled() => LeaveReason::Finished,
        };
        outbox.close(match reason {
            LeaveReason::Finished => GoodbyeReason::Done,
            LeaveReason::Lied => GoodbyeReason::Banned,
            _ => GoodbyeReason::Protocol,
        });
        reason
    };
    tokio::pin!(sending);
    tokio::select! {
        _ = &mut sending => LeaveReason::Disconnected,
        reason = receiving => {
            // A peer that does not take the goodbye will find out.
            let _ = timeout(GOODBYE_TIMEOUT, sending).await;
            reason
        }
    }
}

async fn receive(
    context: &Context,
    key: PeerKey,
    role: Role,
    mut reader: PeerReader<OwnedReadHalf>,
    outbox: &Outbox,
    content: &ContentCell,
) -> LeaveReason {
    let mut early = EarlyHaves::default();
    if let Err(error) = describe(context, &mut reader, outbox, &mut early).await {
        return error.into();
    }
    let mut download = context.download.clone();
    let download = match download.wait_for(Option::is_some).await.map(|download| download.clone()) {
        Ok(Some(download)) => download,
        Ok(None) | Err(_) => return LeaveReason::Finished,
    };
    // Set once only: this session has not set it before.
    let _ = content.set(Arc::clone(&download) as Arc<dyn Content>);
    let have = match initial_have(role, &early, download.metainfo().chunk_space().chunk_count()) {
        Ok(have) => have,
        Err(why) => return LeaveReason::Protocol(why),
    };
    let receiver = Receiver { context, key, download, reader };
    receiver.run(have, outbox.clone()).await.unwrap_or_else(|reason| reason)
}

/// Learns what the share is from this peer, unless another one tells first.
async fn describe(
    context: &Context,
    reader: &mut PeerReader<OwnedReadHalf>,
    outbox: &Outbox,
    early: &mut EarlyHaves,
) -> Result<(), DescriptionError> {
    let mut described = context.described.subscribe();
    let turn = context.describing.fetch_add(1, Ordering::Relaxed);
    tokio::select! {
        _ = described.wait_for(Option::is_some) => return Ok(()),
        () = sleep(DESCRIBE_STAGGER * turn) => {}
    }
    let description = description::fetch(context.infohash, reader, outbox, early).await?;
    context.described.send_if_modified(|known| {
        let first = known.is_none();
        if first {
            *known = Some(Arc::new(description));
        }
        first
    });
    Ok(())
}

fn initial_have(role: Role, early: &EarlyHaves, chunk_count: u32) -> Result<Have, String> {
    if role == Role::Seeder {
        return Ok(Have::All);
    }
    let mut field = match &early.bitfield {
        Some(bytes) => Bitfield::from_bytes(bytes, chunk_count).map_err(|error| error.to_string())?,
        None => Bitfield::empty(chunk_count),
    };
    for &chunk in early.haves.iter().filter(|chunk| chunk.0 < chunk_count) {
        field.insert(chunk);
    }
    Ok(Have::Some(field))
}

struct Receiver<'a> {
    context: &'a Context,
    key: PeerKey,
    download: Arc<Download>,
    reader: PeerReader<OwnedReadHalf>,
}

impl Receiver<'_> {
    /// Receives until the peer is gone. Both ways out say why.
    async fn run(mut self, have: Have, outbox: Outbox) -> Result<LeaveReason, LeaveReason> {
        self.tell(SessionEvent::Joined { have, outbox }).await?;
        loop {
            let message = timeout(IDLE_TIMEOUT, self.reader.next()).await;
            let message = message.map_err(|_| LeaveReason::TooSlow)?.map_err(frame_error)?;
            match message {
                Some(PeerMessage::Chunk { chunk, len }) => self.chunk(chunk, len).await?,
                Some(PeerMessage::Reject { chunk, reason }) => {
                    self.tell(SessionEvent::Reject(chunk, reason)).await?;
                }
                Some(PeerMessage::Have { chunk }) => self.tell(SessionEvent::Have(chunk)).await?,
                Some(PeerMessage::KeepAlive) => {}
                Some(PeerMessage::Goodbye(reason)) => return Ok(LeaveReason::Goodbye(reason)),
                None => return Ok(LeaveReason::Disconnected),
                Some(other) => return Err(LeaveReason::Protocol(format!("unexpected {other:?}"))),
            }
        }
    }

    async fn chunk(&mut self, chunk: ChunkIndex, len: u32) -> Result<(), LeaveReason> {
        // A chunk of another length than the metainfo gives it cannot be right.
        let expected = self.download.metainfo().chunk_space().span(chunk).map(|span| span.len);
        if expected != Some(len) {
            return Err(LeaveReason::Lied);
        }
        let mut buffer = self.context.buffers.acquire(len).await;
        let mut filled = 0;
        let mut last_told = Instant::now();
        while filled < buffer.len() {
            let reading = self.reader.read_payload_some(&mut buffer[filled..]);
            let count = timeout(IDLE_TIMEOUT, reading).await.map_err(|_| LeaveReason::TooSlow)?;
            filled += count.map_err(frame_error)?;
            if filled < buffer.len() && last_told.elapsed() >= PROGRESS_INTERVAL {
                last_told = Instant::now();
                self.tell(SessionEvent::Progress).await?;
            }
        }
        self.tell(SessionEvent::Chunk(chunk, buffer)).await
    }

    async fn tell(&self, event: SessionEvent) -> Result<(), LeaveReason> {
        self.context.events.send((self.key, event)).await.map_err(|_| LeaveReason::Finished)
    }
}

fn frame_error(error: proto::peer::FrameError) -> LeaveReason {
    match error {
        proto::peer::FrameError::Io(_) => LeaveReason::Disconnected,
        other => LeaveReason::Protocol(other.to_string()),
    }
}

impl From<HandshakeError> for LeaveReason {
    fn from(error: HandshakeError) -> LeaveReason {
        match error {
            HandshakeError::Goodbye(reason) => LeaveReason::Goodbye(reason),
            HandshakeError::SelfConnection => LeaveReason::Itself,
            HandshakeError::Frame(proto::peer::FrameError::Io(error)) => {
                LeaveReason::Unreachable(error.to_string())
            }
            HandshakeError::Timeout => LeaveReason::Unreachable(error.to_string()),
            HandshakeError::Frame(_) | HandshakeError::OtherShare | HandshakeError::NoHello => {
                LeaveReason::Protocol(error.to_string())
            }
        }
    }
}

impl From<DescriptionError> for LeaveReason {
    fn from(error: DescriptionError) -> LeaveReason {
        match error {
            DescriptionError::Lied(_) => LeaveReason::Lied,
            DescriptionError::Goodbye(reason) => LeaveReason::Goodbye(reason),
            DescriptionError::Disconnected => LeaveReason::Disconnected,
            DescriptionError::Timeout => LeaveReason::TooSlow,
            DescriptionError::Frame(error) => frame_error(error),
            DescriptionError::Unexpected(_) | DescriptionError::Outbox(_) => {
                LeaveReason::Protocol(error.to_string())
            }
        }
    }
}
