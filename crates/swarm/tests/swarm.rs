//! Drives a [`Swarm`] with peers that do anything, and checks its invariants.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use proto::{
    Bitfield, ChunkIndex, ChunkSpace, Endpoint, InfoHash, PeerId, SMALL_CHUNK_LEN, Zone,
    metainfo::MetainfoError,
    peer::{GoodbyeReason, Hello, PeerMessage, RejectReason, Role},
    tracker::client::{CallError, TrackerError},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use swarm::{
    Action, Answer, Config, DescriptionStage, Event, Failure, LeaveReason, NO_ROOM, PeerEvent, Source,
    SourceId, Stay, Swarm, Unreachable,
    scheduler::{Have, PeerKey, Received},
};

const CHUNKS: u32 = 24;
const INFOHASH: InfoHash = InfoHash([7; 32]);

/// The peers around one core. A seed determines what they do.
struct World {
    core: Swarm,
    rng: StdRng,
    start: Instant,
    now: Instant,
    /// The connections that are open for the core, and the requests to each.
    open: BTreeMap<PeerKey, Connection>,
    stored: BTreeSet<ChunkIndex>,
    /// Chunks that wait to be proved.
    unproved: Vec<(PeerKey, ChunkIndex)>,
    /// The address of each connection that the core made.
    dialled: BTreeMap<PeerKey, SocketAddr>,
    /// Addresses that the core dialled and that sent a wrong chunk.
    liars: BTreeSet<SocketAddr>,
    /// All actions of the core, and when they happened.
    log: Vec<String>,
    /// Connections whose chunk the core refused as not requested. It must have ended them.
    refused: Vec<PeerKey>,
    finished: bool,
    ended: bool,
}

