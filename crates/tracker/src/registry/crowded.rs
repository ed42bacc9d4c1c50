//! The sites with most registrations, which make room when the tracker is full.
//!
//! A site is crowded while it has a certain number of registrations. Crowded sites are ordered by how many they have. For each of
//! them the shares in which it registered since it is crowded are kept, so one of its peers is found without a search.
//!
//! Invariant: of the registrations of a crowded site, fewer than make it crowded are in shares that are not kept here. So at least
//! one is in a share that is. Shares that the site has left may be kept too, but only in proportion to its registrations
//! ([`Crowded::tidy`]).
//!
//! For each registration of a crowded site this takes 8 bytes and what a list has in reserve. Other sites take nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proto::InfoHash;

use super::{head::Head, peer::Site};

/// A list of shares is tidied when it has this many times as many as the site has registrations.
const SPARE: usize = 2;

/// The crowded sites.
pub(super) struct Crowded {
    from: u32,
    order: BTreeSet<(u32, Site)>,
    shares: BTreeMap<Site, VecDeque<Head>>,
}

impl Crowded {
    /// Sites are crowded from this number of registrations on.
    pub(super) fn new(from: u32) -> Crowded {
        Crowded { from: from.max(1), order: BTreeSet::new(), shares: BTreeMap::new() }
    }

    /// A site has `count` registrations, of which the newest is in the share of `head`.
    pub(super) fn enter(&mut self, site: Site, count: u32, head: &Head) {
        if count < self.from {
            return;
        }
        self.order.remove(&(count - 1, site));
        self.order.insert((count, site));
        let shares = self.shares.entry(site).or_default();
        if shares.back().is_none_or(|last| last.infohash() != head.infohash()) {
            shares.push_back(head.clone());
        }
    }

    /// A site has lost one of its registrations, and has `left`.
    pub(super) fn leave(&mut self, site: Site, left: u32) {
        if !self.order.remove(&(left + 1, site)) {
            return;
        }
        if left < self.from {
            self.shares.remove(&site);
        } else {
            self.order.insert((left, site));
        }
    }

    /// The site with most registrations, if it is crowded and they are more than `than`.
    pub(super) fn most_crowded(&self, than: u32) -> Option<Site> {
        self.order.last().filter(|&&(count, _)| count > than).map(|&(_, site)| site)
    }

    /// Whether this site, which has `count` registrations, is crowded.
    pub(super) fn contains(&self, site: Site, count: u32) -> bool {
        self.order.contains(&(count, site))
    }

    /// The share in which a crowded site registered last. It may have left it since.
    pub(super) fn last_share(&self, site: Site) -> Option<InfoHash> {
        Some(*self.shares.get(&site)?.back()?.infohash())
    }

    /// Forgets the last share of a site, which is not there any more.
    pub(super) fn forget_last_share(&mut self, site: Site) {
        if let Some(shares) = self.shares.get_mut(&site) {
            shares.pop_back();
        }
    }

    /// Makes the last share of a site its first.
    pub(super) fn turn(&mut self, site: Site) {
        if let Some(shares) = self.shares.get_mut(&site) {
            shares.rotate_right(1.min(shares.len()));
        }
    }

    /// Forgets the shares that a site has left, if they may be many.
    pub(super) fn tidy(&mut self, site: Site, count: u32, is_in: impl Fn(&InfoHash) -> bool) {
        let Some(shares) = self.shares.get_mut(&site) else { return };
        let enough = (count as usize).saturating_mul(SPARE).saturating_add(self.from as usize);
        if shares.len() <= enough {
            return;
        }
        let mut met = BTreeSet::new();
        shares.retain(|head| is_in(head.infohash()) && met.insert(*head.infohash()));
        shares.shrink_to(SPARE * shares.len());
    }

    /// Number of shares that are kept for a site.
    #[cfg(test)]
    pub(super) fn kept(&self, site: Site) -> usize {
        self.shares.get(&site).map_or(0, VecDeque::len)
    }

    /// The sites and their counts, fewest first.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, Site)> {
        self.order.iter().copied()
    }
}
