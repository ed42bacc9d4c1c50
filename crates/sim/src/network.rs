//! Flows over links that they share.
//!
//! Rates are max-min fair, as those of TCP flows are nearly: the flows of a link that could use more than an equal share of it have
//! equal rates there, and what a flow cannot use because of its other end goes to the others. A flow of a connection that was
//! silent counts for less on the uplink at first ([`Warmth`]), because TCP needs several round trips through the queue that the
//! others fill. When a flow starts, grows or ends, the links at its two ends are shared out anew. Another link follows at once if it
//! would carry more than it can, and else when one of its own flows starts or ends: TCP needs some time for this too.

use proto::ChunkIndex;

use crate::{
    names::{ConnId, FlowId, NodeId},
    queue::{Event, Queue},
    scenario::Link,
    time::{NEVER, Nanos},
};

/// A receiver learns of part of a chunk at this interval.
pub(crate) const PART_INTERVAL: Nanos = 250_000_000;

/// Rates that differ by less than this part count as equal.
const TOLERANCE: f64 = 0.001;

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
    /// Its length in bytes.
    pub(crate) len: u32,
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
    /// Bits a second that it can carry.
    rate: f64,
    flows: Vec<FlowId>,
    /// Bits a second that it carries.
    used: f64,
    /// Bits a second for a flow of full weight that could use more.
    level: f64,
}

/// A direction of a node's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
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
        self.len.saturating_sub(left)
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
        Half { rate, flows: Vec::new(), used: 0.0, level: rate }
    }
}

impl Ends {
    fn half(&self, direction: Direction) -> &Half {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    fn half_mut(&mut self, direction: Direction) -> &mut Half {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

impl Network {
    /// Adds the link of the next node.
    pub(crate) fn add(&mut self, link: Link) {
        let (up, down) = (Half::new(link.up), Half::new(link.down));
        self.ends.push(Ends { up, down, busy: 0, busy_since: 0 });
    }

    /// Starts to send a chunk of this many bytes.
    pub(crate) fn start(
        &mut self,
        (conn, from, to): (ConnId, NodeId, NodeId),
        (chunk, len): (ChunkIndex, u32),
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
            len,
            left: f64::from(len) * 8.0,
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
        flow.weight *= 2;
        let Flow { from, to, weight, growth_interval, .. } = *flow;
        if weight < FULL {
            queue.push(now + growth_interval, Event::FlowGrows(id, life));
        }
        self.share_out(from, to, now, queue);
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
        let Flow { from, to, rate, .. } = flow;
        self.ends[from.index()].up.used -= rate;
        self.ends[to.index()].down.used -= rate;
        let sender = &mut self.ends[from.index()];
        sender.up.flows.retain(|&other| other != id);
        if sender.up.flows.is_empty() {
            sender.busy += now - sender.busy_since;
        }
        self.ends[to.index()].down.flows.retain(|&other| other != id);
        self.free.push(id);
        self.share_out(from, to, now, queue);
    }

    /// Shares out an uplink and a downlink.
    fn share_out(&mut self, from: NodeId, to: NodeId, now: Nanos, queue: &mut Queue) {
        for (node, direction) in [(from, Direction::Up), (to, Direction::Down)] {
            self.set_level(node, direction);
            for at in 0..self.ends[node.index()].half(direction).flows.len() {
                let id = self.ends[node.index()].half(direction).flows[at];
                let grows = self.adapt(id, now, queue);
                let Flow { from, to, .. } = self.flows[id.index()];
                let (far, other) = match direction {
                    Direction::Up => (to, Direction::Down),
                    Direction::Down => (from, Direction::Up),
                };
                let half = self.ends[far.index()].half(other);
                if grows && half.used > half.rate * (1.0 + TOLERANCE) {
                    // Its flows become slower, so no further link can carry too much because of it.
                    self.set_level(far, other);
                    for at in 0..self.ends[far.index()].half(other).flows.len() {
                        self.adapt(self.ends[far.index()].half(other).flows[at], now, queue);
                    }
                }
            }
        }
    }

    /// Finds the level at which the flows of a link fill it, if each is as fast there as its other end allows.
    fn set_level(&mut self, node: NodeId, direction: Direction) {
        let half = self.ends[node.index()].half(direction);
        // The weight on this link, and the most that the flow can be because of its other end.
        let limits = || {
            half.flows.iter().map(|id| {
                let flow = &self.flows[id.index()];
                let weight = f64::from(flow.weight) / f64::from(FULL);
                match direction {
                    Direction::Up => (weight, self.ends[flow.to.index()].down.level),
                    Direction::Down => (1.0, self.ends[flow.from.index()].up.level * weight),
                }
            })
        };
        let mut level = 0.0;
        loop {
            let (mut left, mut weights) = (half.rate, 0.0);
            for (weight, limit) in limits() {
                if limit <= level * weight { left -= limit } else { weights += weight }
            }
            let next = if weights > 0.0 { left / weights } else { half.rate };
            // It only rises, because each flow that cannot use it leaves more to the others.
            if weights == 0.0 || next <= level * (1.0 + TOLERANCE) {
                level = next.max(level);
                break;
            }
            level = next;
        }
        self.ends[node.index()].half_mut(direction).level = level;
    }

    /// Gives a flow the rate that it has by now. Returns whether it becomes faster.
    fn adapt(&mut self, id: FlowId, now: Nanos, queue: &mut Queue) -> bool {
        let flow = &mut self.flows[id.index()];
        let (from, to) = (flow.from.index(), flow.to.index());
        let weight = f64::from(flow.weight) / f64::from(FULL);
        let rate = (self.ends[from].up.level * weight).min(self.ends[to].down.level);
        if (rate - flow.rate).abs() <= flow.rate * TOLERANCE {
            return false;
        }
        self.ends[from].up.used += rate - flow.rate;
        self.ends[to].down.used += rate - flow.rate;
        let grows = rate > flow.rate;
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
        grows
    }
}
