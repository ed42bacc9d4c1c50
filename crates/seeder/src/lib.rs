//! Shoal's seeder: registers shares with trackers and serves their chunks to peers.
//!
//! A [`Seeder`] has a [chunk server](peer::server) and, for each share and tracker, a [registration](peer::announcer). All its
//! shares use one port.
//!
//! ```no_run
//! use std::{ops::ControlFlow, path::Path, sync::Arc};
//!
//! use proto::Endpoint;
//! use seeder::{Config, Event, Seeder};
//! use store::{Scan, ScanRules};
//! use tokio_util::{sync::CancellationToken, task::TaskTracker};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Both read the disk, so call them on a blocking thread.
//! let scan = Scan::new(Path::new("disk.img"), None, &ScanRules::default())?;
//! let shared = scan.hash(None, &|_bytes| ControlFlow::Continue(()))?;
//!
//! let trackers = vec![Endpoint::parse_tracker("192.0.2.2")?];
//! let tasks = TaskTracker::new();
//! let seeder = Seeder::bind(Config { trackers, ..Config::default() }, &tasks)?;
//! let on_event = |event| {
//!     if let Event::Announced { tracker, .. } = event {
//!         println!("registered with {tracker}");
//!     }
//! };
//! let sent = seeder.share(Arc::new(shared))?.run(on_event, CancellationToken::new()).await;
//! println!("sent {sent} bytes");
//! # Ok(())
//! # }
//! ```
//!
//! Invariant: when a file of a share has changed, the share is no longer announced. Its other files are still served.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
mod registration_report;
mod seeder;
#[cfg(feature = "cli")]
mod seen;
#[cfg(feature = "cli")]
mod trackers;
#[cfg(feature = "watch")]
pub mod watch;

pub use seeder::{AlreadyRouted, Config, Event, Seeder, Sharing};
pub use swarm::uploads::DEFAULT_MAX_ASKERS as DEFAULT_MAX_PEERS;
