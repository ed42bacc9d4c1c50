//! The command line of `leecher`.

mod fetches;
mod flags;
mod meaning;

use std::process;

use leecher::Target;
use startup::{Failure, Output};
use tokio_util::sync::CancellationToken;

pub use flags::{Args, EXCLUSIVE};

pub(crate) use flags::{parse_count, parse_target};
pub(crate) use meaning::link_endpoints;

use crate::{
    listing::{self, Style},
    looking,
};
use fetches::fetch_shares;
use meaning::{discovers, trackers};

/// Runs the program.
pub fn main(args: Args) -> process::ExitCode {
    let logs = args.logs.clone();
    startup::run("leecher", &logs, Output::of(args.json), |shutdown| run(args, shutdown))
}

async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    if !args.list {
        return fetch_shares(args, shutdown).await;
    }
    let look = discovers(&args, &[Target::Only]).then_some((&args).into());
    let defaults = looking::local_or_found(look, &shutdown).await;
    let trackers = trackers(&args, &Target::Only, &defaults);
    let style =
        Style { output: Output::of(args.json), sort: args.sort.unwrap_or_default(), is_long: args.long };
    listing::list(trackers, &args.targets, style, shutdown).await
}
