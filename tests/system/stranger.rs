//! A peer that a test plays itself, message by message.

use std::net::SocketAddr;

use bytes::BytesMut;
use peer::handshake::{self, Connection, HandshakeError, Incoming};
use proto::{
    ChunkIndex, InfoHash, PeerId, Zone,
    peer::{GoodbyeReason, Hello, PeerMessage, Role, encode_message},
    tracker::Completion,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
};

/// Number of chunks that [`asks_and_reads_nothing`] requests. Shares that it is used with have as many.
const REQUESTS: u32 = 64;

/// A port where a test answers by hand.
pub(crate) struct Stranger {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
}

impl Stranger {
    pub(crate) async fn listen() -> Stranger {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Stranger { address: listener.local_addr().unwrap(), listener }
    }

    /// Waits for the next connection, and sends the `Hello` of a seeder.
    pub(crate) async fn met(&self, infohash: InfoHash) -> Connection {
        let incoming = self.incoming().await.unwrap();
        incoming.accept(hello(infohash, Role::Seeder)).await.unwrap()
    }

    /// Waits for the next connection, and answers its `Hello` with a goodbye.
    pub(crate) async fn turn_away(&self, reason: GoodbyeReason) {
        // The connection may have ended before.
        if let Ok(incoming) = self.incoming().await {
            let _ = incoming.refuse(reason).await;
        }
    }

    async fn incoming(&self) -> Result<Incoming, HandshakeError> {
        let (stream, address) = self.listener.accept().await.unwrap();
        handshake::receive(stream, address).await
    }

    /// Waits for the next connection, and sends everything back, so the peer sees its own `Hello`.
    pub(crate) async fn echo(&self) {
        let (stream, _) = self.listener.accept().await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        // A peer that finds itself at the other end closes the connection.
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    }
}

/// Connects to a peer and sends the `Hello` of a seeder that does not listen.
pub(crate) async fn visit(peer: SocketAddr, infohash: InfoHash) -> Result<Connection, HandshakeError> {
    let stream = TcpStream::connect(peer).await?;
    handshake::initiate(stream, hello(infohash, Role::Seeder)).await
}

/// Connects to a peer as a leecher, requests [`REQUESTS`] chunks, and reads up to the first byte of one. The socket buffer holds less
/// than a chunk.
pub(crate) async fn asks_and_reads_nothing(peer: SocketAddr, infohash: InfoHash) -> Connection {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let stream = socket.connect(peer).await.unwrap();
    let mut connection = handshake::initiate(stream, hello(infohash, Role::Leecher)).await.unwrap();
    for chunk in (0..REQUESTS).map(ChunkIndex) {
        assert!(
            send(&mut connection, PeerMessage::Request { chunk, progress: Completion::NOTHING }, &[]).await
        );
    }
    while !matches!(connection.reader.next().await.unwrap(), Some(PeerMessage::Chunk { .. })) {
        connection.reader.skip_payload().await.unwrap();
    }
    connection
}

/// Sends a message and its payload; false if the other side has closed the connection.
pub(crate) async fn send(connection: &mut Connection, message: PeerMessage, payload: &[u8]) -> bool {
    let mut bytes = BytesMut::new();
    encode_message(&message, &mut bytes).unwrap();
    bytes.extend_from_slice(payload);
    connection.writer.write_all(&bytes).await.is_ok()
}

/// The first result of `find` that is not `None`, over the peer's messages. Payloads are dropped.
pub(crate) async fn said<T>(connection: &mut Connection, find: impl Fn(PeerMessage) -> Option<T>) -> T {
    loop {
        let message = connection.reader.next().await.unwrap().expect("the peer said nothing of the kind");
        connection.reader.skip_payload().await.unwrap();
        if let Some(found) = find(message) {
            return found;
        }
    }
}

fn hello(infohash: InfoHash, role: Role) -> Hello {
    Hello { infohash, peer_id: PeerId::random(&mut rand::rng()), role, listen_port: 0, zone: Zone::NONE }
}
