//! One vote for each site and name.
//!
//! Names and registrations are free, addresses are not. So each site votes for one share of each name: the first that a seeder of
//! the site announced under it. With k sites, an attacker can give k shares a vote, with any number of registrations. His other
//! shares of that name are listed after all shares that have one.
//!
//! A vote is kept as a hash of the name and the site. A million of them take 14 MB. If two hashes are the same by chance, one of
//! the two has no vote. Nobody can look for such a pair, because the hash has a random key.

use std::{collections::BTreeSet, hash::BuildHasher};

use foldhash::quality::RandomState;

use super::peer::Site;

/// The votes that are held.
#[derive(Default)]
pub(super) struct Votes {
    key: RandomState,
    /// A tree and no hash map, which would pause requests to resize.
    held: BTreeSet<u64>,
}

impl Votes {
    /// Takes the vote of `site` for `name`, if it is free. The caller then holds it until [`Votes::withdraw`].
    pub(super) fn cast(&mut self, name: &[u8], site: Site) -> bool {
        self.held.insert(self.number(name, site))
    }

    /// Frees a vote that the caller held.
    pub(super) fn withdraw(&mut self, name: &[u8], site: Site) {
        let number = self.number(name, site);
        self.held.remove(&number);
    }

    /// Number of votes that are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    fn number(&self, name: &[u8], site: Site) -> u64 {
        self.key.hash_one((name, site.number()))
    }
}
