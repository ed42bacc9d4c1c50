//! Shoal's leecher: fetches a share from many peers at once and proves every chunk before it is written.
//!
//! Programs call [`fetch()`], [`describe()`] for the list of a share's files, or [`check()`] to compare a copy. Inside, a pure core
//! decides ([`swarm::Swarm`]) and a thin shell moves bytes: a `session` for each peer, and the `driver`, the one task that owns the
//! core.
//!
//! Invariants: Only proved chunks count. A wrong chunk bans its sender. Memory does not grow with the size of the swarm: there
//! is a fixed number of chunk buffers, and about 50 bytes for each chunk of the share.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]

// The program uses the library by its name, as others do.
#[cfg(feature = "cli")]
extern crate self as leecher;

#[cfg(feature = "cli")]
pub mod barrier;
mod buffers;
mod check;
#[cfg(feature = "cli")]
mod checking;
#[cfg(feature = "cli")]
pub mod cli;
mod clock;
mod context;
mod describer;
mod description;
mod destination;
mod driver;
mod error;
mod event;
#[cfg(feature = "cli")]
mod explain;
mod fetch;
#[cfg(feature = "cli")]
mod file_list;
mod known_names;
#[cfg(feature = "cli")]
mod listing;
#[cfg(feature = "cli")]
mod looking;
mod max_peers;
mod old_version;
#[cfg(feature = "cli")]
mod report;
#[cfg(feature = "cli")]
mod screen;
#[cfg(feature = "cli")]
mod seen;
#[cfg(feature = "cli")]
mod served;
mod session;
mod target;
mod view;

use peer::task::task_output;

pub use check::{Checked, check};
pub use description::Description;
pub use destination::{Destination, Replace};
pub use error::FetchError;
pub use event::{FetchEvent, Fetched, Started};
pub use fetch::{Config, DEFAULT_STALL_TIMEOUT, describe, fetch};
pub use max_peers::MaxPeers;
pub use swarm::{
    Contribution, DEFAULT_MAX_PEERS, Failure, LeaveReason, PeerNameError, PeerPicture, PeerProgress,
    PeerTrouble, Picture, Progress, Stay, Unreachable, Violation, Waiting, WaitingFor, account::Spent,
    allowance::Exceeded,
};
pub use target::{Known, ParseTargetError, Target, known_shares};
pub use view::View;
