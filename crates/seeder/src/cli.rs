//! The command line of `seeder`.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    process,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

mod hashing;
mod printing;
mod shelf;
mod watching;

use clap::{Parser, builder::FalseyValueParser};
use peer::{outside, rate_limit::RateLimit};
use proto::{Endpoint, Label, Link, ShareName, Zone};
use startup::{
    ExitCode, Failure, HumanBytes, LogArgs, Output, STATUS_EVERY, Served, StatusLine,
    json::{Event, print_event},
    print_line, serving_line,
};
use store::{Content, Exclusion, Shared, Symlinks};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use web::{HttpArgs, Server};

use crate::{
    Config, DEFAULT_MAX_PEERS, Event as Happened, Seeder,
    registration_report::{News, RegistrationReport},
    seen::{Additions, Seen},
    trackers::{self, Trackers},
};
use hashing::{cache, hash, rules, scan_all};
use printing::{Printer, count, elsewhere, print_shared};
use shelf::{Hashing, Shelf, Shown};

pub(crate) use shelf::{Addition, MAX_ORDERS, Order};

/// The file that is shared if the user names none.
const DEFAULT_FILE: &str = "large_text_file.txt";

/// Two ways to name what is shared. An argument wins over the environment.
pub const EXCLUSIVE: &[(&str, &str)] =
    &[("paths", "files"), ("paths", "watch"), ("files", "watch"), ("name", "watch")];

/// Groups of flags in `--help`.
const SHARES: &str = "What to share";
const NETWORK: &str = "Network";
const CACHE: &str = "Hash cache";
const REPORTING: &str = "Reporting";

/// TCP port of `--http`, if the user names none.
const HTTP_PORT: u16 = 6021;

/// A tracker from which nothing was heard for this long is reported. It is given up for now after another five seconds.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// Time between two lines about what is served, where no line changes in place: a seeder may be busy for days.
const LONGEST_STATUS: Duration = Duration::from_secs(60);

/// Printed below `--help`.
const EXAMPLES: &str = "\
Examples:
  seeder disk.img                      share a file
  seeder models/ --exclude '*.tmp'     share a directory, but no *.tmp in it
  seeder disk.img --tracker 192.0.2.2  use another machine's tracker
  seeder a.iso b.iso -p 7001           share two files, on another port
  seeder --watch /srv/images           share each entry of a directory, new ones too

It prints the command that fetches each share.";

