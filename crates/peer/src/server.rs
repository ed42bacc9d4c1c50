//! The chunk server: accepts peers and serves them chunks of any number of shares.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use proto::{
    InfoHash, PeerId,
    peer::{FrameError, GoodbyeReason, Hello, PeerMessage, PeerReader, Role},
};
use store::{Content, OpenChunkError};
use swarm::{RETRY_AFTER_MS, uploads::DEFAULT_SLOTS};
use tokio::{
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    faults::{self, Faults},
    handshake::{self, Connection, HandshakeError},
    outbox::{Outbox, OutboxFull},
    rate_limit::RateLimit,
    sender::{self, Serve, ServeCell},
    upload_hub::UploadHub,
};

/// A peer that said nothing for this long is gone: three keep-alives.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Connections that are being refused at a time; more are dropped without a word.
const MAX_REFUSALS: usize = 64;

/// Wait after accepting failed, most likely for want of file descriptors.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(200);

/// How long peers may take to hear goodbye when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// What a server serves.
pub type Shares = BTreeMap<InfoHash, Arc<dyn Content>>;

/// Serves shares to peers.
#[derive(Clone)]
pub struct Server {
    peer_id: PeerId,
    listen_port: u16,
    shares: Arc<BTreeMap<InfoHash, Served>>,
    limit: RateLimit,
}

