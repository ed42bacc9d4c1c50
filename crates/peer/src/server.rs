//! Serves chunks of shares that are whole.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::Ordering},
    time::Instant,
};

use proto::{
    InfoHash, PeerId, Zone,
    peer::{GoodbyeReason, Hello, PeerMessage, Role},
};
use store::{Content, OpenChunkError};
use swarm::{NO_ROOM, uploads::DEFAULT_SLOTS};
use tokio::{
    task::JoinSet,
    time::{Duration, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    acceptor::Route,
    connection::{self, ConnectionError, Inbox},
    descriptors::{FOR_PLACES, FOR_WAITING, at_most},
    faults::{self, Faults},
    handshake::{HandshakeError, Incoming},
    places::{NoPlace, Place, Places},
    rate_limit::RateLimit,
    refusals::Refusals,
    sender::Serve,
    task::{connection_ended, task_output},
    upload_hub::UploadHub,
};

/// How long connections may take to end when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of peers that wait a moment for a place.
const MAX_WAITING: usize = 16;

/// Serves shares to peers. Clones share the places and the limit.
#[derive(Debug, Clone)]
pub struct Server {
    places: Places,
    limit: RateLimit,
    /// Where in a network this host is.
    zone: Zone,
    /// The shares that are being served.
    hubs: Arc<Mutex<BTreeMap<InfoHash, Arc<UploadHub>>>>,
}

/// An event of a share that is being served.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeEvent {
    /// A peer may ask for chunks.
    Joined(SocketAddr),
    /// The connection with such a peer has ended.
    Left {
        /// Where it is.
        address: SocketAddr,
        /// Bytes of chunks that were sent to it.
        sent: u64,
    },
    /// The first fault of a file.
    Fault(OpenChunkError),
}

type OnEvent = Arc<dyn Fn(ServeEvent) + Send + Sync>;

