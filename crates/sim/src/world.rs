//! The world of a run: moves messages and bytes between peers as the shells of the real ones do.

mod figures;
mod meeting;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use proto::{
    Bitfield, ChunkIndex, ChunkSpace, InfoHash,
    peer::{PeerMessage, RejectReason},
    tracker::Event as AnnounceEvent,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use swarm::{
    Action, Event as SwarmEvent, LeaveReason, PeerEvent, Swarm,
    scheduler::{PeerKey, Received},
    uploads::{AskerKey, BUSY_RETRY_MS, DEFAULT_SLOTS, Requested, Uploads, WAITING_KEEP_ALIVE},
};
use tracker::{Registry, Rules};

use crate::{
    Report, Scenario,
    names::{ConnId, NodeId},
    network::{Flow, GROWTHS, Network, PART_INTERVAL, Warmth},
    node::{Incoming, Message, Node},
    queue::{Event, Queue},
    scenario::{Nature, ORIGIN_MAX_PEERS, OriginLeaves},
    time::{NEVER, Nanos, nanos},
};

/// One-way trips until a dial has led to a connection: TCP's handshake, and a `Hello`.
const DIAL_TRIPS: u32 = 3;

/// A connection that has sent nothing for this long starts slowly again: Linux' least retransmission timeout, after which TCP
/// forgets what a connection could send.
const COOLS_AFTER: Nanos = 200_000_000;

const INFOHASH: InfoHash = InfoHash([7; 32]);

/// Runs a scenario to its end. The same seed gives the same run.
///
/// # Panics
/// When a policy breaks one of its rules: a chunk stored twice, a request to a peer that left.
pub fn run(scenario: &Scenario, seed: u64) -> Report {
    let mut world = World::new(scenario, seed);
    let give_up = nanos(scenario.give_up);
    while world.wanting > 0 {
        match world.queue.pop() {
            Some((at, event)) if at <= give_up => {
                world.now = at;
                world.witness(at, event);
                world.happen(event);
            }
            _ => break,
        }
    }
    world.report(seed)
}

struct World<'a> {
    scenario: &'a Scenario,
    space: ChunkSpace,
    /// The time at which the simulation begins. Only differences to it matter.
    start: Instant,
    now: Nanos,
    latency: Nanos,
    rng: StdRng,
    queue: Queue,
    network: Network,
    nodes: Vec<Node>,
    /// When each peer works next. A [`Event::Wake`] at another time is out of date, which happens often. So this is apart from the
    /// peers: it is small enough to stay in the processor's caches.
    wakes: Vec<Nanos>,
    /// What each peer has stored, in order.
    logs: Vec<Vec<Stored>>,
    /// Both ends of every connection so far, and whether it is open.
    conns: Vec<Conn>,
    registry: Registry,
    /// Number of peers that do not have everything yet.
    wanting: usize,
    /// Chunks that the origin has not sent yet.
    unsent: Bitfield,
    /// Bytes that the origin had sent when it had sent every chunk.
    first_copy: u64,
    last_finish: Nanos,
    dropped: u64,
    replaced: u64,
    messages: u64,
    haves: u64,
    events: u64,
    digest: u64,
}

/// A chunk that a peer has stored, and reports to others from then on.
#[derive(Debug, Clone, Copy)]
struct Stored {
    at: Nanos,
    chunk: ChunkIndex,
}

#[derive(Debug, Clone, Copy)]
struct Conn {
    ends: [NodeId; 2],
    /// The key of the other end at each end.
    keys: [PeerKey; 2],
    open: bool,
    /// When each end last sent something on it.
    spoke: [Nanos; 2],
    /// When each end last finished sending a chunk on it, if ever.
    sent: [Option<Nanos>; 2],
}

impl Conn {
    fn other(&self, node: NodeId) -> NodeId {
        if self.ends[0] == node { self.ends[1] } else { self.ends[0] }
    }

    /// The key of the other end at `node`.
    fn key(&self, node: NodeId) -> PeerKey {
        self.keys[self.side(node)]
    }

