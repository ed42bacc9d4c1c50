//! One registration: the part that lookups read, and the part that only its own announces need.
//!
//! The two parts are read at different times, so they are stored apart. A lookup reads many peers, and each is a memory
//! access. Eight contacts fit a cache line.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU16,
};

use proto::{
    PeerId, Secret,
    tracker::{Completion, PeerAddress, PeerEntry},
};
use subtle::ConstantTimeEq;

use super::tick::Tick;

/// One registration.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    pub(super) member: Member,
    pub(super) contact: Contact,
}

/// What identifies a peer.
#[derive(Clone, Copy)]
pub(super) struct Member {
    pub(super) id: PeerId,
    secret: Secret,
    pub(super) seen: Tick,
    /// The first twelve bytes of an IPv6 address. The contact has the others, or all of an IPv4 address.
    prefix: [u8; 12],
}

/// The part of a peer that others receive.
#[derive(Clone, Copy)]
pub(super) struct Contact {
    /// An IPv4 address, or the last four bytes of an IPv6 address.
    ip: [u8; 4],
    port: NonZeroU16,
    progress: Progress,
    mark: Mark,
}

/// In one byte: how much of the share the peer has, and whether it holds the vote of its site for the name of the share. Only a
/// peer that is alone in its share holds one ([`Roster`](super::roster::Roster)).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Progress(u8);

/// What one party controls at least: an IPv4 address, or a part of an IPv6 network.
///
/// A host commonly has all of an IPv6 /64, and many a customer of a provider all of a /48, which is 65,536 of them. So a /48 is
/// [`SITES_PER_NETWORK`] sites, and each /64 belongs to one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Site(u64);

/// Sites in one IPv6 /48. Customers of a provider may share one, and each of them should have a good chance to be a site of their
/// own. With a /48 of its own, an attacker gets no more than with this many IPv4 addresses.
pub(super) const SITES_PER_NETWORK: u64 = 8;

/// In one byte: whether the address is IPv6, and seven bits of the peer's id. With these, a search for an id reads few members.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark(u8);

/// Whether a peer holds the vote of its site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vote {
    Held,
    None,
}

/// The receiver of an answer. A peer on the tracker's own host is known here by a loopback address, which means another host
/// to everybody else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Requester {
    OnTrackerHost,
    /// A client that reaches the tracker through a link-local address of IPv6. Only such clients can use such addresses,
    /// because they know the interface.
    OnLink,
    Elsewhere,
}

impl Peer {
    pub(super) fn new(
        (id, secret): (PeerId, Secret),
        source: IpAddr,
        port: NonZeroU16,
        progress: Completion,
        seen: Tick,
    ) -> Peer {
        let (octets, mark) = match source.to_canonical() {
            IpAddr::V4(ip) => (ip.to_ipv6_mapped().octets(), Mark::of(id)),
            IpAddr::V6(ip) => (ip.octets(), Mark::of(id).with_v6()),
        };
        let [a, b, c, d, e, f, g, h, i, j, k, l, ip @ ..] = octets;
        let prefix = [a, b, c, d, e, f, g, h, i, j, k, l];
        Peer {
            member: Member { id, secret, seen, prefix },
            contact: Contact { ip, port, progress: Progress::of(progress), mark },
        }
    }

    /// The address, in its canonical form.
    pub(super) fn address(&self) -> IpAddr {
        self.contact.address(&self.member)
    }

    pub(super) fn port(&self) -> NonZeroU16 {
        self.contact.port
    }

    pub(super) fn site(&self) -> Site {
        self.contact.site(&self.member)
    }

    /// Whether both can be reached at one place, so that at most one of them is there.
    pub(super) fn is_where(&self, contact: &Contact, member: &Member) -> bool {
        self.contact.port == contact.port && self.address() == contact.address(member)
    }
}

impl Site {
    /// Set in a site of IPv6.
    const V6: u64 = 1 << 63;

