//! The queue of a connection's outgoing messages and chunks.
//!
//! The reading side of a connection and the [`crate::upload_hub`] fill an [`Outbox`], the writing side ([`crate::sender`])
//! empties it. Messages go before chunks, because they are small and the peer waits for them. Everything is bounded. A peer
//! that causes more messages than it reads is dropped. Chunks come one at a time. News of new chunks is a position in a log.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
};

use proto::{
    Bitfield, ChunkIndex,
    outline::SectionSet,
    peer::{GoodbyeReason, MAX_PIPELINE, PeerMessage, Wish},
};
use tokio::sync::Notify;

use crate::{
    have_log::HaveFeed,
    sync::{Mutex, MutexGuard},
};

/// Maximum messages that wait to be sent: a request and a cancellation for each place in the pipeline, or an answer to each, and
/// some others. A peer that causes more without reading them gets no answers anyway.
const MAX_MESSAGES: usize = 2 * MAX_PIPELINE + 256;

/// Maximum chunks that are reported at a time: as many as fit a buffer of a few kilobytes.
const MAX_HAVES: usize = 256;

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
    granted: VecDeque<Wish>,
    haves: Option<HaveFeed>,
    /// An `Idle` has to be sent.
    idle: bool,
    closed: bool,
}

/// Something to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// A message without payload.
    Message(PeerMessage),
    /// The part of the metainfo that starts here.
    Metainfo { offset: u32 },
    /// The outline of the metainfo from this section on.
    Outline { first: u32 },
    /// These sections of the metainfo.
    Sections(SectionSet),
    /// The hashes of these chunks.
    Hashes { first: ChunkIndex, count: u32 },
    /// The chunks that this side has.
    Bitfield(Bitfield),
    /// Chunks that this side has received since then.
    Haves(Vec<ChunkIndex>),
    /// A chunk, or what is asked for of it.
    Chunk(Wish),
}

/// The peer caused more messages than it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer sends requests without reading the replies")]
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

    /// Queues part of the outline of the metainfo.
    pub fn outline(&self, first: u32) -> Result<(), OutboxFull> {
        self.push(Outgoing::Outline { first })
    }

    /// Queues sections of the metainfo.
    pub fn sections(&self, set: SectionSet) -> Result<(), OutboxFull> {
        self.push(Outgoing::Sections(set))
    }

    /// Queues chunk hashes.
    pub fn hashes(&self, first: ChunkIndex, count: u32) -> Result<(), OutboxFull> {
        self.push(Outgoing::Hashes { first, count })
    }

    /// Queues the bitfield of this side, and from then on every chunk in `feed`.
    pub fn bitfield(&self, have: Bitfield, feed: HaveFeed) -> Result<(), OutboxFull> {
        // In one step: a sender that is woken for the bitfield alone would not look at the feed again before more is reported.
        self.change(|queue| {
            queue.messages.push_back(Outgoing::Bitfield(have));
            queue.haves = Some(feed);
        })
    }

    /// Wakes the sender, because there may be new chunks to report.
    pub fn wake(&self) {
        self.shared.changed.notify_one();
    }

    /// Queues an `Idle`: no peer's request waits here.
    pub(crate) fn idle(&self) {
        let mut queue = self.lock();
        queue.idle = !queue.closed;
        self.shared.changed.notify_one();
    }

    /// Queues a chunk. [`swarm::uploads`] grants one at a time. If the connection is closed, the grant ends with its asker.
    pub(crate) fn grant(&self, wish: impl Into<Wish>) {
        let mut queue = self.lock();
        if !queue.closed {
            queue.granted.push_back(wish.into());
            self.shared.changed.notify_one();
        }
    }

    /// Ends the connection: drops what waits, and queues a goodbye.
    pub fn close(&self, reason: GoodbyeReason) {
        let mut queue = self.lock();
        if !queue.closed {
            queue.closed = true;
            queue.messages.clear();
            queue.granted.clear();
            queue.haves = None;
            queue.idle = false;
            queue.messages.push_back(Outgoing::Message(PeerMessage::Goodbye(reason)));
            self.shared.changed.notify_one();
        }
    }

    /// The next thing to send; `None` when the connection is closed and everything is sent. Cancel safe.
    pub(crate) async fn next(&self) -> Option<Outgoing> {
        loop {
            {
                let mut queue = self.lock();
                let next = queue.pop();
                if next.is_some() || queue.closed {
                    return next;
                }
            }
            self.shared.changed.notified().await;
        }
    }

    /// The next thing to send, if there is anything now.
    pub(crate) fn try_next(&self) -> Option<Outgoing> {
        self.lock().pop()
    }

    fn push(&self, outgoing: Outgoing) -> Result<(), OutboxFull> {
        self.change(|queue| queue.messages.push_back(outgoing))
    }

    /// Changes a queue that has room for one more message and is not closed.
    fn change(&self, change: impl FnOnce(&mut Queue)) -> Result<(), OutboxFull> {
        let mut queue = self.lock();
        if queue.messages.len() >= MAX_MESSAGES {
            return Err(OutboxFull);
        }
        if !queue.closed {
            change(&mut queue);
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn pop(&mut self) -> Option<Outgoing> {
        if let Some(message) = self.messages.pop_front() {
            return Some(message);
        }
        let haves = self.haves.as_mut().map(|feed| feed.next(MAX_HAVES)).unwrap_or_default();
        if !haves.is_empty() {
            return Some(Outgoing::Haves(haves));
        }
        if std::mem::take(&mut self.idle) {
            return Some(Outgoing::Message(PeerMessage::Idle));
        }
        self.granted.pop_front().map(Outgoing::Chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::have_log::HaveLog;

    #[tokio::test]
    async fn messages_go_first_then_news_then_chunks() {
        let (outbox, log) = (Outbox::default(), HaveLog::default());
        outbox.grant(ChunkIndex(1));
        outbox.bitfield(Bitfield::empty(9), log.feed()).unwrap();
        log.push(ChunkIndex(4));
        log.push(ChunkIndex(5));
        outbox.idle();
        outbox.metainfo(0).unwrap();
        assert_eq!(outbox.next().await, Some(Outgoing::Bitfield(Bitfield::empty(9))));
        assert_eq!(outbox.next().await, Some(Outgoing::Metainfo { offset: 0 }));
        assert_eq!(outbox.next().await, Some(Outgoing::Haves([4, 5].map(ChunkIndex).to_vec())));
        assert_eq!(outbox.next().await, Some(Outgoing::Message(PeerMessage::Idle)));
        assert_eq!(outbox.next().await, Some(Outgoing::Chunk(ChunkIndex(1).into())));
    }

    #[tokio::test]
    async fn closing_drops_what_waits_and_sends_the_goodbye() {
        let outbox = Outbox::default();
        outbox.grant(ChunkIndex(1));
        outbox.metainfo(0).unwrap();
        outbox.close(GoodbyeReason::Done);
        outbox.message(PeerMessage::KeepAlive).unwrap();
        outbox.grant(ChunkIndex(2));
        outbox.idle();
        let goodbye = Outgoing::Message(PeerMessage::Goodbye(GoodbyeReason::Done));
        assert_eq!(outbox.next().await, Some(goodbye));
        assert_eq!(outbox.next().await, None);
    }

    #[test]
    fn a_peer_that_does_not_read_is_noticed() {
        let outbox = Outbox::default();
        for _ in 0..MAX_MESSAGES {
            outbox.metainfo(0).unwrap();
        }
        assert_eq!(outbox.metainfo(0), Err(OutboxFull));
    }
}
