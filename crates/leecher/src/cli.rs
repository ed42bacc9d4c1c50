//! The command line of `leecher`.

use std::{net::IpAddr, path::PathBuf, process, sync::Arc, time::Duration};

use clap::{Parser, builder::FalseyValueParser};
use etcetera::{BaseStrategy, choose_base_strategy};
use leecher::{
    Checked, Config, DEFAULT_MAX_PEERS, DEFAULT_STALL_TIMEOUT, Description, Destination, Fetched,
    ParseTargetError, Replace, Stay, Target, View,
};
use peer::{acceptor::Acceptor, rate_limit::RateLimit};
use proto::{Endpoint, Label, ShareName, link::MAX_ENDPOINTS};
use startup::{ExitCode, Failure, LogArgs, eprint_line, human_time};
use store::FilePattern;
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use web::{HttpArgs, Server};

use crate::{
    checking,
    explain::explain,
    file_list, listing,
    looking::{self, Look, Transfer},
    report::{self, Reporter, Style, Subject},
    screen::Screen,
    seen::{Seen, SeenTransfer},
};

/// Flags that exclude each other.
pub const EXCLUSIVE: &[(&str, &str)] = &[
    ("list", "targets"),
    ("list", "file"),
    ("list", "list_files"),
    ("list", "only"),
    ("list", "check"),
    ("list", "update"),
    ("list", "from"),
    ("update", "overwrite"),
    ("check", "update"),
    ("check", "overwrite"),
    ("check", "from"),
    ("check", "list_files"),
    ("check", "seed"),
    ("check", "seed_for"),
    ("check", "seed_ratio"),
    ("list_files", "update"),
    ("list_files", "from"),
    ("list_files", "output"),
    ("list_files", "dir"),
    ("list_files", "seed"),
    ("list_files", "seed_for"),
    ("list_files", "seed_ratio"),
    ("list_files", "stay_until_hosts"),
    ("file", "targets"),
    ("output", "dir"),
    ("json", "quiet"),
    ("no_serve", "seed"),
    ("no_serve", "seed_for"),
    ("no_serve", "seed_ratio"),
    ("no_serve", "stay_until_hosts"),
    ("seed", "stay_until_hosts"),
    ("seed_for", "stay_until_hosts"),
    ("seed_ratio", "stay_until_hosts"),
    ("seed", "seed_for"),
    ("seed", "seed_ratio"),
    ("seed_for", "seed_ratio"),
];

/// Groups of flags in `--help`.
const SOURCE: &str = "Source";
const OUTPUT: &str = "Output";
const LIMITS: &str = "Limits";
const SERVING: &str = "Serving other leechers";
const REPORTING: &str = "Reporting";

const FETCH: Transfer<Fetched> = |config, on_event, stop| Box::pin(leecher::fetch(config, on_event, stop));
const CHECK: Transfer<Checked> = |config, on_event, stop| Box::pin(leecher::check(config, on_event, stop));
const DESCRIBE: Transfer<Description> =
    |config, on_event, stop| Box::pin(leecher::describe(config, on_event, stop));

/// TCP port of `--http`, if the user names none: any free one, because a machine may run several leechers.
const HTTP_PORT: u16 = 0;

/// Printed below `--help`.
const EXAMPLES: &str = "\
Examples:
  leecher 'magnet:?xt=urn:btmh:1220…'     fetch by a seeder's link
  leecher disk.img --tracker 192.0.2.2    fetch by name
  leecher --list --tracker 192.0.2.2      list the shares that a tracker knows
  leecher 'magnet:?…' -d /data --seed     save in /data, and go on serving
  leecher INFOHASH --peer 192.0.2.2:7000  fetch without a tracker
  leecher disk.img models -d /data        fetch several shares at the same time
  leecher models --update                 replace an earlier version by the share as it is now
  leecher models --only 'small/**'        fetch a part of a share; --list-files lists its files

Run the same command again to go on with a download that was interrupted. If the share is here already, it is proved again.";

/// Fetch a share from many peers at once, and check every byte
#[derive(Debug, Parser)]
#[command(name = "leecher", version, after_long_help = EXAMPLES)]
pub struct Args {
    /// Link, infohash or name of each share to fetch
    ///
    /// Without it the leecher fetches the only share that the tracker knows. Several shares are fetched at the same time, over
    /// one port.
    #[arg(value_name = "LINK|INFOHASH|NAME", value_parser = parse_target, env = "SHOAL_TARGET")]
    targets: Vec<Target>,

