//! Flows over links that they share.
//!
//! A flow's rate is its fair share of the sender's uplink or of the receiver's downlink, whichever is less; what
//! it leaves unused of the other is nobody's, except that what throttled peers ([`THROTTLED`]) leave of a link is shared by
//! the other flows. When a flow starts or ends, those that it shared a link with are
//! looked at again, and no others.

use std::collections::BTreeMap;

use proto::{CHUNK_LEN, ChunkIndex};

use crate::{
    node::{ConnId, NodeId},
    queue::{Event, NEVER, Nanos, Queue},
    scenario::Link,
};

/// A receiver hears of part of a chunk at this interval.
pub(crate) const PART_INTERVAL: Nanos = 250_000_000;

/// Bits a second: a link with less than this is throttled. It matters to nobody else how many of those there are.
const THROTTLED: f64 = 1e6;

/// Names a flow as long as it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlowId(pub(crate) u32);

/// A chunk on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) conn: ConnId,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) chunk: ChunkIndex,
    /// Bits that were not sent at `at`.
    left: f64,
    /// Bits a second since then.
    rate: f64,
    at: Nanos,
    /// When the event that looks at it next comes; never later than its end.
    looked_at: Nanos,
    /// Whether its receiver is going to hear of parts of it.
    is_slow: bool,
    /// Counts the flows that had this id.
    pub(crate) life: u32,
}

/// The flows of one node.
#[derive(Debug)]
struct Ends {
    link: Link,
    up: Vec<FlowId>,
    down: Vec<FlowId>,
    /// For how long something was sent, and since when something is.
    busy: Nanos,
    busy_since: Nanos,
}

/// Every link and flow.
#[derive(Debug, Default)]
pub(crate) struct Network {
    ends: Vec<Ends>,
    flows: Vec<Flow>,
    free: Vec<FlowId>,
}

impl Flow {
    /// Bytes that were sent so far.
    pub(crate) fn sent(&self, now: Nanos) -> u32 {
        let left = (self.left - self.rate * (now - self.at) as f64 / 1e9).max(0.0) / 8.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a chunk")]
        let left = left.ceil() as u32;
        CHUNK_LEN.saturating_sub(left)
    }

    /// When it is over, if its rate stays as it is.
    fn end(&self) -> Nanos {
        let takes = (self.left.max(0.0) / self.rate * 1e9).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; a flow that stands still never ends"
        )]
        let takes = takes as Nanos;
        self.at.saturating_add(takes)
    }
}

impl Network {
    /// Adds the link of the next node.
    pub(crate) fn add(&mut self, link: Link) {
        self.ends.push(Ends { link, up: Vec::new(), down: Vec::new(), busy: 0, busy_since: 0 });
    }

    /// Starts to send a chunk of so many bits.
    pub(crate) fn start(
        &mut self,
        (conn, from, to): (ConnId, NodeId, NodeId),
        chunk: ChunkIndex,
        bits: f64,
        now: Nanos,
        queue: &mut Queue,
    ) {
        let flow = Flow {
            conn,
            from,
            to,
            chunk,
            left: bits,
            rate: 0.0,
            at: now,
            looked_at: NEVER,
            is_slow: false,
            life: 0,
        };
        let id = match self.free.pop() {
            Some(id) => {
                let old = &mut self.flows[id.0 as usize];
                *old = Flow { life: old.life + 1, ..flow };
                id
            }
            None => {
                self.flows.push(flow);
                FlowId(self.flows.len() as u32 - 1)
            }
        };
        let sender = &mut self.ends[from.index()];
        if sender.up.is_empty() {
            sender.busy_since = now;
        }
        sender.up.push(id);
        self.ends[to.index()].down.push(id);
        self.share_out(from, to, now, queue);
    }

    /// Looks at a flow that may be over, and ends it if it is.
    pub(crate) fn done(&mut self, id: FlowId, life: u32, now: Nanos, queue: &mut Queue) -> Option<Flow> {
        let flow = &mut self.flows[id.0 as usize];
        if flow.life != life || flow.looked_at != now {
            return None;
        }
        let end = flow.end();
        if end > now {
            flow.looked_at = end;
            queue.push(end, Event::FlowDone(id, life));
            return None;
        }
        let flow = *flow;
        self.end(id, now, queue);
        Some(flow)
    }

    /// Ends every flow of a connection.
    pub(crate) fn close(&mut self, conn: ConnId, one: NodeId, other: NodeId, now: Nanos, queue: &mut Queue) {
        for node in [one, other] {
            let of_conn = |id: &&FlowId| self.flows[id.0 as usize].conn == conn;
            let flows: Vec<_> = self.ends[node.index()].up.iter().filter(of_conn).copied().collect();
            flows.into_iter().for_each(|id| self.end(id, now, queue));
        }
    }

