//! Several trackers with one registry, with a real Redis server.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use proto::{
    InfoHash, PeerId, Secret, ShareName, Zone,
    tracker::{
        Announce, Completion, ErrorCode, Event, Peers, Query, ReplyBody, Request, RequestBody, Token,
        TransactionId,
        client::{Answer, Call, CallError},
        codec::{decode_reply, encode_request},
    },
};
use tracker::{Config, Credentials, StoreError, Target, Tracker, TrackerError};

use crate::{
    peer::Peer,
    redis::{Forwarder, Redis, cluster, server},
    running::Running,
};

/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A tracker of a fleet.
async fn start(url: &str) -> Running {
    try_start(url, Credentials::default()).await.unwrap()
}

async fn try_start(url: &str, credentials: Credentials) -> Result<Running, TrackerError> {
    Ok(Running::run(bind(url, credentials).await?))
}

async fn bind(url: &str, credentials: Credentials) -> Result<Tracker, TrackerError> {
    let registry = Some(Target::new(url, credentials).unwrap());
    let bind = Some(Ipv4Addr::LOCALHOST.into());
    // So long that a tracker settles in no test by itself.
    let (heartbeat, expire) = (5 * PATIENCE, 10 * PATIENCE);
    Tracker::bind(Config { bind, port: 0, registry, heartbeat, expire, ..Config::default() }).await
}

async fn start_three(url: &str) -> [Running; 3] {
    [start(url).await, start(url).await, start(url).await]
}

/// Clients of all trackers, which may ask any of them.
impl Peer {
    async fn new() -> Peer {
        Peer::at(Ipv4Addr::LOCALHOST.into()).await
    }

    async fn announce(&mut self, tracker: &Running, share: u8, peer: u8, event: Event) {
        let result = self.call_at(tracker.address, Call::Announce(announce(share, peer, event))).await;
        assert!(matches!(result, Ok(Answer::Announced(_))), "{result:?}");
    }

    async fn peers(&mut self, tracker: &Running, share: u8) -> Result<Peers, ErrorCode> {
        let query = Query::Peers { infohash: infohash(share), want: 50, zone: Zone::NONE };
        match self.call_at(tracker.address, Call::Lookup(query)).await {
            Ok(Answer::Peers(peers)) => Ok(peers),
            Err(CallError::Refused(code)) => Err(code),
            other => panic!("{other:?}"),
        }
    }

    async fn seeders(&mut self, tracker: &Running, share: u8) -> u32 {
        match self.peers(tracker, share).await {
            Ok(peers) => peers.seeders,
            Err(ErrorCode::UnknownShare { .. }) => 0,
            Err(other) => panic!("{other}"),
        }
    }

    /// Waits until a tracker knows this many seeders of a share.
    async fn wait_for(&mut self, tracker: &Running, share: u8, seeders: u32) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.seeders(tracker, share).await;
            if found == seeders {
                return;
            }
            assert!(Instant::now() < deadline, "share {share} has {found} seeders in place of {seeders}");
            tokio::task::yield_now().await;
        }
    }
}

fn infohash(share: u8) -> InfoHash {
    InfoHash([share; 32])
}

fn announce(share: u8, peer: u8, event: Event) -> Announce {
    Announce {
        token: Token([0; 16]),
        infohash: infohash(share),
        peer_id: PeerId([peer; 16]),
        secret: Secret([b'S'; 16]),
        port: (7_000 + u16::from(peer)).try_into().unwrap(),
        name: ShareName::new(&format!("share {share}")).unwrap(),
        size: 5,
        event,
        progress: Completion::COMPLETE,
        label: Default::default(),
        fetched: false,
        zone: Zone::NONE,
    }
}

/// Waits until the store answers a command with what `is_right` wants.
async fn wait_for_store(redis: &Redis, command: &str, is_right: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = redis.command(command);
        if is_right(&answer) {
            return;
        }
        assert!(Instant::now() < deadline, "{command}: {answer}");
        tokio::task::yield_now().await;
    }
}

/// Waits until the store has this many members: of each share its title, and its peers.
async fn wait_for_members(redis: &Redis, members: u32) {
    let counting = "EVAL \"local n = 0 for _, key in ipairs(redis.call('KEYS', 'shoal:1:{*')) do \
                    n = n + redis.call('ZCARD', key) end return n\" 0";
    wait_for_store(redis, counting, |count| count == format!(":{members}")).await;
}

