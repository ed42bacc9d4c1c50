use std::{fs, net::Ipv4Addr, ops::ControlFlow};

use bytes::BytesMut;
use proto::{
    ChunkIndex, InfoHash, PeerId, SMALL_CHUNK_LEN, Zone,
    outline::SectionSet,
    peer::{MAX_PIPELINE, Role, encode_message},
    tracker::Completion,
};
use store::{Scan, ScanRules};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::yield_now,
};

use super::*;
use crate::{activity::Activity, faults::Faults, handshake, upload_hub::UploadHub};

/// The two ends of a connection.
async fn connected() -> (Connection, Connection) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, address) = listener.accept().await.unwrap();
    let hello = |id| Hello {
        infohash: InfoHash([1; 32]),
        peer_id: PeerId([id; 16]),
        role: Role::Leecher,
        listen_port: 0,
        zone: Zone::NONE,
    };
    let (near, far) = tokio::join!(handshake::initiate(stream, hello(1)), async {
        handshake::receive(accepted, address).await?.accept(hello(2)).await
    });
    (near.unwrap(), far.unwrap())
}

#[tokio::test]
async fn a_goodbye_is_read_although_sending_has_failed() {
    let (mut near, mut far) = connected().await;
    // A socket that is closed with unread bytes in it resets the connection.
    near.writer.write_all(b"not read").await.unwrap();
    let goodbye = PeerMessage::Goodbye(GoodbyeReason::ShuttingDown);
    let mut bytes = BytesMut::new();
    encode_message(&goodbye, &mut bytes).unwrap();
    far.writer.write_all(&bytes).await.unwrap();
    drop(far);
    let receive = async |_, mut inbox: Inbox| {
        for _ in 0..1_000 {
            inbox.outbox().message(PeerMessage::KeepAlive).unwrap();
            yield_now().await;
        }
        (inbox.next().await, GoodbyeReason::Done)
    };
    let received = run(near, RateLimit::unlimited(), receive).await.expect("it goes on receiving");
    assert_eq!(received.unwrap(), Some(goodbye));
}

/// Twice as many messages without use as a peer may send at once. The rest of them is more than it may send within 50 seconds.
const FLOOD: usize = 10_000;

/// How the side that is flooded serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serving {
    /// It serves nothing.
    No,
    /// It never gets to serving a chunk.
    Slowly,
    /// Its files are gone.
    Gone,
    /// It serves its files.
    Well,
}

/// A message about a chunk.
type About = fn(ChunkIndex) -> PeerMessage;

/// What a peer sends.
struct Flood {
    serving: Serving,
    /// Files of the share, a chunk each.
    files: u32,
    message: About,
    /// Number of the messages that get no answer, before each of the others gets one.
    unanswered: usize,
    /// Messages that are sent before their answers are read.
    at_once: usize,
}

impl Flood {
    /// Sends many messages, and reads the answers. Returns what the side that receives them takes it for.
    async fn meets(&self) -> Result<(), ConnectionError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("share");
        fs::create_dir(&path).unwrap();
        (0..self.files).for_each(|file| fs::write(path.join(file.to_string()), "12345").unwrap());
        let shared = Scan::new(&path, None, &ScanRules::default())
            .unwrap()
            .hash(None, &|_| ControlFlow::Continue(()))
            .unwrap();
        if self.serving == Serving::Gone {
            fs::remove_dir_all(&path).unwrap();
        }
        let (near, far) = connected().await;
        let receive = async |_, mut inbox: Inbox| {
            if self.serving == Serving::No {
                inbox.expect(Arc::new(shared));
            } else {
                let slots = if self.serving == Serving::Slowly { 0 } else { 1 };
                let hub = UploadHub::new(self.files, SMALL_CHUNK_LEN, slots);
                let asker = hub.join(([127, 0, 0, 1], 1).into(), inbox.outbox().clone(), Activity::default());
                inbox.serve(Serve {
                    content: Arc::new(shared),
                    asker,
                    faults: Faults::new(|_| ()),
                    is_whole: true,
                });
            }
            loop {
                match inbox.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return (Ok(()), GoodbyeReason::Done),
                    Err(error) => return (Err(error), GoodbyeReason::Protocol),
                }
            }
        };
        let (met, ()) = tokio::join!(run(near, RateLimit::unlimited(), receive), self.send(far));
        met.unwrap()
    }

    /// Sends until the other side ends the connection, or all is sent.
    async fn send(&self, far: Connection) {
        let Connection { mut reader, mut writer, .. } = far;
        let mut sent = 0;
        while sent < FLOOD {
            let mut bytes = BytesMut::new();
            let chunks = (sent..sent + self.at_once).map(|number| ChunkIndex(number as u32 % self.files));
            chunks.for_each(|chunk| encode_message(&(self.message)(chunk), &mut bytes).unwrap());
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
            for number in sent..sent + self.at_once {
                if number < self.unanswered {
                    continue;
                }
                match answer(&mut reader).await {
                    Ok(Some(PeerMessage::Goodbye(_)) | None) | Err(_) => return,
                    Ok(Some(_)) if reader.skip_payload().await.is_err() => return,
                    Ok(Some(_)) => {}
                }
            }
            sent += self.at_once;
        }
    }
}

