//! `HOST:PORT`, from a command line or from a link.
//!
//! An endpoint reads what it prints. Its host holds nothing that has a meaning in a link, a URL or a shell.
//!
//! Decodes: proto/src/endpoint.rs: fn parse
//! Decodes: proto/src/endpoint.rs: fn parse_tracker
//! Decodes: proto/src/endpoint.rs: impl FromStr for Endpoint

#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::Endpoint;

fuzz_target!(|text: &str| {
    let parsed = [text.parse(), Endpoint::parse(text, Some(7000)), Endpoint::parse_tracker(text)];
    for endpoint in parsed.iter().flatten() {
        let printed = endpoint.to_string();
        assert!(endpoint.port != 0 && !endpoint.host.is_empty());
        assert!(endpoint.host.chars().all(|c| c.is_alphanumeric() || "-._:%".contains(c)), "{printed:?}");
        assert_eq!(printed.parse().as_ref(), Ok(endpoint), "{printed}");
    }
    if let [Ok(strict), by_default, _] = &parsed {
        assert_eq!(by_default.as_ref(), Ok(strict), "a default changes nothing where there is a port");
    }
});
