//! The shares, each with a position and found by its infohash.
//!
//! Positions are 0 to the number of shares. A share that goes leaves its position to the last one.

use std::{
    hash::BuildHasher,
    ops::{Index, IndexMut},
};

use foldhash::quality::RandomState;
use proto::InfoHash;

use super::{
    Share,
    head::Head,
    slots::{Slots, Tag},
};

/// The shares of a registry.
#[derive(Default)]
pub(super) struct Table {
    shares: Vec<(Head, Share)>,
    slots: Slots,
    state: RandomState,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.shares.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    /// Shares that there is room for.
    pub(super) fn capacity(&self) -> usize {
        self.slots.capacity().max(self.shares.capacity())
    }

    /// The position of a share.
    pub(super) fn find(&self, infohash: &InfoHash) -> Option<usize> {
        self.slots.places(self.tag(infohash)).find(|&share| self.shares[share].0.infohash() == infohash)
    }

    pub(super) fn get(&self, infohash: &InfoHash) -> Option<&Share> {
        self.find(infohash).map(|share| &self.shares[share].1)
    }

    /// The share at this position, if there is one, with its infohash and a name.
    pub(super) fn at(&self, share: usize) -> Option<&(Head, Share)> {
        self.shares.get(share)
    }

    pub(super) fn at_mut(&mut self, share: usize) -> Option<(&Head, &mut Share)> {
        self.shares.get_mut(share).map(|(head, share)| (&*head, share))
    }

    /// Adds a share that is not there yet, and returns its position.
    pub(super) fn insert(&mut self, head: Head, share: Share) -> usize {
        let (tag, position) = (self.tag(head.infohash()), self.shares.len());
        self.shares.push((head, share));
        self.slots.insert(tag, position);
        position
    }

    /// Removes a share. The last one takes its position.
    pub(super) fn swap_remove(&mut self, share: usize) -> Option<(Head, Share)> {
        let tag_at = |share: usize| Some(self.tag(self.shares.get(share)?.0.infohash()));
        let (last, tag) = (self.shares.len().checked_sub(1)?, tag_at(share)?);
        let last_tag = tag_at(last)?;
        self.slots.remove(tag, share);
        if last != share {
            self.slots.renumber(last_tag, last, share);
        }
        Some(self.shares.swap_remove(share))
    }

    /// Gives memory back that is not needed for this number of shares.
    pub(super) fn shrink_to(&mut self, room: usize) {
        self.shares.shrink_to(room);
        self.slots.shrink_to(room);
    }

    /// By which [`Table::guess`] finds a share.
    pub(super) fn tag(&self, InfoHash(infohash): &InfoHash) -> Tag {
        // As numbers, because bytes would be hashed by a function that can do any number of them.
        let half = |at: usize| u128::from_le_bytes(std::array::from_fn(|byte| infohash[at + byte]));
        Tag::from(self.state.hash_one((half(0), half(16))))
    }

    /// Requests the memory that [`Table::guess`] is going to read.
    pub(super) fn fetch(&self, tag: Tag) {
        self.slots.fetch(tag);
    }

    /// The first share with this tag. Sometimes that is another one. Finding out would mean waiting for its infohash.
    pub(super) fn guess(&self, tag: Tag) -> Option<usize> {
        self.slots.places(tag).next()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &(Head, Share)> {
        self.shares.iter()
    }
}

impl Index<usize> for Table {
    type Output = Share;

    fn index(&self, share: usize) -> &Share {
        &self.shares[share].1
    }
}

impl IndexMut<usize> for Table {
    fn index_mut(&mut self, share: usize) -> &mut Share {
        &mut self.shares[share].1
    }
}
