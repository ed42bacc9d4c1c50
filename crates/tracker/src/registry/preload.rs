//! Loading ahead what a batch of requests will read.
//!
//! Most of the cost of an answer is waiting for memory, one access after the other: the table of shares leads to the share,
//! and the share to its peers. Single requests would wait one by one. Here the same step is taken for all of them before the
//! next step. The loops are so short that the processor waits for many accesses at the same time. When the requests are
//! answered, their data is in the caches.
//!
//! Nothing depends on it: it changes nothing, and data that it misses is fetched when it is needed. So it may guess.

use std::{
    hash::{Hash, Hasher},
    hint::black_box,
};

use indexmap::Equivalent;
use proto::{InfoHash, tracker::codec::Subject};

use super::{Registry, Share, head::ByInfoHash};

/// Requests to load for: those of one batch.
const AHEAD: usize = 64;

/// Finds the first share whose hash looks like that of this infohash. Sometimes that is another share. Finding out would
/// mean waiting for the share's infohash.
struct Guess<'a>(&'a InfoHash);

impl Hash for Guess<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Equivalent<ByInfoHash> for Guess<'_> {
    fn equivalent(&self, _: &ByInfoHash) -> bool {
        true
    }
}

impl Registry {
    /// Loads what answers about `subjects` are going to read.
    pub(crate) fn preload(&self, subjects: impl Iterator<Item = Subject>) {
        let mut asked = [None; AHEAD];
        for (asked, subject) in asked.iter_mut().zip(subjects) {
            *asked = Some(subject);
        }
        let mut found = [None; AHEAD];
        for (found, subject) in found.iter_mut().zip(asked.iter().flatten()) {
            let (Subject::Announce(infohash, _) | Subject::Lookup(infohash)) = subject;
            *found = self.shares.get_index_of(&Guess(infohash)).map(|share| (share, subject));
        }
        let found = found.iter().flatten();
        for &(share, _) in found.clone() {
            black_box(self.shares[share].size);
        }
        for &(share, _) in found.clone() {
            black_box(self.shares[share].roster.len());
        }
        for &(share, _) in found.clone() {
            let Some((ByInfoHash(head), Share { roster, .. })) = self.shares.get_index(share) else {
                continue;
            };
            // Half of the infohashes begin in one cache line and end in the next.
            let InfoHash([first, .., last]) = head.infohash();
            black_box((*first, *last));
            roster.touch_contacts();
        }
        for &(share, subject) in found {
            if let Subject::Announce(_, peer) = subject {
                let roster = &self.shares[share].roster;
                black_box(roster.find(*peer).map(|place| roster.members()[place].seen));
            }
        }
    }
}
