//! Events in the order in which they happen: by time, and at one time as they were scheduled.

use std::{cmp::Reverse, collections::BinaryHeap};

use swarm::scheduler::PeerKey;

use crate::{
    names::{FlowId, NodeId},
    time::Nanos,
};

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A peer starts.
    Arrive(NodeId),
    /// A peer has something to do: messages to read, or a timer that is due.
    Wake(NodeId),
    /// The last byte of a flow may have been sent.
    FlowDone(FlowId, u32),
    /// A flow has lasted for a while.
    FlowLasts(FlowId, u32),
    /// A flow that has started slowly becomes faster.
    FlowGrows(FlowId, u32),
    /// A dial has led to something.
    Dialled { from: NodeId, key: PeerKey, to: NodeId },
    /// A heartbeat for the tracker is due.
    Announce(NodeId),
    /// A peer leaves.
    Leave(NodeId),
    /// A peer lets those whose requests wait know that it is alive.
    KeepAlive(NodeId),
}

/// When an event happens, its place in the order of scheduling, and the event.
type Scheduled = (Nanos, u64, Event);

/// Events that have not happened yet.
///
/// Time is cut into slots of [`SLOT`]. Events of the present slot are in a heap, which stays small. Those of the next [`SLOTS`] slots
/// are in a list for each slot, unordered, and those that come later in another heap.
#[derive(Debug)]
pub(crate) struct Queue {
    present: BinaryHeap<Reverse<Scheduled>>,
    /// The list of slot `n` is at `n % SLOTS`.
    next: Vec<Vec<Scheduled>>,
    later: BinaryHeap<Reverse<Scheduled>>,
    /// The present slot.
    slot: u64,
    /// Events in `next`.
    waiting: usize,
    scheduled: u64,
}

/// The length of a slot: about a quarter of a millisecond, in which some hundred events happen among ten thousand peers.
const SLOT: Nanos = 1 << 18;

/// Slots with a list of their own: two seconds of them, so that only heartbeats and events of slow peers come later.
const SLOTS: u64 = 1 << 13;

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            present: BinaryHeap::new(),
            next: (0..SLOTS).map(|_| Vec::new()).collect(),
            later: BinaryHeap::new(),
            slot: 0,
            waiting: 0,
            scheduled: 0,
        }
    }
}

impl Queue {
    /// Schedules an event. Nothing is scheduled for a time before the event that happened last.
    pub(crate) fn push(&mut self, at: Nanos, event: Event) {
        self.scheduled += 1;
        let scheduled = (at, self.scheduled, event);
        let slot = at / SLOT;
        if slot <= self.slot {
            self.present.push(Reverse(scheduled));
        } else if slot < self.slot + SLOTS {
            self.next[place(slot)].push(scheduled);
            self.waiting += 1;
        } else {
            self.later.push(Reverse(scheduled));
        }
    }

    /// The next event and its time.
    pub(crate) fn pop(&mut self) -> Option<(Nanos, Event)> {
        while self.present.is_empty() {
            self.advance()?;
        }
        self.present.pop().map(|Reverse((at, _, event))| (at, event))
    }

    /// Goes to the next slot in which something may happen; `None` if nothing is left.
    fn advance(&mut self) -> Option<()> {
        let later = self.later.peek().map(|Reverse((at, ..))| at / SLOT);
        self.slot = if self.waiting > 0 { self.slot + 1 } else { later? };
        let list = &mut self.next[place(self.slot)];
        self.waiting -= list.len();
        self.present.extend(list.drain(..).map(Reverse));
        while let Some(Reverse((at, ..))) = self.later.peek()
            && at / SLOT <= self.slot
        {
            self.present.extend(self.later.pop());
        }
        Some(())
    }
}

/// Where the list of a slot is.
fn place(slot: u64) -> usize {
    usize::try_from(slot % SLOTS).expect("the number of slots is small")
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn events_come_in_order_of_time_and_then_as_they_were_scheduled() {
        let mut rng = StdRng::seed_from_u64(1);
        let (mut queue, mut expected, mut now) = (Queue::default(), Vec::new(), 0);
        for number in 0..20_000 {
            let delay = match rng.random_range(0..4) {
                0 => 0,
                1 => rng.random_range(0..SLOT),
                2 => rng.random_range(0..SLOT * SLOTS),
                _ => rng.random_range(0..4 * SLOT * SLOTS),
            };
            let event = Event::Wake(NodeId(number));
            queue.push(now + delay, event);
            expected.push((now + delay, event));
            if rng.random() {
                // What happens comes from the front of what is expected, and time goes on to it.
                expected.sort_by_key(|&(at, _)| at);
                let next = expected.remove(0);
                assert_eq!(queue.pop(), Some(next));
                now = next.0;
            }
        }
        expected.sort_by_key(|&(at, _)| at);
        assert!(expected.into_iter().all(|next| queue.pop() == Some(next)));
        assert_eq!(queue.pop(), None);
    }
}
