//! Which shares a tracker takes: lists of infohashes and names.
//!
//! Pure: the program reads the files. A tracker without lists does not ask here.

use std::collections::HashSet;

use globset::{Glob, GlobSet, GlobSetBuilder};
use proto::InfoHash;

/// Maximum entries of a list. All are in memory.
pub const MAX_ENTRIES: usize = 1_000_000;

/// Which shares are allowed. Without lists, all are.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    /// If there is such a list, only what is on it is allowed.
    pub allow: Option<ShareList>,
    /// What is on it is not allowed, even if it is on the other.
    pub deny: Option<ShareList>,
}

/// Infohashes, and patterns of names.
#[derive(Debug, Clone)]
pub struct ShareList {
    infohashes: HashSet<InfoHash>,
    names: GlobSet,
}

/// Why a text is not a list.
#[derive(Debug, thiserror::Error)]
pub enum ShareListError {
    /// A line is neither an infohash nor a pattern.
    #[error("line {line}: {error}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        error: globset::Error,
    },
    /// A line looks like an infohash of another length.
    #[error("line {line}: an infohash has 64 hexadecimal digits, this has {len}")]
    InfoHashLen {
        /// Its number, from 1.
        line: usize,
        /// How many digits it has.
        len: usize,
    },
    /// Too many entries.
    #[error("line {line}: more than {MAX_ENTRIES} entries")]
    TooLong {
        /// The first line that is too many.
        line: usize,
    },
    /// All patterns together are too large.
    #[error("the names: {0}")]
    Names(globset::Error),
}

impl Admission {
    /// Whether a share may be registered under this name.
    pub fn allows(&self, infohash: &InfoHash, name: &str) -> bool {
        let is_on = |list: &ShareList| list.has_infohash(infohash) || list.has_name(name);
        self.allow.as_ref().is_none_or(is_on) && !self.deny.as_ref().is_some_and(is_on)
    }

    /// Whether this share may be registered under some name.
    pub fn allows_infohash(&self, infohash: &InfoHash) -> bool {
        // Any name may be on a list with names.
        self.allow.as_ref().is_none_or(|list| list.has_infohash(infohash) || !list.names.is_empty())
            && !self.deny.as_ref().is_some_and(|list| list.has_infohash(infohash))
    }

    /// Whether some share may be registered under this name.
    pub fn allows_name(&self, name: &str) -> bool {
        self.allow.as_ref().is_none_or(|list| list.has_name(name) || !list.infohashes.is_empty())
            && !self.deny.as_ref().is_some_and(|list| list.has_name(name))
    }
}

impl ShareList {
    /// Reads a list: an infohash, or a pattern of names as in `*.iso`, on each line. Empty lines, and lines that begin with `#`, mean
    /// nothing. `*` and `?`, `[a-z]` and `{one,other}` work as in shells, and a backslash takes the meaning from the character after it.
    pub fn parse(text: &str) -> Result<ShareList, ShareListError> {
        let (mut infohashes, mut names) = (HashSet::new(), GlobSetBuilder::new());
        let mut entries = 0;
        for (line, entry) in (1..).zip(text.lines().map(str::trim)) {
            if entry.is_empty() || entry.starts_with('#') {
                continue;
            }
            entries += 1;
            if entries > MAX_ENTRIES {
                return Err(ShareListError::TooLong { line });
            }
            if let Ok(infohash) = entry.parse() {
                infohashes.insert(infohash);
            } else if entry.len() >= 40 && entry.chars().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(ShareListError::InfoHashLen { line, len: entry.len() });
            } else {
                names.add(Glob::new(entry).map_err(|error| ShareListError::Line { line, error })?);
            }
        }
        Ok(ShareList { infohashes, names: names.build().map_err(ShareListError::Names)? })
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.infohashes.len() + self.names.len()
    }

    /// Whether it has no entry. Such a list of allowed shares allows none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn has_infohash(&self, infohash: &InfoHash) -> bool {
        self.infohashes.contains(infohash)
    }

    fn has_name(&self, name: &str) -> bool {
        self.names.is_match(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Option<ShareList> {
        Some(ShareList::parse(text).unwrap())
    }

    const ONE: InfoHash = InfoHash([0x11; 32]);
    const OTHER: InfoHash = InfoHash([0x22; 32]);

    #[test]
    fn a_list_has_infohashes_names_and_comments() {
        let text = format!("# ours\n\n  {}\r\n*.iso\nbuild-[0-9]\n\\*\n#x\n", "11".repeat(32));
        let list = ShareList::parse(&text).unwrap();
        assert_eq!(list.len(), 4);
        assert!(list.has_infohash(&ONE) && !list.has_infohash(&OTHER));
        for (name, is_on) in [
            ("a.iso", true),
            ("A.ISO", false),
            ("a.iso.txt", false),
            ("build-7", true),
            ("build-77", false),
            ("*", true),
            ("anything", false),
            ("#x", false),
        ] {
            assert_eq!(list.has_name(name), is_on, "{name}");
        }
        assert!(ShareList::parse("").unwrap().is_empty());
    }

    #[test]
    fn an_error_names_the_line() {
        for (text, line) in [
            ("good\n[bad\nworse]", "line 2: "),
            (&"1".repeat(63), "line 1: an infohash has 64 hexadecimal digits, this has 63"),
            ("#\n\n{a", "line 3: "),
        ] {
            let error = ShareList::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(line), "{text}: {error}");
        }
    }

    #[test]
    fn a_list_of_too_many_entries_is_refused_at_the_first_that_is_too_many() {
        let line = "11".repeat(32) + "\n";
        let error = ShareList::parse(&line.repeat(MAX_ENTRIES + 1)).unwrap_err();
        assert!(matches!(error, ShareListError::TooLong { line } if line == MAX_ENTRIES + 1), "{error}");
    }

    #[test]
    fn what_is_denied_is_not_allowed_even_if_it_is_on_the_other_list() {
        let none = Admission::default();
        assert!(none.allows(&ONE, "a") && none.allows_infohash(&ONE) && none.allows_name("a"));
        let admission = Admission { allow: list("a*"), deny: list("*.tmp") };
        assert!(
            admission.allows(&ONE, "a") && !admission.allows(&ONE, "a.tmp") && !admission.allows(&ONE, "b")
        );
        assert!(admission.allows_infohash(&ONE));
        assert!(admission.allows_name("a") && !admission.allows_name("a.tmp") && !admission.allows_name("b"));
        let admission = Admission { allow: list(&"11".repeat(32)), deny: list("b") };
        assert!(
            admission.allows(&ONE, "a") && !admission.allows(&ONE, "b") && !admission.allows(&OTHER, "a")
        );
        assert!(admission.allows_infohash(&ONE) && !admission.allows_infohash(&OTHER));
        assert!(admission.allows_name("a") && !admission.allows_name("b"));
        let admission = Admission { allow: None, deny: list(&"22".repeat(32)) };
        assert!(admission.allows(&ONE, "a") && !admission.allows(&OTHER, "a"));
        assert!(admission.allows_infohash(&ONE) && !admission.allows_infohash(&OTHER));
        let closed = Admission { allow: list(""), deny: None };
        assert!(!closed.allows(&ONE, "a") && !closed.allows_infohash(&ONE) && !closed.allows_name("a"));
    }
}