    /// Bytes of each chunk under way from a node that were sent so far.
    pub(crate) fn sent(&self, node: NodeId, now: Nanos) -> BTreeMap<ConnId, u32> {
        let flows = self.ends[node.index()].up.iter().map(|id| &self.flows[id.0 as usize]);
        flows.map(|flow| (flow.conn, flow.sent(now))).collect()
    }

    /// The flow of this id, if it still lasts.
    pub(crate) fn lasts(&self, id: FlowId, life: u32) -> Option<&Flow> {
        let flow = &self.flows[id.0 as usize];
        (flow.life == life).then_some(flow)
    }

    /// For how long a node has sent something.
    pub(crate) fn busy(&self, node: NodeId, now: Nanos) -> Nanos {
        let ends = &self.ends[node.index()];
        ends.busy + if ends.up.is_empty() { 0 } else { now - ends.busy_since }
    }

    fn end(&mut self, id: FlowId, now: Nanos, queue: &mut Queue) {
        let flow = &mut self.flows[id.0 as usize];
        flow.life += 1;
        let (from, to) = (flow.from, flow.to);
        let sender = &mut self.ends[from.index()];
        sender.up.retain(|&other| other != id);
        if sender.up.is_empty() {
            sender.busy += now - sender.busy_since;
        }
        self.ends[to.index()].down.retain(|&other| other != id);
        self.free.push(id);
        self.share_out(from, to, now, queue);
    }

    /// What each flow of a sender gets of the uplink, if its other end is not throttled.
    fn uplink_share(&self, sender: NodeId) -> f64 {
        let ends = &self.ends[sender.index()];
        let far_ends = ends.up.iter().map(|id| &self.ends[self.flows[id.0 as usize].to.index()]);
        share(ends.link.up, far_ends.map(|far| throttled_rate(far.link.down, far.down.len())))
    }

    /// What each flow to a receiver gets of the downlink, if its other end is not throttled.
    fn downlink_share(&self, receiver: NodeId) -> f64 {
        let ends = &self.ends[receiver.index()];
        let far_ends = ends.down.iter().map(|id| &self.ends[self.flows[id.0 as usize].from.index()]);
        share(ends.link.down, far_ends.map(|far| throttled_rate(far.link.up, far.up.len())))
    }

    fn share_out(&mut self, from: NodeId, to: NodeId, now: Nanos, queue: &mut Queue) {
        let of_uplink = self.uplink_share(from);
        for at in 0..self.ends[from.index()].up.len() {
            let id = self.ends[from.index()].up[at];
            let of_downlink = self.downlink_share(self.flows[id.0 as usize].to);
            self.adapt(id, of_uplink.min(of_downlink), now, queue);
        }
        let of_downlink = self.downlink_share(to);
        for at in 0..self.ends[to.index()].down.len() {
            let id = self.ends[to.index()].down[at];
            let of_uplink = self.uplink_share(self.flows[id.0 as usize].from);
            self.adapt(id, of_uplink.min(of_downlink), now, queue);
        }
    }

    /// Gives a flow the rate that it has by now: this one, or less if one of its ends is throttled.
    fn adapt(&mut self, id: FlowId, rate: f64, now: Nanos, queue: &mut Queue) {
        let flow = &mut self.flows[id.0 as usize];
        let (sender, receiver) = (&self.ends[flow.from.index()], &self.ends[flow.to.index()]);
        let throttled = [
            throttled_rate(sender.link.up, sender.up.len()),
            throttled_rate(receiver.link.down, receiver.down.len()),
        ];
        let rate = throttled.into_iter().flatten().reduce(f64::min).unwrap_or(rate);
        #[expect(clippy::float_cmp, reason = "the same division gives the same result")]
        if rate == flow.rate {
            return;
        }
        flow.left -= flow.rate * (now - flow.at) as f64 / 1e9;
        (flow.rate, flow.at) = (rate, now);
        let end = flow.end();
        // An end that comes later than it seemed is found out when the flow is looked at.
        if end < flow.looked_at {
            flow.looked_at = end;
            queue.push(end, Event::FlowDone(id, flow.life));
        }
        if !flow.is_slow && end > now + PART_INTERVAL {
            flow.is_slow = true;
            queue.push(now + PART_INTERVAL, Event::FlowLasts(id, flow.life));
        }
    }
}

/// What a flow gets of a link that is throttled.
fn throttled_rate(link: f64, flows: usize) -> Option<f64> {
    (link < THROTTLED).then(|| link / flows.max(1) as f64)
}

/// What each flow gets of a link, if flows with throttled far ends take these rates.
fn share(link: f64, throttled: impl Iterator<Item = Option<f64>>) -> f64 {
    let (mut others, mut used) = (0_usize, 0.0);
    for rate in throttled {
        match rate {
            Some(rate) => used += rate,
            None => others += 1,
        }
    }
    (link - used).max(0.0) / others.max(1) as f64
}
