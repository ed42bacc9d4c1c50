//! A proxy to a seeder, which misbehaves in a chosen way.
//!
//! The proxy decodes each message of the seeder. So a test can let a number of chunk bytes through and no more, cut the
//! connections there, or falsify one kind of message. The leecher's messages pass unchanged. To the leecher each proxy is a
//! separate peer with its own peer id.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Result, bail};
use bytes::BytesMut;
use proto::{
    PREAMBLE, PeerId,
    outline::SUM_LEN,
    peer::{PeerMessage, PeerReader, encode_message},
};
use tokio::{
    io::{self, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Maximum bytes of chunks that are passed on at a time.
const PIECE: usize = 16 * 1024;

/// What the proxy does to the seeder's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Nothing.
    Honest,
    /// Changes a byte in every other chunk.
    WrongChunks,
    /// Changes a byte in every chunk, and closes the connection after it.
    WrongChunkAndAway,
    /// Passes on the header of a chunk, and closes the connection.
    HeaderAndAway,
    /// Changes a byte in the chunk hashes.
    WrongHashes,
    /// Changes a byte in the metainfo.
    WrongMetainfo,
    /// Changes a byte in the outline of the metainfo.
    WrongOutline,
    /// Sends two sums of the outline in each other's place.
    SwappedOutline,
    /// Changes a byte in sections of the metainfo.
    WrongSections,
    /// Sends nothing after `Hello`.
    MuteAfterHello,
    /// Sends chunks a byte shorter than they are.
    ShortChunks,
    /// Keeps the share's description back until everything may pass.
    HoldsDescription,
    /// Changes nothing, and has the seeder's own peer id.
    SamePeerId,
}

/// What has gone through a proxy.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    /// Hellos of the seeder passed on.
    pub(crate) hellos: u32,
    /// Connections that are over.
    pub(crate) closed: u32,
    /// Bytes of chunks passed on, or about to be.
    pub(crate) chunk_bytes: u64,
    /// Bytes of everything passed on, in whole messages.
    pub(crate) bytes: u64,
    /// Parts of a description that were held back for a while.
    pub(crate) held: u32,
}

/// A proxy that listens.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    relay: Arc<Relay>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Relay {
    upstream: SocketAddr,
    manner: Manner,
    peer_id: PeerId,
    /// Most bytes of chunks to pass on in all.
    limit: watch::Sender<u64>,
    traffic: watch::Sender<Traffic>,
    /// How often connections were cut.
    cuts: watch::Sender<u32>,
}

