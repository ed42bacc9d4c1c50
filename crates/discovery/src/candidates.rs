//! Which answers become trackers. Pure: networks are passed in.
//!
//! An answer comes from anybody in the local network and may contain anything. Its address has to be in a network of this host: a
//! forged answer cannot make all Shoal programs of a network send to a host elsewhere.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use proto::Endpoint;

use crate::{SERVICE, VERSION};

/// Maximum trackers that a search finds. All of them are asked, and a network seldom has more than one.
pub const MAX_FOUND: usize = 4;

/// Maximum bytes of a label of a DNS name (RFC 1035). A name that is longer is cut.
const MAX_LABEL_LEN: usize = 63;

/// A tracker that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTracker {
    /// Where it listens. The host is an IP address.
    pub endpoint: Endpoint,
    /// The name that it gives itself, usually that of its host. At most 63 bytes, of any characters.
    pub name: String,
}

impl fmt::Display for FoundTracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tracker at {} ({})", self.endpoint, self.name)
    }
}

/// A network that this host is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    /// An address in it.
    pub(crate) address: IpAddr,
    /// Number of leading bits that all its addresses share.
    pub(crate) prefix_len: u8,
}

/// An instance of the service, as it was answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer<'a> {
    /// The name of the instance, with that of the service.
    pub(crate) full_name: &'a str,
    pub(crate) port: u16,
    /// The protocol version of its TXT record, if there is one.
    pub(crate) version: Option<&'a str>,
    pub(crate) addresses: Vec<IpAddr>,
}

/// The trackers that were found so far.
#[derive(Debug, Default)]
pub(crate) struct Candidates(Vec<Endpoint>);

impl Candidates {
    /// Whether no more trackers are taken.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= MAX_FOUND
    }

    /// The tracker of an answer, if it can be used and is new.
    pub(crate) fn take(&mut self, answer: &Answer<'_>, networks: &[Network]) -> Option<FoundTracker> {
        if self.is_full() || answer.port == 0 || answer.version != Some(VERSION) {
            return None;
        }
        // IPv4 first, because most seeders can be reached by it. The rest of the order only has to be the same each time.
        let usable = answer.addresses.iter().filter(|address| is_near(**address, networks));
        let address = usable.min_by_key(|address| (address.is_ipv6(), **address))?;
        let endpoint = Endpoint::from(SocketAddr::new(*address, answer.port));
        if self.0.contains(&endpoint) {
            return None;
        }
        self.0.push(endpoint.clone());
        Some(FoundTracker { endpoint, name: instance(answer.full_name) })
    }
}

/// Whether an address is one that another host of these networks can have. Link-local IPv6 addresses are not used: they mean
/// nothing without an interface, and an endpoint has none.
fn is_near(address: IpAddr, networks: &[Network]) -> bool {
    let is_unicast = match address {
        IpAddr::V4(v4) => {
            !(v4.is_loopback() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => {
            let unusable = v6.is_loopback() || v6.is_unspecified() || v6.is_multicast();
            !(unusable || v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some())
        }
    };
    is_unicast && networks.iter().any(|network| network.contains(address))
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        let prefix = |bits: u128, len: u8| bits.checked_shr(len.into()).unwrap_or(0);
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let host_len = 32_u8.saturating_sub(self.prefix_len);
                prefix(own.to_bits().into(), host_len) == prefix(other.to_bits().into(), host_len)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let host_len = 128_u8.saturating_sub(self.prefix_len);
                prefix(own.to_bits(), host_len) == prefix(other.to_bits(), host_len)
            }
            _ => false,
        }
    }
}

/// The name of an instance without that of its service, cut to the length of a label.
fn instance(full_name: &str) -> String {
    let name = full_name.strip_suffix(SERVICE).and_then(|name| name.strip_suffix('.')).unwrap_or(full_name);
    cut(name, MAX_LABEL_LEN).to_owned()
}

