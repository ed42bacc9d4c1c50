//! The files that say which shares a tracker allows, and reading them again at a SIGHUP.

use std::{
    fmt::Display,
    fs, io,
    path::{Path, PathBuf},
};

use startup::{
    ExitCode, Failure, Hangups, Output,
    json::{Event, print_event},
    print_line, report_reloaded, report_reloading,
};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracker::{Admission, Control, ShareList, ShareListError};

/// Maximum length of a file. Nobody writes a longer one by intention.
const MAX_FILE_LEN: u64 = 128 << 20;

/// Which shares a tracker allows.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Registrations")]
pub(crate) struct ListArgs {
    /// Allow only the shares that this file lists
    ///
    /// Each line is an infohash, or a pattern of names as in *.iso; lines that begin with # are comments. At a SIGHUP the tracker reads
    /// its lists again, and ends registrations that they do not allow any more.
    #[arg(long, value_name = "FILE", env = "SHOAL_ALLOW", hide_short_help = true)]
    allow: Option<PathBuf>,

    /// Do not allow the shares that this file lists, even if --allow does
    #[arg(long, value_name = "FILE", env = "SHOAL_DENY", hide_short_help = true)]
    deny: Option<PathBuf>,
}

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadListError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{}: {error}", path.display())]
    Content { path: PathBuf, error: ShareListError },
}

impl ListArgs {
    /// Whether there is no list.
    pub(crate) fn is_empty(&self) -> bool {
        self.allow.is_none() && self.deny.is_none()
    }

    /// Reads the lists; `None` if there are none.
    pub(crate) fn read(&self) -> Result<Option<Admission>, ReadListError> {
        if self.is_empty() {
            return Ok(None);
        }
        let read = |path: &Option<PathBuf>| path.as_deref().map(read_list).transpose();
        Ok(Some(Admission { allow: read(&self.allow)?, deny: read(&self.deny)? }))
    }

    /// Reads the lists again at each SIGHUP, until `stop`. The SIGHUPs of a service manager come without lists too.
    pub(crate) async fn reload(
        &self,
        mut hangups: Hangups,
        control: Control,
        output: Output,
        stop: &CancellationToken,
    ) {
        while stop.run_until_cancelled(hangups.next()).await.is_some() {
            report_reloading();
            if !self.is_empty() {
                self.read_again(control.clone(), output).await;
            }
            report_reloaded();
        }
    }

    async fn read_again(&self, control: Control, output: Output) {
        let lists = self.clone();
        let reloaded = spawn_blocking(move || {
            let admission = lists.read()?;
            let lengths = admission.as_ref().map(Lengths::of).unwrap_or_default();
            Ok::<_, ReadListError>((lengths, control.set_admission(admission)))
        });
        match reloaded.await {
            Ok(Ok((lengths, ended))) => lengths.print(Some(ended), output),
            Ok(Err(error)) => old_stay(error, output),
            Err(error) => old_stay(error, output),
        }
    }
}

fn old_stay(error: impl Display, output: Output) {
    let message = format!("the old lists stay: {error}");
    tracing::error!("{message}");
    if output == Output::Json {
        print_event(&Event::Warning { kind: "lists", message });
    }
}

/// How many entries the lists have that there are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lengths {
    allowed: Option<usize>,
    denied: Option<usize>,
}

impl Lengths {
    pub(crate) fn of(admission: &Admission) -> Lengths {
        let len = |list: &Option<ShareList>| list.as_ref().map(ShareList::len);
        Lengths { allowed: len(&admission.allow), denied: len(&admission.deny) }
    }

    /// Prints them, and how many registrations the lists have ended if they were read again.
    pub(crate) fn print(self, ended: Option<u64>, output: Output) {
        let Lengths { allowed, denied } = self;
        if output == Output::Json {
            return print_event(&Event::Lists { allowed, denied, ended: ended.unwrap_or(0) });
        }
        let entries = |len| match len {
            None => "no list".to_owned(),
            Some(1) => "1 entry".to_owned(),
            Some(many) => format!("{many} entries"),
        };
        let ended = ended.map(|ended| format!("; registrations ended: {ended}")).unwrap_or_default();
        print_line(format_args!("[LISTS] Allowed: {}; denied: {}{ended}", entries(allowed), entries(denied)));
    }
}

fn read_list(path: &Path) -> Result<ShareList, ReadListError> {
    let unreadable = |error| ReadListError::Read { path: path.to_owned(), error };
    let text = fs::metadata(path).and_then(|metadata| match metadata.len() {
        0..=MAX_FILE_LEN => fs::read_to_string(path),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    });
    ShareList::parse(&text.map_err(unreadable)?)
        .map_err(|error| ReadListError::Content { path: path.to_owned(), error })
}

impl From<ReadListError> for Failure {
    fn from(error: ReadListError) -> Failure {
        let code = match &error {
            ReadListError::Read { .. } => ExitCode::Io,
            ReadListError::Content { .. } => ExitCode::Usage,
        };
        Failure::new(code, error)
            .hint("each line is an infohash, a pattern of names, or a comment that begins with #")
    }
}
