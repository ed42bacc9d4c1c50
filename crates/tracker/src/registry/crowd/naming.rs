//! Which peer of a crowd has which name, and which sites claim and vote for each.

use super::{Crowd, Title};
use crate::registry::{
    names::{Label, NameId},
    peer::Site,
    votes::Votes,
};

impl Crowd {
    /// Names the peer at this place, which has no name, if there is room.
    pub(super) fn give_name(&mut self, place: usize, title: Title<'_>, votes: &mut Votes) {
        let is_seeder = self.contacts[place].is_seeder();
        let known = self.names.find(title.name.as_bytes());
        let name = known.or_else(|| self.names.add(title.infohash, title.name)).or_else(|| {
            if is_seeder {
                self.make_room_for_name(place, votes);
            }
            self.names.add(title.infohash, title.name)
        });
        let Some(name) = name else { return };
        self.labels[place] = name.into();
        self.nameless -= 1;
        self.names.name_mut(name).peers += 1;
        if is_seeder {
            self.seed(place, name, votes);
        }
    }

    /// Takes the name of the peer at this place away, if it has one.
    pub(super) fn take_name(&mut self, place: usize, votes: &mut Votes) {
        let Some(name) = self.labels[place].name() else { return };
        if self.contacts[place].is_seeder() {
            self.unseed(place, name, votes);
        }
        self.labels[place] = Label::NONE;
        self.nameless += 1;
        self.names.name_mut(name).peers -= 1;
        if self.names.name(name).peers == 0 {
            self.names.remove(name);
        }
    }

    /// Removes a name to make room for that of the seeder at this place, if the rules say so ([`Names::weakest`](crate::registry::names::Names::weakest)).
    pub(super) fn make_room_for_name(&mut self, place: usize, votes: &mut Votes) {
        let names_of = |site| self.front_of(site).map_or(0, |front: usize| self.rings[front].claims.len());
        let own = names_of(self.site(place));
        let Some(weakest) = self.names.weakest(own, names_of) else { return };
        if let Some(site) = self.names.name(weakest).only_site()
            && let Some(front) = self.front_of(site)
        {
            self.unclaim(front, weakest, site, votes);
        }
        let goes = Label::from(weakest);
        for label in self.labels.iter_mut().filter(|label| **label == goes) {
            *label = Label::NONE;
            self.nameless += 1;
        }
        self.names.remove(weakest);
    }

    /// The peer at this place is a seeder with this name from now on.
    pub(super) fn seed(&mut self, place: usize, name: NameId, votes: &mut Votes) {
        let site = self.site(place);
        self.names.name_mut(name).seeders += 1;
        let Some(front) = self.front_of(site) else { return };
        if self.rings[front].claims.insert(name) {
            self.names.name_mut(name).add_site(site);
            self.unheard += 1;
            self.vote(front, name, site, votes);
        }
    }

    /// The peer at this place, which still has this name, is no seeder with it from now on.
    pub(super) fn unseed(&mut self, place: usize, name: NameId, votes: &mut Votes) {
        let site = self.site(place);
        self.names.name_mut(name).seeders -= 1;
        if let Some(front) = self.front_of(site)
            && !self.has_other_seeder(place, name)
        {
            self.unclaim(front, name, site, votes);
        }
    }

    /// Whether the site of the peer at this place has another seeder with this name. It looks in both directions, because peers
    /// that came together go together, so it seldom has to look far.
    fn has_other_seeder(&self, place: usize, name: NameId) -> bool {
        let is_one = |at: usize| self.contacts[at].is_seeder() && self.labels[at] == name.into();
        let (mut after, mut before) = (place, place);
        loop {
            after = self.rings[after].next as usize;
            if after == place {
                return false;
            }
            before = self.rings[before].previous as usize;
            if is_one(after) || is_one(before) {
                return true;
            }
            if after == before {
                return false;
            }
        }
    }

    /// Takes the vote of a site for a name that it claims, if the vote is free.
    pub(super) fn vote(&mut self, front: usize, name: NameId, site: Site, votes: &mut Votes) {
        let of = self.names.name_mut(name);
        if votes.cast(of.head.name_bytes(), site) {
            of.add_vote();
            self.rings[front].votes.insert(name);
            self.unheard -= 1;
        }
    }

    /// Ends the claim of a site.
    pub(super) fn unclaim(&mut self, front: usize, name: NameId, site: Site, votes: &mut Votes) {
        if !self.rings[front].claims.remove(name) {
            return;
        }
        let of = self.names.name_mut(name);
        of.take_site(site);
        if self.rings[front].votes.remove(name) {
            of.take_vote();
            votes.withdraw(of.head.name_bytes(), site);
        } else {
            self.unheard -= 1;
        }
    }
}
