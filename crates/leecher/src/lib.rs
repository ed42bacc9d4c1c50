//! Shoal's leecher: fetches a share from many peers at once and proves every chunk before it is written.
//!
//! [`fetch()`] is the whole of it for whoever embeds one. Inside, a pure core decides ([`swarm::Swarm`]) and a thin shell moves bytes
//! (`session`: one peer; `driver`: the one task that owns the core).
//!
//! Invariants: no chunk is written that was not proved; a wrong chunk bans its sender; memory is bounded by a
//! fixed number of chunk buffers, whatever the size of the share or the swarm, beside some 50 bytes a chunk.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]

mod buffers;
mod clock;
mod context;
mod describer;
mod description;
mod destination;
mod driver;
mod error;
mod event;
mod fetch;
mod session;
mod target;

pub use destination::Destination;
pub use error::FetchError;
pub use event::{FetchEvent, Fetched, Started};
pub use fetch::{Config, DEFAULT_STALL_TIMEOUT, fetch};
pub use swarm::{
    Contribution, DEFAULT_MAX_PEERS, Failure, LeaveReason, PeerNameError, PeerProgress, PeerTrouble,
    Progress, Report, Stay, Unreachable, Violation, Waiting, WaitingFor, account::Spent,
};
pub use target::{ParseTargetError, Target, list_shares};

/// The result of a task of ours; its panic is ours too.
fn task_output<T>(result: Result<T, tokio::task::JoinError>) -> T {
    match result {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("a task was cancelled by somebody else: {error}"),
        },
    }
}
