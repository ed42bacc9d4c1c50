//! Shoal's connections: moving bytes between this process, its peers and its trackers.
//!
//! An [`acceptor`] owns the port of a process and hands each peer that connects to the share that the peer asks for. Every
//! [`connection`] begins with a [`handshake`] and has two halves: one receives, and the other, the [`sender`], sends what the
//! connection's [`outbox`] holds. The [`upload_hub`] of a share decides, by the policy in [`swarm::uploads`], which
//! connection sends its next chunk. [`server`] serves a share that is whole; a leecher uses the same connections to fetch
//! and to serve.
//! [`tracker_client`] is the socket to a tracker, and [`announcer`] keeps a share registered through it.
//!
//! This crate decides nothing about a transfer; [`swarm`] does. It does not store or hash; [`store`] does.
//!
//! Invariants: memory and connections are bounded, no matter what peers do; chunk bytes go from the page cache to the socket
//! without passing through this process; nothing that can wait for a disk runs on the reactor.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]

pub mod acceptor;
pub mod activity;
pub mod announcer;
pub mod connection;
mod descriptors;
pub mod faults;
pub mod handshake;
pub mod have_log;
pub mod outbox;
pub mod outside;
mod path;
mod places;
pub mod rate_limit;
pub mod refusals;
mod send_file;
pub mod sender;
pub mod server;
mod socket;
mod socket_limit;
mod sync;
pub mod task;
pub mod tracker_client;
pub mod upload_hub;
pub mod wait_count;
