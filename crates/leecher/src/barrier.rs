//! The program that waits until enough hosts have a share: `shoal wait`.
//!
//! It asks the trackers, fetches nothing, and trusts what they count: hosts that have fetched all of the share since it was
//! registered, those that are gone too. The host that offered it first has not fetched it, so it does not count.

mod known;

use std::{future::pending, net::SocketAddr, num::NonZeroU32, process, time::Duration};

use clap::{Parser, builder::FalseyValueParser};
use leecher::Target;
use peer::tracker_client::{TrackerClient, TrackerError};
use proto::{
    Endpoint, InfoHash, Zone,
    tracker::{
        Peers, Query, Shares,
        message::{MAX_PEERS, ShareEntry},
    },
};
use startup::{
    ExitCode, Failure, LogArgs, Output, human_time,
    json::{Completions, Event, Late, print_event},
    print_line,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::known::{Known, LatePeer, Sample};
use crate::{
    cli,
    looking::{self, Look},
};

/// Time between two looks. Hosts announce that they are done at once, so nobody waits much longer than that.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A peer announces how much it has every 30 s, so one that has had no more for a shorter time may well have more.
const STALE_AFTER: Duration = Duration::from_secs(65);

/// Peers to name if time is up.
const MAX_NAMED: usize = 20;

/// Peers to name in a line of those that are done since the last one, so that the line fits a terminal.
const MAX_NEW: usize = 3;

/// Wait until enough hosts have all of a share
#[derive(Debug, Parser)]
#[command(name = "wait", version)]
pub struct Args {
    /// Link, infohash or name of the share
    #[arg(value_name = "LINK|INFOHASH|NAME", value_parser = cli::parse_target)]
    target: Target,

    /// Number of hosts that must have fetched all of it
    ///
    /// Hosts are distinct by address and --label. Those that are gone count too, and the one that offered the share does not.
    #[arg(long, value_name = "NUMBER", env = "SHOAL_HOSTS")]
    hosts: NonZeroU32,

    /// Give up after this long, with exit code 7 [default: never]
    #[arg(long, value_name = "TIME", value_parser = startup::parse_timeout, env = "SHOAL_TIMEOUT")]
    timeout: Option<Duration>,

    /// Tracker [default: the link's, or 127.0.0.1:6020, or one in the network]
    ///
    /// Repeatable, or separated by commas.
    #[arg(
        long = "tracker", value_name = "HOST[:PORT]", value_delimiter = ',', value_parser = Endpoint::parse_tracker,
        env = "SHOAL_TRACKER"
    )]
    trackers: Vec<Endpoint>,

    /// Do not look for a tracker in the local network
    ///
    /// By default, without a tracker that is named and without an answer from 127.0.0.1:6020, trackers are looked for by multicast DNS.
    #[arg(long, value_parser = FalseyValueParser::new(), env = "SHOAL_NO_DISCOVERY", hide_short_help = true)]
    no_discovery: bool,

    /// Report on stdout, as one JSON object a line
    #[arg(long, value_parser = FalseyValueParser::new(), env = "SHOAL_JSON")]
    json: bool,

    #[command(flatten)]
    logs: LogArgs,
}

/// What the trackers count.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    completed: u32,
    seeders: u32,
    leechers: u32,
}

/// What is known of the share.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    counts: Counts,
    /// Peers that do not have all of it, those with least first.
    late: Vec<LatePeer>,
    /// Peers that have all of it, and are there.
    done: Vec<SocketAddr>,
}

/// Runs the program.
pub fn main(args: Args) -> process::ExitCode {
    let logs = args.logs.clone();
    startup::run("wait", &logs, Output::of(args.json), |shutdown| wait(args, shutdown))
}

