//! The exit code of each error, and the hint that is printed with it.

use leecher::{Failure as SwarmFailure, FetchError};
use proto::tracker::message::ShareEntry;
use startup::{ExitCode, Failure};
use store::{Difference, DownloadError};

use crate::listing::describe;

/// What to do if nothing was found.
const NOT_FOUND_HINT: &str =
    "check that a seeder is running with the same tracker, or wait for one with --wait TIME";

/// What to do if a transfer ended before it was finished.
const KEPT_HINT: &str = "what has arrived is kept: run the same command again to continue";

/// The exit code of an error, and what to do about it.
pub(crate) fn explain(error: FetchError) -> Failure {
    let (code, hint) = match &error {
        FetchError::Swarm(failure) => explain_swarm(failure),
        FetchError::UnknownName(_) => (
            ExitCode::NotFound,
            "check that a seeder is running with the same tracker; --list shows the shares that the tracker knows".to_owned(),
        ),
        FetchError::NothingShared => (ExitCode::NotFound, NOT_FOUND_HINT.to_owned()),
        FetchError::Ambiguous { shares, total, .. } => (ExitCode::Usage, candidates(shares, *total)),
        FetchError::Unsettled { settles_in_s, .. } => (
            ExitCode::NotFound,
            format!(
                "use the link that the seeder printed, or wait {settles_in_s} s and try again, or give it more time with --timeout"
            ),
        ),
        FetchError::Misnamed { .. } => (
            ExitCode::Integrity,
            "somebody gave it a wrong name at the tracker; if it is what you want, fetch it by its infohash".to_owned(),
        ),
        FetchError::Interrupted { part: None } => (ExitCode::Interrupted, "nothing was saved".to_owned()),
        FetchError::Interrupted { part: Some(part) } => (
            ExitCode::Interrupted,
            format!(
                "what has arrived is kept in {}: run the same command again to continue",
                part.display()
            ),
        ),
        FetchError::Write(error) if error.is_disk_full() => (
            ExitCode::DiskFull,
            "free some disk space, then run the same command again to continue; what has arrived is kept".to_owned(),
        ),
        FetchError::Write(_) => (ExitCode::Io, KEPT_HINT.to_owned()),
        FetchError::HashersDisagree => (
            ExitCode::Integrity,
            "check its memory and its processor, or fetch the share with another machine; what was saved is proved again before it counts"
                .to_owned(),
        ),
        FetchError::Download(error) => explain_download(error),
        FetchError::Listen(_) => {
            (ExitCode::Network, "choose another port with -p, or omit -p and --bind".to_owned())
        }
    };
    Failure::new(code, error).hint(hint)
}

/// The shares to choose from.
fn candidates(shares: &[ShareEntry], total: usize) -> String {
    let list: Vec<_> = shares.iter().map(|share| format!("\n    {}", describe(share))).collect();
    let more = match total.saturating_sub(shares.len()) {
        0 => String::new(),
        more => format!("\n    and {more} more"),
    };
    format!(
        "ask whoever shares it for the link, or choose one by its infohash. A name proves nothing: most supported first, these are{}{more}",
        list.concat()
    )
}

fn explain_swarm(failure: &SwarmFailure) -> (ExitCode, String) {
    let (code, hint) = match failure {
        SwarmFailure::NoTracker { .. } => (
            ExitCode::Network,
            "check that the tracker is running; name it with --tracker HOST, or a seeder with --peer HOST:PORT and the link or infohash",
        ),
        SwarmFailure::UnknownShare(_) => (ExitCode::NotFound, NOT_FOUND_HINT),
        SwarmFailure::NotAllowed(_) => {
            (ExitCode::NotFound, "name another tracker with --tracker, or a seeder with --peer HOST:PORT")
        }
        SwarmFailure::PeerName(_) => (ExitCode::Network, "check the name given with --peer"),
        SwarmFailure::AllChanged => {
            (ExitCode::NotFound, "start the seeder again, and use the link that it prints then")
        }
        SwarmFailure::AllFull { .. } => {
            (ExitCode::Network, "wait longer with --timeout, or name another seeder with --peer")
        }
        SwarmFailure::BadShare(_) => (ExitCode::Integrity, "share the files again with Shoal's seeder"),
        SwarmFailure::NoPeer { .. } => (
            ExitCode::Network,
            "check that the seeders are running and that this machine can reach their ports",
        ),
        SwarmFailure::OnlyLiars => {
            (ExitCode::Integrity, "no wrong data was saved; find a seeder that you trust")
        }
        SwarmFailure::Stalled { .. } => (ExitCode::Unfinished, KEPT_HINT),
        _ => return other(),
    };
    (code, hint.to_owned())
}

