//! The parts in which a description (metainfo and chunk hashes) travels.

use std::ops::Range;

use super::{MAX_HASHES, MAX_PART_LEN};
use crate::{ChunkIndex, Metainfo};

/// Maximum number of known hashes that are sent again because they lie between unknown ones. A second part would take more bytes.
const MAX_GAP: u32 = 64;

/// A part of a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DescriptionPart {
    /// A part of the metainfo.
    Metainfo {
        /// Its first byte.
        offset: u32,
    },
    /// The hashes of a range of chunks.
    Hashes {
        /// The first chunk.
        first: ChunkIndex,
        /// Number of chunks.
        count: u32,
    },
}

/// The parts of a share's description, in the order in which they are requested and sent. Each is found when it is asked for, so the
/// first parts of a share of many files cost little.
pub fn description_parts(metainfo: &Metainfo) -> impl Iterator<Item = DescriptionPart> + '_ {
    // A metainfo is at most `MAX_METAINFO_LEN` bytes long.
    let len = u32::try_from(metainfo.as_bytes().len()).unwrap_or(u32::MAX);
    let offsets = (0..len).step_by(MAX_PART_LEN as usize);
    offsets.map(|offset| DescriptionPart::Metainfo { offset }).chain(unknown_hashes(metainfo).map(|range| {
        DescriptionPart::Hashes { first: ChunkIndex(range.start), count: range.end - range.start }
    }))
}

/// The chunks whose hashes are not in the metainfo, in as few ranges as possible. (The hash of a file with one chunk is.)
pub fn unknown_hashes(metainfo: &Metainfo) -> impl Iterator<Item = Range<u32>> + '_ {
    let space = metainfo.chunk_space();
    let files = (0..metainfo.files().len()).map(|file| space.chunks_of(file));
    UnknownHashes { files: files.filter(|chunks| chunks.len() > 1), last: None, rest: 0..0 }
}

struct UnknownHashes<F> {
    /// The chunks of each file that has several and was not looked at.
    files: F,
    /// The last range so far. The next file may make it longer.
    last: Option<Range<u32>>,
    /// Chunks of the last file that are in no range yet.
    rest: Range<u32>,
}

impl<F: Iterator<Item = Range<u32>>> Iterator for UnknownHashes<F> {
    type Item = Range<u32>;

    fn next(&mut self) -> Option<Range<u32>> {
        loop {
            if self.rest.is_empty() {
                let Some(chunks) = self.files.next() else { return self.last.take() };
                let mut start = chunks.start;
                if let Some(last) = &mut self.last
                    && chunks.start - last.end <= MAX_GAP
                {
                    last.end = chunks.end.min(last.start + MAX_HASHES);
                    start = start.max(last.end);
                }
                self.rest = start..chunks.end;
            } else {
                let end = self.rest.end.min(self.rest.start + MAX_HASHES);
                let range = self.rest.start..end;
                self.rest.start = end;
                if let Some(complete) = self.last.replace(range) {
                    return Some(complete);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        CHUNK_LEN, Digest, SMALL_CHUNK_LEN, ShareName,
        chunk::SMALL_SHARE_LEN,
        metainfo::{FileNode, Node, Tree},
    };

    fn directory(chunk_counts: &[u64]) -> Metainfo {
        let is_small = chunk_counts.iter().sum::<u64>() * u64::from(SMALL_CHUNK_LEN) < SMALL_SHARE_LEN;
        let chunk_len = u64::from(if is_small { SMALL_CHUNK_LEN } else { CHUNK_LEN });
        let file = |chunks| FileNode::new(chunks * chunk_len, Some(Digest([7; 32])));
        let entries: BTreeMap<_, _> = chunk_counts
            .iter()
            .enumerate()
            .map(|(number, &chunks)| {
                (ShareName::new(&format!("{number:05}")).unwrap(), Node::File(file(chunks)))
            })
            .collect();
        Metainfo::new(ShareName::new("d").unwrap(), Tree::Directory(entries)).unwrap()
    }

    #[test]
    fn hashes_are_in_few_ranges_and_those_that_are_known_are_left_out() {
        let ranges = |chunk_counts: &[u64]| {
            let metainfo = directory(chunk_counts);
            unknown_hashes(&metainfo).map(|range| (range.start, range.end)).collect::<Vec<_>>()
        };
        assert_eq!(ranges(&[1, 1, 1]), []);
        assert_eq!(ranges(&[1, 3, 1, 2]), [(1, 7)]);
        assert_eq!(ranges(&[2; 9_000]), [(0, 8_192), (8_192, 16_384), (16_384, 18_000)]);
        assert_eq!(ranges(&[2, 20_000]), [(0, 8_192), (8_192, 16_384), (16_384, 20_002)]);
        assert_eq!(ranges(&[20_000, 2]), [(0, 8_192), (8_192, 16_384), (16_384, 20_002)]);
        assert_eq!(ranges(&[8_192, 1, 8_190, 1, 3]), [(0, 8_192), (8_193, 16_385), (16_385, 16_387)]);
        let mut far_apart = vec![1; 102];
        (far_apart[0], far_apart[101]) = (2, 2);
        assert_eq!(ranges(&far_apart), [(0, 2), (102, 104)]);
    }

    #[test]
    fn the_metainfo_comes_before_the_hashes() {
        let metainfo = directory(&[2; 9_000]);
        let parts: Vec<_> = description_parts(&metainfo).collect();
        let offsets = metainfo.as_bytes().len().div_ceil(MAX_PART_LEN as usize);
        assert_eq!(parts.len(), offsets + 3);
        assert_eq!(parts[1], DescriptionPart::Metainfo { offset: MAX_PART_LEN });
        assert_eq!(parts[offsets], DescriptionPart::Hashes { first: ChunkIndex(0), count: MAX_HASHES });
    }
}
