//! Counts to compare with the limits of a registry.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, Ipv6Addr},
};

use super::peer::Peer;

/// Counts of all registrations.
#[derive(Default)]
pub(super) struct Census {
    seeders: usize,
    leechers: usize,
    sources: Sources,
}

/// Registrations from each IPv4 address, and from each IPv6 network, that has any.
///
/// These are trees, because a million peers may have a million addresses. A tree took 21 bytes for each of a million IPv4
/// addresses, and by calculation takes 27 for IPv6. A hash map of both took 44 when it had just grown, and it pauses
/// requests to resize. Only peers that come, go or move are looked up here.
#[derive(Default)]
struct Sources {
    v4: BTreeMap<[u8; 4], u32>,
    /// By network, because a host with an IPv6 address usually has all 2^64 of its network.
    v6: BTreeMap<Network, u32>,
}

/// The first 64 bits of an IPv6 address.
type Network = [u8; 8];

impl Census {
    /// Counts a new registration.
    pub(super) fn enter(&mut self, peer: &Peer) {
        *self.group(peer) += 1;
        self.sources.add(peer.address());
    }

    /// Counts a registration that ended, which was counted before.
    pub(super) fn leave(&mut self, peer: &Peer) {
        *self.group(peer) -= 1;
        self.sources.take(peer.address());
    }

    /// Counts a change of a registration's address or completion.
    pub(super) fn change(&mut self, old: &Peer, new: &Peer) {
        if old.address() != new.address() || old.contact.is_seeder() != new.contact.is_seeder() {
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

    /// Registrations from an IPv4 address, or from the network (/64) of an IPv6 address.
    pub(super) fn registrations_from(&self, address: IpAddr) -> u32 {
        self.sources.count(address)
    }

    fn group(&mut self, peer: &Peer) -> &mut usize {
        if peer.contact.is_seeder() { &mut self.seeders } else { &mut self.leechers }
    }
}

impl Sources {
    fn add(&mut self, address: IpAddr) {
        let count = match address {
            IpAddr::V4(ip) => self.v4.entry(ip.octets()).or_default(),
            IpAddr::V6(ip) => self.v6.entry(network(ip)).or_default(),
        };
        *count += 1;
    }

    fn take(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(ip) => take_one(&mut self.v4, ip.octets()),
            IpAddr::V6(ip) => take_one(&mut self.v6, network(ip)),
        }
    }

    fn count(&self, address: IpAddr) -> u32 {
        let count = match address {
            IpAddr::V4(ip) => self.v4.get(&ip.octets()),
            IpAddr::V6(ip) => self.v6.get(&network(ip)),
        };
        count.copied().unwrap_or(0)
    }
}

fn network(ip: Ipv6Addr) -> Network {
    let [a, b, c, d, e, f, g, h, ..] = ip.octets();
    [a, b, c, d, e, f, g, h]
}

fn take_one<K: Ord>(counts: &mut BTreeMap<K, u32>, address: K) {
    if let Entry::Occupied(mut count) = counts.entry(address) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}
