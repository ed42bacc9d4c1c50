//! One registration: what lookups tell of it, and what only its own announces need.
//!
//! The two are kept apart because they are read apart. A lookup tells of many peers and each is a wait for memory;
//! of what it tells, eight peers share a cache line.

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

/// Who a peer is.
#[derive(Clone, Copy)]
pub(super) struct Member {
    pub(super) id: PeerId,
    secret: Secret,
    pub(super) seen: Tick,
    /// The first twelve bytes of an IPv6 address; the others are with the contact, where all of an IPv4 address is.
    prefix: [u8; 12],
}

/// What others are told of a peer.
#[derive(Clone, Copy)]
pub(super) struct Contact {
    /// An IPv4 address, or the last four bytes of an IPv6 address.
    ip: [u8; 4],
    port: NonZeroU16,
    progress: Completion,
    mark: Mark,
}

/// In one byte: whether the address is one of IPv6, and seven bits of the peer's id, so that who looks for an id need
/// not look at every member.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark(u8);

/// Who is told. A peer on the tracker's own host is known here by a loopback address, which means another host to
/// everyone else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Requester {
    OnTrackerHost,
    /// Somebody who reaches the tracker by a link-local address of IPv6. Only these can use such addresses: they know by
    /// which of their interfaces.
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
        if self.contact.mark.is_v6() { self.contact.v6(&self.member).into() } else { self.contact.ip.into() }
    }

    pub(super) fn port(&self) -> NonZeroU16 {
        self.contact.port
    }
}

impl Member {
    /// Whether `secret` is this peer's; takes the same time whatever is wrong with it.
    pub(super) fn has_secret(&self, secret: Secret) -> bool {
        // As numbers they are compared in one step, as arrays byte by byte.
        u128::from_le_bytes(self.secret.0).ct_eq(&u128::from_le_bytes(secret.0)).into()
    }
}

impl Contact {
    pub(super) fn is_seeder(&self) -> bool {
        self.progress.is_complete()
    }

    /// Whether this may be the peer of this id; of others, one in 128 may.
    pub(super) fn may_be(&self, id: PeerId) -> bool {
        self.mark.0 & Mark::ID_BITS == Mark::of(id).0
    }

    /// What to tell `requester`; nothing if the peer's address is of no use there. The rest of the peer is asked for only
    /// when its address is of IPv6.
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
