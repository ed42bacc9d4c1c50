//! A peer that sends exactly the messages of a test.

use std::net::SocketAddr;

use bytes::BytesMut;
use peer::handshake::{self, Connection, HandshakeError};
use proto::{
    InfoHash, PeerId, Zone,
    peer::{Hello, PeerMessage, Role, encode_message},
};
use tokio::{io::AsyncWriteExt, net::TcpSocket, time::timeout};

use crate::program::PATIENCE;

/// Peers at each of several loopback addresses.
const PEERS_OF_A_HOST: usize = 100;

/// Connects to a seeder; `number` is part of this peer's id.
pub(crate) async fn connect(
    port: u16,
    infohash: InfoHash,
    number: usize,
) -> Result<Connection, HandshakeError> {
    let socket = TcpSocket::new_v4().unwrap();
    // A seeder gives one host no more than a part of its places.
    let host = 1 + u8::try_from(number / PEERS_OF_A_HOST % 250).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, host], 0))).unwrap();
    let stream = socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
    let mut peer_id = PeerId([1; 16]);
    peer_id.0[..8].copy_from_slice(&number.to_le_bytes());
    let hello = Hello { infohash, peer_id, role: Role::Leecher, listen_port: 0, zone: Zone::NONE };
    handshake::initiate(stream, hello).await
}

/// Says all of this at once.
pub(crate) async fn send(connection: &mut Connection, messages: impl IntoIterator<Item = PeerMessage>) {
    let mut said = BytesMut::new();
    messages.into_iter().for_each(|message| encode_message(&message, &mut said).unwrap());
    connection.writer.write_all(&said).await.unwrap();
}

/// What a request is answered with, and its payload. While a request waits, keep-alives come for as long as it does.
pub(crate) async fn answer(connection: &mut Connection) -> (PeerMessage, Vec<u8>) {
    timeout(PATIENCE, patient_answer(connection)).await.expect("an answer in time")
}

async fn patient_answer(connection: &mut Connection) -> (PeerMessage, Vec<u8>) {
    loop {
        match connection.reader.next().await.unwrap().expect("an answer") {
            PeerMessage::KeepAlive | PeerMessage::Idle => {}
            message => {
                let mut payload = vec![0; message.payload_len()];
                connection.reader.read_payload(&mut payload).await.unwrap();
                return (message, payload);
            }
        }
    }
}
