//! Shoal as a library: share files and directories, and fetch shares, from your own program.
//!
//! A [`Node`] holds the trackers and limits that all its shares and transfers use. [`Node::share`] hashes a path ([`Hashing`])
//! and serves it until its [`ShareHandle`] is stopped or dropped. [`Node::fetch`] starts a transfer, which stops when its
//! [`FetchHandle`] is dropped. Both handles have a stream of events. A node can share and fetch any number of things at the same
//! time. [`tracker::TrackerHandle`] runs a tracker in this process.
//!
//! The crate needs a Tokio runtime with time and I/O enabled. A debug build hashes some forty times slower than a release build, unless your
//! workspace's `Cargo.toml` has `opt-level = 3` under `[profile.dev.package.tape-sha256]` and `[profile.dev.package.sha2]`.
//!
//! ```no_run
//! use shoal::{Endpoint, Node, StreamExt, Target};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::builder().tracker(Endpoint::parse_tracker("192.0.2.2")?).build();
//!
//! let share = node.share("disk.img").await?;
//! println!("{}", share.link());
//!
//! let mut fetch = node.fetch("models".parse::<Target>()?);
//! while let Some(event) = fetch.events().next().await {
//!     println!("{event:?}");
//! }
//! println!("saved to {}", fetch.finished().await?.path.display());
//! share.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! A program that shares until Ctrl-C, and one that draws the progress of a transfer:
//!
//! ```no_run
//! use shoal::{FetchError, FetchEvent, FetchHandle, ShareEvent, ShareHandle, StreamExt};
//!
//! async fn serve(mut share: ShareHandle) -> std::io::Result<()> {
//!     loop {
//!         tokio::select! {
//!             event = share.events().next() => match event {
//!                 Some(ShareEvent::Withdrawn(error)) => eprintln!("a file changed: {error}"),
//!                 Some(_) => {}
//!                 None => return Ok(()),
//!             },
//!             stopped = tokio::signal::ctrl_c() => {
//!                 // Waits until the trackers have removed the share. A program that exits without this stays listed for up to 90 s.
//!                 share.stop().await;
//!                 return stopped;
//!             }
//!         }
//!     }
//! }
//!
//! async fn draw(mut fetch: FetchHandle) -> Result<(), FetchError> {
//!     while let Some(event) = fetch.events().next().await {
//!         match event {
//!             FetchEvent::Progress(progress) => {
//!                 eprint!("\r{} of {} bytes", progress.done, progress.total);
//!             }
//!             FetchEvent::Waiting(waiting) => eprintln!("{waiting}"),
//!             _ => {}
//!         }
//!     }
//!     // The events are over, so the transfer is too. If it failed, this returns the error.
//!     let fetched = fetch.finished().await?;
//!     for peer in &fetched.peers {
//!         println!("{} bytes from {}", peer.bytes, peer.address);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! To try it on one machine, fetch by [`ShareHandle::local_link`]. [`ShareHandle::link`] is for other machines: they must be able to
//! reach the trackers that it names, or the node itself if it has no tracker.
//!
//! The cause of an error is either in its text or in its [`source`](std::error::Error::source), never in both. So print the whole chain, as
//! anyhow does with `{:#}`. [`detail`] has the types that errors and events name and that a program rarely needs.
//!
//! This crate is thin: the crates `seeder`, `leecher` and `tracker` do the work, and this crate adds tasks, handles and streams. It parses no command line, prints nothing and sets up no log. Shoal's libraries report details to
//! [`tracing`](https://docs.rs/tracing).
//!
//! Invariants: Nothing that can wait for a disk runs on the runtime's worker threads. When a handle is dropped, its
//! task saves what has arrived, takes leave of peers and trackers (for a few seconds at most), and ends. A slow reader of events loses events and never delays a transfer.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]

pub mod detail;
mod events;
mod fetch;
mod hashing;
mod node;
mod resources;
mod share;
pub mod tracker;

use peer::task::task_output;

pub use events::Events;
pub use fetch::{Fetch, FetchHandle};
pub use hashing::Hashing;
pub use leecher::{
    Contribution, Failure, FetchError, FetchEvent, Fetched, LeaveReason, PeerNameError, PeerProgress,
    PeerTrouble, Progress, Spent, Started, Stay, Target, Unreachable, Violation, Waiting, WaitingFor,
};
pub use listen::ListenError;
pub use node::{Builder, Node};
pub use peer::{rate_limit::RateLimit, tracker_client::TrackerError};
pub use proto::{
    Endpoint, InfoHash, Label, Link, ShareName, Zone,
    label::LabelError,
    tracker::message::{Announced, ShareEntry, Standing},
};
pub use seeder::AlreadyRouted;
pub use share::{Hashed, Share, ShareError, ShareEvent, ShareHandle};
pub use store::{
    DownloadError, FilePattern, FilePatternError, OpenChunkError, PathError, ScanError,
    ShareError as ContentError, Symlinks,
};
pub use tokio_stream::{Stream, StreamExt};
