//! Registrations in the store: members of sorted sets.
//!
//! The member of a peer holds what seldom changes, and its score what every announce changes: when the registration is over, and how
//! much of the share the peer has. So a heartbeat is one `ZADD` that rewrites a number, an old announce never undoes a newer one
//! (`GT`), and what has expired is removed by its score. Most peers of a share agree about its name, so the title (share, name and
//! size) has members of its own, and a tag in the members of peers stands for it.
//!
//! No member is larger than [`MAX_MEMBER_LEN`], because the store packs a small set of such members tightly. So a long name is cut into
//! parts.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bytes::{Buf, BufMut};
use proto::{InfoHash, Label, PeerId, Secret, ShareName, Zone, chunk::MAX_SHARE_LEN};
use sha2::{Digest, Sha256};

use super::record::{Record, Score};
use crate::registry::Registration;

/// The first byte of a member.
const TITLE: u8 = 1;
const LONG_TITLE: u8 = 2;
const NAME_PART: u8 = 3;
pub(super) const PEER_V4: u8 = 4;
pub(super) const PEER_V6: u8 = 6;

/// The largest member: by default (`zset-max-listpack-value`) the largest that the store packs tightly.
const MAX_MEMBER_LEN: usize = 64;

/// The bytes of a name that fit into a title, after its kind, infohash and size.
const SHORT_NAME_LEN: usize = MAX_MEMBER_LEN - 1 - 32 - 8;

/// The bytes of a name that fit into a part, after its kind, tag and number.
const NAME_PART_LEN: usize = MAX_MEMBER_LEN - 1 - 8 - 1;

/// What stands for a title in the members of peers. It is long enough that nobody finds a second title with the tag of a given one.
pub type Tag = [u8; 8];

/// What the members of peers refer to by a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Title {
    infohash: InfoHash,
    size: u64,
    name: ShareName,
}

enum Member<'a> {
    /// A title whose name is complete.
    Title {
        infohash: InfoHash,
        size: u64,
        name: &'a [u8],
    },
    /// A title whose name is in parts.
    LongTitle {
        tag: Tag,
        infohash: InfoHash,
        size: u64,
    },
    NamePart {
        tag: Tag,
        number: u8,
        part: &'a [u8],
    },
    Peer {
        peer_id: PeerId,
        secret: Secret,
        ip: IpAddr,
        port: u16,
        tag: Tag,
    },
}

/// The tag of the title of a record.
pub fn tag(Record { known: Registration { infohash, size, name, .. }, .. }: &Record) -> Tag {
    tag_of(infohash, *size, name.as_str().as_bytes())
}

fn tag_of(infohash: &InfoHash, size: u64, name: &[u8]) -> Tag {
    let hash =
        Sha256::new().chain_update(infohash.0).chain_update(size.to_le_bytes()).chain_update(name).finalize();
    let mut tag = Tag::default();
    tag.copy_from_slice(&hash[..8]);
    tag
}

