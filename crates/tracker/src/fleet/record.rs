//! A registration as the trackers of a fleet know it: with the time when it is over.

use std::net::IpAddr;

use bytes::{Buf, BufMut};
use proto::{InfoHash, Label, PeerId, Secret, ShareName, chunk::MAX_SHARE_LEN, tracker::Completion};
use sha2::{Digest, Sha256};

use super::{
    members::{PEER_V4, PEER_V6, take, take_ip},
    time::{StoreTime, Tenths},
};
use crate::registry::Registration;

/// A score is the time in tenths of a second × this, and the percentage.
const SCORE_OF_TENTH: u64 = 128;

/// In place of the percentage of a peer that has fetched all of the share.
const FETCHED: u8 = 101;

/// When a registration is over, and how much of the share the peer has, as one number. It is exact as the `double` that the store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score(pub u64);

/// A registration and when it is over, unless it is renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The registration.
    pub known: Registration,
    /// When it is over.
    pub expires: StoreTime,
}

/// What the store keeps of the secret of a registration, and trackers compare: its hash. A secret is random, so it needs no salt.
pub fn hashed(secret: Secret) -> Secret {
    let hash = Sha256::digest(secret.0);
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    Secret(short)
}

impl Score {
    /// The score of a registration.
    pub fn of(expires: StoreTime, progress: Completion, fetched: bool) -> Score {
        let progress = if fetched && progress.is_complete() { FETCHED } else { progress.percent() };
        Score(Tenths::from(expires).0.saturating_mul(SCORE_OF_TENTH).saturating_add(progress.into()))
    }

    /// The largest score of what is over at `now`.
    pub fn over_at(now: StoreTime) -> Score {
        Score(Tenths::from(now).0.saturating_mul(SCORE_OF_TENTH).saturating_sub(1))
    }

    /// When the registration is over.
    pub(super) fn expires(self) -> StoreTime {
        Tenths(self.0 / SCORE_OF_TENTH).into()
    }

    /// How much of the share the peer has, if that is legal, and whether it has fetched all of it.
    pub(super) fn progress(self) -> Option<(Completion, bool)> {
        match u8::try_from(self.0 % SCORE_OF_TENTH).ok()? {
            FETCHED => Some((Completion::COMPLETE, true)),
            percent => Some((Completion::try_from(percent).ok()?, false)),
        }
    }
}

impl Record {
    /// Its score.
    pub fn score(&self) -> Score {
        Score::of(self.expires, self.known.progress, self.known.fetched)
    }
}

/// A record in a message to other trackers.
pub(super) fn put_record(record: &Record, message: &mut Vec<u8>) {
    let Record { known, expires } = record;
    let Registration { infohash, peer_id, secret, ip, port, progress, name, size, label, fetched, zone } =
        known;
    message.put_slice(&infohash.0);
    message.put_slice(&peer_id.0);
    message.put_slice(&secret.0);
    message.put_u64_le(expires.0);
    message.put_u16_le(port.get());
    message.put_u8(progress.percent());
    message.put_u8((*fetched).into());
    message.put_u64_le(*size);
    match ip {
        IpAddr::V4(ip) => {
            message.put_u8(PEER_V4);
            message.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            message.put_u8(PEER_V6);
            message.put_slice(&ip.octets());
        }
    }
    // A name has 255 bytes at most, and the others 32.
    for text in [name.as_str(), label.as_str(), zone.as_str()] {
        message.put_u8(u8::try_from(text.len()).unwrap_or(0));
        message.put_slice(text.as_bytes());
    }
}

/// Reads what [`put_record`] wrote.
pub(super) fn take_record(message: &mut &[u8]) -> Option<Record> {
    let infohash = InfoHash(take(message)?);
    let peer_id = PeerId(take(message)?);
    let secret = Secret(take(message)?);
    let expires = StoreTime(message.try_get_u64_le().ok()?);
    let port = message.try_get_u16_le().ok()?.try_into().ok()?;
    let progress = Completion::try_from(message.try_get_u8().ok()?).ok()?;
    let fetched = match message.try_get_u8().ok()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let size = message.try_get_u64_le().ok().filter(|&size| size <= MAX_SHARE_LEN)?;
    let kind = message.try_get_u8().ok()?;
    let ip = take_ip(message, kind)?;
    let name = ShareName::from_bytes(take_text(message)?).ok()?;
    let (label, zone) = (take_label(message)?, take_label(message)?.into());
    let known =
        Registration { infohash, peer_id, secret, ip, port, progress, name, size, label, fetched, zone };
    Some(Record { known, expires })
}

/// Reads a label, or what has the rules of one. What does not fit was not written by a tracker.
fn take_label(message: &mut &[u8]) -> Option<Label> {
    let text = str::from_utf8(take_text(message)?).ok()?;
    Label::cut(text).ok().filter(|cut| cut.as_str() == text)
}

/// Reads a text of at most 255 bytes, which follow their number.
fn take_text<'a>(message: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::from(message.try_get_u8().ok()?);
    let (text, rest) = message.split_at_checked(len)?;
    *message = rest;
    Some(text)
}

#[cfg(test)]
pub(super) mod tests {
    use proto::Zone;

    use super::*;

    pub(in crate::fleet) fn record(share: u8, peer: u8, expires_ms: u64) -> Record {
        let known = Registration {
            infohash: InfoHash([share; 32]),
            peer_id: PeerId([peer; 16]),
            secret: hashed(Secret([peer; 16])),
            ip: [192, 0, 2, peer].into(),
            port: 7000.try_into().unwrap(),
            progress: Completion::COMPLETE,
            name: ShareName::new("data.bin").unwrap(),
            size: 5,
            label: Label::NONE,
            fetched: false,
            zone: Zone::NONE,
        };
        Record { known, expires: StoreTime(expires_ms) }
    }

    #[test]
    fn a_score_orders_by_time_first_and_is_exact_as_a_double() {
        let (soon, late) = (StoreTime(1_800_000_000_000), StoreTime(1_800_000_000_100));
        assert!(Score::of(soon, Completion::COMPLETE, true) < Score::of(late, Completion::of(0, 1), false));
        assert!(Score::of(soon, Completion::of(0, 1), false) > Score::over_at(soon));
        assert!(Score::of(soon, Completion::COMPLETE, true) <= Score::over_at(late));
        // Until the year 4,000.
        assert!(
            Score::of(StoreTime(64_060_588_800_000), Completion::COMPLETE, true).0
                < 1 << f64::MANTISSA_DIGITS
        );
    }

    #[test]
    fn a_secret_is_hashed() {
        let secret = Secret([7; 16]);
        assert_ne!(hashed(secret).0, secret.0);
    }
}
