//! A peer that says exactly what a test wants it to say.

use bytes::BytesMut;
use peer::handshake::{self, Connection, HandshakeError};
use proto::{
    InfoHash, PeerId,
    peer::{Hello, PeerMessage, Role, encode_message},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// Connects to a seeder; `number` tells this peer from others.
pub(crate) async fn connect(
    port: u16,
    infohash: InfoHash,
    number: usize,
) -> Result<Connection, HandshakeError> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut peer_id = PeerId([1; 16]);
    peer_id.0[..8].copy_from_slice(&number.to_le_bytes());
    let hello = Hello { infohash, peer_id, role: Role::Leecher, listen_port: 0 };
    handshake::initiate(stream, hello).await
}

/// Says all of this at once.
pub(crate) async fn say(connection: &mut Connection, messages: impl IntoIterator<Item = PeerMessage>) {
    let mut said = BytesMut::new();
    messages.into_iter().for_each(|message| encode_message(&message, &mut said).unwrap());
    connection.writer.write_all(&said).await.unwrap();
}

/// What a request is answered with, and its payload.
pub(crate) async fn answer(connection: &mut Connection) -> (PeerMessage, Vec<u8>) {
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
