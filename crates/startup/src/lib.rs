//! What the three programs share at start-up, and nothing else: logging to the console and to a debug log,
//! signals, the runtime, taking a port, and how a failure becomes a message and an exit code.
//!
//! [`run`] is a program's whole `main`: it returns when the program's future has returned, after which no
//! task of it is left.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]

mod command_line;
mod exit;
mod listen;
mod logging;
mod progress;
mod signals;

use std::{future::Future, io::Write, panic, process};

use tokio_util::sync::CancellationToken;

pub use command_line::parse;
pub use exit::{ExitCode, Failure};
pub use listen::{ListenError, asked_address, listen_tcp, listen_udp};
pub use logging::LogArgs;
pub use progress::{ByteMeter, HumanBytes};

/// Most threads for blocking work (hashing, disk). More only queue at the disk.
const MAX_BLOCKING_THREADS: usize = 64;

/// Runs a program: sets up logging and signals, runs `body` on a runtime of all cores, and turns its failure
/// into a message on stderr and an exit code. The token that `body` gets is cancelled by Ctrl-C and SIGTERM;
/// a second signal ends the program at once.
pub fn run<F>(role: &str, logs: &LogArgs, body: impl FnOnce(CancellationToken) -> F) -> process::ExitCode
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    match try_run(role, logs, body) {
        Ok(()) => process::ExitCode::SUCCESS,
        Err(failure) => {
            tracing::debug!(code = failure.code() as u8, "{failure}");
            // Nothing is left to be done about a console that is gone.
            let _ = writeln!(std::io::stderr(), "error: {failure}");
            failure.code().into()
        }
    }
}

fn try_run<F>(role: &str, logs: &LogArgs, body: impl FnOnce(CancellationToken) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    logging::init(role, logs)?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()
        .map_err(|error| Failure::new(ExitCode::Other, error))?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        signals::cancel_on_signal(shutdown.clone()).map_err(|error| Failure::new(ExitCode::Other, error))?;
        // On a worker: the thread that waits here would have to be woken for everything that others tell it.
        tokio::spawn(body(shutdown)).await.unwrap_or_else(|error| panic::resume_unwind(error.into_panic()))
    })
}

/// Writes a line to stdout, control characters escaped: names in it may be a stranger's. A closed stdout
/// (`… | head`) is no reason to fail.
pub fn print_line(line: impl std::fmt::Display) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{}", escape_control(&line.to_string())).and_then(|()| stdout.flush());
}

/// Writes a line to stderr, likewise.
pub fn eprint_line(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{}", escape_control(&line.to_string()));
}

/// Text that cannot move the cursor or colour a terminal.
fn escape_control(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect::<String>().into()
}

/// Asks for as many open files as the system lets this process have: each peer is one.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!("keeping the limit of open files: {error}");
    }
}
