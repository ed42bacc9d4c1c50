//! What Shoal decides, without I/O.
//!
//! A transfer, and a share that is served, come down to a few decisions: which chunk to ask of which peer
//! ([`scheduler`]), which request to serve next ([`uploads`]), which address to connect to ([`peer_book`]), which peer
//! to ask what the share is ([`describers`]), when to ask a tracker again ([`lookup_pace`]), and what the time was
//! spent on ([`account`]). Each of them is here, as a type with methods that take what happened and return what to do.
//!
//! This crate moves no bytes. It knows no socket, no file, no runtime, no channel and no thread; the crates that use it
//! drive it, and so do property tests and the simulation.
//!
//! Invariants: time and randomness are arguments, so the same calls lead to the same decisions; collections are
//! iterated in an order that does not depend on the process. This crate's `clippy.toml` forbids the clock, and the
//! workspace's test `layers` looks for a runtime or a socket among the crates that this one links.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]
#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "a test begins at any moment"))]

pub mod account;
mod describers;
mod leaving;
mod lookup_pace;
pub mod peer_book;
pub mod scheduler;
mod swarm;
pub mod uploads;
mod violation;

pub use leaving::{LeaveReason, PeerTrouble, Unreachable};
pub use peer_book::DEFAULT_MAX_PEERS;
pub use swarm::*;
pub use violation::Violation;
