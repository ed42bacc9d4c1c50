//! Counts to compare with the limits of a registry, and which sites have most registrations.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{
    crowded::Crowded,
    head::Head,
    peer::{Peer, Site},
};

/// Counts of all registrations.
pub(super) struct Census {
    seeders: usize,
    leechers: usize,
    sources: Sources,
    crowded: Crowded,
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
    /// Sites with this number of registrations count as crowded.
    pub(super) fn new(crowded_from: u32) -> Census {
        let crowded = Crowded::new(crowded_from);
        Census { seeders: 0, leechers: 0, sources: Sources::default(), crowded }
    }

    /// Counts a new registration in the share of `head`.
    pub(super) fn enter(&mut self, peer: &Peer, head: &Head) {
        *self.group(peer) += 1;
        let count = self.sources.add(peer.site());
        self.crowded.enter(peer.site(), count, head);
    }

    /// Counts a registration that ended, which was counted before.
    pub(super) fn leave(&mut self, peer: &Peer) {
        *self.group(peer) -= 1;
        let left = self.sources.take(peer.site());
        self.crowded.leave(peer.site(), left);
    }

    /// Counts a change of a registration's completion.
    pub(super) fn complete(&mut self, old: &Peer, new: &Peer) {
        *self.group(old) -= 1;
        *self.group(new) += 1;
    }

    pub(super) fn crowded(&self) -> &Crowded {
        &self.crowded
    }

    pub(super) fn crowded_mut(&mut self) -> &mut Crowded {
        &mut self.crowded
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
    /// Returns how many there are then.
    fn add(&mut self, site: Site) -> u32 {
        let count = match site.as_v4() {
            Some(address) => self.v4.entry(address).or_default(),
            None => self.v6.entry(site).or_default(),
        };
        *count += 1;
        *count
    }

    /// Returns how many are left.
    fn take(&mut self, site: Site) -> u32 {
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

fn take_one<K: Ord>(counts: &mut BTreeMap<K, u32>, address: K) -> u32 {
    let Entry::Occupied(mut count) = counts.entry(address) else { return 0 };
    *count.get_mut() -= 1;
    let left = *count.get();
    if left == 0 {
        count.remove();
    }
    left
}