/// Serve files and directories to leechers, and register them with trackers
#[derive(Debug, Parser)]
#[command(name = "seeder", version, after_long_help = EXAMPLES)]
pub struct Args {
    /// Files and directories to share [default: large_text_file.txt]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Another way to name a file or directory to share (repeatable)
    #[arg(
        short, long = "file", value_name = "PATH", env = "SHOAL_FILE", help_heading = SHARES, hide_short_help = true
    )]
    files: Vec<PathBuf>,

    /// Share each entry of this directory, for as long as it is there
    ///
    /// A new entry is shared when it has not changed for 2 s, and a changed one is shared anew. Hidden entries, and those whose names look
    /// unfinished (*.part, *.tmp, *~ and the like), are left out.
    #[arg(long, value_name = "DIR", env = "SHOAL_WATCH", help_heading = SHARES)]
    watch: Option<PathBuf>,

    /// Name of the share [default: the file's]
    ///
    /// By default a share has the name of the file or directory.
    #[arg(long, value_name = "NAME", value_parser = ShareName::new, env = "SHOAL_NAME", help_heading = SHARES)]
    name: Option<ShareName>,

    /// Leave entries like GLOB out of a directory (repeatable)
    ///
    /// GLOB matches a name at any depth (*.tmp), or with a slash in it a path below the directory (docs/*.pdf, /build).
    #[arg(long, value_name = "GLOB", env = "SHOAL_EXCLUDE", help_heading = SHARES)]
    exclude: Vec<Exclusion>,

    /// Refuse a directory with anything but files and directories in it
    ///
    /// By default the seeder leaves sockets, devices, FIFOs and links that cannot be kept out, with a warning.
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_STRICT", help_heading = SHARES,
        hide_short_help = true
    )]
    strict: bool,

    /// Symbolic links in a directory: keep, follow or skip them
    ///
    /// keep: those that stay inside the directory are links in the share too; the seeder leaves others out, with a warning.
    /// follow: the share holds what they lead to. skip: the share holds none.
    #[arg(
        long, value_name = "HOW", default_value = "keep", value_parser = parse_symlinks, env = "SHOAL_SYMLINKS",
        help_heading = SHARES, hide_short_help = true
    )]
    symlinks: Symlinks,

    /// Keep the modification times of files, for leechers that want them
    ///
    /// A share with times has another infohash, and each change of a time makes another share.
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_TIMES", help_heading = SHARES,
        hide_short_help = true
    )]
    times: bool,

    /// TCP port; 0 for any free port
    #[arg(
        short, long, value_name = "PORT", default_value_t = proto::peer::DEFAULT_PORT, value_parser = startup::parse_port,
        env = "SHOAL_PORT", help_heading = NETWORK
    )]
    port: u16,

    /// Tracker [default: 127.0.0.1:6020, or one found in the network]
    ///
    /// The seeder registers its shares there. Repeatable, or separated by commas.
    #[arg(
        long = "tracker", value_name = "HOST[:PORT]", value_delimiter = ',', value_parser = Endpoint::parse_tracker,
        env = "SHOAL_TRACKER", help_heading = NETWORK
    )]
    trackers: Vec<Endpoint>,

    /// Do not look for a tracker in the local network
    ///
    /// By default, without --tracker and without an answer from 127.0.0.1:6020, the seeder looks for trackers by multicast DNS.
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_NO_DISCOVERY", help_heading = NETWORK,
        hide_short_help = true
    )]
    no_discovery: bool,

    /// What people call this host in lists [default: the machine's name]
    ///
    /// The tracker shows it. At most 32 bytes are used.
    #[arg(
        long, value_name = "NAME", value_parser = Label::cut, env = "SHOAL_LABEL", help_heading = NETWORK,
        hide_short_help = true
    )]
    label: Option<Label>,

    /// Where in a network this host is, as a rack or a region [default: nowhere]
    ///
    /// Leechers of other zones fetch little from it, if they are in a zone. At most 32 bytes are used.
    #[arg(
        long, value_name = "NAME", value_parser = Zone::cut, env = "SHOAL_ZONE", help_heading = NETWORK,
        hide_short_help = true
    )]
    zone: Option<Zone>,

    /// Listen on this IP address only [default: all]
    ///
    /// By default the seeder listens on all addresses, IPv4 and IPv6.
    #[arg(
        long, value_name = "ADDR", value_parser = startup::parse_ip, env = "SHOAL_BIND", help_heading = NETWORK,
        hide_short_help = true
    )]
    bind: Option<IpAddr>,

    /// Maximum number of peers to serve at the same time
    #[arg(
        long, value_name = "COUNT", default_value_t = DEFAULT_MAX_PEERS, value_parser = parse_count,
        env = "SHOAL_MAX_PEERS", help_heading = NETWORK, hide_short_help = true
    )]
    max_peers: usize,

    /// Maximum upload rate, as in 10M, 10MiB or 80mbit
    ///
    /// 10M and 10MiB are bytes a second, 80mbit is bits a second. The limit holds for all peers together.
    #[arg(
        long, value_name = "RATE", value_parser = RateLimit::parse, env = "SHOAL_UPLOAD_LIMIT", help_heading = NETWORK
    )]
    upload_limit: Option<RateLimit>,

    /// Hash everything again, and do not remember the hashes
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_NO_CACHE", help_heading = CACHE,
        hide_short_help = true
    )]
    no_cache: bool,

    /// Where to remember hashes [default: shoal/hashes in the user's cache directory]
    #[arg(long, value_name = "DIR", env = "SHOAL_CACHE_DIR", help_heading = CACHE, hide_short_help = true)]
    cache_dir: Option<PathBuf>,

    /// Report what happens on stdout, as one JSON object a line
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_JSON", help_heading = REPORTING,
        hide_short_help = true
    )]
    json: bool,

    #[command(flatten)]
    http: HttpArgs,

    /// Directory below which shares may be added over HTTP (repeatable)
    ///
    /// Without it, requests can remove shares and cannot add any. Otherwise a stolen token would open every file that the seeder can read.
    #[arg(
        long = "http-share-root",
        value_name = "DIR",
        env = "SHOAL_HTTP_SHARE_ROOT",
        requires = "http_token",
        help_heading = "HTTP",
        hide_short_help = true
    )]
    http_share_roots: Vec<PathBuf>,

    #[command(flatten)]
    logs: LogArgs,
}

