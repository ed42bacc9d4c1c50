//! Links: `magnet:?xt=urn:btmh:1220<64 hex>&dn=<name>&tr=shoal://host:6020&x.pe=host:port`.
//!
//! The magnet scheme of BEP 9 with the v2 multihash of BEP 52 (`1220` is SHA-256, 32 bytes). `dn` is a hint, `tr` names
//! Shoal trackers, `x.pe` names peers; `tr` and `x.pe` may repeat. Unknown keys are ignored, as in all magnet links, and so
//! are trackers of other schemes.
//!
//! ```
//! use proto::Link;
//!
//! let infohash = "d2f9af42da3de371b62985f633987c5f60072463ced0842295500b26a50ed51b";
//! let text = format!("magnet:?xt=urn:btmh:1220{infohash}&dn=disk.img&tr=shoal://192.0.2.2:6020");
//! let link: Link = text.parse()?;
//! assert_eq!(link.infohash.to_string(), infohash);
//! assert_eq!(link.trackers[0].to_string(), "192.0.2.2:6020");
//! assert_eq!(link.to_string(), text);
//! # Ok::<(), proto::link::ParseLinkError>(())
//! ```

use std::{borrow::Cow, fmt, str::FromStr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{Endpoint, InfoHash, ShareName};

const PREFIX: &str = "magnet:?";
const TOPIC: &str = "urn:btmh:";
const SHA256_MULTIHASH: &str = "1220";
const TRACKER_SCHEME: &str = "shoal://";

/// Maximum trackers, and maximum peers, in one link. More are a mistake or an attack.
pub const MAX_ENDPOINTS: usize = 32;

/// A parsed link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The share's id.
    pub infohash: InfoHash,
    /// The share's name, as the author of the link claims.
    pub name: Option<ShareName>,
    /// Trackers that know its peers.
    pub trackers: Vec<Endpoint>,
    /// Peers that have it.
    pub peers: Vec<Endpoint>,
}

/// Why a text is not a Shoal link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseLinkError {
    /// It does not start with `magnet:?`.
    #[error("a link starts with '{PREFIX}'")]
    NotMagnet,
    /// It has no `xt=urn:btmh:1220<64 hex>`.
    #[error(
        "the link has no 'xt={TOPIC}{SHA256_MULTIHASH}<64 hexadecimal digits>' (is it cut short, or a BitTorrent v1 link?)"
    )]
    NoInfoHash,
    /// It names two different shares.
    #[error("the link names two different shares")]
    TwoShares,
    /// Its `dn` is not a plain file name.
    #[error("in the link, {0}")]
    Name(crate::name::NameError),
    /// A `tr` or `x.pe` is not an address.
    #[error("in the link, {0}")]
    Endpoint(crate::endpoint::ParseEndpointError),
    /// More than [`MAX_ENDPOINTS`] trackers or peers.
    #[error("the link names more than {MAX_ENDPOINTS} trackers or peers")]
    TooManyEndpoints,
}

impl From<crate::name::NameError> for ParseLinkError {
    fn from(error: crate::name::NameError) -> ParseLinkError {
        ParseLinkError::Name(error)
    }
}

impl From<crate::endpoint::ParseEndpointError> for ParseLinkError {
    fn from(error: crate::endpoint::ParseEndpointError) -> ParseLinkError {
        ParseLinkError::Endpoint(error)
    }
}

impl FromStr for Link {
    type Err = ParseLinkError;

    fn from_str(text: &str) -> Result<Link, ParseLinkError> {
        let query = text.trim().strip_prefix(PREFIX).ok_or(ParseLinkError::NotMagnet)?;
        let (mut infohash, mut name, mut trackers, mut peers) = (None, None, Vec::new(), Vec::new());
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "xt" => {
                    let Some(found) = parse_topic(&value) else { continue };
                    if infohash.is_some_and(|known| known != found) {
                        return Err(ParseLinkError::TwoShares);
                    }
                    infohash = Some(found);
                }
                "dn" => name = Some(ShareName::new(&value)?),
                "tr" if value.starts_with(TRACKER_SCHEME) => trackers.push(Endpoint::parse_tracker(&value)?),
                "x.pe" => peers.push(value.parse()?),
                _ => {}
            }
        }
        if trackers.len() > MAX_ENDPOINTS || peers.len() > MAX_ENDPOINTS {
            return Err(ParseLinkError::TooManyEndpoints);
        }
        Ok(Link { infohash: infohash.ok_or(ParseLinkError::NoInfoHash)?, name, trackers, peers })
    }
}

