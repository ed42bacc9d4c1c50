//! Shoal's connections: what moves bytes between this process, its peers and its trackers.
//!
//! A connection begins with a [`handshake`]. From then on it has two halves: one reads, and the other, the [`sender`],
//! sends what the connection's [`outbox`] holds. The [`upload_hub`] of a share decides, by the policy in
//! [`swarm::uploads`], which connection sends its next chunk. [`server`] accepts peers of any number of shares. A leecher
//! builds its own connections of the same parts, because it serves what it holds. [`tracker_client`] is the socket to a
//! tracker, and [`announcer`] keeps a share registered through it.
//!
//! This crate decides nothing about a transfer: what to ask of whom is in [`swarm`]. It neither stores nor hashes: that is
//! [`store`].
//!
//! Invariants: memory and connections are bounded whatever peers do; chunk bytes go from the page cache to the
//! socket without passing through this process; nothing that can wait for a disk runs on the reactor.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]

pub mod announcer;
pub mod faults;
pub mod handshake;
pub mod have_log;
pub mod outbox;
pub mod outside;
pub mod rate_limit;
mod send_file;
pub mod sender;
pub mod server;
mod socket;
pub mod tracker_client;
mod unsent;
pub mod upload_hub;
pub mod wait_count;
