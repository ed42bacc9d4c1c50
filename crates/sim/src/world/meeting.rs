//! How peers arrive, find each other, connect and leave.

use std::{io::ErrorKind, net::SocketAddr, num::NonZeroU16, time::Duration};

use proto::{
    Bitfield, Endpoint, PeerId, Secret, ShareName,
    peer::{GoodbyeReason, Hello, Role},
    tracker::{Announce, Completion, Event as AnnounceEvent, Token, message::MAX_PEERS},
};
use rand::RngExt;
use swarm::{
    Answer, Config, Event as SwarmEvent, LeaveReason, NO_ROOM, PeerEvent, Source, SourceId, Stay, Swarm,
    Unreachable,
    scheduler::{Have, PeerKey},
    uploads::{AskerKey, WAITING_KEEP_ALIVE},
};

use tracker::Asker;

use super::{Conn, DIAL_TRIPS, INFOHASH, World};
use crate::{
    names::{ConnId, NodeId, PORT},
    node::Neighbour,
    queue::Event,
    scenario::Nature,
    time::nanos,
};

/// Port from which every peer connects.
const FROM_PORT: NonZeroU16 = NonZeroU16::new(50_000).unwrap();

/// The first source of every leecher; the origin is the second, for those that know it from the start.
const TRACKER: SourceId = SourceId(0);

