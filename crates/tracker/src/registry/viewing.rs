//! What an operator sees of the registry. Nothing here changes it, so peers that expired and are not dropped yet are left out here or
//! counted as in [`Stats`](super::Stats).
//!
//! The caller holds the lock that answers need, so each call looks at a bounded number of things.

use std::{
    net::IpAddr,
    num::NonZeroU16,
    ops::Bound,
    time::{Duration, Instant},
};

use proto::{
    InfoHash, Label, ShareName,
    tracker::{Completion, ShareCursor, ShareEntry, Standing},
};

use super::{Registry, Share, directory::Listed};

/// A peer as an operator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// Where it is.
    pub ip: IpAddr,
    /// The TCP port that it listens on.
    pub port: NonZeroU16,
    /// What people call its host.
    pub label: Label,
    /// How much of the share it has.
    pub progress: Completion,
    /// Time of its last announce, since the registry began, in steps of the registry's clock.
    pub heard: Duration,
    /// Time since its last announce.
    pub age: Duration,
}

/// A share as an operator sees it, without its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The name of its first peer, or of another one.
    pub name: ShareName,
    /// Bytes in it.
    pub size: u64,
    /// Peers that have all of it.
    pub seeders: u32,
    /// Peers that have part of it.
    pub leechers: u32,
    /// Hosts that have fetched all of it since it was registered here.
    pub completed: u32,
}

impl Registry {
    /// At most `most` entries of the list of shares, from `after` on, with names that begin with `prefix`, and whether there may be more.
    pub fn look_through(
        &self,
        prefix: &str,
        after: Option<&ShareCursor>,
        most: usize,
    ) -> (Vec<ShareEntry>, bool) {
        let mut from = match after {
            Some(cursor) => Bound::Excluded(Listed::at(cursor.name.as_str(), cursor.standing)),
            None => Bound::Included(Listed::before(prefix)),
        };
        let mut entries = Vec::new();
        for _ in 0..most {
            let next = self.directory.next(from);
            let Some(listed) = next.filter(|listed| listed.head.name_bytes().starts_with(prefix.as_bytes()))
            else {
                return (entries, false);
            };
            if let Some(share) = self.shares.find(listed.head.infohash()) {
                entries.extend(self.entry(share, listed));
            }
            from = Bound::Excluded(listed.clone());
        }
        (entries, true)
    }

    /// What is known of a share.
    pub fn summary(&self, infohash: &InfoHash) -> Option<Summary> {
        let (head, Share { size, roster }) =
            self.shares.find(infohash).and_then(|share| self.shares.at(share))?;
        let name = (0..roster.len()).find_map(|place| roster.name_at(head, place)).or_else(|| head.name())?;
        let (seeders, leechers) = roster.counts();
        let completed = self.finishers.count(infohash);
        Some(Summary { name, size: *size, seeders, leechers, completed })
    }

    /// The live peers of a share in the places from `from` on, of which it looks at `most`; and whether there are more. Peers may change
    /// their places between two calls.
    pub fn hosts(&self, infohash: &InfoHash, from: usize, most: usize, now: Instant) -> (Vec<Host>, bool) {
        let Some(Share { roster, .. }) = self.shares.get(infohash) else { return (Vec::new(), false) };
        let (tick, end) = (self.clock.tick(now), roster.len().min(from.saturating_add(most)));
        let oldest_live = tick.before(self.rules.expire);
        let host = |place: usize| {
            let peer = roster.peer(place);
            let heard = peer.member.seen.since_beginning();
            (peer.member.seen >= oldest_live).then(|| Host {
                ip: peer.address(),
                port: peer.port(),
                label: self.labels.of(peer.member.id),
                progress: peer.contact.completion(),
                heard,
                age: tick.since_beginning().saturating_sub(heard),
            })
        };
        ((from..end).filter_map(host).collect(), end < roster.len())
    }
}

/// The place of an entry in the list of shares.
pub fn place(entry: &ShareEntry) -> ShareCursor {
    let standing = Standing { votes: entry.votes, seeders: entry.seeders, infohash: entry.infohash };
    ShareCursor { name: entry.name.clone(), standing }
}

