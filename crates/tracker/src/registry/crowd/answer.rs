//! Which peers of a crowd an answer names.
//!
//! Sites are drawn, and the peers of a site take turns.

use prefetch_index::prefetch_index;
use proto::{Zone, tracker::PeerEntry};
use rand::Rng;

use super::{Crowd, number};
use crate::registry::{
    peer::Requester,
    sample::{Places, sample, sample_each},
};

impl Crowd {
    /// Names `places.len()` peers to `requester`, or as many as there are, of as many sites as possible. Every site is
    /// equally likely, except that more come from `zone` ([`Zones::draw`](super::zones::Zones::draw)). Peers whose addresses
    /// `requester` cannot use are left out.
    pub(in crate::registry) fn name(
        &mut self,
        places: &mut [u32],
        (requester, zone): (Requester, &Zone),
        entries: &mut Vec<PeerEntry>,
        rng: &mut impl Rng,
    ) {
        if let Some(places) = places.get_mut(..self.members.len()) {
            self.place_all(places, rng);
            return self.append(places, requester, entries);
        }
        if self.fronts == 1 {
            // There is no other site to leave room for.
            let named = sample(places, number(self.members.len()), rng);
            return self.append(named, requester, entries);
        }
        let has_room = places.len() > self.fronts;
        let mut named = match &self.zones {
            Some(zones) if !has_room && !zone.is_none() => {
                zones.draw(places, zone, rng);
                places.len()
            }
            // Its ring shows whose turn it is at a site. It is requested while others are drawn.
            _ => {
                let each = |place| prefetch_index(&self.rings, place as usize);
                sample_each(places, number(self.fronts), rng, each).len()
            }
        };
        if self.members.len() > self.fronts {
            if has_room {
                named = self.repeat(places, named);
            }
            places[..named].iter_mut().for_each(|place| *place = self.take_turn(*place));
        }
        self.append(&places[..named], requester, entries);
    }

    /// All peers, first one of each site. Nobody has to wait for an answer, so it need not be read whose turn it is.
    fn place_all(&self, places: &mut [u32], rng: &mut impl Rng) {
        let (fronts, others) = places.split_at_mut(self.fronts);
        sample(fronts, number(self.fronts), rng);
        let amount = number(others.len());
        let others = sample(others, amount, rng);
        others.iter_mut().for_each(|place| *place += number(self.fronts));
    }

    /// The first `sites` places are of the front row. Repeats each as often as its site has more peers, one after the other in
    /// rounds, as far as there is room. Returns the number of places.
    fn repeat(&self, places: &mut [u32], sites: usize) -> usize {
        let mut named = sites;
        for round in 1.. {
            let before = named;
            for site in 0..sites {
                let place = places[site];
                if named < places.len() && self.rings[place as usize].peers > round {
                    places[named] = place;
                    named += 1;
                }
            }
            if named == before {
                break;
            }
        }
        named
    }

    fn append(&self, places: &[u32], requester: Requester, entries: &mut Vec<PeerEntry>) {
        for place in places.iter().map(|&place| place as usize) {
            self.contacts[place].append(|| &self.members[place], requester, entries);
        }
    }

    /// The peer to name for a place in the front row. The next answer names the next peer of that site.
    fn take_turn(&mut self, front: u32) -> u32 {
        let turn = self.rings[front as usize].turn;
        self.rings[front as usize].turn = self.rings[turn as usize].next;
        turn
    }

    /// If it is the turn of this peer, which is about to be removed or moved from behind the front row, it is the next one's.
    pub(super) fn pass_turn(&mut self, place: usize) {
        if (self.fronts..self.members.len()).contains(&place)
            && let Some(front) = self.front_of(self.contacts[place].site(&self.members[place]))
            && self.rings[front].turn as usize == place
        {
            self.rings[front].turn = self.rings[place].next;
        }
    }
}

/// Room for the places of the peers of a reply that is to name `want`.
pub(in crate::registry) fn places(all: &mut Places, want: u8) -> &mut [u32] {
    let want = all.len().min(want.into());
    &mut all[..want]
}
