//! Sends back every datagram. This shows the cost of the machine, the runtime and the batches before anything is done.
//!
//! It has the same calls, batches, buffers and runtime as the tracker, without a tracker in between. It listens on 127.0.0.1
//! only, because senders with forged source addresses could use an echo as a weapon.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use startup::print_line;
use tokio::{io::Interest, net::UdpSocket};
use tokio_util::sync::CancellationToken;
use tracker::datagrams::{Incoming, MAX_BATCHES, Outgoing};

/// Size in bytes of the receive buffer to request: the same as the tracker's.
const RECEIVE_BUFFER_LEN: usize = 4 * 1024 * 1024;

/// Echoes on `port` of 127.0.0.1 until `stop`. Blocks.
pub(crate) fn run(port: u16, stop: &CancellationToken) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(port, stop))
}

async fn serve(port: u16, stop: &CancellationToken) -> anyhow::Result<()> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).context("cannot listen")?;
    socket.set_nonblocking(true)?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_LEN)?;
    let watched = UdpSocket::from_std(socket.try_clone()?)?;
    let address: SocketAddr = socket.local_addr()?;
    print_line(format_args!("[LISTENING] Echo is listening on {address}"));
    let (mut incoming, mut outgoing) = (Incoming::new(), Outgoing::new());
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ready = watched.readable() => ready?,
        }
        for _ in 0..MAX_BATCHES {
            if watched.try_io(Interest::READABLE, || incoming.receive(&socket)).is_err() {
                break;
            }
            for (source, datagram) in incoming.datagrams() {
                outgoing.push(source, |bytes| {
                    let start = bytes.len();
                    bytes.extend_from_slice(datagram);
                    Some(start..bytes.len())
                });
            }
            outgoing.send(&socket);
        }
    }
}
