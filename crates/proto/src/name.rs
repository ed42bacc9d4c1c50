//! Names of shares and of the files in them.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest name in bytes: what common file systems store.
pub const MAX_NAME_LEN: usize = 255;

/// One plain file name: a share's name, or one component of a path inside a share.
///
/// Names come from strangers, and become paths on disk and text on a terminal. So a name is never empty, `.` or `..`. It has
/// at most [`MAX_NAME_LEN`] bytes of UTF-8, and holds no path separator and no control character. Joined to a directory, it
/// names an entry of that directory.
///
/// Clones share the text: the paths of all files of a directory have the name of the directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShareName(Arc<str>);

/// A borrowed [`ShareName`], for decoding many names of which few are kept: it needs no allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ShareNameRef<'a>(&'a str);

/// Why a text cannot be the name of a share or of a file in one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty.
    #[error("a name cannot be empty")]
    Empty,
    /// More than [`MAX_NAME_LEN`] bytes.
    #[error("a name of {0} bytes is longer than {MAX_NAME_LEN}")]
    TooLong(usize),
    /// `.` or `..`.
    #[error("'{0}' does not name a file")]
    Relative(String),
    /// A `/`, a `\` or a control character.
    #[error("the name {0:?} holds a path separator or a control character")]
    ForbiddenCharacter(String),
    /// Not UTF-8.
    #[error("the name {0:?} is not UTF-8")]
    NotUtf8(String),
}

impl ShareName {
    /// Checks that `name` is plain.
    pub fn new(name: &str) -> Result<ShareName, NameError> {
        check(name)?;
        Ok(ShareName(name.into()))
    }

    /// Checks that `name` is UTF-8 and plain.
    pub fn from_bytes(name: &[u8]) -> Result<ShareName, NameError> {
        match std::str::from_utf8(name) {
            Ok(name) => ShareName::new(name),
            Err(_) => Err(NameError::NotUtf8(String::from_utf8_lossy(name).into_owned())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'a> ShareNameRef<'a> {
    /// Checks that `name` is plain.
    pub fn new(name: &'a str) -> Result<ShareNameRef<'a>, NameError> {
        check(name)?;
        Ok(ShareNameRef(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &'a str {
        self.0
    }
}

impl AsRef<str> for ShareName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for ShareNameRef<'_> {
    fn as_ref(&self) -> &str {
        self.0
    }
}

impl From<ShareNameRef<'_>> for ShareName {
    fn from(name: ShareNameRef<'_>) -> ShareName {
        ShareName(name.0.into())
    }
}

impl fmt::Display for ShareName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ShareName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for ShareName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<ShareName, NameError> {
        ShareName::new(name)
    }
}

impl TryFrom<String> for ShareName {
    type Error = NameError;

    fn try_from(name: String) -> Result<ShareName, NameError> {
        check(&name)?;
        Ok(ShareName(name.into()))
    }
}

impl From<ShareName> for String {
    fn from(name: ShareName) -> String {
        name.as_str().to_owned()
    }
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_LEN {
        return Err(NameError::TooLong(name.len()));
    }
    if name == "." || name == ".." {
        return Err(NameError::Relative(name.to_owned()));
    }
    // Most names without a look at each character, and without a branch for each byte.
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'/' && byte != b'\\';
    if name.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        return Ok(());
    }
    if name.chars().any(|c| c == '/' || c == '\\' || c.is_control()) {
        return Err(NameError::ForbiddenCharacter(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_language_are_plain() {
        for name in ["a", "large_text_file.txt", "データ 2026.bin", "…", "..a", "a..", "🐟", &"x".repeat(255)]
        {
            assert_eq!(ShareName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_borrowed_name_is_the_owned_one() {
        let name = ShareNameRef::new("データ.bin").unwrap();
        assert_eq!(ShareName::from(name), ShareName::new(name.as_str()).unwrap());
        assert!(ShareNameRef::new("a/b").is_err());
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = "x".repeat(256);
        for name in
            ["", ".", "..", "/", "a/b", "/etc/passwd", "..\\a", "a\0b", "a\nb", "\x1b[2J", "\u{9b}m", &long]
        {
            assert!(ShareName::new(name).is_err(), "{name:?}");
        }
        assert!(ShareName::from_bytes(b"\xff\xfe").is_err());
    }
}
