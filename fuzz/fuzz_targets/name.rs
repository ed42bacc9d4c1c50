//! Names of shares and of files, which become paths and text on a terminal.
//!
//! All ways to a name agree, and a name is one plain component of a path without control characters.
//!
//! Decodes: proto/src/name.rs: fn from_bytes
//! Decodes: proto/src/name.rs: impl FromStr for ShareName
//! Decodes: proto/src/name.rs: impl TryFrom<String> for ShareName

#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use proto::{ShareName, ShareNameRef, name::MAX_NAME_LEN};

fuzz_target!(|bytes: &[u8]| {
    let by_bytes = ShareName::from_bytes(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        assert!(by_bytes.is_err());
        return;
    };
    let owned = ShareName::new(text);
    assert_eq!(owned, by_bytes);
    assert_eq!(owned, text.parse());
    assert_eq!(owned, ShareName::try_from(text.to_owned()));
    assert_eq!(owned, ShareNameRef::new(text).map(ShareName::from));
    let Ok(name) = owned else { return };
    assert_eq!((name.as_str(), name.to_string().as_str()), (text, text));
    assert!(text.len() <= MAX_NAME_LEN && !text.chars().any(char::is_control), "{name:?}");
    let path = Path::new("directory").join(text);
    let components: Vec<_> = path.components().collect();
    assert!(matches!(components[..], [_, Component::Normal(last)] if last == text), "{path:?}");
});
