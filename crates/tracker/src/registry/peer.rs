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
    progress: Completion,
    mark: Mark,
}

/// What one party controls at least: an IPv4 address, or an IPv6 network (/64), of which a host commonly has all addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Site {
    V4([u8; 4]),
    /// The first 64 bits.
    V6([u8; 8]),
}

/// In one byte: whether the address is IPv6, and seven bits of the peer's id. With these, a search for an id reads few members.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark(u8);

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
        Peer { member: Member { id, secret, seen, prefix }, contact: Contact { ip, port, progress, mark } }
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

impl From<IpAddr> for Site {
    fn from(ip: IpAddr) -> Site {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Site::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Site::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

impl Member {
    /// Whether `secret` is this peer's. Takes the same time for every wrong secret.
    pub(super) fn has_secret(&self, secret: Secret) -> bool {
        // Numbers are compared in one step, arrays byte by byte.
        u128::from_le_bytes(self.secret.0).ct_eq(&u128::from_le_bytes(secret.0)).into()
    }
}

impl Contact {
    pub(super) fn is_seeder(&self) -> bool {
        self.progress.is_complete()
    }

    /// Whether this may be the peer with this id. It is true for one in 128 other peers.
    pub(super) fn may_be(&self, id: PeerId) -> bool {
        self.mark.0 & Mark::ID_BITS == Mark::of(id).0
    }

    /// The entry for `requester`; `None` if it cannot use the peer's address. The peer's member is read only for an IPv6
    /// address.
    pub(super) fn entry<'a>(
        &self,
        member: impl FnOnce() -> &'a Member,
        requester: Requester,
    ) -> Option<PeerEntry> {
        let (address, is_loopback) = if self.mark.is_v6() {
            let ip = self.v6(member());
            if ip.is_unicast_link_local() && requester != Requester::OnLink {
                return None;
            }
            (PeerAddress::V6(ip.octets()), ip.is_loopback())
        } else {
            (PeerAddress::V4(self.ip), self.ip[0] == 127)
        };
        let address = match requester {
            Requester::Elsewhere | Requester::OnLink if is_loopback => PeerAddress::TrackerHost,
            Requester::Elsewhere | Requester::OnLink | Requester::OnTrackerHost => address,
        };
        Some(PeerEntry { address, port: self.port, progress: self.progress })
    }

    fn address(&self, member: &Member) -> IpAddr {
        if self.mark.is_v6() { self.v6(member).into() } else { self.ip.into() }
    }

    pub(super) fn site(&self, member: &Member) -> Site {
        if self.mark.is_v6() {
            let [a, b, c, d, e, f, g, h, ..] = member.prefix;
            Site::V6([a, b, c, d, e, f, g, h])
        } else {
            Site::V4(self.ip)
        }
    }

    fn v6(&self, member: &Member) -> Ipv6Addr {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = member.prefix;
        let [m, n, o, p] = self.ip;
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p].into()
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
    fn an_address_comes_out_as_it_went_in() {
        for ip in ["192.0.2.1", "127.0.0.1", "2001:db8:1:2:3:4:5:6", "::1", "::192.0.2.1"] {
            let ip: IpAddr = ip.parse().unwrap();
            let ids = (PeerId([1; 16]), Secret([2; 16]));
            let peer = Peer::new(ids, ip, NonZeroU16::MAX, Completion::COMPLETE, Tick::default());
            assert_eq!(peer.address(), ip);
            let entry = peer.contact.entry(|| &peer.member, Requester::OnTrackerHost);
            assert_eq!(entry.unwrap().address, PeerAddress::from(ip));
        }
    }
}
