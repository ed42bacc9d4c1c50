//! Bitfields: the chunks that a peer has.
//!
//! A bitfield has the length of its share, and its bytes are those that it was read from.
//!
//! Decodes: proto/src/bitfield.rs: fn from_bytes

#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::{Bitfield, ChunkIndex};

fuzz_target!(|input: (u16, &[u8])| {
    let (len, bytes) = (u32::from(input.0), input.1);
    let Ok(mut field) = Bitfield::from_bytes(bytes, len) else { return };
    assert_eq!((field.as_bytes(), field.len()), (bytes, len));
    let chunks: Vec<ChunkIndex> = field.iter().collect();
    assert_eq!(chunks.len(), field.count() as usize);
    assert!(chunks.iter().all(|chunk| chunk.0 < len));
    assert_eq!((field.is_empty(), field.is_full()), (chunks.is_empty(), chunks.len() == len as usize));
    for chunk in chunks {
        assert!(field.contains(chunk) && field.remove(chunk) && !field.contains(chunk));
    }
    assert_eq!(field, Bitfield::empty(len));
});