async fn wait(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    let tasks = TaskTracker::new();
    let trackers = trackers(&args, &shutdown).await;
    let clients: Vec<_> =
        trackers.into_iter().map(|tracker| TrackerClient::spawn(tracker, None, &tasks)).collect();
    let mut last: Option<Standing> = None;
    let (mut trouble, mut known) = (None, Known::default());
    loop {
        let next = Instant::now() + LOOK_EVERY;
        let looked = tokio::select! {
            looked = look(&args.target, &clients) => looked,
            () = until(deadline) => return Err(late(&args, last.as_ref(), &known, trouble)),
            () = shutdown.cancelled() => return Err(interrupted()),
        };
        match looked {
            Ok((counts, sample)) => {
                known.note(&sample, Instant::now());
                let standing = Standing { counts, late: known.late(), done: known.done() };
                if last.as_ref() != Some(&standing) {
                    report(&args, &standing, last.as_ref(), &known);
                }
                if counts.completed >= args.hosts.get() {
                    return Ok(());
                }
                (last, trouble) = (Some(standing), None);
            }
            Err(Unknown::Ambiguous(shares)) => return Err(ambiguous(&args.target, &shares)),
            Err(Unknown::ForNow(code, error)) => {
                if trouble.is_none() {
                    let message = format!("{error}; still waiting");
                    tracing::warn!("{message}");
                    if args.json {
                        print_event(&Event::Warning { kind: "tracker", message });
                    }
                }
                trouble = Some((code, error));
            }
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(late(&args, last.as_ref(), &known, trouble));
        }
        let next = deadline.map_or(next, |deadline| next.min(deadline));
        tokio::select! {
            () = sleep_until(next) => {}
            () = shutdown.cancelled() => return Err(interrupted()),
        }
    }
}

/// Waits for a moment that may never come.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// The trackers to ask. If none is named, the one on this host or those that are found in the network.
async fn trackers(args: &Args, shutdown: &CancellationToken) -> Vec<Endpoint> {
    match &args.target {
        _ if !args.trackers.is_empty() => args.trackers.clone(),
        Target::Link(link) if !link.trackers.is_empty() => link.trackers.clone(),
        _ => {
            let report = if args.json { looking::Report::Json } else { looking::Report::Line };
            let look = (!args.no_discovery).then_some(Look { bind: None, report });
            looking::local_or_found(look, shutdown).await
        }
    }
}

/// Why nothing is known.
enum Unknown {
    /// No tracker knows the share (exit code 3), or none answers (6). That may change.
    ForNow(ExitCode, String),
    /// Several shares have that name.
    Ambiguous(Vec<ShareEntry>),
}

/// Asks all trackers. Peers register with several, so the largest numbers are nearest to the truth.
async fn look(target: &Target, clients: &[TrackerClient]) -> Result<(Counts, Sample), Unknown> {
    let infohash = match target {
        Target::Link(link) => link.infohash,
        Target::InfoHash(infohash) => *infohash,
        Target::Name(_) | Target::Only => find(target, clients).await?,
    };
    let query = Query::Peers { infohash, want: u8::try_from(MAX_PEERS).unwrap_or(u8::MAX), zone: Zone::NONE };
    let answers = ask(clients, |client| {
        let query = query.clone();
        async move { client.peers(query).await }
    });
    let (mut most, mut sample) = (Counts::default(), Sample::default());
    for (Peers { seeders, leechers, completed, peers, .. }, tracker) in answers.await? {
        most.completed = most.completed.max(completed);
        most.seeders = most.seeders.max(seeders);
        most.leechers = most.leechers.max(leechers);
        // Some peers may have registered with one tracker only.
        sample.all = sample
            .all
            .saturating_add(usize::try_from(seeders.saturating_add(leechers)).unwrap_or(usize::MAX));
        for peer in peers {
            let Some(address) = peer.socket_addr(tracker) else { continue };
            // Trackers are asked at once, so what differs is how long ago a peer announced itself.
            let progress = sample.peers.entry(address).or_insert(peer.progress);
            *progress = (*progress).max(peer.progress);
        }
    }
    Ok((most, sample))
}

/// The only share of a name.
async fn find(target: &Target, clients: &[TrackerClient]) -> Result<InfoHash, Unknown> {
    let query = match target {
        Target::Name(name) => Query::Named { name: name.clone(), after: None },
        _ => Query::List { after: None },
    };
    let answers = ask(clients, |client| {
        let query = query.clone();
        async move { client.shares(query).await }
    });
    let mut found: Vec<ShareEntry> = Vec::new();
    for (Shares { shares, .. }, _) in answers.await? {
        for share in shares {
            if !found.iter().any(|known| known.infohash == share.infohash) {
                found.push(share);
            }
        }
    }
    match &found[..] {
        [] => Err(Unknown::ForNow(ExitCode::NotFound, format!("no tracker knows {target} yet"))),
        [share] => Ok(share.infohash),
        _ => Err(Unknown::Ambiguous(found)),
    }
}

/// The answers of all trackers that give one.
async fn ask<T, F>(
    clients: &[TrackerClient],
    ask: impl Fn(TrackerClient) -> F,
) -> Result<Vec<(T, SocketAddr)>, Unknown>
where
    T: Send + 'static,
    F: Future<Output = Result<(T, SocketAddr), TrackerError>> + Send + 'static,
{
    let asking: JoinSet<_> = clients.iter().cloned().map(ask).collect();
    let (mut answers, mut error) = (Vec::new(), None);
    for answer in asking.join_all().await {
        match answer {
            Ok(answer) => answers.push(answer),
            Err(refusal) => error = Some(refusal),
        }
    }
    match error {
        Some(error) if answers.is_empty() => Err(Unknown::ForNow(ExitCode::Network, error.to_string())),
        _ => Ok(answers),
    }
}