    fn v4(address: [u8; 4]) -> Site {
        Site(u32::from_be_bytes(address).into())
    }

    /// The site that an address with these first bytes belongs to.
    fn v6([a, b, c, d, e, f, g, h]: [u8; 8]) -> Site {
        let network = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        Site(Site::V6 + network * SITES_PER_NETWORK + u64::from(g ^ h) % SITES_PER_NETWORK)
    }

    /// The IPv4 address, if this is one.
    pub(super) fn as_v4(self) -> Option<u32> {
        u32::try_from(self.0).ok()
    }

    /// A number that no other site has. It is not 0 for a site of IPv6, and 0 only for the address 0.0.0.0, which nobody has.
    pub(super) fn number(self) -> u64 {
        self.0
    }

    /// The site with this [`Site::number`].
    pub(super) fn of_number(number: u64) -> Site {
        Site(number)
    }
}

impl From<IpAddr> for Site {
    fn from(ip: IpAddr) -> Site {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Site::v4(ip.octets()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Site::v6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

impl Member {
    /// What its secret is compared with.
    pub(super) fn secret(&self) -> Secret {
        self.secret
    }

    /// Whether `secret` is this peer's. Takes the same time for every wrong secret.
    pub(super) fn has_secret(&self, secret: Secret) -> bool {
        // Numbers are compared in one step, arrays byte by byte.
        u128::from_le_bytes(self.secret.0).ct_eq(&u128::from_le_bytes(secret.0)).into()
    }
}

impl Contact {
    pub(super) fn is_seeder(&self) -> bool {
        self.progress.completion().is_complete()
    }

    pub(super) fn completion(&self) -> Completion {
        self.progress.completion()
    }

    /// Whether it holds the vote of its site.
    pub(super) fn has_vote(&self) -> bool {
        self.progress.0 & Progress::VOTE != 0
    }

    /// This contact, holding the vote of its site or not.
    pub(super) fn with_vote(mut self, has_vote: Vote) -> Contact {
        self.progress = match has_vote {
            Vote::Held => Progress(self.progress.0 | Progress::VOTE),
            Vote::None => Progress(self.progress.0 & !Progress::VOTE),
        };
        self
    }

    /// Whether this may be the peer with this id. It is true for one in 128 other peers.
    pub(super) fn may_be(&self, id: PeerId) -> bool {
        self.mark.0 & Mark::ID_BITS == Mark::of(id).0
    }

    /// Appends the entry for `requester`, if it can use the peer's address. The peer's member is read only for an IPv6 address.
    #[inline]
    pub(super) fn append<'a>(
        &self,
        member: impl FnOnce() -> &'a Member,
        requester: Requester,
        entries: &mut Vec<PeerEntry>,
    ) {
        if self.mark.is_v6() {
            // Apart from this function. Together, they would make an entry in one place and then move it, which takes longer than
            // all else here.
            return entries.extend(self.v6_entry(member(), requester));
        }
        entries.push(self.entry_at(self.ip.into(), requester));
    }

    /// The entry for `requester`; `None` if it cannot use the peer's address.
    pub(super) fn entry(&self, member: &Member, requester: Requester) -> Option<PeerEntry> {
        if self.mark.is_v6() {
            return self.v6_entry(member, requester);
        }
        Some(self.entry_at(self.ip.into(), requester))
    }

    #[inline(never)]
    fn v6_entry(&self, member: &Member, requester: Requester) -> Option<PeerEntry> {
        let ip = self.v6(member);
        if ip.is_unicast_link_local() && requester != Requester::OnLink {
            return None;
        }
        Some(self.entry_at(ip.into(), requester))
    }

    fn entry_at(&self, ip: IpAddr, requester: Requester) -> PeerEntry {
        PeerEntry { address: requester.address_of(ip), port: self.port, progress: self.progress.completion() }
    }

    fn address(&self, member: &Member) -> IpAddr {
        if self.mark.is_v6() { self.v6(member).into() } else { self.ip.into() }
    }

    pub(super) fn site(&self, member: &Member) -> Site {
        if self.mark.is_v6() {
            let [a, b, c, d, e, f, g, h, ..] = member.prefix;
            Site::v6([a, b, c, d, e, f, g, h])
        } else {
            Site::v4(self.ip)
        }
    }

    fn v6(&self, member: &Member) -> Ipv6Addr {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = member.prefix;
        let [m, n, o, p] = self.ip;
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p].into()
    }
}

impl Progress {
    const VOTE: u8 = 0x80;