fn parse_symlinks(text: &str) -> Result<Symlinks, String> {
    match text {
        "keep" => Ok(Symlinks::Keep),
        "follow" => Ok(Symlinks::Follow),
        "skip" => Ok(Symlinks::Skip),
        _ => Err("it must be keep, follow or skip".to_owned()),
    }
}

/// A process can hardly have more than 100,000 connections open.
pub(crate) fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=100_000) => Ok(count),
        _ => Err("it must be a number from 1 to 100000".to_owned()),
    }
}

/// The paths to share.
fn paths(args: &Args) -> Result<Vec<PathBuf>, Failure> {
    let paths = if args.paths.is_empty() { &args.files } else { &args.paths };
    if args.name.is_some() && paths.len() > 1 {
        return Err(Failure::new(ExitCode::Usage, "--name names one share, but several paths are given")
            .hint("start one seeder for each name"));
    }
    if !paths.is_empty() {
        return Ok(paths.clone());
    }
    if !Path::new(DEFAULT_FILE).exists() {
        let error = format!("nothing to share: no path is given, and there is no {DEFAULT_FILE} here");
        return Err(Failure::new(ExitCode::Usage, error)
            .hint("name a file or a directory, as in: seeder PATH (for more, try '--help')"));
    }
    Ok(vec![DEFAULT_FILE.into()])
}

/// Runs the program.
pub fn main(args: Args) -> process::ExitCode {
    let logs = args.logs.clone();
    startup::run("seeder", &logs, Output::of(args.json), |shutdown| run(args, shutdown))
}

async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    if let Some(dir) = args.watch.clone() {
        return watching::run(args, dir, shutdown).await;
    }
    let (paths, output) = (paths(&args)?, Output::of(args.json));
    // Take the port before hashing, so that a port in use is reported at once and not after an hour.
    let tasks = TaskTracker::new();
    let seeder = Seeder::bind(config(&args), &tasks)?;
    let port = seeder.local_addr().port();
    if output == Output::Json {
        print_event(&Event::Listening { address: seeder.local_addr() });
    }
    let (orders_in, orders) = mpsc::channel(MAX_ORDERS);
    let additions = Additions::To { orders: orders_in, roots: share_roots(&args)? };
    let seen = Arc::new(Seen::new(seeder.clone(), additions, shutdown.clone()));
    let stop_http = shutdown.child_token();
    show(&args, &seen, &tasks, &stop_http)?;
    let mut trackers = Trackers::new(args.trackers.clone(), !args.no_discovery, args.bind, output, &tasks);
    let cache = cache(&args);
    // For the same reason all paths are scanned before the first is hashed.
    let scans = scan_all(&paths, &args).await?;
    let mut shares: Vec<Arc<Shared>> = Vec::with_capacity(scans.len());
    let mut described = Vec::with_capacity(scans.len());
    for (path, scan) in scans {
        if output == Output::Text {
            print_line(format_args!("Starting seeder for file '{}' on port {port}", path.display()));
        }
        let shared = hash(path, scan, cache.clone(), output, shutdown.clone()).await?;
        let infohash = shared.metainfo().infohash();
        if shares.iter().any(|other| other.metainfo().infohash() == infohash) {
            tracing::info!("'{}' is shared already", path.display());
            continue;
        }
        seen.share(shared.metainfo());
        shares.push(Arc::new(shared));
        described.push(path);
    }
    let own_address = outside::own_address(args.bind);
    let _ = shutdown.run_until_cancelled(trackers.first_round()).await;
    let asked = trackers.for_links();
    let mut printer = Printer::new(output, port, own_address, asked.clone());
    for (path, shared) in described.iter().zip(&shares) {
        printer.print(path, shared.metainfo());
    }
    if output == Output::Text {
        printer.warn_if_unreachable();
        print_line("Press Ctrl+C to stop");
    }
    let names = shares.iter().map(|s| (s.metainfo().infohash(), s.metainfo().name().clone())).collect();
    // The tracker on this host answers, so no other is looked for.
    let answers = shutdown.child_token();
    let names = Arc::new(Mutex::new(RegistrationReport::new(names)));
    let on_event = report(Arc::clone(&names), trackers.spare(), answers.clone(), Arc::clone(&seen), output);
    let printer = Mutex::new(printer);
    let hashing = Hashing { rules: rules(&args), cache, output };
    let shown = Shown { seen: &seen, names: &names, printer: &printer };
    let mut shelf = Shelf::new(seeder.clone(), hashing, on_event, shown, &shutdown);
    let count = count(shares.len(), "share");
    for shared in shares {
        shelf.share(shared).map_err(|error| Failure::new(ExitCode::Other, error))?;
    }
    startup::report_ready(format_args!("Serving {count} on port {port}"));
    let on_found = |tracker: Endpoint| printer.lock().unwrap_or_else(PoisonError::into_inner).found(tracker);
    let registering = answers.run_until_cancelled(trackers.register(&seeder, on_found));
    let status = shutdown.run_until_cancelled(show_status(&seen, output));
    let waiting = shutdown.run_until_cancelled(report_waiting(&names, &asked, output));
    let (sent, _, _, _) = tokio::join!(shelf.run(orders), registering, status, waiting);
    stop_http.cancel();
    // They hold the port.
    drop((seeder, seen));
    tasks.close();
    tasks.wait().await;
    match output {
        Output::Text => print_line(format_args!("Seeder stopped after sending {}", HumanBytes(sent))),
        Output::Json => print_event(&Event::Left { uploaded: sent }),
    }
    Ok(())
}

