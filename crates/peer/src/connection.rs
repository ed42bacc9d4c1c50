//! A connection after both sides have sent their `Hello`, for seeders and leechers, and in both directions.
//!
//! [`run`] keeps its two halves together. The sending half is [`crate::sender`]. The receiving half is an [`Inbox`]: it handles the peer's requests itself, and returns every other message to its owner. The owner at a seeder ignores or refuses those ([`crate::server`]). The owner at a leecher fetches with them.

use std::{io, sync::Arc, time::Duration};

use proto::{
    Metainfo,
    outline::{MIN_SECTION_LEN, SECTIONS_PER_REQUEST},
    peer::{
        DescriptionPart, FrameError, GoodbyeReason, Hello, MAX_PUSHED_PARTS, MAX_SUMS, PeerMessage,
        PeerReader, RejectReason, description_parts,
    },
    tracker::Completion,
};
use store::Content;
use swarm::allowance::{Allowance, Exceeded};
use tokio::{
    net::tcp::OwnedReadHalf,
    time::{Instant, timeout},
};

use crate::{
    handshake::Connection,
    outbox::{Outbox, OutboxFull},
    rate_limit::RateLimit,
    sender::{self, Serve, ServeCell},
};

/// A peer that sends nothing for this long is gone: it missed three keep-alives.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// How long a peer may take to receive the goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long to go on receiving when sending has failed. All that the peer sent before it left is here by then, or on its way.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(500);

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The peer sent bytes that are no message, or the connection failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer sends too many messages that bring nothing.
    #[error(transparent)]
    Flood(#[from] Exceeded),
    /// The peer does not read the messages that it causes.
    #[error(transparent)]
    OutboxFull(#[from] OutboxFull),
    /// This side ended the connection.
    #[error("closed by this side")]
    Closed,
    /// The connection failed, or the peer no longer receives anything.
    #[error("sending: {0}")]
    Send(#[source] io::Error),
    /// The peer sent nothing for [`IDLE_TIMEOUT`].
    #[error("silent for {} seconds", IDLE_TIMEOUT.as_secs())]
    Idle,
    /// A message that this side does not expect.
    #[error("unexpected {0:?}")]
    Unexpected(PeerMessage),
    /// A message about a chunk, a hash or a part that the share does not have.
    #[error("{0:?} is not about this share")]
    OutOfRange(PeerMessage),
}

/// How often a peer may request each part of the description. It requests one again if another peer seemed faster for a while.
const PART_REQUESTS: u32 = 8;

/// The receiving half of a connection.
#[derive(Debug)]
pub struct Inbox {
    reader: PeerReader<OwnedReadHalf>,
    outbox: Outbox,
    serve: ServeCell,
    /// The content of the share, once it is known. Messages have to fit it.
    content: Option<Arc<dyn Content>>,
    /// What the peer may still send of messages without use.
    allowance: Allowance,
    /// Number of chunks that the peer has announced.
    haves: u32,
    /// Number of chunks that the peer has requested and that were refused when it was their turn.
    refused: u32,
    /// Number of parts of the description that the peer has requested.
    parts: u32,
    /// Number of times that it has requested its outline, or sections of the metainfo.
    sections: u32,
    /// Number of parts that it may request, once it has requested one of a share that is known.
    most_parts: Option<u32>,
    /// The peer has sent a `DescriptionRequest`.
    is_described: bool,
}

/// Runs a connection until `receive` returns. `receive` gets the peer's `Hello` and the receiving half. It returns its result and the
/// goodbye for the peer. If sending fails, `receive` may still read what the peer sent before, and the connection ends soon.
pub async fn run<T>(
    connection: Connection,
    limit: RateLimit,
    receive: impl AsyncFnOnce(Hello, Inbox) -> (T, GoodbyeReason),
) -> Result<T, ConnectionError> {
    let Connection { hello, reader, writer } = connection;
    let (outbox, serve) = (Outbox::default(), ServeCell::default());
    let inbox = Inbox {
        reader,
        outbox: outbox.clone(),
        serve: Arc::clone(&serve),
        content: None,
        allowance: Allowance::default(),
        haves: 0,
        refused: 0,
        parts: 0,
        sections: 0,
        most_parts: None,
        is_described: false,
    };
    let sending = sender::send(writer, outbox.clone(), serve, limit);
    let receiving = async {
        let (result, goodbye) = receive(hello, inbox).await;
        outbox.close(goodbye);
        result
    };
    // The half that ends first ends the other, by closing the outbox or the socket.
    tokio::pin!(sending, receiving);
    tokio::select! {
        sent = &mut sending => {
            // Nothing that the peer still requests waits to be sent.
            outbox.close(GoodbyeReason::Done);
            // The peer may have left with a goodbye, or after a chunk, that was not read yet.
            let last_words = timeout(LAST_WORDS_TIMEOUT, receiving).await;
            last_words.map_err(|_| sent.err().map_or(ConnectionError::Closed, ConnectionError::Send))
        }
        result = &mut receiving => {
            // A peer that does not receive the goodbye will notice the end of the connection.
            let _ = timeout(GOODBYE_TIMEOUT, sending).await;
            Ok(result)
        }
    }
}

impl Inbox {
    /// The queue of the sending half.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// From now on every message has to be about `content`.
    pub fn expect(&mut self, content: Arc<dyn Content>) {
        self.content = Some(content);
    }

    /// From now on the peer is served.
    pub fn serve(&mut self, serve: Serve) {
        self.content = Some(Arc::clone(&serve.content));
        // There is one share for each connection, so this is called once.
        let _ = self.serve.set(serve);
    }

    /// The next message that is not a request to this side; `None` when the peer has closed the connection. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<PeerMessage>, ConnectionError> {
        loop {
            let message =
                timeout(IDLE_TIMEOUT, self.reader.next()).await.map_err(|_| ConnectionError::Idle)??;
            let Some(message) = message else { return Ok(None) };
            if self.content.as_ref().is_some_and(|content| !message.fits(content.metainfo())) {
                return Err(ConnectionError::OutOfRange(message));
            }
            let useless = self.useless(&message)?;
            if useless > 0 {
                let now = Instant::now().into_std();
                (0..useless).try_for_each(|_| self.allowance.charge(now))?;
            } else if let Some(serve) = self.serve.get() {
                serve.asker.asks();
            }
            match (message, self.serve.get()) {
                (
                    PeerMessage::Request { .. }
                    | PeerMessage::LeavesRequest { .. }
                    | PeerMessage::BlocksRequest { .. }
                    | PeerMessage::Cancel { .. },
                    Some(_),
                ) => {}
                (
                    PeerMessage::Request { chunk, .. }
                    | PeerMessage::LeavesRequest { chunk, .. }
                    | PeerMessage::BlocksRequest { chunk, .. },
                    None,
                ) => {
                    self.outbox.message(PeerMessage::Reject { chunk, reason: RejectReason::NotHave })?;
                }
                (PeerMessage::Cancel { .. }, None) => {}
                (PeerMessage::DescriptionRequest { chunk }, Some(serve)) if !self.is_described => {
                    self.is_described = true;
                    if chunk && let Some(chunk) = serve.choose() {
                        // Before the request, whose chunk is sent as soon as the description is.
                        self.outbox.message(PeerMessage::Chosen { chunk })?;
                        serve.asker.request(chunk, Completion::NOTHING)?;
                    }
                    for part in description_parts(serve.content.metainfo()).take(MAX_PUSHED_PARTS as usize) {
                        match part {
                            DescriptionPart::Metainfo { offset } => self.outbox.metainfo(offset)?,
                            DescriptionPart::Hashes { first, count } => self.outbox.hashes(first, count)?,
                        }
                    }
                }
                (PeerMessage::MetainfoRequest { offset }, Some(_)) => self.outbox.metainfo(offset)?,
                (PeerMessage::HashesRequest { first, count }, Some(_)) => self.outbox.hashes(first, count)?,
                (PeerMessage::OutlineRequest { first }, Some(_)) => self.outbox.outline(first)?,
                (PeerMessage::SectionsRequest(set), Some(_)) => self.outbox.sections(set)?,
                (
                    PeerMessage::MetainfoRequest { .. }
                    | PeerMessage::HashesRequest { .. }
                    | PeerMessage::OutlineRequest { .. }
                    | PeerMessage::SectionsRequest(_),
                    None,
                ) => {
                    return Err(ConnectionError::Unexpected(message));
                }
                (message, _) => return Ok(Some(message)),
            }
        }
    }

    /// Number of messages that bring nothing and are known by this one: usually itself. Requests for chunks, and their cancellations, go
    /// to the upload hub, whose answer shows it.
    fn useless(&mut self, message: &PeerMessage) -> Result<u32, OutboxFull> {
        let content = self.content.as_ref().map(|content| content.metainfo());
        let serve = self.serve.get();
        let is_useless = match *message {
            PeerMessage::KeepAlive | PeerMessage::Idle => true,
            PeerMessage::Have { .. } => {
                self.haves = self.haves.saturating_add(1);
                content.is_some_and(|metainfo| self.haves > metainfo.chunk_space().chunk_count())
            }
            PeerMessage::OutlineRequest { .. } | PeerMessage::SectionsRequest(_) => {
                self.sections = self.sections.saturating_add(1);
                content.is_some_and(|metainfo| self.sections > most_section_requests(metainfo))
            }
            PeerMessage::MetainfoRequest { .. } | PeerMessage::HashesRequest { .. } => {
                self.parts = self.parts.saturating_add(1);
                // Counting the parts means going through all files, so it is done once.
                let most = || Some(PART_REQUESTS.saturating_mul(part_count(content?)));
                self.most_parts = self.most_parts.or_else(most);
                self.most_parts.is_some_and(|most| self.parts > most)
            }
            PeerMessage::Request { progress, .. }
            | PeerMessage::LeavesRequest { progress, .. }
            | PeerMessage::BlocksRequest { progress, .. } => match serve.zip(message.wish()) {
                Some((serve, wish)) => {
                    let is_refused = !serve.asker.request(wish, progress)?;
                    // Those that were refused later count when the next request comes. An honest peer requests each chunk once that
                    // is refused: its file has changed.
                    let free = serve.content.metainfo().chunk_space().chunk_count();
                    let before = self.refused.max(free);
                    self.refused = self.refused.saturating_add(serve.asker.take_refused());
                    return Ok(u32::from(is_refused) + (self.refused.max(free) - before));
                }
                None => true,
            },
            PeerMessage::Cancel { chunk } => match serve {
                Some(serve) => !serve.asker.cancel(chunk)?,
                None => true,
            },
            _ => false,
        };
        Ok(is_useless.into())
    }

    /// Reads some of the payload of the last message into the front of `buf`, and returns the number of bytes, 0 only at the
    /// end of the payload. Cancel safe.
    pub async fn read_some(&mut self, buf: &mut [u8]) -> Result<usize, ConnectionError> {
        let reading = timeout(IDLE_TIMEOUT, self.reader.read_payload_some(buf));
        Ok(reading.await.map_err(|_| ConnectionError::Idle)??)
    }

    /// Reads the payload of the last message: a bitfield, which is at most 512 KiB.
    pub async fn read_payload(&mut self, len: u32) -> Result<Vec<u8>, ConnectionError> {
        let mut bytes = vec![0; len as usize];
        let reading = timeout(IDLE_TIMEOUT, self.reader.read_payload(&mut bytes));
        reading.await.map_err(|_| ConnectionError::Idle)??;
        Ok(bytes)
    }

    /// Reads the rest of the last message's payload and drops it. Cancel safe.
    pub async fn skip_payload(&mut self) -> Result<(), ConnectionError> {
        let skipping = timeout(IDLE_TIMEOUT, self.reader.skip_payload());
        Ok(skipping.await.map_err(|_| ConnectionError::Idle)??)
    }
}

/// Number of requests for outlines and sections of the metainfo that may be of use: each section `PART_REQUESTS` times, in requests for
/// all that follow each other.
fn most_section_requests(metainfo: &Metainfo) -> u32 {
    let sections = u32::try_from(metainfo.as_bytes().len()).unwrap_or(u32::MAX).div_ceil(MIN_SECTION_LEN);
    PART_REQUESTS * (sections.div_ceil(SECTIONS_PER_REQUEST) + sections.div_ceil(MAX_SUMS))
}

/// Number of messages that describe a share.
fn part_count(metainfo: &Metainfo) -> u32 {
    u32::try_from(description_parts(metainfo).count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