/// The member of the peer of a record with this [`tag`].
pub fn peer_member(record: &Record, tag: Tag) -> Vec<u8> {
    let Registration { peer_id, secret, ip, port, .. } = &record.known;
    let mut member = Vec::with_capacity(MAX_MEMBER_LEN);
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

/// The members of the title of a record with this [`tag`]: one, or more if the name is long.
pub fn title_members(record: &Record, tag: Tag) -> Vec<Vec<u8>> {
    let Registration { infohash, size, name, .. } = &record.known;
    let name = name.as_str().as_bytes();
    let is_short = name.len() <= SHORT_NAME_LEN;
    let mut title = Vec::with_capacity(MAX_MEMBER_LEN);
    title.put_u8(if is_short { TITLE } else { LONG_TITLE });
    if !is_short {
        title.put_slice(&tag);
    }
    title.put_slice(&infohash.0);
    title.put_u64_le(*size);
    if is_short {
        title.put_slice(name);
        return vec![title];
    }
    let parts = (0..).zip(name.chunks(NAME_PART_LEN)).map(|(number, part): (u8, _)| {
        let mut member = Vec::with_capacity(MAX_MEMBER_LEN);
        member.put_u8(NAME_PART);
        member.put_slice(&tag);
        member.put_u8(number);
        member.put_slice(part);
        member
    });
    std::iter::once(title).chain(parts).collect()
}

/// The registrations that these members hold: of each peer of a share the newest. Members that are malformed, and peers that lack their
/// title, are left out.
pub fn records_of<'a>(members: impl Iterator<Item = (&'a [u8], Score)> + Clone) -> Vec<Record> {
    let titles = titles_of(members.clone().filter_map(|(member, _)| decode(member)));
    let mut newest: BTreeMap<(InfoHash, PeerId), Record> = BTreeMap::new();
    for (member, score) in members {
        let Some(Member::Peer { peer_id, secret, ip, port, tag }) = decode(member) else { continue };
        let (Some(Title { infohash, size, name }), Some((progress, fetched)), Ok(port)) =
            (titles.get(&tag), score.progress(), port.try_into())
        else {
            continue;
        };
        let (infohash, size, name) = (*infohash, *size, name.clone());
        let (label, zone) = (Label::NONE, Zone::NONE);
        let known =
            Registration { infohash, peer_id, secret, ip, port, progress, name, size, label, fetched, zone };
        let record = Record { known, expires: score.expires() };
        newest
            .entry((infohash, peer_id))
            .and_modify(|known| {
                if known.expires < record.expires {
                    *known = record.clone();
                }
            })
            .or_insert(record);
    }
    newest.into_values().collect()
}

/// The titles among these members that have the tag that stands for them.
fn titles_of<'a>(members: impl Iterator<Item = Member<'a>>) -> BTreeMap<Tag, Title> {
    let mut titles = BTreeMap::new();
    let mut long: Vec<(Tag, InfoHash, u64)> = Vec::new();
    let mut parts: BTreeMap<(Tag, u8), &[u8]> = BTreeMap::new();
    let mut add = |tag, infohash, size, name: &[u8]| {
        if let Ok(name) = ShareName::from_bytes(name) {
            titles.insert(tag, Title { infohash, size, name });
        }
    };
    for member in members {
        match member {
            Member::Title { infohash, size, name } => {
                add(tag_of(&infohash, size, name), infohash, size, name);
            }
            Member::LongTitle { tag, infohash, size } => long.push((tag, infohash, size)),
            Member::NamePart { tag, number, part } => {
                parts.insert((tag, number), part);
            }
            Member::Peer { .. } => {}
        }
    }
    for (tag, infohash, size) in long {
        let name: Vec<u8> =
            (0..=u8::MAX).map_while(|number| parts.get(&(tag, number)).copied()).flatten().copied().collect();
        if tag_of(&infohash, size, &name) == tag {
            add(tag, infohash, size, &name);
        }
    }
    titles
}

fn decode(mut member: &[u8]) -> Option<Member<'_>> {
    match member.try_get_u8().ok()? {
        TITLE => {
            let (infohash, size) = take_share(&mut member)?;
            Some(Member::Title { infohash, size, name: member })
        }
        LONG_TITLE => {
            let tag = take(&mut member)?;
            let (infohash, size) = take_share(&mut member)?;
            member.is_empty().then_some(Member::LongTitle { tag, infohash, size })
        }
        NAME_PART => {
            let tag = take(&mut member)?;
            let number = member.try_get_u8().ok()?;
            Some(Member::NamePart { tag, number, part: member })
        }
        kind @ (PEER_V4 | PEER_V6) => {
            let peer_id = PeerId(take(&mut member)?);
            let secret = Secret(take(&mut member)?);
            let tag = take(&mut member)?;
            let port = member.try_get_u16_le().ok()?;
            let ip = take_ip(&mut member, kind)?;
            member.is_empty().then_some(Member::Peer { peer_id, secret, ip, port, tag })
        }
        _ => None,
    }
}

