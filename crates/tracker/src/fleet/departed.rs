//! Peers that have ended their registrations lately.
//!
//! Messages of several trackers arrive in any order. So a peer that moved from one tracker to another and then left could come back by what
//! the first of them published before, or by a page of the store that was read before. What is in this list does not come back.

use std::collections::{HashMap, VecDeque};

use foldhash::quality::RandomState;
use proto::{InfoHash, PeerId};

use super::{record::Record, time::StoreTime};

/// Maximum number of peers. The oldest are forgotten: messages overtake each other by a second or so.
const MAX_DEPARTED: usize = 16_384;

type Key = (InfoHash, PeerId);

/// Who left, and until when each of them would be registered if it had not.
#[derive(Default)]
pub(super) struct Departed {
    until: HashMap<Key, StoreTime, RandomState>,
    order: VecDeque<Key>,
}

impl Departed {
    /// A peer has left.
    pub(super) fn insert(&mut self, record: &Record) {
        let key = (record.known.infohash, record.known.peer_id);
        if let Some(until) = self.until.get_mut(&key) {
            *until = record.expires.max(*until);
            return;
        }
        if self.order.len() == MAX_DEPARTED
            && let Some(oldest) = self.order.pop_front()
        {
            self.until.remove(&oldest);
        }
        self.order.push_back(key);
        self.until.insert(key, record.expires);
    }

    /// Whether what is known of a peer is older than its end.
    pub(super) fn outdates(&self, record: &Record) -> bool {
        let key = (record.known.infohash, record.known.peer_id);
        !self.until.is_empty() && self.until.get(&key).is_some_and(|&until| record.expires <= until)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::record::tests::record, *};

    #[test]
    fn what_is_older_than_the_end_of_a_peer_is_outdated_and_what_is_newer_is_not() {
        let mut departed = Departed::default();
        departed.insert(&record(1, 2, 50));
        departed.insert(&record(1, 2, 40));
        assert!(departed.outdates(&record(1, 2, 50)));
        assert!(!departed.outdates(&record(1, 2, 51)));
        assert!(!departed.outdates(&record(1, 3, 1)) && !departed.outdates(&record(2, 2, 1)));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut departed = Departed::default();
        let peer = |number: usize| {
            let mut record = record(1, 1, 1);
            record.known.peer_id.0[..8].copy_from_slice(&number.to_le_bytes());
            record
        };
        (0..=MAX_DEPARTED).for_each(|number| departed.insert(&peer(number)));
        assert!(
            !departed.outdates(&peer(0))
                && departed.outdates(&peer(1))
                && departed.outdates(&peer(MAX_DEPARTED))
        );
        assert_eq!(departed.until.len(), MAX_DEPARTED);
    }
}
