//! What the programs share as programs, and nothing else: the command line, the console, the debug log, signals, the
//! runtime, and how a failure becomes a message and an exit code. No library uses it.
//!
//! [`run`] is a program's whole `main`. When it returns, the program's future has returned and none of its tasks is left.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::unwrap_used))]

mod bar;
mod command_line;
mod config_file;
pub mod console;
mod duration;
mod escape;
mod exit;
mod human;
mod invocation;
pub mod json;
mod logging;
mod progress;
mod rotating_log;
mod service;
mod serving;
mod signals;
mod status;

use std::{
    future::Future,
    io::{self, Write},
    panic, process,
};

use tokio_util::sync::CancellationToken;

use json::{Event, print_event};

pub use bar::{Work, bar_line};
pub use command_line::{complete, parse, parse_ip, parse_port, parse_rest, refuse, usage_error};
pub use console::{eprint_line, print_json_line, print_line};
pub use duration::{ParseDurationError, parse_duration, parse_in_range, parse_timeout};
pub use escape::escape;
pub use exit::{ExitCode, Failure};
pub use human::{HumanBytes, human_time, parse_bytes};
pub use invocation::command_for;
pub use json::Output;
pub use logging::{LogArgs, LogFormat};
pub use progress::ByteMeter;
pub use service::{is_service, report_ready, report_reloaded, report_reloading, report_stopping};
pub use serving::{Served, serving_line};
pub use signals::{Hangups, OnHangup};
pub use status::{Pace, STATUS_EVERY, StatusLine};

/// Maximum threads for blocking work (hashing, disk). More would only wait for the disk.
const MAX_BLOCKING_THREADS: usize = 64;

/// Runs a program: sets up logging and signals, runs `body` on a runtime with a thread for each core, and turns its failure
/// into a message on stderr, an event if the program reports events, and an exit code. Ctrl-C, SIGTERM and SIGHUP cancel the token of
/// `body`. A second Ctrl-C or SIGTERM ends the program at once.
pub fn run<F>(
    role: &str,
    logs: &LogArgs,
    output: Output,
    body: impl FnOnce(CancellationToken) -> F,
) -> process::ExitCode
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    run_with(role, logs, output, OnHangup::Stop, body)
}

/// [`run`] for a program that chooses what SIGHUP does.
pub fn run_with<F>(
    role: &str,
    logs: &LogArgs,
    output: Output,
    on_hangup: OnHangup,
    body: impl FnOnce(CancellationToken) -> F,
) -> process::ExitCode
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let (result, log) = match logging::init(role, logs) {
        Ok(log) => (try_run(on_hangup, body), Some(log)),
        Err(failure) => (Err(failure), None),
    };
    let Err(failure) = result else { return process::ExitCode::SUCCESS };
    console::hide();
    if output == Output::Json {
        print_event(&Event::error(&failure));
    }
    // Where messages are objects, this one is no exception.
    if log.is_some() && logs.log_format == LogFormat::Json {
        tracing::error!(code = failure.code() as u8, "{failure}");
        return failure.code().into();
    }
    fail(&failure)
}

/// Prints why a program ends, and returns its exit code.
pub fn fail(failure: &Failure) -> process::ExitCode {
    tracing::debug!(code = failure.code() as u8, "{failure}");
    console::hide();
    // The failure escapes what it names, and its hint may have several lines.
    let _ = writeln!(io::stderr(), "error: {failure}");
    failure.code().into()
}

fn try_run<F>(on_hangup: OnHangup, body: impl FnOnce(CancellationToken) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()
        .map_err(|error| Failure::new(ExitCode::Other, error))?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        signals::cancel_on_signal(shutdown.clone(), on_hangup)
            .map_err(|error| Failure::new(ExitCode::Other, error))?;
        // On a worker thread. This thread would have to be woken for every message from the others.
        tokio::spawn(body(shutdown)).await.unwrap_or_else(|error| panic::resume_unwind(error.into_panic()))
    })
}

/// Raises the limit of open files as far as the system allows, because each peer needs one.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!("keeping the limit of open files: {error}");
    }
}
