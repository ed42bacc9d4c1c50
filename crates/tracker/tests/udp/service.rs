//! One tracker.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use bytes::BytesMut;
use listen::ListenError;
use proto::{
    InfoHash, PeerId, Secret, ShareName, Zone,
    tracker::{
        Announce, Announced, Completion, ErrorCode, Event, PeerAddress, Query, Token,
        client::{Answer, Call, CallError},
        codec::{decode_reply, encode_request},
    },
};
use tokio_util::sync::CancellationToken;
use tracker::{Config, Limits, Tracker, TrackerError};

use crate::{peer::Peer, running::Running};

impl Peer {
    async fn seed(&mut self) -> Announced {
        match self.call(Call::Announce(announce(Event::Started))).await {
            Ok(Answer::Announced(announced)) => announced,
            other => panic!("{other:?}"),
        }
    }

    /// When the tracker restarted, if it had peers before.
    async fn restarted_ago_s(&mut self) -> Option<u16> {
        match self.call(Call::Lookup(Query::List { after: None })).await {
            Ok(Answer::Shares(shares)) => shares.restarted_ago_s,
            other => panic!("{other:?}"),
        }
    }

    async fn addresses(&mut self) -> Vec<PeerAddress> {
        let query = Query::Peers { infohash: InfoHash([1; 32]), want: 50, zone: Zone::NONE };
        match self.call(Call::Lookup(query)).await {
            Ok(Answer::Peers(peers)) => peers.peers.into_iter().map(|peer| peer.address).collect(),
            other => panic!("{other:?}"),
        }
    }
}

fn announce(event: Event) -> Announce {
    Announce {
        token: Token([0; 16]),
        infohash: InfoHash([1; 32]),
        peer_id: PeerId([2; 16]),
        secret: Secret([3; 16]),
        port: 7000.try_into().unwrap(),
        name: ShareName::new("data.bin").unwrap(),
        size: 5,
        event,
        progress: Completion::COMPLETE,
        label: Default::default(),
        fetched: false,
        zone: Zone::NONE,
    }
}

/// Registers, looks up and leaves, as one peer and another would.
async fn check_swarm(tracker: SocketAddr, expected: PeerAddress) {
    let (mut seeder, mut leecher) = (Peer::of(tracker).await, Peer::of(tracker).await);
    assert_eq!(seeder.seed().await, Announced { interval_s: 30, seeders: 1, leechers: 0, completed: 0 });
    assert_eq!(leecher.addresses().await, [expected]);
    let named = Call::Lookup(Query::Named { name: ShareName::new("data.bin").unwrap(), after: None });
    match leecher.call(named).await {
        Ok(Answer::Shares(page)) => {
            assert_eq!((page.shares[0].infohash, page.more), (InfoHash([1; 32]), false));
        }
        other => panic!("{other:?}"),
    }
    seeder.call(Call::Announce(announce(Event::Stopped))).await.unwrap();
    let query = Call::Lookup(Query::Peers { infohash: InfoHash([1; 32]), want: 50, zone: Zone::NONE });
    match leecher.call(query).await {
        // It has been up for less than an expiry.
        Err(CallError::Refused(ErrorCode::UnknownShare { settles_in_s: 1..=90 })) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_tracker_that_had_peers_when_it_stopped_reports_that_when_it_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("state/tracker");
    let config = Config {
        bind: Some(Ipv4Addr::LOCALHOST.into()),
        port: 0,
        marker: Some(marker.clone()),
        ..Config::default()
    };
    // One that never had peers, or has none when it stops, makes nobody wait.
    for _ in 0..2 {
        let tracker = Running::start_at(config.clone()).await.unwrap();
        let mut peer = Peer::of(tracker.address).await;
        assert_eq!(peer.restarted_ago_s().await, None);
        peer.seed().await;
        peer.call(Call::Announce(announce(Event::Stopped))).await.unwrap();
        tracker.stop().await;
        assert!(!marker.exists());
    }
    let tracker = Running::start_at(config.clone()).await.unwrap();
    Peer::of(tracker.address).await.seed().await;
    tracker.stop().await;
    assert!(marker.exists());
    // The second one stops before anybody had time to come back.
    for _ in 0..2 {
        let tracker = Running::start_at(config.clone()).await.unwrap();
        let ago_s = Peer::of(tracker.address).await.restarted_ago_s().await;
        assert!(ago_s.is_some_and(|ago_s| ago_s < 45), "{ago_s:?}");
        tracker.stop().await;
        assert!(marker.exists());
    }
}

#[tokio::test]
async fn a_marker_that_cannot_be_written_does_not_stop_a_tracker() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let marker = Some(dir.path().join("file/tracker"));
    let config = Config { bind: Some(Ipv4Addr::LOCALHOST.into()), port: 0, marker, ..Config::default() };
    let tracker = Running::start_at(config).await.unwrap();
    check_swarm(tracker.address, PeerAddress::V4([127, 0, 0, 1])).await;
    tracker.stop().await;
}