/// A share that is being served.
struct Served {
    peer_id: PeerId,
    listen_port: u16,
    zone: Zone,
    content: Arc<dyn Content>,
    uploads: Arc<UploadHub>,
    faults: Arc<Faults>,
    limit: RateLimit,
    on_event: OnEvent,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl Server {
    /// A server with places for `max_peers` peers, of all shares together, or for fewer if this process may open few files. It sends no
    /// faster than `limit`.
    pub fn new(max_peers: usize, limit: RateLimit) -> Server {
        Server {
            places: Places::new(at_most(max_peers, FOR_PLACES)),
            limit,
            zone: Zone::NONE,
            hubs: Arc::default(),
        }
    }

    /// This server, in a zone.
    #[must_use]
    pub fn in_zone(self, zone: Zone) -> Server {
        Server { zone, ..self }
    }

    /// Where in a network it is.
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// From now on there are places for `max_peers` peers, or for fewer if this process may open few files. A peer that has one keeps it.
    pub fn set_max_peers(&self, max_peers: usize) {
        self.places.set_most(at_most(max_peers, FOR_PLACES));
    }

    /// Number of places.
    pub fn max_peers(&self) -> usize {
        self.places.most()
    }

    /// The limit of all shares together. Changing it changes how fast they are sent.
    pub fn limit(&self) -> &RateLimit {
        &self.limit
    }

    /// The uploads of a share, while it is being served.
    pub fn uploads(&self, infohash: &InfoHash) -> Option<Arc<UploadHub>> {
        self.hubs().get(infohash).cloned()
    }

    fn hubs(&self) -> MutexGuard<'_, BTreeMap<InfoHash, Arc<UploadHub>>> {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves `content` to the peers of `route` until `shutdown`, and returns how many bytes of chunks it sent. `on_event`
    /// receives who comes and goes, and the first fault of a file.
    ///
    /// When it returns, no task is left and every connection is closed, after a goodbye if the peer received it within
    /// [`STOP_TIMEOUT`].
    pub async fn serve(
        &self,
        mut route: Route,
        content: Arc<dyn Content>,
        on_event: impl Fn(ServeEvent) + Send + Sync + 'static,
        shutdown: CancellationToken,
    ) -> u64 {
        let on_event: OnEvent = Arc::new(on_event);
        let on_fault = Arc::clone(&on_event);
        let served = Arc::new(Served {
            peer_id: PeerId::random(&mut rand::rng()),
            listen_port: route.port(),
            zone: self.zone,
            uploads: UploadHub::new(content.metainfo().chunk_space().chunk_count(), DEFAULT_SLOTS),
            faults: Faults::new(move |error| on_fault(ServeEvent::Fault(error))),
            limit: self.limit.clone(),
            on_event,
            content,
        });
        let infohash = served.content.metainfo().infohash();
        self.hubs().insert(infohash, Arc::clone(&served.uploads));
        let _hub = Listed { server: self, infohash };
        let (mut hub, mut watch, mut connections) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        let (mut refusals, mut waiting) = (Refusals::default(), JoinSet::new());
        let most_waiting = at_most(MAX_WAITING, FOR_WAITING);
        let uploads = Arc::clone(&served.uploads);
        hub.spawn(async move { uploads.run().await });
        let (content, faults) = (Arc::clone(&served.content), Arc::clone(&served.faults));
        watch.spawn(faults::watch(content, faults, shutdown.clone()));
        loop {
            let (incoming, has_waited) = tokio::select! {
                incoming = route.next() => (incoming, false),
                Some(waited) = waiting.join_next() => (task_output(waited), true),
                Some(ended) = connections.join_next() => {
                    connection_ended(ended);
                    continue;
                }
                // Without these two the share cannot be served.
                Some(ended) = hub.join_next() => {
                    task_output(ended);
                    continue;
                }
                Some(ended) = watch.join_next() => {
                    task_output(ended);
                    continue;
                }
                () = shutdown.cancelled() => break,
            };
            let place = match self.places.take(incoming.address.ip(), Instant::now()) {
                Ok(place) => place,
                Err(NoPlace::Before(wait)) if !has_waited && waiting.len() < most_waiting => {
                    waiting.spawn(async move {
                        sleep(wait).await;
                        incoming
                    });
                    continue;
                }
                Err(_) => {
                    refusals.refuse(incoming, NO_ROOM);
                    continue;
                }
            };
            let (served, shutdown) = (Arc::clone(&served), shutdown.clone());
            connections.spawn(async move {
                let address = incoming.address;
                match served.serve(incoming, &place, shutdown).await {
                    Ok(()) => tracing::debug!(%address, "peer left"),
                    Err(error) => tracing::debug!(%address, "peer dropped: {error}"),
                }
            });
        }
        drop(route);
        hub.shutdown().await;
        refusals.stop().await;
        waiting.shutdown().await;
        let goodbyes = async {
            while let Some(ended) = connections.join_next().await {
                connection_ended(ended);
            }
        };
        if timeout(STOP_TIMEOUT, goodbyes).await.is_err() {
            tracing::debug!("{} connections did not end in time", connections.len());
            connections.shutdown().await;
        }
        while let Some(ended) = watch.join_next().await {
            task_output(ended);
        }
        served.uploads.bytes_sent()
    }
}

/// A share among those that are being served, until this is dropped.
struct Listed<'a> {
    server: &'a Server,
    infohash: InfoHash,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.server.hubs().remove(&self.infohash);
    }
}

