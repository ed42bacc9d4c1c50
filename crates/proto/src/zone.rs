//! Where in a network a peer is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::label::{Label, LabelError};

/// What people call a part of their network whose peers are near each other: a rack, a site, a region. It has the rules of a
/// [`Label`], and may be none.
///
/// It is the peer's word, so it is a hint and nothing more: it never decides whether a peer is served.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Zone(Label);

impl Zone {
    /// No zone was given.
    pub const NONE: Zone = Zone(Label::NONE);

    /// The zone of this name, or of as much of it as fits.
    pub fn cut(name: &str) -> Result<Zone, LabelError> {
        Label::cut(name).map(Zone)
    }

    /// Whether none was given.
    pub fn is_none(self) -> bool {
        self.0.is_empty()
    }

    /// Whether two peers are in the same zone. Those without a zone are in none.
    pub fn is_shared_with(self, other: Zone) -> bool {
        !self.is_none() && self == other
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl From<Label> for Zone {
    fn from(name: Label) -> Zone {
        Zone(name)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_without_a_zone_share_none() {
        let (a, b) = (Zone::cut("a").unwrap(), Zone::cut("b").unwrap());
        assert!(a.is_shared_with(a) && !a.is_shared_with(b) && !a.is_shared_with(Zone::NONE));
        assert!(!Zone::NONE.is_shared_with(Zone::NONE));
    }
}
