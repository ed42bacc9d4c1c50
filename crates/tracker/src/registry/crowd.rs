//! The peers of a share that has several, grouped by where they are.
//!
//! One party that controls one address can register any number of peers there. So the peers of one [`Site`] share one place
//! in the front row. Lookups are answered from the front row, and each time that a peer of it is named, the next peer of its
//! site takes over. If an answer has room for more than the front row, it names a second peer of each site, then a third, and so on.
//! A party that controls k of n sites thus gets k/n of the answers, with any number of registrations.
//!
//! The names of the share are kept here too: which peer has which ([`Label`]), and which sites stand behind each. A site *claims* a
//! name while a seeder of the site has it. With a claim goes the vote of the site, if that was free ([`Votes`]).
//!
//! It is built to need few memory accesses: the part that lookups read is stored apart from the part that only announces
//! need. Positions in the list of peers are valid until the next change.

mod answer;
mod naming;
mod zones;

use std::collections::HashMap;

use foldhash::quality::RandomState;
use prefetch_index::prefetch_index;
use proto::{InfoHash, PeerId, ShareName, Zone};

use super::{
    KEPT_ROOM,
    directory::Entries,
    names::{Label, Name, NameSet, Names},
    peer::{Contact, Member, Peer, Site},
    preload::fetch,
    tick::Tick,
    votes::Votes,
};
use zones::Zones;

pub(super) use answer::places;

/// A crowd larger than this has an index of its peers. In a smaller one, checking each peer is as fast and needs no memory.
const INDEX_ABOVE: usize = 64;

/// Below this the index is dropped. It is far enough from [`INDEX_ABOVE`] that the index does not come and go.
const UNINDEX_BELOW: usize = 32;

/// Peers to load ahead: most shares have no more.
const FETCHED: usize = 32;

/// Contacts in a cache line: it is enough to request one of them.
const CONTACTS_PER_LINE: usize = 64 / size_of::<Contact>();

/// The lists of a crowd give memory back when they have room for this many times as many peers as there are.
const SPARE_ROOM: usize = 4;

/// Peers of one site to compare with a new peer, which may be one of them after a restart.
const COMPARED: usize = 64;

/// Several peers.
///
/// Invariants: `members`, `contacts`, `rings` and `labels` have each peer at the same place. The places below `fronts` are the front row:
/// one peer of each site. `rings` joins the peers of each site in a circle. The index, if there is one, has the place of every
/// peer by its id, and of every peer in the front row by its site.
#[derive(Default)]
#[repr(C)]
pub(super) struct Crowd {
    // What every request reads comes first, so that it is in two cache lines.
    contacts: Vec<Contact>,
    members: Vec<Member>,
    index: Option<Box<Index>>,
    oldest: Tick,
    seeders: u32,
    /// Peers without a name.
    nameless: u32,
    /// Claims without a vote.
    unheard: u32,
    fronts: usize,
    /// `None` if no site is in a zone. Then lookups do not look at it, and it takes no memory.
    zones: Option<Box<Zones>>,
    rings: Vec<Links>,
    labels: Vec<Label>,
    names: Names,
}

/// The share, what a peer calls it, and the zone that the peer is in.
#[derive(Clone, Copy)]
pub(super) struct Title<'a> {
    pub(super) infohash: &'a InfoHash,
    pub(super) name: &'a str,
    pub(super) zone: &'a Zone,
}

/// The neighbours of a peer among those of its site; the peer itself if it is alone.
#[derive(Clone, Copy)]
struct Links {
    next: u32,
    previous: u32,
    /// Used in the front row only, as all that follows: the peer of its site that the next answer names.
    turn: u32,
    /// Peers of the site.
    peers: u16,
    /// Names that the site claims.
    claims: NameSet,
    /// Those for which this share has the site's vote.
    votes: NameSet,
}

impl Links {
    /// The links of a peer that is alone at its site.
    fn alone(place: usize) -> Links {
        let place = number(place);
        let none = NameSet::default();
        Links { next: place, previous: place, turn: place, peers: 1, claims: none, votes: none }
    }