impl World<'_> {
    pub(super) fn arrive(&mut self, id: NodeId) {
        let now = self.now;
        let node = self.node(id);
        (node.online, node.arrived) = (true, now);
        self.announce(id, AnnounceEvent::Started);
        let heartbeat = self.rng.random_range(28.0..30.0);
        self.queue.push(now + nanos(Duration::from_secs_f64(heartbeat)), Event::Announce(id));
        self.queue.push(now + nanos(WAITING_KEEP_ALIVE), Event::KeepAlive(id));
        if !self.nodes[id.index()].nature.has_everything() {
            self.start_core(id);
            self.node(id).news_at = now;
            self.work(id);
        }
    }

    fn start_core(&mut self, id: NodeId) {
        let mut sources = vec![(Source::Tracker, endpoint("tracker"))];
        sources.extend(self.scenario.names_origin.then(|| (Source::Peer, endpoint("origin"))));
        let config = Config {
            infohash: INFOHASH,
            own_id: peer_id(id),
            zone: self.nodes[id.index()].zone,
            sources,
            max_peers: self.nodes[id.index()].max_peers,
            stall_timeout: self.scenario.give_up,
            wait: Duration::ZERO,
            stay: Some(Stay::Forever),
        };
        let now = self.at(self.now);
        let mut core = Swarm::new(config, now, now);
        let (space, have) = (self.space.clone(), self.nodes[id.index()].have.clone());
        let wanted = Bitfield::full(space.chunk_count());
        let similar = Bitfield::empty(space.chunk_count());
        core.handle(SwarmEvent::Opened { space, wanted, have, similar }, now, &mut self.rng);
        self.node(id).core = Some(core);
    }

    pub(super) fn leave(&mut self, id: NodeId, announces: bool) {
        self.node(id).online = false;
        for link in self.node(id).links.clone() {
            self.close(link.conn, id, &LeaveReason::Disconnected);
        }
        self.node(id).core = None;
        if announces {
            self.announce(id, AnnounceEvent::Stopped);
        }
    }

    /// Leaves when what was sent has arrived, and the answers to it.
    pub(super) fn leave_soon(&mut self, id: NodeId) {
        let farthest = self.nodes.iter().map(|node| node.distance).max().unwrap_or(0);
        let round_trip = 2 * (self.latency + 2 * farthest);
        let at = self.now + round_trip + nanos(self.scenario.work_interval);
        self.queue.push(at, Event::Leave(id));
    }

    pub(super) fn announce(&mut self, id: NodeId, event: AnnounceEvent) {
        let now = self.at(self.now);
        let announce = Announce {
            token: Token([0; 16]),
            infohash: INFOHASH,
            peer_id: peer_id(id),
            secret: Secret(peer_id(id).0),
            port: PORT,
            name: ShareName::new("simulated").expect("a legal name"),
            size: self.space.total_len(),
            event,
            progress: Completion::of(self.nodes[id.index()].have.count(), self.space.chunk_count()),
            label: proto::Label::NONE,
            fetched: false,
            zone: self.nodes[id.index()].zone,
        };
        self.registry.announce(&announce, id.ip(), now).expect("a registry that is not full");
    }

    /// Answers at once what a source would.
    pub(super) fn look_up(&mut self, id: NodeId, source: SourceId) {
        let now = self.at(self.now);
        let answer = if source == TRACKER {
            let asker = Asker { ip: id.ip(), zone: self.nodes[id.index()].zone };
            match self.registry.peers(&INFOHASH, MAX_PEERS as u8, asker, now, &mut self.rng) {
                Ok(found) => Answer::Peers {
                    addresses: found.peers.iter().filter_map(|peer| peer.socket_addr(id.address())).collect(),
                    interval_s: Some(found.interval_s),
                },
                Err(_) => Answer::Unknown { settled: true },
            }
        } else {
            Answer::Peers { addresses: vec![NodeId::ORIGIN.address()], interval_s: None }
        };
        self.handle(id, SwarmEvent::Answered(source, answer));
    }

    pub(super) fn dial(&mut self, id: NodeId, key: PeerKey, address: SocketAddr) {
        let to = NodeId::at(address);
        let at = self.now + self.latency(id, to) * u64::from(DIAL_TRIPS);
        self.queue.push(at, Event::Dialled { from: id, key, to });
    }

    pub(super) fn dialled(&mut self, from: NodeId, key: PeerKey, to: NodeId) {
        if !self.nodes[from.index()].online {
            return;
        }
        match self.meet(from, key, to) {
            Ok(()) => self.work(to),
            Err(reason) => self.handle(from, SwarmEvent::Peer(key, PeerEvent::Closed(reason))),
        }
        self.work(from);
    }

    /// Connects the two, or returns why not.
    fn meet(&mut self, from: NodeId, key: PeerKey, to: NodeId) -> Result<(), LeaveReason> {
        if from == to {
            return Err(LeaveReason::Itself);
        }
        let other = self.node(to);
        if !other.online || !other.is_reachable {
            return Err(LeaveReason::Unreachable(Unreachable::Io(ErrorKind::ConnectionRefused)));
        }
        let far_key = match &mut other.core {
            Some(core) => core.accept(SocketAddr::new(from.ip(), FROM_PORT.get())),
            // A seeder gives nobody up for another, and has no name for anybody.
            None => (other.links.len() < other.max_peers).then_some(PeerKey(0)),
        };
        let far_key = far_key.ok_or(LeaveReason::Goodbye(NO_ROOM))?;
        let conn = ConnId(u32::try_from(self.conns.len()).expect("no more connections than a u32 counts"));
        self.conns.push(Conn {
            ends: [from, to],
            keys: [key, far_key],
            open: true,
            spoke: [self.now; 2],
            sent: [None; 2],
        });
        for (id, key, other) in [(from, key, to), (to, far_key, from)] {
            // What comes before is in the other's bitfield.
            let (latency, read) = (self.latency(from, to), self.logs[other.index()].len());
            let link = Neighbour { conn, id: other, key, latency, read };
            let node = self.node(id);
            node.links.push(link);
            node.conns.insert(key, conn);
            node.most_links = node.most_links.max(node.links.len());
        }
        for (id, key, other) in [(from, key, to), (to, far_key, from)] {
            let event = self.introduction(other);
            self.handle(id, SwarmEvent::Peer(key, event));
        }
        Ok(())
    }

    /// The `Hello` of a peer.
    fn introduction(&self, id: NodeId) -> PeerEvent {
        let node = &self.nodes[id.index()];
        let is_seeder = node.nature.has_everything() && node.nature != Nature::Liar;
        let (role, have) = if is_seeder {
            (Role::Seeder, Have::All)
        } else {
            (Role::Leecher, Have::Some(node.have.clone()))
        };
        let hello = Hello {
            infohash: INFOHASH,
            peer_id: peer_id(id),
            role,
            listen_port: PORT.get(),
            zone: node.zone,
        };
        PeerEvent::Active { hello, have }
    }

    /// Ends a connection on behalf of `by`. The other side receives the reason.
    pub(super) fn close(&mut self, conn: ConnId, by: NodeId, reason: &LeaveReason) {
        let Conn { ends: [one, other], keys, open, .. } = self.conns[conn.index()];
        if !open {
            return;
        }
        self.conns[conn.index()].open = false;
        self.network.close(conn, one, other, self.now, &mut self.queue);
        let is_no_room = matches!(reason, LeaveReason::Goodbye(GoodbyeReason::TooManyPeers { .. }));
        self.replaced += u64::from(is_no_room);
        for (id, key) in [(one, keys[0]), (other, keys[1])] {
            let node = self.node(id);
            node.links.retain(|link| link.conn != conn);
            node.conns.remove(&key);
            node.uploads.leave(AskerKey(conn.0.into()));
            let received = match reason {
                LeaveReason::Disconnected => LeaveReason::Disconnected,
                reason => LeaveReason::Goodbye(reason.goodbye()),
            };
            let closed = if id == by { LeaveReason::Finished } else { received };
            self.handle(id, SwarmEvent::Peer(key, PeerEvent::Closed(closed)));
            self.wake(id, self.now);
        }
    }
}

fn peer_id(id: NodeId) -> PeerId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&id.0.to_be_bytes());
    PeerId(bytes)
}

fn endpoint(host: &str) -> Endpoint {
    Endpoint { host: host.to_owned(), port: PORT.get() }
}
