//! Fetching a description from peers that are silent, slow or wrong.

use std::collections::BTreeMap;

use peer::handshake::Connection;
use proto::{
    ChunkIndex, Digest, InfoHash, Metainfo, ShareName,
    metainfo::{FileNode, Node, Tree},
    peer::{GoodbyeReason, MAX_PART_LEN, MAX_PUSHED_PARTS, PeerMessage},
};
use shoal::{Failure, FetchError};
use store::Content;

use crate::{
    fetch::Fetch,
    proxy::{Manner, addresses},
    source::{CHUNK, MIB},
    stranger::{Stranger, send},
    swarm::{Swarm, test},
};

/// There are more of them than a leecher has connections at a time, so it has to close some to reach the one that answers.
#[test]
fn peers_that_send_nothing_after_their_hello_do_not_keep_the_share_unknown() {
    test(async |swarm| {
        let source = swarm.share("mute.bin", MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let mute = swarm.proxies(&seeder, Manner::MuteAfterHello, 12).await;
        let plan = swarm.plan(&source, &addresses(&mute)).with(|fetch| fetch.max_peers(10));
        let mut fetch = swarm.fetch(plan);
        for proxy in &mute {
            // Each has its turn, the last ones only if some of the first connections were closed.
            proxy.until(|traffic| traffic.hellos > 0).await;
        }
        fetch.stop();
        assert!(matches!(fetch.outcome().await, Err(FetchError::Interrupted { part: None })));
    });
}

/// A share with so many files that its metainfo has a dozen parts.
fn wide_metainfo() -> Metainfo {
    let name = |number: u32| ShareName::new(&format!("{number:0200}")).unwrap();
    let file = FileNode::new(1, Some(Digest([7; 32])));
    let files: BTreeMap<_, _> = (0..11_000).map(|number| (name(number), Node::File(file))).collect();
    let metainfo = Metainfo::new(ShareName::new("wide").unwrap(), Tree::Directory(files)).unwrap();
    assert!(metainfo.as_bytes().len() > 11 * MAX_PART_LEN as usize);
    metainfo
}

/// A transfer that knows one peer only, and the peer's side of the connection.
async fn asked_for(infohash: InfoHash, swarm: &mut Swarm) -> (Fetch, Connection) {
    let peer = Stranger::listen().await;
    let plan = swarm.plan_for(infohash).asking(&[]).with(|fetch| fetch.peer(peer.address));
    let fetch = swarm.fetch(plan);
    (fetch, peer.met(infohash).await)
}

/// The peer answers the first part of the first request. It answers the others only when eight of them have been requested.
#[test]
fn several_parts_of_a_description_are_asked_for_at_a_time() {
    test(async |swarm| {
        let metainfo = wide_metainfo();
        let (mut fetch, mut connection) = asked_for(metainfo.infohash(), swarm).await;
        let (mut asked, mut answered, bytes) = (Vec::new(), 0, metainfo.as_bytes());
        let parts = bytes.len().div_ceil(MAX_PART_LEN as usize);
        while answered < parts {
            let ahead = if answered == 0 { 1 } else { 8.min(parts - answered) };
            while asked.len() - answered < ahead {
                match connection.reader.next().await.unwrap() {
                    Some(PeerMessage::DescriptionRequest { .. }) => {
                        asked.extend((0..MAX_PUSHED_PARTS).map(|part| part * MAX_PART_LEN));
                    }
                    Some(PeerMessage::MetainfoRequest { offset }) => asked.push(offset),
                    other => panic!("{other:?}"),
                }
            }
            let offset = asked[answered];
            let part = &bytes[offset as usize..];
            let part = &part[..part.len().min(MAX_PART_LEN as usize)];
            let (total_len, len) = (bytes.len() as u32, part.len() as u32);
            assert!(send(&mut connection, PeerMessage::Metainfo { total_len, offset, len }, part).await);
            answered += 1;
        }
        assert_eq!(fetch.started().await.chunks, 11_000);
        fetch.stop();
        assert!(matches!(fetch.outcome().await, Err(FetchError::Interrupted { .. })));
    });
}

/// It saves a round trip, and nothing of the share is here that could make the chunk useless.
#[test]
fn a_new_transfer_asks_for_any_chunk_with_the_description() {
    test(async |swarm| {
        let source = swarm.share("any.bin", CHUNK);
        let peer = Stranger::listen().await;
        let plan = swarm
            .plan_for(source.link(Vec::new(), Vec::new()))
            .asking(&[])
            .with(|fetch| fetch.peer(peer.address));
        let mut fetch = swarm.fetch(plan);
        let mut connection = peer.met(source.infohash()).await;
        let asked = connection.reader.next().await.unwrap();
        assert_eq!(asked, Some(PeerMessage::DescriptionRequest { chunk: true }));
        let metainfo = source.shared.metainfo();
        let bytes = metainfo.as_bytes();
        let (total_len, chunk) = (bytes.len() as u32, ChunkIndex(0));
        let described = PeerMessage::Metainfo { total_len, offset: 0, len: total_len };
        assert!(send(&mut connection, PeerMessage::Chosen { chunk }, &[]).await);
        assert!(send(&mut connection, described, bytes).await);
        let content = std::fs::read(&source.path).unwrap();
        assert!(send(&mut connection, PeerMessage::Chunk { chunk, len: CHUNK as u32 }, &content).await);
        source.assert_fetched(&fetch.fetched().await);
        // It asked for nothing else.
        let goodbye = connection.reader.next().await.unwrap();
        assert_eq!(goodbye, Some(PeerMessage::Goodbye(GoodbyeReason::Done)));
    });
}

/// A peer may still send parts of a description that is known from another. They do no harm.
#[test]
fn a_peer_that_is_overtaken_serves_chunks_all_the_same() {
    test(async |swarm| {
        let source = swarm.share("overtaken.bin", 4 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let slow = swarm.proxy(&seeder, Manner::HoldsDescription).await;
        let plan = swarm.plan_for(source.infohash()).with(|fetch| fetch.peer(slow.address));
        let mut fetch = swarm.fetch(plan);
        slow.until(|traffic| traffic.held > 0).await;
        // Now the other one is asked, and describes the share, but sends no chunk.
        let fast = swarm.proxy(&seeder, Manner::Honest).await;
        swarm.announce(&source, fast.address).await;
        fetch.started().await;
        slow.open();
        let fetched = fetch.fetched().await;
        source.assert_fetched(&fetched);
        assert_eq!(fetched.peers[0].address, slow.address);
    });
}

/// Its infohash is right, so nobody can have a better one. Asking others does not help, and nobody lied.
#[test]
fn a_malformed_share_is_given_up_at_once_and_no_peer_is_blamed() {
    test(async |swarm| {
        let metainfo = b"d4:name5:wrong12:piece lengthi524288ee";
        let infohash = InfoHash(sha2(metainfo));
        let peer = Stranger::listen().await;
        let plan = swarm.plan_for(infohash).with(|fetch| fetch.peer(peer.address));
        let mut fetch = swarm.fetch(plan);
        let mut connection = peer.met(infohash).await;
        let len = metainfo.len() as u32;
        assert!(
            send(&mut connection, PeerMessage::Metainfo { total_len: len, offset: 0, len }, metainfo).await
        );
        let outcome = fetch.outcome().await;
        assert!(matches!(outcome, Err(FetchError::Swarm(Failure::BadShare(_)))), "{outcome:?}");
        assert!(!fetch.knows(peer.address), "{:?}", fetch.story());
    });
}

/// A part that is shorter than it has to be would leave a gap.
#[test]
fn a_part_of_the_wrong_length_is_not_the_protocol() {
    test(async |swarm| {
        let metainfo = wide_metainfo();
        let (mut fetch, mut connection) = asked_for(metainfo.infohash(), swarm).await;
        let part = &metainfo.as_bytes()[..100];
        let message =
            PeerMessage::Metainfo { total_len: metainfo.as_bytes().len() as u32, offset: 0, len: 100 };
        assert!(send(&mut connection, message, part).await);
        fetch.waits_for("broke the protocol").await;
        fetch.stop();
        assert!(matches!(fetch.outcome().await, Err(FetchError::Interrupted { .. })));
    });
}

fn sha2(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}
