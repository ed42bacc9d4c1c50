//! The outline of a metainfo: short sums of its sections, from which a leecher that has almost the same metainfo finds what differs.
//!
//! A metainfo is cut where its bytes say so, not at fixed lengths. So an entry that is added or removed changes the sections around it
//! and no others. An outline is one thirty-sixth of its metainfo.
//!
//! Nothing here proves anything. Sums are short, and a peer can send any. What is put together from sections has to have the share's
//! infohash, and otherwise the whole metainfo is fetched.

use std::{collections::HashMap, ops::Range, sync::LazyLock};

use sha2::Digest as _;

use crate::metainfo::MAX_METAINFO_LEN;

/// A section ends at the earliest after this number of bytes, so there are not too many.
pub const MIN_SECTION_LEN: u32 = 32;

/// A section ends at the latest after this number of bytes, so an answer has a largest size.
pub const MAX_SECTION_LEN: u32 = 1_024;

/// A section ends where this number of bits of the rolling hash are zero: on average after 256 bytes more than the minimum.
const BOUNDARY_BITS: u32 = 8;

/// The length that sections of arbitrary bytes have on average.
pub const MEAN_SECTION_LEN: u64 = MIN_SECTION_LEN as u64 + (1 << BOUNDARY_BITS);

/// Maximum sections of a metainfo.
pub const MAX_SECTIONS: u32 = MAX_METAINFO_LEN / MIN_SECTION_LEN;

/// Maximum sections that one request is about.
pub const SECTIONS_PER_REQUEST: u32 = u64::BITS;

/// The first bytes of the SHA-256 of a section.
pub type Sum = [u8; SUM_LEN as usize];

/// Bytes in a sum. Two of a million sections have the same by chance once in thirty million metainfos, which costs a round trip.
pub const SUM_LEN: u32 = 8;

/// Some of 64 sections that follow each other, one bit each; the lowest bit is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SectionSet {
    /// The section that the lowest bit stands for.
    pub first: u32,
    /// Which sections.
    pub bits: u64,
}

impl SectionSet {
    /// The sections, in order.
    pub fn sections(self) -> impl Iterator<Item = u32> {
        (0..SECTIONS_PER_REQUEST)
            .filter(move |bit| self.bits >> bit & 1 == 1)
            .map(move |bit| self.first + bit)
    }

    /// Whether it has a section, and a metainfo can have all of them.
    pub fn is_legal(self) -> bool {
        let last = SECTIONS_PER_REQUEST.checked_sub(self.bits.leading_zeros() + 1);
        last.is_some_and(|last| self.first.checked_add(last).is_some_and(|last| last < MAX_SECTIONS))
    }

    /// The bytes that these sections can have.
    pub fn lens(self) -> Range<u32> {
        self.bits.count_ones()..self.bits.count_ones() * MAX_SECTION_LEN + 1
    }
}

/// Where the sections of a metainfo end, and their sums.
#[derive(Debug, Clone)]
pub struct Outline {
    ends: Box<[u32]>,
    sums: Box<[Sum]>,
}

impl Outline {
    /// The outline of a metainfo, or of some of its sections one after the other.
    pub fn of(bytes: &[u8]) -> Outline {
        let (mut ends, mut sums, mut start) = (Vec::new(), Vec::new(), 0);
        while start < bytes.len() {
            let end = start + section_len(&bytes[start..]);
            sums.push(sum(&bytes[start..end]));
            // A metainfo is shorter than 4 GiB.
            ends.push(u32::try_from(end).unwrap_or(u32::MAX));
            start = end;
        }
        Outline { ends: ends.into(), sums: sums.into() }
    }

    /// The sums, in the order of the sections.
    pub fn sums(&self) -> &[Sum] {
        &self.sums
    }

    /// The bytes of a section, `None` if there is none of this number.
    pub fn range(&self, section: u32) -> Option<Range<usize>> {
        let section = section as usize;
        let start = section.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        Some(start as usize..*self.ends.get(section)? as usize)
    }
}

