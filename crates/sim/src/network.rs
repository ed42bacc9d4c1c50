//! Flows over links that they share.
//!
//! A flow's rate is its share of the sender's uplink or of the receiver's downlink, whichever is less. What it leaves unused of the
//! other is not used, except that what throttled peers ([`THROTTLED`]) leave of a link is shared by the other flows. Flows have
//! equal shares, but a flow of a connection that was silent begins with a small part of its share of the uplink ([`Warmth`]): TCP
//! needs several round trips through the queue that the others fill. When a flow starts, grows or ends, those that share a link
//! with it are looked at again, and no others.

use proto::{CHUNK_LEN, ChunkIndex};

use crate::{
    names::{ConnId, FlowId, NodeId},
    queue::{Event, Queue},
    scenario::Link,
    time::{NEVER, Nanos},
};

/// A receiver learns of part of a chunk at this interval.
pub(crate) const PART_INTERVAL: Nanos = 250_000_000;

/// Bits a second: a link with less than this is throttled. How many of those there are matters to nobody else.
const THROTTLED: f64 = 1e6;

/// A link is shared in proportion to weights; this one is a whole share. A power of two, so that equal flows get exactly equal
/// parts.
const FULL: u32 = 32;

/// The weight with which a flow starts on a connection that was silent. It doubles until it is full: five times.
const START: u32 = 1;

/// Doublings from [`START`] to [`FULL`].
pub(crate) const GROWTHS: u32 = 5;

/// Whether a connection sent something a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Warmth {
    /// It did: its next flow has its share at once.
    Warm,
    /// It did not: the weight of its next flow doubles at this interval.
    Cold(Nanos),
}

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
    /// On the uplink.
    weight: u32,
    growth_interval: Nanos,
    /// When the event that looks at it next comes; never later than its end.
    looked_at: Nanos,
    /// Whether its receiver is going to learn of parts of it.
    is_slow: bool,
    /// Counts the flows that had this id.
    pub(crate) life: u32,
}

/// One direction of a node's link.
#[derive(Debug)]
struct Half {
    /// Bits a second.
    rate: f64,
    flows: Vec<FlowId>,
    /// The weight of those whose other end is not throttled, and how many the others are.
    weight: u32,
    throttled: u32,
}

/// The link of one node.
#[derive(Debug)]
struct Ends {
    up: Half,
    down: Half,
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

impl Half {
    fn new(rate: f64) -> Half {
        Half { rate, flows: Vec::new(), weight: 0, throttled: 0 }
    }

    fn is_throttled(&self) -> bool {
        self.rate < THROTTLED
    }

    /// What a flow gets of a link that is throttled.
    fn throttled_rate(&self) -> Option<f64> {
        self.is_throttled().then(|| self.rate / self.flows.len().max(1) as f64)
    }

    /// What a flow of this weight gets if throttled ones use so much.
    fn rate_of(&self, weight: u32, used: f64) -> f64 {
        (self.rate - used).max(0.0) * f64::from(weight) / f64::from(self.weight.max(1))
    }
}

impl Network {
    /// Adds the link of the next node.
    pub(crate) fn add(&mut self, link: Link) {
        let (up, down) = (Half::new(link.up), Half::new(link.down));
        self.ends.push(Ends { up, down, busy: 0, busy_since: 0 });
    }

    /// Starts to send a chunk of this many bits.
    pub(crate) fn start(
        &mut self,
        (conn, from, to): (ConnId, NodeId, NodeId),
        (chunk, bits): (ChunkIndex, f64),
        warmth: Warmth,
        now: Nanos,
        queue: &mut Queue,
    ) {
        let (weight, growth_interval) = match warmth {
            Warmth::Warm => (FULL, 0),
            Warmth::Cold(interval) => (START, interval),
        };
        let mut flow = Flow {
            conn,
            from,
            to,
            chunk,
            left: bits,
            rate: 0.0,
            at: now,
            weight,
            growth_interval,
            looked_at: NEVER,
            is_slow: false,
            life: 0,
        };
        let id = match self.free.pop() {
            Some(id) => {
                let old = &mut self.flows[id.index()];
                flow.life = old.life + 1;
                *old = flow;
                id
            }
            None => {
                self.flows.push(flow);
                FlowId(u32::try_from(self.flows.len() - 1).expect("fewer flows than a u32 counts"))
            }
        };
        if weight < FULL {
            queue.push(now + growth_interval, Event::FlowGrows(id, flow.life));
        }
        let sender = &mut self.ends[from.index()];
        if sender.up.flows.is_empty() {
            sender.busy_since = now;
        }
        sender.up.flows.push(id);
        self.ends[to.index()].down.flows.push(id);
        self.weigh(&flow, |weight, own| weight + own, |throttled| throttled + 1);
        self.share_out(from, to, now, queue);
    }

