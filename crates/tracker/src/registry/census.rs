//! Counts to compare with the limits of a registry.

use std::collections::{BTreeMap, btree_map::Entry};

use super::peer::{Peer, Site};

/// Counts of all registrations.
#[derive(Default)]
pub(super) struct Census {
    seeders: usize,
    leechers: usize,
    sources: Sources,
}

/// Registrations from each site that has any.
///
/// These are trees, because a million peers may have a million addresses. A tree took 21 bytes for each of a million IPv4
/// addresses, and by calculation takes 27 for IPv6. A hash map of both took 44 when it had just grown, and it pauses
/// requests to resize. Only peers that come, go or move are looked up here.
#[derive(Default)]
struct Sources {
    v4: BTreeMap<u32, u32>,
    v6: BTreeMap<Site, u32>,
}

impl Census {
    /// Counts a new registration.
    pub(super) fn enter(&mut self, peer: &Peer) {
        *self.group(peer) += 1;
        self.sources.add(peer.site());
    }

    /// Counts a registration that ended, which was counted before.
    pub(super) fn leave(&mut self, peer: &Peer) {
        *self.group(peer) -= 1;
        self.sources.take(peer.site());
    }

    /// Counts a change of a registration's address or completion.
    pub(super) fn change(&mut self, old: &Peer, new: &Peer) {
        if old.site() != new.site() || old.contact.is_seeder() != new.contact.is_seeder() {
            self.leave(old);
            self.enter(new);
        }
    }

    pub(super) fn seeders(&self) -> usize {
        self.seeders
    }

    pub(super) fn leechers(&self) -> usize {
        self.leechers
    }

    pub(super) fn peers(&self) -> usize {
        self.seeders + self.leechers
    }

    pub(super) fn registrations_from(&self, site: Site) -> u32 {
        self.sources.count(site)
    }

    fn group(&mut self, peer: &Peer) -> &mut usize {
        if peer.contact.is_seeder() { &mut self.seeders } else { &mut self.leechers }
    }
}

impl Sources {
    fn add(&mut self, site: Site) {
        let count = match site.as_v4() {
            Some(address) => self.v4.entry(address).or_default(),
            None => self.v6.entry(site).or_default(),
        };
        *count += 1;
    }

    fn take(&mut self, site: Site) {
        match site.as_v4() {
            Some(address) => take_one(&mut self.v4, address),
            None => take_one(&mut self.v6, site),
        }
    }

    fn count(&self, site: Site) -> u32 {
        let count = match site.as_v4() {
            Some(address) => self.v4.get(&address),
            None => self.v6.get(&site),
        };
        count.copied().unwrap_or(0)
    }
}

fn take_one<K: Ord>(counts: &mut BTreeMap<K, u32>, address: K) {
    if let Entry::Occupied(mut count) = counts.entry(address) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}
