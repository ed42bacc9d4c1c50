//! A registration in the store: two members of the sorted set of its share.
//!
//! The peer's member holds what seldom changes, and its score what every announce changes: when the registration is over, and how much of
//! the share the peer has. So a heartbeat is one `ZADD` that rewrites a number, an old announce never undoes a newer one (`GT`), and what
//! has expired is removed by its score. Names are members of their own, because most peers of a share agree about it. Members of up to 64
//! bytes take least memory.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bytes::{Buf, BufMut};
use proto::{InfoHash, PeerId, Secret, ShareName, chunk::MAX_SHARE_LEN, tracker::Completion};
use sha2::{Digest, Sha256};

use super::time::{StoreTime, Tenths};
use crate::registry::Registration;

/// The first byte of a member.
const PEER_V4: u8 = 4;
const PEER_V6: u8 = 6;
const NAME: u8 = 1;

/// A score is the time in tenths of a second × this, and the percentage.
const SCORE_OF_TENTH: u64 = 128;

/// What stands for a name and a size in the members of peers. It is long enough that nobody finds two names with one tag.
pub type Tag = [u8; 8];

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

/// What a share's sorted set holds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Member {
    Peer { peer_id: PeerId, secret: Secret, ip: IpAddr, port: u16, tag: Tag },
    Name { tag: Tag, size: u64, name: ShareName },
}

/// What the store keeps of the secret of a registration, and trackers compare: its hash. A secret is random, so it needs no salt.
pub fn hashed(secret: Secret) -> Secret {
    let hash = Sha256::digest(secret.0);
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    Secret(short)
}

/// The tag of a name and a size.
pub fn tag(name: &str, size: u64) -> Tag {
    let hash = Sha256::new().chain_update(size.to_le_bytes()).chain_update(name).finalize();
    let mut tag = Tag::default();
    tag.copy_from_slice(&hash[..8]);
    tag
}

impl Score {
    /// The score of a registration.
    pub fn of(expires: StoreTime, progress: Completion) -> Score {
        Score(
            Tenths::from(expires).0.saturating_mul(SCORE_OF_TENTH).saturating_add(progress.percent().into()),
        )
    }

    /// The largest score of what is over at `now`.
    pub fn over_at(now: StoreTime) -> Score {
        Score(Tenths::from(now).0.saturating_mul(SCORE_OF_TENTH).saturating_sub(1))
    }

    fn expires(self) -> StoreTime {
        Tenths(self.0 / SCORE_OF_TENTH).into()
    }

    fn progress(self) -> Option<Completion> {
        u8::try_from(self.0 % SCORE_OF_TENTH).ok().and_then(|percent| Completion::try_from(percent).ok())
    }
}

impl Record {
    /// Its score.
    pub fn score(&self) -> Score {
        Score::of(self.expires, self.known.progress)
    }

    /// The tag of its name and size.
    pub fn tag(&self) -> Tag {
        tag(self.known.name.as_str(), self.known.size)
    }

    /// The member of the peer, with [`Record::tag`].
    pub fn peer_member(&self, tag: Tag) -> Vec<u8> {
        let Registration { peer_id, secret, ip, port, .. } = &self.known;
        let mut member = Vec::with_capacity(59);
        member.put_u8(if ip.is_ipv4() { PEER_V4 } else { PEER_V6 });
        member.put_slice(&peer_id.0);
        member.put_slice(&secret.0);
        member.put_slice(&tag);
        member.put_u16_le(port.get());
        match ip {
            IpAddr::V4(ip) => member.put_slice(&ip.octets()),
            IpAddr::V6(ip) => member.put_slice(&ip.octets()),
        }
        member
    }

    /// The member of the name, with [`Record::tag`].
    pub fn name_member(&self, tag: Tag) -> Vec<u8> {
        let Registration { name, size, .. } = &self.known;
        let mut member = Vec::with_capacity(17 + name.as_str().len());
        member.put_u8(NAME);
        member.put_slice(&tag);
        member.put_u64_le(*size);
        member.put_slice(name.as_str().as_bytes());
        member
    }
}

