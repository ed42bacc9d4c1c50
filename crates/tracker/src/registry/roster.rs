//! The peers of one share.
//!
//! Most shares have a single peer, which is kept in place. Positions in the list of peers are valid until the next change.
//!
//! The only peer of a share has the name that the [`Head`] of the share has. So wherever names or votes are concerned, the caller
//! hands that in.

use std::{mem, slice};

use proto::{PeerId, ShareName, Zone, tracker::PeerEntry};
use rand::Rng;

use super::{
    crowd::{Crowd, Title},
    directory::{Entries, Listed},
    head::Head,
    peer::{Member, Peer, Requester, Site, Vote},
    tick::Tick,
    votes::Votes,
};

/// The peers of one share. An empty one is a `Many` and is about to be dropped.
pub(super) enum Roster {
    One(Peer),
    Many(Box<Crowd>),
}

impl Roster {
    pub(super) fn new(mut peer: Peer, head: &Head, votes: &mut Votes) -> Roster {
        cast(&mut peer, head, votes);
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
        (requester, zone): (Requester, &Zone),
        entries: &mut Vec<PeerEntry>,
        rng: &mut impl Rng,
    ) {
        match self {
            Roster::One(_) if places.is_empty() => {}
            Roster::One(peer) => peer.contact.append(|| &peer.member, requester, entries),
            Roster::Many(crowd) => crowd.name(places, (requester, zone), entries, rng),
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

    /// Where a peer probably is. It reads no [`Member`].
    pub(super) fn guess(&self, id: PeerId) -> Option<usize> {
        match self {
            Roster::One(_) => Some(0),
            Roster::Many(crowd) => crowd.guess(id),
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

    /// Requests what leads to the peers, for [`Registry::preload`](super::Registry::preload).
    pub(super) fn fetch(&self) {
        if let Roster::Many(crowd) = self {
            crowd.fetch();
        }
    }

    /// Requests what [`Roster::find`] and [`Roster::name`] are going to read, for
    /// [`Registry::preload`](super::Registry::preload).
    pub(super) fn fetch_contacts(&self) {
        if let Roster::Many(crowd) = self {
            crowd.fetch_contacts();
        }
    }

    /// Adds a peer that is not there yet.
    pub(super) fn insert(&mut self, head: &Head, peer: Peer, title: Title<'_>, votes: &mut Votes) {
        match self {
            Roster::One(first) => {
                let mut crowd = Crowd::default();
                withdraw(first, head, votes);
                let name = str::from_utf8(head.name_bytes()).unwrap_or(title.name);
                // The zone of the first is known with its next announce, and matters only when there are many.
                crowd.insert(*first, Title { name, zone: &Zone::NONE, ..title }, votes);
                crowd.insert(peer, title, votes);
                *self = Roster::Many(Box::new(crowd));
            }
            Roster::Many(crowd) => crowd.insert(peer, title, votes),
        }
    }

    /// Replaces a peer, usually by its newer version, and returns the replaced one. It keeps its name.
    pub(super) fn replace(
        &mut self,
        head: &Head,
        place: usize,
        mut peer: Peer,
        title: Title<'_>,
        votes: &mut Votes,
    ) -> Peer {
        match self {
            Roster::One(only) => {
                withdraw(only, head, votes);
                cast(&mut peer, head, votes);
                mem::replace(only, peer)
            }
            Roster::Many(crowd) => crowd.replace(place, peer, title, votes),
        }
    }

    /// Replaces a peer by its newer version, if nothing changes that the list of shares or a count depends on. Returns whether it did.
    pub(super) fn refresh(&mut self, place: usize, peer: &Peer) -> bool {
        match self {
            Roster::One(only) => {
                let vote = if only.contact.has_vote() { Vote::Held } else { Vote::None };
                let same = only.site() == peer.site() && only.contact.is_seeder() == peer.contact.is_seeder();
                if same {
                    *only = Peer { contact: peer.contact.with_vote(vote), ..*peer };
                }
                same
            }
            Roster::Many(crowd) => crowd.refresh(place, peer),
        }
    }

    /// The peer at this place is in this zone.
    pub(super) fn locate(&mut self, place: usize, zone: &Zone) {
        if let Roster::Many(crowd) = self {
            crowd.locate(place, zone);
        }
    }

    /// The zone of the peer at this place, as far as it is known. See [`Crowd::zone_at`].
    pub(super) fn zone_at(&self, place: usize) -> Zone {
        match self {
            Roster::One(_) => Zone::NONE,
            Roster::Many(crowd) => crowd.zone_at(place),
        }
    }

    /// Whether some peer has no name, or some site has no vote here.
    pub(super) fn lacks(&self) -> bool {
        match self {
            Roster::One(only) => only.contact.is_seeder() && !only.contact.has_vote(),
            Roster::Many(crowd) => crowd.lacks(),
        }
    }

    /// Tries again to get what the peer at this place lacks.
    pub(super) fn catch_up(&mut self, head: &Head, place: usize, title: Title<'_>, votes: &mut Votes) {
        match self {
            Roster::One(only) if only.contact.has_vote() => {}
            Roster::One(only) => cast(only, head, votes),
            Roster::Many(crowd) => crowd.catch_up(place, title, votes),
        }
    }

    /// Removes a peer. Others may take its place, but none from a lower place.
    pub(super) fn remove(&mut self, head: &Head, place: usize, votes: &mut Votes) -> Peer {
        match self {
            Roster::One(peer) => {
                withdraw(peer, head, votes);
                let peer = *peer;
                *self = Roster::Many(Box::default());
                peer
            }
            Roster::Many(crowd) => crowd.remove(place, votes),
        }
    }

    /// The place of a peer of a site that has others here, if there is one.
    pub(super) fn crowded(&self) -> Option<usize> {
        match self {
            Roster::One(_) => None,
            Roster::Many(crowd) => crowd.crowded(),
        }
    }

    /// The place of the newest peer of a site.
    pub(super) fn newest_at(&self, site: Site) -> Option<usize> {
        match self {
            Roster::One(only) => (only.site() == site).then_some(0),
            Roster::Many(crowd) => crowd.newest_at(site),
        }
    }

    /// The sites of all peers, each once.
    pub(super) fn sites(&self) -> impl Iterator<Item = Site> {
        let (only, crowd) = match self {
            Roster::One(only) => (Some(only.site()), None),
            Roster::Many(crowd) => (None, Some(crowd.sites())),
        };
        only.into_iter().chain(crowd.into_iter().flatten())
    }

    /// The entries of the share in the list, each always at the same place.
    pub(super) fn listed(&self, head: &Head) -> Entries {
        let mut entries = Entries::default();
        match self {
            Roster::One(only) => {
                let (votes, seeders) = (only.contact.has_vote().into(), only.contact.is_seeder().into());
                entries[0] = Some(Listed { head: head.clone(), votes, seeders });
            }
            Roster::Many(crowd) => crowd.listed(&mut entries),
        }
        entries
    }

    /// Seeders, leechers and sites of these seeders that stand behind a name which the share has.
    pub(super) fn counts_of(&self, name: &[u8]) -> (u32, u32, u32) {
        match self {
            Roster::One(_) => {
                let (seeders, leechers) = self.counts();
                (seeders, leechers, seeders)
            }
            Roster::Many(crowd) => crowd.name_of(name).map_or((0, 0, 0), |name| {
                let (peers, seeders, sites) = name.counts();
                (seeders, peers - seeders, sites)
            }),
        }
    }

    /// Whether the peer at this place has this name.
    pub(super) fn is_called(&self, head: &Head, place: usize, name: &str) -> bool {
        match self {
            Roster::One(_) => head.name_bytes() == name.as_bytes(),
            Roster::Many(crowd) => crowd.is_called(place, name),
        }
    }

    /// What the peer at this place calls the share, if it has a name.
    pub(super) fn name_at(&self, head: &Head, place: usize) -> Option<ShareName> {
        match self {
            Roster::One(_) => head.name(),
            Roster::Many(crowd) => crowd.name_at(place),
        }
    }

    /// The peer at this place.
    pub(super) fn peer(&self, place: usize) -> Peer {
        match self {
            Roster::One(only) => *only,
            Roster::Many(crowd) => crowd.peer(place),
        }
    }

    /// Peers of a site.
    pub(super) fn peers_at(&self, site: Site) -> u16 {
        match self {
            Roster::One(only) => (only.site() == site).into(),
            Roster::Many(crowd) => crowd.peers_at(site),
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
    pub(super) fn expire(
        &mut self,
        head: &Head,
        oldest_live: Tick,
        votes: &mut Votes,
        mut expired: impl FnMut(Peer),
    ) {
        let mut oldest = Tick::LAST;
        // The loop goes down, so the peer that fills a gap has been checked and is live.
        for place in (0..self.len()).rev() {
            let seen = self.members()[place].seen;
            if seen < oldest_live {
                expired(self.remove(head, place, votes));
            } else {
                oldest = oldest.min(seen);
            }
        }
        if let Roster::Many(crowd) = self {
            crowd.set_oldest(oldest);
        }
    }
}

/// Takes the vote of the site of an only peer, if that is a seeder and the vote is free.
fn cast(only: &mut Peer, head: &Head, votes: &mut Votes) {
    if only.contact.is_seeder() && votes.cast(head.name_bytes(), only.site()) {
        only.contact = only.contact.with_vote(Vote::Held);
    }
}

/// Frees the vote of an only peer, if it holds one.
fn withdraw(only: &mut Peer, head: &Head, votes: &mut Votes) {
    if only.contact.has_vote() {
        votes.withdraw(head.name_bytes(), only.site());
        only.contact = only.contact.with_vote(Vote::None);
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