    /// Looks at a flow that may be over, and ends it if it is.
    pub(crate) fn done(&mut self, id: FlowId, life: u32, now: Nanos, queue: &mut Queue) -> Option<Flow> {
        let flow = &mut self.flows[id.index()];
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

    /// Gives more weight to a flow that has started slowly, if it still lasts.
    pub(crate) fn grow(&mut self, id: FlowId, life: u32, now: Nanos, queue: &mut Queue) {
        let flow = &mut self.flows[id.index()];
        if flow.life != life {
            return;
        }
        let old = *flow;
        flow.weight *= 2;
        if flow.weight < FULL {
            queue.push(now + flow.growth_interval, Event::FlowGrows(id, life));
        }
        if !self.ends[old.to.index()].down.is_throttled() {
            self.ends[old.from.index()].up.weight += old.weight;
        }
        self.share_out(old.from, old.to, now, queue);
    }

    /// Ends every flow of a connection.
    pub(crate) fn close(&mut self, conn: ConnId, one: NodeId, other: NodeId, now: Nanos, queue: &mut Queue) {
        for node in [one, other] {
            let of_conn = |id: &&FlowId| self.flows[id.index()].conn == conn;
            let flows: Vec<_> = self.ends[node.index()].up.flows.iter().filter(of_conn).copied().collect();
            flows.into_iter().for_each(|id| self.end(id, now, queue));
        }
    }

    /// Bytes of the chunk under way from a node on a connection that were sent so far.
    pub(crate) fn sent(&self, node: NodeId, conn: ConnId, now: Nanos) -> u32 {
        let mut flows = self.ends[node.index()].up.flows.iter().map(|id| &self.flows[id.index()]);
        flows.find(|flow| flow.conn == conn).map_or(0, |flow| flow.sent(now))
    }

    /// The flow of this id, if it still lasts.
    pub(crate) fn lasts(&self, id: FlowId, life: u32) -> Option<&Flow> {
        let flow = &self.flows[id.index()];
        (flow.life == life).then_some(flow)
    }

    /// For how long a node has sent something.
    pub(crate) fn busy(&self, node: NodeId, now: Nanos) -> Nanos {
        let ends = &self.ends[node.index()];
        ends.busy + if ends.up.flows.is_empty() { 0 } else { now - ends.busy_since }
    }

    fn end(&mut self, id: FlowId, now: Nanos, queue: &mut Queue) {
        let flow = self.flows[id.index()];
        self.flows[id.index()].life += 1;
        let Flow { from, to, .. } = flow;
        let sender = &mut self.ends[from.index()];
        sender.up.flows.retain(|&other| other != id);
        if sender.up.flows.is_empty() {
            sender.busy += now - sender.busy_since;
        }
        self.ends[to.index()].down.flows.retain(|&other| other != id);
        self.free.push(id);
        self.weigh(&flow, |weight, own| weight - own, |throttled| throttled - 1);
        self.share_out(from, to, now, queue);
    }

    /// Counts a flow at both ends.
    fn weigh(&mut self, flow: &Flow, weight: impl Fn(u32, u32) -> u32, throttled: impl Fn(u32) -> u32) {
        let is_up_throttled = self.ends[flow.from.index()].up.is_throttled();
        let is_down_throttled = self.ends[flow.to.index()].down.is_throttled();
        let up = &mut self.ends[flow.from.index()].up;
        if is_down_throttled {
            up.throttled = throttled(up.throttled);
        } else {
            up.weight = weight(up.weight, flow.weight);
        }
        let down = &mut self.ends[flow.to.index()].down;
        if is_up_throttled {
            down.throttled = throttled(down.throttled);
        } else {
            down.weight = weight(down.weight, FULL);
        }
    }

    /// What flows with throttled receivers use of an uplink.
    fn used_of_uplink(&self, sender: NodeId) -> f64 {
        let up = &self.ends[sender.index()].up;
        if up.throttled == 0 {
            return 0.0;
        }
        let far_ends = up.flows.iter().map(|id| &self.ends[self.flows[id.index()].to.index()].down);
        far_ends.filter_map(Half::throttled_rate).sum()
    }

    /// What flows with throttled senders use of a downlink.
    fn used_of_downlink(&self, receiver: NodeId) -> f64 {
        let down = &self.ends[receiver.index()].down;
        if down.throttled == 0 {
            return 0.0;
        }
        let far_ends = down.flows.iter().map(|id| &self.ends[self.flows[id.index()].from.index()].up);
        far_ends.filter_map(Half::throttled_rate).sum()
    }

    fn share_out(&mut self, from: NodeId, to: NodeId, now: Nanos, queue: &mut Queue) {
        let used = self.used_of_uplink(from);
        for at in 0..self.ends[from.index()].up.flows.len() {
            let id = self.ends[from.index()].up.flows[at];
            let used_there = self.used_of_downlink(self.flows[id.index()].to);
            self.adapt(id, (used, used_there), now, queue);
        }
        let used = self.used_of_downlink(to);
        for at in 0..self.ends[to.index()].down.flows.len() {
            let id = self.ends[to.index()].down.flows[at];
            let used_there = self.used_of_uplink(self.flows[id.index()].from);
            self.adapt(id, (used_there, used), now, queue);
        }
    }

    /// Gives a flow the rate that it has by now, if others use so much of the uplink and of the downlink.
    fn adapt(&mut self, id: FlowId, (used_up, used_down): (f64, f64), now: Nanos, queue: &mut Queue) {
        let flow = &mut self.flows[id.index()];
        let (up, down) = (&self.ends[flow.from.index()].up, &self.ends[flow.to.index()].down);
        let throttled = [up.throttled_rate(), down.throttled_rate()];
        let rate = throttled
            .into_iter()
            .flatten()
            .reduce(f64::min)
            .unwrap_or_else(|| up.rate_of(flow.weight, used_up).min(down.rate_of(FULL, used_down)));
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
