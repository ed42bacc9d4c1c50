//! Loading ahead what a batch of requests will read.
//!
//! Most of the cost of an answer is waiting for memory, one access after the other: the table of shares leads to the share,
//! and the share to its peers. Single requests would wait one by one. Here the same step is taken for all of them before the
//! next step. The loops are so short that the processor waits for many accesses at the same time. When the requests are
//! answered, their data is in the caches.
//!
//! Where the data was found is kept as a guess for each request, which saves the answer a second search. Nothing depends on it:
//! a guess is checked where it is used, and data that is missed here is searched for when it is needed.

use std::{array, hash::BuildHasher, hint::black_box};

use indexmap::map::raw_entry_v1::RawEntryApiV1;
use proto::{InfoHash, PeerId, tracker::codec::Subject};

use super::{Registry, Share, head::ByInfoHash, roster::Roster};

/// Requests to load for: those of one batch.
const AHEAD: usize = 64;

/// Where the share and the peer of a request probably are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Guess {
    share: Option<usize>,
    peer: Option<usize>,
}

/// The guesses for the next requests, in their order.
pub(super) struct Ahead {
    guesses: [Guess; AHEAD],
    next: usize,
    /// That for the request which is being answered.
    current: Guess,
}

impl Default for Ahead {
    fn default() -> Ahead {
        Ahead { guesses: [Guess::default(); AHEAD], next: AHEAD, current: Guess::default() }
    }
}

impl Registry {
    /// Loads what answers about `subjects` are going to read: one for each request of a batch, `None` if it is about no share.
    pub(crate) fn preload(&mut self, subjects: impl Iterator<Item = Option<Subject>>) {
        let mut hashes: [Option<u64>; AHEAD] = [None; AHEAD];
        let mut announcers: [Option<PeerId>; AHEAD] = [None; AHEAD];
        for ((hash, announcer), subject) in hashes.iter_mut().zip(&mut announcers).zip(subjects) {
            let infohash = match &subject {
                Some(Subject::Announce(infohash, peer)) => {
                    *announcer = Some(*peer);
                    infohash
                }
                Some(Subject::Lookup(infohash)) => infohash,
                None => continue,
            };
            *hash = Some(self.shares.hasher().hash_one(infohash));
        }
        // The first share whose hash looks like that of the infohash. Sometimes that is another share. Finding out would mean
        // waiting for the share's infohash.
        let found = hashes
            .map(|hash| hash.and_then(|hash| self.shares.raw_entry_v1().index_from_hash(hash, |_| true)));
        let entries = || found.iter().flatten().filter_map(|&share| self.shares.get_index(share));
        for (ByInfoHash(head), Share { size, roster }) in entries() {
            black_box((head.address(), *size, matches!(roster, Roster::One(_))));
        }
        for (_, Share { roster, .. }) in entries() {
            roster.touch();
        }
        for (ByInfoHash(head), Share { roster, .. }) in entries() {
            // Half of the infohashes begin in one cache line and end in the next.
            let InfoHash([first, .., last]) = head.infohash();
            black_box((*first, *last));
            roster.touch_contacts();
        }
        let guesses: [Guess; AHEAD] = array::from_fn(|at| {
            let peer =
                found[at].zip(announcers[at]).and_then(|(share, peer)| self.shares[share].roster.guess(peer));
            Guess { share: found[at], peer }
        });
        for guess in &guesses {
            if let Guess { share: Some(share), peer: Some(place) } = *guess {
                black_box(self.shares[share].roster.members()[place].ends());
            }
        }
        self.ahead = Ahead { guesses, next: 0, current: Guess::default() };
    }

    /// The next request of the batch that was loaded is going to be answered.
    pub(crate) fn advance(&mut self) {
        let Ahead { guesses, next, current } = &mut self.ahead;
        *current = guesses.get(*next).copied().unwrap_or_default();
        *next = next.saturating_add(1);
    }

    /// The position of a share.
    pub(super) fn locate(&self, infohash: &InfoHash) -> Option<usize> {
        let guess = self.ahead.current.share.filter(|&share| {
            let there = self.shares.get_index(share);
            there.is_some_and(|(ByInfoHash(head), _)| head.infohash() == infohash)
        });
        guess.or_else(|| self.shares.get_index_of(infohash))
    }

    /// The place of a peer in a share.
    pub(super) fn find(&self, share: usize, id: PeerId) -> Option<usize> {
        let roster = &self.shares[share].roster;
        let guess = self.ahead.current.peer.filter(|&place| {
            let there = roster.members().get(place);
            there.is_some_and(|member| member.id == id)
        });
        guess.or_else(|| roster.find(id))
    }
}
