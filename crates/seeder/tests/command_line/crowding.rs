//! As many askers as a seeder takes, and one more.

use std::{collections::BTreeSet, fs};

use bytes::BytesMut;
use proto::{
    ChunkIndex, InfoHash, PeerId,
    peer::{GoodbyeReason, Hello, PeerMessage, Role, encode_message},
};
use seeder::{
    DEFAULT_MAX_PEERS,
    handshake::{self, Connection, HandshakeError},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, runtime::Runtime, task::JoinSet, time::timeout};

use crate::{
    program::{PATIENCE, Place, Running},
    seeder,
    sharing::described,
};

const CHUNKS: u32 = 4;

async fn connect(port: u16, infohash: InfoHash, asker: usize) -> Result<Connection, HandshakeError> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut peer_id = PeerId([1; 16]);
    peer_id.0[..8].copy_from_slice(&asker.to_le_bytes());
    let hello = Hello { infohash, peer_id, role: Role::Leecher, listen_port: 0 };
    handshake::initiate(stream, hello).await
}

/// Asks for every chunk at once, and takes them in whatever order they come.
async fn fetch(connection: &mut Connection) {
    let mut requests = BytesMut::new();
    for chunk in (0..CHUNKS).map(ChunkIndex) {
        encode_message(&PeerMessage::Request { chunk }, &mut requests).unwrap();
    }
    connection.writer.write_all(&requests).await.unwrap();
    let mut missing: BTreeSet<_> = (0..CHUNKS).map(ChunkIndex).collect();
    while !missing.is_empty() {
        match connection.reader.next().await.unwrap() {
            Some(PeerMessage::KeepAlive) => {}
            Some(PeerMessage::Chunk { chunk, len }) => {
                let mut bytes = vec![0; len as usize];
                connection.reader.read_payload(&mut bytes).await.unwrap();
                assert!(missing.remove(&chunk), "{chunk:?} was not missing");
                assert_eq!(bytes, content(chunk));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What is in a file that fits one chunk.
fn content(chunk: ChunkIndex) -> Vec<u8> {
    vec![b'a' + u8::try_from(chunk.0).unwrap(); 1_000]
}

#[test]
fn serves_five_hundred_askers_and_tells_one_more_when_to_come_back() {
    let place = Place::new();
    fs::create_dir(place.path("tree")).unwrap();
    for chunk in 0..CHUNKS {
        fs::write(place.path(&format!("tree/{chunk}")), content(ChunkIndex(chunk))).unwrap();
    }
    let seeder = Running::start(seeder(&place, &["-f", "tree"]));
    let _starting = seeder.line();
    let share = described(&seeder, "tree");
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
        let refused = connect(port, infohash, DEFAULT_MAX_PEERS).await;
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
            match connect(port, infohash, DEFAULT_MAX_PEERS).await {
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