fn take_share(member: &mut &[u8]) -> Option<(InfoHash, u64)> {
    let infohash = InfoHash(take(member)?);
    let size = member.try_get_u64_le().ok().filter(|&size| size <= MAX_SHARE_LEN)?;
    Some((infohash, size))
}

/// Reads `N` bytes.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let mut taken = [0; N];
    bytes.try_copy_to_slice(&mut taken).ok()?;
    Some(taken)
}

/// Reads an address: four bytes after [`PEER_V4`], sixteen after [`PEER_V6`].
pub(super) fn take_ip(bytes: &mut &[u8], kind: u8) -> Option<IpAddr> {
    match kind {
        PEER_V4 => take(bytes).map(|octets: [u8; 4]| Ipv4Addr::from(octets).into()),
        PEER_V6 => take(bytes).map(|octets: [u8; 16]| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proto::tracker::Completion;

    use super::*;
    use crate::fleet::record::tests::record;

    fn members(records: &[Record]) -> Vec<(Vec<u8>, Score)> {
        let all = |record: &Record| {
            let tag = tag(record);
            std::iter::once(peer_member(record, tag)).chain(title_members(record, tag)).collect::<Vec<_>>()
        };
        records
            .iter()
            .flat_map(|record| all(record).into_iter().map(|member| (member, record.score())))
            .collect()
    }

    fn read(members: &[(Vec<u8>, Score)]) -> Vec<Record> {
        records_of(members.iter().map(|(member, score)| (&member[..], *score)))
    }

    fn named(share: u8, name: &str) -> Record {
        let mut record = record(share, 2, 1_800_000_000_100);
        record.known.name = ShareName::new(name).unwrap();
        record
    }

    #[test]
    fn shares_come_out_of_their_members_as_they_went_in() {
        let mut other = record(1, 3, 2_000_000_000_000);
        other.known.ip = "2001:db8::1".parse().unwrap();
        other.known.progress = Completion::of(1, 3);
        other.known.name = ShareName::new("späť 数据").unwrap();
        other.known.size = MAX_SHARE_LEN;
        let mut fetched = record(2, 2, 1_800_000_000_200);
        fetched.known.fetched = true;
        let records = [record(1, 2, 1_800_000_000_100), other, fetched];
        assert_eq!(read(&members(&records)), records);
    }

    #[test]
    fn names_of_every_length_come_out_and_no_member_is_larger_than_what_the_store_packs_tightly() {
        for len in 1..=255 {
            let mut records = [named(1, &"n".repeat(len)), named(2, &"m".repeat(len))];
            records[0].known.ip = "2001:db8::1".parse().unwrap();
            let mut members = members(&records);
            assert!(members.iter().all(|(member, _)| member.len() <= MAX_MEMBER_LEN), "{len}");
            assert_eq!(read(&members), records, "{len}");
            members.reverse();
            assert_eq!(read(&members), records, "{len}, in another order");
        }
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
    fn members_that_are_torn_or_forged_are_left_out() {
        for good in [members(&[named(1, "short")]), members(&[named(1, &"long ".repeat(40))])] {
            for (which, (member, _)) in good.iter().enumerate() {
                for len in 0..member.len() {
                    let mut torn = good.clone();
                    torn[which].0.truncate(len);
                    assert_eq!(read(&torn), [], "{which} cut to {len}");
                }
                for byte in 0..member.len() {
                    let mut forged = good.clone();
                    forged[which].0[byte] ^= 0x20;
                    let found = read(&forged);
                    // What a peer says of itself is its own.
                    assert!(which == 0 || found.is_empty(), "{which} changed at {byte}: {found:?}");
                }
                let mut longer = good.clone();
                longer[which].0.push(b'x');
                assert_eq!(read(&longer), []);
            }
        }
    }

    #[test]
    fn only_a_hash_of_a_secret_is_kept() {
        let record = record(1, 7, 0);
        let member = peer_member(&record, tag(&record));
        assert!(!member.windows(16).skip(17).any(|window| window == [7; 16]));
    }
}