fn parse_topic(topic: &str) -> Option<InfoHash> {
    topic.strip_prefix(TOPIC)?.strip_prefix(SHA256_MULTIHASH)?.parse().ok()
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}xt={TOPIC}{SHA256_MULTIHASH}{}", self.infohash)?;
        if let Some(name) = &self.name {
            write!(f, "&dn={}", escape(name.as_str()))?;
        }
        for tracker in &self.trackers {
            write!(f, "&tr={TRACKER_SCHEME}{tracker}")?;
        }
        for peer in &self.peers {
            write!(f, "&x.pe={peer}")?;
        }
        Ok(())
    }
}

/// Characters that need no escape in a link: RFC 3986's unreserved ones. None of them has a meaning to a shell inside single
/// quotes.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn escape(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, ESCAPED).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str) -> Link {
        Link {
            infohash: InfoHash([0x5a; 32]),
            name: Some(ShareName::new(name).unwrap()),
            trackers: vec!["127.0.0.1:6020".parse().unwrap(), "[::1]:1".parse().unwrap()],
            peers: vec!["seed.example:7000".parse().unwrap()],
        }
    }

    #[test]
    fn has_the_documented_form() {
        assert_eq!(
            link("a b&c.txt").to_string(),
            format!(
                "magnet:?xt=urn:btmh:1220{}&dn=a%20b%26c.txt&tr=shoal://127.0.0.1:6020&tr=shoal://[::1]:1&x.pe=seed.example:7000",
                "5a".repeat(32)
            )
        );
    }

    #[test]
    fn reads_what_it_prints() {
        for name in ["large_text_file.txt", "100% + 'quoted' & more.bin", "データ🐟", "a=b;c#d?e"] {
            let link = link(name);
            assert_eq!(link.to_string().parse(), Ok(link));
        }
    }

    #[test]
    fn ignores_what_it_does_not_know() {
        let text = format!(
            "magnet:?xt=urn:btih:{}&xt=urn:btmh:1220{}&tr=udp://t.example:1&tr=shoal://t.example/&xl=5",
            "0".repeat(40),
            "AB".repeat(32)
        );
        let link: Link = text.parse().unwrap();
        assert_eq!(link.infohash, InfoHash([0xab; 32]));
        assert_eq!(link.trackers, ["t.example:6020".parse().unwrap()]);
    }

    #[test]
    fn malformed_links_are_refused_with_the_reason() {
        let good = format!("magnet:?xt=urn:btmh:1220{}", "ab".repeat(32));
        assert_eq!("http://x".parse::<Link>(), Err(ParseLinkError::NotMagnet));
        assert_eq!(good[..good.len() - 1].parse::<Link>(), Err(ParseLinkError::NoInfoHash));
        assert_eq!("magnet:?dn=x".parse::<Link>(), Err(ParseLinkError::NoInfoHash));
        assert!(matches!(format!("{good}&dn=a%2Fb").parse::<Link>(), Err(ParseLinkError::Name(_))));
        assert!(matches!(format!("{good}&x.pe=host").parse::<Link>(), Err(ParseLinkError::Endpoint(_))));
        let two = format!("{good}&xt=urn:btmh:1220{}", "cd".repeat(32));
        assert_eq!(two.parse::<Link>(), Err(ParseLinkError::TwoShares));
        for one in ["&x.pe=h:1", "&tr=shoal://h:1"] {
            assert!(format!("{good}{}", one.repeat(MAX_ENDPOINTS)).parse::<Link>().is_ok());
            let many = format!("{good}{}", one.repeat(MAX_ENDPOINTS + 1));
            assert_eq!(many.parse::<Link>(), Err(ParseLinkError::TooManyEndpoints));
        }
    }
}
