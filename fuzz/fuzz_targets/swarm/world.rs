//! Everything around one core: what its peers, trackers and disk are allowed to do, and what they did.

mod actions;
mod honest;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    BLOCK_LEN, Bitfield, ChunkIndex, ChunkSpace, Digest, Endpoint, InfoHash, PeerId, SMALL_CHUNK_LEN, Zone,
    metainfo::MetainfoError,
    peer::{BlockSet, Form, Hello, RejectReason, Role, Wish},
    tracker::client::{CallError, TrackerError},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use swarm::{
    Answer, Config, DescriptionStage, Event, LeaveReason, MAX_UNPROVED, PeerEvent, PeerNameError, Source,
    SourceId, Stay, Swarm,
    scheduler::{Have, PeerKey, Received},
};

use super::input::{Input, Nth, Reason, Setting, Staying, Step, TrackerAnswer};

const INFOHASH: InfoHash = InfoHash([7; 32]);

/// Blocks in a full chunk.
const BLOCKS: u32 = SMALL_CHUNK_LEN / BLOCK_LEN;

/// Everything around one core.
pub struct World {
    core: Swarm,
    rng: StdRng,
    start: Instant,
    now: Instant,
    max_peers: usize,
    space: ChunkSpace,
    have: Bitfield,
    /// In which form each chunk has to be requested next that is not requested whole. At first those of which similar bytes are here.
    forms: BTreeMap<ChunkIndex, Form>,
    is_impatient: bool,
    /// The connections that are open for the driver.
    open: BTreeMap<PeerKey, Connection>,
    /// All keys that were ever used.
    keys: BTreeSet<PeerKey>,
    stored: BTreeSet<ChunkIndex>,
    /// Chunks and parts of chunks that wait to be proved, and who sent them.
    unproved: Vec<(Sender, Wish)>,
    lookups: Vec<SourceId>,
    sources: Vec<Source>,
    /// Addresses that were dialled and lied. The core remembers a few hundred.
    liars: BTreeSet<SocketAddr>,
    /// IP addresses from which a liar connected.
    barred: BTreeSet<IpAddr>,
    stage: Stage,
    pub is_over: bool,
    /// A tracker named more addresses than the book can hold.
    was_flooded: bool,
    /// The next address of an honest peer.
    fresh: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Describing,
    /// The core asked for the output to be opened.
    Opening,
    Fetching,
    /// The core asked for the share to be finished.
    Flushing,
    Staying,
}

#[derive(Debug, Clone, Copy)]
struct Sender {
    key: PeerKey,
    dialled: Option<SocketAddr>,
    ip: IpAddr,
}

#[derive(Debug)]
struct Connection {
    address: SocketAddr,
    is_dialled: bool,
    is_asked: bool,
    is_active: bool,
    is_closing: bool,
    is_deaf: bool,
    /// It became active after its IP address was barred.
    is_barred: bool,
    has_sent_bitfield: bool,
    is_honest: bool,
    /// A chunk from it was proved right.
    is_trusted: bool,
    /// Requests without an answer, oldest first.
    asked: Vec<(Wish, Instant)>,
    /// Requests of these that were cancelled.
    cancelled: Vec<ChunkIndex>,
    /// The chunk of which some bytes are here. Nothing else arrives before the rest.
    arriving: Option<ChunkIndex>,
    /// It was cancelled, but now it arrives, so it counts again.
    revived: Option<ChunkIndex>,
}

