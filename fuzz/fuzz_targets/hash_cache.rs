//! An entry of the hash cache, which any program of the same user can change.
//!
//! An entry counts only for the file that it names, with the right number of hashes and the right checksum, which this target also
//! sets right.
//!
//! Decodes: store/src/cache.rs: fn decode_entry

#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::CHUNK_LEN;
use sha2::{Digest, Sha256};
use store::fuzzing::hash_cache;

fuzz_target!(|input: ([i64; 7], &[u8])| {
    let (file, bytes) = input;
    check(file, bytes);
    // An entry of this file: its header, any hashes, and the checksum.
    let mut entry = hash_cache::header(file);
    entry.extend(bytes);
    entry.extend(Sha256::digest(&entry));
    check(file, &entry);
});

fn check(file: [i64; 7], bytes: &[u8]) {
    let Some(hashes) = hash_cache::decode_entry(file, bytes) else { return };
    let len = file[hash_cache::LEN].cast_unsigned();
    assert_eq!(hashes.len() as u64, len.div_ceil(CHUNK_LEN.into()));
    assert_eq!(hash_cache::encode_entry(file, &hashes), bytes, "an entry has one encoding");
}
