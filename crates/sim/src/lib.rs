//! A deterministic discrete-event simulation of whole swarms.
//!
//! Every simulated leecher is driven by the real core of a transfer ([`swarm::Swarm`]) and the real upload policy
//! ([`swarm::uploads::Uploads`]). One real registry ([`tracker::Registry`]) answers their lookups. The crate holds no copy of a policy.
//! It simulates the world around them: links with rates and latency (`network`), peers that arrive, leave and lie ([`scenario`]), and
//! what sessions do with messages (`world`).
//!
//! Sessions are simulated with these simplifications:
//! - Proving and writing a chunk takes no time, and messages have no size.
//! - Peers read at intervals which chunks the others have ([`Scenario::news_interval`]), as they read what waited in a TCP stream.
//! - They may read all messages at intervals ([`Scenario::work_interval`]). Both delay a decision, and make a large swarm faster to
//!   simulate.
//! - A flow has a fair share of both links. Only where the scenario says so, a flow on a silent connection starts slowly
//!   ([`Scenario::start_time`]). Otherwise nothing of TCP is simulated, and nothing is lost.
//! - The share is known: no metainfo and no hashes are exchanged.
//!
//! Invariants: no I/O, no clock, no threads. The same [`Scenario`] and seed give the same run, event for event. [`Report::digest`] is a
//! hash over all events. A peer stores a chunk once, or the run panics.

mod names;
mod network;
mod node;
mod queue;
mod report;
pub mod scenario;
mod time;
mod world;

pub use report::Report;
pub use scenario::Scenario;
pub use world::run;
