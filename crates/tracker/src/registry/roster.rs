//! The peers of one share.
//!
//! Most shares have a single peer, which is kept in place. Positions in the list of peers are valid until the next change.

use std::{mem, slice};

use proto::{PeerId, tracker::PeerEntry};
use rand::Rng;

use super::{
    crowd::Crowd,
    peer::{Member, Peer, Requester, Site},
    tick::Tick,
};

/// The peers of one share. An empty one is a `Many` and is about to be dropped.
pub(super) enum Roster {
    One(Peer),
    Many(Box<Crowd>),
}

impl Roster {
    pub(super) fn new(peer: Peer) -> Roster {
        Roster::One(peer)
    }

    pub(super) fn len(&self) -> usize {
        self.members().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members().is_empty()
    }

    pub(super) fn members(&self) -> &[Member] {
        match self {
            Roster::One(peer) => slice::from_ref(&peer.member),
            Roster::Many(crowd) => crowd.members(),
        }
    }

    /// Names as many peers to `requester` as `places` has room for, see [`Crowd::name`].
    pub(super) fn name(
        &mut self,
        places: &mut [u32],
        requester: Requester,
        entries: &mut Vec<PeerEntry>,
        rng: &mut impl Rng,
    ) {
        match self {
            Roster::One(_) if places.is_empty() => {}
            Roster::One(peer) => entries.extend(peer.contact.entry(|| &peer.member, requester)),
            Roster::Many(crowd) => crowd.name(places, requester, entries, rng),
        }
    }

    /// Seeders and leechers.
    pub(super) fn counts(&self) -> (u32, u32) {
        let seeders = match self {
            Roster::One(peer) => u32::from(peer.contact.is_seeder()),
            Roster::Many(crowd) => crowd.seeders(),
        };
        // No roster grows beyond `Limits::peers_per_share`, which is a `u32`.
        (seeders, u32::try_from(self.len()).unwrap_or(u32::MAX) - seeders)
    }

    /// Nobody was last seen before this time.
    pub(super) fn oldest(&self) -> Tick {
        match self {
            Roster::One(peer) => peer.member.seen,
            Roster::Many(crowd) => crowd.oldest(),
        }
    }

    /// The position of a peer.
    pub(super) fn find(&self, id: PeerId) -> Option<usize> {
        match self {
            Roster::One(peer) => (peer.member.id == id).then_some(0),
            Roster::Many(crowd) => crowd.find(id),
        }
    }

    /// Whether the peer at this place is reached where `peer` is.
    pub(super) fn is_at(&self, place: usize, peer: &Peer) -> bool {
        match self {
            Roster::One(only) => peer.is_where(&only.contact, &only.member),
            Roster::Many(crowd) => crowd.is_at(place, peer),
        }
    }

    /// The place of a peer of any id that is reached where `peer` is. See [`Crowd::find_at`].
    pub(super) fn find_at(&self, peer: &Peer) -> Option<usize> {
        match self {
            Roster::One(only) => peer.is_where(&only.contact, &only.member).then_some(0),
            Roster::Many(crowd) => crowd.find_at(peer),
        }
    }

    /// Whether a peer of this site is here.
    pub(super) fn has_site(&self, site: Site) -> bool {
        match self {
            Roster::One(only) => only.site() == site,
            Roster::Many(crowd) => crowd.has_site(site),
        }
    }

    /// Reads what [`Roster::find`] and [`Roster::name`] are going to read, for
    /// [`Registry::preload`](super::Registry::preload).
    pub(super) fn touch_contacts(&self) {
        if let Roster::Many(crowd) = self {
            crowd.touch_contacts();
        }
    }

    /// Adds a peer that is not there yet.
    pub(super) fn insert(&mut self, peer: Peer) {
        match self {
            Roster::One(first) => {
                let mut crowd = Crowd::default();
                crowd.insert(*first);
                crowd.insert(peer);
                *self = Roster::Many(Box::new(crowd));
            }
            Roster::Many(crowd) => crowd.insert(peer),
        }
    }

    /// Replaces a peer, usually by its newer version, and returns the replaced one.
    pub(super) fn replace(&mut self, place: usize, peer: Peer) -> Peer {
        match self {
            Roster::One(only) => mem::replace(only, peer),
            Roster::Many(crowd) => crowd.replace(place, peer),
        }
    }

    /// Removes a peer. Others may take its place, but none from a lower place.
    pub(super) fn remove(&mut self, place: usize) -> Peer {
        match self {
            Roster::One(peer) => {
                let peer = *peer;
                *self = Roster::Many(Box::default());
                peer
            }
            Roster::Many(crowd) => crowd.remove(place),
        }
    }

    /// Removes a peer of a site that has others here, if there is one.
    pub(super) fn remove_crowded(&mut self) -> Option<Peer> {
        match self {
            Roster::One(_) => None,
            Roster::Many(crowd) => crowd.remove_crowded(),
        }
    }

    /// Panics if an invariant does not hold.
    #[cfg(test)]
    pub(super) fn check(&self) {
        if let Roster::Many(crowd) = self {
            crowd.check();
        }
    }

    /// Removes the peers last seen before `oldest_live` and hands each to `expired`.
    pub(super) fn expire(&mut self, oldest_live: Tick, mut expired: impl FnMut(Peer)) {
        let mut oldest = Tick::LAST;
        // The loop goes down, so the peer that fills a gap has been checked and is live.
        for place in (0..self.len()).rev() {
            let seen = self.members()[place].seen;
            if seen < oldest_live {
                expired(self.remove(place));
            } else {
                oldest = oldest.min(seen);
            }
        }
        if let Roster::Many(crowd) = self {
            crowd.set_oldest(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_one_peer_stays_small() {
        assert_eq!(size_of::<Roster>(), 56);
    }
}
