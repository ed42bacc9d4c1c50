//! A tracker makes itself known in the local network.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use mdns_sd::{DaemonEvent, IfKind, Receiver, ServiceInfo};
use tokio::time::{sleep, timeout};

use crate::{
    SERVICE, VERSION, VERSION_KEY,
    candidates::cut,
    daemon::{Daemon, networks},
};

/// How long a first announcement may take. Names are checked for three quarters of a second before it.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a tracker that stops waits until its record is withdrawn.
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum records of others that are kept. They are useless here, and anybody in the network can send any number. `mdns-sd` has no limit of
/// its own, so it is started anew then, and forgets them.
const MAX_KEPT: i64 = 10_000;

/// How often the records are counted.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum bytes of the host's name in the names of the record, which have more than that.
const MAX_HOST_LEN: usize = 40;

/// Advertises a tracker that listens at `address`, until `shutdown`. Then the record is withdrawn. Does nothing for a tracker that only its
/// own host can reach. A failure is one warning, as a tracker works without this.
pub async fn advertise(address: SocketAddr, shutdown: impl Future<Output = ()>) {
    if address.ip().to_canonical().is_loopback() {
        return;
    }
    tokio::pin!(shutdown);
    let mut reported = false;
    loop {
        let (daemon, service) = match register(address) {
            Ok(registered) => registered,
            Err(error) => return warn(&error),
        };
        let advertised = async {
            if !reported {
                report(&daemon).await;
                reported = true;
            }
            crowded(&daemon).await;
        };
        tokio::select! {
            () = advertised => {
                tracing::debug!("advertised anew, because many records by multicast DNS were received");
                daemon.stop().await;
            }
            () = &mut shutdown => {
                if let Ok(withdrawn) = daemon.unregister(&service) {
                    let _ = timeout(WITHDRAW_TIMEOUT, withdrawn.recv_async()).await;
                }
                return daemon.stop().await;
            }
        }
    }
}

/// Waits until more records of others are kept than is good.
async fn crowded(daemon: &Daemon) {
    loop {
        sleep(LOOK_INTERVAL).await;
        let Ok(asked) = daemon.get_metrics() else { return std::future::pending().await };
        let Ok(metrics) = asked.recv_async().await else { return std::future::pending().await };
        let kept = metrics.iter().filter(|(name, _)| name.starts_with("cached-")).map(|(_, count)| count);
        if kept.sum::<i64>() > MAX_KEPT {
            return;
        }
    }
}

fn register(address: SocketAddr) -> mdns_sd::Result<(Daemon, String)> {
    let name = rustix::system::uname();
    let service = record(&name.nodename().to_string_lossy(), address)?;
    let full_name = service.get_fullname().to_owned();
    let daemon = Daemon::start()?;
    daemon.register(service)?;
    Ok((daemon, full_name))
}

/// The record of a tracker on this host.
fn record(host: &str, address: SocketAddr) -> mdns_sd::Result<ServiceInfo> {
    let host = cut(host, MAX_HOST_LEN);
    let host = if host.is_empty() { "shoal" } else { host };
    // Hosts may share a name, as copies of one image do, and a host may have several trackers. Records of one name would replace each other.
    let random = RandomState::new().build_hasher().finish() >> 32;
    let instance = format!("{host} {random:08x}");
    // The name of the host itself may be answered for by another program here, with other addresses.
    let label: String = host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let server = format!("{label}-shoal-{random:08x}.local.");
    let version = [(VERSION_KEY, VERSION)];
    let service = |ip: &str| ServiceInfo::new(SERVICE, &instance, &server, ip, address.port(), &version[..]);
    match address.ip().to_canonical() {
        ip if !ip.is_unspecified() => service(&ip.to_string()),
        IpAddr::V6(_) => Ok(service("")?.enable_addr_auto()),
        IpAddr::V4(_) => {
            let mut service = service("")?.enable_addr_auto();
            service.set_interfaces(vec![IfKind::IPv4]);
            Ok(service)
        }
    }
}

/// Reports whether the tracker was announced.
async fn report(daemon: &Daemon) {
    let Ok(events) = daemon.monitor() else { return };
    match timeout(ANNOUNCE_TIMEOUT, announced(&events)).await {
        Ok(Ok(())) => tracing::info!("advertised in the local network by multicast DNS"),
        Ok(Err(error)) => warn(&error),
        Err(_) if networks().is_empty() => {
            tracing::info!("not advertised by multicast DNS: this host has no network");
        }
        Err(_) => warn("no network interface takes multicast"),
    }
}

/// Waits for the first announcement, or an error.
async fn announced(events: &Receiver<DaemonEvent>) -> mdns_sd::Result<()> {
    loop {
        match events.recv_async().await {
            Ok(DaemonEvent::Announce(..)) => return Ok(()),
            Ok(DaemonEvent::Error(error)) => return Err(error),
            Ok(_) => {}
            Err(_) => return Err(mdns_sd::Error::DaemonShutdown),
        }
    }
}

fn warn(reason: impl std::fmt::Display) {
    tracing::warn!(
        "the tracker is not advertised in the local network: {reason} (--no-discovery if it need not be)"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_legal_whatever_the_host_is_called() {
        for host in ["attic", "", "böse.local", &"x".repeat(300), &"ä".repeat(300), "a\0b", "a b (2)"] {
            for address in ["[::]:6020", "0.0.0.0:7020", "192.0.2.5:6020", "[2001:db8::5]:6020"] {
                let record = record(host, address.parse().unwrap()).unwrap();
                let instance = record.get_fullname().strip_suffix("._shoal._udp.local.").unwrap();
                assert!(!instance.is_empty() && instance.len() <= 63, "{instance}");
                let (label, domain) = record.get_hostname().split_once('.').unwrap();
                assert_eq!(domain, "local.");
                assert!(
                    label.len() <= 63 && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'),
                    "{label}"
                );
                assert_eq!(record.get_property_val_str(VERSION_KEY), Some(VERSION));
            }
        }
    }

    #[test]
    fn a_record_has_the_address_that_the_tracker_listens_on() {
        let addresses = |listens: &str| {
            let record = record("attic", listens.parse().unwrap()).unwrap();
            (record.is_addr_auto(), record.get_addresses().iter().map(IpAddr::to_string).collect::<Vec<_>>())
        };
        assert_eq!(addresses("192.0.2.5:6020"), (false, vec!["192.0.2.5".to_owned()]));
        assert_eq!(addresses("[::]:6020"), (true, vec![]));
        assert_eq!(addresses("0.0.0.0:6020"), (true, vec![]));
    }
}
