//! Ways in for the fuzz targets (`fuzz/`), which are outside of this crate.
//!
//! The decoders of files are private, because only this crate has such files. So this module exists only in builds for fuzzing.
//! A feature of the crate would do the same, but anybody could switch it on, and it would be part of what the crate offers.

/// The resume file.
pub mod resume {
    use std::ops::Range;

    use proto::{Bitfield, InfoHash};

    use crate::resume;

    /// Bytes of a slot before the bitfield.
    pub const HEADER_LEN: usize = resume::HEADER_LEN;

    /// Where a slot says how many chunks the share has.
    pub const CHUNK_COUNT: Range<usize> = 40..44;

    /// The infohash, the sequence number and the claims of a slot, if it is intact.
    pub fn decode_slot(bytes: &[u8]) -> Option<(InfoHash, u64, Bitfield)> {
        resume::decode_slot(bytes).map(|slot| (slot.infohash, slot.sequence, slot.claims))
    }

    /// A slot.
    pub fn encode_slot(infohash: InfoHash, sequence: u64, claims: &Bitfield) -> Vec<u8> {
        resume::encode_slot(infohash, sequence, claims)
    }
}

/// The hash cache. A file is given as the numbers in the header of its entry.
pub mod hash_cache {
    use proto::{CHUNK_LEN, Digest};

    use crate::{
        cache,
        identity::{ChangeTime, FileIdentity},
    };

    /// Which of the numbers of a file is its length in bytes.
    pub const LEN: usize = 2;

    /// The hashes in an entry of this file, if it is intact and of chunks of the usual length.
    pub fn decode_entry(file: [i64; 7], bytes: &[u8]) -> Option<Vec<Digest>> {
        let (identity, changed) = identify(file);
        cache::decode_entry(bytes, &identity, changed, CHUNK_LEN)
    }

    /// An entry of this file.
    pub fn encode_entry(file: [i64; 7], hashes: &[Digest]) -> Vec<u8> {
        let (identity, changed) = identify(file);
        cache::encode_entry(&identity, changed, hashes)
    }

    /// The header of an entry of this file.
    pub fn header(file: [i64; 7]) -> Vec<u8> {
        let (identity, changed) = identify(file);
        cache::header(&identity, changed)
    }

    fn identify([device, inode, len, mtime_s, mtime_ns, s, ns]: [i64; 7]) -> (FileIdentity, ChangeTime) {
        let [device, inode, len] = [device, inode, len].map(i64::cast_unsigned);
        (FileIdentity { device, inode, len, mtime_s, mtime_ns }, ChangeTime { s, ns })
    }
}

/// Records of what downloads proved.
pub mod proofs {
    use crate::proofs::{Record, decode_record, encode_record};

    /// What is in a record, if it is intact, as a record again.
    pub fn encoded_again(bytes: &[u8]) -> Option<Vec<u8>> {
        let Record { metainfo, hashes, states } = decode_record(bytes)?;
        encode_record(&metainfo, &hashes, &states)
    }
}
