//! Shoal's seeder: keeps shares registered with trackers and serves their chunks to peers.
//!
//! [`Seeder`] is the whole of it for whoever embeds one. Its parts are what the leecher builds on too, since a
//! leecher serves what it holds: [`handshake`], [`outbox`] and [`sender`] are the pieces of a peer connection,
//! [`tracker_client`] talks to a tracker.
//!
//! Invariants: memory and connections are bounded whatever peers do; chunk bytes go from the page cache to the
//! socket without passing through this process; nothing that can wait for a disk runs on the reactor.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]

pub mod announcer;
pub mod faults;
pub mod handshake;
pub mod have_log;
pub mod outbox;
pub mod rate_limit;
mod seeder;
mod send_file;
pub mod sender;
pub mod server;
mod socket;
pub mod tracker_client;
mod unsent;
pub mod upload_hub;
pub mod wait_count;

pub use seeder::{Config, Event, Seeder};
pub use swarm::uploads::DEFAULT_MAX_ASKERS as DEFAULT_MAX_PEERS;