#[derive(Default)]
struct Connection {
    is_active: bool,
    is_closing: bool,
    asked: Vec<ChunkIndex>,
    cancelled: Vec<ChunkIndex>,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "only differences to it matter")]
    fn new(seed: u64) -> World {
        let start = Instant::now();
        let mut world = World {
            core: Swarm::new(config(Some(Stay::For(Duration::from_secs(5)))), start, start),
            rng: StdRng::seed_from_u64(seed),
            start,
            now: start,
            open: BTreeMap::new(),
            stored: BTreeSet::new(),
            unproved: Vec::new(),
            dialled: BTreeMap::new(),
            liars: BTreeSet::new(),
            log: Vec::new(),
            refused: Vec::new(),
            finished: false,
            ended: false,
        };
        let space = ChunkSpace::new([u64::from(CHUNKS) * u64::from(SMALL_CHUNK_LEN)]).unwrap();
        world.handle(Event::Opened {
            space,
            wanted: Bitfield::full(CHUNKS),
            have: Bitfield::empty(CHUNKS),
            similar: Bitfield::empty(CHUNKS),
        });
        world
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(event, self.now, &mut self.rng);
    }

    fn peer(&mut self, key: PeerKey, event: PeerEvent) {
        self.handle(Event::Peer(key, event));
    }

    /// Carries out the core's actions.
    fn act(&mut self) {
        while let Some(action) = self.core.poll(self.now, &mut self.rng) {
            if !matches!(action, Action::Report(_) | Action::ReportProgress) {
                self.log.push(format!("{:?} {action:?}", self.now - self.start));
            }
            assert!(!self.ended, "{action:?} after the end");
            match action {
                Action::LookUp(source) => self.answer(source),
                Action::Dial(key, address) => {
                    assert!(!self.liars.contains(&address), "{address} lied");
                    assert!(!self.is_unproved(address), "a chunk from {address} is still being proved");
                    self.dialled.insert(key, address);
                    assert!(self.open.insert(key, Connection::default()).is_none(), "{key:?} is used twice");
                }
                Action::Send(key, message) => {
                    let connection = self.open.get_mut(&key).expect("a connection that is open");
                    assert!(connection.is_active && !connection.is_closing, "{message:?}");
                    match message {
                        PeerMessage::Request { chunk, .. } => connection.asked.push(chunk),
                        // The chunk may have arrived meanwhile, as on a real connection.
                        PeerMessage::Cancel { chunk } if !connection.asked.contains(&chunk) => {}
                        PeerMessage::Cancel { chunk } => connection.cancelled.push(chunk),
                        other => panic!("{other:?} is nothing for a core to send"),
                    }
                    assert!(connection.asked.len() <= 64);
                }
                Action::Close(key, _) => {
                    let connection = self.open.get_mut(&key).expect("a connection that is open");
                    assert!(!connection.is_closing, "{key:?} is closed twice");
                    connection.is_closing = true;
                }
                Action::Have(chunk, _) => assert!(self.stored.contains(&chunk)),
                Action::Finish => {
                    assert_eq!(self.stored.len(), CHUNKS as usize);
                    assert!(!std::mem::replace(&mut self.finished, true), "it finishes once");
                }
                Action::End(result) => {
                    assert!(result.is_ok(), "{result:?}");
                    self.ended = true;
                }
                Action::Announce(_) | Action::Checkpoint | Action::Report(_) | Action::ReportProgress => {}
                Action::AskDescription(_) | Action::AskRest(_) | Action::Open => {
                    panic!("{action:?}: the share is known")
                }
            }
        }
        for key in self.refused.drain(..) {
            assert!(self.open.get(&key).is_none_or(|connection| connection.is_closing), "{key:?} was asked");
        }
        let wake = self.core.next_timeout();
        assert!(wake.is_none_or(|at| at > self.now), "what is due at {wake:?} was not done");
    }

    /// Whether a chunk from a peer that the core dialled at `address` is being proved.
    fn is_unproved(&self, address: SocketAddr) -> bool {
        self.unproved.iter().any(|(key, _)| self.dialled.get(key) == Some(&address))
    }

    fn answer(&mut self, source: SourceId) {
        let answer = match self.rng.random_range(0..4) {
            0 => Answer::Unknown { settled: false },
            1 => Answer::TrackerFailed(TrackerError::Call {
                endpoint: Endpoint { host: "tracker".to_owned(), port: 6020 },
                error: CallError::Unanswered,
            }),
            _ => {
                let address = |_| {
                    SocketAddr::from((
                        [10, 0, self.rng.random_range(2..20), self.rng.random_range(1..30)],
                        7000,
                    ))
                };
                Answer::Peers { addresses: (0..5).map(address).collect(), interval_s: Some(3) }
            }
        };
        self.handle(Event::Answered(source, answer));
    }

    /// Lets a random event happen on a connection.
    fn happen(&mut self) {
        let keys: Vec<_> = self.open.keys().copied().collect();
        match self.rng.random_range(0..20) {
            0 => {
                let from = SocketAddr::from(([10, 0, 1, self.rng.random_range(1..30)], 50_000));
                if let Some(key) = self.core.accept(from) {
                    assert!(self.open.insert(key, Connection::default()).is_none(), "{key:?} is used twice");
                }
            }
            1 if !self.unproved.is_empty() => self.prove(true),
            2..10 if !self.unproved.is_empty() => self.prove(false),
            _ if keys.is_empty() => {}
            _ => {
                let key = keys[self.rng.random_range(0..keys.len())];
                self.happen_to(key);
            }
        }
    }

    fn happen_to(&mut self, key: PeerKey) {
        let random_chunk = ChunkIndex(self.rng.random_range(0..CHUNKS));
        let connection = &self.open[&key];
        let owed = connection.asked.first().copied();
        if connection.is_closing || self.rng.random_ratio(1, 60) {
            self.open.remove(&key);
            let reasons = [
                LeaveReason::Disconnected,
                LeaveReason::Goodbye(GoodbyeReason::ShuttingDown),
                LeaveReason::Goodbye(GoodbyeReason::TooManyPeers { retry_after_ms: 0 }),
                LeaveReason::Unreachable(Unreachable::Silent),
            ];
            let reason = reasons[self.rng.random_range(0..reasons.len())].clone();
            return self.peer(key, PeerEvent::Closed(reason));
        }
        if !connection.is_active {
            self.open.get_mut(&key).unwrap().is_active = true;
            let (hello, have) = self.introduction();
            return self.peer(key, PeerEvent::Active { hello, have });
        }
        let mut answered = None;
        match (self.rng.random_range(0..14), owed) {
            (0, _) => self.peer(key, PeerEvent::Haves(vec![random_chunk])),
            (1, _) => self.peer(key, PeerEvent::Idle),
            (2, _) => self.peer(key, PeerEvent::Alive),
            (3, Some(chunk)) => self.peer(key, PeerEvent::Arriving(chunk)),
            (4, Some(_)) => self.peer(key, PeerEvent::Progress { bytes: random_chunk.0 * 1_000 }),
            (5, Some(chunk)) => answered = Some((chunk, RejectReason::NotHave)),
            (6, Some(chunk)) => answered = Some((chunk, RejectReason::Busy { retry_after_ms: 100 })),
            (7, Some(chunk)) => answered = Some((chunk, RejectReason::Gone)),
            (8, _) if !self.open[&key].cancelled.is_empty() => {
                answered = Some((self.open[&key].cancelled[0], RejectReason::Cancelled));
            }
            // A chunk that was not requested.
            (9, None) if self.rng.random_ratio(1, 10) => {
                let received = self.core.received(key, random_chunk, SMALL_CHUNK_LEN, self.now);
                assert_eq!(received, Received::Unrequested);
                self.refused.push(key);
            }
            (9.., Some(chunk)) => self.send(key, chunk),
            _ => {}
        }
        if let Some((chunk, reason)) = answered {
            self.forget(key, chunk);
            self.peer(key, PeerEvent::Rejected(chunk, reason));
        }
    }

    fn introduction(&mut self) -> (Hello, Have) {
        let mut field = Bitfield::empty(CHUNKS);
        (0..CHUNKS).filter(|_| self.rng.random()).for_each(|chunk| _ = field.insert(ChunkIndex(chunk)));
        let (role, have) = if self.rng.random_ratio(1, 4) {
            (Role::Seeder, Have::All)
        } else {
            (Role::Leecher, Have::Some(field))
        };
        let peer_id = PeerId([self.rng.random_range(0..20); 16]);
        let listen_port = if self.rng.random() { 7000 } else { 0 };
        (Hello { infohash: INFOHASH, peer_id, role, listen_port, zone: Zone::NONE }, have)
    }

    /// Removes an answered request. If the chunk was requested again after a cancellation, that is another request.
    fn forget(&mut self, key: PeerKey, chunk: ChunkIndex) {
        let connection = self.open.get_mut(&key).unwrap();
        for chunks in [&mut connection.asked, &mut connection.cancelled] {
            if let Some(at) = chunks.iter().position(|&other| other == chunk) {
                chunks.remove(at);
            }
        }
    }

    /// A peer sends a chunk that was requested from it.
    fn send(&mut self, key: PeerKey, chunk: ChunkIndex) {
        self.forget(key, chunk);
        match self.core.received(key, chunk, SMALL_CHUNK_LEN, self.now) {
            Received::Verify => {
                assert!(!self.stored.contains(&chunk), "{chunk:?} is here");
                assert!(self.unproved.iter().all(|&(_, other)| other != chunk), "{chunk:?} is being proved");
                self.unproved.push((key, chunk));
            }
            Received::Duplicate => {}
            Received::Unrequested => self.refused.push(key),
        }
    }

    fn prove(&mut self, is_wrong: bool) {
        let (peer, chunk) = self.unproved.swap_remove(self.rng.random_range(0..self.unproved.len()));
        let (hashing, writing) = (Duration::from_micros(200), Duration::from_micros(100));
        if is_wrong {
            self.liars.extend(self.dialled.get(&peer));
            self.handle(Event::Wrong { peer, chunk });
        } else {
            assert!(self.stored.insert(chunk), "{chunk:?} is stored twice");
            self.handle(Event::Stored { peer, chunk, hashing, writing });
        }
    }

    /// Lets time pass, at most until the core's next timeout.
    fn pass(&mut self) {
        let wake = self.core.next_timeout().unwrap_or(self.now + Duration::from_secs(1));
        let until = wake.saturating_duration_since(self.now).min(Duration::from_secs(2));
        self.now += until.mul_f64(self.rng.random_range(0.0..=1.0)) + Duration::from_micros(1);
    }

    /// From now on every peer has all chunks and answers each request, and none leaves.
    fn become_honest(&mut self) {
        for _ in 0..20_000 {
            self.pass();
            self.act();
            if self.finished || self.ended {
                return;
            }
            let keys: Vec<_> = self.open.keys().copied().collect();
            for key in keys {
                let connection = self.open.get_mut(&key).unwrap();
                if connection.is_closing {
                    self.open.remove(&key);
                    self.peer(key, PeerEvent::Closed(LeaveReason::Disconnected));
                } else if !connection.is_active {
                    connection.is_active = true;
                    let peer_id = PeerId(self.rng.random());
                    let hello = Hello {
                        infohash: INFOHASH,
                        peer_id,
                        role: Role::Seeder,
                        listen_port: 0,
                        zone: Zone::NONE,
                    };
                    self.peer(key, PeerEvent::Active { hello, have: Have::All });
                } else if let Some(chunk) = connection.asked.first().copied() {
                    self.send(key, chunk);
                }
            }
            while !self.unproved.is_empty() {
                self.prove(false);
            }
        }
        let last = &self.log[self.log.len().saturating_sub(12)..];
        panic!("{} of {CHUNKS} chunks came, {} connections: {last:#?}", self.stored.len(), self.open.len());
    }
}

