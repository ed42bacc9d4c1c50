//! The `tracker-load` program: measures a tracker as its clients see it.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod cli;
mod dialect;
mod drive;
mod echo;
mod expiry;
mod flood;
mod load;
mod measure;
mod population;
mod process;
mod register;
mod report;
mod sender;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args = cli::parse();
    let logs = args.logs.clone();
    startup::run("tracker-load", &logs, startup::Output::Text, |shutdown| cli::run(args, shutdown))
}
