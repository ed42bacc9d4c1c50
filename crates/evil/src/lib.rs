//! Peers that misbehave, for tests and benches.
//!
//! Each [`Kind`] misbehaves in one way, and is otherwise an honest seeder or leecher: it has the share, describes it and sends
//! its chunks. An [`EvilPeer`] is one of them on an address of its own. It waits until a leecher dials it, or visits the leecher.
//! A [`Record`] counts what happened to it.
//!
//! An [`Attack`] is a connection to a seeder that uses up what the seeder has.
//!
//! It speaks through `proto` and uses nothing of `peer`, `swarm` or `leecher`, so it can send what these never would.
//!
//! Invariant: a peer ends when its connection is over. It sends no more than a bounded amount a second where it trickles, and
//! what the other side takes where it floods.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]

mod attack;
mod conversation;
mod kind;
mod peer;
mod record;
mod share;

pub use attack::{ATTACKS, Attack, Victim};
pub use kind::{Fate, KINDS, Kind};
pub use peer::EvilPeer;
pub use record::Record;
pub use share::Share;
