//! An IP address in 16 bytes.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// An IP address in its canonical form; IPv4 is kept as the IPv4-mapped IPv6 address (RFC 4291 2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Address([u8; 16]);

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Address {
        match ip {
            IpAddr::V4(ip) => Address(ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => Address(ip.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> IpAddr {
        Ipv6Addr::from(address.0).to_canonical()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}