#[cfg(test)]
mod tests {
    use proto::{
        PeerId, Secret, Zone,
        tracker::{Announce, Event, Token},
    };

    use super::{super::Rules, *};

    fn announce(share: u8, name: &str, peer: u8, percent: u8) -> Announce {
        Announce {
            token: Token([0; 16]),
            infohash: InfoHash([share; 32]),
            peer_id: PeerId([peer; 16]),
            secret: Secret([1; 16]),
            port: NonZeroU16::new(1000 + u16::from(peer)).unwrap(),
            name: ShareName::new(name).unwrap(),
            size: 5_000,
            event: Event::Started,
            progress: percent.try_into().unwrap(),
            label: Label::cut(&format!("host {peer}")).unwrap(),
            fetched: false,
            zone: Zone::NONE,
        }
    }

    #[test]
    fn shares_are_looked_through_by_name_in_steps() {
        let now = Instant::now();
        let mut registry = Registry::new(Rules::default(), now);
        for (share, name) in [(1, "b1"), (2, "a"), (3, "b2"), (4, "c"), (5, "b1")] {
            registry.announce(&announce(share, name, share, 100), [10, 0, 0, share].into(), now).unwrap();
        }
        let names = |prefix| -> Vec<_> {
            let (mut names, mut after) = (Vec::new(), None);
            loop {
                let (entries, more) = registry.look_through(prefix, after.as_ref(), 2);
                names.extend(entries.iter().map(|entry| format!("{} {}", entry.name, entry.infohash.0[0])));
                after = entries.last().map(place);
                if !more {
                    return names;
                }
            }
        };
        assert_eq!(names(""), ["a 2", "b1 1", "b1 5", "b2 3", "c 4"]);
        assert_eq!(names("b"), ["b1 1", "b1 5", "b2 3"]);
        assert_eq!(names("b1"), ["b1 1", "b1 5"]);
        assert_eq!(names("d"), [""; 0]);
    }

    #[test]
    fn the_peers_of_a_share_are_seen_until_they_expire() {
        let now = Instant::now();
        let mut registry = Registry::new(Rules::default(), now);
        let after = |seconds| now + Duration::from_secs(seconds);
        for (peer, percent, seconds) in [(1, 100, 0), (2, 40, 60), (3, 99, 80)] {
            registry
                .announce(&announce(1, "a", peer, percent), [10, 0, 0, peer].into(), after(seconds))
                .unwrap();
        }
        let infohash = InfoHash([1; 32]);
        let seen = |seconds, from, most| {
            let (hosts, more) = registry.hosts(&infohash, from, most, after(seconds));
            let mut hosts: Vec<_> = hosts
                .iter()
                .map(|host| (host.port.get(), host.progress.percent(), host.age.as_secs()))
                .collect();
            hosts.sort();
            (hosts, more)
        };
        assert_eq!(seen(80, 0, 9), (vec![(1001, 100, 80), (1002, 40, 20), (1003, 99, 0)], false));
        assert_eq!(seen(100, 0, 9), (vec![(1002, 40, 40), (1003, 99, 20)], false));
        let (first, second) = (seen(80, 0, 2), seen(80, 2, 2));
        assert_eq!((first.0.len(), first.1, second.0.len(), second.1), (2, true, 1, false));
        let summary = registry.summary(&infohash).unwrap();
        assert_eq!(
            (summary.name.as_str(), summary.size, summary.seeders, summary.leechers),
            ("a", 5_000, 1, 2)
        );
        let labels: Vec<_> = registry
            .hosts(&infohash, 0, 9, now)
            .0
            .iter()
            .map(|host| host.label.as_str().to_owned())
            .collect();
        assert_eq!(labels.len(), 3);
        assert!(labels.contains(&"host 2".to_owned()), "{labels:?}");
        assert_eq!(registry.summary(&InfoHash([2; 32])), None);
    }
}
