//! What a peer asks a tracker.

use std::net::UdpSocket;

use proto::{
    InfoHash, PeerId, Secret, ShareName, Zone,
    tracker::{
        Announce, Completion, Event, Query, ReplyBody, Request, RequestBody, TransactionId,
        codec::{decode_reply, encode_request},
    },
};

use crate::PATIENCE;

/// Registers a seeder of the share with number 1.
pub(crate) fn register(port: u16) {
    let (announced, _) = announce_and_look_up(port, 1, "data.bin");
    assert!(matches!(announced, ReplyBody::Announced(_)), "{announced:?}");
}

/// The answers to an announce of a share with this number and name, and to a lookup of it.
pub(crate) fn announce_and_look_up(port: u16, share: u8, name: &str) -> (ReplyBody, ReplyBody) {
    announce_of(port, share, share, name)
}

/// The same, of the peer with this number.
pub(crate) fn announce_of(port: u16, peer: u8, share: u8, name: &str) -> (ReplyBody, ReplyBody) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    let ReplyBody::Connected { token, .. } = ask(&socket, RequestBody::CONNECT) else { panic!("no token") };
    let infohash = InfoHash([share; 32]);
    let announce = Announce {
        token,
        infohash,
        peer_id: PeerId([peer; 16]),
        secret: Secret([3; 16]),
        port: (7000 + u16::from(peer)).try_into().unwrap(),
        name: ShareName::new(name).unwrap(),
        size: 5,
        event: Event::Started,
        progress: Completion::COMPLETE,
        label: Default::default(),
        fetched: false,
        zone: Zone::NONE,
    };
    let announced = ask(&socket, RequestBody::Announce(announce));
    let query = Query::Peers { infohash, want: 9, zone: Zone::NONE };
    (announced, ask(&socket, RequestBody::Lookup { token, query }))
}

pub(crate) fn ask(socket: &UdpSocket, body: RequestBody) -> ReplyBody {
    let mut request = bytes::BytesMut::new();
    encode_request(&Request { transaction: TransactionId(1), body }, &mut request).unwrap();
    socket.send(&request).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reply = [0; 1_500];
    let len = socket.recv(&mut reply).unwrap();
    decode_reply(&reply[..len]).unwrap().body
}
