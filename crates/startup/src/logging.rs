//! Logs: warnings (more with `-v`) on stderr, everything down to debug level in a file.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use clap::builder::FalseyValueParser;
use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::{Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    console::{self, LogWriter},
    escape::escaped_fields,
    exit::{ExitCode, Failure},
};

/// A debug log larger than this in bytes is set aside as `.old` at start-up, so logs do not grow for ever.
const MAX_LOG_LEN: u64 = 16 * 1024 * 1024;

/// Flags that every program has for its logs.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    /// Print more on stderr: -v what happens, -vv every detail
    #[arg(short, long, action = clap::ArgAction::Count, env = "SHOAL_VERBOSE")]
    pub verbose: u8,

    /// Debug log [default: PROGRAM_debug.log in the working directory]
    #[arg(long, value_name = "PATH", env = "SHOAL_LOG_FILE")]
    pub log_file: Option<PathBuf>,

    /// Write no debug log
    #[arg(long, value_parser = FalseyValueParser::new(), env = "SHOAL_NO_LOG_FILE")]
    pub no_log_file: bool,
}

pub(crate) fn init(role: &str, args: &LogArgs) -> Result<(), Failure> {
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
    let file = file.map(|file| {
        tracing_subscriber::fmt::layer()
            .with_writer(Mutex::new(file))
            .fmt_fields(escaped_fields())
            .with_ansi(false)
            .with_filter(LevelFilter::from_level(Level::DEBUG))
    });
    // A program that is started twice in one process (a test) keeps its first logger.
    let _ = tracing_subscriber::registry().with(console).with(file).try_init();
    if let Some((path, error)) = trouble {
        tracing::warn!("no debug log: {}: {error}", path.display());
    }
    Ok(())
}

type Trouble = Option<(PathBuf, io::Error)>;

/// Opens the debug log. One that the user named has to work; the default one is a courtesy.
fn open_log(role: &str, args: &LogArgs) -> Result<(Option<File>, Trouble), Failure> {
    if args.no_log_file {
        return Ok((None, None));
    }
    let default = PathBuf::from(format!("{role}_debug.log"));
    let path = args.log_file.as_ref().unwrap_or(&default);
    match append_to(path) {
        Ok(file) => Ok((Some(file), None)),
        Err(error) if args.log_file.is_some() => {
            Err(Failure::new(ExitCode::Io, format!("cannot write the log file {}: {error}", path.display()))
                .hint("name another with --log-file, or use --no-log-file"))
        }
        Err(error) => Ok((None, Some((default, error)))),
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() > MAX_LOG_LEN) {
        let mut old = path.as_os_str().to_owned();
        old.push(".old");
        fs::rename(path, old)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_grew_large_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x_debug.log");
        File::create(&path).unwrap().set_len(MAX_LOG_LEN).unwrap();
        assert_eq!(append_to(&path).unwrap().metadata().unwrap().len(), MAX_LOG_LEN);
        File::create(&path).unwrap().set_len(MAX_LOG_LEN + 1).unwrap();
        assert_eq!(append_to(&path).unwrap().metadata().unwrap().len(), 0);
        assert_eq!(fs::metadata(dir.path().join("x_debug.log.old")).unwrap().len(), MAX_LOG_LEN + 1);
    }

    #[test]
    fn a_log_file_that_the_user_named_has_to_work() {
        let dir = tempfile::tempdir().unwrap();
        let args = LogArgs { log_file: Some(dir.path().join("no/such/dir.log")), ..LogArgs::default() };
        assert_eq!(open_log("x", &args).unwrap_err().code(), ExitCode::Io);
        let none = LogArgs { no_log_file: true, ..LogArgs::default() };
        assert!(open_log("x", &none).unwrap().0.is_none());
    }
}
