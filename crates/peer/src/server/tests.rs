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
    let stream = TcpStream::connect(running.address).await.unwrap();
    handshake::initiate_and_ask(stream, hello(running.infohash), ask).await.unwrap()
}

async fn dial(address: SocketAddr, infohash: InfoHash) -> Result<handshake::Connection, HandshakeError> {
    handshake::initiate(TcpStream::connect(address).await?, hello(infohash)).await
}

fn hello(infohash: InfoHash) -> Hello {
    Hello { infohash, peer_id: PeerId([2; 16]), role: Role::Leecher, listen_port: 0, zone: Zone::NONE }
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

/// Each that waits costs a file descriptor.
#[tokio::test]
async fn a_few_newcomers_wait_for_a_place_and_one_more_is_refused_at_once() {
    let running = run().await;
    let crowd = IpAddr::from([10, 0, 0, 1]);
    let places: Vec<_> =
        (0..PLACES).map(|_| running.server.places.take(crowd, Instant::now()).unwrap()).collect();
    let mut newcomers = JoinSet::new();
    for _ in 0..=MAX_WAITING {
        newcomers.spawn(dial(running.address, running.infohash));
    }
    // Nobody in the crowd is idle, and no wait ends, because the paused clock stands still while there is work to do.
    tokio::time::pause();
    let begun = Instant::now();
    let crowd_is_busy = async {
        while begun.elapsed() < Duration::from_secs(20) {
            places.iter().for_each(|place| place.activity.touch());
            yield_now().await;
        }
    };
    tokio::select! {
        first = newcomers.join_next() => {
            let answer = first.unwrap().unwrap();
            assert!(matches!(answer, Err(HandshakeError::Goodbye(NO_ROOM))), "{answer:?}");
        }
        () = crowd_is_busy => panic!("all of them wait"),
    }
    assert!(newcomers.try_join_next().is_none(), "the others wait");
    tokio::time::resume();
    newcomers.shutdown().await;
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
    while peer.reader.next().await.unwrap() != Some(PeerMessage::Chunk { chunk: ChunkIndex(0), len: 5 }) {}
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
