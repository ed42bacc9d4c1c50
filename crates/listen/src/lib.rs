//! Taking a port, on IPv4 and IPv6 at once where there is IPv6.
//!
//! The tracker takes a UDP port, a seeder and a leecher take TCP ports. They get non-blocking sockets of the standard
//! library, so no runtime is needed.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    num::NonZeroUsize,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that may wait to be accepted: a swarm that starts at the same moment.
const TCP_BACKLOG: i32 = 1_024;

/// Why a port cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another program uses it.
    #[error("{protocol} port {} is in use", address.port())]
    PortInUse {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The requested address.
        address: SocketAddr,
    },
    /// This machine does not have the address.
    #[error("this machine does not have the address {}", .0.ip())]
    NoSuchAddress(SocketAddr),
    /// Ports below 1024 need privileges.
    #[error("not allowed to listen on {0}")]
    NotAllowed(SocketAddr),
    /// Any other failure.
    #[error("cannot listen on {address}: {error}")]
    Other {
        /// The requested address.
        address: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
}

/// Listens for connections on `port` of `bind`, or of every address. The socket is non-blocking.
pub fn listen_tcp(bind: Option<IpAddr>, port: u16) -> Result<TcpListener, ListenError> {
    let listen = |ip: IpAddr| {
        let socket = new_socket(ip, Type::STREAM, Protocol::TCP)?;
        // A restarted program can take its port again while old connections end. Two listeners never share it.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(ip, port).into())?;
        socket.listen(TCP_BACKLOG)?;
        Ok(socket)
    };
    let socket =
        on_every_address(bind, listen).map_err(|error| ListenError::new("TCP", bind, port, error))?;
    Ok(socket.into())
}

/// Receives datagrams on `port` of `bind`, or of every address, through `count` non-blocking sockets. The system distributes
/// datagrams among them by source. Each has room for `buffer_len` bytes, if the system allows it. The port is never shared
/// with another program, because each would miss datagrams.
pub fn listen_udp(
    bind: Option<IpAddr>,
    port: u16,
    buffer_len: usize,
    count: NonZeroUsize,
) -> Result<Vec<UdpSocket>, ListenError> {
    let listen = |ip: IpAddr| {
        let first = bound_udp(ip, port, buffer_len, Sharing::No)?;
        let port = first.local_addr()?.as_socket().map_or(port, |address| address.port());
        if count.get() > 1 {
            // Only after the bind: two programs that set this before it would both get the port.
            first.set_reuse_port(true)?;
        }
        let others = (1..count.get()).map(|_| bound_udp(ip, port, buffer_len, Sharing::Yes));
        [Ok(first)].into_iter().chain(others).collect::<io::Result<Vec<Socket>>>()
    };
    let sockets =
        on_every_address(bind, listen).map_err(|error| ListenError::new("UDP", bind, port, error))?;
    Ok(sockets.into_iter().map(UdpSocket::from).collect())
}

/// Bytes that a socket has room for, as [`listen_udp`] counts them. Linux reserves as much again for itself, and reports both together.
pub fn receive_buffer_len(socket: &UdpSocket) -> io::Result<usize> {
    let len = SockRef::from(socket).recv_buffer_size()?;
    Ok(if cfg!(target_os = "linux") { len / 2 } else { len })
}

/// The address that `bind` and `port` stand for. `[::]` stands for every address, those of IPv4 too.
pub fn asked_address(bind: Option<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(bind.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), port)
}

impl ListenError {
    fn new(protocol: &'static str, bind: Option<IpAddr>, port: u16, source: io::Error) -> ListenError {
        let address = asked_address(bind, port);
        match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::PortInUse { protocol, address },
            io::ErrorKind::AddrNotAvailable => ListenError::NoSuchAddress(address),
            io::ErrorKind::PermissionDenied => ListenError::NotAllowed(address),
            _ => ListenError::Other { address, error: source },
        }
    }
}

/// Whether other sockets may be bound to the same port.
enum Sharing {
    No,
    Yes,
}

fn bound_udp(ip: IpAddr, port: u16, buffer_len: usize, sharing: Sharing) -> io::Result<Socket> {
    let socket = new_socket(ip, Type::DGRAM, Protocol::UDP)?;
    if let Err(error) = socket.set_recv_buffer_size(buffer_len) {
        tracing::debug!("keeping the default receive buffer: {error}");
    }
    if let Sharing::Yes = sharing {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&SocketAddr::new(ip, port).into())?;
    Ok(socket)
}

fn on_every_address<T>(bind: Option<IpAddr>, listen: impl Fn(IpAddr) -> io::Result<T>) -> io::Result<T> {
    match bind {
        Some(ip) => listen(ip),
        None => match listen(Ipv6Addr::UNSPECIFIED.into()) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                // A kernel without IPv6 does not even create the socket.
                tracing::debug!("not on IPv6: {error}");
                listen(Ipv4Addr::UNSPECIFIED.into())
            }
            result => result,
        },
    }
}

fn new_socket(ip: IpAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address((ip, 0).into()), kind, Some(protocol))?;
    if ip.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_never_shared() {
        let tcp = listen_tcp(None, 0).unwrap();
        let port = tcp.local_addr().unwrap().port();
        assert!(matches!(listen_tcp(None, port), Err(ListenError::PortInUse { .. })));
        for count in [1, 3].map(|count| NonZeroUsize::new(count).unwrap()) {
            let udp = listen_udp(None, 0, 4096, count).unwrap();
            let port = udp[0].local_addr().unwrap().port();
            assert!(udp.iter().all(|socket| socket.local_addr().unwrap().port() == port));
            for another in [NonZeroUsize::MIN, count] {
                let taken = listen_udp(None, port, 4096, another);
                assert!(matches!(taken, Err(ListenError::PortInUse { .. })));
            }
        }
    }

    #[test]
    fn a_socket_knows_how_large_its_receive_buffer_is() {
        // Every system grants this much.
        let sockets = listen_udp(Some(Ipv4Addr::LOCALHOST.into()), 0, 16 * 1024, NonZeroUsize::MIN).unwrap();
        assert_eq!(receive_buffer_len(&sockets[0]).unwrap(), 16 * 1024);
    }

    #[test]
    fn an_address_of_another_machine_is_an_error() {
        let elsewhere = Some("192.0.2.1".parse().unwrap());
        assert!(matches!(listen_tcp(elsewhere, 0), Err(ListenError::NoSuchAddress(_))));
    }
}
