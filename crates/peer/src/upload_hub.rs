//! The shell around [`Uploads`]: receives requests from the readers of all connections of a share, and grants chunks to
//! their senders.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Instant,
};

use proto::{
    ChunkIndex,
    peer::{Form, PeerMessage, RejectReason, Wish},
    tracker::Completion,
};
use rand::RngExt;
use swarm::{
    parts::Tally,
    uploads::{AskerKey, BUSY_RETRY_MS, Requested, Uploads},
};
use tokio::{sync::Notify, time::sleep_until};

use crate::{
    activity::Activity,
    outbox::{Outbox, OutboxFull},
    sync::{AtomicU32, AtomicU64, Mutex, MutexGuard},
};

/// The uploads of one share, for all of its connections.
#[derive(Debug)]
pub struct UploadHub {
    state: Mutex<State>,
    /// Signals that the time of the policy's next decision may have changed.
    changed: Notify,
    bytes_sent: AtomicU64,
}

#[derive(Debug)]
struct State {
    uploads: Uploads,
    chunks: u32,
    askers: BTreeMap<AskerKey, Place>,
    last_key: u64,
    /// What the next peer that asks for any chunk receives.
    next_choice: u32,
}

/// The hub's side of a connection.
#[derive(Debug)]
struct Place {
    outbox: Outbox,
    taken: Arc<AtomicU32>,
    address: SocketAddr,
    /// Bytes of chunks that were sent to it, and which chunks these were.
    sent: Arc<AtomicU64>,
    given: Tally,
}

/// A peer that asks for chunks, for people to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// Where it is.
    pub address: SocketAddr,
    /// Bytes of chunks that were sent to it over this connection.
    pub sent: u64,
    /// Whether a request of it waits.
    pub is_waiting: bool,
    /// Whether a chunk is being sent to it.
    pub is_served: bool,
    /// How much of each part of the share was sent to it ([`swarm::parts`]).
    pub given: Vec<u8>,
}

/// A connection's place among the askers, which is given up when this is dropped.
#[derive(Debug)]
pub struct Asker {
    hub: Arc<UploadHub>,
    key: AskerKey,
    outbox: Outbox,
    /// Bytes of the current chunk that the socket has taken in.
    taken: Arc<AtomicU32>,
    sent: Arc<AtomicU64>,
    /// Number of granted chunks that were refused since this was last asked.
    refused: AtomicU32,
    activity: Activity,
}

impl UploadHub {
    /// A hub for a share with this number of chunks of `chunk_len` bytes, of which `slots` may be sent at a time.
    pub fn new(chunk_count: u32, chunk_len: u32, slots: usize) -> Arc<UploadHub> {
        let uploads = Uploads::new(chunk_count, chunk_len, slots);
        let (askers, chunks) = (BTreeMap::new(), chunk_count);
        // A peer that asks several seeders for any chunk should receive different ones.
        let next_choice = rand::rng().random_range(0..chunk_count.max(1));
        let state = State { uploads, chunks, askers, last_key: 0, next_choice };
        Arc::new(UploadHub {
            state: Mutex::new(state),
            changed: Notify::new(),
            bytes_sent: AtomicU64::new(0),
        })
    }

    /// Adds a connection to `address` whose sender serves `outbox`. What the peer does is noted in `activity`.
    pub fn join(self: &Arc<UploadHub>, address: SocketAddr, outbox: Outbox, activity: Activity) -> Asker {
        let mut state = self.lock();
        state.last_key += 1;
        let key = AskerKey(state.last_key);
        let taken = Arc::new(AtomicU32::new(0));
        let given = Tally::new(state.chunks);
        let sent = Arc::new(AtomicU64::new(0));
        let place = Place {
            outbox: outbox.clone(),
            taken: Arc::clone(&taken),
            address,
            sent: Arc::clone(&sent),
            given,
        };
        state.askers.insert(key, place);
        Asker { hub: Arc::clone(self), key, outbox, taken, sent, refused: AtomicU32::new(0), activity }
    }

