//! `seeder`: shares files and directories.

#![warn(clippy::unwrap_used)]

mod cli;
mod registration_report;
mod trackers;

fn main() -> std::process::ExitCode {
    let args: cli::Args = startup::parse(cli::EXCLUSIVE);
    let logs = args.logs.clone();
    startup::run("seeder", &logs, |shutdown| cli::run(args, shutdown))
}
