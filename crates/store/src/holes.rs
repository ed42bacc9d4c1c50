//! Chunks of zeros: known by their hashes, so they are never received. In a file they are holes, which take no room.

use std::{fs::File, ops::Range, os::unix::fs::MetadataExt, sync::OnceLock};

use proto::{
    BLOCK_LEN, Bitfield, CHUNK_LEN, ChunkIndex, Digest, Metainfo, SMALL_CHUNK_LEN, chunk::ChunkSpace,
};
use rustix::{fs::SeekFrom, io::Errno};

use crate::{hashes::ChunkHashes, merkle};

/// Bytes in a block of [`MetadataExt::blocks`], on every file system.
const BLOCK_OF_STAT: u64 = 512;

/// The hash of a chunk of `len` zeros, whose tree has this many leaves. By `sha2`, the reference: a wrong one would be a chunk that
/// nobody accepts.
pub(crate) fn zero_hash(len: u32, leaf_count: u32) -> Digest {
    static WHOLE_CHUNKS: [OnceLock<Digest>; 2] = [const { OnceLock::new() }; 2];
    let hash = || merkle::chunk_hash_by_sha2(&vec![0; len as usize], leaf_count);
    let is_whole = len == leaf_count * BLOCK_LEN;
    match [SMALL_CHUNK_LEN, CHUNK_LEN].iter().position(|&whole| is_whole && len == whole) {
        Some(which) => *WHOLE_CHUNKS[which].get_or_init(hash),
        None => hash(),
    }
}

/// Whether a full chunk holds nothing but zeros, so that nobody asks for it. Short ones are not looked at.
pub fn is_zero_chunk(metainfo: &Metainfo, hashes: &ChunkHashes, chunk: ChunkIndex) -> bool {
    let space = metainfo.chunk_space();
    let Some(span) = space.span(chunk).filter(|span| span.len == space.chunk_len()) else {
        return false;
    };
    hashes.get(chunk) == Some(zero_hash(span.len, span.leaf_count))
}

/// Which of these chunks hold nothing but zeros. A short chunk counts only after another one of zeros: hashing zeros for each file
/// would take as long as hashing small files.
pub(crate) fn zero_chunks(metainfo: &Metainfo, hashes: &ChunkHashes, of: &Bitfield) -> Bitfield {
    let space = metainfo.chunk_space();
    let mut zeros = Bitfield::empty(space.chunk_count());
    for file in 0..metainfo.files().len() {
        let mut is_after_zeros = false;
        for chunk in space.chunks_of(file).map(ChunkIndex) {
            let Some(span) = space.span(chunk) else { continue };
            let is_worth_it = span.len == space.chunk_len() || is_after_zeros;
            is_after_zeros = is_worth_it && hashes.get(chunk) == Some(zero_hash(span.len, span.leaf_count));
            if is_after_zeros && of.contains(chunk) {
                zeros.insert(chunk);
            }
        }
    }
    zeros
}

/// The bytes of a file that no hole is left for, in order.
pub(crate) fn data_ranges(space: &ChunkSpace, file: usize, holes: &Bitfield) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for chunk in space.chunks_of(file).map(ChunkIndex).filter(|&chunk| !holes.contains(chunk)) {
        let Some(span) = space.span(chunk) else { continue };
        let range = span.offset..span.offset + u64::from(span.len);
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
    ranges
}

/// Bytes in these chunks.
pub(crate) fn total_len(space: &ChunkSpace, chunks: &Bitfield) -> u64 {
    chunks.iter().filter_map(|chunk| space.span(chunk)).map(|span| u64::from(span.len)).sum()
}

/// Whether a file may have holes: it takes less room than its length.
pub(crate) fn is_sparse(file: &File) -> bool {
    file.metadata().is_ok_and(|meta| meta.blocks().saturating_mul(BLOCK_OF_STAT) < meta.len())
}

