//! `leecher`: fetches a share.

#![warn(clippy::unwrap_used)]

mod cli;
mod explain;
mod file_list;
mod listing;
mod looking;
mod report;
mod screen;

fn main() -> std::process::ExitCode {
    let args: cli::Args = startup::parse(cli::EXCLUSIVE);
    let logs = args.logs.clone();
    startup::run("leecher", &logs, |shutdown| cli::run(args, shutdown))
}
