//! What is known of the peers of a share that is waited for, from samples of them.
//!
//! A tracker names 50 peers in an answer, and others each time. So what earlier answers said is kept, as long as it may still be true.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use proto::tracker::message::Completion;
use tokio::time::Instant;

/// A peer that no answer has named for this long is gone. Of a thousand peers, one that is there is missed by a hundred and twenty
/// answers only once in five hundred times. With a look every second, this bounds what is kept to 6,000 peers of each tracker.
const KEPT: Duration = Duration::from_secs(120);

/// Answers of all trackers to one look.
#[derive(Debug, Default)]
pub(super) struct Sample {
    /// Peers, and how much they have.
    pub(super) peers: BTreeMap<SocketAddr, Completion>,
    /// Peers that the trackers know, with those that they did not name.
    pub(super) all: usize,
}

/// The peers that answers named.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<SocketAddr, Peer>);

#[derive(Debug)]
struct Peer {
    progress: Completion,
    /// When it was first seen to have that much.
    since: Instant,
    /// The last look that named it.
    named: Instant,
}

/// A peer that does not have all of the share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LatePeer {
    pub(super) progress: Completion,
    pub(super) address: SocketAddr,
}

impl Known {
    /// Adds what a look has found. No more peers are kept than there are: those that were named longest ago go.
    pub(super) fn note(&mut self, sample: &Sample, now: Instant) {
        for (&address, &progress) in &sample.peers {
            let peer = self.0.entry(address).or_insert(Peer { progress, since: now, named: now });
            if peer.progress != progress {
                (peer.progress, peer.since) = (progress, now);
            }
            peer.named = now;
        }
        self.0.retain(|_, peer| now.duration_since(peer.named) < KEPT);
        let surplus = self.0.len().saturating_sub(sample.all.max(sample.peers.len()));
        if surplus > 0 {
            let mut by_age: Vec<_> = self.0.iter().map(|(&address, peer)| (peer.named, address)).collect();
            by_age.sort_unstable();
            for (_, address) in by_age.into_iter().take(surplus) {
                self.0.remove(&address);
            }
        }
    }

    /// Peers that do not have all of it, those with least first.
    pub(super) fn late(&self) -> Vec<LatePeer> {
        let late = self.0.iter().filter(|(_, peer)| !peer.progress.is_complete());
        let mut late: Vec<_> =
            late.map(|(&address, peer)| LatePeer { progress: peer.progress, address }).collect();
        late.sort_unstable();
        late
    }

    /// Peers that have all of it, by address.
    pub(super) fn done(&self) -> Vec<SocketAddr> {
        self.0.iter().filter(|(_, peer)| peer.progress.is_complete()).map(|(&address, _)| address).collect()
    }

    /// For how long a peer has had what it has.
    pub(super) fn unchanged(&self, address: &SocketAddr, now: Instant) -> Duration {
        self.0.get(address).map_or(Duration::ZERO, |peer| now.duration_since(peer.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> SocketAddr {
        ([10, 0, 0, number], 7000).into()
    }

    fn sample(all: usize, peers: &[(u8, u32)]) -> Sample {
        let peers = peers.iter().map(|&(number, percent)| (peer(number), Completion::of(percent, 100)));
        Sample { peers: peers.collect(), all }
    }

    /// Percentages and peers that are late.
    fn late(known: &Known) -> Vec<(u8, SocketAddr)> {
        known.late().into_iter().map(|late| (late.progress.percent(), late.address)).collect()
    }

    #[test]
    fn a_peer_is_slow_since_it_was_seen_to_have_more() {
        let (mut known, start) = (Known::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        known.note(&sample(2, &[(1, 40), (2, 40)]), start);
        known.note(&sample(2, &[(1, 40), (2, 50)]), at(60));
        assert_eq!([1, 2].map(|number| known.unchanged(&peer(number), at(90)).as_secs()), [90, 30]);
    }

    #[test]
    fn peers_that_one_answer_does_not_name_are_still_known() {
        let (mut known, start) = (Known::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        known.note(&sample(4, &[(1, 40), (2, 100)]), start);
        known.note(&sample(4, &[(3, 20), (4, 30)]), at(1));
        assert_eq!(late(&known), [(20, peer(3)), (30, peer(4)), (40, peer(1))]);
        assert_eq!(known.done(), [peer(2)]);
        known.note(&sample(4, &[(1, 40), (3, 100)]), at(2));
        assert_eq!(late(&known), [(30, peer(4)), (40, peer(1))]);
        assert_eq!(known.done(), [peer(2), peer(3)]);
        assert_eq!(known.unchanged(&peer(1), at(2)).as_secs(), 2);
    }

    #[test]
    fn peers_that_are_gone_are_forgotten() {
        let (mut known, start) = (Known::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        known.note(&sample(3, &[(1, 40), (2, 50), (3, 60)]), start);
        known.note(&sample(2, &[(1, 40), (3, 60)]), at(1));
        assert_eq!(late(&known), [(40, peer(1)), (60, peer(3))], "there are no more than two");
        known.note(&sample(9, &[(3, 60)]), at(121));
        assert_eq!(late(&known), [(60, peer(3))], "nobody has named it for long");
    }
}
