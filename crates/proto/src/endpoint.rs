//! `HOST:PORT` as users write it.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// A host name or IP address with a port, not yet resolved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Host name, IPv4 address or IPv6 address without brackets.
    pub host: String,
    /// UDP or TCP port.
    pub port: u16,
}

/// Why a text is not `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseEndpointError {
    /// There is no port, and no default.
    #[error("'{0}' has no port: write it as HOST:PORT, for example {0}:{port}", port = crate::peer::DEFAULT_PORT)]
    NoPort(String),
    /// The text after the colon is not a port.
    #[error("the port in '{0}' is not a number from 1 to 65535")]
    Port(String),
    /// The host is neither a name nor an address.
    #[error(
        "'{0}' does not start with a host name or an IP address (for IPv6 write [ADDRESS]:PORT, as in [2001:db8::1]:{port})",
        port = crate::peer::DEFAULT_PORT
    )]
    Host(String),
}

impl Endpoint {
    /// Reads `HOST:PORT`, or `HOST` alone with `default_port`.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Endpoint, ParseEndpointError> {
        let error = || ParseEndpointError::Host(text.to_owned());
        let bad_port = || ParseEndpointError::Port(text.to_owned());
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(error)?;
            host.parse::<Ipv6Addr>().map_err(|_| error())?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(error)?) };
            (host, port)
        } else if text.parse::<Ipv6Addr>().is_ok() {
            (text, None)
        } else {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            if host.is_empty() || !host.chars().all(|c| c.is_alphanumeric() || "-._".contains(c)) {
                return Err(error());
            }
            (host, port)
        };
        let port = match port {
            Some(digits) => digits.parse().map_err(|_| bad_port())?,
            None => default_port.ok_or_else(|| ParseEndpointError::NoPort(text.to_owned()))?,
        };
        if port == 0 {
            return Err(bad_port());
        }
        Ok(Endpoint { host: host.to_owned(), port })
    }
}

impl Endpoint {
    /// Reads a tracker as users write it: `HOST` (port 6020) or `HOST:PORT`, with or without the `shoal://` of a link.
    pub fn parse_tracker(text: &str) -> Result<Endpoint, ParseEndpointError> {
        let text = text.strip_prefix("shoal://").unwrap_or(text);
        Endpoint::parse(text.trim_end_matches('/'), Some(crate::tracker::DEFAULT_PORT))
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint { host: address.ip().to_string(), port: address.port() }
    }
}

impl From<(IpAddr, u16)> for Endpoint {
    fn from(address: (IpAddr, u16)) -> Endpoint {
        SocketAddr::from(address).into()
    }
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Endpoint, ParseEndpointError> {
        Endpoint::parse(text, None)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() {
        for text in ["127.0.0.1:6020", "tracker.example:1", "[::1]:65535", "host_a-b:7000"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!(Endpoint::parse("::1", Some(6020)).unwrap().to_string(), "[::1]:6020");
        assert_eq!(Endpoint::parse("[::1]", Some(6020)).unwrap().to_string(), "[::1]:6020");
        assert_eq!(Endpoint::parse("host", Some(6020)).unwrap().to_string(), "host:6020");
    }

    #[test]
    fn refuses_what_names_no_port_or_host() {
        for text in
            ["", ":1", "a", "a:", "a:0", "a:65536", "a:b", "a b:1", "[::1", "[::1]x", "[a]:1", "a:1:2"]
        {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
        let message = |text: &str| text.parse::<Endpoint>().unwrap_err().to_string();
        assert_eq!(
            message("127.0.0.1"),
            "'127.0.0.1' has no port: write it as HOST:PORT, for example 127.0.0.1:7000"
        );
        assert_eq!(message("a:0"), "the port in 'a:0' is not a number from 1 to 65535");
    }
}