impl World {
    pub fn new(input: &Input) -> World {
        let Setting { max_peers, files, trackers, named_peers, have, stay, is_impatient, waits, .. } =
            input.setting;
        let start = Instant::now();
        let lens =
            files.map(|len| u64::from(len % 24) * u64::from(SMALL_CHUNK_LEN) / 3 + u64::from(len / 24));
        let space = ChunkSpace::new(lens).expect("small files");
        let kinds =
            (0..trackers % 3).map(|_| Source::Tracker).chain((0..named_peers % 3).map(|_| Source::Peer));
        let sources: Vec<Source> = kinds.collect();
        let endpoint = |port| Endpoint { host: "source".to_owned(), port };
        let config = Config {
            infohash: INFOHASH,
            zone: Zone::NONE,
            own_id: PeerId([9; 16]),
            sources: sources.iter().copied().zip((1..).map(endpoint)).collect(),
            max_peers: 1 + usize::from(max_peers % 8),
            stall_timeout: Duration::from_secs(if is_impatient { 60 } else { 10_000_000 }),
            wait: Duration::from_secs(if waits { 600 } else { 0 }),
            stay: match stay {
                Staying::No => None,
                Staying::WhileNeeded => Some(Stay::WhileNeeded),
                Staying::Forever => Some(Stay::Forever),
                Staying::For(seconds) => Some(Stay::For(Duration::from_secs(seconds.into()))),
                Staying::Ratio(percent) => Some(Stay::Ratio(f64::from(percent) / 100.0)),
            },
        };
        let have = bitfield(&space, have);
        // Not a field of the setting, so that the fields of older inputs stay where they are.
        let similar = bitfield(&space, (input.seed >> 32) as u32);
        let forms = similar.iter().filter(|&chunk| !have.contains(chunk)).map(|chunk| (chunk, Form::Leaves));
        let mut world = World {
            max_peers: config.max_peers,
            core: Swarm::new(config, start, start),
            rng: StdRng::seed_from_u64(input.seed),
            start,
            now: start,
            stored: have.iter().collect(),
            forms: forms.collect(),
            space,
            have,
            is_impatient,
            open: BTreeMap::new(),
            keys: BTreeSet::new(),
            unproved: Vec::new(),
            lookups: Vec::new(),
            sources,
            liars: BTreeSet::new(),
            barred: BTreeSet::new(),
            stage: Stage::Describing,
            is_over: false,
            was_flooded: false,
            fresh: 0,
        };
        if input.setting.is_described {
            world.stage = Stage::Opening;
            world.opened();
        }
        world
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(event, self.now, &mut self.rng);
    }

    fn peer(&mut self, key: PeerKey, event: PeerEvent) {
        self.handle(Event::Peer(key, event));
    }

    fn chunk(&self, nth: Nth) -> Option<ChunkIndex> {
        let count = self.space.chunk_count();
        (count > 0).then(|| ChunkIndex(u32::from(nth) % count))
    }

    /// The open connection that `nth` stands for, if `may` holds for it.
    fn connection(&self, nth: Nth, may: impl Fn(&Connection) -> bool) -> Option<PeerKey> {
        let open = self.open.iter().filter(|(_, connection)| may(connection));
        let open: Vec<PeerKey> = open.map(|(&key, _)| key).collect();
        (!open.is_empty()).then(|| open[usize::from(nth) % open.len()])
    }

    /// As [`World::connection`], for one whose session passes on messages.
    fn talking(&self, nth: Nth) -> Option<PeerKey> {
        self.connection(nth, |connection| connection.is_active && connection.arriving.is_none())
    }

    /// As [`World::connection`], for one whose session has not fetched the description yet.
    fn beginning(&self, nth: Nth) -> Option<PeerKey> {
        self.connection(nth, |connection| !connection.is_active)
    }

    pub fn step(&mut self, step: Step) {
        match step {
            Step::Pass { part } => {
                self.act();
                let wake = self.core.next_timeout().unwrap_or(self.now + Duration::from_secs(1));
                let left = wake.saturating_duration_since(self.now);
                self.now += left.mul_f64(f64::from(part) / 255.0) + Duration::from_micros(1);
            }
            Step::Sleep { seconds } => self.sleep(Duration::from_secs(seconds.into())),
            Step::Answer { lookup, answer } => {
                if !self.lookups.is_empty() {
                    let source = self.lookups.swap_remove(usize::from(lookup) % self.lookups.len());
                    let answer = self.answer(source, answer);
                    self.handle(Event::Answered(source, answer));
                }
            }
            // A port is routed to a transfer when its output is open.
            Step::Accept { host, port } if self.stage >= Stage::Fetching => {
                let address = SocketAddr::from(([10, 0, 1, host % 16], 50_000 + u16::from(port)));
                if let Some(key) = self.core.accept(address) {
                    self.open(key, address, false);
                }
            }
            Step::Accept { .. } => {}
            Step::Finished => self.finished(),
            Step::Opened => self.opened(),
            Step::Spoilt => self.handle(Event::Spoilt),
            Step::Uploaded { chunks } => {
                self.handle(Event::Uploaded(u64::from(chunks) * u64::from(SMALL_CHUNK_LEN)));
            }
            Step::Limited { is_limited } => self.handle(Event::Limited(is_limited)),
            Step::Stop => self.handle(Event::Stop),
            Step::Prove { job, is_right } => {
                if !self.unproved.is_empty() {
                    self.prove(usize::from(job) % self.unproved.len(), is_right);
                }
            }
            step => _ = self.step_of_peer(step),
        }
    }