fn config(args: &Args) -> Config {
    Config {
        bind: args.bind,
        port: args.port,
        // Shares are registered after they are described.
        trackers: Vec::new(),
        max_peers: args.max_peers,
        upload_limit: args.upload_limit.clone().unwrap_or_default(),
        label: args.label.unwrap_or_else(|| Label::cut(&web::machine_name()).unwrap_or_default()),
        zone: args.zone.unwrap_or_default(),
    }
}

/// Answers HTTP until `stop`, if the user wants that.
fn show(args: &Args, seen: &Arc<Seen>, tasks: &TaskTracker, stop: &CancellationToken) -> Result<(), Failure> {
    let Some(http) = Server::bind(&args.http, HTTP_PORT)? else { return Ok(()) };
    match Output::of(args.json) {
        Output::Text => print_line(format_args!("Page and metrics are at {}", http.url())),
        Output::Json => print_event(&Event::Http { url: &http.url() }),
    }
    tasks.spawn(http.run(Arc::clone(seen) as _, stop.clone()));
    Ok(())
}

/// The directories below which shares may be added over HTTP, as the system names them.
fn share_roots(args: &Args) -> Result<Vec<PathBuf>, Failure> {
    let real = |root: &PathBuf| {
        root.canonicalize()
            .map_err(|error| Failure::io(error, format_args!("--http-share-root {}", root.display())))
    };
    args.http_share_roots.iter().map(real).collect()
}

/// Shows or reports what is served. Does not return.
async fn show_status(seen: &Seen, output: Output) {
    let mut status = match output {
        Output::Text => StatusLine::new(LONGEST_STATUS),
        Output::Json => StatusLine::none(),
    };
    let mut ticks = interval(STATUS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut reported): (_, BTreeMap<String, Served>) = (0, BTreeMap::new());
    loop {
        ticks.tick().await;
        let shares = seen.serving();
        let sent = shares.iter().map(|share| share.sent).sum();
        status.update(sent > before, |width| serving_line(width, &shares));
        before = sent;
        if output == Output::Text {
            continue;
        }
        for share in shares {
            if reported.get(&share.infohash) != Some(&share) {
                print_event(&Event::Serving(&share));
                reported.insert(share.infohash.clone(), share);
            }
        }
    }
}

/// Runs as a program that prints the link of each share, and serves nothing.
pub fn print_only_links(args: Args) -> process::ExitCode {
    let logs = args.logs.clone();
    startup::run("seeder", &logs, Output::of(args.json), |shutdown| only_links(args, shutdown))
}