    fn map(self, map: impl Fn(u32) -> u32) -> Links {
        Links { next: map(self.next), previous: map(self.previous), turn: map(self.turn), ..self }
    }
}

#[derive(Default)]
struct Index {
    places: HashMap<PeerId, u32, RandomState>,
    fronts: HashMap<Site, u32, RandomState>,
}

impl Crowd {
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(super) fn seeders(&self) -> u32 {
        self.seeders
    }

    /// Nobody was last seen before this time.
    pub(super) fn oldest(&self) -> Tick {
        self.oldest
    }

    pub(super) fn set_oldest(&mut self, oldest: Tick) {
        self.oldest = oldest;
    }

    /// The place of a peer.
    pub(super) fn find(&self, id: PeerId) -> Option<usize> {
        if let Some(index) = &self.index {
            return index.places.get(&id).map(|&place| place as usize);
        }
        let mut peers = self.contacts.iter().zip(&self.members);
        peers.position(|(contact, member)| contact.may_be(id) && member.id == id)
    }

    /// Where a peer probably is. It reads no member, because reading many of them one after the other takes long.
    pub(super) fn guess(&self, id: PeerId) -> Option<usize> {
        match &self.index {
            Some(index) => index.places.get(&id).map(|&place| place as usize),
            None => self.contacts.iter().position(|contact| contact.may_be(id)),
        }
    }

    /// Whether the peer at this place is reached where `peer` is.
    pub(super) fn is_at(&self, place: usize, peer: &Peer) -> bool {
        peer.is_where(&self.contacts[place], &self.members[place])
    }

    /// The place of a peer of any id that is reached where `peer` is, among the first [`COMPARED`] of its site.
    pub(super) fn find_at(&self, peer: &Peer) -> Option<usize> {
        let front = self.front_of(peer.site())?;
        let ring = std::iter::successors(Some(front), |&place| {
            Some(self.rings[place].next as usize).filter(|&next| next != front)
        });
        ring.take(COMPARED).find(|&place| self.is_at(place, peer))
    }

    /// Requests the parts of the crowd itself that every request reads.
    pub(super) fn fetch(&self) {
        fetch(&self.contacts);
        fetch(&self.fronts);
    }

    /// Requests what [`Crowd::find`] and [`Crowd::name`] are going to read. It takes as many steps for a small crowd as for a large one,
    /// because the processor would have to guess how many.
    pub(super) fn fetch_contacts(&self) {
        let last = self.contacts.len().saturating_sub(1);
        for place in (0..FETCHED).step_by(CONTACTS_PER_LINE) {
            prefetch_index(&self.contacts, place.min(last));
        }
        prefetch_index(&self.contacts, (FETCHED - 1).min(last));
    }

    /// Adds a peer that is not there yet.
    pub(super) fn insert(&mut self, peer: Peer, title: Title<'_>, votes: &mut Votes) {
        let (site, mut place) = (peer.site(), self.members.len());
        let front = self.front_of(site);
        self.seeders += u32::from(peer.contact.is_seeder());
        self.oldest = self.oldest.min(peer.member.seen);
        self.members.push(peer.member);
        self.contacts.push(peer.contact);
        self.rings.push(Links::alone(place));
        self.labels.push(Label::NONE);
        self.note_place(place);
        match front {
            Some(front) => {
                self.link_before(front, place);
                self.rings[front].peers = self.rings[front].peers.saturating_add(1);
            }
            None => {
                self.pass_turn(self.fronts);
                self.swap(place, self.fronts);
                place = self.fronts;
                self.fronts += 1;
                self.note_front(place);
                if let Some(zones) = &mut self.zones {
                    zones.enter();
                }
            }
        }
        self.locate(place, title.zone);
        self.nameless += 1;
        if self.index.is_none() && self.members.len() > INDEX_ABOVE {
            self.index = Some(Box::default());
            (0..self.members.len()).for_each(|place| self.note_place(place));
            (0..self.fronts).for_each(|place| self.note_front(place));
        }
        self.give_name(place, title, votes);
    }

