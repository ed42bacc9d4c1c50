//! Loading ahead what a batch of requests will read.
//!
//! Most of the cost of an answer would be waiting for memory, one access after the other: the table of shares leads to the share,
//! and the share to its peers. So each of these steps is taken for a request while earlier ones are answered. A step requests
//! the memory that the next one reads, and nothing waits for it.
//!
//! Where the data was found is kept as a guess for each request, which saves the answer a second search. Nothing depends on it:
//! a guess is checked where it is used, and data that is missed here is searched for when it is needed.

use std::slice;

use prefetch_index::prefetch_index;
use proto::{InfoHash, PeerId, tracker::codec::Subject};

use super::{Registry, Share, slots::Tag};

/// Requests to load for: those of one batch.
const AHEAD: usize = 64;

/// Requests that are answered between two steps for one request: longer than a memory access takes.
const APART: usize = 2;

/// The first of the five steps for a request is this many requests before its answer.
const LEAD: usize = 5 * APART;

/// A request that is going to be answered.
#[derive(Debug, Clone, Copy, Default)]
struct Coming {
    /// That of its infohash.
    tag: Tag,
    announcer: Option<PeerId>,
    guess: Guess,
}

/// Where the share and the peer of a request probably are.
#[derive(Debug, Clone, Copy, Default)]
struct Guess {
    share: Option<usize>,
    peer: Option<usize>,
}

/// The next requests, in their order. A request that is about no single share is `None`.
pub(super) struct Ahead {
    requests: [Option<Coming>; AHEAD],
    next: usize,
    /// That for the request which is being answered.
    current: Guess,
}

impl Default for Ahead {
    fn default() -> Ahead {
        Ahead { requests: [None; AHEAD], next: AHEAD, current: Guess::default() }
    }
}

/// Requests the cache lines in which this value begins and ends.
pub(super) fn fetch<T>(value: &T) {
    prefetch_index(slice::from_ref(value), 0);
    prefetch_index(slice::from_ref(value), 1);
}

impl Registry {
    /// Prepares to load what answers about `subjects` are going to read: one for each request of a batch, `None` if it is about no
    /// share.
    pub(crate) fn preload(&mut self, mut subjects: impl Iterator<Item = Option<Subject>>) {
        for request in &mut self.ahead.requests {
            *request = subjects.next().flatten().map(|subject| {
                let (infohash, announcer) = match subject {
                    Subject::Announce(infohash, peer) => (infohash, Some(peer)),
                    Subject::Lookup(infohash) => (infohash, None),
                };
                Coming { tag: self.shares.tag(&infohash), announcer, guess: Guess::default() }
            });
        }
        (0..LEAD).for_each(|first| self.take_steps(first));
        self.ahead.next = 0;
    }

    /// The next request of the batch that was loaded is going to be answered.
    pub(crate) fn advance(&mut self) {
        let next = self.ahead.next;
        if next < AHEAD {
            self.take_steps(next + LEAD);
            self.ahead.current = self.ahead.requests[next].map_or(Guess::default(), |request| request.guess);
            self.ahead.next = next + 1;
        } else {
            self.ahead.current = Guess::default();
        }
    }

    /// The first step for request `first`, and a later one for each of those that are [`APART`] before it.
    fn take_steps(&mut self, first: usize) {
        let Registry { ahead: Ahead { requests, .. }, shares, .. } = self;
        let share_of = |request: &Option<Coming>| shares.at(request.as_ref()?.guess.share?);
        if let Some(Some(request)) = requests.get(first) {
            shares.fetch(request.tag);
        }
        let before = |steps: usize| first.checked_sub(steps * APART).filter(|&at| at < AHEAD);
        if let Some(Some(request)) = before(1).and_then(|at| requests.get_mut(at)) {
            request.guess.share = shares.guess(request.tag);
            if let Some((head, share)) = share_of(&Some(*request)) {
                fetch(head);
                fetch(share);
            }
        }
        if let Some((head, Share { roster, .. })) = before(2).and_then(|at| share_of(&requests[at])) {
            fetch(head.infohash());
            roster.fetch();
        }
        if let Some((_, Share { roster, .. })) = before(3).and_then(|at| share_of(&requests[at])) {
            roster.fetch_contacts();
        }
        if let Some(Some(Coming { announcer: Some(peer), guess, .. })) =
            before(4).and_then(|at| requests.get_mut(at))
            && let Some((_, Share { roster, .. })) = guess.share.and_then(|share| shares.at(share))
        {
            guess.peer = roster.guess(*peer);
            if let Some(member) = guess.peer.and_then(|place| roster.members().get(place)) {
                fetch(member);
            }
        }
    }

    /// The position of a share.
    pub(super) fn locate(&self, infohash: &InfoHash) -> Option<usize> {
        let guess = self.ahead.current.share.filter(|&share| {
            let there = self.shares.at(share);
            there.is_some_and(|(head, _)| head.infohash() == infohash)
        });
        guess.or_else(|| self.shares.find(infohash))
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
