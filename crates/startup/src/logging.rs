//! Logs: warnings (more with `-v`) on stderr, and everything down to debug level in a file.
//!
//! A separate thread writes the file, so no other thread waits for it. Lines that it has no time to write are dropped and
//! counted. The file is rotated ([`RotatingLog`]). So no amount of logging fills the memory or the disk.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use clap::builder::FalseyValueParser;
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    Layer, filter::Targets, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

use crate::{
    console::{self, LogWriter},
    escape::{escape_json, escaped_fields},
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

    /// Form of log messages, on stderr and in the debug log: text or json
    ///
    /// json: one object a line.
    #[arg(
        long, value_name = "FORM", default_value = "text", value_parser = parse_format, env = "SHOAL_LOG_FORMAT",
        hide_short_help = true
    )]
    pub log_format: LogFormat,

    #[arg(skip)]
    frequent: Option<&'static str>,
}

/// The form of log messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

fn parse_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("it must be text or json".to_owned()),
    }
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
    let (file, trouble) = open_log(role, args)?;
    let (file, guard) = file.unzip();
    let frequent = if args.verbose >= 2 { LevelFilter::DEBUG } else { LevelFilter::OFF };
    let levels = Targets::new()
        .with_default(LevelFilter::DEBUG)
        .with_targets(args.frequent.map(|target| (target, frequent)));
    let (console, file) = match args.log_format {
        LogFormat::Text => (on_console().boxed(), file.map(|file| in_file(file).boxed())),
        LogFormat::Json => {
            let as_json =
                tracing_subscriber::fmt::layer().json().with_span_list(false).with_current_span(false);
            let file = file.map(|file| {
                let layer = tracing_subscriber::fmt::layer().json().with_span_list(false);
                layer.with_current_span(false).with_writer(move || EscapedJson(file.clone())).boxed()
            });
            (as_json.with_writer(|| EscapedJson(LogWriter)).boxed(), file)
        }
    };
    let (console, file) = (console.with_filter(console_level), file.map(|file| file.with_filter(levels)));
    // If a program is started twice in one process (a test), the first logger stays.
    let _ = tracing_subscriber::registry().with(console).with(file).try_init();
    if let Some((path, error)) = trouble {
        tracing::warn!("no debug log: {}: {error}", path.display());
    }
    Ok(guard)
}

/// Messages for people, without times: they are read when they are printed.
fn on_console<S>() -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_subscriber::fmt::layer()
        .with_writer(|| LogWriter)
        .fmt_fields(escaped_fields())
        .with_target(false)
        .without_time()
        .with_ansi(console::has_colors())
}

fn in_file<S>(file: NonBlocking) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_subscriber::fmt::layer().with_writer(file).fmt_fields(escaped_fields()).with_ansi(false)
}

/// Escapes what JSON itself does not. Each write is a whole message.
struct EscapedJson<W>(W);

impl<W: Write> Write for EscapedJson<W> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.write_all(escape_json(&String::from_utf8_lossy(text)).as_bytes())?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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
    fn json_that_is_logged_has_no_character_that_cannot_be_seen() {
        let mut log = EscapedJson(Vec::new());
        log.write_all("{\"name\":\"gpj\u{202e}exe\"}\n".as_bytes()).unwrap();
        assert_eq!(String::from_utf8(log.0).unwrap(), "{\"name\":\"gpj\\u202eexe\"}\n");
    }

    #[test]
    fn a_log_file_that_the_user_named_has_to_work() {
        let dir = tempfile::tempdir().unwrap();
        let args = LogArgs { log_file: Some(dir.path().join("no/such/dir.log")), ..LogArgs::default() };
        assert_eq!(open_log("x", &args).err().unwrap().code(), ExitCode::Io);
        let none = LogArgs { no_log_file: true, ..LogArgs::default() };
        assert!(open_log("x", &none).unwrap().0.is_none());
    }
}
