//! `leecher`: fetches a share.

#![warn(clippy::unwrap_used)]

mod cli;
mod report;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let args = cli::Args::parse();
    let logs = args.logs.clone();
    startup::run("leecher", &logs, |shutdown| cli::run(args, shutdown))
}
