//! Patterns for entries of a directory that are not shared.

use std::{path::Path, str::FromStr};

use globset::{GlobBuilder, GlobMatcher};

/// A pattern for entries of a directory that are not shared. The contents of an excluded directory are excluded too.
///
/// A pattern without a slash is compared with the name of each entry, at any depth. One with a slash is compared with the
/// whole path below the shared directory; a leading slash stands for that directory. A pattern with a slash at the end
/// matches directories only. `*` and `?` do not match a slash, `**` does; `[a-z]` and `{one,other}` work as in shells.
#[derive(Debug, Clone)]
pub struct Exclusion {
    matcher: GlobMatcher,
    whole_path: bool,
    directories_only: bool,
}

/// Why a text is not a pattern.
#[derive(Debug, thiserror::Error)]
pub enum ExclusionError {
    /// It is empty.
    #[error("an empty pattern")]
    Empty,
    /// It is malformed.
    #[error(transparent)]
    Glob(#[from] globset::Error),
}

impl FromStr for Exclusion {
    type Err = ExclusionError;

    fn from_str(text: &str) -> Result<Exclusion, ExclusionError> {
        let pattern = text.strip_suffix('/').unwrap_or(text);
        let directories_only = pattern.len() < text.len();
        let whole_path = pattern.contains('/');
        let pattern = pattern.strip_prefix('/').unwrap_or(pattern);
        if pattern.is_empty() {
            return Err(ExclusionError::Empty);
        }
        let matcher = GlobBuilder::new(pattern).literal_separator(true).build()?.compile_matcher();
        Ok(Exclusion { matcher, whole_path, directories_only })
    }
}

impl Exclusion {
    /// Whether it matches the entry at `path`, which is relative to the shared directory.
    pub fn excludes(&self, path: &Path, is_directory: bool) -> bool {
        let compared = if self.whole_path { Some(path.as_os_str()) } else { path.file_name() };
        (is_directory || !self.directories_only) && compared.is_some_and(|path| self.matcher.is_match(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excludes(pattern: &str, path: &str) -> bool {
        pattern.parse::<Exclusion>().unwrap().excludes(Path::new(path), false)
    }

    #[test]
    fn a_name_matches_at_any_depth_and_a_path_only_where_it_is() {
        assert!(excludes("*.tmp", "a.tmp") && excludes("*.tmp", "deep/down/b.tmp"));
        assert!(!excludes("*.tmp", "a.tmp.gz") && !excludes("*.tmp", "x.tmp/inside"));
        assert!(excludes("/build", "build") && !excludes("/build", "deep/build"));
        assert!(excludes("docs/*.pdf", "docs/a.pdf"));
        assert!(!excludes("docs/*.pdf", "docs/old/a.pdf") && !excludes("docs/*.pdf", "more/docs/a.pdf"));
        assert!(excludes("docs/**/*.pdf", "docs/old/a.pdf") && excludes("**/docs/*.pdf", "more/docs/a.pdf"));
        assert!(excludes("{one,other}", "other") && excludes("v[0-9]?", "v1x"));
    }

    #[test]
    fn a_slash_at_the_end_is_for_directories() {
        let pattern: Exclusion = "target/".parse().unwrap();
        assert!(pattern.excludes(Path::new("deep/target"), true));
        assert!(!pattern.excludes(Path::new("target"), false));
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for bad in ["", "/", "//", "[a", "{a"] {
            assert!(bad.parse::<Exclusion>().is_err(), "{bad}");
        }
    }
}
