//! The names of a share that has several peers.
//!
//! A share has every name that a peer gave when it registered. Anybody can give any name, so there is room for [`MAX_NAMES`]. A
//! name that only one site stands behind makes room for one that a seeder of another site brings, if that site stands behind fewer
//! names of the share. So one site with many names cannot keep the name of another out. A peer whose name finds no room is
//! registered without one.

use proto::InfoHash;

use super::{
    directory::{Entries, Listed},
    head::Head,
    peer::Site,
};

/// Maximum names of a share. An honest share has one, because the name is part of what the infohash is a hash of. So there is room
/// for the names of several liars beside it. A set of names fits a byte.
pub(super) const MAX_NAMES: usize = 8;

/// One of the names of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NameId(u8);

/// Some of the names of a share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct NameSet(u8);

/// The name of a peer, if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(u8);

/// The names of a share.
#[derive(Default)]
pub(super) struct Names {
    slots: Vec<Option<Name>>,
    /// Names that there were so far.
    count: u64,
}

/// A name of a share, and who stands behind it.
pub(super) struct Name {
    pub(super) head: Head,
    /// Larger than that of every older name.
    age: u64,
    /// Peers with this name.
    pub(super) peers: u32,
    pub(super) seeders: u32,
    /// Sites of these seeders.
    sites: u32,
    /// The numbers of these sites, combined by exclusive or. So if it is one site, this is its number.
    sum: u64,
    /// Votes of these sites.
    votes: u32,
}

impl NameSet {
    pub(super) fn contains(self, NameId(id): NameId) -> bool {
        self.0 >> id & 1 == 1
    }

    /// Returns whether it was not in the set before.
    pub(super) fn insert(&mut self, id: NameId) -> bool {
        let is_new = !self.contains(id);
        self.0 |= 1 << id.0;
        is_new
    }

    /// Returns whether it was in the set before.
    pub(super) fn remove(&mut self, id: NameId) -> bool {
        let was_there = self.contains(id);
        self.0 &= !(1 << id.0);
        was_there
    }

    pub(super) fn len(self) -> u32 {
        self.0.count_ones()
    }
}

impl Label {
    pub(super) const NONE: Label = Label(u8::MAX);

    pub(super) fn name(self) -> Option<NameId> {
        (self != Label::NONE).then_some(NameId(self.0))
    }
}

impl From<NameId> for Label {
    fn from(NameId(id): NameId) -> Label {
        Label(id)
    }
}

impl Names {
    pub(super) fn find(&self, name: &[u8]) -> Option<NameId> {
        self.all().find(|(_, known)| known.head.name_bytes() == name).map(|(id, _)| id)
    }

    /// A name that has peers.
    pub(super) fn name(&self, NameId(id): NameId) -> &Name {
        self.slots[usize::from(id)].as_ref().expect("a name with peers")
    }

    pub(super) fn name_mut(&mut self, NameId(id): NameId) -> &mut Name {
        self.slots[usize::from(id)].as_mut().expect("a name with peers")
    }

    /// Adds a name without peers, if there is room.
    pub(super) fn add(&mut self, infohash: &InfoHash, name: &str) -> Option<NameId> {
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if free == MAX_NAMES {
            return None;
        }
        if free == self.slots.len() {
            self.slots.push(None);
        }
        self.count += 1;
        let head = Head::new(*infohash, name);
        let name = Name { head, age: self.count, peers: 0, seeders: 0, sites: 0, sum: 0, votes: 0 };
        self.slots[free] = Some(name);
        // There are no more than `MAX_NAMES`.
        u8::try_from(free).ok().map(NameId)
    }

    /// Removes a name.
    pub(super) fn remove(&mut self, NameId(id): NameId) {
        self.slots[usize::from(id)] = None;
        while self.slots.last().is_some_and(Option::is_none) {
            self.slots.pop();
        }
    }

    /// The name that makes room for one of a seeder whose site stands behind `own` names: one that no seeder has, or one of the
    /// site that stands behind most names, if these are more; of several, the newest. `names_of` returns how many that are.
    pub(super) fn weakest(&self, own: u32, names_of: impl Fn(Site) -> u32) -> Option<NameId> {
        let weakness = |name: &Name| match name.sites {
            0 => Some(u32::MAX),
            1 => Some(names_of(Site::of_number(name.sum))).filter(|&theirs| theirs > own),
            _ => None,
        };
        let weak = self.all().filter_map(|(id, name)| Some((weakness(name)?, name.age, id)));
        weak.max_by_key(|&(weakness, age, _)| (weakness, age)).map(|(.., id)| id)
    }

    /// The entries of the share in the list.
    pub(super) fn listed(&self, entries: &mut Entries) {
        for (entry, name) in entries.iter_mut().zip(&self.slots) {
            *entry = name.as_ref().map(|name| name.listed());
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (NameId, &Name)> {
        (0..).map(NameId).zip(&self.slots).filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }
}

impl Name {
    /// A site has its first seeder with this name.
    pub(super) fn add_site(&mut self, site: Site) {
        self.sites += 1;
        self.sum ^= site.number();
    }

    /// The last seeder with this name at a site is gone.
    pub(super) fn take_site(&mut self, site: Site) {
        self.sites -= 1;
        self.sum ^= site.number();
    }

    pub(super) fn add_vote(&mut self) {
        self.votes += 1;
    }

    pub(super) fn take_vote(&mut self) {
        self.votes -= 1;
    }

    /// The only site behind this name; `None` if there are several or none.
    pub(super) fn only_site(&self) -> Option<Site> {
        (self.sites == 1).then_some(Site::of_number(self.sum))
    }

    /// Peers, seeders and sites.
    pub(super) fn counts(&self) -> (u32, u32, u32) {
        (self.peers, self.seeders, self.sites)
    }

    fn listed(&self) -> Listed {
        Listed { head: self.head.clone(), votes: self.votes, seeders: self.seeders }
    }
}