impl Proxy {
    /// A proxy to `upstream`, through which no byte of a chunk passes yet.
    pub(crate) async fn start(
        upstream: SocketAddr,
        manner: Manner,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Proxy {
        let listener = TcpListener::bind((upstream.ip(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let relay = Arc::new(Relay {
            upstream,
            manner,
            peer_id: PeerId::random(&mut rand::rng()),
            limit: watch::Sender::new(0),
            traffic: watch::Sender::default(),
            cuts: watch::Sender::new(0),
        });
        let stop = stop.child_token();
        let task = tasks.spawn(run(listener, Arc::clone(&relay), stop.clone()));
        Proxy { address, relay, stop, task }
    }

    /// Lets this number of further chunk bytes through.
    pub(crate) fn allow(&self, bytes: u64) {
        self.relay.limit.send_modify(|limit| *limit = limit.saturating_add(bytes));
    }

    /// Lets everything through from now on.
    pub(crate) fn open(&self) {
        self.allow(u64::MAX);
    }

    /// What has gone through so far.
    pub(crate) fn traffic(&self) -> Traffic {
        *self.relay.traffic.borrow()
    }

    /// Waits until something has gone through.
    pub(crate) async fn until(&self, reached: impl Fn(Traffic) -> bool) {
        // The sender lives as long as this proxy.
        self.relay.traffic.subscribe().wait_for(|traffic| reached(*traffic)).await.unwrap();
    }

    /// Cuts every connection; new ones are welcome.
    pub(crate) fn cut(&self) {
        self.relay.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Cuts every connection and refuses new ones, like a machine that was switched off.
    pub(crate) async fn kill(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// The addresses of proxies.
pub(crate) fn addresses(proxies: &[Proxy]) -> Vec<SocketAddr> {
    proxies.iter().map(|proxy| proxy.address).collect()
}

async fn run(listener: TcpListener, relay: Arc<Relay>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.unwrap();
                let relay = Arc::clone(&relay);
                connections.spawn(async move {
                    // It does not matter which side closed or failed first.
                    let _ = relay.connection(client).await;
                    relay.traffic.send_modify(|traffic| traffic.closed += 1);
                });
            }
            Some(ended) = connections.join_next() => ended.unwrap(),
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

impl Relay {
    async fn connection(&self, client: TcpStream) -> Result<()> {
        let mut cuts = self.cuts.subscribe();
        let (mut from_client, to_client) = client.into_split();
        let (from_seeder, mut to_seeder) = TcpStream::connect(self.upstream).await?.into_split();
        tokio::select! {
            copied = io::copy(&mut from_client, &mut to_seeder) => { copied?; }
            passed = self.pass_messages(PeerReader::new(from_seeder), to_client) => passed?,
            cut = cuts.changed() => cut?,
        }
        Ok(())
    }

    async fn pass_messages(&self, mut from: PeerReader<OwnedReadHalf>, mut to: OwnedWriteHalf) -> Result<()> {
        from.read_preamble().await?;
        to.write_all(&PREAMBLE).await?;
        let (mut frame, mut payload) = (BytesMut::new(), Vec::new());
        while let Some(mut message) = from.next().await? {
            if let PeerMessage::Hello(hello) = &mut message
                && self.manner != Manner::SamePeerId
            {
                hello.peer_id = self.peer_id;
            }
            let is_hello = matches!(message, PeerMessage::Hello(_));
            self.traffic.send_if_modified(|traffic| {
                traffic.hellos += u32::from(is_hello);
                is_hello
            });
            payload.resize(message.payload_len(), 0);
            from.read_payload(&mut payload).await?;
            if self.manner == Manner::MuteAfterHello && !is_hello {
                continue;
            }
            let describes = matches!(message, PeerMessage::Metainfo { .. } | PeerMessage::Outline { .. });
            if self.manner == Manner::HoldsDescription && describes {
                self.traffic.send_modify(|traffic| traffic.held += 1);
                self.limit.subscribe().wait_for(|&limit| limit == u64::MAX).await?;
            }
            if let (Manner::ShortChunks, PeerMessage::Chunk { len, .. }) = (self.manner, &mut message) {
                *len -= 1;
                payload.pop();
            }
            if let (Manner::SwappedOutline, PeerMessage::Outline { .. }) = (self.manner, &message) {
                payload[..2 * SUM_LEN as usize].rotate_left(SUM_LEN as usize);
            }
            if self.manner.falsifies(&message) {
                // The last byte, so only a check of all bytes notices it.
                *payload.last_mut().unwrap() ^= 1;
            }
            frame.clear();
            encode_message(&message, &mut frame)?;
            let passed = (frame.len() + payload.len()) as u64;
            self.traffic.send_modify(|traffic| traffic.bytes += passed);
            to.write_all(&frame).await?;
            if !matches!(message, PeerMessage::Chunk { .. }) {
                to.write_all(&payload).await?;
                continue;
            }
            if self.manner == Manner::HeaderAndAway {
                bail!("away");
            }
            for piece in payload.chunks(PIECE) {
                self.pass_chunk_bytes(piece, &mut to).await?;
            }
            if self.manner == Manner::WrongChunkAndAway {
                bail!("away");
            }
        }
        Ok(())
    }

    async fn pass_chunk_bytes(&self, mut bytes: &[u8], to: &mut OwnedWriteHalf) -> Result<()> {
        let mut limit = self.limit.subscribe();
        while !bytes.is_empty() {
            let most = *limit.borrow_and_update();
            let mut count = 0;
            self.traffic.send_if_modified(|traffic| {
                let left = usize::try_from(most.saturating_sub(traffic.chunk_bytes)).unwrap_or(usize::MAX);
                count = bytes.len().min(left);
                traffic.chunk_bytes += count as u64;
                count > 0
            });
            if count == 0 {
                limit.changed().await?;
                continue;
            }
            to.write_all(&bytes[..count]).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }
}

impl Manner {
    fn falsifies(self, message: &PeerMessage) -> bool {
        match (self, message) {
            (Manner::WrongChunks, PeerMessage::Chunk { chunk, .. }) => chunk.0 % 2 == 1,
            (Manner::WrongChunkAndAway, PeerMessage::Chunk { .. })
            | (Manner::WrongHashes, PeerMessage::Hashes { .. })
            | (Manner::WrongOutline, PeerMessage::Outline { .. })
            | (Manner::WrongSections, PeerMessage::Sections { .. })
            | (Manner::WrongMetainfo, PeerMessage::Metainfo { .. }) => true,
            _ => false,
        }
    }
}