/// A share that is being served.
struct Served {
    content: Arc<dyn Content>,
    uploads: Arc<UploadHub>,
    faults: Arc<Faults>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("sending: {0}")]
    Send(#[source] io::Error),
    #[error(transparent)]
    OutboxFull(#[from] OutboxFull),
    #[error("a message that a seeder does not accept: {0:?}")]
    Unexpected(PeerMessage),
    #[error("a message about a chunk or hash that the share does not have: {0:?}")]
    OutOfRange(PeerMessage),
    #[error("silent for {} seconds", IDLE_TIMEOUT.as_secs())]
    Idle,
}

impl Server {
    /// A server of `shares` that speaks as `peer_id`, is reached at `listen_port` and sends no faster than
    /// `limit`.
    /// `on_fault` hears of the first file of each share that cannot be served any more.
    pub fn new(
        peer_id: PeerId,
        listen_port: u16,
        shares: Shares,
        limit: RateLimit,
        on_fault: impl Fn(InfoHash, OpenChunkError) + Clone + Send + Sync + 'static,
    ) -> Server {
        let served = shares.into_iter().map(|(infohash, content)| {
            let chunk_count = content.metainfo().chunk_space().chunk_count();
            let uploads = UploadHub::new(chunk_count, DEFAULT_SLOTS);
            let on_fault = on_fault.clone();
            let faults = Faults::new(move |error| on_fault(infohash, error));
            (infohash, Served { content, uploads, faults })
        });
        Server { peer_id, listen_port, shares: Arc::new(served.collect()), limit }
    }

    /// Bytes of chunks sent so far.
    pub fn bytes_sent(&self) -> u64 {
        self.shares.values().map(|share| share.uploads.bytes_sent()).sum()
    }

    /// Accepts and serves at most `max_peers` peers at a time, until `shutdown`. When it returns every connection is
    /// closed, after a goodbye if the peer took it within [`STOP_TIMEOUT`], and no task of the server is left.
    pub async fn run(&self, listener: TcpListener, max_peers: usize, shutdown: CancellationToken) {
        let slots = Arc::new(Semaphore::new(max_peers));
        let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
        let tasks = TaskTracker::new();
        let (uploads, kill) = (CancellationToken::new(), CancellationToken::new());
        for share in self.shares.values() {
            let (hub, until) = (Arc::clone(&share.uploads), uploads.clone());
            tasks.spawn(async move { _ = until.run_until_cancelled(hub.run()).await });
            let watching = faults::watch(Arc::clone(&share.content), Arc::clone(&share.faults));
            let until = uploads.clone();
            tasks.spawn(async move { _ = until.run_until_cancelled(watching).await });
        }
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            let (stream, address) = match accepted {
                // On a socket for IPv4 and IPv6 both, IPv4 addresses appear as IPv4-mapped IPv6.
                Ok((stream, address)) => {
                    (stream, SocketAddr::new(address.ip().to_canonical(), address.port()))
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    sleep(ACCEPT_BACK_OFF).await;
                    continue;
                }
            };
            if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
                let (server, shutdown, kill) = (self.clone(), shutdown.clone(), kill.clone());
                tasks.spawn(async move {
                    kill.run_until_cancelled(server.serve_and_log(stream, address, shutdown)).await;
                    drop(slot);
                });
            } else if let Ok(refusal) = Arc::clone(&refusals).try_acquire_owned() {
                let kill = kill.clone();
                tasks.spawn(async move {
                    let reason = GoodbyeReason::TooManyPeers { retry_after_ms: RETRY_AFTER_MS };
                    let refused = kill.run_until_cancelled(handshake::refuse(stream, reason)).await;
                    tracing::debug!(%address, "no room: {refused:?}");
                    drop(refusal);
                });
            }
        }
        tasks.close();
        uploads.cancel();
        if timeout(STOP_TIMEOUT, tasks.wait()).await.is_err() {
            tracing::debug!("{} connections did not end in time", tasks.len());
            kill.cancel();
            tasks.wait().await;
        }
    }

    async fn serve_and_log(&self, stream: TcpStream, address: SocketAddr, shutdown: CancellationToken) {
        tracing::debug!(%address, "peer connected");
        match self.serve(stream, shutdown).await {
            Ok(()) => tracing::debug!(%address, "peer left"),
            Err(error) => tracing::debug!(%address, "peer dropped: {error}"),
        }
    }

    async fn serve(&self, stream: TcpStream, shutdown: CancellationToken) -> Result<(), ConnectionError> {
        let Connection { hello, reader, writer } = handshake::respond(stream, |infohash| {
            if !self.shares.contains_key(&infohash) {
                return Err(GoodbyeReason::UnknownShare);
            }
            let listen_port = self.listen_port;
            Ok(Hello { infohash, peer_id: self.peer_id, role: Role::Seeder, listen_port })
        })
        .await?;
        let Some(share) = self.shares.get(&hello.infohash) else { return Ok(()) };
        let outbox = Outbox::default();
        let asker = share.uploads.join(outbox.clone());
        let (content, faults) = (Arc::clone(&share.content), Arc::clone(&share.faults));
        let serve = ServeCell::from(OnceLock::from(Serve { content, asker, faults }));
        let sending = sender::send(writer, outbox.clone(), Arc::clone(&serve), self.limit.clone());
        let receiving = async {
            let reason = tokio::select! {
                result = receive(reader, &outbox, &serve) => {
                    outbox.close(match result {
                        Ok(()) | Err(ConnectionError::Idle) => GoodbyeReason::Done,
                        Err(_) => GoodbyeReason::Protocol,
                    });
                    return result;
                }
                () = shutdown.cancelled() => GoodbyeReason::ShuttingDown,
            };
            outbox.close(reason);
            Ok(())
        };
        // Whichever side ends first ends the other: the outbox is closed, or the socket is.
        tokio::pin!(sending);
        tokio::select! {
            sent = &mut sending => sent.map_err(ConnectionError::Send),
            received = receiving => {
                let sent = timeout(STOP_TIMEOUT, sending).await.unwrap_or(Ok(()));
                received.and(sent.map_err(ConnectionError::Send))
            }
        }
    }
}

