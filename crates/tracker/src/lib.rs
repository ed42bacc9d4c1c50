//! Shoal's tracker knows which peers have which share, and answers their lookups.
//!
//! Three layers, each usable without the next. The [`registry`] is the pure memory of which peer has which share: no clock,
//! no socket, no randomness of its own. The [`handler`] turns one datagram into at most one reply, with [`token`]s that keep
//! strangers from using somebody else's address. The [`service`] has the clock and the sockets, each with a thread
//! (`worker`) that moves [`datagrams`] in batches.
//!
//! The tracker is an untrusted directory. It never sees a byte of a share and proves nothing about one. The names and sizes
//! that it sends are the claims of peers, and a leecher trusts only the infohash.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "a test begins at any moment"))]

// The program uses the library by its name, as others do.
#[cfg(feature = "cli")]
extern crate self as tracker;

pub mod admission;
#[cfg(feature = "cli")]
pub mod cli;
mod control;
pub mod datagrams;
mod error;
pub mod fleet;
pub mod handler;
#[cfg(feature = "cli")]
mod history;
#[cfg(all(feature = "cli", target_os = "linux", target_env = "gnu"))]
mod huge_pages;
#[cfg(feature = "cli")]
mod limit_args;
#[cfg(feature = "cli")]
mod lists;
#[expect(clippy::disallowed_methods, reason = "the shell has the clock")]
mod marker;
#[cfg(feature = "cli")]
#[expect(clippy::disallowed_methods, reason = "the shell has the clock and the randomness")]
mod probe;
mod rates;
pub mod registry;
#[cfg(feature = "cli")]
#[expect(clippy::disallowed_methods, reason = "the shell has the clock")]
mod seen;
#[expect(clippy::disallowed_methods, reason = "the shell has the clock and the randomness")]
pub mod service;
#[cfg(feature = "cli")]
#[expect(clippy::disallowed_methods, reason = "the shell has the clock")]
mod status;
#[expect(clippy::disallowed_methods, reason = "the shell has the clock")]
mod summaries;
pub mod token;
#[expect(clippy::disallowed_methods, reason = "the shell has the clock")]
pub mod view;
#[expect(clippy::disallowed_methods, reason = "the shell has the clock")]
mod worker;

pub use admission::{Admission, ShareList, ShareListError};
pub use control::Control;
pub use error::TrackerError;
#[cfg(feature = "registry")]
pub use fleet::redis::{Credentials, StoreError, Target};
pub use handler::{Counters, Handler, Swept};
pub use rates::DEFAULT_RATE;
pub use registry::{Asker, Caps, FREQUENT, Limits, Past, Registry, Rules, Stats};
pub use service::{Config, DEFAULT_RECEIVE_BUFFER_LEN, MAX_SOCKETS, Tracker};
pub use view::View;