/// The registrations in the sorted set of a share: of each peer the newest. Members that are malformed, or that lack their name, are left
/// out.
pub fn records_of<'a>(
    infohash: InfoHash,
    members: impl Iterator<Item = (&'a [u8], Score)> + Clone,
) -> Vec<Record> {
    let mut names = BTreeMap::new();
    for (member, _) in members.clone() {
        if let Some(Member::Name { tag, size, name }) = decode(member) {
            names.insert(tag, (size, name));
        }
    }
    let mut newest: BTreeMap<PeerId, Record> = BTreeMap::new();
    for (member, score) in members {
        let Some(Member::Peer { peer_id, secret, ip, port, tag }) = decode(member) else { continue };
        let (Some((size, name)), Some(progress), Ok(port)) =
            (names.get(&tag), score.progress(), port.try_into())
        else {
            continue;
        };
        let known =
            Registration { infohash, peer_id, secret, ip, port, progress, name: name.clone(), size: *size };
        let record = Record { known, expires: score.expires() };
        match newest.entry(peer_id) {
            std::collections::btree_map::Entry::Occupied(entry) if entry.get().expires >= record.expires => {}
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                entry.insert(record);
            }
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(record);
            }
        }
    }
    newest.into_values().collect()
}

fn decode(mut member: &[u8]) -> Option<Member> {
    let kind = member.try_get_u8().ok()?;
    match kind {
        NAME => {
            let mut tag = Tag::default();
            member.try_copy_to_slice(&mut tag).ok()?;
            let size = member.try_get_u64_le().ok().filter(|&size| size <= MAX_SHARE_LEN)?;
            let name = ShareName::from_bytes(member).ok()?;
            (self::tag(name.as_str(), size) == tag).then_some(Member::Name { tag, size, name })
        }
        PEER_V4 | PEER_V6 => {
            let (mut peer_id, mut secret, mut tag) = ([0; 16], [0; 16], Tag::default());
            member.try_copy_to_slice(&mut peer_id).ok()?;
            member.try_copy_to_slice(&mut secret).ok()?;
            member.try_copy_to_slice(&mut tag).ok()?;
            let port = member.try_get_u16_le().ok()?;
            let ip = take_ip(&mut member, kind)?;
            member.is_empty().then_some(Member::Peer {
                peer_id: PeerId(peer_id),
                secret: Secret(secret),
                ip,
                port,
                tag,
            })
        }
        _ => None,
    }
}

