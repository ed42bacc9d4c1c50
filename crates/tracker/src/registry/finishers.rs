//! What is remembered of hosts for people: what they are called, and which of them have fetched all of a share.
//!
//! Most registrations need neither, so it is kept apart from them, and an announce that changes nothing looks at none of it. It has its
//! own limits. What finds no room is missing here and nowhere else: no answer about peers depends on it.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use foldhash::quality::RandomState;
use indexmap::IndexSet;
use proto::{InfoHash, Label, PeerId};

/// Maximum labels: some 4 MiB.
const MAX_LABELS: usize = 65_536;

/// Maximum hosts that are counted for one share.
const MAX_HOSTS_PER_SHARE: usize = 10_000;

/// Maximum hosts that are counted in all: some 10 MiB.
const MAX_HOSTS: usize = 100_000;

/// Some hosts that have fetched all of a share.
pub(super) type Page = indexmap::set::Slice<(IpAddr, Label)>;

/// The labels of peers.
#[derive(Default)]
pub(super) struct Labels(HashMap<PeerId, Label, RandomState>);

/// The hosts that have fetched all of a share, of each share that any has, in the order in which they came to have it. They are distinct
/// by address and label.
#[derive(Default)]
pub(super) struct Finishers {
    shares: BTreeMap<InfoHash, IndexSet<(IpAddr, Label), RandomState>>,
    hosts: usize,
}

impl Labels {
    pub(super) fn set(&mut self, peer: PeerId, label: Label) {
        if !label.is_empty() && (self.0.len() < MAX_LABELS || self.0.contains_key(&peer)) {
            self.0.insert(peer, label);
        }
    }

    pub(super) fn of(&self, peer: PeerId) -> Label {
        self.0.get(&peer).copied().unwrap_or_default()
    }

    /// Forgets the label of a peer, and returns it.
    pub(super) fn take(&mut self, peer: PeerId) -> Label {
        if self.0.is_empty() { Label::NONE } else { self.0.remove(&peer).unwrap_or_default() }
    }
}

impl Finishers {
    /// A host has fetched all of a share. Returns whether that is new.
    pub(super) fn add(&mut self, infohash: &InfoHash, ip: IpAddr, label: Label) -> bool {
        let is_full = self.hosts >= MAX_HOSTS;
        let hosts = match self.shares.get_mut(infohash) {
            Some(hosts) => hosts,
            None if is_full => return false,
            None => self.shares.entry(*infohash).or_default(),
        };
        let is_new = !is_full && hosts.len() < MAX_HOSTS_PER_SHARE && hosts.insert((ip, label));
        self.hosts += usize::from(is_new);
        is_new
    }

    /// Whether this host has.
    pub(super) fn has(&self, infohash: &InfoHash, ip: IpAddr, label: Label) -> bool {
        self.shares.get(infohash).is_some_and(|hosts| hosts.contains(&(ip, label)))
    }

    /// How many have.
    pub(super) fn count(&self, infohash: &InfoHash) -> u32 {
        // Most trackers have none of most shares.
        let hosts = if self.shares.is_empty() { None } else { self.shares.get(infohash) };
        hosts.map_or(0, |hosts| u32::try_from(hosts.len()).unwrap_or(u32::MAX))
    }

    /// Those of a share without the first `after`, at most `most`.
    pub(super) fn page(&self, infohash: &InfoHash, after: usize, most: usize) -> &Page {
        let hosts = self.shares.get(infohash).map_or(Page::new(), |hosts| hosts.as_slice());
        let from = after.min(hosts.len());
        hosts.get_range(from..hosts.len().min(from.saturating_add(most))).unwrap_or_default()
    }

    /// The share is gone.
    pub(super) fn forget(&mut self, infohash: &InfoHash) {
        if let Some(hosts) = self.shares.remove(infohash) {
            self.hosts -= hosts.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> Label {
        Label::cut(text).unwrap()
    }

    #[test]
    fn a_host_counts_once() {
        let (mut finishers, share) = (Finishers::default(), InfoHash([1; 32]));
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        assert!(finishers.add(&share, one, label("a")));
        assert!(!finishers.add(&share, one, label("a")), "it started again");
        assert!(finishers.add(&share, one, label("b")), "another host behind the same address");
        assert!(finishers.add(&share, other, label("a")), "another host of the same name");
        assert_eq!((finishers.count(&share), finishers.count(&InfoHash([2; 32]))), (3, 0));
        let page = |after| {
            finishers.page(&share, after, 2).iter().map(|(_, label)| label.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(
            [page(0), page(1), page(2), page(3), page(9)],
            [vec!["a", "b"], vec!["b", "a"], vec!["a"], vec![], vec![]]
        );
        finishers.forget(&share);
        assert_eq!((finishers.count(&share), finishers.hosts), (0, 0));
    }

    #[test]
    fn everything_is_bounded() {
        let mut finishers = Finishers::default();
        for share in 0..12 {
            for host in 0..10_001_u32 {
                finishers.add(&InfoHash([share; 32]), host.to_be_bytes().into(), Label::NONE);
            }
        }
        assert_eq!(finishers.count(&InfoHash([0; 32])), 10_000);
        assert_eq!((finishers.hosts, finishers.shares.len()), (MAX_HOSTS, 10));
        let mut labels = Labels::default();
        let peer = |number: usize| PeerId(u128::try_from(number).unwrap().to_le_bytes());
        (0..MAX_LABELS + 3).for_each(|number| labels.set(peer(number), label("x")));
        labels.set(peer(0), label("y"));
        assert_eq!(
            (labels.0.len(), labels.of(peer(0)), labels.of(peer(MAX_LABELS))),
            (MAX_LABELS, label("y"), Label::NONE)
        );
        assert_eq!((labels.take(peer(0)), labels.of(peer(0))), (label("y"), Label::NONE));
    }
}
