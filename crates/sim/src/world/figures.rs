//! What is written down of a run.

use std::collections::BTreeMap;

use proto::Zone;

use super::World;
use crate::{Report, node::Node, queue::Event, time::Nanos};

impl World<'_> {
    /// Adds an event to the digest (FNV-1a over words).
    pub(super) fn witness(&mut self, at: Nanos, event: Event) {
        self.events += 1;
        let (kind, one, other) = match event {
            Event::Arrive(id) => (1, id.0, 0),
            Event::Wake(id) => (2, id.0, 0),
            Event::FlowDone(flow, life) => (4, flow.0, life),
            Event::FlowLasts(flow, life) => (5, flow.0, life),
            Event::Dialled { from, to, .. } => (6, from.0, to.0),
            Event::Announce(id) => (7, id.0, 0),
            Event::KeepAlive(id) => (9, id.0, 0),
            Event::Leave(id) => (10, id.0, 0),
            Event::FlowGrows(flow, life) => (12, flow.0, life),
        };
        for word in [at, kind, one.into(), other.into(), self.messages, self.haves] {
            self.digest = (self.digest ^ word).wrapping_mul(0x100_0000_01b3);
        }
    }

    pub(super) fn report(&self, seed: u64) -> Report {
        let leechers = &self.nodes[1..];
        let wanting: Vec<_> = leechers.iter().filter(|node| node.nature.is_waited_for()).collect();
        let took = |node: &&&Node| node.finished.map(|at| (at - node.arrived) as f64 / 1e9);
        let mut durations: Vec<_> = wanting.iter().filter_map(|node| took(&node)).collect();
        durations.sort_by(f64::total_cmp);
        let sum = |of: fn(&Node) -> u64| leechers.iter().map(of).sum::<u64>() as f64;
        let received = sum(|node| node.received).max(1.0);
        let mut crossed: BTreeMap<Zone, u64> = BTreeMap::new();
        leechers.iter().for_each(|node| *crossed.entry(node.zone).or_default() += node.crossed);
        let crossed = crossed.into_iter().filter(|(zone, _)| !zone.is_none()).map(|(_, bytes)| bytes).max();
        let last = self.last_finish;
        let present: f64 = leechers.iter().map(|node| last.saturating_sub(node.arrived) as f64).sum();
        let busy: f64 = leechers.iter().map(|node| self.network.busy(node.id, self.now) as f64).sum();
        Report {
            digest: self.digest,
            events: self.events,
            wanting: wanting.len(),
            finished: durations.len(),
            durations,
            last: last as f64 / 1e9,
            first_copy: self.first_copy as f64 / self.space.total_len() as f64,
            origin_left: !self.nodes[0].online,
            origin_copies: self.nodes[0].sent as f64 / self.space.total_len() as f64,
            crossed: crossed.unwrap_or(0) as f64 / self.space.total_len() as f64,
            duplicates: sum(|node| node.duplicate) / received,
            wrong: sum(|node| node.wrong) / received,
            uplink_use: busy / present.max(1.0),
            dropped: self.dropped,
            replaced: self.replaced,
            most_links: leechers.iter().map(|node| node.most_links).max().unwrap_or(0),
            messages: self.messages,
            haves: self.haves,
            ..Report::new(self.scenario, seed)
        }
    }
}