    /// Name of the share, even if it looks like a link or an infohash
    #[arg(
        short = 'f', long = "file", value_name = "NAME", value_parser = ShareName::new, env = "SHOAL_NAME",
        help_heading = SOURCE, hide_short_help = true
    )]
    file: Option<ShareName>,

    /// List what the trackers know, and fetch nothing
    #[arg(long, value_parser = FalseyValueParser::new(), env = "SHOAL_LIST", help_heading = SOURCE)]
    list: bool,

    /// Fetch only the files that this pattern matches; repeatable
    ///
    /// The pattern is compared with the whole path inside the share; a directory stands for all that is below it. * and ? do not
    /// match a slash, ** does. Run again with other patterns to fetch more: what is here stays.
    #[arg(long, value_name = "GLOB", env = "SHOAL_ONLY", help_heading = SOURCE, hide_short_help = true)]
    only: Vec<FilePattern>,

    /// List the files of the share, and fetch nothing else
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_LIST_FILES", help_heading = SOURCE,
        hide_short_help = true
    )]
    list_files: bool,

    /// Tracker [default: the link's, or 127.0.0.1:6020, or one in the network]
    ///
    /// Repeatable, or separated by commas.
    #[arg(
        long = "tracker", value_name = "HOST[:PORT]", value_delimiter = ',', value_parser = Endpoint::parse_tracker,
        env = "SHOAL_TRACKER", help_heading = SOURCE
    )]
    trackers: Vec<Endpoint>,

    /// Do not look for a tracker in the local network
    ///
    /// By default, without a tracker that is named and without an answer from 127.0.0.1:6020, the leecher looks for trackers by
    /// multicast DNS.
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_NO_DISCOVERY", help_heading = SOURCE,
        hide_short_help = true
    )]
    no_discovery: bool,

    /// Peer to fetch from
    ///
    /// With a link or an infohash no tracker is needed. Repeatable, or separated by commas.
    #[arg(long = "peer", value_name = "HOST:PORT", value_delimiter = ',', env = "SHOAL_PEER", help_heading = SOURCE)]
    peers: Vec<Endpoint>,

    /// Path to save the share at [default: leeched_NAME]
    #[arg(short, long, value_name = "PATH", env = "SHOAL_OUTPUT", help_heading = OUTPUT)]
    output: Option<PathBuf>,

    /// Directory to save the share in, as leeched_NAME
    ///
    /// The leecher creates it if it does not exist. [default: the working directory]
    #[arg(short, long, value_name = "DIR", env = "SHOAL_DIR", help_heading = OUTPUT)]
    dir: Option<PathBuf>,

    /// Replace a regular file that is in the way
    ///
    /// The leecher never replaces anything else, such as a directory, a device or a link.
    #[arg(long, value_parser = FalseyValueParser::new(), env = "SHOAL_OVERWRITE", help_heading = OUTPUT)]
    overwrite: bool,

    /// Give files the modification times that they have at the seeder
    ///
    /// For a share of a seeder with --times. By default files have the time at which they arrived.
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_TIMES", help_heading = OUTPUT, hide_short_help = true
    )]
    times: bool,
    /// Replace what is in the way by this version of the share, in one step
    ///
    /// A directory is replaced only if it holds an earlier version: at least one file of the share by its path. The old version gives
    /// what has not changed, stays until the new one is whole, and is removed then.
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_UPDATE", help_heading = OUTPUT,
        hide_short_help = true
    )]
    update: bool,

    /// Only read what is at the output, and fail if it is not the share
    ///
    /// Nothing is changed. The exit code is 0 or 32.
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_CHECK", help_heading = OUTPUT,
        hide_short_help = true
    )]
    check: bool,

    /// File or directory to take chunks from that are here already; repeatable
    ///
    /// Chunks are found in files at the same place as in the share, and in files that were moved or renamed. They are proved like
    /// those of peers.
    #[arg(long, value_name = "PATH", env = "SHOAL_FROM", help_heading = SOURCE, hide_short_help = true)]
    from: Vec<PathBuf>,

    /// Write zeros to disk, instead of leaving holes in files for them
    ///
    /// Chunks of zeros are never fetched. By default they take no room on disk.
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_NO_SPARSE", help_heading = OUTPUT,
        hide_short_help = true
    )]
    no_sparse: bool,

    /// Maximum number of peers to fetch from at the same time
    #[arg(
        short = 'x', long, value_name = "COUNT", default_value_t = DEFAULT_MAX_PEERS, value_parser = parse_count,
        env = "SHOAL_MAX_PEERS", help_heading = LIMITS, hide_short_help = true
    )]
    max_peers: usize,

    /// Give up when nothing arrives for this long [default: 60s]
    ///
    /// As in 90, 90s, 10m or 2h. What has arrived is kept. The leecher tries for as long to reach a tracker and a peer.
    #[arg(
        long, value_name = "TIME", value_parser = startup::parse_timeout, env = "SHOAL_TIMEOUT", help_heading = LIMITS,
        hide_short_help = true
    )]
    timeout: Option<Duration>,

    /// Wait up to this long until a peer has the share, even if no tracker knows it yet
    ///
    /// As in 90, 90s, 10m or 2h. So a leecher can start before its seeder.
    #[arg(
        long, value_name = "TIME", value_parser = startup::parse_duration, env = "SHOAL_WAIT", help_heading = LIMITS,
        hide_short_help = true
    )]
    wait: Option<Duration>,

    /// Maximum download rate, as in 10M, 10MiB or 80mbit
    ///
    /// 10M and 10MiB are bytes a second, 80mbit is bits a second. The limit holds for all peers together.
    #[arg(
        long, value_name = "RATE", value_parser = RateLimit::parse, env = "SHOAL_DOWNLOAD_LIMIT", help_heading = LIMITS,
        hide_short_help = true
    )]
    download_limit: Option<RateLimit>,

    /// Maximum upload rate, to all peers together
    #[arg(
        long, value_name = "RATE", value_parser = RateLimit::parse, env = "SHOAL_UPLOAD_LIMIT", help_heading = LIMITS,
        hide_short_help = true
    )]
    upload_limit: Option<RateLimit>,

    /// File that remembers what each name led to; 'none' for none
    ///
    /// The leecher warns if a name leads to another share than when it was last fetched by. [default: shoal/known-names in the
    /// user's state directory]
    #[arg(long, value_name = "FILE", env = "SHOAL_KNOWN_NAMES", help_heading = SOURCE, hide_short_help = true)]
    known_names: Option<PathBuf>,

    /// TCP port to serve on; 0 for any free port
    #[arg(
        short, long, value_name = "PORT", default_value_t = 0, value_parser = startup::parse_port, env = "SHOAL_PORT",
        help_heading = SERVING, hide_short_help = true
    )]
    port: u16,

    /// Serve on this IP address only, and contact trackers from it [default: all, IPv4 and IPv6]
    #[arg(
        long, value_name = "ADDR", value_parser = startup::parse_ip, env = "SHOAL_BIND", help_heading = SERVING,
        hide_short_help = true
    )]
    bind: Option<IpAddr>,

    /// Do not serve other leechers
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_NO_SERVE", help_heading = SERVING,
        hide_short_help = true
    )]
    no_serve: bool,

    /// After the download, go on serving until stopped
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_SEED", help_heading = SERVING,
        hide_short_help = true
    )]
    seed: bool,

    /// After the download, go on serving for this long, as in 90, 90s, 10m or 2h
    #[arg(
        long, value_name = "TIME", value_parser = startup::parse_duration, env = "SHOAL_SEED_FOR",
        help_heading = SERVING, hide_short_help = true
    )]
    seed_for: Option<Duration>,

    /// After the download, go on serving until RATIO × the size of the share is uploaded
    #[arg(
        long, value_name = "RATIO", value_parser = parse_ratio, env = "SHOAL_SEED_RATIO", help_heading = SERVING,
        hide_short_help = true
    )]
    seed_ratio: Option<f64>,

    /// After the download, go on serving until this many hosts have all of the share
    ///
    /// The tracker counts the hosts that have fetched all of the share since it was registered, this one and those that are gone too. Hosts
    /// are distinct by address and --label. The leecher learns the number with each announce, every 30 seconds.
    #[arg(
        long, value_name = "COUNT", value_parser = parse_hosts, env = "SHOAL_STAY_UNTIL_HOSTS", help_heading = SERVING,
        hide_short_help = true
    )]
    stay_until_hosts: Option<u32>,

    /// What people call this host in lists [default: the machine's name]
    ///
    /// The tracker shows it. At most 32 bytes are used.
    #[arg(
        long, value_name = "NAME", value_parser = Label::cut, env = "SHOAL_LABEL", help_heading = SERVING,
        hide_short_help = true
    )]
    label: Option<Label>,

    /// Show in detail where the time went
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_EXPLAIN", help_heading = REPORTING,
        hide_short_help = true
    )]
    explain: bool,

    /// Print nothing but errors
    #[arg(short, long, value_parser = FalseyValueParser::new(), env = "SHOAL_QUIET")]
    quiet: bool,

    /// Show no progress
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_NO_PROGRESS", help_heading = REPORTING,
        hide_short_help = true
    )]
    no_progress: bool,

    /// Report what happens on stdout, as one JSON object a line
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_JSON", help_heading = REPORTING,
        hide_short_help = true
    )]
    json: bool,

    #[command(flatten)]
    http: HttpArgs,

    #[command(flatten)]
    logs: LogArgs,
}