/// The length of the section that these bytes begin with.
fn section_len(bytes: &[u8]) -> usize {
    let most = bytes.len().min(MAX_SECTION_LEN as usize);
    let mut rolling = 0_u64;
    for (at, &byte) in bytes[..most].iter().enumerate() {
        rolling = (rolling << 1).wrapping_add(GEAR[byte as usize]);
        if at + 1 >= MIN_SECTION_LEN as usize && rolling >> (u64::BITS - BOUNDARY_BITS) == 0 {
            return at + 1;
        }
    }
    most
}

/// A number for each byte: the first 8 bytes of its SHA-256, big endian.
static GEAR: LazyLock<[u64; 256]> =
    LazyLock::new(|| std::array::from_fn(|byte| u64::from_be_bytes(sum(&[byte.to_le_bytes()[0]]))));

fn sum(bytes: &[u8]) -> Sum {
    let mut sum = Sum::default();
    sum.copy_from_slice(&sha2::Sha256::digest(bytes)[..SUM_LEN as usize]);
    sum
}

/// A metainfo that is put together from sections of another one and of a peer.
#[derive(Debug)]
pub struct Draft {
    sums: Vec<Sum>,
    sections: Vec<Option<Box<[u8]>>>,
}

/// The sections that a peer has sent are not those of its outline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sections that are not those of the outline")]
pub struct WrongSections;

impl Draft {
    /// Begins with the sections of `similar` that have their sum in a peer's outline.
    pub fn new(sums: Vec<Sum>, similar: &[u8]) -> Draft {
        let outline = Outline::of(similar);
        let places: HashMap<&Sum, u32> = outline.sums().iter().zip(0..).collect();
        let section = |sum: &Sum| Some(similar[outline.range(*places.get(sum)?)?].into());
        let sections = sums.iter().map(section).collect();
        Draft { sums, sections }
    }

    /// Number of sections, and how many of them are missing.
    pub fn len(&self) -> (usize, usize) {
        (self.sections.len(), self.sections.iter().filter(|section| section.is_none()).count())
    }

    /// What to request.
    pub fn missing(&self) -> Vec<SectionSet> {
        let mut sets: Vec<SectionSet> = Vec::new();
        for (section, _) in (0..).zip(&self.sections).filter(|(_, bytes)| bytes.is_none()) {
            match sets.last_mut() {
                Some(set) if section - set.first < SECTIONS_PER_REQUEST => {
                    set.bits |= 1 << (section - set.first);
                }
                _ => sets.push(SectionSet { first: section, bits: 1 }),
            }
        }
        sets
    }

    /// Takes sections that a peer has sent.
    pub fn fill(&mut self, set: SectionSet, bytes: &[u8]) -> Result<(), WrongSections> {
        let outline = Outline::of(bytes);
        if outline.sums().len() != set.bits.count_ones() as usize {
            return Err(WrongSections);
        }
        for (number, section) in (0..).zip(set.sections()) {
            let (at, range) = (section as usize, outline.range(number));
            let (Some(range), true) = (range, self.sums.get(at) == outline.sums().get(number as usize))
            else {
                return Err(WrongSections);
            };
            self.sections[at] = Some(bytes[range].into());
        }
        Ok(())
    }

    /// The metainfo, once no section is missing.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        let sections = self.sections.into_iter().collect::<Option<Vec<_>>>()?;
        Some(sections.concat())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Entries as a directory of many small files has them.
    fn entries(names: impl Iterator<Item = u32>) -> Vec<u8> {
        let root = |name: u32| sha2::Sha256::digest(name.to_be_bytes());
        names
            .flat_map(|name| [format!("5:{name:05}d0:d6:lengthi65536e").as_bytes(), &root(name)].concat())
            .collect()
    }