/// Whether these bytes of a file are in a hole, as far as the file system reports it. Then they are zeros, and nothing has to be
/// read. The file must not be shorter.
pub(crate) fn is_hole(file: &File, offset: u64, len: u32) -> bool {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(data) => data >= offset + u64::from(len),
        // No data up to the end of the file.
        Err(Errno::NXIO) => file.metadata().is_ok_and(|meta| meta.len() >= offset + u64::from(len)),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, ops::ControlFlow, os::unix::fs::FileExt};

    use super::*;
    use crate::{
        Content, Scan, ScanRules,
        disk::{Call, faults},
    };

    const CHUNK: u64 = SMALL_CHUNK_LEN as u64;

    /// A file of this length with holes but for some bytes at these offsets, and its hashes.
    fn hashes(len: u64, data: &[u64], name: &str) -> (Metainfo, ChunkHashes) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        let file = File::create(&path).unwrap();
        file.set_len(len).unwrap();
        data.iter().for_each(|&at| file.write_all_at(b"data", at).unwrap());
        let scan = Scan::new(&path, None, &ScanRules::default()).unwrap();
        let shared = scan.hash(None, &|_| ControlFlow::Continue(())).unwrap();
        (shared.metainfo().clone(), shared.hashes().clone())
    }

    /// The hashes are those of the same file without holes.
    #[test]
    fn holes_are_hashed_without_reading() {
        for len in [CHUNK, CHUNK + 1, 3 * CHUNK, 7 * CHUNK + 16_385, 900, 70_000] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("f");
            fs::write(&path, vec![0; len as usize]).unwrap();
            let scan = || Scan::new(&path, None, &ScanRules::default()).unwrap();
            let written = scan().hash(None, &|_| ControlFlow::Continue(())).unwrap();
            File::create(&path).unwrap().set_len(len).unwrap();
            // So few chunks are hashed by one thread.
            faults::fail(Call::Read, Errno::IO, usize::MAX);
            let sparse = scan().hash(None, &|_| ControlFlow::Continue(())).unwrap();
            faults::end();
            assert_eq!(sparse.metainfo().infohash(), written.metainfo().infohash(), "{len}");
        }
    }

    #[test]
    fn the_hashes_of_chunks_of_zeros_are_on_the_protocols_page() {
        for len in [CHUNK_LEN, SMALL_CHUNK_LEN] {
            let hash = zero_hash(len, len / BLOCK_LEN).to_string();
            assert!(include_str!("../../../docs/protocol.md").contains(&hash), "{hash} in docs/protocol.md");
        }
    }

    #[test]
    fn chunks_of_zeros_are_known_by_their_hashes() {
        for (len, data, expected) in [
            (4 * CHUNK, &[][..], &[0, 1, 2, 3][..]),
            (4 * CHUNK, &[CHUNK, 3 * CHUNK - 4], &[0, 3]),
            (2 * CHUNK + 9, &[0], &[1, 2]),
            (2 * CHUNK + 9, &[CHUNK], &[0]),
            (CHUNK, &[], &[0]),
            (CHUNK - 1, &[], &[]),
        ] {
            let (metainfo, hashes) = hashes(len, data, "f");
            let space = metainfo.chunk_space();
            let all = Bitfield::full(space.chunk_count());
            let zeros = zero_chunks(&metainfo, &hashes, &all);
            assert_eq!(zeros.iter().map(|chunk| chunk.0).collect::<Vec<_>>(), expected, "{len}");
            let none = zero_chunks(&metainfo, &hashes, &Bitfield::empty(space.chunk_count()));
            assert_eq!(none.count(), 0);
            let filled: u64 = data_ranges(space, 0, &zeros).iter().map(|range| range.end - range.start).sum();
            assert_eq!(filled + total_len(space, &zeros), len);
        }
    }

    #[test]
    fn what_lies_between_holes_is_reserved_in_few_pieces() {
        let (metainfo, hashes) = hashes(6 * CHUNK + 5, &[0, CHUNK, 4 * CHUNK, 6 * CHUNK], "f");
        let space = metainfo.chunk_space();
        let zeros = zero_chunks(&metainfo, &hashes, &Bitfield::full(space.chunk_count()));
        assert_eq!(
            data_ranges(space, 0, &zeros),
            [0..2 * CHUNK, 4 * CHUNK..5 * CHUNK, 6 * CHUNK..6 * CHUNK + 5]
        );
    }
}
