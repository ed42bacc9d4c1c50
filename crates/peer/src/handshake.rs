//! How a peer connection begins: preamble and `Hello` from whoever connects, then from whoever answers.

use std::{io, net::SocketAddr, time::Duration};

use bytes::BytesMut;
use proto::{
    PREAMBLE,
    peer::{FrameError, GoodbyeReason, Hello, PeerMessage, PeerReader, encode_message},
};
use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

/// Both sides have to have said hello within this time.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection whose two sides know each other.
#[derive(Debug)]
pub struct Connection {
    /// What the other side said.
    pub hello: Hello,
    /// Receives.
    pub reader: PeerReader<OwnedReadHalf>,
    /// Sends.
    pub writer: OwnedWriteHalf,
}

/// A peer that connected and waits for an answer to its hello.
#[derive(Debug)]
pub struct Incoming {
    /// Where it connected from.
    pub address: SocketAddr,
    /// What it said.
    pub hello: Hello,
    reader: PeerReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The other side sent something else.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other side said goodbye.
    #[error("the peer refused: {0}")]
    Goodbye(GoodbyeReason),
    /// The other side speaks of another share.
    #[error("the peer named another share")]
    OtherShare,
    /// This side talks to itself.
    #[error("the peer is this process itself")]
    SelfConnection,
    /// The other side did not begin with a hello.
    #[error("the peer did not say hello")]
    NoHello,
    /// It took longer than [`HANDSHAKE_TIMEOUT`].
    #[error("the peer did not say hello within {} seconds", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> HandshakeError {
        FrameError::Io(error).into()
    }
}

/// Says hello first, for whoever made the connection.
pub async fn initiate(stream: TcpStream, hello: Hello) -> Result<Connection, HandshakeError> {
    within_time(async {
        let (mut reader, mut writer) = split(stream)?;
        say_hello(&mut writer, hello).await?;
        let answer = hear_hello(&mut reader).await?;
        if answer.infohash != hello.infohash {
            return Err(HandshakeError::OtherShare);
        }
        if answer.peer_id == hello.peer_id {
            return Err(HandshakeError::SelfConnection);
        }
        Ok(Connection { hello: answer, reader, writer })
    })
    .await
}

/// Reads the hello of a peer that connected from `address`.
pub async fn hear(stream: TcpStream, address: SocketAddr) -> Result<Incoming, HandshakeError> {
    within_time(async {
        let (mut reader, writer) = split(stream)?;
        let hello = hear_hello(&mut reader).await?;
        Ok(Incoming { address, hello, reader, writer })
    })
    .await
}

impl Incoming {
    /// Answers with this side's hello.
    pub async fn accept(mut self, hello: Hello) -> Result<Connection, HandshakeError> {
        if hello.peer_id == self.hello.peer_id {
            self.refuse(GoodbyeReason::SelfConnection).await?;
            return Err(HandshakeError::SelfConnection);
        }
        within_time(say_hello(&mut self.writer, hello)).await?;
        Ok(Connection { hello: self.hello, reader: self.reader, writer: self.writer })
    }

    /// Answers with a goodbye.
    pub async fn refuse(mut self, reason: GoodbyeReason) -> Result<(), HandshakeError> {
        within_time(say_goodbye(&mut self.writer, reason)).await
    }
}

/// Refuses a connection before the peer has said hello.
pub async fn refuse(stream: TcpStream, reason: GoodbyeReason) -> Result<(), HandshakeError> {
    within_time(async {
        let (_, mut writer) = split(stream)?;
        say_goodbye(&mut writer, reason).await
    })
    .await
}

async fn within_time<T>(
    handshake: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    timeout(HANDSHAKE_TIMEOUT, handshake).await.unwrap_or(Err(HandshakeError::Timeout))
}

fn split(stream: TcpStream) -> io::Result<(PeerReader<OwnedReadHalf>, OwnedWriteHalf)> {
    // Requests are small and someone waits for each.
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    Ok((PeerReader::new(reader), writer))
}

async fn say_hello(writer: &mut OwnedWriteHalf, hello: Hello) -> Result<(), HandshakeError> {
    let mut bytes = BytesMut::from(&PREAMBLE[..]);
    encode_message(&PeerMessage::Hello(hello), &mut bytes)?;
    Ok(writer.write_all(&bytes).await?)
}

async fn say_goodbye(writer: &mut OwnedWriteHalf, reason: GoodbyeReason) -> Result<(), HandshakeError> {
    let mut bytes = BytesMut::from(&PREAMBLE[..]);
    encode_message(&PeerMessage::Goodbye(reason), &mut bytes)?;
    writer.write_all(&bytes).await?;
    Ok(writer.shutdown().await?)
}

async fn hear_hello(reader: &mut PeerReader<OwnedReadHalf>) -> Result<Hello, HandshakeError> {
    reader.read_preamble().await?;
    match reader.next().await? {
        Some(PeerMessage::Hello(hello)) => Ok(hello),
        Some(PeerMessage::Goodbye(reason)) => Err(HandshakeError::Goodbye(reason)),
        _ => Err(HandshakeError::NoHello),
    }
}
