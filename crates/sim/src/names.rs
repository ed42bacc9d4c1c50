//! Names of peers, connections and flows: their places in the world's tables.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
};

/// Port that everybody listens on.
pub(crate) const PORT: NonZeroU16 = NonZeroU16::new(7_000).unwrap();

/// Names a peer: the origin is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) u32);

/// Names a connection, for both of its ends; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnId(pub(crate) u32);

/// Names a flow as long as it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlowId(pub(crate) u32);

impl NodeId {
    pub(crate) const ORIGIN: NodeId = NodeId(0);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }

    pub(crate) fn ip(self) -> IpAddr {
        let [_, a, b, c] = self.0.to_be_bytes();
        Ipv4Addr::new(10, a, b, c).into()
    }

    pub(crate) fn address(self) -> SocketAddr {
        SocketAddr::new(self.ip(), PORT.get())
    }

    /// The node at an address. The simulation has no other addresses.
    pub(crate) fn at(address: SocketAddr) -> NodeId {
        match address.ip() {
            IpAddr::V4(ip) => {
                let [_, a, b, c] = ip.octets();
                NodeId(u32::from_be_bytes([0, a, b, c]))
            }
            IpAddr::V6(ip) => unreachable!("{ip} belongs to no node"),
        }
    }
}

impl ConnId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

impl FlowId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}
