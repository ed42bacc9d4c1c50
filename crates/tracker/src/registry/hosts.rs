//! What people ask about the hosts of a share: which are late, and which have fetched all of it.
//!
//! A lookup of peers names a few at random, for machines that fetch. These answers have an order and names, for people who wait.

use std::{collections::BinaryHeap, net::IpAddr, time::Instant};

use proto::{
    InfoHash,
    tracker::{
        ErrorCode, PeerEntry,
        message::{FinishedHost, FinishedHosts, LateHost, LateHosts, Lateness, MAX_HOSTS},
    },
};
use rand::{Rng, RngExt};

use super::{Registry, Share, peer::Requester};

/// Peers of a share that one answer looks at, under the lock that all answers need: some 50 µs.
const MAX_LOOKED: usize = 4_096;

impl Registry {
    /// The hosts after `after` that do not have all of a share, those with least first. Of a share with more than [`MAX_LOOKED`] peers it
    /// looks at that many, from a random one on.
    pub fn late(
        &mut self,
        infohash: &InfoHash,
        after: Option<&PeerEntry>,
        requester: IpAddr,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Result<LateHosts, ErrorCode> {
        let settles_in_s = self.clock.settles_in_s(now);
        let share = self.live_share(infohash, now).ok_or(ErrorCode::UnknownShare { settles_in_s })?;
        let Share { roster, .. } = &self.shares[share];
        let (all, requester) = (roster.len(), Requester::from(requester));
        let first = if all > MAX_LOOKED { rng.random_range(0..all) } else { 0 };
        let mut late: BinaryHeap<(Lateness, usize)> = BinaryHeap::with_capacity(MAX_HOSTS + 2);
        for place in (first..all).chain(0..first).take(MAX_LOOKED) {
            let peer = roster.peer(place);
            // Contacts lie close together, and most peers are left out by these alone.
            let Some(entry) = peer.contact.entry(&peer.member, requester) else { continue };
            let lateness = entry.lateness();
            // One more than there is room for, to know that there are more.
            let is_full = late.len() > MAX_HOSTS;
            if entry.progress.is_complete()
                || is_full && late.peek().is_some_and(|(most, _)| lateness > *most)
                || after.is_some_and(|after| lateness <= after.lateness())
            {
                continue;
            }
            if is_full {
                late.pop();
            }
            late.push((lateness, place));
        }
        let more = late.len() > MAX_HOSTS;
        let host = |(_, place)| {
            let peer = roster.peer(place);
            let entry = peer.contact.entry(&peer.member, requester)?;
            Some(LateHost { peer: entry, label: self.labels.of(peer.member.id) })
        };
        let hosts = late.into_sorted_vec().into_iter().filter_map(host).take(MAX_HOSTS).collect();
        Ok(LateHosts { more, hosts })
    }

    /// The hosts that have fetched all of a share, without the first `after`.
    pub fn finished(
        &mut self,
        infohash: &InfoHash,
        after: u32,
        requester: IpAddr,
        now: Instant,
    ) -> Result<FinishedHosts, ErrorCode> {
        let settles_in_s = self.clock.settles_in_s(now);
        self.live_share(infohash, now).ok_or(ErrorCode::UnknownShare { settles_in_s })?;
        let (requester, after) = (Requester::from(requester), usize::try_from(after).unwrap_or(usize::MAX));
        let hosts = self.finishers.page(infohash, after, MAX_HOSTS).iter();
        let hosts = hosts.map(|&(ip, label)| FinishedHost { address: requester.address_of(ip), label });
        Ok(FinishedHosts { total: self.finishers.count(infohash), hosts: hosts.collect() })
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        Label, PeerId, Secret, ShareName, Zone,
        tracker::{Announce, Event, PeerAddress, Token},
    };
    use rand::{SeedableRng, rngs::StdRng};

    use super::{super::Rules, *};

    const SHARE: InfoHash = InfoHash([1; 32]);

    fn announce(peer: u16, percent: u8) -> Announce {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&peer.to_le_bytes());
        Announce {
            token: Token([0; 16]),
            infohash: SHARE,
            peer_id: PeerId(id),
            secret: Secret([1; 16]),
            port: (1_000 + peer).try_into().unwrap(),
            name: ShareName::new("a").unwrap(),
            size: 5_000,
            event: Event::Heartbeat,
            progress: percent.try_into().unwrap(),
            label: Label::cut(&format!("host {peer}")).unwrap(),
            fetched: true,
            zone: Zone::NONE,
        }
    }

