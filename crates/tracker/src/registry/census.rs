//! What the limits of a registry are measured against.

use std::collections::HashMap;

use super::{address::Address, swarm::Peer};

/// Counts of all registrations.
#[derive(Default)]
pub(super) struct Census {
    seeders: usize,
    leechers: usize,
    /// Registrations from each address that has any.
    sources: HashMap<Address, u32>,
}

impl Census {
    /// Counts a new registration.
    pub(super) fn enter(&mut self, peer: &Peer) {
        *self.group(peer) += 1;
        *self.sources.entry(peer.address).or_default() += 1;
    }

    /// Counts a registration that ended. Every one of these has been counted before.
    pub(super) fn leave(&mut self, peer: &Peer) {
        *self.group(peer) -= 1;
        if let Some(count) = self.sources.get_mut(&peer.address) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&peer.address);
            }
        }
    }

    /// Counts a registration that says something new of itself.
    pub(super) fn change(&mut self, old: &Peer, new: &Peer) {
        if old.address != new.address || old.progress.is_complete() != new.progress.is_complete() {
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

    pub(super) fn registrations_from(&self, address: Address) -> u32 {
        self.sources.get(&address).copied().unwrap_or(0)
    }

    fn group(&mut self, peer: &Peer) -> &mut usize {
        if peer.progress.is_complete() { &mut self.seeders } else { &mut self.leechers }
    }
}