    fn side(&self, node: NodeId) -> usize {
        usize::from(self.ends[0] != node)
    }
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, seed: u64) -> World<'a> {
        let space = ChunkSpace::new([scenario.share_len()]).expect("a share that is not too large");
        let (chunks, chunk_len) = (space.chunk_count(), space.chunk_len());
        let start = Instant::now();
        let mut world = World {
            scenario,
            start,
            now: 0,
            latency: nanos(scenario.latency),
            rng: StdRng::seed_from_u64(seed),
            queue: Queue::default(),
            network: Network::default(),
            nodes: Vec::new(),
            wakes: vec![NEVER; scenario.leechers.len() + 1],
            logs: vec![Vec::new(); scenario.leechers.len() + 1],
            conns: Vec::new(),
            registry: Registry::new(Rules::default(), start),
            wanting: scenario.leechers.iter().filter(|plan| plan.nature.is_waited_for()).count(),
            unsent: Bitfield::full(chunks),
            first_copy: 0,
            last_finish: 0,
            dropped: 0,
            replaced: 0,
            messages: 0,
            haves: 0,
            events: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            space,
        };
        let uploads = || Uploads::new(chunks, chunk_len, DEFAULT_SLOTS);
        let full = Bitfield::full(chunks);
        world.network.add(scenario.origin);
        let mut origin = Node::new(NodeId::ORIGIN, Nature::Seeder, uploads(), ORIGIN_MAX_PEERS, full.clone());
        origin.zone = scenario.origin_zone;
        world.nodes.push(origin);
        world.queue.push(0, Event::Arrive(NodeId::ORIGIN));
        for (number, plan) in (1..).zip(&scenario.leechers) {
            let id = NodeId(number);
            let have = if plan.nature.has_everything() { full.clone() } else { Bitfield::empty(chunks) };
            world.network.add(plan.link);
            let mut node = Node::new(id, plan.nature, uploads(), scenario.max_peers, have);
            (node.distance, node.is_reachable) = (nanos(plan.distance), plan.is_reachable);
            node.zone = plan.zone;
            world.nodes.push(node);
            world.queue.push(nanos(plan.arrives), Event::Arrive(id));
        }
        world
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(id) => self.arrive(id),
            Event::Wake(id) => {
                if self.wakes[id.index()] <= self.now {
                    self.wakes[id.index()] = NEVER;
                    self.work(id);
                }
            }
            Event::FlowDone(flow, life) => {
                let done = self.network.done(flow, life, self.now, &mut self.queue);
                if let Some(flow) = done {
                    self.sent(flow);
                }
            }
            Event::FlowLasts(flow, life) => {
                if let Some(flow) = self.network.lasts(flow, life) {
                    let (conn, ends, bytes) = (flow.conn, (flow.from, flow.to), flow.sent(self.now));
                    self.deliver(conn, ends, Message::Part { bytes });
                    self.queue.push(self.now + PART_INTERVAL, event);
                }
            }
            Event::FlowGrows(flow, life) => self.network.grow(flow, life, self.now, &mut self.queue),
            Event::Dialled { from, key, to } => self.dialled(from, key, to),
            Event::Announce(id) => {
                if self.node(id).online {
                    self.announce(id, AnnounceEvent::Heartbeat);
                    let next = self.rng.random_range(28.0..30.0);
                    self.queue.push(self.now + nanos(Duration::from_secs_f64(next)), event);
                }
            }
            Event::Leave(id) => self.leave(id, false),
            Event::KeepAlive(id) => self.keep_alive(id),
        }
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    fn at(&self, at: Nanos) -> Instant {
        self.start + Duration::from_nanos(at)
    }

    fn since_start(&self, at: Instant) -> Nanos {
        nanos(at.saturating_duration_since(self.start))
    }

    /// Sends a message on its way.
    fn send(&mut self, conn: ConnId, from: NodeId, message: Message) {
        let end = &mut self.conns[conn.index()];
        let side = end.side(from);
        end.spoke[side] = self.now;
        let to = end.other(from);
        self.deliver(conn, (from, to), message);
    }

    /// One way between two peers.
    fn latency(&self, one: NodeId, other: NodeId) -> Nanos {
        self.latency + self.nodes[one.index()].distance + self.nodes[other.index()].distance
    }

    fn deliver(&mut self, conn: ConnId, (from, to): (NodeId, NodeId), message: Message) {
        self.messages += 1;
        let at = self.now + self.latency(from, to);
        let inbox = &mut self.nodes[to.index()].inbox;
        // Usually the last to be sent is the last to arrive. What was sent from farther away may arrive later.
        let is_last = inbox.back().is_none_or(|last| last.at <= at);
        let place = if is_last { inbox.len() } else { inbox.partition_point(|earlier| earlier.at <= at) };
        inbox.insert(place, Incoming { at, conn, message });
        self.wake(to, at);
    }

    /// Lets a peer work at this time, or at the next at which peers work.
    fn wake(&mut self, id: NodeId, at: Nanos) {
        let interval = nanos(self.scenario.work_interval);
        let at = if interval == 0 { Some(at) } else { at.checked_next_multiple_of(interval) };
        let next = &mut self.wakes[id.index()];
        if let Some(at) = at.filter(|at| at < next) {
            *next = at;
            self.queue.push(at, Event::Wake(id));
        }
    }

    /// Everything that a peer does when it is called: reads, decides, writes.
    fn work(&mut self, id: NodeId) {
        if !self.nodes[id.index()].online {
            self.nodes[id.index()].inbox.clear();
            return;
        }
        if self.nodes[id.index()].news_at <= self.now {
            self.read_news(id);
        }
        while let Some(&Incoming { at, conn, message }) = self.nodes[id.index()].inbox.front()
            && at <= self.now
        {
            self.nodes[id.index()].inbox.pop_front();
            if self.conns[conn.index()].open {
                self.read(id, conn, message);
            }
            if !self.nodes[id.index()].online {
                return;
            }
        }
        self.act(id);
        self.serve(id);
        let node = &self.nodes[id.index()];
        // A timer that is due already must not stop the time.
        let timeout = node.core.as_ref().and_then(Swarm::next_timeout);
        let timeout = timeout.map(|at| self.since_start(at).max(self.now + self.latency));
        let message = node.inbox.front().map(|message| message.at);
        let next = [Some(node.news_at), timeout, message].into_iter().flatten().min();
        self.wake(id, next.unwrap_or(NEVER));
    }

    /// Tells a peer's core what happened.
    fn handle(&mut self, id: NodeId, event: SwarmEvent) {
        let now = self.at(self.now);
        if let Some(core) = &mut self.nodes[id.index()].core {
            core.handle(event, now, &mut self.rng);
        }
    }

    fn read(&mut self, id: NodeId, conn: ConnId, message: Message) {
        let node = &mut self.nodes[id.index()];
        let asker = AskerKey(conn.0.into());
        let event = match message {
            Message::Request(chunk, _) if !node.have.contains(chunk) => {
                self.send(conn, id, Message::NotHave(chunk));
                return;
            }
            Message::Request(chunk, progress) => {
                node.uploads.reports(asker, progress);
                if node.uploads.request(asker, chunk) == Requested::TooMany {
                    self.send(conn, id, Message::Busy(chunk));
                }
                return;
            }
            Message::Cancel(chunk) => {
                if node.uploads.cancel(asker, chunk) && node.nature != Nature::Silent {
                    self.send(conn, id, Message::Cancelled(chunk));
                }
                return;
            }
            Message::Chunk(chunk) => return self.take_in(id, conn, chunk),
            Message::Header(chunk) => PeerEvent::Arriving(chunk),
            Message::Part { bytes } => PeerEvent::Progress { bytes },
            Message::NotHave(chunk) => PeerEvent::Rejected(chunk, RejectReason::NotHave),
            Message::Busy(chunk) => {
                PeerEvent::Rejected(chunk, RejectReason::Busy { retry_after_ms: BUSY_RETRY_MS })
            }
            Message::Cancelled(chunk) => PeerEvent::Rejected(chunk, RejectReason::Cancelled),
            Message::Idle => PeerEvent::Idle,
            Message::KeepAlive => PeerEvent::Alive,
        };
        let key = self.conns[conn.index()].key(id);
        self.handle(id, SwarmEvent::Peer(key, event));
    }

    /// A chunk has arrived.
    fn take_in(&mut self, id: NodeId, conn: ConnId, chunk: ChunkIndex) {
        let (now, chunk_len) = (self.at(self.now), self.space.chunk_len());
        let (sender, peer) = (self.conns[conn.index()].other(id), self.conns[conn.index()].key(id));
        let lies = self.nodes[sender.index()].nature == Nature::Liar;
        let from = self.nodes[sender.index()].zone;
        let node = &mut self.nodes[id.index()];
        node.received += u64::from(chunk_len);
        if !node.zone.is_shared_with(from) {
            node.crossed += u64::from(chunk_len);
        }
        let Some(core) = &mut node.core else { return };
        match core.received(peer, chunk, chunk_len, now) {
            // The core may have ended the connection because of a message that was read a moment before.
            Received::Unrequested => {
                self.act(id);
                assert!(!self.conns[conn.index()].open, "{sender:?} sent {chunk:?} to {id:?} unasked");
            }
            Received::Duplicate => node.duplicate += u64::from(chunk_len),
            Received::Verify if lies => {
                node.wrong += u64::from(chunk_len);
                self.handle(id, SwarmEvent::Wrong { peer, chunk });
            }
            Received::Verify => {
                assert!(node.have.insert(chunk), "{chunk:?} stored twice by {id:?}");
                let leaves = node.nature == Nature::LeavesAt(node.have.count());
                let (hashing, writing) = (Duration::ZERO, Duration::ZERO);
                self.handle(id, SwarmEvent::Stored { peer, chunk, hashing, writing });
                if leaves {
                    self.leave(id, false);
                }
            }
        }
    }

    /// Reads what the others have stored since the last time. A finished peer needs no such news.
    fn read_news(&mut self, id: NodeId) {
        let now = self.at(self.now);
        let node = &mut self.nodes[id.index()];
        let core = node.core.as_mut().filter(|_| node.finished.is_none());
        node.news_at = if core.is_some() { self.now + nanos(self.scenario.news_interval) } else { NEVER };
        let Some(core) = core else { return };
        // The processor waits for all logs at the same time, and below for none.
        for link in &node.links {
            black_box(self.logs[link.id.index()].last().map(|stored| stored.at));
        }
        for link in &mut node.links {
            let news = &self.logs[link.id.index()][link.read..];
            let news = &news[..news.partition_point(|stored| stored.at + link.latency <= self.now)];
            if !news.is_empty() {
                link.read += news.len();
                self.haves += news.len() as u64;
                // The core ignores what it has.
                let news = news.iter().map(|stored| stored.chunk).filter(|&chunk| !node.have.contains(chunk));
                core.add_haves(link.key, news, now);
            }
        }
    }

    fn finish(&mut self, id: NodeId) {
        let now = self.now;
        let node = self.node(id);
        node.finished = Some(now);
        if node.nature.is_waited_for() {
            self.wanting -= 1;
        }
        self.last_finish = now;
        self.announce(id, AnnounceEvent::Completed);
        self.handle(id, SwarmEvent::Finished);
        if self.scenario.leave_when_done {
            self.leave(id, true);
        }
    }

    /// Carries out the actions of a peer's core.
    fn act(&mut self, id: NodeId) {
        let now = self.at(self.now);
        while let Some(core) = &mut self.nodes[id.index()].core
            && let Some(action) = core.poll(now, &mut self.rng)
        {
            match action {
                Action::Send(key, PeerMessage::Request { chunk, progress }) => {
                    self.send(self.nodes[id.index()].conns[&key], id, Message::Request(chunk, progress));
                }
                Action::Send(key, PeerMessage::Cancel { chunk }) => {
                    self.send(self.nodes[id.index()].conns[&key], id, Message::Cancel(chunk));
                }
                Action::Dial(key, address) => self.dial(id, key, address),
                Action::LookUp(source) => self.look_up(id, source),
                Action::Close(_, LeaveReason::Protocol(why)) => panic!("{id:?} met a peer of which {why}"),
                Action::Close(key, reason) => {
                    self.dropped += u64::from(reason == LeaveReason::TooSlow);
                    self.close(self.nodes[id.index()].conns[&key], id, &reason);
                }
                Action::Have(chunk, _) => self.logs[id.index()].push(Stored { at: self.now, chunk }),
                Action::Finish => self.finish(id),
                // It gave up, or has served for long enough.
                Action::End(_) => self.leave(id, true),
                Action::Announce(_) | Action::Checkpoint | Action::Report(_) | Action::ReportProgress => {}
                Action::Send(..) | Action::AskDescription(_) | Action::AskRest(_) | Action::Open => {
                    unreachable!("{action:?} of a share that is known")
                }
            }
        }
    }

    fn serve(&mut self, id: NodeId) {
        if self.nodes[id.index()].nature == Nature::Silent {
            return;
        }
        let now = self.at(self.now);
        if self.nodes[id.index()].uploads.is_contended() {
            let taken = |asker| self.network.sent(id, conn_of(asker), self.now);
            self.nodes[id.index()].uploads.progress(taken, now);
        }
        while let Some((asker, wish)) = self.nodes[id.index()].uploads.start(now) {
            // Nothing but whole chunks is requested, because nobody has similar ones.
            let chunk = wish.chunk;
            let conn = conn_of(asker);
            let end = &self.conns[conn.index()];
            let to = end.other(id);
            let is_warm = end.sent[end.side(id)].is_some_and(|sent| self.now - sent < COOLS_AFTER);
            let interval = nanos(self.scenario.start_time) / u64::from(GROWTHS);
            let warmth = if is_warm || interval == 0 { Warmth::Warm } else { Warmth::Cold(interval) };
            let len = self.space.chunk_len();
            self.network.start((conn, id, to), (chunk, len), warmth, self.now, &mut self.queue);
            self.send(conn, id, Message::Header(chunk));
        }
        for asker in self.nodes[id.index()].uploads.take_idle(now) {
            self.send(conn_of(asker), id, Message::Idle);
        }
        if let Some(at) = self.nodes[id.index()].uploads.next_timeout(now) {
            let at = self.since_start(at).max(self.now + 1);
            self.wake(id, at);
        }
    }

    /// The last byte of a chunk was sent.
    fn sent(&mut self, flow: Flow) {
        let Flow { conn, from, chunk, len: chunk_len, .. } = flow;
        let now = self.at(self.now);
        let end = &mut self.conns[conn.index()];
        end.sent[end.side(from)] = Some(self.now);
        let taken = |asker| self.network.sent(from, conn_of(asker), self.now);
        self.nodes[from.index()].uploads.progress(taken, now);
        let node = self.node(from);
        node.uploads.finished(AskerKey(conn.0.into()), chunk_len, now);
        node.sent += u64::from(chunk_len);
        let sent = node.sent;
        self.send(conn, from, Message::Chunk(chunk));
        if from == NodeId::ORIGIN && self.unsent.remove(chunk) && self.unsent.is_empty() {
            self.first_copy = sent;
        }
        let leaves = match self.scenario.origin_leaves {
            OriginLeaves::Never => false,
            OriginLeaves::AfterCopies(copies) => sent as f64 >= copies * self.space.total_len() as f64,
            OriginLeaves::AfterEveryChunk => self.unsent.is_empty(),
        };
        if from == NodeId::ORIGIN && leaves {
            self.leave_soon(from);
        } else {
            self.serve(from);
        }
    }

    /// Sends a keep-alive to every peer whose requests wait and that received nothing for a while.
    fn keep_alive(&mut self, id: NodeId) {
        let node = &self.nodes[id.index()];
        if !node.online || node.nature == Nature::Silent {
            return;
        }
        let now = self.now;
        for at in 0..self.nodes[id.index()].links.len() {
            let conn = self.nodes[id.index()].links[at].conn;
            let node = &self.nodes[id.index()];
            let end = &self.conns[conn.index()];
            let spoke = end.spoke[end.side(id)];
            if now - spoke >= nanos(WAITING_KEEP_ALIVE) && node.uploads.is_waiting(AskerKey(conn.0.into())) {
                self.send(conn, id, Message::KeepAlive);
            }
        }
        self.queue.push(now + nanos(WAITING_KEEP_ALIVE), Event::KeepAlive(id));
    }
}

fn conn_of(AskerKey(key): AskerKey) -> ConnId {
    ConnId(u32::try_from(key).expect("a key that was made from a connection"))
}
