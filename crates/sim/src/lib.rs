//! A deterministic discrete-event simulation of whole swarms.
//!
//! Every simulated peer is made of the real policies, not of copies: [`swarm::scheduler::Scheduler`] asks for
//! chunks, [`swarm::uploads::Uploads`] chooses what to send, [`swarm::peer_book::PeerBook`] chooses whom to
//! connect to, and one [`tracker::Registry`] tells who there is. What is simulated is the world around them:
//! links with rates and latency (`network`), peers that come, leave and lie ([`scenario`]), and what the
//! shells do with messages (`world`).
//!
//! Assumed of the shells: they tell peers only of chunks that these lack, tell the scheduler of every message
//! ([`swarm::scheduler::Scheduler::alive`]) and of the first bytes of every chunk
//! ([`swarm::scheduler::Scheduler::arriving`]), end the connection that a newcomer replaces, and say once a second
//! that they are still here to those whose requests wait.
//!
//! Not simulated: proving and writing chunks (they take no time), TCP (a flow has its fair share of both links
//! from its first byte), loss, the exchange of metainfo and hashes.
//!
//! Invariants: no I/O, no clock, no threads; the same [`Scenario`] and seed give the same run, event for event,
//! which [`Report::digest`] witnesses. A chunk is stored once by each peer, or the run panics.

mod network;
mod node;
mod queue;
mod report;
pub mod scenario;
mod world;

pub use report::Report;
pub use scenario::Scenario;
pub use world::run;
