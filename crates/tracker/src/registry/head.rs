//! A share's infohash and one of its names.

use std::cmp::Ordering;

use proto::{InfoHash, ShareName};
use triomphe::ThinArc;

/// The infohash and a name of a share, in one piece of memory that both indices of the registry point to. In order of name
/// and then infohash.
///
/// With a million shares of one peer each, these are a third of the registry's memory. An `Arc` of two fields would take 32
/// bytes more for each.
#[derive(Clone)]
pub(super) struct Head(ThinArc<InfoHash, u8>);

impl Head {
    pub(super) fn new(infohash: InfoHash, name: &str) -> Head {
        Head(ThinArc::from_header_and_slice(infohash, name.as_bytes()))
    }

    pub(super) fn infohash(&self) -> &InfoHash {
        &self.0.header.header
    }

    /// The name; `None` if this was made from something that is no name.
    pub(super) fn name(&self) -> Option<ShareName> {
        ShareName::from_bytes(self.name_bytes()).ok()
    }

    pub(super) fn name_bytes(&self) -> &[u8] {
        &self.0.slice
    }

    /// The order of UTF-8 is that of its bytes.
    fn key(&self) -> (&[u8], &InfoHash) {
        (self.name_bytes(), self.infohash())
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Head) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Head {}
