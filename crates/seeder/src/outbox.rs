//! What a connection has still to send.
//!
//! The reading side of a connection fills an [`Outbox`], the writing side ([`crate::sender`]) empties it.
//! Messages go before chunks, for they are small and someone waits for them. Everything is bounded: a peer
//! that asks for more than it may is told so, or dropped.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proto::{
    ChunkIndex,
    peer::{GoodbyeReason, MAX_PIPELINE, PeerMessage, RejectReason},
};
use tokio::sync::Notify;

/// Most messages that wait to be sent. A peer that causes more without reading them gains nothing by it.
const MAX_MESSAGES: usize = 4 * MAX_PIPELINE;

/// When a peer that asked for too much should ask again, in milliseconds.
const RETRY_AFTER_MS: u32 = 1_000;

/// The two ends of a connection's queue.
#[derive(Debug, Clone, Default)]
pub struct Outbox {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Outgoing>,
    chunks: VecDeque<ChunkIndex>,
    closed: bool,
}

/// Something to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// A message without payload.
    Message(PeerMessage),
    /// The part of the metainfo that starts here.
    Metainfo { offset: u32 },
    /// The hashes of these chunks.
    Hashes { first: ChunkIndex, count: u32 },
    /// A chunk.
    Chunk(ChunkIndex),
}

/// The peer caused more messages than it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer asks without reading the answers")]
pub struct OutboxFull;

impl Outbox {
    /// Queues a message that has no payload.
    pub fn message(&self, message: PeerMessage) -> Result<(), OutboxFull> {
        debug_assert_eq!(message.payload_len(), 0, "{message:?}");
        self.push(Outgoing::Message(message))
    }

    /// Queues part of the metainfo.
    pub fn metainfo(&self, offset: u32) -> Result<(), OutboxFull> {
        self.push(Outgoing::Metainfo { offset })
    }

    /// Queues chunk hashes.
    pub fn hashes(&self, first: ChunkIndex, count: u32) -> Result<(), OutboxFull> {
        self.push(Outgoing::Hashes { first, count })
    }

    /// Queues a chunk that the peer asked for. One asked for twice is sent once; one too many is rejected.
    pub fn chunk(&self, chunk: ChunkIndex) -> Result<(), OutboxFull> {
        {
            let mut queue = self.lock();
            if queue.chunks.contains(&chunk) {
                return Ok(());
            }
            if queue.chunks.len() < MAX_PIPELINE {
                queue.chunks.push_back(chunk);
                self.shared.changed.notify_one();
                return Ok(());
            }
        }
        let reason = RejectReason::Busy { retry_after_ms: RETRY_AFTER_MS };
        self.message(PeerMessage::Reject { chunk, reason })
    }

    /// Takes a chunk off the queue that the peer no longer wants.
    pub fn cancel(&self, chunk: ChunkIndex) {
        self.lock().chunks.retain(|&waiting| waiting != chunk);
    }

    /// Ends the connection: drops what waits, and says goodbye.
    pub fn close(&self, reason: GoodbyeReason) {
        let mut queue = self.lock();
        if !queue.closed {
            queue.closed = true;
            queue.chunks.clear();
            queue.messages.push_back(Outgoing::Message(PeerMessage::Goodbye(reason)));
            self.shared.changed.notify_one();
        }
    }

    /// The next thing to send; `None` when the connection is closed and everything is sent. Cancel safe.
    pub(crate) async fn next(&self) -> Option<Outgoing> {
        loop {
            {
                let mut queue = self.lock();
                if let Some(message) = queue.messages.pop_front() {
                    return Some(message);
                }
                if let Some(chunk) = queue.chunks.pop_front() {
                    return Some(Outgoing::Chunk(chunk));
                }
                if queue.closed {
                    return None;
                }
            }
            self.shared.changed.notified().await;
        }
    }

    fn push(&self, outgoing: Outgoing) -> Result<(), OutboxFull> {
        let mut queue = self.lock();
        if queue.messages.len() >= MAX_MESSAGES {
            return Err(OutboxFull);
        }
        if !queue.closed {
            queue.messages.push_back(outgoing);
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(outbox: &Outbox) -> Vec<Outgoing> {
        let mut queue = outbox.lock();
        let chunks: Vec<_> = queue.chunks.drain(..).map(Outgoing::Chunk).collect();
        queue.messages.drain(..).chain(chunks).collect()
    }

    #[tokio::test]
    async fn messages_go_before_chunks() {
        let outbox = Outbox::default();
        outbox.chunk(ChunkIndex(1)).unwrap();
        outbox.chunk(ChunkIndex(2)).unwrap();
        outbox.metainfo(0).unwrap();
        assert_eq!(outbox.next().await, Some(Outgoing::Metainfo { offset: 0 }));
        assert_eq!(outbox.next().await, Some(Outgoing::Chunk(ChunkIndex(1))));
        outbox.close(GoodbyeReason::Done);
        let goodbye = Outgoing::Message(PeerMessage::Goodbye(GoodbyeReason::Done));
        assert_eq!(outbox.next().await, Some(goodbye));
        assert_eq!(outbox.next().await, None);
    }

    #[test]
    fn a_chunk_is_queued_once_and_can_be_cancelled() {
        let outbox = Outbox::default();
        for index in [1, 2, 1] {
            outbox.chunk(ChunkIndex(index)).unwrap();
        }
        outbox.cancel(ChunkIndex(1));
        outbox.cancel(ChunkIndex(7));
        assert_eq!(drain(&outbox), [Outgoing::Chunk(ChunkIndex(2))]);
    }

    #[test]
    fn a_peer_that_asks_too_much_is_told_so_and_then_dropped() {
        let outbox = Outbox::default();
        for index in 0..MAX_PIPELINE as u32 {
            outbox.chunk(ChunkIndex(index)).unwrap();
        }
        outbox.chunk(ChunkIndex(1_000)).unwrap();
        let reason = RejectReason::Busy { retry_after_ms: RETRY_AFTER_MS };
        let reject = PeerMessage::Reject { chunk: ChunkIndex(1_000), reason };
        assert_eq!(drain(&outbox)[0], Outgoing::Message(reject));
        for _ in 0..MAX_MESSAGES {
            outbox.metainfo(0).unwrap();
        }
        assert_eq!(outbox.metainfo(0), Err(OutboxFull));
    }
}
