//! The program that waits until enough hosts have a share: `shoal wait`.
//!
//! It asks the trackers, fetches nothing, and trusts what they count: hosts that have fetched all of the share since it was
//! registered, those that are gone too. The host that offered it first has not fetched it, so it does not count.

use std::{
    collections::BTreeMap, future::pending, net::SocketAddr, num::NonZeroU32, process, time::Duration,
};

use clap::{Parser, builder::FalseyValueParser};
use leecher::Target;
use peer::tracker_client::{TrackerClient, TrackerError};
use proto::{
    Endpoint, InfoHash, Zone,
    tracker::{
        Peers, Query, Shares,
        message::{Completion, MAX_PEERS, ShareEntry},
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

use crate::{
    cli,
    looking::{self, Look},
};

/// Time between two looks. Hosts announce that they are done at once, so nobody waits much longer than that.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A peer announces how much it has every 30 s, so one that has had no more for a shorter time may well have more.
const STALE_AFTER: Duration = Duration::from_secs(65);

/// A peer that is in no answer for this long has left. An answer names fifty peers, drawn at random. So in a share of 500 peers, one in 500
/// is in none of sixty answers.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// Peers to name if time is up.
const MAX_NAMED: usize = 20;

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

/// What the trackers know of the share.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Standing {
    completed: u32,
    seeders: u32,
    leechers: u32,
    /// Peers that do not have all of it, and how many percent they have: those that are late first.
    late: Vec<(u8, SocketAddr)>,
}

/// Peers in an answer, and how much each has.
type Sample = Vec<(SocketAddr, Completion)>;

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
    let (mut trouble, mut met) = (None, Met::default());
    loop {
        let next = Instant::now() + LOOK_EVERY;
        let looked = tokio::select! {
            looked = look(&args.target, &clients) => looked,
            () = until(deadline) => return Err(late(&args, last.as_ref(), &met, trouble)),
            () = shutdown.cancelled() => return Err(interrupted()),
        };
        match looked {
            Ok((standing, sample)) => {
                met.note(&sample, Instant::now());
                let standing = Standing { late: met.late(), ..standing };
                if last.as_ref() != Some(&standing) {
                    report(&args, &standing, &met);
                }
                if standing.completed >= args.hosts.get() {
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
            return Err(late(&args, last.as_ref(), &met, trouble));
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

/// The peers that were met and do not have all of it.
#[derive(Debug, Default)]
struct Met(BTreeMap<SocketAddr, Progress>);

#[derive(Debug)]
struct Progress {
    percent: u8,
    /// When it was first met with so much.
    since: Instant,
    /// When it was last met.
    met: Instant,
}

impl Met {
    fn note(&mut self, sample: &Sample, now: Instant) {
        for &(address, progress) in sample {
            if progress.is_complete() {
                self.0.remove(&address);
                continue;
            }
            let percent = progress.percent();
            let peer = self.0.entry(address).or_insert(Progress { percent, since: now, met: now });
            if peer.percent != percent {
                (peer.percent, peer.since) = (percent, now);
            }
            peer.met = now;
        }
        self.0.retain(|_, peer| now < peer.met + GONE_AFTER);
    }

    /// Those that have least first.
    fn late(&self) -> Vec<(u8, SocketAddr)> {
        let mut late: Vec<_> = self.0.iter().map(|(&address, peer)| (peer.percent, address)).collect();
        late.sort_unstable();
        late
    }

    /// For how long a peer has had what it has.
    fn unchanged(&self, address: &SocketAddr) -> Duration {
        self.0.get(address).map_or(Duration::ZERO, |peer| peer.since.elapsed())
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
async fn look(target: &Target, clients: &[TrackerClient]) -> Result<(Standing, Sample), Unknown> {
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
    let (mut all, mut sample) = (Standing::default(), Sample::new());
    for (Peers { seeders, leechers, completed, peers, .. }, tracker) in answers.await? {
        all.completed = all.completed.max(completed);
        all.seeders = all.seeders.max(seeders);
        all.leechers = all.leechers.max(leechers);
        sample.extend(peers.iter().filter_map(|peer| Some((peer.socket_addr(tracker)?, peer.progress))));
    }
    Ok((all, sample))
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

fn report(args: &Args, standing: &Standing, met: &Met) {
    let Standing { completed, seeders, leechers, late } = standing;
    let hosts = args.hosts;
    if args.json {
        let late = late.iter().map(|&(percent, address)| Late {
            address,
            percent,
            unchanged_s: met.unchanged(&address).as_secs(),
        });
        let (completed, seeders, leechers) = (*completed, *seeders, *leechers);
        let is_reached = completed >= hosts.get();
        let hosts = hosts.get();
        let completions = Completions { completed, hosts, seeders, leechers, late: late.collect() };
        return print_event(&match is_reached {
            true => Event::Reached(completions),
            false => Event::Completions(completions),
        });
    }
    let slowest = match late.first() {
        Some((percent, address)) => format!("; {leechers} fetching, the last ({address}) at {percent}%"),
        None => String::new(),
    };
    print_line(format_args!("{completed} of {hosts} hosts have it{slowest}"));
}

fn late(args: &Args, last: Option<&Standing>, met: &Met, trouble: Option<(ExitCode, String)>) -> Failure {
    let after = args.timeout.map(human_time).unwrap_or_default();
    let Some(Standing { completed, late, .. }) = last else {
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
    let named = late.iter().take(MAX_NAMED).map(|(percent, address)| {
        let unchanged = met.unchanged(address);
        match unchanged >= STALE_AFTER {
            true => format!("{address} has {percent}%, and has had no more for {}", human_time(unchanged)),
            false => format!("{address} has {percent}%"),
        }
    });
    failure.hint(named.collect::<Vec<_>>().join("\n  "))
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

    fn peer(number: u8) -> SocketAddr {
        ([10, 0, 0, number], 1).into()
    }

    fn sample(peers: &[(u8, u32)]) -> Sample {
        peers.iter().map(|&(number, percent)| (peer(number), Completion::of(percent, 100))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_slow_since_it_was_seen_to_have_more() {
        let mut met = Met::default();
        for (peers, pause) in [([(1, 40), (2, 40)], 50), ([(1, 40), (2, 50)], 30)] {
            met.note(&sample(&peers), Instant::now());
            tokio::time::advance(Duration::from_secs(pause)).await;
        }
        assert_eq!([peer(1), peer(2)].map(|peer| met.unchanged(&peer).as_secs()), [80, 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_are_late_are_known_although_each_answer_names_some() {
        let mut met = Met::default();
        for peers in [&[(1, 40), (2, 30), (3, 20)][..], &[(4, 10)], &[(3, 100)]] {
            tokio::time::advance(Duration::from_secs(10)).await;
            met.note(&sample(peers), Instant::now());
        }
        assert_eq!(met.late(), [(10, peer(4)), (30, peer(2)), (40, peer(1))], "and one is done");
        tokio::time::advance(Duration::from_secs(45)).await;
        met.note(&sample(&[]), Instant::now());
        assert_eq!(met.late(), [(10, peer(4))], "the others have left");
    }
}