fn other() -> (ExitCode, String) {
    (ExitCode::Other, "'-vv' reports what happened before".to_owned())
}

fn explain_download(error: &DownloadError) -> (ExitCode, String) {
    match error {
        DownloadError::NothingMatches(_) => {
            (ExitCode::NotFound, "--list-files lists the files of the share".to_owned())
        }
        DownloadError::NotReplaceable(_) => {
            (ExitCode::OutputExists, "save elsewhere with -o or -d, or remove it yourself".to_owned())
        }
        DownloadError::OutputDiffers { path, at, how: Difference::Kind } if at == path && path.is_dir() => {
            (ExitCode::OutputExists, format!("save into it with -d {}, or elsewhere with -o", path.display()))
        }
        DownloadError::OutputDiffers { path, .. } if path.is_dir() => (
            ExitCode::OutputExists,
            format!(
                "save elsewhere with -o or -d (into it with -d {}), or replace all of it with --update",
                path.display()
            ),
        ),
        DownloadError::OutputDiffers { .. } => (
            ExitCode::OutputExists,
            "save elsewhere with -o or -d, or replace it with --update or --overwrite".to_owned(),
        ),
        DownloadError::Unrelated(path) => (
            ExitCode::OutputExists,
            format!(
                "save elsewhere with -o or -d (into it with -d {}), or remove it yourself",
                path.display()
            ),
        ),
        DownloadError::CannotExchange(_) => (
            ExitCode::OutputExists,
            "move the old directory away, then run the same command again: the new one is whole beside it"
                .to_owned(),
        ),
        DownloadError::OutputExists(_) => (
            ExitCode::OutputExists,
            "save elsewhere with -o or -d, or replace it with --overwrite".to_owned(),
        ),
        DownloadError::PartInTheWay { .. } => (
            ExitCode::OutputExists,
            "remove it if you do not need it, or save elsewhere with -o or -d".to_owned(),
        ),
        DownloadError::Locked(_) => {
            (ExitCode::OutputExists, "wait until it is done, or save elsewhere with -o or -d".to_owned())
        }
        DownloadError::NoSpace { .. } => {
            (ExitCode::DiskFull, "free some disk space, or save elsewhere with -o or -d".to_owned())
        }
        DownloadError::LinkChanged(_) => (
            ExitCode::Io,
            "make sure that no program writes to the old version, then run the same command again".to_owned(),
        ),
        DownloadError::PartGone(_) => (
            ExitCode::Io,
            "make sure that no other program changes it, then run the same command again to fetch the rest"
                .to_owned(),
        ),
        DownloadError::NotDurable(error) => {
            let code = if error.is_disk_full() { ExitCode::DiskFull } else { ExitCode::Io };
            (code, "check the disk; what was saved before is kept: run the same command again".to_owned())
        }
        DownloadError::NotClaimed(error) | DownloadError::Path(error) if error.is_disk_full() => (
            ExitCode::DiskFull,
            "free some disk space, then run the same command again to continue".to_owned(),
        ),
        DownloadError::NotClaimed(_) | DownloadError::Path(_) => {
            (ExitCode::Io, "check write permission, or save elsewhere with -o or -d".to_owned())
        }
        DownloadError::Stopped(_) => {
            (ExitCode::Interrupted, "run the same command again to continue".to_owned())
        }
        _ => other(),
    }
}