async fn only_links(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let paths = paths(&args)?;
    let cache = cache(&args);
    let (output, own_address) = (Output::of(args.json), outside::own_address(args.bind));
    let named = if args.trackers.is_empty() { vec![trackers::local()] } else { args.trackers.clone() };
    for (path, scan) in scan_all(&paths, &args).await? {
        let shared = hash(path, scan, cache.clone(), output, shutdown.clone()).await?;
        let metainfo = shared.metainfo();
        let (infohash, name) = (metainfo.infohash(), Some(metainfo.name().clone()));
        let link = Link { infohash, name, trackers: named.clone(), peers: Vec::new() };
        match output {
            Output::Text => print_line(elsewhere(&link, own_address)),
            Output::Json => print_shared(path, metainfo, &link, own_address),
        }
    }
    Ok(())
}

/// Reports registrations to the user, but no failure of the tracker `spare`. Cancels `local_answers` when the tracker on this host
/// accepts a registration.
fn report(
    report: Arc<Mutex<RegistrationReport>>,
    spare: Option<Endpoint>,
    local_answers: CancellationToken,
    seen: Arc<Seen>,
    output: Output,
) -> impl Fn(Happened) + Clone + Send + Sync + 'static {
    move |event| {
        tracing::debug!(?event);
        seen.note(&event);
        let named = |infohash| report.lock().unwrap_or_else(PoisonError::into_inner).name(infohash);
        match &event {
            Happened::Announced { tracker, .. } if *tracker == trackers::local() => local_answers.cancel(),
            Happened::NotAnnounced { error, .. } if Some(error.endpoint()) == spare.as_ref() => return,
            Happened::PeerJoined { infohash, address } => {
                tracing::info!(%address, share = named(infohash), "peer joined");
            }
            Happened::PeerLeft { infohash, address, sent } => {
                tracing::info!(%address, share = named(infohash), sent = %HumanBytes(*sent), "peer left");
            }
            _ => {}
        }
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        let news = report.news(&event);
        if output == Output::Json
            && let name = report.name(event.infohash())
            && let Some(event) = event_of(&event, &name, news.as_ref())
        {
            print_event(&event);
        }
        match news {
            Some(News::Good(text)) if output == Output::Text => print_line(text),
            Some(News::Bad(text)) => tracing::warn!("{text}"),
            Some(News::Good(_)) | None => {}
        }
    }
}

/// Reports the trackers from which nothing was heard for [`FIRST_WORD`].
async fn report_waiting(report: &Mutex<RegistrationReport>, asked: &[Endpoint], output: Output) {
    sleep(FIRST_WORD).await;
    let report = report.lock().unwrap_or_else(PoisonError::into_inner);
    for tracker in asked.iter().filter(|tracker| !report.has_heard_of(tracker)) {
        let message = format!("Waiting for tracker {tracker} to answer");
        match output {
            Output::Text => print_line(message),
            Output::Json => print_event(&Event::Warning { kind: "tracker", message }),
        }
    }
}

/// What is reported about an event of the seeder, if it is news.
fn event_of<'a>(event: &Happened, name: &'a str, news: Option<&News>) -> Option<Event<'a>> {
    let infohash = event.infohash().to_string();
    let news = news.map(|(News::Good(text) | News::Bad(text))| text.clone());
    Some(match event {
        Happened::Announced { tracker, announced, .. } => {
            news?;
            let (tracker, seeders, leechers) = (tracker.to_string(), announced.seeders, announced.leechers);
            Event::Registered { infohash, name, tracker, seeders, leechers }
        }
        Happened::NotAnnounced { error, .. } => {
            Event::NotRegistered { infohash, name, tracker: error.endpoint().to_string(), message: news? }
        }
        Happened::Withdrawn { .. } => Event::Withdrawn { infohash, name, message: news? },
        Happened::PeerJoined { address, .. } => Event::ReceiverJoined { infohash, name, address: *address },
        Happened::PeerLeft { address, sent, .. } => {
            Event::ReceiverLeft { infohash, name, address: *address, sent: *sent }
        }
    })
}