impl Served {
    async fn serve(
        &self,
        incoming: Incoming,
        place: &Place,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        let hello = Hello {
            infohash: incoming.hello.infohash,
            peer_id: self.peer_id,
            role: Role::Seeder,
            listen_port: self.listen_port,
            zone: self.zone,
        };
        let address = incoming.address;
        let connection = incoming.accept(hello).await?;
        let joined = OnceLock::new();
        let receive = async |_, mut inbox: Inbox| {
            let asker = self.uploads.join(address, inbox.outbox().clone(), place.activity.clone());
            let _ = joined.set(asker.bytes_sent());
            (self.on_event)(ServeEvent::Joined(address));
            let (content, faults) = (Arc::clone(&self.content), Arc::clone(&self.faults));
            inbox.serve(Serve { content, asker, faults, is_whole: true });
            tokio::select! {
                result = receive(inbox) => {
                    let goodbye = match result {
                        Ok(()) | Err(ConnectionError::Idle) => GoodbyeReason::Done,
                        Err(_) => GoodbyeReason::Protocol,
                    };
                    (result, goodbye)
                }
                () = place.lost.cancelled() => (Ok(()), NO_ROOM),
                () = shutdown.cancelled() => (Ok(()), GoodbyeReason::ShuttingDown),
            }
        };
        let ended = connection::run(connection, self.limit.clone(), receive).await;
        if let Some(sent) = joined.get() {
            (self.on_event)(ServeEvent::Left { address, sent: sent.load(Ordering::Relaxed) });
        }
        Ok(ended??)
    }
}