    /// A step of one connection. It does nothing if no connection is in the state for it.
    fn step_of_peer(&mut self, step: Step) -> Option<()> {
        match step {
            Step::Ready { peer, delay_ms } => {
                let answers_in = Duration::from_millis(delay_ms.into());
                self.peer(self.beginning(peer)?, PeerEvent::Ready { answers_in });
            }
            Step::Describing { peer, received, total } => {
                let (received, total) = (u64::from(received) * 4_096, u64::from(total) * 4_096);
                // Sizes of hashes are multiples of 32 bytes, and those of metainfo are not. Both occur here.
                let stage = if total.is_multiple_of(8_192) {
                    DescriptionStage::Metainfo
                } else {
                    DescriptionStage::Hashes
                };
                let received = received.min(total);
                self.peer(self.beginning(peer)?, PeerEvent::Describing { stage, received, total });
            }
            // Another peer's metainfo came first, so this one can be asked again.
            Step::Overtaken { peer } => {
                self.peer(self.beginning(peer)?, PeerEvent::Ready { answers_in: Duration::ZERO });
            }
            Step::Described { peer } => self.peer(self.beginning(peer)?, PeerEvent::Described),
            Step::BadShare { peer } => {
                let error = MetainfoError::NotCanonical;
                self.peer(self.beginning(peer)?, PeerEvent::BadShare(error));
            }
            Step::Active { peer, id, port, have } if self.stage >= Stage::Fetching => {
                let listen_port = if port < 128 { 0 } else { 7_000 + u16::from(port % 4) };
                let have = have.map(|bits| bitfield(&self.space, bits));
                self.activate(self.beginning(peer)?, PeerId([id % 12; 16]), listen_port, have);
            }
            Step::Active { .. } => {}
            Step::Bitfield { peer, have } => {
                let key = self.talking(peer)?;
                let connection = self.open.get_mut(&key)?;
                if !std::mem::replace(&mut connection.has_sent_bitfield, true) {
                    self.peer(key, PeerEvent::Bitfield(bitfield(&self.space, have)));
                }
            }
            Step::Have { peer, chunk } => {
                self.peer(self.talking(peer)?, PeerEvent::Haves(vec![self.chunk(chunk)?]))
            }
            Step::Haves { peer, from, count } => {
                let (key, from) = (self.talking(peer)?, self.chunk(from)?);
                let haves = (from.0..self.space.chunk_count()).take(count.into()).map(ChunkIndex);
                self.core.add_haves(key, haves, self.now);
            }
            Step::Idle { peer } => self.peer(self.talking(peer)?, PeerEvent::Idle),
            Step::Alive { peer } => self.peer(self.talking(peer)?, PeerEvent::Alive),
            Step::Deaf { peer } => {
                let key = self.talking(peer)?;
                self.open.get_mut(&key)?.is_deaf = true;
            }
            Step::Arriving { peer, request } => {
                let key = self.talking(peer)?;
                self.arrive(key, self.request(key, request)?);
            }
            Step::ArrivingAny { peer, chunk } => self.arrive(self.talking(peer)?, self.chunk(chunk)?),
            Step::Progress { peer, bytes } => {
                let key = self.connection(peer, |connection| connection.arriving.is_some())?;
                self.peer(key, PeerEvent::Progress { bytes: bytes % SMALL_CHUNK_LEN });
            }
            Step::Deliver { peer, request } => {
                let key = self.connection(peer, |connection| connection.is_active)?;
                let arriving = self.open[&key].arriving;
                self.deliver(key, arriving.or_else(|| self.request(key, request))?);
            }
            Step::DeliverAny { peer, chunk } => self.deliver(self.talking(peer)?, self.chunk(chunk)?),
            Step::Reject { peer, request, reason } => {
                let key = self.talking(peer)?;
                self.reject(key, self.request(key, request)?, reason);
            }
            Step::RejectAny { peer, chunk, reason } => {
                self.reject(self.talking(peer)?, self.chunk(chunk)?, reason)
            }
            Step::Closed { peer, reason } => self.close(self.connection(peer, |_| true)?, reason.into()),
            _ => {}
        }
        Some(())
    }

