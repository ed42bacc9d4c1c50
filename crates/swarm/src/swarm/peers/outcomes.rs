//! How the connections to the known addresses ended: whether waiting for them can still help.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::Peers;
use crate::{
    leaving::{LeaveReason, Outcome, PeerTrouble},
    peer_book::PeerBook,
};

/// Outcomes of addresses that the book no longer has are forgotten when there are this many times as many outcomes as addresses.
/// Finding them means going through the whole book, so it is not done at every end of a connection.
const MAX_OUTCOMES_FACTOR: usize = 2;

/// How connections ended.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// How the last connection to each address in the book ended.
    last: BTreeMap<SocketAddr, Outcome>,
    /// The last trouble with a peer.
    trouble: Option<PeerTrouble>,
}

impl Outcomes {
    /// A connection to an address in the book ended.
    pub(super) fn record(&mut self, address: SocketAddr, outcome: Outcome, book: &PeerBook) {
        self.last.insert(address, outcome);
        if self.last.len() > MAX_OUTCOMES_FACTOR * book.len() {
            let known: BTreeSet<_> = book.addresses().collect();
            self.last.retain(|address, _| known.contains(address));
        }
    }

    /// Something was wrong with a peer.
    pub(super) fn trouble(&mut self, address: SocketAddr, reason: LeaveReason) {
        self.trouble = Some(PeerTrouble { address, reason });
    }
}

impl Peers {
    /// The last trouble with a peer.
    pub(in crate::swarm) fn last_trouble(&self) -> Option<&PeerTrouble> {
        self.outcomes.trouble.as_ref()
    }

    /// Whether every known address was tried, with an outcome like this.
    fn all_had(&self, outcome: impl Fn(Outcome) -> bool) -> bool {
        let had = |address| self.outcomes.last.get(&address).is_some_and(|&last| outcome(last));
        !self.book.is_empty() && self.book.addresses().all(had)
    }

    /// Whether every known address was tried without success.
    pub(in crate::swarm) fn all_tried(&self) -> bool {
        self.all_had(|_| true)
    }

    /// Whether every known peer answered that it does not have the share.
    pub(in crate::swarm) fn all_without_share(&self) -> bool {
        self.all_had(|outcome| outcome == Outcome::WithoutShare)
    }

    /// Whether every known peer answered that it is full.
    pub(in crate::swarm) fn all_full(&self) -> bool {
        self.all_had(|outcome| outcome == Outcome::Full)
    }

    /// Whether the files of every known peer changed, and no connection exists.
    pub(in crate::swarm) fn all_changed(&self) -> bool {
        self.peers.is_empty() && self.all_had(|outcome| outcome == Outcome::Changed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A book forgets addresses for new ones, and trackers may name any number.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "only differences to it matter")]
    fn outcomes_of_forgotten_addresses_are_forgotten() {
        let (mut outcomes, mut book) = (Outcomes::default(), PeerBook::new(8));
        let address = |number: u16| SocketAddr::from(([10, 0, 0, 1], number));
        book.discover(address(1), Instant::now());
        for number in 1..1_000 {
            outcomes.record(address(number), Outcome::Other, &book);
            assert!(outcomes.last.len() <= MAX_OUTCOMES_FACTOR * book.len());
        }
        outcomes.record(address(1), Outcome::Full, &book);
        assert_eq!(outcomes.last.get(&address(1)), Some(&Outcome::Full));
    }
}
