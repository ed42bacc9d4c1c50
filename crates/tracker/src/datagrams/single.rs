//! Single datagrams, for systems other than Linux.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    ops::Range,
};

use super::{Arrival, Buffers};

pub(super) struct Receiver;

impl Receiver {
    pub(super) fn new() -> Receiver {
        Receiver
    }

    /// Receives datagrams into `buffers`, from the first on, and adds an arrival for each.
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        buffers: &mut Buffers,
        arrivals: &mut Vec<Arrival>,
    ) -> io::Result<()> {
        for buffer in buffers {
            match socket.recv_from(buffer) {
                Ok((len, source)) => arrivals.push((source, len)),
                Err(error) if arrivals.is_empty() => return Err(error),
                // Any error appears again when it is the first.
                Err(_) => break,
            }
        }
        Ok(())
    }
}

/// Sends some of `replies`, each a part of `bytes`, and returns how many; an error is the first reply's.
pub(super) fn send(
    socket: &UdpSocket,
    bytes: &[u8],
    replies: &[(SocketAddr, Range<usize>)],
) -> io::Result<usize> {
    if let Some((target, reply)) = replies.first() {
        socket.send_to(&bytes[reply.clone()], target)?;
    }
    Ok(replies.len().min(1))
}
