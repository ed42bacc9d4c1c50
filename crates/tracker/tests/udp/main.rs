//! Whole trackers over real UDP, in this process.
#![expect(clippy::disallowed_methods, reason = "these tests run whole trackers, in real time")]
#![expect(clippy::unwrap_used, reason = "tests")]

#[cfg(feature = "registry")]
mod fleet;
mod peer;
#[cfg(feature = "registry")]
mod redis;
mod running;
mod service;
