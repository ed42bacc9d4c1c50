//! The `tracker` program.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args = cli::parse();
    let logs = args.logs.clone().with_frequent(tracker::FREQUENT);
    startup::run("tracker", &logs, |shutdown| cli::serve(args, shutdown))
}
