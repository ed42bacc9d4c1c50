//! Which peers have a place at a seeder.
//!
//! Pure: the caller knows which peers are connected, and for how long each has been idle. A place costs a file descriptor and memory,
//! so places are bounded, in all and for one site (an IPv4 address, or an IPv6 /64). When they are taken, the peer that was idle longest
//! makes room for a newcomer. So connections that request or receive nothing keep no other peer out. They may come again at once, and
//! would then get nearly every place that becomes free. So a newcomer of a small site gets a place of the largest site sooner.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// Maximum number of places of one site: as many peers as are behind a large NAT.
pub const MAX_PER_SITE: usize = 256;

/// A peer that has requested and received nothing for this long makes room for another. Its requests that wait for their turn
/// do not count against it.
pub const IDLE_TIME: Duration = Duration::from_secs(5);

/// A peer of the site that has most places makes room for one of a much smaller site after this time, in which it could have asked for
/// something over any network.
pub const HASTE_TIME: Duration = Duration::from_secs(1);

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
    /// It gets a place of the largest site after this time, if the peer that has it goes on doing nothing.
    Later(Duration),
    /// There is no room.
    Full,
}

/// Whether a newcomer from `ip` gets one of `most` places.
pub fn admit<K: Copy>(ip: IpAddr, most: usize, holders: &[Holder<K>]) -> Admission<K> {
    let mut sizes: BTreeMap<IpAddr, usize> = BTreeMap::new();
    holders.iter().for_each(|holder| *sizes.entry(site(holder.ip)).or_default() += 1);
    let size = |ip| sizes.get(&site(ip)).copied().unwrap_or(0);
    let is_crowd = size(ip) >= MAX_PER_SITE;
    if !is_crowd && holders.len() < most {
        return Admission::Welcome;
    }
    let largest = sizes.values().max().copied().unwrap_or(0);
    // With one place more, its site still has fewer than the other has then.
    let is_small = size(ip) + 2 < largest;
    let makes_room = |holder: &&Holder<K>| match is_crowd {
        true => holder.idle >= IDLE_TIME && site(holder.ip) == site(ip),
        false if is_small && size(holder.ip) == largest => holder.idle >= HASTE_TIME,
        false => holder.idle >= IDLE_TIME,
    };
    if let Some(holder) = holders.iter().filter(makes_room).max_by_key(|holder| holder.idle) {
        return Admission::Instead(holder.key);
    }
    let next = holders.iter().filter(|holder| size(holder.ip) == largest).map(|holder| holder.idle).max();
    match next {
        Some(idle) if is_small && !is_crowd => Admission::Later(HASTE_TIME.saturating_sub(idle)),
        _ => Admission::Full,
    }
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
        let busy = [holders(4, 1, Duration::ZERO), holders(4, 2, Duration::ZERO)].concat();
        assert_eq!(admit(ip(2), 8, &busy), Admission::Full);
    }

    #[test]
    fn a_small_site_need_not_wait_for_what_the_largest_leaves() {
        let hasty = holders(8, 1, HASTE_TIME);
        assert_eq!(admit(ip(2), 8, &hasty), Admission::Instead(7));
        assert_eq!(admit(ip(1), 8, &hasty), Admission::Full, "the largest itself waits");
        let left = HASTE_TIME / 2 - Duration::from_millis(7);
        let recent = holders(8, 1, HASTE_TIME / 2);
        assert_eq!(admit(ip(2), 8, &recent), Admission::Later(left), "they came a moment ago");
        // What a site has taken already counts: two sites do not take each other's places in turn.
        let shared = |count| [holders(count, 1, HASTE_TIME), holders(8 - count, 2, Duration::ZERO)].concat();
        assert_eq!(admit(ip(2), 8, &shared(6)), Admission::Instead(5));
        assert_eq!(admit(ip(2), 8, &shared(5)), Admission::Full);
        // The places of a third site are not the price.
        let mut third = [holders(6, 1, Duration::ZERO), holders(2, 3, HASTE_TIME)].concat();
        assert!(matches!(admit(ip(2), 8, &third), Admission::Later(_)));
        third[7].idle = IDLE_TIME;
        assert_eq!(admit(ip(2), 8, &third), Admission::Instead(1));
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
