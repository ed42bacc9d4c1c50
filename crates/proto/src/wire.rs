//! The one file that names bincode.
//!
//! bincode is the encoding that the project's owner chose. It is no longer maintained
//! (RUSTSEC-2025-0141), so nothing else may depend on it: the release is pinned, every message has golden
//! bytes, and replacing it means replacing this file. The encoding is bincode 2's `standard` configuration
//! (little endian, variable-length integers), written down in `docs/protocol.md`.

use std::{fmt, marker::PhantomData};

use arrayvec::ArrayVec;
use bytes::{BufMut, BytesMut};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, SeqAccess, Visitor},
};

/// Maximum length in bytes of a message in both protocols. The decoder allocates no more for one, no matter which lengths
/// the bytes claim.
pub(crate) const MAX_MESSAGE_LEN: usize = 1_200;

type Config = bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<MAX_MESSAGE_LEN>,
>;

/// An integer up to this takes one byte. Otherwise one of these comes before its two, four or eight bytes.
pub(crate) const MAX_ONE_BYTE: u8 = 250;
pub(crate) const TWO_BYTES: u8 = 251;
const FOUR_BYTES: u8 = 252;
const EIGHT_BYTES: u8 = 253;

const CONFIG: Config = bincode::config::standard().with_limit::<MAX_MESSAGE_LEN>();

/// Why bytes are not a message, or a message cannot become bytes.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The bytes do not decode to a legal message.
    #[error("malformed message: {0}")]
    Malformed(#[source] bincode::error::DecodeError),
    /// This number of bytes follows a legal message.
    #[error("{0} bytes left over after a message")]
    TrailingBytes(usize),
    /// The message does not fit the size that its protocol allows.
    #[error("message does not fit in {limit} bytes")]
    TooLarge {
        /// Largest encoded size in bytes.
        limit: usize,
    },
}

/// Appends the encoding of `message` to `dst`. On error `dst` does not change.
pub(crate) fn encode<T: Serialize>(message: &T, limit: usize, dst: &mut BytesMut) -> Result<(), WireError> {
    let write =
        |bytes: &mut Message| bincode::serde::encode_into_writer(message, bytes, CONFIG).ok().map(drop);
    append(write, limit, dst)
}

/// Appends the message that `write` writes field by field, faster than serde. `write` returns `None` if there is no room. On
/// error `dst` does not change.
pub(crate) fn append(
    write: impl FnOnce(&mut Message) -> Option<()>,
    limit: usize,
    dst: &mut BytesMut,
) -> Result<(), WireError> {
    let mut message = Message(ArrayVec::new());
    write(&mut message).filter(|()| message.0.len() <= limit).ok_or(WireError::TooLarge { limit })?;
    dst.put_slice(&message.0);
    Ok(())
}

/// Decodes a message that takes up all of `bytes`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    decode_padded(bytes, |_| false)
}

/// Decodes a message at the front of `bytes`. More bytes may follow it only if `is_padded`.
pub(crate) fn decode_padded<T: DeserializeOwned>(
    bytes: &[u8],
    is_padded: impl Fn(&T) -> bool,
) -> Result<T, WireError> {
    if bytes.len() > MAX_MESSAGE_LEN {
        return Err(WireError::TooLarge { limit: MAX_MESSAGE_LEN });
    }
    let (message, used) = bincode::serde::decode_from_slice(bytes, CONFIG).map_err(WireError::Malformed)?;
    match bytes.len() - used {
        0 => Ok(message),
        _ if is_padded(&message) => Ok(message),
        left => Err(WireError::TrailingBytes(left)),
    }
}

