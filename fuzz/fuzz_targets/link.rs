//! Links, and the infohashes in them.
//!
//! A link reads what it prints, and prints nothing that garbles a terminal or ends a quoted argument of a shell.
//!
//! Decodes: proto/src/link.rs: impl FromStr for Link
//! Decodes: proto/src/id.rs: impl FromStr for InfoHash

#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::{InfoHash, Link, link::MAX_ENDPOINTS};

fuzz_target!(|text: &str| {
    if let Ok(infohash) = text.parse::<InfoHash>() {
        assert_eq!(infohash.to_string(), text.to_lowercase());
    }
    let Ok(link) = text.parse::<Link>() else { return };
    assert!(link.trackers.len() <= MAX_ENDPOINTS && link.peers.len() <= MAX_ENDPOINTS);
    let printed = link.to_string();
    let forbidden = |c: char| c.is_control() || c.is_whitespace() || "'\"`$\\".contains(c);
    assert!(!printed.chars().any(forbidden), "{printed:?}");
    assert_eq!(printed.parse(), Ok(link), "{printed}");
});
