//! Exit codes and failures.

use std::{error::Error, fmt, io, process};

use listen::ListenError;

use crate::escape::{escape, escape_lines};

/// The exit code of a program. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Any other failure.
    Other = 1,
    /// The command line is wrong.
    Usage = 2,
    /// No share has that name or infohash, or no peer has the share.
    NotFound = 3,
    /// The network or a tracker cannot be reached, or a port is in use.
    Network = 6,
    /// The transfer is not finished; the same command resumes it.
    Unfinished = 7,
    /// The disk is full.
    DiskFull = 9,
    /// The output exists already.
    OutputExists = 13,
    /// A file cannot be read or written.
    Io = 17,
    /// Received data, or data on disk, was proved wrong.
    Integrity = 32,
    /// Stopped by a signal before it was done (128 + SIGINT).
    Interrupted = 130,
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> process::ExitCode {
        process::ExitCode::from(code as u8)
    }
}

/// Why a program fails: an exit code, what happened, and what the user can do about it.
#[derive(Debug)]
pub struct Failure {
    code: ExitCode,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
}

impl Failure {
    /// A failure because of `error`.
    pub fn new(code: ExitCode, error: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        Failure { code, error: error.into(), hint: None }
    }

    /// A failure to read or write a file: a full disk has a code of its own.
    pub fn io(error: io::Error, what: impl fmt::Display) -> Failure {
        let code = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ExitCode::DiskFull,
            _ => ExitCode::Io,
        };
        Failure::new(code, format!("{what}: {error}"))
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code.
    pub fn code(&self) -> ExitCode {
        self.code
    }

    /// What happened, with names escaped.
    pub fn message(&self) -> String {
        let mut said = self.error.to_string();
        let mut message = escape(&said).into_owned();
        let mut source = self.error.source();
        while let Some(error) = source {
            // Some errors of other libraries repeat their source in their own message.
            let text = error.to_string();
            if !said.contains(&text) {
                message.push_str(": ");
                message.push_str(&escape(&text));
                said = text;
            }
            source = error.source();
        }
        message
    }

    /// What to do next, with names escaped.
    pub fn hint_text(&self) -> Option<String> {
        self.hint.as_deref().map(|hint| escape_lines(hint).into_owned())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())?;
        match self.hint_text() {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Failure {
        let hint = match &error {
            ListenError::PortInUse { .. } => "choose another port with -p, or -p 0 for any that is free",
            ListenError::NoSuchAddress(_) => {
                "name one of this machine's addresses with --bind, or leave it out"
            }
            ListenError::NotAllowed(_) => "choose a port from 1024 up with -p",
            _ => "check --bind and -p",
        };
        Failure::new(ExitCode::Network, error).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_states_what_happened_and_what_to_do() {
        let failure = Failure::new(ExitCode::Network, "port 7000 is in use").hint("choose another with -p");
        assert_eq!(failure.to_string(), "port 7000 is in use\n  choose another with -p");
    }

    #[test]
    fn a_name_in_an_error_cannot_garble_the_terminal() {
        let failure = Failure::new(ExitCode::Io, "cannot read \x1b[2Jx\ny").hint("see:\n  gpj\u{202e}exe");
        assert_eq!(failure.to_string(), "cannot read \\u{1b}[2Jx\\ny\n  see:\n  gpj\\u{202e}exe");
    }

    #[test]
    fn a_full_disk_has_its_own_code() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Failure::io(full, "out.part").code(), ExitCode::DiskFull);
        let other = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(Failure::io(other, "out.part").code(), ExitCode::Io);
    }
}
