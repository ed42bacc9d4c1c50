//! Which peers have a place at a seeder.
//!
//! Pure: the caller knows which peers are connected, and for how long each has been idle. A place costs a file descriptor and memory, so places are
//! bounded, in all and for one site (an IPv4 address, or an IPv6 /64). When they are taken, the peer that was idle longest makes
//! room for a newcomer. So connections that request or receive nothing keep no other peer out.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// Maximum number of places of one site: as many peers as are behind a large NAT.
pub const MAX_PER_SITE: usize = 256;

/// A peer that has requested and received nothing for this long makes room for another. Its requests that wait for their turn
/// do not count against it.
pub const IDLE_TIME: Duration = Duration::from_secs(5);

/// A peer that has a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder<K> {
    /// Names it to the caller.
    pub key: K,
    /// Where it is.
    pub ip: IpAddr,
    /// How long it has been idle.
    pub idle: Duration,
}

/// What to do with a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission<K> {
    /// It gets a place.
    Welcome,
    /// It gets the place of this peer.
    Instead(K),
    /// There is no room.
    Full,
}

/// Whether a newcomer from `ip` gets one of `most` places.
pub fn admit<K: Copy>(ip: IpAddr, most: usize, holders: &[Holder<K>]) -> Admission<K> {
    let own = site(ip);
    let is_crowd = holders.iter().filter(|holder| site(holder.ip) == own).count() >= MAX_PER_SITE;
    if !is_crowd && holders.len() < most {
        return Admission::Welcome;
    }
    let idle =
        holders.iter().filter(|holder| holder.idle >= IDLE_TIME && (!is_crowd || site(holder.ip) == own));
    idle.max_by_key(|holder| holder.idle).map_or(Admission::Full, |holder| Admission::Instead(holder.key))
}

/// The site of an address: the IPv4 address, or the /64 of the IPv6 address, because a host commonly has all of one.
pub fn site(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(host: u8) -> IpAddr {
        [10, 0, 0, host].into()
    }

    fn holders(count: usize, host: u8, idle: Duration) -> Vec<Holder<usize>> {
        (0..count)
            .map(|key| Holder { key, ip: ip(host), idle: idle + Duration::from_millis(key as u64) })
            .collect()
    }

    #[test]
    fn the_peer_that_was_idle_longest_makes_room_and_no_other_does() {
        let mut all = holders(8, 1, IDLE_TIME);
        assert_eq!(admit(ip(2), 9, &all), Admission::Welcome);
        assert_eq!(admit(ip(2), 8, &all), Admission::Instead(7));
        all[7].idle = Duration::ZERO;
        assert_eq!(admit(ip(2), 8, &all), Admission::Instead(6));
        assert_eq!(admit(ip(2), 8, &holders(8, 1, Duration::ZERO)), Admission::Full);
    }

    #[test]
    fn one_site_gets_no_more_than_its_share() {
        let busy = holders(MAX_PER_SITE, 1, Duration::ZERO);
        assert_eq!(admit(ip(1), 500, &busy), Admission::Full);
        assert_eq!(admit(ip(2), 500, &busy), Admission::Welcome);
        // The place of an idle peer of another site does not help: the site would have one more.
        let mut all = [busy, holders(1, 2, IDLE_TIME)].concat();
        assert_eq!(admit(ip(1), 500, &all), Admission::Full);
        all[3].idle = IDLE_TIME;
        assert_eq!(admit(ip(1), 500, &all), Admission::Instead(3));
        let v6 = |low: u8| IpAddr::from([0x20, 1, 0xd, 0xb8, 0, 0, 0, 7, low, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(site(v6(1)), site(v6(2)));
    }
}
