//! Bytes that are not Shoal's, sent to every listening port, and sent by ports that a leecher connects to.

use std::net::SocketAddr;

use bytes::BytesMut;
use proto::{
    ChunkIndex, PREAMBLE, PeerId, Zone,
    peer::{GoodbyeReason, Hello, PeerMessage, Role, encode_message},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

use crate::{
    proxy::Manner,
    source::{MIB, Source, content},
    swarm::test,
};

fn message(message: PeerMessage) -> Vec<u8> {
    let mut frame = BytesMut::new();
    encode_message(&message, &mut frame).unwrap();
    frame.to_vec()
}

fn hello(source: &Source, role: Role) -> Vec<u8> {
    let hello = Hello {
        infohash: source.infohash(),
        peer_id: PeerId([9; 16]),
        role,
        listen_port: 0,
        zone: Zone::NONE,
    };
    [PREAMBLE.to_vec(), message(PeerMessage::Hello(hello))].concat()
}

/// What no peer should ever send: after a good hello, and instead of one.
fn nonsense(source: &Source, role: Role) -> Vec<Vec<u8>> {
    let hello = hello(source, role);
    let after_hello = [
        // A frame of four gigabytes, one of no byte, one that holds no message.
        vec![0xff; 4_096],
        vec![0; 4],
        [&8_u32.to_be_bytes()[..], &[0xfe; 8]].concat(),
        // Legal messages that make no sense here.
        message(PeerMessage::Chunk { chunk: ChunkIndex(u32::MAX), len: 5 }),
        [message(PeerMessage::Chunk { chunk: ChunkIndex(0), len: 5 }), b"bytes".to_vec()].concat(),
        [message(PeerMessage::Metainfo { total_len: 9, offset: 4, len: 5 }), b"bytes".to_vec()].concat(),
        [message(PeerMessage::Hashes { first: ChunkIndex(7), count: 1 }), vec![7; 32]].concat(),
        [message(PeerMessage::Bitfield { len: 3 }), vec![0xff; 3]].concat(),
        message(PeerMessage::Have { chunk: ChunkIndex(u32::MAX) }),
        message(PeerMessage::Goodbye(GoodbyeReason::Done)),
        // The same again: one hello is enough.
        hello[PREAMBLE.len()..].to_vec(),
        content(100_000, 5),
    ];
    let instead = [Vec::new(), b"GET / HTTP/1.1\r\n\r\n".to_vec(), PREAMBLE.to_vec(), content(100_000, 6)];
    after_hello.into_iter().map(|bytes| [&hello[..], &bytes].concat()).chain(instead).collect()
}

/// Sends `bytes` and nothing else, then reads until the other side closes.
async fn speak(mut stream: TcpStream, bytes: &[u8]) {
    // The other side may close before it has read all of this.
    if stream.write_all(bytes).await.is_ok() && stream.shutdown().await.is_ok() {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
}

#[test]
fn a_seeder_survives_what_strangers_send() {
    test(async |swarm| {
        let source = swarm.share("sturdy.bin", 4 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        for bytes in nonsense(&source, Role::Leecher) {
            speak(TcpStream::connect(seeder.address).await.unwrap(), &bytes).await;
        }
        let plan = swarm.plan(&source, &[seeder.address]);
        source.assert_fetched(&swarm.fetch(plan).fetched().await);
    });
}

/// Endless requests whose answers are never read.
#[test]
fn a_seeder_survives_a_peer_that_requests_and_does_not_read() {
    test(async |swarm| {
        let source = swarm.share("sturdy.bin", 16 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let mut stream = TcpStream::connect(seeder.address).await.unwrap();
        stream.write_all(&hello(&source, Role::Leecher)).await.unwrap();
        let request = message(PeerMessage::MetainfoRequest { offset: 0 }).repeat(1_000);
        // The seeder closes the connection. Otherwise this would never end.
        while stream.write_all(&request).await.is_ok() {}
        let plan = swarm.plan(&source, &[seeder.address]);
        source.assert_fetched(&swarm.fetch(plan).fetched().await);
    });
}

#[test]
fn a_tracker_survives_what_strangers_send() {
    test(async |swarm| {
        let source = swarm.share("sturdy.bin", MIB);
        let mut seeder = swarm.seed(&source).await;
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        stranger.connect((swarm.tracker().host, swarm.tracker().port)).await.unwrap();
        for len in [0, 1, 5, 6, 7, 20, 500, 1_200, 1_201, 9_000, 60_000] {
            let bytes = content(len, len);
            stranger.send(&bytes).await.unwrap();
            stranger.send(&[&PREAMBLE[..], &bytes].concat()).await.unwrap();
        }
        seeder.announced_again().await;
        let plan = swarm.plan_for(source.name());
        source.assert_fetched(&swarm.fetch(plan).fetched().await);
    });
}

/// The honest seeder is held back until each of the others has sent its bytes.
#[test]
fn a_leecher_survives_what_peers_send() {
    test(async |swarm| {
        let source = swarm.share("sturdy.bin", 4 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let honest = swarm.proxy(&seeder, Manner::Honest).await;
        let nonsense = nonsense(&source, Role::Seeder);
        let mut listeners = Vec::new();
        for _ in &nonsense {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let mut peers: Vec<SocketAddr> =
            listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        peers.push(honest.address);
        let plan = swarm.plan(&source, &peers);
        let mut fetch = swarm.fetch(plan);
        for (listener, bytes) in listeners.iter().zip(&nonsense) {
            let (stream, _) = listener.accept().await.unwrap();
            speak(stream, bytes).await;
        }
        honest.open();
        let fetched = fetch.fetched().await;
        source.assert_fetched(&fetched);
        assert!(fetched.peers.iter().all(|peer| peer.address == honest.address), "{:?}", fetched.peers);
    });
}