fn run(seed: u64) -> Vec<String> {
    println!("seed {seed}");
    let mut world = World::new(seed);
    for _ in 0..400 {
        world.pass();
        world.act();
        // Several events may come before the core is polled.
        (0..world.rng.random_range(1..5)).for_each(|_| world.happen());
    }
    world.act();
    world.become_honest();
    if !world.ended {
        world.handle(Event::Finished);
        world.now += Duration::from_secs(6);
        world.act();
    }
    assert!(world.ended, "it stayed for longer than it should");
    assert_eq!(world.core.next_timeout(), None);
    world.log
}

/// A liar that leaves gets no second chance before it is found out, however long the proof takes.
#[test]
fn an_address_is_not_dialled_again_before_its_chunks_are_proved() {
    for is_wrong in [false, true] {
        let mut world = World::new(1);
        let address = SocketAddr::from(([10, 0, 2, 1], 7000));
        let answer = Answer::Peers { addresses: vec![address], interval_s: None };
        let dial = |world: &mut World| {
            while let Some(action) = world.core.poll(world.now, &mut world.rng) {
                match action {
                    Action::Dial(key, _) => return Some(key),
                    Action::LookUp(source) => world.handle(Event::Answered(source, answer.clone())),
                    _ => {}
                }
            }
            None
        };
        let key = dial(&mut world).unwrap();
        let hello = Hello {
            infohash: INFOHASH,
            peer_id: PeerId([1; 16]),
            role: Role::Seeder,
            listen_port: 0,
            zone: Zone::NONE,
        };
        world.peer(key, PeerEvent::Active { hello, have: Have::All });
        let requests = |world: &mut World| {
            let mut requests = Vec::new();
            while let Some(action) = world.core.poll(world.now, &mut world.rng) {
                if let Action::Send(_, PeerMessage::Request { chunk, .. }) = action {
                    requests.push(chunk);
                }
            }
            requests
        };
        let [chunk] = requests(&mut world)[..] else { panic!("it is tried with one chunk") };
        assert_eq!(world.core.received(key, chunk, SMALL_CHUNK_LEN, world.now), Received::Verify);
        let (hashing, writing) = (Duration::ZERO, Duration::ZERO);
        world.handle(Event::Stored { peer: key, chunk, hashing, writing });
        let [first, second, ..] = requests(&mut world)[..] else {
            panic!("it asks for several chunks at once")
        };
        for chunk in [first, second] {
            assert_eq!(world.core.received(key, chunk, SMALL_CHUNK_LEN, world.now), Received::Verify);
        }
        world.peer(key, PeerEvent::Closed(LeaveReason::Disconnected));
        let (peer, hashing, writing) = (key, Duration::ZERO, Duration::ZERO);
        for chunk in [first, second] {
            for _ in 0..60 {
                world.now += Duration::from_secs(1);
                assert_eq!(dial(&mut world), None, "{chunk:?} is not proved");
            }
            world.handle(if is_wrong && chunk == second {
                Event::Wrong { peer, chunk }
            } else {
                Event::Stored { peer, chunk, hashing, writing }
            });
        }
        world.now += Duration::from_secs(60);
        assert_eq!(dial(&mut world).is_none(), is_wrong);
    }
}

