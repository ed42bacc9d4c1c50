//! Coming, going, and finding each other.

use std::time::Duration;

use proto::{
    PeerId, Secret, ShareName,
    tracker::{Announce, Event as AnnounceEvent, Progress, Token, message::MAX_PEERS},
};
use rand::RngExt;
use swarm::{
    peer_book::{Admission, Ending},
    scheduler::Have,
    uploads::AskerKey,
};

use super::{
    Conn, DIAL_TRIPS, HUNGRY_INTERVAL, INFOHASH, KEEP_ALIVE, LOOKUP_INTERVAL, REST, RETRY_AFTER, World, ends,
    nanos, peer_key,
};
use crate::{
    node::{ConnId, NodeId, PORT},
    queue::Event,
    scenario::Nature,
};

impl World<'_> {
    pub(super) fn arrive(&mut self, id: NodeId) {
        let now = self.now;
        let node = self.node(id);
        (node.online, node.arrived) = (true, now);
        self.announce(id, AnnounceEvent::Started);
        let heartbeat = self.rng.random_range(28.0..30.0);
        self.queue.push(now + nanos(Duration::from_secs_f64(heartbeat)), Event::Announce(id));
        self.queue.push(now + nanos(KEEP_ALIVE), Event::KeepAlive(id));
        if id != NodeId::ORIGIN {
            if self.scenario.names_origin {
                let now = self.at(now);
                self.node(id).book.discover(NodeId::ORIGIN.address(), now);
            }
            self.lookup(id);
        }
    }

    pub(super) fn leave(&mut self, id: NodeId, announces: bool) {
        self.node(id).online = false;
        for conn in self.node(id).links.clone() {
            self.close(conn, id, Ending::Failed);
        }
        if announces {
            self.announce(id, AnnounceEvent::Stopped);
        }
    }

    /// Leaves when what was sent has arrived.
    pub(super) fn leave_soon(&mut self, id: NodeId) {
        let at = self.now + 2 * self.latency + nanos(self.scenario.reading_interval);
        self.queue.push(at, Event::Leave(id));
    }

    pub(super) fn announce(&mut self, id: NodeId, event: AnnounceEvent) {
        let now = self.at(self.now);
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&id.0.to_be_bytes());
        let announce = Announce {
            token: Token([0; 16]),
            infohash: INFOHASH,
            peer_id: PeerId(bytes),
            secret: Secret(bytes),
            port: PORT,
            name: ShareName::new("simulated").expect("a legal name"),
            size: self.space.total_len(),
            event,
            progress: Progress::of(self.nodes[id.index()].have.count(), self.space.chunk_count()),
        };
        self.registry.announce(&announce, id.ip(), now).expect("a registry that is not full");
    }

    pub(super) fn lookup(&mut self, id: NodeId) {
        if !self.nodes[id.index()].online || self.nodes[id.index()].is_done() {
            return;
        }
        let now = self.at(self.now);
        let found = self.registry.peers(&INFOHASH, MAX_PEERS as u8, id.ip(), now, &mut self.rng);
        for peer in found.into_iter().flat_map(|found| found.peers) {
            if let Some(address) = peer.socket_addr(id.address()) {
                self.node(id).book.discover(address, now);
            }
        }
        let wait = if self.nodes[id.index()].links.is_empty() { HUNGRY_INTERVAL } else { LOOKUP_INTERVAL };
        let wait = wait.mul_f64(self.rng.random_range(0.9..1.1));
        self.queue.push(self.now + nanos(wait), Event::Lookup(id));
        self.work(id);
    }

    pub(super) fn dial(&mut self, id: NodeId) {
        let now = self.at(self.now);
        while let Some(address) = self.nodes[id.index()].book.next_dial(now, &mut self.rng) {
            let trips = self.latency * u64::from(DIAL_TRIPS);
            self.queue.push(self.now + trips, Event::Dialled { from: id, to: NodeId::at(address) });
        }
    }

    pub(super) fn dialled(&mut self, from: NodeId, to: NodeId) {
        let ending = self.meet(from, to).err();
        match ending {
            Some(ending) => self.end_in_book(from, to, ending),
            None => {
                let now = self.at(self.now);
                self.node(from).book.connected(to.address(), now);
            }
        }
        self.work(from);
        if ending.is_none() {
            self.work(to);
        }
    }

    /// Connects the two, or says why not.
    pub(super) fn meet(&mut self, from: NodeId, to: NodeId) -> Result<(), Ending> {
        if from == to {
            return Err(Ending::Never);
        }
        let (one, other) = (&self.nodes[from.index()], &self.nodes[to.index()]);
        if !one.online || !other.online {
            return Err(Ending::Failed);
        }
        if self.links.contains_key(&ends(from, to)) {
            return Err(Ending::Duplicate);
        }
        if one.is_done() && other.is_done() {
            return Err(Ending::RetryAfter(REST));
        }
        if one.links.len() >= one.max_peers {
            return Err(Ending::RetryAfter(RETRY_AFTER));
        }
        // The origin is a chunk server, which gives nobody up for another.
        let full = to == NodeId::ORIGIN && other.links.len() >= other.max_peers;
        let now = self.at(self.now);
        let admission = if full {
            Admission::Full
        } else {
            self.nodes[to.index()].book.admit(from.address(), now, &mut self.rng)
        };
        match admission {
            Admission::Welcome => {}
            Admission::Replaces(gone) => {
                self.replaced += 1;
                if let Some(&conn) = self.links.get(&ends(to, NodeId::at(gone))) {
                    self.close(conn, to, Ending::RetryAfter(REST));
                }
            }
            Admission::Duplicate => return Err(Ending::Duplicate),
            Admission::Banned => return Err(Ending::RetryAfter(REST)),
            Admission::Full => return Err(Ending::RetryAfter(RETRY_AFTER)),
        }
        let conn = ConnId(u32::try_from(self.conns.len()).expect("no more connections than a u32 counts"));
        self.conns.push(Conn { ends: [from, to], open: true, spoke: [self.now; 2] });
        self.links.insert(ends(from, to), conn);
        for (id, other) in [(from, to), (to, from)] {
            let other = &self.nodes[other.index()];
            let have = if other.have.is_full() && other.nature != Nature::Liar {
                Have::All
            } else {
                Have::Some(other.have.clone())
            };
            let now = self.at(self.now);
            let node = self.node(id);
            node.links.push(conn);
            node.most_links = node.most_links.max(node.links.len());
            if let Some(scheduler) = &mut node.scheduler
                && node.finished.is_none()
            {
                scheduler.add_peer(peer_key(conn), have, now);
            }
        }
        Ok(())
    }

    /// Ends a connection. `ending` is how `by` sees it; the other side finds it broken.
    pub(super) fn close(&mut self, conn: ConnId, by: NodeId, ending: Ending) {
        let Conn { ends: [one, other], open, .. } = self.conns[conn.0 as usize];
        if !open {
            return;
        }
        self.conns[conn.0 as usize].open = false;
        self.links.remove(&ends(one, other));
        self.network.close(conn, one, other, self.now, &mut self.queue);
        for (id, far) in [(one, other), (other, one)] {
            let now = self.at(self.now);
            let node = self.node(id);
            node.links.retain(|&link| link != conn);
            node.uploads.leave(AskerKey(conn.0.into()));
            if let Some(scheduler) = &mut node.scheduler {
                scheduler.remove_peer(peer_key(conn), now);
            }
            let far_ending = if matches!(ending, Ending::RetryAfter(_)) { ending } else { Ending::Failed };
            self.end_in_book(id, far, if id == by { ending } else { far_ending });
            self.wake(id, self.now);
        }
    }

    pub(super) fn end_in_book(&mut self, id: NodeId, far: NodeId, ending: Ending) {
        let now = self.at(self.now);
        self.nodes[id.index()].book.ended(far.address(), ending, now, &mut self.rng);
    }
}
