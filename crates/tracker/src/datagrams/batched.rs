//! Linux's `recvmmsg` and `sendmmsg`.
//!
//! They are from two crates. `nix` receives without an allocation for each call, which `rustix` cannot do. But the result of
//! its `sendmmsg` can only be read through addresses that it never wrote.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    ops::Range,
    os::fd::AsRawFd,
};

use arrayvec::ArrayVec;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};

use super::{Arrival, BATCH_LEN, Buffers};

pub(super) struct Receiver {
    headers: MultiHeaders<SockaddrStorage>,
}

impl Receiver {
    pub(super) fn new() -> Receiver {
        Receiver { headers: MultiHeaders::preallocate(BATCH_LEN, None) }
    }

    /// Receives datagrams into `buffers`, from the first on, and adds an arrival for each.
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        buffers: &mut Buffers,
        arrivals: &mut Vec<Arrival>,
    ) -> io::Result<()> {
        let mut slices = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
        let flags = MsgFlags::MSG_DONTWAIT;
        let messages = recvmmsg(socket.as_raw_fd(), &mut self.headers, slices.iter_mut(), flags, None)?;
        arrivals.extend(messages.map(|message| (source(message.address.as_ref()), message.bytes)));
        Ok(())
    }
}

/// Sends some of `replies`, each a part of `bytes`, and returns how many; an error is the first reply's.
pub(super) fn send(
    socket: &UdpSocket,
    bytes: &[u8],
    replies: &[(SocketAddr, Range<usize>)],
) -> io::Result<usize> {
    let replies = &replies[..replies.len().min(BATCH_LEN)];
    let targets: ArrayVec<SocketAddrAny, BATCH_LEN> =
        replies.iter().map(|&(target, _)| SocketAddrAny::from(target)).collect();
    let slices: ArrayVec<[IoSlice<'_>; 1], BATCH_LEN> =
        replies.iter().map(|(_, reply)| [IoSlice::new(&bytes[reply.clone()])]).collect();
    let mut controls: ArrayVec<SendAncillaryBuffer<'_, '_, '_>, BATCH_LEN> =
        replies.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: ArrayVec<MMsgHdr<'_>, BATCH_LEN> = targets
        .iter()
        .zip(&slices)
        .zip(&mut controls)
        .map(|((target, slice), control)| MMsgHdr::new_with_addr(target, slice, control))
        .collect();
    Ok(sendmmsg(socket, &mut messages, SendFlags::DONTWAIT)?)
}

/// Fails for an address family that no socket of this program has.
fn source(address: Option<&SockaddrStorage>) -> SocketAddr {
    let nowhere = SocketAddr::from(([0; 4], 0));
    address.map_or(nowhere, |address| {
        let v4 = address.as_sockaddr_in().map(|&address| SocketAddrV4::from(address).into());
        v4.or_else(|| address.as_sockaddr_in6().map(|&address| SocketAddrV6::from(address).into()))
            .unwrap_or(nowhere)
    })
}