    fn ip(peer: u16) -> IpAddr {
        let [high, low] = peer.to_be_bytes();
        [10, 0, high, low].into()
    }

    #[test]
    fn all_that_are_late_come_page_by_page_those_with_least_first() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut registry = Registry::new(Rules::default(), now);
        for peer in 0..100 {
            // Some have as much as others, and every fifth has all.
            let percent = if peer % 5 == 0 { 100 } else { u8::try_from(peer * 7 % 50).unwrap() };
            registry.announce(&announce(peer, percent), ip(peer), now).unwrap();
        }
        let mut seen: Vec<LateHost> = Vec::new();
        loop {
            let after = seen.last().map(|host| host.peer);
            let LateHosts { more, hosts } =
                registry.late(&SHARE, after.as_ref(), ip(1), now, &mut rng).unwrap();
            assert!(hosts.len() == MAX_HOSTS || !more, "a page is full if there are more");
            seen.extend(hosts);
            if !more {
                break;
            }
        }
        assert_eq!(seen.len(), 80);
        assert!(seen.is_sorted_by(|a, b| a.peer.lateness() < b.peer.lateness()));
        for LateHost { peer, label } in seen {
            assert_eq!(label.as_str(), format!("host {}", peer.port.get() - 1_000));
        }
    }

    #[test]
    fn those_that_are_silent_are_not_late_but_gone() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let rules = Rules::default();
        let later = now + rules.expire;
        let mut registry = Registry::new(rules, now);
        registry.announce(&announce(1, 10), ip(1), now).unwrap();
        registry.announce(&announce(2, 20), ip(2), later).unwrap();
        let after = later + std::time::Duration::from_secs(1);
        let LateHosts { hosts, .. } = registry.late(&SHARE, None, ip(1), after, &mut rng).unwrap();
        assert_eq!(hosts.iter().map(|host| host.label.as_str()).collect::<Vec<_>>(), ["host 2"]);
    }

    #[test]
    fn an_answer_looks_at_a_bounded_number_of_peers() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut registry = Registry::new(Rules::default(), now);
        for peer in 0..10_000 {
            registry.announce(&announce(peer, u8::try_from(peer % 100).unwrap()), ip(peer), now).unwrap();
        }
        let mut first = || registry.late(&SHARE, None, ip(1), now, &mut rng).unwrap().hosts;
        // Of each 4,096 at least 40 have nothing yet, and there are a hundred of those.
        let answers: Vec<_> = (0..8).map(|_| first()).collect();
        assert!(answers.iter().flatten().all(|host| host.peer.progress.percent() == 0));
        assert!(answers.iter().any(|answer| *answer != answers[0]), "all look at the same peers");
    }

    #[test]
    fn those_that_have_it_come_in_order_and_a_loopback_address_is_the_trackers_host() {
        let now = Instant::now();
        let mut registry = Registry::new(Rules::default(), now);
        registry.announce(&announce(0, 50), ip(0), now).unwrap();
        for peer in [3, 1, 2] {
            registry.announce(&announce(peer, 100), [127, 0, 0, 1].into(), now).unwrap();
        }
        let mut finished = |after, requester: IpAddr| {
            let FinishedHosts { total, hosts } = registry.finished(&SHARE, after, requester, now).unwrap();
            let labels: Vec<_> = hosts.iter().map(|host| host.label.as_str().to_owned()).collect();
            (total, labels, hosts.first().map(|host| host.address))
        };
        let labels = |peers: &[u8]| peers.iter().map(|peer| format!("host {peer}")).collect::<Vec<_>>();
        assert_eq!(finished(0, ip(1)), (3, labels(&[3, 1, 2]), Some(PeerAddress::TrackerHost)));
        let own = [127, 0, 0, 1];
        assert_eq!(finished(2, own.into()), (3, labels(&[2]), Some(PeerAddress::V4(own))));
        assert_eq!(finished(3, own.into()), (3, labels(&[]), None));
        let unknown = registry.finished(&InfoHash([2; 32]), 0, ip(1), now);
        assert!(matches!(unknown, Err(ErrorCode::UnknownShare { .. })));
    }
}