    fn sleep(&mut self, time: Duration) {
        let until = self.now + time;
        // Nothing happens, so the core may wake the driver only now and then.
        for _ in 0..40 * (1 + time.as_secs()) {
            self.act();
            let Some(wake) = self.core.next_timeout().filter(|&wake| wake < until && !self.is_over) else {
                self.now = until;
                return;
            };
            self.now = wake;
        }
        // A real driver would go on. This bound is generous: a review every 25 ms is the most frequent.
        panic!("it woke more than 40 times a second");
    }

    fn open(&mut self, key: PeerKey, address: SocketAddr, is_dialled: bool) {
        assert!(self.keys.insert(key), "{key:?} is used twice");
        let connection = Connection {
            address,
            is_dialled,
            is_asked: false,
            is_active: false,
            is_closing: false,
            is_deaf: false,
            is_barred: false,
            has_sent_bitfield: false,
            is_honest: false,
            is_trusted: false,
            asked: Vec::new(),
            cancelled: Vec::new(),
            arriving: None,
            revived: None,
        };
        self.open.insert(key, connection);
        let count = |is_dialled| self.open.values().filter(|other| other.is_dialled == is_dialled).count();
        assert!(count(true) <= self.max_peers && count(false) <= 2 * self.max_peers);
    }

    fn opened(&mut self) {
        if self.stage == Stage::Opening {
            self.stage = Stage::Fetching;
            let mut similar = Bitfield::empty(self.space.chunk_count());
            self.forms.keys().for_each(|&chunk| _ = similar.insert(chunk));
            self.handle(Event::Opened {
                space: self.space.clone(),
                wanted: Bitfield::full(self.space.chunk_count()),
                have: self.have.clone(),
                similar,
            });
        }
    }

    fn finished(&mut self) {
        if self.stage == Stage::Flushing {
            self.stage = Stage::Staying;
            self.handle(Event::Finished);
        }
    }

    fn activate(&mut self, key: PeerKey, peer_id: PeerId, listen_port: u16, have: Option<Bitfield>) {
        let connection = self.open.get_mut(&key).expect("an open connection");
        connection.is_active = true;
        connection.is_barred = !connection.is_dialled && self.barred.contains(&connection.address.ip());
        let role = if have.is_some() { Role::Leecher } else { Role::Seeder };
        let have = have.map_or(Have::All, Have::Some);
        let hello = Hello { infohash: INFOHASH, peer_id, role, listen_port, zone: Zone::NONE };
        let is_seeder = have == Have::All;
        self.peer(key, PeerEvent::Active { hello, have });
        if is_seeder && self.rng.random() {
            self.choose(key);
        }
    }

    /// A peer was asked for any chunk with its hello.
    fn choose(&mut self, key: PeerKey) {
        let nth = self.rng.random();
        let Some(chunk) = self.chunk(nth) else { return };
        let connection = self.open.get_mut(&key).expect("an open connection");
        connection.asked.push((Wish { chunk, form: Form::Whole }, self.now));
        let waited = Duration::from_millis(self.rng.random_range(0..1_000));
        self.peer(key, PeerEvent::Chosen { chunk, waited });
    }

    /// A chunk that was requested on a connection.
    fn request(&self, key: PeerKey, nth: Nth) -> Option<ChunkIndex> {
        let asked = &self.open[&key].asked;
        (!asked.is_empty()).then(|| asked[usize::from(nth) % asked.len()].0.chunk)
    }