/// A tracker at which one peer is registered with share 1, and the store has it.
async fn with_one_peer(redis: &Redis, peer: &mut Peer) -> Running {
    let tracker = start(&redis.url()).await;
    peer.announce(&tracker, 1, 1, Event::Started).await;
    wait_for_members(redis, 2).await;
    tracker
}

async fn check_fleet(url: &str) {
    let fleet = start_three(url).await;
    let mut peer = Peer::new().await;
    // One client with one token, at another tracker each time.
    for share in 1..=20 {
        for seeder in 1..=3 {
            peer.announce(&fleet[usize::from(seeder) % 3], share, seeder, Event::Started).await;
        }
    }
    for tracker in &fleet {
        for share in 1..=20 {
            peer.wait_for(tracker, share, 3).await;
        }
    }
    // One registration, at another tracker each time.
    peer.announce(&fleet[0], 1, 1, Event::Heartbeat).await;
    let stolen = Announce { secret: Secret([0; 16]), ..announce(1, 1, Event::Stopped) };
    let refused = peer.call_at(fleet[1].address, Call::Announce(stolen)).await;
    assert_eq!(refused, Err(CallError::Refused(ErrorCode::NotYours)));
    peer.announce(&fleet[2], 1, 1, Event::Stopped).await;
    for tracker in &fleet {
        peer.wait_for(tracker, 1, 2).await;
        // By name too.
        let named = Query::Named { name: ShareName::new("share 2").unwrap(), after: None };
        let Ok(Answer::Shares(shares)) = peer.call_at(tracker.address, Call::Lookup(named)).await else {
            panic!("no shares")
        };
        assert_eq!(shares.shares.iter().map(|share| share.infohash).collect::<Vec<_>>(), [infohash(2)]);
        assert_eq!((shares.total, shares.shares[0].seeders, shares.shares[0].votes), (1, 3, 1));
    }
    let [first, second, third] = fleet;
    // One that starts knows everybody at once, although the others are gone.
    first.stop().await;
    second.stop().await;
    third.stop().await;
    let fresh = start(url).await;
    for share in 2..=20 {
        assert_eq!(peer.seeders(&fresh, share).await, 3);
    }
    assert_eq!(peer.seeders(&fresh, 1).await, 2);
    fresh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_trackers_have_one_registry() {
    let Some(server) = server() else { return };
    let redis = Redis::start(server, &[]);
    check_fleet(&redis.url()).await;
    let unrenewed = "EVAL \"local n = 0 for _, key in ipairs(redis.call('KEYS', '*')) do \
                     if redis.call('TTL', key) < 0 then n = n + 1 end end return n\" 0";
    // Of each of twenty shares three peers and a title, without the peer that left.
    wait_for_members(&redis, 79).await;
    assert_eq!(redis.command(unrenewed), ":0", "keys that never expire");
    // What peers prove themselves by is nowhere in the store.
    let dump = "EVAL \"local all = '' for _, key in ipairs(redis.call('KEYS', 'shoal:1:{*')) do \
                all = all .. table.concat(redis.call('ZRANGE', key, 0, -1)) end return all\" 0";
    let dump = redis.command(dump);
    assert!(dump.contains("share 20") && !dump.contains("SSSSSSSSSSSSSSSS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_trackers_have_one_registry_in_a_cluster() {
    let Some(server) = server() else { return };
    let nodes = cluster(&server);
    check_fleet(&nodes[1].url()).await;
    let used = nodes.iter().filter(|node| node.command("DBSIZE") != ":0").count();
    assert!(used >= 2, "shares are spread over the nodes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_whose_fleet_has_settled_knows_everybody_when_it_starts() {
    let Some(server) = server() else { return };
    let redis = Redis::start(server, &[]);
    let mut peer = Peer::new().await;
    let first = with_one_peer(&redis, &mut peer).await;
    // The store is ten minutes old.
    let aged = "EVAL \"local value = redis.call('GET', 'shoal:1:fleet') \
                local since = struct.unpack('<I8', value:sub(33)) - 600000 \
                redis.call('SET', 'shoal:1:fleet', value:sub(1, 32) .. struct.pack('<I8', since), 'KEEPTTL') return 1\" 0";
    assert_eq!(redis.command(aged), ":1");
    let second = start(&redis.url()).await;
    let deadline = Instant::now() + PATIENCE;
    while peer.peers(&second, 1).await.map_or(1, |peers| peers.settles_in_s) != 0 {
        assert!(Instant::now() < deadline, "it does not settle");
    }
    let unknown = peer.peers(&second, 9).await;
    assert_eq!(unknown, Err(ErrorCode::UnknownShare { settles_in_s: 0 }));
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_which_only_the_store_knows_is_found_when_it_is_asked_for() {
    let Some(server) = server() else { return };
    let redis = Redis::start(server, &[]);
    let mut peer = Peer::new().await;
    with_one_peer(&redis, &mut peer).await.stop().await;
    // It is not there when the tracker reads the store, and nothing is published of it afterwards.
    let rename = |from: &str, to: &str| {
        format!(
            "EVAL \"local keys = redis.call('KEYS', '{from}shoal:1:{{*') for _, key in ipairs(keys) do \
             redis.call('RENAME', key, '{to}' .. key:sub({})) end return #keys\" 0",
            from.len() + 1
        )
    };
    assert_eq!(redis.command(&rename("", "hidden:")), ":1");
    let tracker = start(&redis.url()).await;
    assert_eq!(peer.seeders(&tracker, 1).await, 0);
    assert_eq!(redis.command(&rename("hidden:", "")), ":1");
    assert_eq!(peer.seeders(&tracker, 1).await, 1);
    tracker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_reads_the_store_before_its_first_answer() {
    let Some(server) = server() else { return };
    let redis = Redis::start(server, &[]);
    let mut peer = Peer::new().await;
    with_one_peer(&redis, &mut peer).await.stop().await;
    // There is so much else in the store that reading it takes some milliseconds.
    let fill = "EVAL \"for i = 0, 4999 do redis.call('ZADD', string.format('shoal:1:{%02d}:%04x', i % 64, i), 9e18, 'x') end return 1\" 0";
    assert_eq!(redis.command(fill), ":1");
    let tracker = bind(&redis.url(), Credentials::default()).await.unwrap();
    // The question is there before the tracker runs.
    let query = Query::Named { name: ShareName::new("share 1").unwrap(), after: None };
    let request = Request { transaction: TransactionId(1), body: RequestBody::FirstLookup { query } };
    let (mut datagram, mut answer) = (BytesMut::new(), [0; 1500]);
    encode_request(&request, &mut datagram).unwrap();
    peer.socket.send_to(&datagram, tracker.local_addr()).await.unwrap();
    let tracker = Running::run(tracker);
    let (len, _) = peer.socket.recv_from(&mut answer).await.unwrap();
    let ReplyBody::Shares(shares) = decode_reply(&answer[..len]).unwrap().body else { panic!("no shares") };
    assert_eq!(shares.total, 1);
    tracker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_and_comes_back_empty_gets_everything_back() {
    let Some(server) = server() else { return };
    let mut redis = Redis::start(server, &[]);
    let mut peer = Peer::new().await;
    let fleet = start_three(&redis.url()).await;
    peer.announce(&fleet[0], 1, 1, Event::Started).await;
    for tracker in &fleet {
        peer.wait_for(tracker, 1, 1).await;
    }
    redis.kill();
    // Tokens, registrations and answers go on.
    for (tracker, seeder) in fleet.iter().zip(2..) {
        peer.announce(tracker, 2, seeder, Event::Started).await;
        assert_eq!(peer.seeders(tracker, 1).await, 1);
        assert_eq!(peer.seeders(tracker, 2).await, 1, "each knows its own");
        assert_eq!(peer.seeders(tracker, 9).await, 0, "nobody waits for a store that is away");
    }
    redis.restart();
    for tracker in &fleet {
        peer.wait_for(tracker, 2, 3).await;
        assert_eq!(peer.seeders(tracker, 1).await, 1);
    }
    // All of it is in the store again, so one that starts has it although the others are gone.
    for tracker in fleet {
        tracker.stop().await;
    }
    let fresh = start(&redis.url()).await;
    assert_eq!((peer.seeders(&fresh, 1).await, peer.seeders(&fresh, 2).await), (1, 3));
    fresh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_emptied_is_filled_again() {
    let Some(server) = server() else { return };
    let redis = Redis::start(server, &[]);
    let mut peer = Peer::new().await;
    let (first, second) = (start(&redis.url()).await, start(&redis.url()).await);
    for share in 1..=10 {
        peer.announce(&first, share, 1, Event::Started).await;
    }
    wait_for_members(&redis, 20).await;
    assert_eq!(redis.command("FLUSHALL"), "+OK");
    wait_for_members(&redis, 20).await;
    // Under the secret that it had before.
    peer.announce(&second, 1, 1, Event::Heartbeat).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer_delays_no_answer_for_long() {
    let Some(server) = server() else { return };
    let redis = Redis::start(server, &[]);
    let mut peer = Peer::new().await;
    let tracker = with_one_peer(&redis, &mut peer).await;
    redis.suspend();
    let unknown = peer.peers(&tracker, 9).await;
    peer.announce(&tracker, 1, 2, Event::Started).await;
    let known = peer.seeders(&tracker, 1).await;
    redis.go_on();
    assert!(matches!(unknown, Err(ErrorCode::UnknownShare { .. })), "{unknown:?}");
    assert_eq!(known, 2);
    tracker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trackers_learn_from_each_other_through_a_store_that_is_full() {
    let Some(server) = server() else { return };
    let redis = Redis::start(server, &[]);
    let mut peer = Peer::new().await;
    let (first, second) = (start(&redis.url()).await, start(&redis.url()).await);
    peer.announce(&first, 1, 1, Event::Started).await;
    peer.wait_for(&second, 1, 1).await;
    assert_eq!(redis.command("CONFIG SET maxmemory 1"), "+OK");
    peer.announce(&first, 2, 1, Event::Started).await;
    peer.wait_for(&second, 2, 1).await;
    assert_eq!(redis.command("CONFIG SET maxmemory 0"), "+OK");
    wait_for_members(&redis, 4).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_no_writes_is_left_and_found_again() {
    let Some(server) = server() else { return };
    let redis = Redis::start(server, &[]);
    let mut peer = Peer::new().await;
    let tracker = with_one_peer(&redis, &mut peer).await;
    // A primary that was failed over from is a replica of the new one, which it may not reach yet.
    assert_eq!(redis.command("REPLICAOF 127.0.0.1 1"), "+OK");
    peer.announce(&tracker, 2, 1, Event::Started).await;
    assert_eq!((peer.seeders(&tracker, 1).await, peer.seeders(&tracker, 2).await), (1, 1));
    assert_eq!(redis.command("REPLICAOF NO ONE"), "+OK");
    wait_for_members(&redis, 4).await;
    tracker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_over_has_everybody_and_the_trackers_find_it() {
    let Some(server) = server() else { return };
    let mut primary = Redis::start(server.clone(), &[]);
    let replica = Redis::start(server, &[]);
    assert_eq!(replica.command(&format!("REPLICAOF 127.0.0.1 {}", primary.port)), "+OK");
    // In place of a name that leads to the primary.
    let name = Forwarder::start(primary.port).await;
    let mut peer = Peer::new().await;
    let (first, second) = (start(&name.url()).await, start(&name.url()).await);
    peer.announce(&first, 1, 1, Event::Started).await;
    peer.wait_for(&second, 1, 1).await;
    wait_for_members(&replica, 2).await;
    primary.kill();
    peer.announce(&first, 2, 1, Event::Started).await;
    assert_eq!(replica.command("REPLICAOF NO ONE"), "+OK");
    name.lead_to(replica.port);
    // What was announced meanwhile gets to the new primary, and from there to the others. Tokens stay good.
    peer.wait_for(&second, 2, 1).await;
    peer.announce(&second, 1, 1, Event::Heartbeat).await;
    wait_for_members(&replica, 4).await;
    first.stop().await;
    second.stop().await;
    let fresh = start(&name.url()).await;
    assert_eq!((peer.seeders(&fresh, 1).await, peer.seeders(&fresh, 2).await), (1, 1));
    fresh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_used_is_reported_at_once_and_one_that_is_away_is_waited_for() {
    let Some(server) = server() else { return };
    let mut redis = Redis::start(server, &["--requirepass", "open sesame"]);
    for password in [None, Some("wrong".to_owned())] {
        let credentials = Credentials { user: None, password };
        let result = try_start(&redis.url(), credentials).await.map(|_| ());
        assert!(
            matches!(result, Err(TrackerError::Registry { error: StoreError::Unusable(_), .. })),
            "{result:?}"
        );
    }
    redis.kill();
    let credentials = Credentials { user: None, password: Some("open sesame".to_owned()) };
    let tracker = try_start(&redis.url(), credentials).await.unwrap();
    let mut peer = Peer::new().await;
    peer.announce(&tracker, 1, 1, Event::Started).await;
    assert_eq!(peer.seeders(&tracker, 1).await, 1);
    redis.restart();
    let credentials = Credentials { user: None, password: Some("open sesame".to_owned()) };
    let other = try_start(&redis.url(), credentials).await.unwrap();
    peer.wait_for(&other, 1, 1).await;
    tracker.stop().await;
    other.stop().await;
}
