//! The peers of one share.
//!
//! It is built to be small and to need few memory accesses. Most shares have a single peer, which is kept in place. The part
//! that lookups read is stored apart from the part that only announces need. Positions in the list of peers are valid until
//! the next removal.

use std::{collections::HashMap, hint::black_box, mem, slice};

use foldhash::quality::RandomState;
use proto::{PeerId, tracker::PeerEntry};

use super::{
    KEPT_ROOM,
    peer::{Contact, Member, Peer, Requester},
    tick::Tick,
};

/// A roster larger than this has an index of its peers. In a smaller one, checking each peer is as fast and needs no memory.
const INDEX_ABOVE: usize = 64;

/// Below this the index is dropped. It is far enough from [`INDEX_ABOVE`] that the index does not come and go.
const UNINDEX_BELOW: usize = 32;

/// Peers of a roster to load ahead: most rosters have no more.
const TOUCHED: usize = 32;

/// Contacts in a cache line: it is enough to look at one of them.
const CONTACTS_PER_LINE: usize = 64 / size_of::<Contact>();

/// The lists of a roster give memory back when they have room for this many times as many peers as there are.
const SPARE_ROOM: usize = 4;

/// The peers of one share. An empty one is a `Many` and is about to be dropped.
pub(super) enum Roster {
    One(Peer),
    Many(Crowd),
}

/// Invariants: `members` and `contacts` have each peer at the same position. `index`, if there is one, maps the id of every
/// peer to its position.
#[derive(Default)]
pub(super) struct Crowd {
    members: Vec<Member>,
    contacts: Vec<Contact>,
    index: Option<Box<Index>>,
    seeders: u32,
    /// Nobody was last seen before this time.
    oldest: Tick,
}

type Index = HashMap<PeerId, u32, RandomState>;

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
            Roster::Many(crowd) => &crowd.members,
        }
    }

    /// Adds the entries of the peers at some positions, if `requester` can use their addresses.
    pub(super) fn tell(&self, places: &[u32], requester: Requester, entries: &mut Vec<PeerEntry>) {
        match self {
            Roster::One(peer) => {
                entries.extend(places.iter().filter_map(|_| peer.contact.entry(|| &peer.member, requester)));
            }
            Roster::Many(Crowd { contacts, members, .. }) => {
                let entry = |&place: &u32| {
                    let place = place as usize;
                    contacts[place].entry(|| &members[place], requester)
                };
                entries.extend(places.iter().filter_map(entry));
            }
        }
    }

    /// Seeders and leechers.
    pub(super) fn counts(&self) -> (u32, u32) {
        let seeders = match self {
            Roster::One(peer) => u32::from(peer.contact.is_seeder()),
            Roster::Many(crowd) => crowd.seeders,
        };
        (seeders, place_number(self.len()) - seeders)
    }

    /// Nobody was last seen before this time.
    pub(super) fn oldest(&self) -> Tick {
        match self {
            Roster::One(peer) => peer.member.seen,
            Roster::Many(crowd) => crowd.oldest,
        }
    }

    /// The position of a peer.
    pub(super) fn find(&self, id: PeerId) -> Option<usize> {
        match self {
            Roster::One(peer) => (peer.member.id == id).then_some(0),
            Roster::Many(Crowd { index: Some(index), .. }) => index.get(&id).map(|&place| place as usize),
            Roster::Many(Crowd { contacts, members, .. }) => {
                let mut places = contacts.iter().zip(members);
                places.position(|(contact, member)| contact.may_be(id) && member.id == id)
            }
        }
    }

    /// Reads what [`Roster::find`] and [`Roster::tell`] are going to read, for
    /// [`Registry::preload`](super::Registry::preload).
    pub(super) fn touch_contacts(&self) {
        if let Roster::Many(Crowd { contacts, .. }) = self {
            for contact in contacts.iter().take(TOUCHED).step_by(CONTACTS_PER_LINE) {
                black_box(contact.is_seeder());
            }
        }
    }

    /// Adds a peer that is not there yet.
    pub(super) fn insert(&mut self, peer: Peer) {
        match self {
            Roster::One(first) => {
                let mut crowd = Crowd::default();
                crowd.insert(*first);
                crowd.insert(peer);
                *self = Roster::Many(crowd);
            }
            Roster::Many(crowd) => crowd.insert(peer),
        }
    }

    /// Replaces a peer by its newer version, and returns the older.
    pub(super) fn replace(&mut self, place: usize, peer: Peer) -> Peer {
        match self {
            Roster::One(only) => mem::replace(only, peer),
            Roster::Many(crowd) => {
                let member = mem::replace(&mut crowd.members[place], peer.member);
                let contact = mem::replace(&mut crowd.contacts[place], peer.contact);
                crowd.seeders -= u32::from(contact.is_seeder());
                crowd.seeders += u32::from(peer.contact.is_seeder());
                Peer { member, contact }
            }
        }
    }

    /// Removes a peer; another may take its position.
    pub(super) fn remove(&mut self, place: usize) -> Peer {
        match self {
            Roster::One(peer) => {
                let peer = *peer;
                *self = Roster::Many(Crowd::default());
                peer
            }
            Roster::Many(crowd) => crowd.remove(place),
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
            crowd.oldest = oldest;
        }
    }
}

impl Crowd {
    fn insert(&mut self, Peer { member, contact }: Peer) {
        self.seeders += u32::from(contact.is_seeder());
        self.oldest = self.oldest.min(member.seen);
        if let Some(index) = &mut self.index {
            index.insert(member.id, place_number(self.members.len()));
        }
        self.members.push(member);
        self.contacts.push(contact);
        if self.index.is_none() && self.members.len() > INDEX_ABOVE {
            let members = self.members.iter().enumerate();
            self.index =
                Some(Box::new(members.map(|(place, member)| (member.id, place_number(place))).collect()));
        }
    }

    fn remove(&mut self, place: usize) -> Peer {
        let member = self.members.swap_remove(place);
        let contact = self.contacts.swap_remove(place);
        self.seeders -= u32::from(contact.is_seeder());
        if let Some(index) = &mut self.index {
            index.remove(&member.id);
            if let Some(moved) = self.members.get(place) {
                index.insert(moved.id, place_number(place));
            }
        }
        // A roster that was large once gives its memory back.
        let left = self.members.len();
        if left < self.members.capacity() / SPARE_ROOM {
            self.members.shrink_to(KEPT_ROOM * left);
            self.contacts.shrink_to(KEPT_ROOM * left);
            if let Some(index) = &mut self.index {
                index.shrink_to(KEPT_ROOM * left);
            }
        }
        if left < UNINDEX_BELOW {
            self.index = None;
        }
        Peer { member, contact }
    }
}

/// No roster grows beyond `Limits::peers_per_share`, which is a `u32`.
fn place_number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_one_peer_stays_small() {
        assert_eq!(size_of::<Roster>(), 64);
    }
}
