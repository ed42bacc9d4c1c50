//! What several threads share in Shoal, run in many orders.
//!
//! The modules of Shoal that hold a lock and wake a task are compiled here as they are, but with the locks, signals and semaphores of
//! [Shuttle](https://docs.rs/shuttle). Shuttle runs a scenario thousands of times on one thread. At each lock it chooses which task goes
//! on, so it finds orders that a processor takes once in a million. A task that is never woken shows as a deadlock. The order of a
//! failure is printed, and `shuttle::replay` repeats it.
//!
//! Each scenario's text says what it would catch. The tests are in `tests/orders.rs`.

#![expect(dead_code, reason = "the scenarios do not use all of the modules")]

pub mod scenarios;

#[path = "../../crates/peer/src/activity.rs"]
mod activity;
#[path = "../../crates/leecher/src/buffers.rs"]
mod buffers;
#[path = "../../crates/peer/src/have_log.rs"]
mod have_log;
#[path = "../../crates/peer/src/outbox.rs"]
mod outbox;
#[path = "../../crates/peer/src/upload_hub.rs"]
mod upload_hub;

/// In place of `crates/peer/src/sync.rs`.
mod sync {
    pub(crate) use shuttle::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, AtomicU64},
    };
}
