//! A record of what a download proved, which any program of the same user can change.
//!
//! A record counts only with the right checksum, which this target also sets right, and has one encoding.
//!
//! Decodes: store/src/proofs.rs: fn decode_record

#![no_main]

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use store::fuzzing::proofs;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let mut record = bytes.to_vec();
    record.extend(Sha256::digest(bytes));
    check(&record);
});

fn check(bytes: &[u8]) {
    if let Some(again) = proofs::encoded_again(bytes) {
        assert_eq!(again, bytes, "a record has one encoding");
    }
}
