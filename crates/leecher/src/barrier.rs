//! The program that waits until enough hosts have a share: `shoal wait`.
//!
//! It asks the trackers, fetches nothing, and trusts what they count: hosts that have fetched all of the share since it was
//! registered, those that are gone too. The host that offered it first has not fetched it, so it does not count.

mod hosts;

use std::{
    collections::BTreeSet, future::pending, net::SocketAddr, num::NonZeroU32, process, time::Duration,
};

use clap::{Parser, builder::FalseyValueParser};
use leecher::Target;
use peer::tracker_client::{TrackerClient, TrackerError};
use proto::{
    Endpoint, InfoHash, Zone,
    tracker::{Peers, Query, Shares, message::ShareEntry},
};
use startup::{
    ExitCode, Failure, LogArgs, Output, human_time,
    json::{self, Completions, Event, print_event},
    print_line,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::hosts::{Finished, Hosts, Late};
use crate::{
    cli,
    looking::{self, Look},
};

/// Time between two looks. Hosts announce that they are done at once, so nobody waits much longer than that.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A peer announces how much it has every 30 s, so one that has had no more for a shorter time may well have more.
const STALE_AFTER: Duration = Duration::from_secs(65);

/// Hosts to name if time is up.
const MAX_NAMED: usize = 20;

/// Hosts to name in a line of those that are done since the last one, so that the line fits a terminal.
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
    /// Hosts that do not have all of it, those with least first.
    late: Vec<Late>,
    /// Hosts that have fetched all of it, those that are gone too.
    done: BTreeSet<Finished>,
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
    let (mut trouble, mut hosts) = (None, Hosts::default());
    loop {
        let next = Instant::now() + LOOK_EVERY;
        let looked = tokio::select! {
            looked = look(&args.target, &clients, &mut hosts) => looked,
            () = until(deadline) => return Err(late(&args, last.as_ref(), trouble)),
            () = shutdown.cancelled() => return Err(interrupted()),
        };
        match looked {
            Ok(counts) => {
                let standing = Standing { counts, late: hosts.late(), done: hosts.finished() };
                if last.as_ref() != Some(&standing) {
                    report(&args, &standing, last.as_ref());
                }
                if counts.completed >= args.hosts.get() {
                    return Ok(());
                }
                (last, trouble) = (Some(standing), None);
            }
            Err(Unknown::Unresolved(error)) => {
                return Err(Failure::new(ExitCode::Network, error)
                    .hint("check the name that --tracker or the link gives"));
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
            return Err(late(&args, last.as_ref(), trouble));
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
    /// The name of the only tracker cannot be resolved.
    Unresolved(String),
    /// Several shares have that name.
    Ambiguous(Vec<ShareEntry>),
}

/// Asks all trackers. Peers register with several, so the largest numbers are nearest to the truth.
async fn look(target: &Target, clients: &[TrackerClient], hosts: &mut Hosts) -> Result<Counts, Unknown> {
    let infohash = match target {
        Target::Link(link) => link.infohash,
        Target::InfoHash(infohash) => *infohash,
        Target::Name(_) | Target::Only => find(target, clients).await?,
    };
    let query = Query::Peers { infohash, want: 0, zone: Zone::NONE };
    let answers = ask(clients, |client| {
        let query = query.clone();
        async move { client.peers(query).await }
    });
    let mut most = Counts::default();
    for (Peers { seeders, leechers, completed, .. }, _) in answers.await? {
        most.completed = most.completed.max(completed);
        most.seeders = most.seeders.max(seeders);
        most.leechers = most.leechers.max(leechers);
    }
    hosts.look(infohash, clients).await;
    Ok(most)
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
        Some(error) if clients.len() == 1 && error.is_unresolved() => {
            Err(Unknown::Unresolved(error.to_string()))
        }
        Some(error) if answers.is_empty() => Err(Unknown::ForNow(ExitCode::Network, error.to_string())),
        _ => Ok(answers),
    }
}

fn report(args: &Args, standing: &Standing, before: Option<&Standing>) {
    let Standing { counts: Counts { completed, seeders, leechers }, late, done } = standing;
    let hosts = args.hosts.get();
    if args.json {
        let now = Instant::now();
        let late = late.iter().map(|host| json::Late {
            address: host.address,
            label: host.label.as_str().to_owned(),
            percent: host.progress.percent(),
            unchanged_s: host.unchanged(now).as_secs(),
        });
        let done = done
            .iter()
            .map(|host| json::Done { address: host.address, label: host.label.as_str().to_owned() });
        let completions = Completions {
            completed: *completed,
            hosts,
            seeders: *seeders,
            leechers: *leechers,
            late: late.collect(),
            done: done.collect(),
        };
        return print_event(&match *completed >= hosts {
            true => Event::Reached(completions),
            false => Event::Completions(completions),
        });
    }
    let slowest = match late.first() {
        Some(last) => format!("; {leechers} fetching, the last, {last}, at {}%", last.progress.percent()),
        None => String::new(),
    };
    let new = before.map(|before| new(&before.done, done)).unwrap_or_default();
    print_line(format_args!("{completed} of {hosts} hosts have it{new}{slowest}"));
}

/// Names the hosts that are done since the last line, if there are any.
fn new(before: &BTreeSet<Finished>, now: &BTreeSet<Finished>) -> String {
    let new: Vec<_> = now.difference(before).collect();
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

fn late(args: &Args, last: Option<&Standing>, trouble: Option<(ExitCode, String)>) -> Failure {
    let after = args.timeout.map(human_time).unwrap_or_default();
    let Some(Standing { counts: Counts { completed, leechers, .. }, late, .. }) = last else {
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
    let named = late.iter().take(MAX_NAMED).map(|host| {
        let (percent, unchanged) = (host.progress.percent(), host.unchanged(now));
        match unchanged >= STALE_AFTER {
            true => format!("{host} has {percent}%, and has had no more for {}", human_time(unchanged)),
            false => format!("{host} has {percent}%"),
        }
    });
    let mut named: Vec<_> = named.collect();
    let all = late.len().max(usize::try_from(*leechers).unwrap_or(usize::MAX));
    if let more @ 1.. = all.saturating_sub(named.len()) {
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
        let hosts = |range: std::ops::RangeInclusive<u8>| -> BTreeSet<_> {
            let label = proto::Label::NONE;
            range.map(|host| Finished { address: [10, 0, 0, host].into(), label }).collect()
        };
        assert_eq!(new(&hosts(1..=6), &hosts(2..=6)), "");
        assert_eq!(new(&hosts(1..=5), &hosts(1..=6)), " (new: 10.0.0.6)");
        assert_eq!(new(&hosts(1..=1), &hosts(1..=6)), " (new: 10.0.0.2, 10.0.0.3, 10.0.0.4 and 2 more)");
    }
}
