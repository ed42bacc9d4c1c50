use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;

fn bound(ip: IpAddr) -> UdpSocket {
    UdpSocket::bind((ip, 0)).unwrap()
}

/// Every way to receive and to send that this system has.
fn ways() -> Vec<(Receive, Send)> {
    #[cfg(target_os = "linux")]
    let batched = {
        let mut receiver = batched::Receiver::new();
        let receive: Receive =
            Box::new(move |socket, buffers, arrivals| receiver.receive(socket, buffers, arrivals));
        (receive, batched::send as Send)
    };
    let single = {
        let mut receiver = single::Receiver::new();
        let receive: Receive =
            Box::new(move |socket, buffers, arrivals| receiver.receive(socket, buffers, arrivals));
        (receive, single::send as Send)
    };
    vec![
        single,
        #[cfg(target_os = "linux")]
        batched,
    ]
}

type Receive = Box<dyn FnMut(&UdpSocket, &mut Buffers, &mut Vec<Arrival>) -> io::Result<()>>;
type Send = fn(&UdpSocket, &[u8], &[(SocketAddr, Range<usize>)]) -> io::Result<usize>;

/// Waits until a socket that does not block has received something.
fn receive(socket: &UdpSocket, way: &mut Receive, buffers: &mut Buffers) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut arrivals = Vec::new();
    socket.set_nonblocking(false).unwrap();
    // A peek waits and leaves the datagram.
    socket.peek_from(&mut [0; 1]).unwrap();
    socket.set_nonblocking(true).unwrap();
    way(socket, buffers, &mut arrivals).unwrap();
    arrivals.iter().zip(buffers).map(|(&(source, len), buffer)| (source, buffer[..len].to_vec())).collect()
}

#[test]
fn a_datagram_arrives_whole_with_its_source_and_a_reply_goes_there() {
    let hosts: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for host in hosts {
        if UdpSocket::bind((host, 0)).is_err() {
            eprintln!("SKIPPED {host}: not on this machine");
            continue;
        }
        for (mut way, send) in ways() {
            let server = bound(host);
            let clients: Vec<UdpSocket> = (0..3).map(|_| bound(host)).collect();
            let mut buffers: Box<Buffers> = Box::new([[0; BUFFER_LEN]; BATCH_LEN]);
            // Twice, because buffers and headers are used again. The last one is too long, and is cut.
            for lens in [[5, 0, 1_300], [1, 1_200, 7]] {
                for (number, (client, len)) in (0..).zip(clients.iter().zip(lens)) {
                    client.send_to(&vec![number; len], server.local_addr().unwrap()).unwrap();
                }
                let mut arrived = Vec::new();
                while arrived.len() < clients.len() {
                    arrived.extend(receive(&server, &mut way, &mut buffers));
                }
                for (number, (client, len)) in (0_u8..).zip(clients.iter().zip(lens)) {
                    let from = client.local_addr().unwrap();
                    let expected = (from, vec![number; len.min(BUFFER_LEN)]);
                    assert_eq!(arrived[usize::from(number)], expected);
                    assert_eq!(send(&server, b"no, yes", &[(from, 4..7)]).unwrap(), 1);
                    let mut reply = [0; 10];
                    assert_eq!(client.recv_from(&mut reply).unwrap(), (3, server.local_addr().unwrap()));
                    assert_eq!(&reply[..3], b"yes");
                }
            }
        }
    }
}

#[test]
fn nothing_there_would_block() {
    for (mut way, send) in ways() {
        let server = bound(Ipv4Addr::LOCALHOST.into());
        server.set_nonblocking(true).unwrap();
        let mut buffers: Box<Buffers> = Box::new([[0; BUFFER_LEN]; BATCH_LEN]);
        let error = way(&server, &mut buffers, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(send(&server, b"", &[]).unwrap(), 0);
    }
}

#[test]
fn a_reply_that_cannot_be_sent_does_not_stop_the_others() {
    let server = bound(Ipv4Addr::LOCALHOST.into());
    let clients: Vec<UdpSocket> = (0..5).map(|_| bound(Ipv4Addr::LOCALHOST.into())).collect();
    let mut outgoing = Outgoing::new();
    // No datagram goes to port 0.
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    for (number, client) in (0_u8..).zip(&clients) {
        for target in [nowhere, client.local_addr().unwrap(), nowhere] {
            outgoing.push(target, |bytes| {
                bytes.extend_from_slice(&[number; 4]);
                Some(bytes.len() - 4..bytes.len())
            });
        }
        outgoing.push(client.local_addr().unwrap(), |_| None);
    }
    assert_eq!(outgoing.send(&server), 10);
    for (number, client) in (0_u8..).zip(&clients) {
        let mut reply = [0; 10];
        assert_eq!(client.recv(&mut reply).unwrap(), 4);
        assert_eq!(reply[..4], [number; 4]);
    }
    // They are not sent again.
    assert_eq!(outgoing.send(&server), 0);
}
