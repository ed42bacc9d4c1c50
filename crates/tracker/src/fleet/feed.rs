//! What a tracker publishes to the others: a batch of changes, as one message.
//!
//! ```text
//! message = version u8 · tracker [u8; 16] · change*
//! change  = kind u8 (1 present, 2 gone) · infohash [32] · peer id [16] · secret hash [16] · time u64 · port u16 · percent u8
//!         · fetched u8 (0, 1) · size u64 · 4 address [4] | 6 address [16] · name length u8 · name · label length u8 · label
//!         · zone length u8 · zone
//! ```
//!
//! Integers are little-endian. The time is when the registration is over, in milliseconds by the clock of the store. Of one that was ended
//! it is when it would be over if it had been renewed instead. So of two changes the one with the later time is the newer.

use bytes::{Buf, BufMut};

use super::record::{Record, put_record, take_record};

/// The version of messages. A tracker ignores messages of others.
const VERSION: u8 = 2;

const PRESENT: u8 = 1;
const GONE: u8 = 2;

/// One run of a tracker. It is random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackerId(pub [u8; 16]);

/// What happened to a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was made or renewed.
    Present(Record),
    /// Its peer ended it. If the peer had renewed it instead, it would last until the time in the record.
    Gone(Record),
}

impl Change {
    /// The registration, and when it is over.
    pub fn record(&self) -> &Record {
        match self {
            Change::Present(record) | Change::Gone(record) => record,
        }
    }
}

/// The message with these changes.
pub fn encode(from: TrackerId, changes: &[Change]) -> Vec<u8> {
    let mut message = Vec::with_capacity(17 + changes.len() * 128);
    message.put_u8(VERSION);
    message.put_slice(&from.0);
    for change in changes {
        message.put_u8(match change {
            Change::Present(_) => PRESENT,
            Change::Gone(_) => GONE,
        });
        put_record(change.record(), &mut message);
    }
    message
}

/// Reads a message: who sent it, and its changes up to the first malformed one. `None` if it is of another version.
pub fn decode(mut message: &[u8]) -> Option<(TrackerId, impl Iterator<Item = Change>)> {
    let version = message.try_get_u8().ok()?;
    let mut from = [0; 16];
    message.try_copy_to_slice(&mut from).ok()?;
    let changes = std::iter::from_fn(move || {
        let kind = message.try_get_u8().ok()?;
        let record = take_record(&mut message)?;
        match kind {
            PRESENT => Some(Change::Present(record)),
            GONE => Some(Change::Gone(record)),
            _ => None,
        }
    });
    (version == VERSION).then_some((TrackerId(from), changes))
}

#[cfg(test)]
mod tests {
    use super::{super::record::tests::record, *};

    #[test]
    fn a_message_decodes_to_itself_and_a_part_of_it_to_its_first_changes() {
        let mut v6 = record(1, 2, 7);
        v6.known.ip = "2001:db8::1".parse().unwrap();
        let changes =
            [Change::Present(record(1, 2, 5)), Change::Gone(v6), Change::Present(record(3, 4, u64::MAX))];
        let message = encode(TrackerId([9; 16]), &changes);
        for len in 17..=message.len() {
            let (from, decoded) = decode(&message[..len]).unwrap();
            let decoded: Vec<_> = decoded.collect();
            assert_eq!((from, &decoded[..]), (TrackerId([9; 16]), &changes[..decoded.len()]));
            assert_eq!(decoded.len() == changes.len(), len == message.len());
        }
        assert!((0..17).all(|len| decode(&message[..len]).is_none()));
    }

    #[test]
    fn messages_of_another_version_are_ignored() {
        let mut message = encode(TrackerId([9; 16]), &[]);
        message[0] = VERSION + 1;
        assert!(decode(&message).is_none());
    }

    #[test]
    fn a_message_has_its_golden_bytes() {
        let mut gone = record(1, 2, 0x0102);
        (gone.known.label, gone.known.fetched) = (proto::Label::cut("host").unwrap(), true);
        gone.known.zone = proto::Zone::cut("rack7").unwrap();
        let message = encode(TrackerId([9; 16]), &[Change::Gone(gone)]);
        let secret = super::super::record::hashed(proto::Secret([2; 16]));
        let golden = [
            &[2][..],
            &[9; 16],
            &[2],
            &[1; 32],
            &[2; 16],
            &secret.0,
            &[2, 1, 0, 0, 0, 0, 0, 0],
            &[0x58, 0x1b],
            &[100],
            &[1],
            &[5, 0, 0, 0, 0, 0, 0, 0],
            &[4, 192, 0, 2, 2],
            &[8],
            b"data.bin",
            &[4],
            b"host",
            &[5],
            b"rack7",
        ];
        assert_eq!(message, golden.concat());
    }
}
