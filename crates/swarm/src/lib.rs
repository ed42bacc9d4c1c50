//! The decisions of Shoal, without I/O.
//!
//! Each decision is a type with methods that take events and return actions: which chunk to request from which peer
//! ([`scheduler`]), which request to serve next ([`uploads`]), which address to connect to ([`peer_book`]), which peer to ask
//! for the description of the share ([`describers`]), when to ask a tracker again ([`lookup_pace`]), what the time is spent
//! on ([`account`]), how many useless messages a peer may send ([`allowance`]), and which peers have a place at a seeder
//! ([`places`]). [`Swarm`] joins those of a transfer.
//!
//! This crate moves no bytes. It has no socket, file, runtime, channel or thread. The leecher and the seeder drive it, and so
//! do property tests and the simulation.
//!
//! Invariants: Time and randomness are arguments, so the same calls give the same decisions. Collections are iterated in an
//! order that does not depend on the process. The crate's `clippy.toml` forbids the clock, and the test `layers` of the
//! workspace checks that the crate links no runtime and no socket crate.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]
#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "a test begins at any moment"))]

pub mod account;
pub mod allowance;
mod describers;
mod leaving;
mod lookup_pace;
pub mod parts;
pub mod peer_book;
pub mod places;
pub mod scheduler;
mod swarm;
pub mod uploads;
mod violation;

pub use describers::SMALL_METAINFO;
pub use leaving::{LeaveReason, PeerTrouble, Unreachable};
pub use peer_book::DEFAULT_MAX_PEERS;
pub use swarm::*;
pub use violation::Violation;
