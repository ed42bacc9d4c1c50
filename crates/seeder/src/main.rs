//! `seeder`: shares files and directories.

#![warn(clippy::unwrap_used)]

mod cli;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let args = cli::Args::parse();
    let logs = args.logs.clone();
    startup::run("seeder", &logs, |shutdown| cli::run(args, shutdown))
}
