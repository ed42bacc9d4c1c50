//! Taking a port, on IPv4 and IPv6 at once where there is IPv6.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::exit::{ExitCode, Failure};

/// Connections that may wait to be accepted: a swarm that starts at one moment.
const TCP_BACKLOG: i32 = 1_024;

/// Why a port cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has it.
    #[error("{protocol} port {} is in use", address.port())]
    PortInUse {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// What was asked for.
        address: SocketAddr,
    },
    /// This machine does not have the address.
    #[error("this machine does not have the address {}", .0.ip())]
    NoSuchAddress(SocketAddr),
    /// Ports below 1024 want privileges.
    #[error("not allowed to listen on {0}")]
    NotAllowed(SocketAddr),
    /// Something else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// Listens for connections on `port` of `bind`, or of every address. Does not block.
pub fn listen_tcp(bind: Option<IpAddr>, port: u16) -> Result<TcpListener, ListenError> {
    let listen = |ip: IpAddr| {
        let socket = new_socket(ip, Type::STREAM, Protocol::TCP)?;
        // Lets a restarted program have its port back while old connections fade; two listeners never share it.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(ip, port).into())?;
        socket.listen(TCP_BACKLOG)?;
        Ok(socket)
    };
    let socket =
        on_every_address(bind, listen).map_err(|error| ListenError::new("TCP", bind, port, error))?;
    Ok(socket.into())
}

/// Receives datagrams on `port` of `bind`, or of every address, with room for `buffer_len` bytes of them if the
/// system allows. Does not block. Never shares the port: each of two programs would miss datagrams.
pub fn listen_udp(bind: Option<IpAddr>, port: u16, buffer_len: usize) -> Result<UdpSocket, ListenError> {
    let listen = |ip: IpAddr| {
        let socket = new_socket(ip, Type::DGRAM, Protocol::UDP)?;
        if let Err(error) = socket.set_recv_buffer_size(buffer_len) {
            tracing::debug!("keeping the default receive buffer: {error}");
        }
        socket.bind(&SocketAddr::new(ip, port).into())?;
        Ok(socket)
    };
    let socket =
        on_every_address(bind, listen).map_err(|error| ListenError::new("UDP", bind, port, error))?;
    Ok(socket.into())
}

/// The address that `bind` and `port` ask for. `0.0.0.0` stands for every address, those of IPv6 too: that is
/// how users know it.
pub fn asked_address(bind: Option<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(bind.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port)
}

impl ListenError {
    fn new(protocol: &'static str, bind: Option<IpAddr>, port: u16, source: io::Error) -> ListenError {
        let address = asked_address(bind, port);
        match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::PortInUse { protocol, address },
            io::ErrorKind::AddrNotAvailable => ListenError::NoSuchAddress(address),
            io::ErrorKind::PermissionDenied => ListenError::NotAllowed(address),
            _ => ListenError::Other { address, source },
        }
    }
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Failure {
        let hint = match &error {
            ListenError::PortInUse { .. } => "choose another port with -p, or -p 0 for any that is free",
            ListenError::NoSuchAddress(_) => {
                "name one of this machine's addresses with --bind, or leave it out"
            }
            ListenError::NotAllowed(_) => "choose a port from 1024 up with -p",
            ListenError::Other { .. } => "check --bind and -p",
        };
        Failure::new(ExitCode::Network, error).hint(hint)
    }
}

fn on_every_address(
    bind: Option<IpAddr>,
    listen: impl Fn(IpAddr) -> io::Result<Socket>,
) -> io::Result<Socket> {
    match bind {
        Some(ip) => listen(ip),
        None => match listen(Ipv6Addr::UNSPECIFIED.into()) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                // A kernel without IPv6 does not even make the socket.
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
        let udp = listen_udp(None, 0, 4096).unwrap();
        let port = udp.local_addr().unwrap().port();
        assert!(matches!(listen_udp(None, port, 4096), Err(ListenError::PortInUse { .. })));
    }

    #[test]
    fn an_address_of_another_machine_is_an_error() {
        let elsewhere = Some("192.0.2.1".parse().unwrap());
        assert!(matches!(listen_tcp(elsewhere, 0), Err(ListenError::NoSuchAddress(_))));
    }
}