/// A liar that connects again before its chunk was even received gets no second chance either. Once its host has sent a right chunk,
/// everybody from there is let in.
#[test]
fn of_a_host_that_is_tried_no_other_peer_is_let_in() {
    let mut world = World::new(1);
    let connect = |world: &mut World, port| {
        let address = SocketAddr::from(([10, 0, 3, 1], port));
        let key = world.core.accept(address).unwrap();
        let hello = Hello {
            infohash: INFOHASH,
            peer_id: PeerId([2; 16]),
            role: Role::Seeder,
            listen_port: 0,
            zone: Zone::NONE,
        };
        world.peer(key, PeerEvent::Active { hello, have: Have::All });
        let (mut requested, mut closed) = (None, None);
        while let Some(action) = world.core.poll(world.now, &mut world.rng) {
            match action {
                Action::Send(to, PeerMessage::Request { chunk, .. }) => requested = Some((to, chunk)),
                Action::Close(key, reason) => closed = Some((key, reason)),
                _ => {}
            }
        }
        (key, requested, closed)
    };
    let (first, requested, _) = connect(&mut world, 1);
    let (_, chunk) = requested.filter(|&(to, _)| to == first).expect("it is tried");
    let (second, _, closed) = connect(&mut world, 2);
    assert_eq!(closed, Some((second, LeaveReason::Goodbye(NO_ROOM))));
    assert_eq!(world.core.received(first, chunk, SMALL_CHUNK_LEN, world.now), Received::Verify);
    let (third, _, closed) = connect(&mut world, 3);
    assert_eq!(closed, Some((third, LeaveReason::Goodbye(NO_ROOM))), "the chunk is not proved");
    let (hashing, writing) = (Duration::ZERO, Duration::ZERO);
    world.handle(Event::Stored { peer: first, chunk, hashing, writing });
    let (fourth, requested, closed) = connect(&mut world, 4);
    assert_eq!(closed, None);
    assert!(requested.is_some_and(|(to, _)| [first, fourth].contains(&to)));
}

