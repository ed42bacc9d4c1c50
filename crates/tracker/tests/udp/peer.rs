//! A peer: drives the client's logic over a socket.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Instant,
};

use bytes::BytesMut;
use proto::tracker::{
    client::{Answer, Call, CallError, Client},
    codec::{decode_reply, encode_request},
};
use rand::rngs::StdRng;
use tokio::{net::UdpSocket, time::timeout_at};

pub(crate) struct Peer {
    client: Client,
    pub(crate) socket: UdpSocket,
    rng: StdRng,
}

impl Peer {
    /// A client of any tracker, from this address.
    pub(crate) async fn at(ip: IpAddr) -> Peer {
        let socket = UdpSocket::bind((ip, 0)).await.unwrap();
        Peer { client: Client::default(), socket, rng: rand::make_rng() }
    }

    /// A client of one tracker.
    pub(crate) async fn of(tracker: SocketAddr) -> Peer {
        let loopback: IpAddr =
            if tracker.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let peer = Peer::at(loopback).await;
        peer.socket.connect(tracker).await.unwrap();
        peer
    }

    /// Calls the tracker that this is a client of.
    pub(crate) async fn call(&mut self, call: Call) -> Result<Answer, CallError> {
        self.call_at(None, call).await
    }

    /// Calls `tracker`.
    pub(crate) async fn call_at(
        &mut self,
        tracker: impl Into<Option<SocketAddr>>,
        call: Call,
    ) -> Result<Answer, CallError> {
        let tracker = tracker.into();
        self.client.start(call, Instant::now());
        let mut buffer = BytesMut::new();
        let mut datagram = [0; 1500];
        loop {
            while let Some(request) = self.client.poll_transmit(Instant::now(), &mut self.rng) {
                buffer.clear();
                encode_request(&request, &mut buffer).unwrap();
                // A tracker may be restarting: the client tries again by itself.
                let _ = match tracker {
                    Some(tracker) => self.socket.send_to(&buffer, tracker).await,
                    None => self.socket.send(&buffer).await,
                };
            }
            if let Some((_, outcome)) = self.client.poll_outcome() {
                return outcome;
            }
            let timeout = self.client.next_timeout().expect("a call is under way");
            if let Ok(Ok((len, _))) = timeout_at(timeout.into(), self.socket.recv_from(&mut datagram)).await {
                let reply = decode_reply(&datagram[..len]).unwrap();
                self.client.on_reply(reply, Instant::now(), &mut self.rng);
            }
        }
    }
}