/// Receives until the peer leaves, while it is served. A seeder ignores everything but requests.
async fn receive(mut inbox: Inbox) -> Result<(), ConnectionError> {
    let mut bitfield_came = false;
    while let Some(message) = inbox.next().await? {
        match message {
            PeerMessage::KeepAlive | PeerMessage::Have { .. } | PeerMessage::Idle => {}
            PeerMessage::Bitfield { .. } if !bitfield_came => {
                bitfield_came = true;
                inbox.skip_payload().await?;
            }
            PeerMessage::Goodbye(_) => return Ok(()),
            message => return Err(ConnectionError::Unexpected(message)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fmt, fs,
        io::ErrorKind,
        net::IpAddr,
        ops::ControlFlow,
        sync::{Mutex, mpsc as blocking},
        time::{Duration, Instant},
    };

    use bytes::BytesMut;
    use proto::{ChunkIndex, Metainfo, peer::encode_message, tracker::Completion};
    use store::{ChunkHashes, ChunkSource, Scan, ScanRules, Shared};
    use swarm::places::IDLE_TIME;
    use tokio::{
        io::AsyncWriteExt,
        net::TcpStream,
        sync::mpsc,
        task::{JoinHandle, yield_now},
    };
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        acceptor::Acceptor,
        handshake::{self, Ask},
    };

    const PLACES: usize = 9;

    /// A server of one file, its address, and its reports.
    struct Running {
        dir: tempfile::TempDir,
        address: SocketAddr,
        infohash: InfoHash,
        faults: mpsc::UnboundedReceiver<String>,
        peers: mpsc::UnboundedReceiver<ServeEvent>,
        shutdown: CancellationToken,
        task: JoinHandle<u64>,
        acceptors: TaskTracker,
        server: Server,
    }

    impl Running {
        async fn stop(self) {
            self.shutdown.cancel();
            self.task.await.unwrap();
            self.acceptors.close();
            self.acceptors.wait().await;
        }
    }

    async fn run() -> Running {
        run_with(|shared| Arc::new(shared)).await
    }

    async fn run_with(content: impl FnOnce(Shared) -> Arc<dyn Content>) -> Running {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "12345").unwrap();
        let path = dir.path().join("file");
        let shared = Scan::new(&path, None, &ScanRules::default())
            .unwrap()
            .hash(None, &|_| ControlFlow::Continue(()))
            .unwrap();
        let content = content(shared);
        let infohash = content.metainfo().infohash();
        let (report, faults) = mpsc::unbounded_channel();
        let (come_and_go, peers) = mpsc::unbounded_channel();
        let on_event = move |event| match event {
            ServeEvent::Fault(error) => _ = report.send(error.to_string()),
            event => _ = come_and_go.send(event),
        };
        let acceptors = TaskTracker::new();
        let acceptor = Acceptor::bind(Some([127, 0, 0, 1].into()), 0, &acceptors).unwrap();
        let address = acceptor.local_addr();
        let (route, shutdown) = (acceptor.route(infohash).unwrap(), CancellationToken::new());
        let stop = shutdown.clone();
        let server = Server::new(PLACES, RateLimit::unlimited());
        let serving = server.clone();
        let task = tokio::spawn(async move { serving.serve(route, content, on_event, stop).await });
        Running { dir, address, infohash, faults, peers, shutdown, task, acceptors, server }
    }

    async fn connect(running: &Running) -> handshake::Connection {
        connect_and_ask(running, Ask::Nothing).await
    }

    async fn connect_and_ask(running: &Running, ask: Ask) -> handshake::Connection {
        let hello = Hello {
            infohash: running.infohash,
            peer_id: PeerId([2; 16]),
            role: Role::Leecher,
            listen_port: 0,
            zone: Zone::NONE,
        };
        let stream = TcpStream::connect(running.address).await.unwrap();
        handshake::initiate_and_ask(stream, hello, ask).await.unwrap()
    }

    #[tokio::test]
    async fn when_it_has_stopped_every_connection_is_closed() {
        let running = run().await;
        let silent = TcpStream::connect(running.address).await.unwrap();
        // Connections are accepted in order, so the first is accepted when the second is answered.
        let mut second = connect(&running).await;
        running.stop().await;
        let goodbye = second.reader.next().await.unwrap();
        assert_eq!(goodbye, Some(PeerMessage::Goodbye(GoodbyeReason::ShuttingDown)));
        let silent = silent.into_std().unwrap();
        let peeked = silent.peek(&mut [0]).map_err(|error| error.kind());
        assert!(matches!(peeked, Ok(0) | Err(ErrorKind::ConnectionReset)), "{peeked:?}");
    }

    /// Each would cost up to 1 MiB.
    #[tokio::test]
    async fn the_description_comes_with_the_hello_once_and_a_second_request_ends_the_connection() {
        let running = run().await;
        let mut peer = connect_and_ask(&running, Ask::Description).await;
        let Ok(Some(PeerMessage::Metainfo { total_len, offset: 0, len })) = peer.reader.next().await else {
            panic!("no metainfo")
        };
        assert_eq!(total_len, len);
        peer.reader.skip_payload().await.unwrap();
        let mut again = BytesMut::new();
        encode_message(&PeerMessage::DescriptionRequest { chunk: false }, &mut again).unwrap();
        peer.writer.write_all(&again).await.unwrap();
        let goodbye = peer.reader.next().await.unwrap();
        assert_eq!(goodbye, Some(PeerMessage::Goodbye(GoodbyeReason::Protocol)));
        running.stop().await;
    }

    /// Peers that come together receive different chunks.
    #[tokio::test]
    async fn a_peer_that_asks_for_any_chunk_receives_the_next_one_after_the_description() {
        let running = run().await;
        for _ in 0..2 {
            let mut peer = connect_and_ask(&running, Ask::DescriptionAndChunk).await;
            let chunk = ChunkIndex(0);
            assert_eq!(peer.reader.next().await.unwrap(), Some(PeerMessage::Chosen { chunk }));
            let metainfo = peer.reader.next().await.unwrap();
            assert!(matches!(metainfo, Some(PeerMessage::Metainfo { .. })), "{metainfo:?}");
            peer.reader.skip_payload().await.unwrap();
            let mut next = peer.reader.next().await.unwrap();
            // Nobody waits for anything else.
            while next == Some(PeerMessage::Idle) {
                next = peer.reader.next().await.unwrap();
            }
            assert_eq!(next, Some(PeerMessage::Chunk { chunk, len: 5 }));
        }
        running.stop().await;
    }

    /// Each may have 512 KiB, and is read to its end.
    #[tokio::test]
    async fn a_second_bitfield_ends_the_connection() {
        let running = run().await;
        let mut peer = connect(&running).await;
        let mut bitfield = BytesMut::new();
        encode_message(&PeerMessage::Bitfield { len: 1 }, &mut bitfield).unwrap();
        bitfield.extend_from_slice(&[0]);
        let mut request = BytesMut::new();
        encode_message(
            &PeerMessage::Request { chunk: ChunkIndex(0), progress: Completion::NOTHING },
            &mut request,
        )
        .unwrap();
        let sent = async |peer: &mut handshake::Connection, bytes: &[u8]| {
            peer.writer.write_all(bytes).await.unwrap();
            loop {
                match peer.reader.next().await.unwrap() {
                    Some(PeerMessage::Idle) => {}
                    message => return message,
                }
            }
        };
        let answer = sent(&mut peer, &[&bitfield[..], &request].concat()).await;
        assert_eq!(answer, Some(PeerMessage::Chunk { chunk: ChunkIndex(0), len: 5 }));
        peer.reader.skip_payload().await.unwrap();
        let answer = sent(&mut peer, &[&bitfield[..], &request].concat()).await;
        assert_eq!(answer, Some(PeerMessage::Goodbye(GoodbyeReason::Protocol)));
        running.stop().await;
    }

    #[tokio::test]
    async fn an_idle_peer_makes_room_for_a_newcomer_and_one_that_just_came_does_not() {
        let running = run().await;
        let mut idle = connect(&running).await;
        let (ip, now) = (running.address.ip(), Instant::now());
        let take = |now| running.server.places.take(ip, now);
        let others: Vec<_> = (1..PLACES).map(|_| take(now).unwrap()).collect();
        assert_eq!(take(now).unwrap_err(), NoPlace::Now, "the others came a moment ago");
        let newcomer = take(now + IDLE_TIME).unwrap();
        let goodbye = idle.reader.next().await.unwrap();
        assert_eq!(goodbye, Some(PeerMessage::Goodbye(NO_ROOM)));
        drop((others, newcomer));
        running.stop().await;
    }

    #[tokio::test]
    async fn a_newcomer_waits_a_moment_for_a_place_of_a_crowd() {
        let running = run().await;
        let crowd = IpAddr::from([10, 0, 0, 1]);
        let places = || running.server.places.take(crowd, Instant::now()).unwrap();
        let others: Vec<_> = (0..PLACES).map(|_| places()).collect();
        let _welcome = connect(&running).await;
        assert_eq!(others.iter().filter(|place| place.lost.is_cancelled()).count(), 1);
        running.stop().await;
    }

    #[tokio::test]
    async fn who_comes_and_goes_is_reported_with_what_was_sent() {
        let mut running = run().await;
        let mut peer = connect(&running).await;
        let Some(ServeEvent::Joined(joined)) = running.peers.recv().await else { panic!("nobody joined") };
        let mut request = BytesMut::new();
        encode_message(
            &PeerMessage::Request { chunk: ChunkIndex(0), progress: Completion::NOTHING },
            &mut request,
        )
        .unwrap();
        peer.writer.write_all(&request).await.unwrap();
        while peer.reader.next().await.unwrap() != Some(PeerMessage::Chunk { chunk: ChunkIndex(0), len: 5 }) {
        }
        peer.reader.skip_payload().await.unwrap();
        drop(peer);
        let left = running.peers.recv().await;
        assert!(matches!(left, Some(ServeEvent::Left { address, sent: 5 }) if address == joined), "{left:?}");
        running.stop().await;
    }

    /// No peer requests a chunk of it.
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
            running.stop().await;
        }
    }

    /// A share whose chunks cannot be opened: the task of a peer that requests one panics.
    #[derive(Debug)]
    struct Broken(Shared);

    impl Content for Broken {
        fn metainfo(&self) -> &Metainfo {
            self.0.metainfo()
        }

        fn hashes(&self) -> &ChunkHashes {
            self.0.hashes()
        }

        fn try_open_chunk(&self, _: ChunkIndex) -> Option<Result<ChunkSource, OpenChunkError>> {
            panic!("a test")
        }

        fn open_chunk(&self, _: ChunkIndex) -> Result<ChunkSource, OpenChunkError> {
            panic!("a test")
        }
    }

    #[tokio::test]
    async fn a_connection_that_panics_ends_no_other() {
        let running = run_with(|shared| Arc::new(Broken(shared))).await;
        let mut other = connect(&running).await;
        let mut first = connect(&running).await;
        let mut request = BytesMut::new();
        encode_message(
            &PeerMessage::Request { chunk: ChunkIndex(0), progress: Completion::NOTHING },
            &mut request,
        )
        .unwrap();
        first.writer.write_all(&request).await.unwrap();
        while let Ok(Some(message)) = first.reader.next().await {
            assert!(!matches!(message, PeerMessage::Goodbye(_)), "it does not end as it should: {message:?}");
        }
        connect(&running).await;
        running.stop().await;
        let goodbye = other.reader.next().await.unwrap();
        assert_eq!(goodbye, Some(PeerMessage::Goodbye(GoodbyeReason::ShuttingDown)));
    }

    /// Content whose check a test determines.
    struct Checked<F>(Shared, F);

    impl<F> fmt::Debug for Checked<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }

    impl<F: Fn(&dyn Fn() -> bool) + Send + Sync> Content for Checked<F> {
        fn metainfo(&self) -> &Metainfo {
            self.0.metainfo()
        }

        fn hashes(&self) -> &ChunkHashes {
            self.0.hashes()
        }

        fn try_open_chunk(&self, chunk: ChunkIndex) -> Option<Result<ChunkSource, OpenChunkError>> {
            self.0.try_open_chunk(chunk)
        }

        fn open_chunk(&self, chunk: ChunkIndex) -> Result<ChunkSource, OpenChunkError> {
            self.0.open_chunk(chunk)
        }

        fn check(&self, is_stopped: &dyn Fn() -> bool) -> Result<(), OpenChunkError> {
            self.1(is_stopped);
            Ok(())
        }
    }

    #[tokio::test]
    async fn when_it_has_stopped_no_thread_is_checking_its_files() {
        let (begins, mut begun) = mpsc::unbounded_channel();
        let (ends, ended) = blocking::channel();
        let (go_on, may_end) = blocking::channel::<()>();
        let may_end = Mutex::new(may_end);
        let check = move |is_stopped: &dyn Fn() -> bool| {
            begins.send(()).unwrap();
            let begun = Instant::now();
            while !is_stopped() && begun.elapsed() < Duration::from_secs(10) {
                std::thread::yield_now();
            }
            // The channel is closed when the test failed.
            _ = may_end.lock().unwrap().recv();
            ends.send(is_stopped()).unwrap();
        };
        let running = run_with(|shared| Arc::new(Checked(shared, check))).await;
        tokio::time::pause();
        begun.recv().await.unwrap();
        tokio::time::resume();
        running.shutdown.cancel();
        for _ in 0..1_000 {
            yield_now().await;
            assert!(!running.task.is_finished(), "it stopped while a thread was still checking");
        }
        go_on.send(()).unwrap();
        running.stop().await;
        assert_eq!(ended.try_recv(), Ok(true));
    }

    #[tokio::test]
    async fn a_check_that_panics_is_not_silently_the_last() {
        let check = |is_stopped: &dyn Fn() -> bool| assert!(is_stopped(), "a test");
        let running = run_with(|shared| Arc::new(Checked(shared, check))).await;
        tokio::time::pause();
        let ended = timeout(Duration::from_secs(3_600), running.task).await;
        let error = ended.expect("the panic was ignored").unwrap_err();
        assert!(error.is_panic(), "{error}");
    }
}
