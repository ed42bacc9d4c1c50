//! As many askers as a seeder takes, and one more.

use std::{collections::BTreeSet, fs};

use peer::handshake::{Connection, HandshakeError};
use proto::{
    ChunkIndex,
    peer::{GoodbyeReason, PeerMessage, RejectReason},
    tracker::Completion,
};
use seeder::DEFAULT_MAX_PEERS;
use tokio::{runtime::Runtime, task::JoinSet, time::timeout};

use crate::{
    peer::{answer, connect, send},
    program::{PATIENCE, Place, Running},
    seeder,
    sharing::{Described, described},
};

const CHUNKS: u32 = 4;

/// Asks for every chunk at once, and takes them in whatever order they come.
async fn fetch(connection: &mut Connection) {
    send(
        connection,
        (0..CHUNKS)
            .map(|chunk| PeerMessage::Request { chunk: ChunkIndex(chunk), progress: Completion::NOTHING }),
    )
    .await;
    let mut missing: BTreeSet<_> = (0..CHUNKS).map(ChunkIndex).collect();
    while !missing.is_empty() {
        let (PeerMessage::Chunk { chunk, .. }, bytes) = answer(connection).await else { panic!("no chunk") };
        assert!(missing.remove(&chunk), "{chunk:?} was not missing");
        assert_eq!(bytes, content(chunk));
    }
}

/// What is in a file that fits one chunk.
fn content(chunk: ChunkIndex) -> Vec<u8> {
    vec![b'a' + u8::try_from(chunk.0).unwrap(); 1_000]
}

/// A seeder of a directory of [`CHUNKS`] small files.
fn share_small_files(place: &Place) -> (Running, Described) {
    fs::create_dir(place.path("tree")).unwrap();
    for chunk in 0..CHUNKS {
        fs::write(place.path(&format!("tree/{chunk}")), content(ChunkIndex(chunk))).unwrap();
    }
    let seeder = Running::start(seeder(place, &["-f", "tree"]));
    let _starting = seeder.line();
    let share = described(&seeder, "tree");
    (seeder, share)
}

#[test]
fn serves_five_hundred_askers_and_sends_one_more_the_time_to_come_back() {
    let place = Place::new();
    let (_seeder, share) = share_small_files(&place);
    let (port, infohash) = (share.port, share.link.infohash);
    let all_served = async {
        let mut askers = JoinSet::new();
        for asker in 0..DEFAULT_MAX_PEERS {
            let mut connection = connect(port, infohash, asker).await.unwrap();
            askers.spawn(async move {
                fetch(&mut connection).await;
                connection
            });
        }
        let mut served = askers.join_all().await;
        assert_eq!(served.len(), DEFAULT_MAX_PEERS);
        // Of a host that has as many places as any.
        let refused = connect(port, infohash, DEFAULT_MAX_PEERS - 1).await;
        assert!(
            matches!(
                refused,
                Err(HandshakeError::Goodbye(GoodbyeReason::TooManyPeers { retry_after_ms: 1.. }))
            ),
            "{refused:?}"
        );
        // Someone leaves, and the seeder finds that out in its own time.
        served.pop();
        let mut welcome = loop {
            match connect(port, infohash, DEFAULT_MAX_PEERS - 1).await {
                Ok(connection) => break connection,
                Err(HandshakeError::Goodbye(GoodbyeReason::TooManyPeers { .. })) => {}
                Err(other) => panic!("{other}"),
            }
        };
        fetch(&mut welcome).await;
    };
    let in_time = async { timeout(PATIENCE, all_served).await.expect("everyone is served in time") };
    Runtime::new().unwrap().block_on(in_time);
}

#[test]
fn answers_every_request_once_whether_it_was_cancelled_or_not() {
    let place = Place::new();
    let (_seeder, share) = share_small_files(&place);
    let answers = async {
        let mut connection = connect(share.port, share.link.infohash, 0).await.unwrap();
        let request =
            |chunk| PeerMessage::Request { chunk: ChunkIndex(chunk), progress: Completion::NOTHING };
        let cancel = |chunk| PeerMessage::Cancel { chunk: ChunkIndex(chunk) };
        let said = [request(0), request(1), request(2), cancel(2), request(1), cancel(3)];
        send(&mut connection, said).await;
        let (mut chunks, mut cancelled) = (Vec::new(), 0);
        for _ in 0..4 {
            match answer(&mut connection).await.0 {
                PeerMessage::Chunk { chunk, .. } => chunks.push(chunk.0),
                PeerMessage::Reject { chunk: ChunkIndex(2), reason: RejectReason::Cancelled } => {
                    cancelled += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        // It may have been too late to cancel.
        chunks.retain(|&chunk| chunk != 2 || cancelled == 1);
        chunks.sort_unstable();
        assert_eq!(chunks, [0, 1, 1]);
        send(&mut connection, [request(3)]).await;
        let (PeerMessage::Chunk { chunk, .. }, _) = answer(&mut connection).await else { panic!("no chunk") };
        assert_eq!(chunk, ChunkIndex(3), "there is no fifth answer");
    };
    let in_time = async { timeout(PATIENCE, answers).await.expect("all is answered in time") };
    Runtime::new().unwrap().block_on(in_time);
}