    fn arrive(&mut self, key: PeerKey, chunk: ChunkIndex) {
        let is_needed = !self.stored.contains(&chunk) && !self.is_unproved(chunk);
        let connection = self.open.get_mut(&key).expect("an open connection");
        connection.arriving = Some(chunk);
        let is_asked = connection.asked.iter().any(|(asked, _)| asked.chunk == chunk);
        connection.revived = (is_needed && is_asked).then_some(chunk);
        self.peer(key, PeerEvent::Arriving(chunk));
    }

    fn is_unproved(&self, chunk: ChunkIndex) -> bool {
        self.unproved.iter().any(|(_, other)| other.chunk == chunk)
    }

    fn deliver(&mut self, key: PeerKey, chunk: ChunkIndex) {
        if self.unproved.len() >= MAX_UNPROVED {
            // Its session waits for its turn.
            return;
        }
        let asked = self.forget(key, chunk);
        let is_asked = asked.is_some();
        let wish = asked.unwrap_or(Wish { chunk, form: Form::Whole });
        let len = self.space.span(chunk).expect("a chunk of the share").len;
        let len = match wish.form {
            Form::Whole => len,
            Form::Leaves => BLOCKS * Digest::LEN as u32,
            Form::Blocks(blocks) => blocks.len(len),
        };
        match self.core.received(key, wish, len, self.now) {
            Received::Verify => {
                assert!(is_asked, "{chunk:?} was not requested");
                assert!(wish.form == Form::Whole || wish.form == self.form(chunk), "{wish:?} is of no use");
                assert!(!self.stored.contains(&chunk), "{chunk:?} is here");
                assert!(!self.is_unproved(chunk), "{chunk:?} is being proved");
                let Connection { address, is_dialled, is_trusted, .. } = self.open[&key];
                // Hashes of blocks are proved beside a chunk. They are short, and bring no trust.
                let is_hashes = |wish: Wish| wish.form == Form::Leaves;
                let mut of_it = self.unproved.iter().filter(|(sender, _)| sender.key == key);
                let is_alone = is_hashes(wish) || of_it.all(|&(_, other)| is_hashes(other));
                assert!(is_trusted || is_alone, "two chunks of a peer that may lie");
                let sender = Sender { key, dialled: is_dialled.then_some(address), ip: address.ip() };
                self.unproved.push((sender, wish));
                self.open
                    .values_mut()
                    .for_each(|other| other.revived = other.revived.filter(|&it| it != chunk));
            }
            Received::Duplicate => {}
            Received::Unrequested => assert!(!is_asked || self.open[&key].is_closing || self.is_leaving(key)),
        }
    }

    /// Whether the core has ended a connection, and the driver does not know yet.
    fn is_leaving(&mut self, key: PeerKey) -> bool {
        self.act();
        self.is_over || self.open[&key].is_closing
    }

    /// In which form a chunk has to be requested next.
    fn form(&self, chunk: ChunkIndex) -> Form {
        self.forms.get(&chunk).copied().unwrap_or(Form::Whole)
    }

    /// Removes an answered request, and returns it if there was one.
    fn forget(&mut self, key: PeerKey, chunk: ChunkIndex) -> Option<Wish> {
        let connection = self.open.get_mut(&key).expect("an open connection");
        connection.arriving = None;
        connection.revived = None;
        if let Some(at) = connection.cancelled.iter().position(|&other| other == chunk) {
            connection.cancelled.remove(at);
        }
        let at = connection.asked.iter().position(|(other, _)| other.chunk == chunk);
        at.map(|at| connection.asked.remove(at).0)
    }

    fn reject(&mut self, key: PeerKey, chunk: ChunkIndex, reason: Reason) {
        self.forget(key, chunk);
        let reason = match reason {
            Reason::NotHave => RejectReason::NotHave,
            Reason::Busy { retry_after_ms } => RejectReason::Busy { retry_after_ms },
            Reason::Gone => RejectReason::Gone,
            Reason::Cancelled => RejectReason::Cancelled,
        };
        self.peer(key, PeerEvent::Rejected(chunk, reason));
    }