/// Takes in what a peer asks, until it leaves.
async fn receive(
    mut reader: PeerReader<OwnedReadHalf>,
    outbox: &Outbox,
    serve: &ServeCell,
) -> Result<(), ConnectionError> {
    let Some(serve) = serve.get() else { return Ok(()) };
    let mut bitfield_came = false;
    loop {
        let message = timeout(IDLE_TIMEOUT, reader.next()).await.map_err(|_| ConnectionError::Idle)??;
        let Some(message) = message else { return Ok(()) };
        if !message.fits(serve.content.metainfo()) {
            return Err(ConnectionError::OutOfRange(message));
        }
        match message {
            PeerMessage::MetainfoRequest { offset } => outbox.metainfo(offset)?,
            PeerMessage::HashesRequest { first, count } => outbox.hashes(first, count)?,
            PeerMessage::Request { chunk } => serve.asker.request(chunk)?,
            PeerMessage::Cancel { chunk } => serve.asker.cancel(chunk)?,
            // What a leecher has, and whether it has to send, is of no interest to a seeder.
            PeerMessage::KeepAlive | PeerMessage::Have { .. } | PeerMessage::Idle => {}
            PeerMessage::Bitfield { .. } if bitfield_came => {
                return Err(ConnectionError::Unexpected(message));
            }
            PeerMessage::Bitfield { .. } => {
                bitfield_came = true;
                timeout(IDLE_TIMEOUT, skip_payload(&mut reader))
                    .await
                    .map_err(|_| ConnectionError::Idle)??;
            }
            PeerMessage::Goodbye(_) => return Ok(()),
            PeerMessage::Hello(_)
            | PeerMessage::Metainfo { .. }
            | PeerMessage::Hashes { .. }
            | PeerMessage::Chunk { .. }
            | PeerMessage::Reject { .. } => return Err(ConnectionError::Unexpected(message)),
        }
    }
}

/// Reads a payload that is of no interest, without taking memory for it.
async fn skip_payload(reader: &mut PeerReader<OwnedReadHalf>) -> Result<(), FrameError> {
    let mut buffer = [0; 1024];
    while reader.read_payload_some(&mut buffer).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::ErrorKind, ops::ControlFlow};

    use tokio::sync::mpsc;

    use super::*;

    /// A server of one file, where it listens, and what it reports.
    struct Running {
        dir: tempfile::TempDir,
        address: SocketAddr,
        infohash: InfoHash,
        faults: mpsc::UnboundedReceiver<String>,
        shutdown: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    async fn run() -> Running {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "12345").unwrap();
        let path = dir.path().join("file");
        let shared = store::share(&path, None, None, |_| (), &|_| ControlFlow::Continue(())).unwrap();
        let infohash = shared.metainfo().infohash();
        let (report, faults) = mpsc::unbounded_channel();
        let on_fault = move |_, error: OpenChunkError| _ = report.send(error.to_string());
        let shares = Shares::from([(infohash, Arc::new(shared) as Arc<dyn Content>)]);
        let server = Server::new(PeerId([1; 16]), 7, shares, RateLimit::unlimited(), on_fault);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { server.run(listener, 9, stop).await });
        Running { dir, address, infohash, faults, shutdown, task }
    }

    #[tokio::test]
    async fn when_it_has_stopped_every_connection_is_closed() {
        let running = run().await;
        let silent = TcpStream::connect(running.address).await.unwrap();
        // Connections are accepted in their order, so the first is when the second is answered.
        let hello = Hello {
            infohash: running.infohash,
            peer_id: PeerId([2; 16]),
            role: Role::Leecher,
            listen_port: 0,
        };
        let second = TcpStream::connect(running.address).await.unwrap();
        let mut second = handshake::initiate(second, hello).await.unwrap();
        running.shutdown.cancel();
        running.task.await.unwrap();
        let goodbye = second.reader.next().await.unwrap();
        assert_eq!(goodbye, Some(PeerMessage::Goodbye(GoodbyeReason::ShuttingDown)));
        let silent = silent.into_std().unwrap();
        let peeked = silent.peek(&mut [0]).map_err(|error| error.kind());
        assert!(matches!(peeked, Ok(0) | Err(ErrorKind::ConnectionReset)), "{peeked:?}");
    }

    /// Nobody asks for it.
    #[tokio::test]
    async fn a_file_that_changes_or_goes_away_is_noticed() {
        for change in ["changed", "gone"] {
            let mut running = run().await;
            let path = running.dir.path().join("file");
            match change {
                "changed" => fs::write(&path, "123456").unwrap(),
                _ => fs::remove_file(&path).unwrap(),
            }
            tokio::time::pause();
            let fault = running.faults.recv().await.unwrap();
            tokio::time::resume();
            assert!(fault.contains("file"), "{change}: {fault}");
            running.shutdown.cancel();
            running.task.await.unwrap();
        }
    }
}
