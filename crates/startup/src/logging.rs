//! Logs: warnings (more with `-v`) on stderr, and everything down to debug level in a file.
//!
//! A separate thread writes the file, so no other thread waits for it. Lines that it has no time to write are dropped and
//! counted. The file is rotated ([`RotatingLog`]). So no amount of logging fills the memory or the disk.

use std::{io, path::PathBuf, sync::Arc};

use clap::builder::FalseyValueParser;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    console::{self, LogWriter},
    escape::escaped_fields,
    exit::{ExitCode, Failure},
    rotating_log::{Dropped, RotatingLog},
};

/// Maximum lines that wait for the thread: some 2 MiB. With a disk that keeps up the thread writes a million lines a second,
/// so lines wait only while the disk is slow.
const MAX_QUEUED_LINES: usize = 8_192;

/// Keeps the debug log open. Dropping it writes the waiting lines.
pub(crate) type LogGuard = WorkerGuard;

/// Flags that every program has for its logs.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    /// Print more: -v what happens, -vv every detail
    #[arg(short, long, action = clap::ArgAction::Count, env = "SHOAL_VERBOSE", help_heading = None)]
    pub verbose: u8,

    /// Debug log [default: PROGRAM_debug.log in the working directory]
    #[arg(long, value_name = "PATH", env = "SHOAL_LOG_FILE", hide_short_help = true)]
    pub log_file: Option<PathBuf>,

    /// Write no debug log
    #[arg(long, value_parser = FalseyValueParser::new(), env = "SHOAL_NO_LOG_FILE", hide_short_help = true)]
    pub no_log_file: bool,

    #[arg(skip)]
    frequent: Option<&'static str>,
}

impl LogArgs {
    /// Names the target of events that strangers can cause by the thousand. They reach a log only with `-vv`: in the debug
    /// log they would push out everything else.
    #[must_use]
    pub fn with_frequent(mut self, target: &'static str) -> LogArgs {
        self.frequent = Some(target);
        self
    }
}

pub(crate) fn init(role: &str, args: &LogArgs) -> Result<Option<LogGuard>, Failure> {
    let console_level = match args.verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let console = tracing_subscriber::fmt::layer()
        .with_writer(|| LogWriter)
        .fmt_fields(escaped_fields())
        .with_target(false)
        .without_time()
        .with_ansi(console::has_colors())
        .with_filter(console_level);
    let (file, trouble) = open_log(role, args)?;
    let (file, guard) = file.unzip();
    let frequent = if args.verbose >= 2 { LevelFilter::DEBUG } else { LevelFilter::OFF };
    let levels = Targets::new()
        .with_default(LevelFilter::DEBUG)
        .with_targets(args.frequent.map(|target| (target, frequent)));
    let file = file.map(|file| {
        tracing_subscriber::fmt::layer()
            .with_writer(file)
            .fmt_fields(escaped_fields())
            .with_ansi(false)
            .with_filter(levels)
    });
    // If a program is started twice in one process (a test), the first logger stays.
    let _ = tracing_subscriber::registry().with(console).with(file).try_init();
    if let Some((path, error)) = trouble {
        tracing::warn!("no debug log: {}: {error}", path.display());
    }
    Ok(guard)
}

type Trouble = Option<(PathBuf, io::Error)>;

/// Opens the debug log. A failure is an error only if the user named the file.
fn open_log(role: &str, args: &LogArgs) -> Result<(Option<(NonBlocking, LogGuard)>, Trouble), Failure> {
    if args.no_log_file {
        return Ok((None, None));
    }
    let default = PathBuf::from(format!("{role}_debug.log"));
    let path = args.log_file.as_ref().unwrap_or(&default);
    let dropped = Dropped::default();
    match RotatingLog::open(path, Arc::clone(&dropped)) {
        Ok(log) => {
            let (queue, guard) = NonBlockingBuilder::default()
                .buffered_lines_limit(MAX_QUEUED_LINES)
                .lossy(true)
                .thread_name("log")
                .finish(log);
            // Set only once, because this log has one queue.
            let _ = dropped.set(queue.error_counter());
            Ok((Some((queue, guard)), None))
        }
        Err(error) if args.log_file.is_some() => {
            Err(Failure::new(ExitCode::Io, format!("cannot write the log file {}: {error}", path.display()))
                .hint("name another with --log-file, or use --no-log-file"))
        }
        Err(error) => Ok((None, Some((default, error)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_that_the_user_named_has_to_work() {
        let dir = tempfile::tempdir().unwrap();
        let args = LogArgs { log_file: Some(dir.path().join("no/such/dir.log")), ..LogArgs::default() };
        assert_eq!(open_log("x", &args).err().unwrap().code(), ExitCode::Io);
        let none = LogArgs { no_log_file: true, ..LogArgs::default() };
        assert!(open_log("x", &none).unwrap().0.is_none());
    }
}
