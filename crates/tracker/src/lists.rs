//! The files that say which shares a tracker allows, and reading them again at a SIGHUP.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use startup::{ExitCode, Failure, Hangups, print_line};
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

    /// Reads the lists again at each SIGHUP, until `stop`.
    pub(crate) async fn reload(&self, mut hangups: Hangups, control: Control, stop: &CancellationToken) {
        while stop.run_until_cancelled(hangups.next()).await.is_some() {
            let (lists, control) = (self.clone(), control.clone());
            let reloaded = spawn_blocking(move || {
                let admission = lists.read()?;
                let entries = admission.as_ref().map(count);
                Ok::<_, ReadListError>((entries, control.set_admission(admission)))
            });
            match reloaded.await {
                Ok(Ok((entries, ended))) => print_line(format_args!(
                    "[LISTS] {}; registrations ended: {ended}",
                    entries.unwrap_or_default()
                )),
                Ok(Err(error)) => tracing::error!("the old lists stay: {error}"),
                Err(error) => tracing::error!("the old lists stay: {error}"),
            }
        }
    }
}

/// What is printed of lists.
pub(crate) fn count(admission: &Admission) -> String {
    let entries = |list: &Option<ShareList>| {
        list.as_ref().map_or_else(
            || "no list".to_owned(),
            |list| match list.len() {
                1 => "1 entry".to_owned(),
                many => format!("{many} entries"),
            },
        )
    };
    format!("Allowed: {}; denied: {}", entries(&admission.allow), entries(&admission.deny))
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