    /// Gives the draft what it lacks of `whole`.
    fn complete(mut draft: Draft, whole: &[u8]) -> (usize, Vec<u8>) {
        let outline = Outline::of(whole);
        let mut sent = 0;
        for set in draft.missing() {
            assert!(set.is_legal());
            let bytes: Vec<u8> =
                set.sections().flat_map(|section| whole[outline.range(section).unwrap()].to_vec()).collect();
            assert!(set.lens().contains(&(bytes.len() as u32)));
            sent += bytes.len();
            draft.fill(set, &bytes).unwrap();
        }
        (sent, draft.into_bytes().unwrap())
    }

    /// The numbers are part of the protocol: another program has to cut at the same places.
    #[test]
    fn the_sections_of_known_bytes() {
        let bytes = entries(0..40);
        let outline = Outline::of(&bytes);
        assert_eq!(format!("{:x?}", &GEAR[..2]), "[6e340b9cffb37a98, 4bf5122f344554c5]");
        assert_eq!(&*outline.ends, [89, 311, 433, 570, 635, 1109, 1543, 2155, 2230, 2320]);
        assert_eq!(outline.sums()[0], [0xdc, 0x7a, 0xd2, 0x61, 0xd4, 0x9c, 0x86, 0xd7]);
    }

    #[test]
    fn entries_that_change_come_or_go_cost_the_sections_around_them() {
        let before = entries(0..10_000);
        let after = entries((0..10_000).filter(|name| name % 1_000 != 7).chain(20_000..20_005));
        let draft = Draft::new(Outline::of(&after).sums().to_vec(), &before);
        let (sections, missing) = draft.len();
        assert!((after.len() / 300..after.len() / 250).contains(&sections), "{sections} of {}", after.len());
        assert!(missing < 35, "{missing}");
        let (sent, whole) = complete(draft, &after);
        assert!(sent < 12_000 && whole == after, "{sent}");
    }

    #[test]
    fn sections_that_are_not_those_of_the_outline_are_refused() {
        let bytes = entries(0..100);
        let outline = Outline::of(&bytes);
        let mut draft = Draft::new(outline.sums().to_vec(), &[]);
        let set = SectionSet { first: 0, bits: 0b101 };
        let section = |number| &bytes[outline.range(number).unwrap()];
        for wrong in
            [&[][..], section(0), &[section(0), section(1)].concat(), &[section(2), section(0)].concat()]
        {
            assert_eq!(draft.fill(set, wrong), Err(WrongSections));
        }
        // Right, and one more.
        let more = [section(0), section(2), section(3)].concat();
        assert_eq!(draft.fill(set, &more), Err(WrongSections));
        assert_eq!(draft.fill(SectionSet { first: u32::MAX, bits: 1 }, section(0)), Err(WrongSections));
        draft.fill(set, &[section(0), section(2)].concat()).unwrap();
        assert!(draft.into_bytes().is_none());
    }

    #[test]
    fn only_sections_that_a_metainfo_can_have_are_legal() {
        assert!(!SectionSet { first: 0, bits: 0 }.is_legal());
        assert!(SectionSet { first: MAX_SECTIONS - 1, bits: 1 }.is_legal());
        assert!(!SectionSet { first: MAX_SECTIONS - 1, bits: 2 }.is_legal());
        assert!(!SectionSet { first: u32::MAX, bits: 1 << 63 }.is_legal());
    }

    proptest! {
        #[test]
        fn any_bytes_are_put_together_from_any_others(
            one in proptest::collection::vec(any::<u8>(), 0..3_000),
            other in proptest::collection::vec(any::<u8>(), 0..3_000),
            cut in 0..3_000_usize,
        ) {
            let whole = [&one[..cut.min(one.len())], &other[..]].concat();
            let outline = Outline::of(&whole);
            prop_assert!(outline.sums().len() <= whole.len().div_ceil(MIN_SECTION_LEN as usize));
            let draft = Draft::new(outline.sums().to_vec(), &one);
            prop_assert_eq!(complete(draft, &whole).1, whole);
        }
    }
}
