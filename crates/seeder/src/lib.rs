//! Shoal's seeder: keeps shares registered with trackers and serves their chunks to peers.
//!
//! [`Seeder`] is the whole of it for whoever embeds one. It joins a [chunk server](peer::server) to one
//! [registration](peer::announcer) for each share with each tracker.
//!
//! Invariant: a share of which a file changed is no longer announced; what is left of it is still served.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]

mod seeder;

pub use seeder::{Config, Event, Seeder};
pub use swarm::uploads::DEFAULT_MAX_ASKERS as DEFAULT_MAX_PEERS;
