//! Sends many datagrams of one size from one address to another.
//!
//! On Linux one call takes them all (UDP generic segmentation offload), so the load costs less than the answers. On the
//! loopback they may come from any address of 127.0.0.0/8, so one socket can be a million hosts.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
};

/// Maximum datagrams in one call: the kernel takes 64, and at most 64 KiB.
pub(crate) const MAX_SEGMENTS: usize = 32;

/// The address with this number, of a load from the loopback, from 127.0.0.1 on.
pub(crate) fn loopback_source(number: u32) -> Ipv4Addr {
    // 127.255.255.255 is the broadcast address; no load has that many addresses.
    Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + number % 0x00ff_fffe)
}

/// Sends the datagrams in `datagrams`, of `len` bytes each, from `source` if there is one.
#[cfg(target_os = "linux")]
pub(crate) fn send(
    socket: &UdpSocket,
    target: SocketAddr,
    source: Option<Ipv4Addr>,
    datagrams: &[u8],
    len: u16,
) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
    use std::{io::IoSlice, os::fd::AsRawFd};

    let from = source.map(|source| nix::libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: nix::libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
        ipi_addr: nix::libc::in_addr { s_addr: 0 },
    });
    let from = from.as_ref().map(ControlMessage::Ipv4PacketInfo);
    let segments = (datagrams.len() > len.into()).then_some(ControlMessage::UdpGsoSegments(&len));
    let control: Vec<ControlMessage<'_>> = from.into_iter().chain(segments).collect();
    let slices = [IoSlice::new(datagrams)];
    let target = SockaddrStorage::from(target);
    sendmsg(socket.as_raw_fd(), &slices, &control, MsgFlags::MSG_DONTWAIT, Some(&target))?;
    Ok(())
}

/// Sends the datagrams in `datagrams`, of `len` bytes each. The system chooses the source, not `source`.
#[cfg(not(target_os = "linux"))]
pub(crate) fn send(
    socket: &UdpSocket,
    target: SocketAddr,
    _source: Option<Ipv4Addr>,
    datagrams: &[u8],
    len: u16,
) -> io::Result<()> {
    datagrams.chunks(len.into()).try_for_each(|datagram| socket.send_to(datagram, target).map(drop))
}