/// Reads the fields of a message one after the other, faster than serde and without bincode. `None` if the bytes are no such field.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Result<Fields<'a>, WireError> {
        if message.len() > MAX_MESSAGE_LEN {
            return Err(WireError::TooLarge { limit: MAX_MESSAGE_LEN });
        }
        Ok(Fields(message))
    }

    #[inline]
    pub(crate) fn bytes<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.bytes().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Option<u16> {
        match self.u8()? {
            byte @ 0..=MAX_ONE_BYTE => Some(byte.into()),
            TWO_BYTES => self.bytes().map(u16::from_le_bytes),
            _ => None,
        }
    }

    /// Also the number of an enum's variant.
    #[inline]
    pub(crate) fn u32(&mut self) -> Option<u32> {
        match self.u8()? {
            byte @ 0..=MAX_ONE_BYTE => Some(byte.into()),
            TWO_BYTES => self.bytes().map(u16::from_le_bytes).map(u32::from),
            FOUR_BYTES => self.bytes().map(u32::from_le_bytes),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Option<u64> {
        match self.0.first()? {
            &EIGHT_BYTES => {
                self.u8()?;
                self.bytes().map(u64::from_le_bytes)
            }
            _ => self.u32().map(u64::from),
        }
    }

    /// Whether something is so, or whether an option holds a value, which follows.
    #[inline]
    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.u64()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        str::from_utf8(text).ok()
    }

    /// Nothing may follow.
    #[inline]
    pub(crate) fn end(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::TrailingBytes(self.0.len())) }
    }
}

impl WireError {
    /// The error for bytes that are legal in this encoding but not in the protocol.
    pub(crate) fn illegal(what: &'static str) -> WireError {
        WireError::Malformed(bincode::error::DecodeError::Other(what))
    }
}

/// Reads a list of at most `MAX` entries, for `#[serde(deserialize_with)]`. Memory grows with the actual entries. Serde
/// itself reserves up to 1 MiB for the number of entries that the bytes claim.
pub(crate) fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(ListVisitor::<T, MAX>(PhantomData))
}

struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_element()? {
            if list.len() == MAX {
                return Err(serde::de::Error::invalid_length(MAX + 1, &self));
            }
            list.push(entry);
        }
        Ok(list)
    }
}

/// A message that is being encoded.
pub(crate) struct Message(ArrayVec<u8, MAX_MESSAGE_LEN>);

impl Message {
    /// Also a `u8`, and an array of a fixed length.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        self.0.try_extend_from_slice(bytes).ok()
    }

    /// Also a `u16`, the number of an enum's variant, and the length of a list.
    pub(crate) fn u32(&mut self, value: u32) -> Option<()> {
        let [a, b, c, d] = value.to_le_bytes();
        if value <= MAX_ONE_BYTE.into() {
            self.bytes(&[a])
        } else if value <= u16::MAX.into() {
            self.bytes(&[TWO_BYTES, a, b])
        } else {
            self.bytes(&[FOUR_BYTES, a, b, c, d])
        }
    }
}

impl bincode::enc::write::Writer for Message {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.try_extend_from_slice(bytes).map_err(|_| bincode::error::EncodeError::UnexpectedEnd)
    }
}

#[cfg(test)]
mod tests {
    use serde::de::value::{Error, SeqDeserializer};

    use super::*;
    use crate::golden::{PAGE, bytes};

    /// The values at which an integer takes more bytes.
    const INTEGERS: [(u64, &str); 9] = [
        (0, "00"),
        (250, "fa"),
        (251, "fbfb00"),
        (255, "fbff00"),
        (65_535, "fbffff"),
        (65_536, "fc00000100"),
        (4_294_967_295, "fcffffffff"),
        (4_294_967_296, "fd0000000001000000"),
        (u64::MAX, "fdffffffffffffffff"),
    ];

    fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
        let mut dst = BytesMut::new();
        encode(value, MAX_MESSAGE_LEN, &mut dst).unwrap();
        dst.to_vec()
    }

    #[test]
    fn integers_have_their_golden_bytes_whatever_their_type() {
        for (value, hex) in INTEGERS {
            let golden = bytes(hex);
            assert_eq!(encoded(&value), golden);
            assert_eq!(decode::<u64>(&golden).unwrap(), value);
            assert_eq!(decode::<u32>(&golden).ok(), u32::try_from(value).ok());
            assert_eq!(decode::<u16>(&golden).ok(), u16::try_from(value).ok());
            assert!(PAGE.contains(&format!("| {value} | `{hex}` |")), "{value} in docs/protocol.md");
        }
        // A u8 is the byte itself.
        assert_eq!(encoded(&251_u8), [251]);
    }

    #[test]
    fn an_integer_in_more_bytes_than_it_needs_is_read_as_what_it_is() {
        for hex in ["fb0700", "fc07000000", "fd0700000000000000"] {
            assert_eq!(decode::<u64>(&bytes(hex)).unwrap(), 7);
        }
        // Not in more bytes than its type has, and not after one of the two unused first bytes.
        assert!(decode::<u32>(&bytes("fd0700000000000000")).is_err());
        assert!(decode::<u64>(&bytes("fe07 00*15")).is_err());
        assert!(decode::<u64>(&bytes("ff")).is_err());
    }

    /// What [`Fields`] reads, and what serde reads: `None` for an error, and the bytes that are left.
    fn both<'a, T: Deserialize<'a> + PartialEq + fmt::Debug>(
        bytes: &'a [u8],
        read: impl Fn(&mut Fields<'a>) -> Option<T>,
    ) {
        let mut fields = Fields::of(bytes).unwrap();
        let by_hand = read(&mut fields).map(|value| (value, bytes.len() - fields.0.len()));
        assert_eq!(by_hand, bincode::serde::borrow_decode_from_slice(bytes, CONFIG).ok(), "{bytes:02x?}");
    }

    #[test]
    fn fields_by_hand_are_those_of_bincode() {
        for first in 0..=u8::MAX {
            for rest in [&[][..], &[1], &[0; 2], &[b'a'; 3], &[0, 0, 0, 1], &[0xff; 7], &[1; 8], &[b'x'; 300]]
            {
                let bytes = [&[first], rest].concat();
                both(&bytes, |fields| fields.u8());
                both(&bytes, |fields| fields.u16());
                both(&bytes, |fields| fields.u32());
                both(&bytes, |fields| fields.u64());
                both(&bytes, |fields| fields.flag());
                both(&bytes, |fields| fields.bytes::<4>());
                both(&bytes, |fields| fields.text());
            }
        }
        for text in
            ["fb0001 61*256", "02c328", "02c3a4", "00", "fd0100000000000000 61", "fdffffffffffffffff 61"]
        {
            both(&bytes(text), |fields| fields.text());
        }
    }

    #[test]
    fn flags_and_options_are_one_byte_of_zero_or_one() {
        assert_eq!(encoded(&(false, true, None::<u8>, Some(9_u8))), [0, 1, 0, 1, 9]);
        for tag in 2..=255 {
            assert!(decode::<bool>(&[tag]).is_err());
            assert!(decode::<Option<u8>>(&[tag, 0]).is_err());
        }
    }

    /// Claims a million entries and has one.
    struct Boaster(bool);

    impl Iterator for Boaster {
        type Item = u8;

        fn next(&mut self) -> Option<u8> {
            std::mem::take(&mut self.0).then_some(7)
        }

        fn size_hint(&self) -> (usize, Option<usize>) {
            (1_000_000, Some(1_000_000))
        }
    }

    #[test]
    fn a_list_takes_memory_for_what_it_holds_and_not_for_what_it_claims() {
        let entries: Vec<u8> = list::<_, _, 8>(SeqDeserializer::<_, Error>::new(Boaster(true))).unwrap();
        assert_eq!(entries, [7]);
        assert!(entries.capacity() < 100, "{}", entries.capacity());
    }

    /// Its callers look at the length too.
    #[test]
    fn more_bytes_than_any_message_may_have_are_not_read() {
        let long = [0; MAX_MESSAGE_LEN + 1];
        assert!(decode_padded::<u8>(&long[1..], |_| true).is_ok());
        for error in [decode_padded::<u8>(&long, |_| true).err(), Fields::of(&long).err()] {
            assert!(matches!(error, Some(WireError::TooLarge { .. })), "{error:?}");
        }
    }

    #[test]
    fn a_list_of_more_entries_than_its_message_may_have_is_refused() {
        let read =
            |count| list::<_, u8, 8>(SeqDeserializer::<_, Error>::new(std::iter::repeat_n(7_u8, count)));
        assert_eq!(read(8).unwrap(), [7; 8]);
        read(9).unwrap_err();
    }
}
