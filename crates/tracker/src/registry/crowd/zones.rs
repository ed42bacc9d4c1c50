//! Where in a network the sites of a crowd are, as far as they say so.
//!
//! A site is in the zone that its peer in the front row gave last. So a party that controls k of the n sites of a zone gets k/n of what a
//! lookup draws from that zone, and no party fills the table of zones with fewer sites than it has rows.

use std::ops::Range;

use proto::Zone;
use rand::{Rng, RngExt};

use super::number;
use crate::registry::sample::sample;

/// Tenths of an answer that are drawn from the zone of who asks. The rest is drawn from all, so that zones stay connected.
const NEAR_TENTHS: usize = 9;

/// Maximum zones of a share, as many as a byte can name beside none. Others are treated as none.
const MAX_ZONES: usize = u8::MAX as usize;

/// Sites that one lookup looks at for those of a zone: 16 KiB. Of a larger crowd, it looks at as many from a
/// random one on.
const SEARCHED: usize = 16_384;

/// The zones of the sites of a crowd.
pub(super) struct Zones {
    rows: Vec<Row>,
    /// The zone of each site, by its place in the front row.
    of: Vec<ZoneId>,
}

/// A zone, and how many sites are in it. Without any, it is free for another zone.
struct Row {
    zone: Zone,
    sites: u32,
}

/// A place in [`Zones::rows`], plus one; 0 is no zone.
#[derive(Clone, Copy, PartialEq, Eq)]
struct ZoneId(u8);

const NOWHERE: ZoneId = ZoneId(0);

impl Zones {
    /// For this number of sites, which are in no zone yet.
    pub(super) fn new(sites: usize) -> Zones {
        Zones { rows: Vec::new(), of: vec![NOWHERE; sites] }
    }

    /// A site came, to the last place.
    pub(super) fn enter(&mut self) {
        self.of.push(NOWHERE);
    }

    /// A site left. The last one takes its place.
    pub(super) fn leave(&mut self, place: usize) {
        self.release(place);
        self.of.swap_remove(place);
    }

    /// Whether no site is in a zone.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.iter().all(|row| row.sites == 0)
    }

    /// The zone of a site.
    pub(super) fn at(&self, place: usize) -> Zone {
        self.row_of(place).map_or(Zone::NONE, |row| self.rows[row].zone)
    }

    /// A site is in this zone from now on.
    pub(super) fn set(&mut self, place: usize, zone: &Zone) {
        if self.row_of(place).is_some_and(|row| self.rows[row].zone == *zone) {
            return;
        }
        self.release(place);
        let row = match self.find(zone).or_else(|| self.rows.iter().position(|row| row.sites == 0)) {
            Some(row) => row,
            None if self.rows.len() < MAX_ZONES => {
                self.rows.push(Row { zone: *zone, sites: 0 });
                self.rows.len() - 1
            }
            None => return,
        };
        self.rows[row] = Row { zone: *zone, sites: self.rows[row].sites + 1 };
        self.of[place] = id_of(row);
    }

    /// Fills `places`, which has no more room than there are sites, for an answer to someone in this zone, without repeats. Every site of the
    /// zone is equally likely to be drawn for it, and every other site for the rest.
    pub(super) fn draw(&self, places: &mut [u32], zone: &Zone, rng: &mut impl Rng) {
        let window = self.window(rng);
        let near = self.find(zone).map(id_of);
        let places_near = || {
            let all = near.map(|_| window.clone()).into_iter().flatten().flatten();
            all.filter(|&place| Some(self.of[place]) == near)
        };
        let found = places_near().count();
        let (near, others) = places.split_at_mut(found.min(places.len() * NEAR_TENTHS / 10));
        sample(near, number(found), rng).sort_unstable();
        let mut rest = places_near().enumerate();
        for chosen in near.iter_mut() {
            let place = rest.find(|(ordinal, _)| ordinal == &(*chosen as usize));
            *chosen = place.map_or(0, |(_, place)| number(place));
        }
        near.sort_unstable();
        let left = number(self.of.len() - near.len());
        for other in sample(others, left, rng) {
            // It counts the places that are not drawn yet.
            near.iter().for_each(|&near| *other += u32::from(*other >= near));
        }
    }

    /// The places to look at, in two parts: from some place on, and from the first on.
    fn window(&self, rng: &mut impl Rng) -> [Range<usize>; 2] {
        let sites = self.of.len();
        if sites <= SEARCHED {
            return [0..sites, 0..0];
        }
        let from = rng.random_range(0..sites);
        let end = from + SEARCHED;
        [from..end.min(sites), 0..end.saturating_sub(sites)]
    }

    fn find(&self, zone: &Zone) -> Option<usize> {
        self.rows.iter().position(|row| row.sites > 0 && row.zone == *zone)
    }

    fn row_of(&self, place: usize) -> Option<usize> {
        let ZoneId(id) = self.of[place];
        usize::from(id).checked_sub(1)
    }

    fn release(&mut self, place: usize) {
        if let Some(row) = self.row_of(place) {
            self.rows[row].sites -= 1;
            self.of[place] = NOWHERE;
        }
    }

    /// Panics if an invariant does not hold.
    #[cfg(test)]
    pub(super) fn check(&self, sites: usize) {
        assert_eq!(self.of.len(), sites);
        for (row, Row { sites, .. }) in self.rows.iter().enumerate() {
            assert_eq!(self.of.iter().filter(|&&id| id == id_of(row)).count(), *sites as usize);
        }
    }
}

/// There are no more rows than [`MAX_ZONES`].
fn id_of(row: usize) -> ZoneId {
    ZoneId(u8::try_from(row + 1).unwrap_or(0))
}