    fn of(progress: Completion) -> Progress {
        Progress(progress.percent())
    }

    fn completion(self) -> Completion {
        Completion::try_from(self.0 & !Progress::VOTE).unwrap_or(Completion::COMPLETE)
    }
}

impl Mark {
    const ID_BITS: u8 = 0x7f;

    fn of(id: PeerId) -> Mark {
        Mark(id.0[0] & Mark::ID_BITS)
    }

    fn with_v6(self) -> Mark {
        Mark(self.0 | !Mark::ID_BITS)
    }

    fn is_v6(self) -> bool {
        self.0 & !Mark::ID_BITS != 0
    }
}

impl Requester {
    /// A host's address for this requester.
    pub(super) fn address_of(self, ip: IpAddr) -> PeerAddress {
        match self {
            Requester::Elsewhere | Requester::OnLink if ip.is_loopback() => PeerAddress::TrackerHost,
            Requester::Elsewhere | Requester::OnLink | Requester::OnTrackerHost => ip.into(),
        }
    }
}

impl From<IpAddr> for Requester {
    fn from(ip: IpAddr) -> Requester {
        match ip.to_canonical() {
            ip if ip.is_loopback() => Requester::OnTrackerHost,
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Requester::OnLink,
            _ => Requester::Elsewhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_stays_small() {
        assert_eq!(size_of::<Contact>(), 8);
        assert_eq!(size_of::<Peer>(), 56);
    }

    #[test]
    fn an_ipv6_network_is_a_few_sites_and_an_ipv4_address_is_one() {
        let site = |text: &str| Site::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(site("2001:db8:0:1::1"), site("2001:db8:0:1:ffff::2"));
        assert_ne!(site("2001:db8:0:1::1"), site("2001:db8:0:2::1"));
        assert_ne!(site("2001:db8:0:1::1"), site("2001:db8:1:1::1"));
        let network: std::collections::BTreeSet<_> = (0..=u16::MAX)
            .map(|part| Site::from(IpAddr::from([0x2001, 0xdb8, 7, part, 0, 0, 0, 1])))
            .collect();
        assert_eq!(network.len() as u64, SITES_PER_NETWORK);
        assert_ne!(site("192.0.2.1"), site("192.0.2.2"));
        assert_eq!(site("192.0.2.1"), site("::ffff:192.0.2.1"));
        assert!(site("192.0.2.1").as_v4().is_some() && site("2001:db8::1").as_v4().is_none());
        assert!(site("::").as_v4().is_none() && site("ffff::").as_v4().is_none());
    }

    #[test]
    fn an_address_comes_out_as_it_went_in() {
        for ip in ["192.0.2.1", "127.0.0.1", "2001:db8:1:2:3:4:5:6", "::1", "::192.0.2.1"] {
            let ip: IpAddr = ip.parse().unwrap();
            let ids = (PeerId([1; 16]), Secret([2; 16]));
            let peer = Peer::new(ids, ip, NonZeroU16::MAX, Completion::COMPLETE, Tick::default());
            assert_eq!(peer.address(), ip);
            let entry = peer.contact.entry(&peer.member, Requester::OnTrackerHost);
            assert_eq!(entry.unwrap().address, PeerAddress::from(ip));
        }
    }
}