#[tokio::test]
async fn serves_ipv4() {
    let tracker = Running::start(Some(Ipv4Addr::LOCALHOST.into())).await.unwrap();
    check_swarm(tracker.address, PeerAddress::V4([127, 0, 0, 1])).await;
    tracker.stop().await;
}

#[tokio::test]
async fn serves_ipv6() {
    match Running::start(Some(Ipv6Addr::LOCALHOST.into())).await {
        Ok(tracker) => {
            check_swarm(tracker.address, PeerAddress::from(IpAddr::from(Ipv6Addr::LOCALHOST))).await;
            tracker.stop().await;
        }
        Err(error) => eprintln!("SKIPPED serves_ipv6: no IPv6 on this machine: {error}"),
    }
}

#[tokio::test]
async fn serves_both_by_default() {
    let tracker = Running::start(None).await.unwrap();
    let port = tracker.address.port();
    check_swarm((Ipv4Addr::LOCALHOST, port).into(), PeerAddress::V4([127, 0, 0, 1])).await;
    if tracker.address.is_ipv6() {
        let expected = PeerAddress::from(IpAddr::from(Ipv6Addr::LOCALHOST));
        check_swarm((Ipv6Addr::LOCALHOST, port).into(), expected).await;
    } else {
        eprintln!("SKIPPED half of serves_both_by_default: no IPv6 on this machine");
    }
    tracker.stop().await;
}

#[tokio::test]
async fn garbage_does_not_stop_it() {
    let tracker = Running::start(Some(Ipv4Addr::LOCALHOST.into())).await.unwrap();
    let mut peer = Peer::of(tracker.address).await;
    for garbage in [&b""[..], b"SHOAL", b"SHOAL\x03", &[0; 1_201], &[0xff; 60_000]] {
        peer.socket.send(garbage).await.unwrap();
    }
    // The sender is gone before its reply arrives.
    let gone = Peer::of(tracker.address).await;
    let mut connect = BytesMut::new();
    let request = proto::tracker::Request {
        transaction: proto::tracker::TransactionId(1),
        body: proto::tracker::RequestBody::CONNECT,
    };
    encode_request(&request, &mut connect).unwrap();
    gone.socket.send(&connect).await.unwrap();
    drop(gone);
    assert_eq!(peer.seed().await.seeders, 1);
    tracker.stop().await;
}

#[tokio::test]
async fn a_port_has_one_tracker() {
    let tracker = Running::start(Some(Ipv4Addr::LOCALHOST.into())).await.unwrap();
    for bind in [Some(Ipv4Addr::LOCALHOST.into()), None] {
        let config = Config { bind, port: tracker.address.port(), ..Config::default() };
        let address = config.address();
        match Tracker::bind(config).await {
            Err(TrackerError::Listen(ListenError::PortInUse { address: in_use, .. })) => {
                assert_eq!(in_use, address);
            }
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("two trackers on one port"),
        }
    }
    tracker.stop().await;
}

#[tokio::test]
async fn clients_come_back_to_a_restarted_tracker() {
    let first = Running::start(Some(Ipv4Addr::LOCALHOST.into())).await.unwrap();
    let address = first.address;
    let mut peer = Peer::of(address).await;
    peer.seed().await;
    first.stop().await;
    let config = Config { bind: Some(address.ip()), port: address.port(), ..Config::default() };
    let second = Running::start_at(config).await.unwrap();
    let answer = peer.call(Call::Announce(announce(Event::Heartbeat))).await.unwrap();
    assert!(matches!(answer, Answer::Announced(Announced { seeders: 1, .. })), "{answer:?}");
    second.stop().await;
}

