//! The peers of one share.
//!
//! Built for size: most shares have a single peer, which is kept in place, and a peer is 56 bytes. Places in
//! the list of peers hold until the next removal.

use std::{collections::HashMap, num::NonZeroU16};

use foldhash::quality::RandomState;
use proto::{PeerId, Secret, tracker::Progress};
use subtle::ConstantTimeEq;

use super::{address::Address, tick::Tick};

/// A swarm larger than this has an index of its peers; below, looking at each is as fast and needs no memory.
const INDEX_ABOVE: usize = 64;

/// The index goes away below this, far enough from [`INDEX_ABOVE`] not to come and go.
const UNINDEX_BELOW: usize = 32;

/// One registration.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) secret: Secret,
    pub(super) address: Address,
    pub(super) seen: Tick,
    pub(super) port: NonZeroU16,
    pub(super) progress: Progress,
}

/// The peers of one share. An empty one is on its way out: it is a `Many`.
pub(super) enum Swarm {
    One(Peer),
    Many(Box<Crowd>),
}

/// Invariant: `index`, if there is one, maps the id of every peer to its place in `peers`.
#[derive(Default)]
pub(super) struct Crowd {
    peers: Vec<Peer>,
    index: Option<HashMap<PeerId, u32, RandomState>>,
    seeders: u32,
    /// Nobody was last seen before this time.
    oldest: Tick,
}

impl Peer {
    /// Whether `secret` is this peer's; takes the same time whatever is wrong with it.
    pub(super) fn has_secret(&self, secret: Secret) -> bool {
        self.secret.0.ct_eq(&secret.0).into()
    }
}

impl Swarm {
    pub(super) fn new(peer: Peer) -> Swarm {
        Swarm::One(peer)
    }

    pub(super) fn peers(&self) -> &[Peer] {
        match self {
            Swarm::One(peer) => std::slice::from_ref(peer),
            Swarm::Many(crowd) => &crowd.peers,
        }
    }

    /// Seeders and leechers.
    pub(super) fn counts(&self) -> (u32, u32) {
        let seeders = match self {
            Swarm::One(peer) => u32::from(peer.progress.is_complete()),
            Swarm::Many(crowd) => crowd.seeders,
        };
        let all = place_number(self.peers().len());
        (seeders, all - seeders)
    }

    /// Nobody was last seen before this time.
    pub(super) fn oldest(&self) -> Tick {
        match self {
            Swarm::One(peer) => peer.seen,
            Swarm::Many(crowd) => crowd.oldest,
        }
    }

    /// The place of a peer.
    pub(super) fn find(&self, id: PeerId) -> Option<usize> {
        if let Swarm::Many(crowd) = self
            && let Some(index) = &crowd.index
        {
            return index.get(&id).map(|&place| place as usize);
        }
        self.peers().iter().position(|peer| peer.id == id)
    }

    /// Adds a peer that is not there yet.
    pub(super) fn insert(&mut self, peer: Peer) {
        match self {
            Swarm::One(first) => {
                let mut crowd = Box::<Crowd>::default();
                crowd.insert(*first);
                crowd.insert(peer);
                *self = Swarm::Many(crowd);
            }
            Swarm::Many(crowd) => crowd.insert(peer),
        }
    }

    /// Puts `peer` in the place of its former self, which it returns.
    pub(super) fn replace(&mut self, place: usize, peer: Peer) -> Peer {
        match self {
            Swarm::One(only) => std::mem::replace(only, peer),
            Swarm::Many(crowd) => {
                let old = std::mem::replace(&mut crowd.peers[place], peer);
                crowd.seeders -= u32::from(old.progress.is_complete());
                crowd.seeders += u32::from(peer.progress.is_complete());
                old
            }
        }
    }

    /// Removes a peer; another may take its place.
    pub(super) fn remove(&mut self, place: usize) -> Peer {
        match self {
            Swarm::One(peer) => {
                let peer = *peer;
                *self = Swarm::Many(Box::default());
                peer
            }
            Swarm::Many(crowd) => crowd.remove(place),
        }
    }

    /// Removes the peers last seen before `oldest_live` and hands each to `expired`.
    pub(super) fn expire(&mut self, oldest_live: Tick, mut expired: impl FnMut(Peer)) {
        let mut oldest = Tick::LAST;
        // Going down, what fills the gap of a removed peer is live; and when all go, there is no gap to fill.
        for place in (0..self.peers().len()).rev() {
            let seen = self.peers()[place].seen;
            if seen < oldest_live {
                expired(self.remove(place));
            } else {
                oldest = oldest.min(seen);
            }
        }
        if let Swarm::Many(crowd) = self {
            crowd.oldest = oldest;
        }
    }
}

impl Crowd {
    fn insert(&mut self, peer: Peer) {
        self.seeders += u32::from(peer.progress.is_complete());
        self.oldest = self.oldest.min(peer.seen);
        if let Some(index) = &mut self.index {
            index.insert(peer.id, place_number(self.peers.len()));
        }
        self.peers.push(peer);
        if self.index.is_none() && self.peers.len() > INDEX_ABOVE {
            let places = self.peers.iter().enumerate().map(|(place, peer)| (peer.id, place_number(place)));
            self.index = Some(places.collect());
        }
    }

    fn remove(&mut self, place: usize) -> Peer {
        let peer = self.peers.swap_remove(place);
        self.seeders -= u32::from(peer.progress.is_complete());
        if let Some(index) = &mut self.index {
            index.remove(&peer.id);
            if let Some(moved) = self.peers.get(place) {
                index.insert(moved.id, place_number(place));
            }
        }
        // A swarm that was large once does not hold its memory for ever.
        if self.peers.len() < self.peers.capacity() / 4 {
            self.peers.shrink_to(self.peers.len() * 2);
            if let Some(index) = &mut self.index {
                index.shrink_to(self.peers.len() * 2);
            }
        }
        if self.peers.len() < UNINDEX_BELOW {
            self.index = None;
        }
        peer
    }
}

/// No swarm grows beyond `Limits::peers_per_share`, which is a `u32`.
fn place_number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_stays_small() {
        assert_eq!(size_of::<Peer>(), 56);
        assert_eq!(size_of::<Swarm>(), 56);
    }
}
