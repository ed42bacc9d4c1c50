//! `--list`: the shares that trackers know.

use leecher::{FetchError, list_shares};
use peer::tracker_client::TrackerClient;
use proto::{Endpoint, Link, tracker::message::ShareEntry};
use startup::{HumanBytes, print_json_line, print_line};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Lists the shares that the trackers know.
pub(crate) async fn list(
    trackers: Vec<Endpoint>,
    json: bool,
    shutdown: CancellationToken,
) -> Result<(), FetchError> {
    let tasks = TaskTracker::new();
    let clients: Vec<_> =
        trackers.iter().map(|endpoint| TrackerClient::spawn(endpoint.clone(), None, &tasks)).collect();
    let shares = tokio::select! {
        shares = list_shares(&clients) => shares?,
        () = shutdown.cancelled() => return Err(FetchError::Interrupted { part: None }),
    };
    if json {
        for share in &shares {
            let entry = serde_json::json!({
                "infohash": share.infohash.to_string(), "name": share.name.as_str(), "size": share.size,
                "seeders": share.seeders, "leechers": share.leechers, "addresses": share.sites,
                "link": link(share, &trackers).to_string(),
            });
            print_json_line(&entry.to_string());
        }
        return Ok(());
    }
    if shares.is_empty() {
        print_line("The tracker knows no shares.");
    }
    for share in &shares {
        print_line(describe(share));
        print_line(format_args!("  {}", link(share, &trackers)));
    }
    Ok(())
}

/// A line about a share.
pub(crate) fn describe(share: &ShareEntry) -> String {
    let ShareEntry { infohash, name, size, seeders, leechers, sites, votes: _, completed: _ } = share;
    let (size, mut seeders, leechers) =
        (HumanBytes(*size).to_string(), count(*seeders, "seeder"), count(*leechers, "leecher"));
    if share.seeders > 1 {
        seeders += &match sites {
            1 => " at 1 address".to_owned(),
            sites => format!(" at {sites} addresses"),
        };
    }
    format!("{infohash}  {size:>10}  {seeders}, {leechers}  {name}")
}

/// Formats a number of things: "1 seeder", "2 seeders".
fn count(number: u32, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn link(share: &ShareEntry, trackers: &[Endpoint]) -> Link {
    Link {
        infohash: share.infohash,
        name: Some(share.name.clone()),
        trackers: trackers.to_vec(),
        peers: Vec::new(),
    }
}