    /// Replaces a peer, usually by its newer version, and returns the replaced one. It keeps its name.
    pub(super) fn replace(&mut self, place: usize, peer: Peer, title: Title<'_>, votes: &mut Votes) -> Peer {
        let old = Peer { member: self.members[place], contact: self.contacts[place] };
        if old.site() != peer.site() {
            let head = self.labels[place].name().map(|name| self.names.name(name).head.clone());
            self.remove(place, votes);
            let name = head.as_ref().and_then(|head| str::from_utf8(head.name_bytes()).ok());
            self.insert(peer, Title { name: name.unwrap_or(title.name), ..title }, votes);
            return old;
        }
        let name = self.labels[place].name();
        let changed = name.filter(|_| old.contact.is_seeder() != peer.contact.is_seeder());
        if let Some(name) = changed.filter(|_| old.contact.is_seeder()) {
            self.unseed(place, name, votes);
        }
        self.members[place] = peer.member;
        self.contacts[place] = peer.contact;
        if let Some(index) = &mut self.index
            && old.member.id != peer.member.id
        {
            index.places.remove(&old.member.id);
            index.places.insert(peer.member.id, number(place));
        }
        self.seeders -= u32::from(old.contact.is_seeder());
        self.seeders += u32::from(peer.contact.is_seeder());
        if let Some(name) = changed.filter(|_| peer.contact.is_seeder()) {
            self.seed(place, name, votes);
        }
        self.locate(place, title.zone);
        old
    }

    /// The peer at this place is in this zone. Its site is too, if the peer is in the front row.
    pub(super) fn locate(&mut self, place: usize, zone: &Zone) {
        if !zone.is_none() && place < self.fronts {
            self.zones.get_or_insert_with(|| Box::new(Zones::new(self.fronts))).set(place, zone);
        }
    }

    /// The zone of the site of the peer at this place.
    pub(super) fn zone_at(&self, place: usize) -> Zone {
        let Some(zones) = &self.zones else { return Zone::NONE };
        self.front_of(self.site(place)).map_or(Zone::NONE, |front| zones.at(front))
    }

    /// Replaces a peer by its newer version, if nothing changes that the list of shares or a count depends on. Returns whether it did.
    pub(super) fn refresh(&mut self, place: usize, peer: &Peer) -> bool {
        let (member, contact) = (&mut self.members[place], &mut self.contacts[place]);
        let same = contact.site(member) == peer.site() && contact.is_seeder() == peer.contact.is_seeder();
        if same {
            (*member, *contact) = (peer.member, peer.contact);
        }
        same
    }

    /// Whether some peer has no name, or some claim no vote.
    pub(super) fn lacks(&self) -> bool {
        self.nameless > 0 || self.unheard > 0
    }

    /// Tries again to get what the peer at this place lacks.
    pub(super) fn catch_up(&mut self, place: usize, title: Title<'_>, votes: &mut Votes) {
        let Some(name) = self.labels[place].name() else { return self.give_name(place, title, votes) };
        if self.unheard > 0 && self.contacts[place].is_seeder() {
            let site = self.site(place);
            if let Some(front) = self.front_of(site).filter(|&front| !self.rings[front].votes.contains(name))
            {
                self.vote(front, name, site, votes);
            }
        }
    }

    /// The entries of the share in the list.
    pub(super) fn listed(&self, entries: &mut Entries) {
        self.names.listed(entries);
    }

    /// What stands behind a name; `None` if no peer has it.
    pub(super) fn name_of(&self, name: &[u8]) -> Option<&Name> {
        self.names.find(name).map(|name| self.names.name(name))
    }

    /// Whether the peer at this place has this name.
    pub(super) fn is_called(&self, place: usize, name: &str) -> bool {
        let label = self.labels[place].name();
        label.is_some_and(|label| self.names.name(label).head.name_bytes() == name.as_bytes())
    }

    /// What the peer at this place calls the share, if it has a name.
    pub(super) fn name_at(&self, place: usize) -> Option<ShareName> {
        self.labels[place].name().and_then(|name| self.names.name(name).head.name())
    }

    /// The peer at this place.
    pub(super) fn peer(&self, place: usize) -> Peer {
        Peer { member: self.members[place], contact: self.contacts[place] }
    }

