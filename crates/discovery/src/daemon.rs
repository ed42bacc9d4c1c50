//! The thread that speaks multicast DNS, and the networks that it speaks in.

use std::ops::Deref;

use mdns_sd::{IfKind, ServiceDaemon};

use crate::candidates::Network;

/// Speaks multicast DNS, on a thread of its own. The thread ends when this is dropped.
pub(crate) struct Daemon(ServiceDaemon);

impl Daemon {
    /// Starts the thread. It uses all interfaces but loopback.
    pub(crate) fn start() -> mdns_sd::Result<Daemon> {
        let daemon = Daemon(ServiceDaemon::new()?);
        daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
        Ok(daemon)
    }

    /// Ends the thread and waits for its end.
    pub(crate) async fn stop(self) {
        if let Ok(stopped) = self.shutdown() {
            let _ = stopped.recv_async().await;
        }
    }
}

impl Deref for Daemon {
    type Target = ServiceDaemon;

    fn deref(&self) -> &ServiceDaemon {
        &self.0
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // An error means that the thread has ended.
        let _ = self.0.shutdown();
    }
}

/// The networks that this host shares with others.
pub(crate) fn networks() -> Vec<Network> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::debug!("the network interfaces cannot be listed: {error}");
        Vec::new()
    });
    let near = interfaces.into_iter().filter(|interface| !interface.is_loopback());
    let network = |interface: if_addrs::Interface| match interface.addr {
        if_addrs::IfAddr::V4(v4) => Network { address: v4.ip.into(), prefix_len: v4.prefixlen },
        if_addrs::IfAddr::V6(v6) => Network { address: v6.ip.into(), prefix_len: v6.prefixlen },
    };
    near.map(network).collect()
}
