//! An index of places by hash.
//!
//! It is as small as an index can be that answers most questions with one access to memory, and that access can be requested ahead. No
//! common hash map offers that. It knows hashes only: whoever asks compares what is at the places that it names.

use prefetch_index::prefetch_index;

/// The upper half of a hash. Different things seldom have the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tag(u32);

/// Places by their tags.
///
/// Invariant: a place is in the first free slot from that on which its tag begins with, or was when it came. Between the two no slot is
/// free. So the slots are in the order of their tags, apart from what goes round at the end.
pub(super) struct Slots {
    /// A power of two of them, so that the first bits of a tag are the number of a slot. A quarter at least is free.
    slots: Vec<Slot>,
    len: usize,
}

/// A tag, and below it a place plus one. Zero is free.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Slot(u64);

/// Slots at least.
const MIN_SLOTS: usize = 16;

impl From<u64> for Tag {
    fn from(hash: u64) -> Tag {
        Tag((hash >> u32::BITS) as u32)
    }
}

impl Slot {
    const FREE: Slot = Slot(0);

    fn new(Tag(tag): Tag, place: usize) -> Slot {
        Slot(u64::from(tag) << u32::BITS | (place as u64 + 1))
    }

    fn tag(self) -> Tag {
        Tag::from(self.0)
    }

    /// The place, if this is not free.
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    fn place(self) -> usize {
        (self.0 as u32 as usize).wrapping_sub(1)
    }
}

impl Default for Slots {
    fn default() -> Slots {
        Slots { slots: vec![Slot::FREE; MIN_SLOTS], len: 0 }
    }
}

impl Slots {
    /// Places that there is room for.
    pub(super) fn capacity(&self) -> usize {
        self.slots.len() / 4 * 3
    }

    /// Requests the memory that a search for this tag begins with.
    pub(super) fn fetch(&self, tag: Tag) {
        prefetch_index(&self.slots, self.home(tag));
    }

    /// The places with this tag.
    pub(super) fn places(&self, tag: Tag) -> impl Iterator<Item = usize> {
        self.from(self.home(tag)).map(|(_, slot)| slot).filter(move |slot| slot.tag() == tag).map(Slot::place)
    }

    /// Adds a place, which is less than 2³² - 1.
    pub(super) fn insert(&mut self, tag: Tag, place: usize) {
        if self.len >= self.capacity() {
            self.resize(self.slots.len() * 2);
        }
        self.put(Slot::new(tag, place));
        self.len += 1;
    }

    /// A place with this tag got another number.
    pub(super) fn renumber(&mut self, tag: Tag, from: usize, to: usize) {
        if let Some(at) = self.find(tag, from) {
            self.slots[at] = Slot::new(tag, to);
        }
    }

    /// Removes a place with this tag.
    pub(super) fn remove(&mut self, tag: Tag, place: usize) {
        let Some(mut free) = self.find(tag, place) else { return };
        self.slots[free] = Slot::FREE;
        self.len -= 1;
        // Those behind move up, each if the free slot is not before its home.
        let mask = self.slots.len() - 1;
        let mut at = free;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot == Slot::FREE {
                break;
            }
            let home = self.home(slot.tag());
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(free) & mask {
                (self.slots[free], self.slots[at]) = (slot, Slot::FREE);
                free = at;
            }
        }
    }

    /// Gives memory back that is not needed for this number of places.
    pub(super) fn shrink_to(&mut self, room: usize) {
        let slots = (room.max(self.len) * 4 / 3 + 1).next_power_of_two().max(MIN_SLOTS);
        if slots < self.slots.len() {
            self.resize(slots);
        }
    }

    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::FREE; slots]);
        old.into_iter().filter(|&slot| slot != Slot::FREE).for_each(|slot| self.put(slot));
    }

    fn put(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = self.home(slot.tag());
        while self.slots[at] != Slot::FREE {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    fn find(&self, tag: Tag, place: usize) -> Option<usize> {
        let slot = Slot::new(tag, place);
        self.from(self.home(tag)).find(|&(_, other)| other == slot).map(|(at, _)| at)
    }

    /// The slots from this one on, up to the next that is free.
    fn from(&self, first: usize) -> impl Iterator<Item = (usize, Slot)> {
        let mask = self.slots.len() - 1;
        let slots = (first..).map(move |at| (at & mask, self.slots[at & mask]));
        slots.take_while(|&(_, slot)| slot != Slot::FREE)
    }

    /// The slot that a search for this tag begins at.
    fn home(&self, Tag(tag): Tag) -> usize {
        let bits = self.slots.len().trailing_zeros();
        (u64::from(tag) << bits >> u32::BITS) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u32, usize),
        Remove(usize),
        Renumber(usize, usize),
        Shrink(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Few tags, and those at both ends, so that many share a slot and some go round.
        let tag = prop_oneof![0..3_u32, (0..40_u32).prop_map(|part| part << 26), u32::MAX - 2..=u32::MAX];
        let step = prop_oneof![
            6 => (tag, 0..1_000_usize).prop_map(|(tag, place)| Step::Insert(tag, place)),
            4 => any::<usize>().prop_map(Step::Remove),
            1 => (any::<usize>(), 1_000..2_000_usize).prop_map(|(which, to)| Step::Renumber(which, to)),
            1 => (0..40_usize).prop_map(Step::Shrink),
        ];
        prop::collection::vec(step, 0..300)
    }

    proptest! {
        #[test]
        fn it_has_what_was_inserted_and_not_removed(steps in steps()) {
            let (mut slots, mut model) = (Slots::default(), BTreeSet::new());
            for step in steps {
                let nth = |which: usize| model.iter().nth(which % model.len().max(1)).copied();
                match step {
                    Step::Insert(tag, place) => {
                        if model.insert((tag, place)) {
                            slots.insert(Tag(tag), place);
                        }
                    }
                    Step::Remove(which) => {
                        let Some((tag, place)) = nth(which) else { continue };
                        slots.remove(Tag(tag), place);
                        model.remove(&(tag, place));
                    }
                    Step::Renumber(which, to) => {
                        let Some((tag, place)) = nth(which) else { continue };
                        if model.insert((tag, to)) {
                            slots.renumber(Tag(tag), place, to);
                            model.remove(&(tag, place));
                        }
                    }
                    Step::Shrink(room) => slots.shrink_to(room),
                }
                prop_assert_eq!(slots.len, model.len());
                prop_assert!(slots.len <= slots.capacity() && slots.capacity() < slots.slots.len());
                let tags: BTreeSet<u32> = model.iter().map(|&(tag, _)| tag).chain([7, 7 << 26]).collect();
                for tag in tags {
                    let found: BTreeSet<_> = slots.places(Tag(tag)).map(|place| (tag, place)).collect();
                    prop_assert_eq!(&found, &model.range((tag, 0)..=(tag, usize::MAX)).copied().collect());
                }
            }
        }
    }
}
