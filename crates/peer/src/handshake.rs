//! How a peer connection begins: preamble and `Hello` from the peer that connects, then from the peer that accepts.

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

/// Both sides must have sent their `Hello` within this time.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is requested together with the `Hello`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Nothing.
    Nothing,
    /// The description of the share.
    Description,
    /// The description, and then a chunk of the peer's choice.
    DescriptionAndChunk,
    /// The outline of its metainfo.
    Outline,
}

/// A connection after the handshake.
#[derive(Debug)]
pub struct Connection {
    /// The peer's `Hello`.
    pub hello: Hello,
    /// The receiving half.
    pub reader: PeerReader<OwnedReadHalf>,
    /// The sending half.
    pub writer: OwnedWriteHalf,
}

/// A peer that connected and waits for an answer to its `Hello`.
#[derive(Debug)]
pub struct Incoming {
    /// The address that it connected from.
    pub address: SocketAddr,
    /// Its `Hello`.
    pub hello: Hello,
    reader: PeerReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer did not speak the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer sent a goodbye.
    #[error("the peer refused: {0}")]
    Goodbye(GoodbyeReason),
    /// The peer answered with another share.
    #[error("the peer named another share")]
    OtherShare,
    /// This process connected to itself.
    #[error("the peer is this process itself")]
    SelfConnection,
    /// The peer did not begin with a `Hello`.
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

/// Sends the first `Hello`, on the side that made the connection.
pub async fn initiate(stream: TcpStream, hello: Hello) -> Result<Connection, HandshakeError> {
    initiate_and_ask(stream, hello, Ask::Nothing).await
}

/// [`initiate`] with a request that does not wait for the answer, which saves a round trip.
pub async fn initiate_and_ask(
    stream: TcpStream,
    hello: Hello,
    ask: Ask,
) -> Result<Connection, HandshakeError> {
    within_time(async {
        let (mut reader, mut writer) = split(stream)?;
        send_hello(&mut writer, hello, ask).await?;
        let answer = receive_hello(&mut reader).await?;
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

/// Reads the `Hello` of a peer that connected from `address`.
pub async fn receive(stream: TcpStream, address: SocketAddr) -> Result<Incoming, HandshakeError> {
    within_time(async {
        let (mut reader, writer) = split(stream)?;
        let hello = receive_hello(&mut reader).await?;
        Ok(Incoming { address, hello, reader, writer })
    })
    .await
}

impl Incoming {
    /// Answers with this side's `Hello`.
    pub async fn accept(mut self, hello: Hello) -> Result<Connection, HandshakeError> {
        if hello.peer_id == self.hello.peer_id {
            self.refuse(GoodbyeReason::SelfConnection).await?;
            return Err(HandshakeError::SelfConnection);
        }
        within_time(send_hello(&mut self.writer, hello, Ask::Nothing)).await?;
        Ok(Connection { hello: self.hello, reader: self.reader, writer: self.writer })
    }

    /// Answers with a goodbye.
    pub async fn refuse(mut self, reason: GoodbyeReason) -> Result<(), HandshakeError> {
        within_time(send_goodbye(&mut self.writer, reason)).await
    }
}

/// Refuses a connection before the peer has sent its `Hello`.
pub async fn refuse(stream: TcpStream, reason: GoodbyeReason) -> Result<(), HandshakeError> {
    within_time(async {
        let (_, mut writer) = split(stream)?;
        send_goodbye(&mut writer, reason).await
    })
    .await
}

async fn within_time<T>(
    handshake: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    timeout(HANDSHAKE_TIMEOUT, handshake).await.unwrap_or(Err(HandshakeError::Timeout))
}

fn split(stream: TcpStream) -> io::Result<(PeerReader<OwnedReadHalf>, OwnedWriteHalf)> {
    // Requests are small, and a peer waits for each.
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    Ok((PeerReader::new(reader), writer))
}

async fn send_hello(writer: &mut OwnedWriteHalf, hello: Hello, ask: Ask) -> Result<(), HandshakeError> {
    let mut bytes = BytesMut::from(&PREAMBLE[..]);
    encode_message(&PeerMessage::Hello(hello), &mut bytes)?;
    match ask {
        Ask::Nothing => {}
        Ask::Description => encode_message(&PeerMessage::DescriptionRequest { chunk: false }, &mut bytes)?,
        Ask::DescriptionAndChunk => {
            encode_message(&PeerMessage::DescriptionRequest { chunk: true }, &mut bytes)?;
        }
        Ask::Outline => encode_message(&PeerMessage::OutlineRequest { first: 0 }, &mut bytes)?,
    }
    Ok(writer.write_all(&bytes).await?)
}

async fn send_goodbye(writer: &mut OwnedWriteHalf, reason: GoodbyeReason) -> Result<(), HandshakeError> {
    let mut bytes = BytesMut::from(&PREAMBLE[..]);
    encode_message(&PeerMessage::Goodbye(reason), &mut bytes)?;
    writer.write_all(&bytes).await?;
    Ok(writer.shutdown().await?)
}

async fn receive_hello(reader: &mut PeerReader<OwnedReadHalf>) -> Result<Hello, HandshakeError> {
    reader.read_preamble().await?;
    match reader.next().await? {
        Some(PeerMessage::Hello(hello)) => Ok(hello),
        Some(PeerMessage::Goodbye(reason)) => Err(HandshakeError::Goodbye(reason)),
        _ => Err(HandshakeError::NoHello),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proto::{InfoHash, PeerId, Zone, peer::Role};
    use tokio::net::TcpListener;

    use super::*;

    fn hello(peer: u8, share: u8) -> Hello {
        let (infohash, peer_id) = (InfoHash([share; 32]), PeerId([peer; 16]));
        Hello { infohash, peer_id, role: Role::Leecher, listen_port: 0, zone: Zone::NONE }
    }

    /// What each side makes of the other's `Hello`: the one that connects, then the one that accepts.
    async fn meet(connects: Hello, accepts: Hello) -> [Result<Hello, HandshakeError>; 2] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let dialled = async {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await?;
            initiate(stream, connects).await.map(|connection| connection.hello)
        };
        let accepted = async {
            let (stream, address) = listener.accept().await?;
            receive(stream, address).await?.accept(accepts).await.map(|connection| connection.hello)
        };
        <[_; 2]>::from(tokio::join!(dialled, accepted))
    }

    #[tokio::test]
    async fn two_peers_of_a_share_meet() {
        let [dialled, accepted] = meet(hello(1, 7), hello(2, 7)).await;
        assert_eq!((dialled.unwrap(), accepted.unwrap()), (hello(2, 7), hello(1, 7)));
    }

    #[tokio::test]
    async fn an_answer_with_another_share_ends_a_handshake() {
        let [dialled, _] = meet(hello(1, 7), hello(2, 8)).await;
        assert!(matches!(dialled, Err(HandshakeError::OtherShare)), "{dialled:?}");
    }

    #[tokio::test]
    async fn a_peer_that_meets_its_own_id_ends_the_handshake_on_either_side() {
        let [dialled, accepted] = meet(hello(1, 7), hello(1, 7)).await;
        assert!(matches!(accepted, Err(HandshakeError::SelfConnection)), "{accepted:?}");
        let refused = HandshakeError::Goodbye(GoodbyeReason::SelfConnection).to_string();
        assert_eq!(dialled.unwrap_err().to_string(), refused);
        // Some other program may answer where this one would refuse.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let answering = async {
            let (_, mut writer) = split(listener.accept().await?.0)?;
            send_hello(&mut writer, hello(1, 7), Ask::Nothing).await
        };
        let dialling =
            async { initiate(TcpStream::connect(listener.local_addr().unwrap()).await?, hello(1, 7)).await };
        let (answered, dialled) = tokio::join!(answering, dialling);
        answered.unwrap();
        assert!(matches!(dialled, Err(HandshakeError::SelfConnection)), "{dialled:?}");
    }
}
