//! What a browser, a script and Prometheus see of a running program, over HTTP: a page, JSON, metrics and a health check.
//!
//! Of the programs only: no library links it. A program implements [`Source`], and [`Server`] answers for it. The page (`page.html`) is
//! one file without a build step, which shows what the JSON has.
//!
//! Invariants:
//! - Nothing is changed without the token that the operator keeps in a file.
//! - A page of another site learns nothing. The `Host` header must name this machine, so no domain of a stranger that leads here is
//!   answered (DNS rebinding), and no other origin is allowed to read an answer.
//! - Connections, streams, requests, bodies and the time for a request are bounded.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]

mod args;
mod change;
mod gate;
mod hosts;
mod meter;
mod metrics;
mod page;
mod router;
mod server;
mod token;

use std::{net::SocketAddr, sync::Arc};

use serde::Serialize;

pub use args::{Address, HttpArgs};
pub use change::{Refusal, Setting, read_body};
pub use meter::Meter;
pub use metrics::{Kind, Metric, Sample};
pub use server::Server;

/// A program that can be looked at and changed.
pub trait Source: Send + Sync + 'static {
    /// All metrics of the program.
    fn metrics(&self) -> Vec<Metric>;

    /// The JSON at `/api/v1/` and this path; `None` if there is none. `query` is what follows the question mark.
    fn resource(&self, path: &str, query: &str) -> Option<String>;

    /// Looks at `/api/v1/` and this path again and again, for an open page that wants only what changed. `None` if this is not worth it:
    /// then the page gets the whole JSON whenever it has changed.
    fn follow(self: Arc<Self>, _path: &str) -> Option<Box<dyn Follow>> {
        None
    }

    /// Changes what is at `/api/v1/` and this path, as the body of a request with the token asks. Returns JSON. It may block.
    fn change(&self, path: &str, body: &[u8]) -> Result<String, Refusal>;

    /// Stops the program, as SIGTERM does.
    fn stop(&self);
}

/// What one open page looks at.
pub trait Follow: Send {
    /// What is new since the last look, and all of it at the first one. `None` if there is nothing any more.
    fn look(&mut self) -> Option<News>;
}

/// What a look finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// All that there is, as JSON on one line.
    All(String),
    /// What changed since the last look, as JSON on one line.
    Change(String),
    /// Nothing changed.
    Nothing,
}

/// A peer that is served, as seeders and leechers show it.
#[derive(Debug, Serialize)]
pub struct ServedPeer {
    /// Where it is.
    pub address: SocketAddr,
    /// Bytes that were sent to it.
    pub sent: u64,
    /// Bytes a second.
    pub rate: u64,
    /// Whether a request of it waits.
    pub waiting: bool,
    /// Whether a chunk is being sent to it.
    pub served: bool,
    /// What was sent of each part of the share, in percent.
    pub given: Vec<u8>,
}

/// A program as the server holds it.
pub(crate) type Program = Arc<dyn Source>;

/// The JSON of a value.
pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| {
        tracing::error!("no JSON: {error}");
        "null".to_owned()
    })
}

/// The value of a parameter in a query, decoded; `None` if it is not there.
pub fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The name of this machine.
pub fn machine_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
