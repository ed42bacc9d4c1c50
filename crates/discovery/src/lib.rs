//! How a tracker is found in the local network: by multicast DNS (RFC 6762, RFC 6763), as the service `_shoal._udp`.
//!
//! [`advertise`] is for a tracker, [`Search`] for whoever looks for one. `candidates` decides, without I/O, which answers are
//! used. Anybody in the local network can answer, so a found tracker is a suggestion and proves nothing. docs/protocol.md has the
//! records.
//!
//! Only programs use this crate. It starts nothing unless it is called, and leaves no thread behind.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]

mod advertiser;
mod candidates;
mod daemon;
mod search;

use std::time::Duration;

pub use advertiser::advertise;
pub use candidates::{FoundTracker, MAX_FOUND};
pub use search::Search;

/// How long a tracker on this host may take to answer before others are looked for.
pub const LOCAL_TIMEOUT: Duration = Duration::from_secs(1);

/// The service, as multicast DNS names it.
const SERVICE: &str = "_shoal._udp.local.";

/// Key of the TXT record for the version of the protocols that the tracker speaks.
const VERSION_KEY: &str = "v";

/// The version of docs/protocol.md. A tracker of another version is not used.
const VERSION: &str = "10";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_protocols() {
        assert_eq!(VERSION, proto::VERSION.to_string());
    }
}
