//! What happens when: events in order of time, and in order of being scheduled at the same time.

use std::{cmp::Reverse, collections::BinaryHeap};

use swarm::scheduler::PeerKey;

use crate::{network::FlowId, node::NodeId};

/// Nanoseconds since the simulation began.
pub(crate) type Nanos = u64;

/// No time at all.
pub(crate) const NEVER: Nanos = Nanos::MAX;

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A peer starts.
    Arrive(NodeId),
    /// Messages have reached a peer.
    Inbox(NodeId),
    /// A peer wanted to be called again at this time.
    Wake(NodeId),
    /// The last byte of a flow may have been sent.
    FlowDone(FlowId, u32),
    /// A flow has lasted for a while.
    FlowLasts(FlowId, u32),
    /// A dial has led to something.
    Dialled { from: NodeId, key: PeerKey, to: NodeId },
    /// A heartbeat for the tracker is due.
    Announce(NodeId),
    /// A peer leaves.
    Leave(NodeId),
    /// A peer tells those who wait that it is still here.
    KeepAlive(NodeId),
}

/// Events that have not happened yet.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    scheduled: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: Nanos, event: Event) {
        self.scheduled += 1;
        self.heap.push(Reverse((at, self.scheduled, event)));
    }

    pub(crate) fn pop(&mut self) -> Option<(Nanos, Event)> {
        self.heap.pop().map(|Reverse((at, _, event))| (at, event))
    }
}
