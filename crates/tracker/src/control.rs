//! What an operator may change of a tracker while it runs.

use std::{sync::Arc, thread};

use crate::{admission::Admission, registry::Caps, worker::Shared};

/// Shares, or registrations to end, that are looked at under the lock at a time: less than 100 µs.
const STEP: usize = 128;

/// A tracker to change. Clones are the same tracker.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

impl Control {
    pub(crate) fn new(shared: Arc<Shared>) -> Control {
        Control { shared }
    }

    /// The limits now.
    pub fn caps(&self) -> Caps {
        self.shared.handler().caps()
    }

    /// Other limits from now on. Registrations beyond them stay, and can be renewed.
    pub fn set_caps(&self, caps: Caps) {
        self.shared.handler().set_caps(caps);
    }

    /// From now on, only these shares are allowed. Ends all registrations of others, and returns how many these were. It blocks, for about
    /// a second with a million shares. Requests are answered meanwhile.
    pub fn set_admission(&self, admission: Option<Admission>) -> u64 {
        let mut at = self.shared.handler().set_admission(admission.map(Arc::new));
        loop {
            let (is_done, journal) = {
                let mut handler = self.shared.handler();
                let (next, is_done) = handler.evict(at, STEP, STEP);
                at = next;
                self.shared.note_occupancy(&handler);
                (is_done, handler.take_journal())
            };
            journal.write();
            if is_done {
                return at.ended;
            }
            thread::yield_now();
        }
    }
}