    /// Starts further uploads as time passes. Run it as long as peers are served; it never returns.
    pub async fn run(&self) {
        loop {
            // Subscribed before the state is read, so that no change is missed.
            let changed = self.changed.notified();
            let next = self.lock().uploads.next_timeout(Instant::now());
            match next {
                Some(next) => tokio::select! {
                    () = sleep_until(next.into()) => self.lock().pump(),
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }

    /// Bytes of chunks that were sent.
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    /// Number of connected peers that may ask for chunks.
    pub fn receiver_count(&self) -> usize {
        self.lock().askers.len()
    }

    /// The connected peers that may ask for chunks, in the order in which they came.
    pub fn receivers(&self) -> Vec<Receiver> {
        let state = self.lock();
        let receiver = |(&key, place): (&AskerKey, &Place)| Receiver {
            address: place.address,
            sent: place.sent.load(Ordering::Relaxed),
            is_waiting: state.uploads.is_waiting(key),
            is_served: state.uploads.is_served(key),
            given: place.given.percents(),
        };
        state.askers.iter().map(receiver).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update<T>(&self, update: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = update(&mut state);
        state.pump();
        drop(state);
        self.changed.notify_one();
        result
    }
}

impl State {
    /// Reports what the sockets have taken in.
    fn progress(&mut self, now: Instant) {
        let taken = |key| self.askers.get(&key).map_or(0, |place| place.taken.load(Ordering::Relaxed));
        self.uploads.progress(taken, now);
    }

    fn pump(&mut self) {
        let now = Instant::now();
        if self.uploads.is_contended() {
            self.progress(now);
        }
        while let Some((key, wish)) = self.uploads.start(now) {
            match self.askers.get(&key) {
                Some(place) => place.outbox.grant(wish),
                None => self.uploads.leave(key),
            }
        }
        let idle = self.uploads.take_idle(now);
        idle.iter().filter_map(|key| self.askers.get(key)).for_each(|place| place.outbox.idle());
    }
}

impl Asker {
    /// The peer asks for a chunk or something of it, and has this much of what it wants. Returns whether the request waits; otherwise it
    /// was rejected.
    pub fn request(&self, wish: impl Into<Wish>, progress: Completion) -> Result<bool, OutboxFull> {
        let wish = wish.into();
        let requested = self.hub.update(|state| {
            state.uploads.reports(self.key, progress);
            state.uploads.request(self.key, wish)
        });
        match requested {
            Requested::Waits => Ok(true),
            Requested::TooMany => {
                let reason = RejectReason::Busy { retry_after_ms: BUSY_RETRY_MS };
                self.outbox.message(PeerMessage::Reject { chunk: wish.chunk, reason })?;
                Ok(false)
            }
        }
    }

    /// The next chunk for a peer that asks for any: each in turn, so that peers that come together receive different ones. `None` if the
    /// share has none.
    pub(crate) fn next_choice(&self) -> Option<ChunkIndex> {
        let mut state = self.hub.lock();
        let chunk = state.next_choice.checked_rem(state.chunks)?;
        state.next_choice = chunk + 1;
        Some(ChunkIndex(chunk))
    }

    /// The peer no longer wants a chunk. If it is being sent already, that is the answer. Returns whether a request waited.
    pub fn cancel(&self, chunk: ChunkIndex) -> Result<bool, OutboxFull> {
        let waited = self.hub.update(|state| state.uploads.cancel(self.key, chunk));
        if waited {
            self.outbox.message(PeerMessage::Reject { chunk, reason: RejectReason::Cancelled })?;
        }
        Ok(waited)
    }

    /// Bytes of chunks that were sent to the peer, also after this is dropped.
    pub(crate) fn bytes_sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }

    /// Number of granted chunks that were refused since this was last asked.
    pub(crate) fn take_refused(&self) -> u32 {
        self.refused.swap(0, Ordering::Relaxed)
    }

    /// Whether a request of the peer waits. If no chunk is being sent to it, it waits for its turn.
    pub(crate) fn is_waiting(&self) -> bool {
        let (is_waiting, is_served) = {
            let uploads = &self.hub.lock().uploads;
            (uploads.is_waiting(self.key), uploads.is_served(self.key))
        };
        if is_waiting && !is_served {
            self.activity.touch();
        }
        is_waiting
    }

    /// The peer asks for something.
    pub(crate) fn asks(&self) {
        self.activity.touch();
    }

    /// The socket has taken in more bytes of the granted chunk.
    pub(crate) fn taken(&self, bytes: usize) {
        self.activity.touch();
        // At most a chunk, so it fits a u32.
        self.taken.fetch_add(u32::try_from(bytes).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// The sender is done with a granted chunk: it sent `bytes`, or 0 if it rejected the request.
    pub(crate) fn served(&self, bytes: u32) {
        self.hub.bytes_sent.fetch_add(bytes.into(), Ordering::Relaxed);
        if bytes == 0 {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        self.hub.update(|state| {
            let now = Instant::now();
            state.progress(now);
            self.taken.store(0, Ordering::Relaxed);
            if let Some(place) = state.askers.get_mut(&self.key).filter(|_| bytes > 0) {
                place.sent.fetch_add(bytes.into(), Ordering::Relaxed);
                let given = state.uploads.serving(self.key).filter(|wish| wish.form != Form::Leaves);
                given.into_iter().for_each(|wish| place.given.add(wish.chunk));
            }
            state.uploads.finished(self.key, bytes, now);
        });
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.hub.update(|state| {
            state.uploads.leave(self.key);
            state.askers.remove(&self.key);
        });
    }
}
