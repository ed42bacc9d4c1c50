//! `--list`: the shares that trackers know.

use leecher::{FetchError, Known, Target, known_shares};
use peer::tracker_client::TrackerClient;
use proto::{Endpoint, InfoHash, Link, tracker::message::ShareEntry};
use startup::{
    ExitCode, Failure, HumanBytes, Output,
    console::{cut, stdout_width},
    eprint_line, escape,
    json::{Event, Listed, print_event},
    print_line,
};
use store::FilePattern;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::explain::explain;

/// Hexadecimal digits of an infohash that tell shares apart at a glance. `--long` shows all of it.
const SHORT: usize = 12;

/// Fewer digits are a name, not the beginning of an infohash.
const MIN_PREFIX: usize = 8;

/// In which order shares are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    /// By name; of one name, the best supported first.
    #[default]
    Name,
    /// The largest first.
    Size,
    /// Those with most seeders first.
    Seeders,
}

/// How a list is printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) output: Output,
    pub(crate) sort: Sort,
    /// Whether with whole infohashes, and links.
    pub(crate) is_long: bool,
}

/// Which shares are listed.
enum Pattern {
    InfoHash(InfoHash),
    Name { pattern: FilePattern, text: String },
}

/// Lists the shares that the trackers know and that one of `targets` fits, or all if there are none.
pub(crate) async fn list(
    trackers: Vec<Endpoint>,
    targets: &[Target],
    style: Style,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let patterns = targets.iter().filter_map(pattern).collect::<Result<Vec<_>, _>>()?;
    let tasks = TaskTracker::new();
    let clients: Vec<_> =
        trackers.iter().map(|endpoint| TrackerClient::spawn(endpoint.clone(), None, &tasks)).collect();
    let Known { mut shares, is_cut } = tokio::select! {
        known = known_shares(&clients) => known.map_err(explain)?,
        () = shutdown.cancelled() => return Err(explain(FetchError::Interrupted { part: None })),
    };
    let is_empty = shares.is_empty();
    shares.retain(|share| patterns.is_empty() || patterns.iter().any(|pattern| pattern.fits(share)));
    match style.sort {
        // They come with the best supported first, and a stable sort keeps that order within a name.
        Sort::Name => shares.sort_by(|a, b| a.name.cmp(&b.name)),
        Sort::Size => shares.sort_by_key(|share| std::cmp::Reverse(share.size)),
        Sort::Seeders => shares.sort_by_key(|share| std::cmp::Reverse(share.seeders)),
    }
    match style.output {
        Output::Json => {
            for share in &shares {
                print_event(&listed(share, &trackers));
            }
            print_event(&Event::EndOfList { listed: shares.len(), cut: is_cut });
        }
        Output::Text if is_empty => print_line("The tracker knows no shares."),
        Output::Text if shares.is_empty() => {}
        Output::Text => print_table(&shares, style.is_long, &trackers),
    }
    if shares.is_empty() && !is_empty {
        let asked: Vec<_> = targets.iter().map(|target| format!("'{target}'")).collect();
        return Err(Failure::new(ExitCode::NotFound, format!("no share fits {}", asked.join(" or ")))
            .hint("list all with --list alone; a pattern has to fit the whole name, as in '*.img'"));
    }
    if is_cut && style.output == Output::Text {
        eprint_line("warning: the list is cut: the tracker knows more shares");
    }
    Ok(())
}

fn pattern(target: &Target) -> Option<Result<Pattern, Failure>> {
    Some(Ok(match target {
        Target::Link(link) => Pattern::InfoHash(link.infohash),
        Target::InfoHash(infohash) => Pattern::InfoHash(*infohash),
        Target::Name(name) => {
            let text = name.as_str().to_owned();
            match text.parse() {
                Ok(pattern) => Pattern::Name { pattern, text },
                Err(error) => return Some(Err(Failure::new(ExitCode::Usage, error))),
            }
        }
        Target::Only => return None,
    }))
}

impl Pattern {
    fn fits(&self, share: &ShareEntry) -> bool {
        match self {
            Pattern::InfoHash(infohash) => share.infohash == *infohash,
            Pattern::Name { pattern, text } => {
                let begins = || share.infohash.to_string().starts_with(&text.to_ascii_lowercase());
                pattern.fits_name(&share.name) || text.len() >= MIN_PREFIX && begins()
            }
        }
    }
}

/// Prints a line for each share. On a terminal no line wraps; elsewhere names are whole.
fn print_table(shares: &[ShareEntry], is_long: bool, trackers: &[Endpoint]) {
    let width = stdout_width().filter(|_| !is_long).unwrap_or(usize::MAX);
    let print = |line: &str| print_line(cut(line, width));
    let digits = if is_long { 64 } else { SHORT };
    let more = if is_long { "  ADDRESSES  FETCHED" } else { "" };
    print(&format!("{:digits$}  {:>10}  SEEDERS  LEECHERS{more}  NAME", "INFOHASH", "SIZE"));
    for share in shares {
        let ShareEntry { infohash, name, size, seeders, leechers, sites, completed, .. } = share;
        let (infohash, size) = (infohash.to_string(), HumanBytes(*size).to_string());
        let more = if is_long { format!("  {sites:>9}  {completed:>7}") } else { String::new() };
        let infohash = infohash.get(..digits).unwrap_or(&infohash);
        let name = escape(name.as_str());
        print(&format!("{infohash}  {size:>10}  {seeders:>7}  {leechers:>8}{more}  {name}"));
        if is_long {
            print_line(format_args!("  {}", link(share, trackers)));
        }
    }
}

fn listed<'a>(share: &'a ShareEntry, trackers: &[Endpoint]) -> Event<'a> {
    Event::Listed(Listed {
        infohash: share.infohash.to_string(),
        name: share.name.as_str(),
        size: share.size,
        seeders: share.seeders,
        leechers: share.leechers,
        addresses: share.sites,
        completed: share.completed,
        link: link(share, trackers).to_string(),
    })
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
