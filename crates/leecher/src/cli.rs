//! The command line of `leecher`.

mod fetches;
mod flags;
mod meaning;

use std::process;

use leecher::Target;
use startup::Failure;
use tokio_util::sync::CancellationToken;

pub use flags::{Args, EXCLUSIVE};

pub(crate) use flags::parse_target;
pub(crate) use meaning::link_endpoints;

use crate::{explain::explain, listing, looking, report};
use fetches::fetch_shares;
use meaning::{discovers, trackers};

/// Runs the program.
pub fn main(args: Args) -> process::ExitCode {
    let logs = args.logs.clone();
    startup::run("leecher", &logs, |shutdown| run(args, shutdown))
}

async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let json = args.json;
    let result = if args.list {
        let look = discovers(&args, &[Target::Only]).then_some((&args).into());
        let defaults = looking::local_or_found(look, &shutdown).await;
        listing::list(trackers(&args, &Target::Only, &defaults), json, shutdown).await.map_err(explain)
    } else {
        fetch_shares(args, shutdown).await
    };
    result.inspect_err(|failure| {
        if json {
            report::print_failure(failure);
        }
    })
}