fn report(args: &Args, standing: &Standing, before: Option<&Standing>, known: &Known) {
    let Standing { counts: Counts { completed, seeders, leechers }, late, done } = standing;
    let hosts = args.hosts.get();
    if args.json {
        let now = Instant::now();
        let late = late.iter().map(|late| Late {
            address: late.address,
            percent: late.progress.percent(),
            unchanged_s: known.unchanged(&late.address, now).as_secs(),
        });
        let completions = Completions {
            completed: *completed,
            hosts,
            seeders: *seeders,
            leechers: *leechers,
            late: late.collect(),
            done: done.clone(),
        };
        return print_event(&match *completed >= hosts {
            true => Event::Reached(completions),
            false => Event::Completions(completions),
        });
    }
    let slowest = match late.first() {
        Some(LatePeer { progress, address }) => {
            format!("; {leechers} fetching, the last ({address}) at {}%", progress.percent())
        }
        None => String::new(),
    };
    let new = before.map(|before| new(&before.done, done)).unwrap_or_default();
    print_line(format_args!("{completed} of {hosts} hosts have it{new}{slowest}"));
}

/// Names the peers that are done since the last line, if there are any.
fn new(before: &[SocketAddr], now: &[SocketAddr]) -> String {
    let new: Vec<_> = now.iter().filter(|address| !before.contains(address)).collect();
    if new.is_empty() {
        return String::new();
    }
    let named: Vec<_> = new.iter().take(MAX_NEW).map(ToString::to_string).collect();
    let others = match new.len().saturating_sub(MAX_NEW) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(" (new: {}{others})", named.join(", "))
}

fn late(args: &Args, last: Option<&Standing>, known: &Known, trouble: Option<(ExitCode, String)>) -> Failure {
    let after = args.timeout.map(human_time).unwrap_or_default();
    let Some(Standing { counts: Counts { completed, .. }, late, .. }) = last else {
        let (code, why) = trouble.unwrap_or((ExitCode::Network, "no tracker answered".to_owned()));
        return Failure::new(
            code,
            format!("how many hosts have {} is not known after {after}: {why}", args.target),
        );
    };
    let mut error = format!("{completed} of {} hosts have {} after {after}", args.hosts, args.target);
    if let Some((_, trouble)) = trouble {
        error = format!("{error}: {trouble}");
    }
    let failure = Failure::new(ExitCode::Unfinished, error);
    if late.is_empty() {
        return failure;
    }
    let now = Instant::now();
    let named = late.iter().take(MAX_NAMED).map(|LatePeer { progress, address }| {
        let (percent, unchanged) = (progress.percent(), known.unchanged(address, now));
        match unchanged >= STALE_AFTER {
            true => format!("{address} has {percent}%, and has had no more for {}", human_time(unchanged)),
            false => format!("{address} has {percent}%"),
        }
    });
    let mut named: Vec<_> = named.collect();
    if let more @ 1.. = late.len().saturating_sub(MAX_NAMED) {
        named.push(format!("and {more} more are late"));
    }
    failure.hint(named.join("\n  "))
}

fn ambiguous(target: &Target, shares: &[ShareEntry]) -> Failure {
    let choices = shares.iter().take(MAX_NAMED).map(|share| format!("{}  {}", share.infohash, share.name));
    Failure::new(
        ExitCode::Usage,
        format!("{} shares fit {target}: name one by its infohash or link", shares.len()),
    )
    .hint(choices.collect::<Vec<_>>().join("\n  "))
}

fn interrupted() -> Failure {
    Failure::new(ExitCode::Interrupted, "stopped before enough hosts had it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_new_are_named_and_the_others_counted() {
        let hosts: Vec<SocketAddr> = (1..=6).map(|host| ([10, 0, 0, host], 7000).into()).collect();
        assert_eq!(new(&hosts, &hosts[1..]), "");
        assert_eq!(new(&hosts[..5], &hosts), " (new: 10.0.0.6:7000)");
        assert_eq!(
            new(&hosts[..1], &hosts),
            " (new: 10.0.0.2:7000, 10.0.0.3:7000, 10.0.0.4:7000 and 2 more)"
        );
    }
}
