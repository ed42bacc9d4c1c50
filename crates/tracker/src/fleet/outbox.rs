//! What is to be written to the store: the latest change of each peer, in the order in which they came.
//!
//! Of a peer that announces faster than the store takes it, one change waits. A batch that the store did not take waits again, except for
//! what has changed since.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    mem,
    sync::Arc,
};

use foldhash::quality::RandomState;
use proto::{InfoHash, PeerId};

use super::feed::Change;

/// Maximum changes that wait: some 20 MiB. With the heartbeat of 30 s, that is all that 650,000 peers announce in three seconds. After a
/// longer outage everything is written back from the registry.
pub const MAX_WAITING: usize = 65_536;

/// Maximum changes in a batch. The store is busy with it for some milliseconds, so a read waits no longer than that.
pub const MAX_BATCH: usize = 512;

type Key = (InfoHash, PeerId);

/// Changes that wait.
#[derive(Default)]
pub struct Outbox {
    waiting: HashMap<Key, Change, RandomState>,
    /// The keys of `waiting` in order, and some that are gone.
    order: VecDeque<Key>,
    in_flight: Arc<Vec<Change>>,
    dropped: u64,
}

impl Outbox {
    /// Adds a change. It replaces an older one of the same peer. If there is no room, it is dropped and counted.
    pub fn push(&mut self, change: Change) {
        let known = &change.record().known;
        let key = (known.infohash, known.peer_id);
        let has_room = self.waiting.len() < MAX_WAITING;
        match self.waiting.entry(key) {
            Entry::Occupied(mut entry) => {
                entry.insert(change);
            }
            Entry::Vacant(entry) if has_room => {
                entry.insert(change);
                self.order.push_back(key);
            }
            Entry::Vacant(_) => self.dropped += 1,
        }
    }

    /// Takes out the next batch, which is then in flight. There must be none in flight.
    pub fn begin(&mut self) -> Arc<Vec<Change>> {
        debug_assert!(self.in_flight.is_empty(), "one batch at a time");
        let mut batch = Vec::with_capacity(MAX_BATCH.min(self.waiting.len()));
        while batch.len() < MAX_BATCH
            && let Some(key) = self.order.pop_front()
        {
            batch.extend(self.waiting.remove(&key));
        }
        self.in_flight = Arc::new(batch);
        Arc::clone(&self.in_flight)
    }

    /// Changes in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The batch in flight has arrived.
    pub fn arrived(&mut self) {
        self.in_flight = Arc::default();
    }

    /// The batch in flight may not have arrived, and waits again.
    pub fn failed(&mut self) {
        for change in Arc::unwrap_or_clone(mem::take(&mut self.in_flight)).into_iter().rev() {
            let known = &change.record().known;
            let key = (known.infohash, known.peer_id);
            if let Entry::Vacant(entry) = self.waiting.entry(key) {
                entry.insert(change);
                self.order.push_front(key);
            }
        }
    }

    /// Another tracker has published something newer about this peer, so what waits here is not written.
    pub fn withdraw(&mut self, newer: &Change) {
        let known = &newer.record().known;
        if let Entry::Occupied(entry) = self.waiting.entry((known.infohash, known.peer_id))
            && entry.get().record().expires <= newer.record().expires
            && matches!(newer, Change::Gone(_))
        {
            entry.remove();
        }
    }

    /// Changes that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Changes that found no room, since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{record::tests::record, time::StoreTime},
        *,
    };

    fn present(peer: u8, expires_ms: u64) -> Change {
        Change::Present(record(1, peer, expires_ms))
    }

    #[test]
    fn the_latest_change_of_each_peer_is_written_in_the_order_in_which_they_came() {
        let mut outbox = Outbox::default();
        for (peer, at) in [(1, 1), (2, 2), (1, 3)] {
            outbox.push(present(peer, at));
        }
        assert_eq!(*outbox.begin(), [present(1, 3), present(2, 2)]);
        outbox.arrived();
        assert_eq!(*outbox.begin(), []);
    }

    #[test]
    fn what_did_not_arrive_is_first_in_the_next_batch_unless_it_changed() {
        let mut outbox = Outbox::default();
        outbox.push(present(1, 1));
        outbox.push(present(2, 1));
        outbox.begin();
        outbox.push(present(3, 2));
        outbox.push(present(2, 2));
        outbox.failed();
        assert_eq!(*outbox.begin(), [present(1, 1), present(3, 2), present(2, 2)]);
    }

    #[test]
    fn it_is_bounded_and_counts_what_it_drops() {
        let mut outbox = Outbox::default();
        let change = |number: usize| {
            let mut record = record(1, 1, 1);
            record.known.peer_id.0[..8].copy_from_slice(&number.to_le_bytes());
            Change::Present(record)
        };
        (0..MAX_WAITING + 3).for_each(|number| outbox.push(change(number)));
        outbox.push(change(0));
        assert_eq!((outbox.len(), outbox.take_dropped(), outbox.take_dropped()), (MAX_WAITING, 3, 0));
        assert_eq!(outbox.begin().len(), MAX_BATCH);
        assert_eq!(outbox.len(), MAX_WAITING - MAX_BATCH);
    }

    #[test]
    fn a_peer_that_left_elsewhere_is_not_written_back() {
        let mut outbox = Outbox::default();
        outbox.push(present(1, 90));
        outbox.push(present(2, 90));
        let mut left = record(1, 1, 100);
        outbox.withdraw(&Change::Gone(left.clone()));
        left.known.peer_id = record(1, 2, 0).known.peer_id;
        left.expires = StoreTime(80);
        outbox.withdraw(&Change::Gone(left));
        assert_eq!(*outbox.begin(), [present(2, 90)]);
    }
}
