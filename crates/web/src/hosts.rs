//! Which names of this machine a request may use.
//!
//! A page of any site can have a browser send requests to any address, under the site's own name if that name leads there (DNS
//! rebinding). The browser then lets the page read the answers. An IP address cannot be used in this way, and neither can a name that
//! is not the stranger's.

use std::{collections::BTreeSet, net::IpAddr};

use axum::http::{HeaderMap, header};

use crate::machine_name;

/// Names that are good besides IP addresses and `localhost`.
#[derive(Debug, Clone)]
pub(crate) struct Hosts(BTreeSet<String>);

impl Hosts {
    /// The machine's own name, and `more`.
    pub(crate) fn new(more: &[String]) -> Hosts {
        let names = more.iter().cloned().chain([machine_name()]);
        Hosts(names.map(|name| normal(&name)).collect())
    }

    /// Whether the request names this machine.
    pub(crate) fn are_named_by(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().is_ok_and(|host| self.has(host)),
            _ => false,
        }
    }

    fn has(&self, host: &str) -> bool {
        if let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            return address.parse::<IpAddr>().is_ok() && is_port(port);
        }
        let name = match host.split_once(':') {
            Some((name, port)) if is_port(&format!(":{port}")) => name,
            Some(_) => return false,
            None => host,
        };
        let name = normal(name);
        name.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.0.contains(&name)
    }
}

/// Whether this is `:` and a port, or nothing.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_s_name_is_refused() {
        let hosts = Hosts::new(&["Tracker.example.com".to_owned()]);
        let own = machine_name();
        for good in [
            "127.0.0.1",
            "127.0.0.1:6020",
            "[::1]",
            "[::1]:6020",
            "192.0.2.1:80",
            "localhost:6020",
            "LOCALHOST",
            "a.localhost",
            "tracker.example.com:6020",
            "tracker.example.com.",
            &own,
        ] {
            assert!(hosts.has(good), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "127.0.0.1.example.com",
            "localhost.example.com",
            "evil.tracker.example.com",
            "[example.com]",
            "[::1]x",
            "127.0.0.1:x",
            "localhost:6020:1",
            "notlocalhost",
            ":6020",
        ] {
            assert!(!hosts.has(bad), "{bad}");
        }
        let mut headers = HeaderMap::new();
        assert!(!hosts.are_named_by(&headers));
        headers.append(header::HOST, "localhost".parse().unwrap());
        assert!(hosts.are_named_by(&headers));
        headers.append(header::HOST, "example.com".parse().unwrap());
        assert!(!hosts.are_named_by(&headers));
    }
}
