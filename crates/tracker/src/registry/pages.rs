//! Pages of the list of shares: all shares, or those of one name.

use std::{ops::Bound, time::Instant};

use proto::tracker::{ShareCursor, ShareEntry, Shares, Standing, message::MAX_SHARES};

use super::{Registry, Share, directory::Listed, head::Head, rules::Past, whole_seconds};

/// Maximum expired shares that one page of the list drops: a few milliseconds. There are more in one place only if all peers
/// expire at once, for example when the network was down. Then a sweep soon drops them.
pub const MAX_DROPPED: usize = 1_000;

/// Whether there are more shares than a page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Yes,
    No,
}

impl Registry {
    /// The shares called `name`, at most [`MAX_SHARES`] of them from after `after` on, best supported first, and whether there are
    /// more. `None` if too many expired shares are in the way: ask again.
    pub fn named(&mut self, name: impl AsRef<str>, after: Option<Standing>, now: Instant) -> Option<Shares> {
        let name = name.as_ref();
        let from = match after {
            Some(standing) => Bound::Excluded(Listed::at(name, standing)),
            None => Bound::Included(Listed::before(name)),
        };
        let total = self.directory.named(name.as_bytes());
        self.page(from, |head| head.name_bytes() == name.as_bytes(), total, now)
    }

    /// All shares, each under all its names, at most [`MAX_SHARES`] of them from after `after` on, by name and then as in
    /// [`Registry::named`], and whether there are more. `None` if too many expired shares are in the way: ask again.
    pub fn list<N: AsRef<str>>(&mut self, after: Option<ShareCursor<N>>, now: Instant) -> Option<Shares> {
        let listed = |cursor: ShareCursor<N>| Listed::at(cursor.name.as_ref(), cursor.standing);
        let from = after.map_or(Bound::Unbounded, |cursor| Bound::Excluded(listed(cursor)));
        self.page(from, |_| true, self.directory.len(), now)
    }

    fn page(
        &mut self,
        mut from: Bound<Listed>,
        belongs: impl Fn(&Head) -> bool,
        total: usize,
        now: Instant,
    ) -> Option<Shares> {
        // One more than fits, to know whether there are more.
        let mut page = Vec::with_capacity(MAX_SHARES + 1);
        let mut dropped = 0;
        while page.len() <= MAX_SHARES {
            let Some(listed) = self.directory.next(from).filter(|listed| belongs(&listed.head)).cloned()
            else {
                break;
            };
            // If expired peers of the share are dropped now, it may go to a later place, or be gone.
            let entry = self
                .live_share(listed.head.infohash(), now)
                .filter(|_| self.directory.contains(&listed))
                .and_then(|share| self.entry(share, &listed));
            match entry {
                Some(entry) => page.push(entry),
                None => dropped += 1,
            }
            if dropped > MAX_DROPPED {
                return if page.is_empty() {
                    None
                } else {
                    Some(self.shares_of(page, total, More::Yes, now))
                };
            }
            from = Bound::Excluded(listed);
        }
        let more = if page.len() > MAX_SHARES { More::Yes } else { More::No };
        page.truncate(MAX_SHARES);
        Some(self.shares_of(page, total, more, now))
    }

    /// What is sent of a share under one of its names.
    pub(super) fn entry(&self, share: usize, listed: &Listed) -> Option<ShareEntry> {
        let Listed { head, votes, .. } = listed;
        let Share { size, roster } = &self.shares[share];
        let (seeders, leechers, sites) = roster.counts_of(head.name_bytes());
        let (infohash, name) = (*head.infohash(), head.name()?);
        let completed = self.finishers.count(&infohash);
        Some(ShareEntry { infohash, name, size: *size, seeders, leechers, sites, votes: *votes, completed })
    }

    fn shares_of(&self, shares: Vec<ShareEntry>, total: usize, more: More, now: Instant) -> Shares {
        let settles_in_s = self.clock.settles_in_s(now);
        let restarted_ago_s =
            (self.rules.past == Past::Peers && settles_in_s > 0).then(|| whole_seconds(self.clock.age(now)));
        // No more than the peers, and these are counted by a `u32`.
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        Shares { settles_in_s, restarted_ago_s, total, shares, more: more == More::Yes, peers: None }
    }
}
