//! The list of shares, each under all its names.

use std::{
    borrow::Borrow,
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ops::Bound,
};

use proto::{InfoHash, tracker::Standing};

use super::{head::Head, names::MAX_NAMES};

/// The list of shares, in order of name and then standing.
#[derive(Default)]
pub(super) struct Directory {
    listed: BTreeSet<Listed>,
    /// How many shares have a name, of the names that several have.
    shared_names: BTreeMap<Name, u32>,
}

/// The entries of one share: one for each name.
pub(super) type Entries = [Option<Listed>; MAX_NAMES];

/// A share under one of its names.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) head: Head,
    pub(super) votes: u32,
    pub(super) seeders: u32,
}

/// A [`Head`] that is compared by its name alone.
struct Name(Head);

impl Listed {
    /// The place before all shares of a name.
    pub(super) fn before(name: &str) -> Listed {
        Listed { head: Head::new(InfoHash([0; 32]), name), votes: u32::MAX, seeders: u32::MAX }
    }

    /// The place of a share with this standing under a name.
    pub(super) fn at(name: &str, standing: Standing) -> Listed {
        let Standing { votes, seeders, infohash } = standing;
        Listed { head: Head::new(infohash, name), votes, seeders }
    }

    /// The order of UTF-8 is that of its bytes.
    fn key(&self) -> (&[u8], Reverse<u32>, Reverse<u32>, &InfoHash) {
        (self.head.name_bytes(), Reverse(self.votes), Reverse(self.seeders), self.head.infohash())
    }
}

impl Directory {
    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.listed.len()
    }

    /// Number of shares of a name.
    pub(super) fn named(&self, name: &[u8]) -> usize {
        match self.shared_names.get(name) {
            Some(&count) => count as usize,
            None => usize::from(self.has(name)),
        }
    }

    /// The first share from `from` on.
    pub(super) fn next(&self, from: Bound<Listed>) -> Option<&Listed> {
        self.listed.range((from, Bound::Unbounded)).next()
    }

    /// Whether this entry is in the list, in this place.
    pub(super) fn contains(&self, listed: &Listed) -> bool {
        self.listed.contains(listed)
    }

    /// Changes the entries of a share from `before` to `after`.
    pub(super) fn update(&mut self, before: &Entries, after: Entries) {
        for (before, after) in before.iter().zip(&after) {
            match (before, after) {
                // The name stays, so the share counts for it as before.
                (Some(before), Some(after)) if before.head == after.head && before != after => {
                    self.listed.remove(before);
                    self.listed.insert(after.clone());
                }
                (Some(before), after) if after.as_ref() != Some(before) => self.remove(before),
                _ => {}
            }
        }
        // After that, because a name may have moved to another place.
        for (before, after) in before.iter().zip(after) {
            match (before, after) {
                (Some(before), Some(after)) if before.head == after.head => {}
                (_, Some(after)) => self.insert(after),
                (_, None) => {}
            }
        }
    }

    fn insert(&mut self, listed: Listed) {
        if let Some(count) = self.shared_names.get_mut(listed.head.name_bytes()) {
            *count += 1;
        } else if self.has(listed.head.name_bytes()) {
            self.shared_names.insert(Name(listed.head.clone()), 2);
        }
        self.listed.insert(listed);
    }

    fn remove(&mut self, listed: &Listed) {
        self.listed.remove(listed);
        if let Entry::Occupied(mut count) = self.shared_names.entry(Name(listed.head.clone())) {
            *count.get_mut() -= 1;
            if *count.get() == 1 {
                count.remove();
            }
        }
    }

    /// Whether a share has this name.
    fn has(&self, name: &[u8]) -> bool {
        let Ok(text) = str::from_utf8(name) else { return false };
        let first = self.next(Bound::Included(Listed::before(text)));
        first.is_some_and(|first| first.head.name_bytes() == name)
    }
}

impl Ord for Listed {
    fn cmp(&self, other: &Listed) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Listed {
    fn partial_cmp(&self, other: &Listed) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.0.name_bytes()
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Name) -> Ordering {
        self.0.name_bytes().cmp(other.0.name_bytes())
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Name) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.0.name_bytes() == other.0.name_bytes()
    }
}

impl Eq for Name {}
