//! The secret that a request has to name before it may change anything.
//!
//! It is read from its file for each such request, so a new one counts at once, and one that is taken away does no longer.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::process::geteuid;
use startup::{ExitCode, Failure};
use subtle::ConstantTimeEq;

/// A shorter one could be guessed. 16 random letters and digits have 95 bits.
const MIN_LEN: usize = 16;

/// What fits a header comfortably. Nobody needs a longer secret.
const MAX_LEN: usize = 512;

/// A file with a token.
#[derive(Debug, Clone)]
pub(crate) struct TokenFile(PathBuf);

/// Why a file is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("{0} cannot be read")]
    Read(PathBuf, #[source] io::Error),
    #[error("{0} is not a regular file")]
    Special(PathBuf),
    #[error("other users may read {0}")]
    Open(PathBuf),
    #[error(
        "{0} has no token: it must have one line of {MIN_LEN} to {MAX_LEN} letters, digits and signs without spaces"
    )]
    Form(PathBuf),
}

/// A token.
pub(crate) struct Token(String);

impl TokenFile {
    /// A file that has a token now.
    pub(crate) fn new(path: &Path) -> Result<TokenFile, TokenError> {
        let file = TokenFile(path.to_owned());
        file.read().map(|_| file)
    }

    /// The token that is in the file now. As with `ssh`, a file that other users may read is refused. One that belongs to another user
    /// (a secret that the service manager hands out) may be readable by its group, because this user cannot change that.
    pub(crate) fn read(&self) -> Result<Token, TokenError> {
        let path = || self.0.clone();
        let failed = |error| TokenError::Read(path(), error);
        // Asked before it is opened: a FIFO would wait for a writer.
        if !fs::metadata(&self.0).map_err(failed)?.is_file() {
            return Err(TokenError::Special(path()));
        }
        let file = File::open(&self.0).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        let refused = if found.uid() == geteuid().as_raw() { 0o077 } else { 0o007 };
        if found.mode() & refused != 0 {
            return Err(TokenError::Open(path()));
        }
        let mut text = String::new();
        file.take(MAX_LEN as u64 + 2).read_to_string(&mut text).map_err(failed)?;
        let token = text.trim_end_matches(['\r', '\n']);
        let is_good =
            (MIN_LEN..=MAX_LEN).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
        if is_good { Ok(Token(token.to_owned())) } else { Err(TokenError::Form(path())) }
    }
}

impl Token {
    /// Whether this is it. The time that the answer takes depends on the length only.
    pub(crate) fn is(&self, shown: &str) -> bool {
        self.0.as_bytes().ct_eq(shown.as_bytes()).into()
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Failure {
        let hint = match &error {
            TokenError::Read(..) | TokenError::Special(_) => "check --http-token".to_owned(),
            TokenError::Open(path) => format!("take that from them: chmod 600 '{}'", path.display()),
            TokenError::Form(path) => format!("make one: openssl rand -hex 32 > '{}'", path.display()),
        };
        Failure::new(ExitCode::Usage, error).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    const GOOD: &str = "0123456789abcdef";

    fn file(dir: &Path, text: &str, mode: u32) -> Result<Token, TokenError> {
        let path = dir.join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        TokenFile::new(&path)?.read()
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for good in [0o600, 0o400] {
            assert!(file(dir.path(), GOOD, good).is_ok(), "{good:o}");
        }
        for bad in [0o640, 0o604, 0o620, 0o666, 0o644] {
            assert!(matches!(file(dir.path(), GOOD, bad), Err(TokenError::Open(_))), "{bad:o}");
        }
    }

    #[test]
    fn a_token_is_one_line_that_cannot_be_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let longest = "x".repeat(MAX_LEN);
        for (text, token) in
            [(GOOD, GOOD), ("0123456789abcdef\n", GOOD), ("0123456789abcdef\r\n", GOOD), (&longest, &longest)]
        {
            assert!(file(dir.path(), text, 0o600).unwrap().is(token), "{text:?}");
        }
        let long = "x".repeat(MAX_LEN + 1);
        for bad in [
            "",
            "\n",
            "0123456789abcde",
            "0123456789 abcdef",
            "0123456789abcdef\nmore",
            "0123456789abcdéf",
            &long,
        ] {
            assert!(matches!(file(dir.path(), bad, 0o600), Err(TokenError::Form(_))), "{bad:?}");
        }
        assert!(matches!(TokenFile::new(&dir.path().join("none")), Err(TokenError::Read(..))));
        assert!(matches!(TokenFile::new(dir.path()), Err(TokenError::Special(_))));
    }

    #[test]
    fn only_the_token_itself_is_the_token() {
        let token = Token(GOOD.to_owned());
        assert!(token.is(GOOD));
        for other in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeF", "1123456789abcdef"] {
            assert!(!token.is(other), "{other}");
        }
    }
}
