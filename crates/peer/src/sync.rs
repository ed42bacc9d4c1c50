//! The locks and counters of what the tasks of several connections share: the outbox, the log of chunks, the upload hub.
//!
//! They are named here once, because `shuttle/` compiles these modules against Shuttle's locks and runs them in many orders.

pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64},
};