#[tokio::test]
async fn sends_peers_its_own_heartbeat_interval() {
    let config = Config {
        bind: Some(Ipv4Addr::LOCALHOST.into()),
        port: 0,
        heartbeat: Duration::from_millis(1_500),
        ..Config::default()
    };
    let tracker = Running::start_at(config).await.unwrap();
    assert_eq!(Peer::of(tracker.address).await.seed().await.interval_s, 2);
    tracker.stop().await;
}

#[tokio::test]
async fn datagrams_that_arrive_together_get_their_own_replies() {
    for bind in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let config = Config { bind: Some(bind), port: 0, ..Config::default() };
        let Ok(tracker) = Tracker::bind(config).await else {
            eprintln!("SKIPPED {bind}: not on this machine");
            continue;
        };
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(Peer::of(tracker.local_addr()).await);
        }
        // All arrive before the first is answered: several batches, with garbage among them.
        for transaction in 0..40 {
            for (client, peer) in (0..).zip(&clients) {
                let id = proto::tracker::TransactionId(100 * client + transaction);
                let body = proto::tracker::RequestBody::CONNECT;
                let mut request = BytesMut::new();
                encode_request(&proto::tracker::Request { transaction: id, body }, &mut request).unwrap();
                peer.socket.send(&request).await.unwrap();
                peer.socket.send(&request[..7]).await.unwrap();
            }
        }
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(tracker.run(shutdown.clone()));
        for (client, peer) in (0..).zip(&clients) {
            for transaction in 0..40 {
                let mut reply = [0; 1500];
                let len = peer.socket.recv(&mut reply).await.unwrap();
                assert_eq!(decode_reply(&reply[..len]).unwrap().transaction.0, 100 * client + transaction);
            }
        }
        shutdown.cancel();
        task.await.unwrap().unwrap();
    }
}

/// The client's port decides which of its sockets receives the client's datagrams.
#[tokio::test]
async fn sockets_of_a_tracker_know_the_same_and_hold_to_the_same_limits() {
    const CLIENTS: u8 = 32;
    const LIMIT: u32 = 20;
    let limits = Limits { registrations_per_ip: LIMIT, ..Limits::default() };
    let config = Config {
        bind: Some(Ipv4Addr::LOCALHOST.into()),
        port: 0,
        sockets: 4.try_into().unwrap(),
        limits,
        ..Config::default()
    };
    let tracker = Running::start_at(config).await.unwrap();
    let mut clients = Vec::new();
    let mut registered = 0;
    for number in 0..CLIENTS {
        let mut client = Peer::of(tracker.address).await;
        let port = (8_000 + u16::from(number)).try_into().unwrap();
        let mine = Announce { peer_id: PeerId([number; 16]), port, ..announce(Event::Started) };
        match client.call(Call::Announce(mine)).await {
            Ok(Answer::Announced(announced)) => {
                registered += 1;
                assert_eq!(announced.seeders, registered);
            }
            Err(CallError::Refused(ErrorCode::Full(_))) => assert_eq!(registered, LIMIT),
            other => panic!("{other:?}"),
        }
        clients.push(client);
    }
    assert_eq!(registered, LIMIT);
    for client in &mut clients {
        assert_eq!(client.addresses().await.len(), LIMIT as usize);
        let thief = Announce { secret: Secret([9; 16]), ..announce(Event::Stopped) };
        let theft = Announce { peer_id: PeerId([0; 16]), port: 8_000.try_into().unwrap(), ..thief };
        assert_eq!(client.call(Call::Announce(theft)).await, Err(CallError::Refused(ErrorCode::NotYours)));
    }
    tracker.stop().await;
}

#[tokio::test]
async fn a_tracker_that_is_dropped_gives_its_port_back() {
    let tracker = Running::start(Some(Ipv4Addr::LOCALHOST.into())).await.unwrap();
    let mut peer = Peer::of(tracker.address).await;
    peer.seed().await;
    tracker.task.abort();
    let config =
        Config { bind: Some(tracker.address.ip()), port: tracker.address.port(), ..Config::default() };
    // Its thread ends by itself, soon.
    let second = loop {
        match Running::start_at(config.clone()).await {
            Err(TrackerError::Listen(ListenError::PortInUse { .. })) => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    second.stop().await;
}