    /// Peers of a site.
    pub(super) fn peers_at(&self, site: Site) -> u16 {
        self.front_of(site).map_or(0, |front| self.rings[front].peers)
    }

    /// The newest of the peers behind the front row, if there is one, to make room for a peer of a new site.
    pub(super) fn crowded(&self) -> Option<usize> {
        (self.members.len() > self.fronts).then(|| self.members.len() - 1)
    }

    /// The newest peer of a site.
    pub(super) fn newest_at(&self, site: Site) -> Option<usize> {
        self.front_of(site).map(|front| self.rings[front].previous as usize)
    }

    /// The sites, each once.
    pub(super) fn sites(&self) -> impl Iterator<Item = Site> {
        (0..self.fronts).map(|front| self.site(front))
    }

    /// Whether a peer of this site is here.
    pub(super) fn has_site(&self, site: Site) -> bool {
        self.front_of(site).is_some()
    }

    /// Removes a peer. Others may take its place, but none from a lower place.
    pub(super) fn remove(&mut self, mut place: usize, votes: &mut Votes) -> Peer {
        self.take_name(place, votes);
        self.nameless -= 1;
        if let Some(front) = self.front_of(self.site(place)) {
            self.rings[front].peers -= 1;
        }
        if place < self.fronts {
            let next = self.rings[place].next as usize;
            if next != place {
                self.exchange(place, next);
                place = next;
            } else {
                if let Some(index) = &mut self.index {
                    index.fronts.remove(&self.contacts[place].site(&self.members[place]));
                }
                self.fronts -= 1;
                if let Some(zones) = &mut self.zones {
                    zones.leave(place);
                }
                self.zones.take_if(|zones| zones.is_empty());
                self.swap(place, self.fronts);
                if place < self.fronts {
                    self.note_front(place);
                }
                place = self.fronts;
            }
        }
        let last = self.members.len() - 1;
        self.pass_turn(place);
        self.unlink(place);
        self.pass_turn(last);
        self.swap(place, last);
        self.pop().expect("there is a last one")
    }

    fn pop(&mut self) -> Option<Peer> {
        let (member, contact) = (self.members.pop()?, self.contacts.pop()?);
        self.rings.pop();
        self.labels.pop();
        self.seeders -= u32::from(contact.is_seeder());
        if let Some(index) = &mut self.index {
            index.places.remove(&member.id);
        }
        // A crowd that was large once gives its memory back.
        let left = self.members.len();
        if left < self.members.capacity() / SPARE_ROOM {
            self.members.shrink_to(KEPT_ROOM * left);
            self.contacts.shrink_to(KEPT_ROOM * left);
            self.rings.shrink_to(KEPT_ROOM * left);
            self.labels.shrink_to(KEPT_ROOM * left);
            if let Some(index) = &mut self.index {
                index.places.shrink_to(KEPT_ROOM * left);
                index.fronts.shrink_to(KEPT_ROOM * left);
            }
        }
        if left < UNINDEX_BELOW {
            self.index = None;
        }
        Some(Peer { member, contact })
    }

    /// The place in the front row of the peers of a site.
    fn front_of(&self, site: Site) -> Option<usize> {
        if let Some(index) = &self.index {
            return index.fronts.get(&site).map(|&place| place as usize);
        }
        (0..self.fronts).find(|&place| self.contacts[place].site(&self.members[place]) == site)
    }

    fn site(&self, place: usize) -> Site {
        self.contacts[place].site(&self.members[place])
    }

    /// Exchanges two peers of one site. The circle stays the same.
    fn exchange(&mut self, one: usize, other: usize) {
        self.members.swap(one, other);
        self.contacts.swap(one, other);
        self.labels.swap(one, other);
        self.note_place(one);
        self.note_place(other);
    }

    /// Exchanges any two peers, each with its place in its circle. It must not be the turn of one that is behind the front row.
    fn swap(&mut self, one: usize, other: usize) {
        if one == other {
            return;
        }
        self.exchange(one, other);
        let renamed = |place: u32| match place as usize {
            place if place == one => number(other),
            place if place == other => number(one),
            _ => place,
        };
        (self.rings[one], self.rings[other]) = (self.rings[other].map(renamed), self.rings[one].map(renamed));
        for place in [one, other] {
            let Links { next, previous, .. } = self.rings[place];
            self.rings[next as usize].previous = number(place);
            self.rings[previous as usize].next = number(place);
        }
    }

