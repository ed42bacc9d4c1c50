//! Names from strangers that would draw on the user's terminal: nothing of them may come out raw.

use std::{net::UdpSocket, thread};

use bytes::BytesMut;
use peer::handshake;
use proto::{
    InfoHash, PeerId, ShareName, Zone,
    peer::{Hello, PeerMessage, Role, encode_message},
    tracker::{
        Query, Reply, ReplyBody, RequestBody, ShareEntry, Shares,
        codec::{decode_request, encode_reply},
    },
};
use sha2::{Digest, Sha256};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::{
    leecher,
    network::Network,
    program::{Ended, Place, run},
};

/// Clears a terminal, and what stands for it while messages are made.
const HOSTILE: &[u8] = b"\x1b[2J";
const STANDS_FOR_IT: &str = "plai";

fn assert_plain(ended: &Ended) {
    let all = [&ended.out.join("\n"), &ended.err].map(|text| text.contains('\x1b'));
    assert_eq!(all, [false, false], "{ended:?}");
}

/// Replaces the name in an encoded message by a hostile one of the same length.
fn make_hostile(message: &mut [u8]) {
    let at = message.windows(STANDS_FOR_IT.len()).position(|window| window == STANDS_FOR_IT.as_bytes());
    if let Some(at) = at {
        message[at..at + HOSTILE.len()].copy_from_slice(HOSTILE);
    }
}

#[test]
fn a_tracker_with_a_hostile_name_is_not_listened_to() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut datagram = [0; 1500];
        // Lives as long as the tests do.
        while let Ok((len, source)) = socket.recv_from(&mut datagram) {
            let request = decode_request(&datagram[..len]).unwrap();
            let body = match request.body {
                RequestBody::FirstLookup { query: Query::List { .. } } => {
                    let name = ShareName::new(STANDS_FOR_IT).unwrap();
                    let infohash = InfoHash([1; 32]);
                    let (seeders, leechers, sites, votes) = (1, 0, 1, 1);
                    let share =
                        ShareEntry { infohash, name, size: 1, seeders, leechers, sites, votes, completed: 0 };
                    let (settles_in_s, restarted_ago_s, total, more) = (0, None, 1, false);
                    let shares = vec![share];
                    ReplyBody::Shares(Shares {
                        settles_in_s,
                        restarted_ago_s,
                        total,
                        shares,
                        more,
                        peers: None,
                    })
                }
                other => panic!("{other:?}"),
            };
            let mut reply = BytesMut::new();
            encode_reply(&Reply { transaction: request.transaction, body }, &mut reply).unwrap();
            make_hostile(&mut reply);
            socket.send_to(&reply, source).unwrap();
        }
    });
    let place = Place::new();
    let ended = run(leecher(&place, &["--list", "--tracker", &address]));
    ended.assert_failed(6, &["no tracker can be reached"]);
    assert_plain(&ended);
}

#[test]
fn a_peer_with_a_hostile_name_is_not_listened_to() {
    let network = Network::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // A metainfo as of an empty file, right but for its name.
    let mut metainfo = format!(
        "d9:file treed4:{STANDS_FOR_IT}d0:d6:lengthi0eeee12:meta versioni2e4:name4:{STANDS_FOR_IT}12:piece lengthi524288ee"
    )
    .into_bytes();
    let decoded = proto::Metainfo::decode(&metainfo).unwrap();
    assert_eq!(decoded.name().as_str(), STANDS_FOR_IT);
    make_hostile(&mut metainfo);
    make_hostile(&mut metainfo);
    let infohash = InfoHash(Sha256::digest(&metainfo).into());
    network.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((stream, address)) = listener.accept().await {
            let hello = Hello {
                infohash,
                peer_id: PeerId([1; 16]),
                role: Role::Seeder,
                listen_port: 0,
                zone: Zone::NONE,
            };
            let mut connection =
                handshake::receive(stream, address).await.unwrap().accept(hello).await.unwrap();
            let Ok(Some(PeerMessage::DescriptionRequest { .. })) = connection.reader.next().await else {
                continue;
            };
            let len = u32::try_from(metainfo.len()).unwrap();
            let mut answer = BytesMut::new();
            encode_message(&PeerMessage::Metainfo { total_len: len, offset: 0, len }, &mut answer).unwrap();
            answer.extend_from_slice(&metainfo);
            connection.writer.write_all(&answer).await.unwrap();
        }
    });
    let place = Place::new();
    let ended = run(leecher(&place, &[&infohash.to_string(), "--peer", &address]));
    assert_plain(&ended);
    ended.assert_failed(32, &["the share itself is malformed"]);
    assert_eq!(place.names(), ["leecher_debug.log"]);
    let log = std::fs::read_to_string(place.path("leecher_debug.log")).unwrap();
    assert!(!log.contains('\x1b'), "{log:?}");
}

#[test]
fn a_link_with_a_hostile_name_is_malformed() {
    let place = Place::new();
    let link = format!("magnet:?xt=urn:btmh:1220{}&dn=%1b%5b2J", "ab".repeat(32));
    let ended = run(leecher(&place, &[&link]));
    ended.assert_failed(2, &["malformed link", "control character"]);
    assert_plain(&ended);
}
