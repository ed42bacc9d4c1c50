//! A set of chunks.

use crate::chunk::ChunkIndex;

/// The chunks of a share that a peer has.
///
/// As bytes (BEP 3) it has one bit a chunk. The first chunk is the high bit of the first byte, and the spare bits of the
/// last byte are zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitfield {
    bytes: Vec<u8>,
    len: u32,
    ones: u32,
}

/// The bytes are not a bitfield of the expected number of chunks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BitfieldError {
    /// Too many or too few bytes.
    #[error("a bitfield of {0} bytes does not fit the share")]
    WrongLength(usize),
    /// A bit after the last chunk is set.
    #[error("a bit after the last chunk is set")]
    SpareBitSet,
}

impl Bitfield {
    /// A set over `len` chunks that holds none of them.
    pub fn empty(len: u32) -> Bitfield {
        Bitfield { bytes: vec![0; Bitfield::byte_len(len)], len, ones: 0 }
    }

    /// A set over `len` chunks that holds all of them.
    pub fn full(len: u32) -> Bitfield {
        let mut field = Bitfield::empty(len);
        for index in 0..len {
            field.insert(ChunkIndex(index));
        }
        field
    }

    /// Reads the bytes of a set over `len` chunks.
    pub fn from_bytes(bytes: &[u8], len: u32) -> Result<Bitfield, BitfieldError> {
        if bytes.len() != Bitfield::byte_len(len) {
            return Err(BitfieldError::WrongLength(bytes.len()));
        }
        if let (Some(last), spare @ 1..) = (bytes.last(), bytes.len() * 8 - len as usize)
            && (last.trailing_zeros() as usize) < spare
        {
            return Err(BitfieldError::SpareBitSet);
        }
        let ones = bytes.iter().map(|byte| byte.count_ones()).sum();
        Ok(Bitfield { bytes: bytes.to_vec(), len, ones })
    }

    /// Length in bytes of a set over `len` chunks.
    pub fn byte_len(len: u32) -> usize {
        len.div_ceil(8) as usize
    }

    /// The set as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of chunks in the share.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether the set holds no chunk.
    pub fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// Whether the set holds every chunk of the share.
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// Number of chunks in the set.
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// Whether `chunk` is in the set; a chunk that the share does not have is not.
    pub fn contains(&self, chunk: ChunkIndex) -> bool {
        chunk.0 < self.len && self.bytes[chunk.0 as usize / 8] & mask(chunk) != 0
    }

    /// Adds `chunk`; true if it was not in the set.
    ///
    /// # Panics
    /// If the share has no such chunk.
    pub fn insert(&mut self, chunk: ChunkIndex) -> bool {
        assert!(chunk.0 < self.len, "chunk {} of {}", chunk.0, self.len);
        let new = !self.contains(chunk);
        self.bytes[chunk.0 as usize / 8] |= mask(chunk);
        self.ones += u32::from(new);
        new
    }

    /// Removes `chunk`; true if it was in the set.
    pub fn remove(&mut self, chunk: ChunkIndex) -> bool {
        let had = self.contains(chunk);
        if had {
            self.bytes[chunk.0 as usize / 8] &= !mask(chunk);
            self.ones -= 1;
        }
        had
    }

    /// The chunks in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = ChunkIndex> + '_ {
        (0..self.len).map(ChunkIndex).filter(|&chunk| self.contains(chunk))
    }
}

fn mask(chunk: ChunkIndex) -> u8 {
    0x80 >> (chunk.0 % 8)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set(len in 0..70_u32, edits in prop::collection::vec((any::<bool>(), 0..70_u32), 0..200)) {
            let mut field = Bitfield::empty(len);
            let mut model = BTreeSet::new();
            for (add, index) in edits.into_iter().filter(|&(_, index)| index < len) {
                if add {
                    prop_assert_eq!(field.insert(ChunkIndex(index)), model.insert(index));
                } else {
                    prop_assert_eq!(field.remove(ChunkIndex(index)), model.remove(&index));
                }
            }
            prop_assert_eq!(field.iter().map(|chunk| chunk.0).collect::<BTreeSet<_>>(), model.clone());
            prop_assert_eq!(field.count() as usize, model.len());
            prop_assert_eq!(field.is_full(), model.len() == len as usize);
            prop_assert_eq!(Bitfield::from_bytes(field.as_bytes(), len), Ok(field));
        }
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        assert_eq!(Bitfield::from_bytes(&[0xff, 0x80], 9), Ok(Bitfield::full(9)));
        assert_eq!(Bitfield::from_bytes(&[0xff, 0xc0], 9), Err(BitfieldError::SpareBitSet));
        assert_eq!(Bitfield::from_bytes(&[0xff], 9), Err(BitfieldError::WrongLength(1)));
        assert_eq!(Bitfield::from_bytes(&[0], 0), Err(BitfieldError::WrongLength(1)));
        assert_eq!(Bitfield::from_bytes(&[], 0), Ok(Bitfield::full(0)));
    }
}