    fn unlink(&mut self, place: usize) {
        let Links { next, previous, .. } = self.rings[place];
        self.rings[previous as usize].next = next;
        self.rings[next as usize].previous = previous;
        self.rings[place] = Links::alone(place);
    }

    /// Inserts a single peer into the circle of `front`, just before it.
    fn link_before(&mut self, front: usize, place: usize) {
        let previous = self.rings[front].previous;
        self.rings[place] = Links { next: number(front), previous, ..Links::alone(place) };
        self.rings[previous as usize].next = number(place);
        self.rings[front].previous = number(place);
    }

    fn note_place(&mut self, place: usize) {
        if let Some(index) = &mut self.index {
            index.places.insert(self.members[place].id, number(place));
        }
    }

    fn note_front(&mut self, place: usize) {
        if let Some(index) = &mut self.index {
            index.fronts.insert(self.contacts[place].site(&self.members[place]), number(place));
        }
    }

    /// Panics if an invariant does not hold.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let site = |place: usize| self.contacts[place].site(&self.members[place]);
        let mut sites = std::collections::BTreeSet::new();
        assert!((0..self.fronts).all(|front| sites.insert(site(front))), "two of a site in the front row");
        let mut met = 0;
        for front in 0..self.fronts {
            let (mut place, mut has_turn) = (front, false);
            loop {
                met += 1;
                has_turn |= self.rings[front].turn as usize == place;
                assert_eq!(site(place), site(front));
                assert!(place == front || place >= self.fronts);
                let next = self.rings[place].next as usize;
                assert_eq!(self.rings[next].previous as usize, place);
                place = next;
                if place == front {
                    break;
                }
                assert!(met <= self.members.len(), "a circle without end");
            }
            assert!(has_turn, "the turn is in the circle");
        }
        assert_eq!(met, self.members.len(), "everybody is in the circle of a front");
        if let Some(index) = &self.index {
            assert_eq!((index.places.len(), index.fronts.len()), (self.members.len(), self.fronts));
            assert!(index.fronts.iter().all(|(&of, &place)| site(place as usize) == of));
        }
        let seeders = self.contacts.iter().filter(|contact| contact.is_seeder()).count();
        assert_eq!(self.seeders as usize, seeders);
        if let Some(zones) = &self.zones {
            zones.check(self.fronts);
        }
        self.check_names();
    }

    #[cfg(test)]
    fn check_names(&self) {
        let places = || 0..self.members.len();
        let nameless = places().filter(|&place| self.labels[place].name().is_none()).count();
        assert_eq!(self.nameless as usize, nameless);
        let (mut claims, mut with_vote) = (0, 0);
        for (id, name) in self.names.all() {
            let of_name = || places().filter(|&place| self.labels[place] == id.into());
            let seeders: Vec<_> = of_name().filter(|&place| self.contacts[place].is_seeder()).collect();
            let sites: std::collections::BTreeSet<_> =
                seeders.iter().map(|&place| self.site(place)).collect();
            let counts = (of_name().count() as u32, seeders.len() as u32, sites.len() as u32);
            assert_eq!(name.counts(), counts);
            assert!(name.peers > 0);
            let claiming = (0..self.fronts).filter(|&front| self.rings[front].claims.contains(id));
            assert_eq!(
                claiming.map(|front| self.site(front)).collect::<std::collections::BTreeSet<_>>(),
                sites
            );
            claims += sites.len();
            with_vote += (0..self.fronts).filter(|&front| self.rings[front].votes.contains(id)).count();
        }
        assert_eq!(self.unheard as usize, claims - with_vote);
        for front in 0..self.fronts {
            let at = places().filter(|&place| self.site(place) == self.site(front)).count();
            assert_eq!(usize::from(self.rings[front].peers), at);
        }
    }
}

/// No crowd grows beyond `Limits::peers_per_share`, which is a `u32`.
fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
