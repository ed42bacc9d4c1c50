//! The addresses by which other hosts reach this one.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use proto::Endpoint;

/// Public addresses, one of each family, to look up the default route. Nothing is ever sent to them.
const ELSEWHERE: [(IpAddr, IpAddr); 2] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1))),
    (
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111)),
    ),
];

/// The address of this host that others can most likely reach: the configured one, otherwise the one on its default route.
/// `None` if it has only loopback addresses.
pub fn own_address(bind: Option<IpAddr>) -> Option<IpAddr> {
    let on_default_route = |(any, elsewhere)| address_towards(any, elsewhere).ok();
    let address = match bind.filter(|ip| !ip.is_unspecified()) {
        Some(ip) => Some(ip),
        None => ELSEWHERE.into_iter().find_map(on_default_route),
    };
    address.filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// Connecting a UDP socket sends nothing. The system only looks up the route, and so the source address.
fn address_towards(any: IpAddr, elsewhere: IpAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(SocketAddr::new(elsewhere, proto::tracker::DEFAULT_PORT))?;
    Ok(socket.local_addr()?.ip())
}

/// Trackers as other hosts can name them: those on this host get its own address.
pub fn seen_from_elsewhere(trackers: &[Endpoint], own: IpAddr) -> Vec<Endpoint> {
    let mut seen: Vec<Endpoint> = Vec::with_capacity(trackers.len());
    for tracker in trackers {
        let host = if is_loopback(tracker) { own.to_string() } else { tracker.host.clone() };
        let tracker = Endpoint { host, port: tracker.port };
        if !seen.contains(&tracker) {
            seen.push(tracker);
        }
    }
    seen
}

/// Whether only this host can reach a tracker under that name. An unspecified address, as of a tracker that listens on every
/// address, leads to this host too.
pub fn is_loopback(tracker: &Endpoint) -> bool {
    let is_here = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    tracker.host.eq_ignore_ascii_case("localhost")
        || tracker.host.parse::<IpAddr>().is_ok_and(|ip| is_here(ip.to_canonical()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(texts: &[&str]) -> Vec<Endpoint> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_tracker_on_this_host_is_named_by_the_hosts_address() {
        let trackers =
            endpoints(&["127.0.0.1:6020", "tracker.example:1", "localhost:2", "[::1]:6020", "[::]:3"]);
        let own = [192, 0, 2, 7].into();
        assert_eq!(
            seen_from_elsewhere(&trackers, own),
            endpoints(&["192.0.2.7:6020", "tracker.example:1", "192.0.2.7:2", "192.0.2.7:3"])
        );
        let own = "2001:db8::7".parse().unwrap();
        assert_eq!(seen_from_elsewhere(&trackers[..1], own), endpoints(&["[2001:db8::7]:6020"]));
    }

    #[test]
    fn a_seeder_that_listens_on_loopback_only_cannot_be_reached_from_elsewhere() {
        assert_eq!(own_address(Some(Ipv4Addr::LOCALHOST.into())), None);
        assert_eq!(own_address(Some([192, 0, 2, 7].into())), Some([192, 0, 2, 7].into()));
        let own = own_address(None);
        assert!(own.is_none_or(|ip| !ip.is_loopback() && !ip.is_unspecified()), "{own:?}");
    }
}