/// Reads an address: four bytes after [`PEER_V4`], sixteen after [`PEER_V6`].
fn take_ip(bytes: &mut &[u8], kind: u8) -> Option<IpAddr> {
    match kind {
        PEER_V4 => {
            let mut octets = [0; 4];
            bytes.try_copy_to_slice(&mut octets).ok()?;
            Some(Ipv4Addr::from(octets).into())
        }
        PEER_V6 => {
            let mut octets = [0; 16];
            bytes.try_copy_to_slice(&mut octets).ok()?;
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

/// A record in a message to other trackers.
pub(super) fn put_record(record: &Record, message: &mut Vec<u8>) {
    let Record { known: Registration { infohash, peer_id, secret, ip, port, progress, name, size }, expires } =
        record;
    message.put_slice(&infohash.0);
    message.put_slice(&peer_id.0);
    message.put_slice(&secret.0);
    message.put_u64_le(expires.0);
    message.put_u16_le(port.get());
    message.put_u8(progress.percent());
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
    // A name has 255 bytes at most.
    message.put_u8(u8::try_from(name.as_str().len()).unwrap_or(0));
    message.put_slice(name.as_str().as_bytes());
}

/// Reads what [`put_record`] wrote.
pub(super) fn take_record(message: &mut &[u8]) -> Option<Record> {
    let (mut infohash, mut peer_id, mut secret) = ([0; 32], [0; 16], [0; 16]);
    message.try_copy_to_slice(&mut infohash).ok()?;
    message.try_copy_to_slice(&mut peer_id).ok()?;
    message.try_copy_to_slice(&mut secret).ok()?;
    let expires = StoreTime(message.try_get_u64_le().ok()?);
    let port = message.try_get_u16_le().ok()?.try_into().ok()?;
    let progress = Completion::try_from(message.try_get_u8().ok()?).ok()?;
    let size = message.try_get_u64_le().ok().filter(|&size| size <= MAX_SHARE_LEN)?;
    let kind = message.try_get_u8().ok()?;
    let ip = take_ip(message, kind)?;
    let len = usize::from(message.try_get_u8().ok()?);
    let (name, rest) = message.split_at_checked(len)?;
    *message = rest;
    let known = Registration {
        infohash: InfoHash(infohash),
        peer_id: PeerId(peer_id),
        secret: Secret(secret),
        ip,
        port,
        progress,
        name: ShareName::from_bytes(name).ok()?,
        size,
    };
    Some(Record { known, expires })
}

#[cfg(test)]
pub(super) mod tests {
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
        };
        Record { known, expires: StoreTime(expires_ms) }
    }

    fn members(records: &[Record]) -> Vec<(Vec<u8>, Score)> {
        let both = |record: &Record| [record.peer_member(record.tag()), record.name_member(record.tag())];
        records.iter().flat_map(|record| both(record).map(|member| (member, record.score()))).collect()
    }

    fn read(members: &[(Vec<u8>, Score)]) -> Vec<Record> {
        records_of(InfoHash([1; 32]), members.iter().map(|(member, score)| (&member[..], *score)))
    }

    #[test]
    fn a_share_comes_out_of_its_members_as_it_went_in() {
        let mut other = record(1, 3, 2_000_000_000_000);
        other.known.ip = "2001:db8::1".parse().unwrap();
        other.known.progress = Completion::of(1, 3);
        other.known.name = ShareName::new("späť 数据").unwrap();
        other.known.size = MAX_SHARE_LEN;
        let records = [record(1, 2, 1_800_000_000_100), other];
        assert_eq!(read(&members(&records)), records);
    }

    #[test]
    fn of_a_peer_that_moved_the_newest_counts() {
        let (old, mut new) = (record(1, 2, 1_000), record(1, 2, 2_000));
        new.known.ip = [192, 0, 2, 99].into();
        for records in [[old.clone(), new.clone()], [new.clone(), old.clone()]] {
            assert_eq!(read(&members(&records)), [new.clone()]);
        }
    }

    #[test]
    fn a_score_orders_by_time_first_and_is_exact_as_a_double() {
        let (soon, late) = (StoreTime(1_800_000_000_000), StoreTime(1_800_000_000_100));
        assert!(Score::of(soon, Completion::COMPLETE) < Score::of(late, Completion::of(0, 1)));
        assert!(Score::of(soon, Completion::of(0, 1)) > Score::over_at(soon));
        assert!(Score::of(soon, Completion::COMPLETE) <= Score::over_at(late));
        // Until the year 4,000.
        assert!(Score::of(StoreTime(64_060_588_800_000), Completion::COMPLETE).0 < 1 << f64::MANTISSA_DIGITS);
    }

    #[test]
    fn no_member_of_a_common_share_is_larger_than_what_the_store_packs_tightly() {
        let mut record = record(1, 2, 0);
        record.known.ip = "2001:db8::1".parse().unwrap();
        record.known.name = ShareName::new("a-name-of-forty-seven-bytes-is-packed-in-as-well").unwrap();
        assert!(record.peer_member(record.tag()).len() <= 64 && record.name_member(record.tag()).len() <= 65);
    }

    #[test]
    fn members_that_are_torn_or_forged_are_left_out() {
        let good = members(&[record(1, 2, 1_000)]);
        for (which, (member, _)) in good.iter().enumerate() {
            for len in 0..member.len() {
                let mut torn = good.clone();
                torn[which].0.truncate(len);
                assert_eq!(read(&torn), [], "{which} cut to {len}");
            }
            let mut longer = good.clone();
            longer[which].0.push(b'x');
            assert_eq!(read(&longer), []);
        }
        let mut other_name = good.clone();
        *other_name[1].0.last_mut().unwrap() = b'!';
        assert_eq!(read(&other_name), [], "the tag is that of the name");
    }

    #[test]
    fn only_a_hash_of_a_secret_is_kept() {
        let secret = Secret([7; 16]);
        assert_ne!(hashed(secret).0, secret.0);
        let record = record(1, 7, 0);
        let member = record.peer_member(record.tag());
        assert!(!member.windows(16).skip(17).any(|window| window == secret.0));
    }
}