/// The next message that answers something.
async fn answer(reader: &mut PeerReader<OwnedReadHalf>) -> Result<Option<PeerMessage>, FrameError> {
    loop {
        match reader.next().await? {
            Some(PeerMessage::Idle | PeerMessage::KeepAlive) => {}
            other => return Ok(other),
        }
    }
}

#[tokio::test]
async fn a_flood_of_any_message_that_brings_nothing_costs_its_sender_the_connection() {
    use PeerMessage::{
        Cancel, HashesRequest, Have, Idle, KeepAlive, MetainfoRequest, OutlineRequest, Request,
        SectionsRequest,
    };
    let floods: [(&str, Serving, About, usize); 12] = [
        ("keep-alives", Serving::Well, |_| KeepAlive, FLOOD),
        ("notices of idleness", Serving::Well, |_| Idle, FLOOD),
        ("old news", Serving::Well, |chunk| Have { chunk }, FLOOD),
        ("cancellations of nothing", Serving::Well, |chunk| Cancel { chunk }, FLOOD),
        ("cancellations of nothing, before it is served", Serving::No, |chunk| Cancel { chunk }, FLOOD),
        ("requests for the metainfo", Serving::Well, |_| MetainfoRequest { offset: 0 }, 0),
        ("requests for hashes", Serving::Well, |first| HashesRequest { first, count: 1 }, 0),
        ("requests for the outline", Serving::Well, |_| OutlineRequest { first: 0 }, 0),
        ("requests for sections", Serving::Well, |_| SectionsRequest(SectionSet { first: 0, bits: 1 }), 0),
        (
            "requests before it is served",
            Serving::No,
            |chunk| Request { chunk, progress: Completion::NOTHING },
            0,
        ),
        // A request that waits gets no answer, until there are too many.
        (
            "too many requests",
            Serving::Slowly,
            |chunk| Request { chunk, progress: Completion::NOTHING },
            MAX_PIPELINE,
        ),
        (
            "requests that are refused",
            Serving::Gone,
            |chunk| Request { chunk, progress: Completion::NOTHING },
            0,
        ),
    ];
    for (name, serving, message, unanswered) in floods {
        let met = Flood { serving, files: 1, message, unanswered, at_once: 250 }.meets().await;
        assert!(matches!(met, Err(ConnectionError::Flood(_))), "{name}: {met:?}");
    }
}

#[tokio::test]
async fn requests_that_an_honest_peer_makes_are_no_flood() {
    let message = |chunk| PeerMessage::Request { chunk, progress: Completion::NOTHING };
    // All its chunks are requested once, and refused because the files are gone.
    for (serving, files) in [(Serving::Well, 1), (Serving::Gone, FLOOD as u32)] {
        let met = Flood { serving, files, message, unanswered: 0, at_once: 250 }.meets().await;
        assert!(met.is_ok(), "{serving:?}: {met:?}");
    }
}

#[tokio::test]
async fn a_message_that_is_not_about_this_share_ends_the_connection() {
    use PeerMessage::{Cancel, HashesRequest, Have, MetainfoRequest, Request};
    let messages: [About; 5] = [
        |_| Request { chunk: ChunkIndex(1), progress: Completion::NOTHING },
        |_| Cancel { chunk: ChunkIndex(1) },
        |_| Have { chunk: ChunkIndex(1) },
        |_| HashesRequest { first: ChunkIndex(0), count: 2 },
        |_| MetainfoRequest { offset: 1_000 },
    ];
    for message in messages {
        let met =
            Flood { serving: Serving::Well, files: 1, message, unanswered: FLOOD, at_once: 1 }.meets().await;
        assert!(matches!(met, Err(ConnectionError::OutOfRange(_))), "{met:?}");
    }
}

#[tokio::test]
async fn a_peer_that_sends_nothing_more_is_gone_after_a_while() {
    for is_in_payload in [false, true] {
        let (near, mut far) = connected().await;
        let mut begun = BytesMut::new();
        encode_message(&PeerMessage::Bitfield { len: 9 }, &mut begun).unwrap();
        begun.extend_from_slice(&[7]);
        far.writer.write_all(&begun).await.unwrap();
        let receive = async |_, mut inbox: Inbox| {
            inbox.next().await.unwrap();
            inbox.read_some(&mut [0; 9]).await.unwrap();
            if !is_in_payload {
                far.writer.write_all(&[7; 8]).await.unwrap();
                inbox.skip_payload().await.unwrap();
            }
            tokio::time::pause();
            let nothing = async {
                if is_in_payload {
                    inbox.read_some(&mut [0; 9]).await.err()
                } else {
                    inbox.next().await.err()
                }
            };
            let gone = timeout(2 * IDLE_TIMEOUT, nothing).await;
            tokio::time::resume();
            (gone, GoodbyeReason::Done)
        };
        let gone = run(near, RateLimit::unlimited(), receive).await.unwrap();
        assert!(matches!(gone, Ok(Some(ConnectionError::Idle))), "{is_in_payload}: {gone:?}");
    }
}