/// Most addresses of a tracker may be an attacker's. Then its answers have an honest one only by chance.
#[test]
fn with_few_peers_among_many_addresses_that_do_not_answer_trackers_are_asked_more_often() {
    let lookups = |silent: u8| {
        let mut world = World::new(1);
        let addresses: Vec<_> = (0..=silent).map(|host| SocketAddr::from(([10, 0, 4, host], 7000))).collect();
        let answer = Answer::Peers { addresses: addresses.clone(), interval_s: Some(10) };
        let mut lookups = 0;
        while world.now < world.start + Duration::from_secs(20) {
            while let Some(action) = world.core.poll(world.now, &mut world.rng) {
                match action {
                    Action::LookUp(source) => {
                        lookups += 1;
                        world.handle(Event::Answered(source, answer.clone()));
                    }
                    Action::Dial(key, address) if address == addresses[0] => {
                        let (hello, _) = world.introduction();
                        let have = Have::Some(Bitfield::empty(CHUNKS));
                        world.peer(key, PeerEvent::Active { hello, have });
                    }
                    Action::Dial(key, _) => {
                        let silent = LeaveReason::Unreachable(Unreachable::Silent);
                        world.peer(key, PeerEvent::Closed(silent));
                    }
                    _ => {}
                }
            }
            world.pass();
        }
        lookups
    };
    let (alone, beside) = (lookups(0), lookups(20));
    assert!(
        alone < 12 && beside > 18,
        "{alone} lookups without addresses that do not answer, {beside} with them"
    );
}

/// Checks safety whatever peers do, and progress once there are honest peers.
#[test]
fn whatever_peers_do_the_core_keeps_its_promises_and_finishes() {
    (0..300).for_each(|seed| _ = run(seed));
}

#[test]
fn the_same_events_and_random_numbers_give_the_same_actions() {
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
    }
}

