//! Ending the registrations that new lists do not allow.
//!
//! It goes from the last share to the first, a few at a time. A share that fills the gap of a dropped one has been checked already, and
//! new shares are checked when they come.

use super::{Registry, Share, journal::What};

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eviction {
    /// Shares from this place on have been checked.
    checked_from: usize,
    /// Registrations that were ended so far.
    pub ended: u64,
}

impl Registry {
    /// Begins to check all shares.
    pub fn begin_eviction(&self) -> Eviction {
        Eviction { checked_from: self.shares.len(), ended: 0 }
    }

    /// Checks `shares` shares at most, and ends `peers` registrations at most, except those of the last share that it checks. Returns
    /// where to go on, and whether that is the end.
    pub fn evict(&mut self, mut at: Eviction, shares: usize, peers: usize) -> (Eviction, bool) {
        let enough = at.ended + peers as u64;
        for _ in 0..shares {
            let Some(share) = at.checked_from.min(self.shares.len()).checked_sub(1) else {
                return (at, true);
            };
            at.checked_from = share;
            at.ended += self.evict_from(share);
            if at.ended >= enough {
                break;
            }
        }
        (at, false)
    }

    /// Ends the registrations in a share that are not allowed, and returns how many these are.
    fn evict_from(&mut self, share: usize) -> u64 {
        let Some(admission) = self.admission.clone() else { return 0 };
        let (head, Share { roster, .. }) = self.shares.at(share).expect("a share");
        let names = roster.listed(head).into_iter().flatten();
        let names = names.map(|listed| String::from_utf8_lossy(listed.head.name_bytes()).into_owned());
        let infohash = head.infohash();
        let (allowed, refused): (Vec<_>, Vec<_>) = names.partition(|name| admission.allows(infohash, name));
        let all_go = !admission.allows_infohash(infohash) || (allowed.is_empty() && !refused.is_empty());
        if refused.is_empty() && !all_go {
            return 0;
        }
        let mut ended = 0;
        // The loop goes down, so the peer that fills a gap has been checked.
        for place in (0..roster.len()).rev() {
            let (head, Share { roster, .. }) = self.shares.at(share).expect("a share");
            // A peer without a name goes with the last allowed one.
            if all_go || refused.iter().any(|name| roster.is_called(head, place, name)) {
                self.end(share, place, || What::NotAllowed);
                ended += 1;
            }
        }
        ended
    }
}