/// The beginning of a text, at most `max_len` bytes.
pub(crate) fn cut(text: &str, max_len: usize) -> &str {
    let ends = text.char_indices().map(|(start, c)| start + c.len_utf8());
    &text[..ends.take_while(|&end| end <= max_len).last().unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn networks() -> [Network; 4] {
        [("127.0.0.1", 8), ("192.0.2.7", 24), ("2001:db8::7", 64), ("fe80::7", 64)]
            .map(|(address, prefix_len)| Network { address: ip(address), prefix_len })
    }

    fn answer<'a>(addresses: &[&str]) -> Answer<'a> {
        let addresses = addresses.iter().map(|text| ip(text)).collect();
        Answer { full_name: "attic._shoal._udp.local.", port: 6020, version: Some(VERSION), addresses }
    }

    /// What a new search makes of an answer.
    fn found(answer: &Answer<'_>) -> Option<String> {
        Candidates::default().take(answer, &networks()).map(|tracker| tracker.to_string())
    }

    #[test]
    fn an_answer_becomes_a_tracker_at_its_address_in_a_network_of_this_host() {
        for (addresses, expected) in [
            (&["192.0.2.5"][..], "192.0.2.5:6020"),
            (&["2001:db8::5"], "[2001:db8::5]:6020"),
            (&["2001:db8::5", "192.0.2.5"], "192.0.2.5:6020"),
            (&["198.51.100.1", "192.0.2.9", "192.0.2.5", "fe80::5"], "192.0.2.5:6020"),
        ] {
            assert_eq!(found(&answer(addresses)), Some(format!("tracker at {expected} (attic)")));
        }
    }

    #[test]
    fn an_answer_that_leads_elsewhere_or_nowhere_is_not_used() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.251",
            "192.0.3.5",
            "8.8.8.8",
            "::1",
            "::",
            "ff02::fb",
            "fe80::5",
            "::ffff:192.0.2.5",
            "2001:db8:0:1::5",
        ] {
            assert_eq!(found(&answer(&[address])), None, "{address}");
        }
        assert_eq!(found(&answer(&[])), None);
        assert_eq!(found(&Answer { port: 0, ..answer(&["192.0.2.5"]) }), None);
        for version in [None, Some(""), Some("3"), Some("44")] {
            assert_eq!(found(&Answer { version, ..answer(&["192.0.2.5"]) }), None, "{version:?}");
        }
    }

    #[test]
    fn a_network_has_the_addresses_with_its_prefix() {
        for (own, prefix_len, other, expected) in [
            ("10.0.0.1", 0, "203.0.113.1", true),
            ("10.0.0.1", 31, "10.0.0.0", true),
            ("10.0.0.1", 32, "10.0.0.0", false),
            ("10.0.0.1", 32, "10.0.0.1", true),
            ("2001:db8::1", 0, "fd00::1", true),
            ("2001:db8::1", 128, "2001:db8::2", false),
            ("2001:db8::1", 0, "10.0.0.1", false),
        ] {
            let network = Network { address: ip(own), prefix_len };
            assert_eq!(network.contains(ip(other)), expected, "{own}/{prefix_len} {other}");
        }
    }

    #[test]
    fn a_tracker_is_found_once_and_no_more_than_the_maximum_are() {
        let mut candidates = Candidates::default();
        let mut take = |host: usize| {
            candidates
                .take(&answer(&[&format!("192.0.2.{host}")]), &networks())
                .map(|found| found.endpoint.host)
        };
        let again: Vec<_> = [1, 1, 2, 1].into_iter().filter_map(&mut take).collect();
        assert_eq!(again, ["192.0.2.1", "192.0.2.2"]);
        assert_eq!((3..100).filter_map(&mut take).count(), MAX_FOUND - 2);
        assert!(candidates.is_full());
    }

    #[test]
    fn a_name_is_that_of_the_instance_and_never_longer_than_a_label() {
        for (full_name, expected) in [
            ("attic._shoal._udp.local.", "attic".to_owned()),
            ("a.b (2)._shoal._udp.local.", "a.b (2)".to_owned()),
            ("._shoal._udp.local.", String::new()),
            ("something else", "something else".to_owned()),
            (&"ä".repeat(10_000), "ä".repeat(31)),
        ] {
            assert_eq!(instance(full_name), expected);
        }
    }
}
