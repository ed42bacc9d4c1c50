//! The resume file, which a crash may have torn, or another program changed.
//!
//! A claim is taken only for the same share, in full, and only if its checksum is right. The checksum hides everything behind it
//! from a fuzzer, so this target also sets it right.
//!
//! Decodes: store/src/resume.rs: fn decode_slot

#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::{Bitfield, chunk::MAX_CHUNKS};
use sha2::{Digest, Sha256};
use store::fuzzing::resume;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let mut bytes = bytes.to_vec();
    if let Some(body) = body_len(&bytes) {
        bytes.resize(body, 0);
        bytes.extend(Sha256::digest(&bytes));
        check(&bytes);
    }
});

/// Length of what the checksum covers, if the header says one that is possible.
fn body_len(bytes: &[u8]) -> Option<usize> {
    let chunk_count = bytes.get(resume::CHUNK_COUNT)?;
    let chunk_count = u32::from_be_bytes(chunk_count.try_into().ok()?);
    (chunk_count <= MAX_CHUNKS).then(|| resume::HEADER_LEN + Bitfield::byte_len(chunk_count))
}

fn check(bytes: &[u8]) {
    let Some((infohash, sequence, claims)) = resume::decode_slot(bytes) else { return };
    assert!(claims.len() <= MAX_CHUNKS);
    let slot = resume::encode_slot(infohash, sequence, &claims);
    assert_eq!(resume::decode_slot(&slot), Some((infohash, sequence, claims)));
    let common = slot.len().min(bytes.len());
    assert_eq!(slot[..common], bytes[..common], "the same claims have the same bytes");
}
