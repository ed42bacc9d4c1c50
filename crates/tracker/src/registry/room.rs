//! Room for a new registration, and who makes it.
//!
//! If a share is full, a newcomer of a site that is not there takes the place of one of a site with several peers in it. If the
//! tracker is full, a newcomer takes the place of the newest registration of the site that has most of all, if that has at least two
//! more than the newcomer's. So an attacker who fills the tracker keeps out only those whose addresses have as many registrations
//! as his. Sites with few registrations make no room in this way ([`Limits::crowded_from`](super::Limits::crowded_from)).

use proto::tracker::{Announce, ErrorCode, Limit};

use super::{
    Registry,
    journal::What,
    peer::{Peer, Site},
};

/// Shares of the most crowded site to look at when there are too many shares, and maximum peers of one that is dropped. In a tracker
/// that is full of shares by default limits, shares have four peers on average at most.
const SHARES_TRIED: usize = 16;
const MAX_DROPPED_PEERS: usize = 8;

impl Registry {
    /// Makes room for a new registration where a limit is in its way. Returns the position of its share, which may have changed.
    pub(super) fn make_room<N: AsRef<str>>(
        &mut self,
        mut share: Option<usize>,
        announce: &Announce<N>,
        peer: &Peer,
    ) -> Result<Option<usize>, ErrorCode> {
        // It ends, because there is one peer less each time.
        while let Some(limit) = self.limit_for(share, peer) {
            let has_made_room = match limit {
                Limit::Address => false,
                Limit::Share => self.displace_in(share, peer),
                Limit::Shares => self.displace_share(peer),
                Limit::Tracker => self.displace_crowded(peer) || self.displace_in(share, peer),
            };
            if !has_made_room {
                self.journal.note(&announce.infohash, peer, || What::Refused(limit));
                return Err(ErrorCode::Full(limit));
            }
            share = self.shares.find(&announce.infohash);
        }
        Ok(share)
    }

    /// The limit that is in the way of a new registration.
    fn limit_for(&self, share: Option<usize>, peer: &Peer) -> Option<Limit> {
        let limits = &self.rules.limits;
        let in_share = share.map_or(0, |share| self.shares[share].roster.len());
        // Limits that the peer itself can change come first.
        let at_site = share.map_or(0, |share| self.shares[share].roster.peers_at(peer.site()));
        if self.census.registrations_from(peer.site()) >= limits.registrations_per_ip
            || at_site >= limits.peers_per_site
        {
            Some(Limit::Address)
        } else if reached(in_share, limits.peers_per_share) {
            Some(Limit::Share)
        } else if share.is_none() && reached(self.shares.len(), limits.shares) {
            Some(Limit::Shares)
        } else if reached(self.census.peers(), limits.peers) {
            Some(Limit::Tracker)
        } else {
            None
        }
    }

    /// Ends a registration of a site that has several in this share, if the newcomer's site has none.
    fn displace_in(&mut self, share: Option<usize>, newcomer: &Peer) -> bool {
        let Some(share) = share.filter(|&share| !self.shares[share].roster.has_site(newcomer.site())) else {
            return false;
        };
        let Some(place) = self.shares[share].roster.crowded() else { return false };
        self.end(share, place, || What::Displaced);
        true
    }

    /// Ends the newest registration of the most crowded site.
    fn displace_crowded(&mut self, newcomer: &Peer) -> bool {
        let Some(site) = self.more_crowded_than(newcomer) else { return false };
        while let Some(infohash) = self.census.crowded().last_share(site) {
            let share = self.shares.find(&infohash);
            let newest = share.and_then(|share| Some((share, self.shares[share].roster.newest_at(site)?)));
            if let Some((share, place)) = newest {
                self.end(share, place, || What::Displaced);
                return true;
            }
            self.census.crowded_mut().forget_last_share(site);
        }
        false
    }

    /// Drops a share of the most crowded site, if no other site is in it than such as are more crowded than the newcomer's.
    fn displace_share(&mut self, newcomer: &Peer) -> bool {
        let Some(site) = self.more_crowded_than(newcomer) else { return false };
        let own = self.census.registrations_from(newcomer.site());
        for _ in 0..SHARES_TRIED {
            let Some(infohash) = self.census.crowded().last_share(site) else { return false };
            let share = self.shares.find(&infohash).map(|share| (share, &self.shares[share].roster));
            let Some((share, roster)) = share.filter(|(_, roster)| roster.has_site(site)) else {
                self.census.crowded_mut().forget_last_share(site);
                continue;
            };
            let is_crowded = |site| {
                let count = self.census.registrations_from(site);
                count > own + 1 && self.census.crowded().contains(site, count)
            };
            let peers = roster.len();
            if peers <= MAX_DROPPED_PEERS && roster.sites().all(is_crowded) {
                (0..peers).rev().for_each(|place| self.end(share, place, || What::Displaced));
                return true;
            }
            self.census.crowded_mut().turn(site);
        }
        false
    }

    /// The most crowded site, if it has at least two registrations more than the newcomer's. Otherwise the two would only change places.
    fn more_crowded_than(&self, newcomer: &Peer) -> Option<Site> {
        let own = self.census.registrations_from(newcomer.site());
        self.census.crowded().most_crowded(own.saturating_add(1))
    }
}

fn reached(count: usize, limit: u32) -> bool {
    u32::try_from(count).map_or(true, |count| count >= limit)
}