/// A transfer cannot use more than 1,000 peers.
fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1_000) => Ok(count),
        _ => Err("it must be a number from 1 to 1000".to_owned()),
    }
}

/// Adds what to type instead.
pub(crate) fn parse_target(text: &str) -> Result<Target, String> {
    text.parse().map_err(|error: ParseTargetError| match &error {
        ParseTargetError::Link(source) => {
            format!("{error}: {source}; copy the whole link that the seeder printed, between single quotes")
        }
        ParseTargetError::OtherScheme(_) => format!(
            "{error}; copy the one that the seeder printed (a tracker is named with --tracker; for web addresses there is curl)"
        ),
        ParseTargetError::InfoHashLen(_) => format!("{error} (if it is a name, use -f)"),
        ParseTargetError::Name(source) => format!("{error}: {source}"),
    })
}

/// A tracker counts no more than 10,000 hosts of a share.
fn parse_hosts(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 1..=10_000) => Ok(count),
        _ => Err("it must be a number from 1 to 10000".to_owned()),
    }
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1e6).contains(&ratio) => Ok(ratio),
        _ => Err("it must be a number from 0 to 1000000".to_owned()),
    }
}

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

/// Fetches all shares that the user named. If one fails, the others continue.
async fn fetch_shares(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let mut targets: Vec<Target> = Vec::new();
    for target in args.targets.iter().cloned().chain(args.file.clone().map(Target::Name)) {
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    if targets.is_empty() {
        targets.push(Target::Only);
    }
    if targets.len() > 1 && args.output.is_some() {
        let error = format!("-o names one file, and there are {} shares to save", targets.len());
        return Err(Failure::new(ExitCode::Usage, error).hint("save them into a directory with -d DIR"));
    }
    let destination = destination(&args)?;
    warn_of_missing_sources(&args);
    let tasks = TaskTracker::new();
    let acceptor = match args.no_serve || args.list_files || args.check {
        true => None,
        false => Some(Acceptor::bind(args.bind, args.port, &tasks).map_err(|error| explain(error.into()))?),
    };
    let config = Config {
        peers: args.peers.clone(),
        destination,
        replace: match () {
            () if args.update => Replace::Version,
            () if args.overwrite => Replace::File,
            () => Replace::Nothing,
        },
        from: args.from.clone(),
        only: args.only.clone(),
        times: args.times,
        sparse: !args.no_sparse,
        max_peers: args.max_peers,
        stall_timeout: args.timeout.unwrap_or(DEFAULT_STALL_TIMEOUT),
        wait: args.wait.unwrap_or_default(),
        known_names: known_names(&args),
        label: args.label.unwrap_or_else(own_label),
        bind: args.bind,
        acceptor,
        stay: stay(&args),
        upload_limit: args.upload_limit.clone().unwrap_or_default(),
        download_limit: args.download_limit.clone().unwrap_or_default(),
        ..Config::new(Target::Only)
    };
    let transfers: Vec<_> = targets
        .iter()
        .map(|target| Arc::new(SeenTransfer::new(target.to_string(), View::default())))
        .collect();
    let stop_http = shutdown.child_token();
    if let Some(http) = Server::bind(&args.http, HTTP_PORT)? {
        report::print_http(style(&args), &http.url());
        let listens = config.acceptor.as_ref().map(Acceptor::local_addr);
        let limits = (config.upload_limit.per_second(), config.download_limit.per_second());
        let seen = Seen::new(listens, args.max_peers, limits, transfers.clone());
        tasks.spawn(http.run(Arc::new(seen), stop_http.clone()));
    }
    let (mut looking, found) = looking::start(discovers(&args, &targets).then_some((&args).into()), &tasks);
    let screen = Screen::default();
    let mut fetches = JoinSet::new();
    for ((number, target), seen) in targets.iter().enumerate().zip(transfers) {
        let trackers = trackers(&args, target, &[looking::local()]);
        let named = link_endpoints(target, &trackers, &args.peers);
        let subject = match targets.len() {
            1 => Subject::Only,
            _ => Subject::OneOfMany { number, target: target.clone() },
        };
        let mut report =
            Reporter::new(style(&args), subject, &screen, named, args.explain, staying(config.stay));
        report.show_to(Arc::clone(&seen));
        let view = Some(seen.view());
        let config = Config { target: target.clone(), trackers, view, ..config.clone() };
        let found = needs_default(&args, target).then(|| found.clone());
        let stop = shutdown.clone();
        if args.check {
            let (json, quiet) = (args.json, args.quiet);
            fetches.spawn(async move {
                let checked = looking::among(CHECK, config, found, &mut report, stop).await.map_err(explain);
                let result = checked.and_then(|checked| checking::report(&checked, json, quiet));
                report.failed(&result);
                result
            });
            continue;
        }
        if args.list_files {
            let json = args.json;
            fetches.spawn(async move {
                let only = config.only.clone();
                let described = looking::among(DESCRIBE, config, found, &mut report, stop).await;
                let result =
                    described.and_then(|description| Ok(file_list::print(&description, &only, json)?));
                let result = result.map_err(explain);
                report.failed(&result);
                result
            });
            continue;
        }
        fetches.spawn(async move {
            let fetched = looking::among(FETCH, config, found, &mut report, stop).await.map_err(explain);
            if let Err(failure) = &fetched {
                seen.failed(failure.to_string());
            }
            report.end(&fetched);
            fetched.map(|_| ())
        });
    }
    drop(config);
    let mut failures: Vec<_> = fetches.join_all().await.into_iter().filter_map(Result::err).collect();
    looking.shutdown().await;
    stop_http.cancel();
    tasks.close();
    tasks.wait().await;
    match (targets.len(), failures.len()) {
        (_, 0) => Ok(()),
        (1, _) => Err(failures.remove(0)),
        (all, failed) => {
            let code = failures[0].code();
            let code =
                if failures.iter().all(|failure| failure.code() == code) { code } else { ExitCode::Other };
            Err(Failure::new(code, format!("{failed} of {all} shares could not be fetched")))
        }
    }
}

/// A path to take chunks from need not be there: the first run of a command that runs again and again has none.
fn warn_of_missing_sources(args: &Args) {
    if args.quiet {
        return;
    }
    for path in &args.from {
        if let Err(error) = path.metadata() {
            eprint_line(format_args!("warning: --from {}: {error}", path.display()));
        }
    }
}

/// Where to save, or the reason why nothing can be saved there.
fn destination(args: &Args) -> Result<Destination, Failure> {
    let destination = match (args.output.clone(), args.dir.clone()) {
        (Some(path), _) if path.as_os_str() == "-" => {
            let error = "-o - cannot write to stdout, because chunks arrive in any order";
            return Err(Failure::new(ExitCode::Usage, error)
                .hint("save to a file with -o PATH; for a file called -, use -o ./-"));
        }
        (Some(path), _) if path.parent().is_some_and(|dir| !dir.as_os_str().is_empty() && !dir.is_dir()) => {
            let dir = path.parent().unwrap_or(&path);
            if dir.exists() {
                return Err(Failure::new(ExitCode::Io, format!("{} is not a directory", dir.display()))
                    .hint("name another path with -o"));
            }
            return Err(Failure::new(
                ExitCode::Io,
                format!("the directory {} does not exist", dir.display()),
            )
            .hint("create it, or use -d, which creates the directory"));
        }
        (Some(path), _) => Destination::Path(path),
        (None, dir) => Destination::Directory(dir.unwrap_or_default()),
    };
    if let Destination::Directory(dir) = &destination
        && dir.exists()
        && !dir.is_dir()
    {
        return Err(Failure::new(ExitCode::Io, format!("{} is not a directory", dir.display()))
            .hint("name another with -d"));
    }
    Ok(destination)
}

/// The name of this machine, if it can be a label.
fn own_label() -> Label {
    Label::cut(&web::machine_name()).unwrap_or_default()
}

fn known_names(args: &Args) -> Option<PathBuf> {
    match &args.known_names {
        Some(none) if none.as_os_str() == "none" => None,
        Some(path) => Some(path.clone()),
        None => Some(choose_base_strategy().ok()?.state_dir()?.join("shoal").join("known-names")),
    }
}

fn style(args: &Args) -> Style {
    match () {
        () if args.json && args.list_files => Style::Quiet,
        () if args.json => Style::Json,
        () if args.quiet => Style::Quiet,
        () if args.no_progress => Style::Plain,
        () => Style::Progress,
    }
}

fn stay(args: &Args) -> Stay {
    if let Some(hosts) = args.stay_until_hosts {
        return Stay::Hosts(hosts);
    }
    match (args.seed, args.seed_for, args.seed_ratio) {
        (true, _, _) => Stay::Forever,
        (_, Some(time), _) => Stay::For(time),
        (_, _, Some(ratio)) => Stay::Ratio(ratio),
        (false, None, None) => Stay::WhileNeeded,
    }
}

/// What the leecher does after a transfer, if it does not leave.
fn staying(stay: Stay) -> Option<String> {
    match stay {
        Stay::Forever => Some("Serving other leechers; press Ctrl+C to stop".to_owned()),
        Stay::For(time) => Some(format!("Serving other leechers for {}", human_time(time))),
        Stay::Ratio(ratio) => {
            Some(format!("Serving other leechers until {ratio} × the size of the share is uploaded"))
        }
        Stay::Hosts(hosts) => {
            Some(format!("Serving other leechers until {hosts} hosts have all of the share"))
        }
        Stay::WhileNeeded => None,
    }
}

/// The trackers to ask: those that the user named, or those of the link, or the default ones. None is asked if peers are
/// named and no tracker is needed.
fn trackers(args: &Args, target: &Target, defaults: &[Endpoint]) -> Vec<Endpoint> {
    if needs_default(args, target) { defaults.to_vec() } else { args.trackers.clone() }
}

/// Whether a tracker is needed and none is named.
fn needs_default(args: &Args, target: &Target) -> bool {
    let needless = match target {
        Target::Link(link) => !(link.trackers.is_empty() && link.peers.is_empty() && args.peers.is_empty()),
        Target::InfoHash(_) => !args.peers.is_empty(),
        Target::Name(_) | Target::Only => false,
    };
    args.trackers.is_empty() && !needless
}

/// Whether to look for trackers in the local network. No other host can be reached from loopback.
fn discovers(args: &Args, targets: &[Target]) -> bool {
    let on_loopback = args.bind.is_some_and(|bind| bind.is_loopback());
    !args.no_discovery && !on_loopback && targets.iter().any(|target| needs_default(args, target))
}

impl From<&Args> for Look {
    fn from(args: &Args) -> Look {
        let report = match (args.list, args.json, args.quiet) {
            (false, true, _) => looking::Report::Json,
            (_, _, true) => looking::Report::Nothing,
            _ => looking::Report::Line,
        };
        Look { bind: args.bind, report }
    }
}

/// The trackers and peers of the link that is printed: those of the user's link, then those that the user named.
pub(crate) fn link_endpoints(
    target: &Target,
    trackers: &[Endpoint],
    peers: &[Endpoint],
) -> (Vec<Endpoint>, Vec<Endpoint>) {
    let (from_link, more_from_link) = match target {
        Target::Link(link) => (&link.trackers[..], &link.peers[..]),
        Target::InfoHash(_) | Target::Name(_) | Target::Only => (&[][..], &[][..]),
    };
    let join = |first: &[Endpoint], more: &[Endpoint]| {
        let new = more.iter().filter(|endpoint| !first.contains(endpoint));
        first.iter().chain(new).take(MAX_ENDPOINTS).cloned().collect()
    };
    (join(from_link, trackers), join(more_from_link, peers))
}
