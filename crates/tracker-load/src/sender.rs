//! Sends many datagrams of one size from one address to another.
//!
//! On Linux one call takes them all (UDP generic segmentation offload), so that whoever makes the load works less
//! than whoever answers it; and on the loopback they may come from any address of 127.0.0.0/8, so that one socket
//! is a million hosts.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
};

/// Most datagrams in one call; the kernel takes 64, and no more than 64 KiB.
pub(crate) const MAX_SEGMENTS: usize = 32;

/// The address with this number, of those that a load from the loopback comes from: 127.0.0.1 and on.
pub(crate) fn loopback_source(number: u32) -> Ipv4Addr {
    // 127.255.255.255 is the broadcast address; nobody asks for that many.
    Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + number % 0x00ff_fffe)
}

/// Sends the datagrams of `len` bytes each that `datagrams` consists of; from `source` if there is one.
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

/// Sends the datagrams of `len` bytes each that `datagrams` consists of. Any `source` is the system's.
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