fn config(stay: Option<Stay>) -> Config {
    Config {
        zone: Zone::NONE,
        infohash: INFOHASH,
        own_id: PeerId([9; 16]),
        sources: vec![(Source::Tracker, Endpoint { host: "tracker".to_owned(), port: 6020 })],
        max_peers: 6,
        stall_timeout: Duration::from_secs(100_000),
        wait: Duration::ZERO,
        stay,
    }
}

/// A core that knows nothing yet, and its clock.
#[expect(clippy::disallowed_methods, reason = "only differences to it matter")]
fn undescribed(stay: Option<Stay>) -> (Swarm, Instant, StdRng) {
    let now = Instant::now();
    (Swarm::new(config(stay), now, now), now, StdRng::seed_from_u64(1))
}

/// A core that has ended the connection of a peer because others describe the share faster, and the peer.
fn with_a_peer_cut() -> (Swarm, PeerKey, Instant, StdRng) {
    let (mut core, mut now, mut rng) = undescribed(None);
    let addresses = (1..4).map(|host| SocketAddr::from(([10, 0, 0, host], 7000))).collect();
    let answer = Answer::Peers { addresses, interval_s: None };
    core.handle(Event::Answered(SourceId(0), answer), now, &mut rng);
    let mut asked = BTreeMap::new();
    // The first that is asked is the fastest. The others are cut when they have cost enough.
    let mut cut = None;
    for _ in 0..100 {
        while let Some(action) = core.poll(now, &mut rng) {
            match action {
                Action::Dial(key, _) => {
                    let answers_in = Duration::from_millis(1);
                    core.handle(Event::Peer(key, PeerEvent::Ready { answers_in }), now, &mut rng);
                }
                Action::AskDescription(key) => _ = asked.insert(key, 0),
                Action::Close(key, LeaveReason::TooSlow) => cut = Some(key),
                Action::Open | Action::Close(..) | Action::End(_) => panic!("{action:?}"),
                _ => {}
            }
        }
        if cut.is_some() {
            break;
        }
        now += Duration::from_millis(100);
        for (rank, (&key, received)) in (1..).zip(&mut asked) {
            *received += 1_000_000 / rank;
            let (stage, total) = (DescriptionStage::Hashes, 1_000_000_000);
            let sent = PeerEvent::Describing { stage, received: *received, total };
            core.handle(Event::Peer(key, sent), now, &mut rng);
        }
    }
    (core, cut.expect("a slow peer is cut"), now, rng)
}

#[test]
fn a_proved_description_counts_even_from_a_peer_that_was_cut_meanwhile() {
    let (mut core, cut, now, mut rng) = with_a_peer_cut();
    core.handle(Event::Peer(cut, PeerEvent::Described), now, &mut rng);
    let opens =
        std::iter::from_fn(|| core.poll(now, &mut rng)).filter(|action| matches!(action, Action::Open));
    assert_eq!(opens.count(), 1);
}

#[test]
fn a_malformed_share_ends_the_transfer_even_if_its_peer_was_cut_meanwhile() {
    let (mut core, cut, now, mut rng) = with_a_peer_cut();
    let malformed = PeerEvent::BadShare(MetainfoError::TooDeep);
    core.handle(Event::Peer(cut, malformed), now, &mut rng);
    let mut actions = std::iter::from_fn(|| core.poll(now, &mut rng));
    assert!(actions.any(|action| matches!(action, Action::End(Err(Failure::BadShare(_))))));
}

#[test]
fn a_leecher_that_cannot_serve_everything_does_not_stay_whenever_that_was_found() {
    for is_early in [true, false] {
        let (mut core, now, mut rng) = undescribed(Some(Stay::Forever));
        let space = ChunkSpace::new([u64::from(SMALL_CHUNK_LEN)]).unwrap();
        let mut have = Bitfield::empty(1);
        have.insert(ChunkIndex(0));
        let mut events = vec![
            Event::Opened { space, wanted: Bitfield::full(1), have, similar: Bitfield::empty(1) },
            Event::Finished,
        ];
        events.insert(if is_early { 1 } else { 2 }, Event::Spoilt);
        for event in events {
            core.handle(event, now, &mut rng);
        }
        let mut ends = std::iter::from_fn(|| core.poll(now, &mut rng));
        assert!(ends.any(|action| matches!(action, Action::End(Ok(())))), "{is_early}");
    }
}