    fn prove(&mut self, job: usize, is_right: bool) {
        let (Sender { key, dialled, ip }, Wish { chunk, form }) = self.unproved.swap_remove(job);
        // Right hashes show which blocks differ. Right blocks are of no use if the similar bytes have changed.
        let next = match form {
            Form::Leaves => Some(self.differing_blocks()),
            Form::Blocks(_) if self.rng.random_range(0..4) == 0 => Some(Form::Whole),
            Form::Blocks(_) | Form::Whole => None,
        };
        if is_right && let Some(form) = next {
            self.forms.insert(chunk, form);
            self.handle(Event::AskAgain { peer: key, chunk, form });
        } else if is_right {
            assert!(self.stored.insert(chunk), "{chunk:?} is stored twice");
            self.open.entry(key).and_modify(|connection| connection.is_trusted = true);
            let (hashing, writing) = (Duration::from_micros(200), Duration::from_micros(100));
            self.handle(Event::Stored { peer: key, chunk, hashing, writing });
        } else {
            self.liars.extend(dialled);
            self.barred.insert(ip);
            self.handle(Event::Wrong { peer: key, chunk });
        }
    }

    /// Some blocks, or the whole chunk if most differ.
    fn differing_blocks(&mut self) -> Form {
        match self.rng.random_range(0..BLOCKS) {
            0 => Form::Whole,
            count => Form::Blocks(BlockSet::first(count)),
        }
    }

    fn close(&mut self, key: PeerKey, reason: LeaveReason) {
        self.open.remove(&key);
        self.peer(key, PeerEvent::Closed(reason));
    }

    fn answer(&mut self, source: SourceId, answer: TrackerAnswer) -> Answer {
        let is_peer = self.sources[source.0] == Source::Peer;
        let addresses = |net: u8, first: u8, count: u8| -> Vec<SocketAddr> {
            let host = |at: u8| SocketAddr::from(([10, 0, 2 + net, first.wrapping_add(at)], 7_000));
            (0..count).map(host).collect()
        };
        match answer {
            TrackerAnswer::Peers { first, count, interval_s } => {
                let addresses = addresses(0, first % 32, count % 16);
                Answer::Peers { addresses, interval_s: interval_s.filter(|_| !is_peer) }
            }
            // The book takes long for one, so a run has no more.
            TrackerAnswer::Flood { net } if !std::mem::replace(&mut self.was_flooded, true) => {
                let addresses = (0..5).flat_map(|more| addresses(1 + (net % 8) * 5 + more, 0, 255)).collect();
                Answer::Peers { addresses, interval_s: None }
            }
            TrackerAnswer::Flood { net } => {
                Answer::Peers { addresses: addresses(1 + net % 40, 0, 9), interval_s: None }
            }
            TrackerAnswer::Unknown { settled } if !is_peer => Answer::Unknown { settled },
            TrackerAnswer::Unknown { .. } | TrackerAnswer::Failed => {
                let endpoint = Endpoint { host: "source".to_owned(), port: 1 };
                if is_peer {
                    let error = Arc::new(io::Error::other("no such name"));
                    Answer::NameFailed(PeerNameError { peer: endpoint, error })
                } else {
                    Answer::TrackerFailed(TrackerError::Call { endpoint, error: CallError::Unanswered })
                }
            }
        }
    }
}

impl Connection {
    /// Since when a chunk is expected from here, if it is.
    fn waits_for(&self, chunk: ChunkIndex) -> Option<Instant> {
        if self.is_closing {
            return None;
        }
        let asked = self.asked.iter().filter(|(asked, _)| asked.chunk == chunk);
        let cancelled = self.cancelled.iter().filter(|&&other| other == chunk).count();
        let is_expected = asked.clone().count() > cancelled || self.revived == Some(chunk);
        asked.map(|&(_, since)| since).min().filter(|_| is_expected)
    }
}

/// The chunks of a share whose bits are set, again and again.
fn bitfield(space: &ChunkSpace, bits: u32) -> Bitfield {
    let mut field = Bitfield::empty(space.chunk_count());
    for chunk in space.chunks().filter(|chunk| bits >> (chunk.0 % 32) & 1 == 1) {
        field.insert(chunk);
    }
    field
}
