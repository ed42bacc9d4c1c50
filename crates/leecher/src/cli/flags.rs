//! The flags of `leecher`, and how each value is read.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Parser, builder::FalseyValueParser};
use leecher::{DEFAULT_MAX_PEERS, ParseTargetError, Target};
use peer::rate_limit::RateLimit;
use proto::{Endpoint, Label, ShareName, Zone};
use startup::LogArgs;
use store::FilePattern;
use web::HttpArgs;

use crate::listing::Sort;

/// Flags that exclude each other.
pub const EXCLUSIVE: &[(&str, &str)] = &[
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
    /// one port. With --list they are patterns of names, as in '*.img', or the first digits of infohashes.
    #[arg(value_name = "LINK|INFOHASH|NAME", value_parser = parse_target, env = "SHOAL_TARGET")]
    pub(super) targets: Vec<Target>,

    /// Name of the share, even if it looks like a link or an infohash
    #[arg(
        short = 'f', long = "file", value_name = "NAME", value_parser = ShareName::new, env = "SHOAL_NAME",
        help_heading = SOURCE, hide_short_help = true
    )]
    pub(super) file: Option<ShareName>,

    /// List what the trackers know, and fetch nothing
    #[arg(long, value_parser = FalseyValueParser::new(), env = "SHOAL_LIST", help_heading = SOURCE)]
    pub(super) list: bool,

    /// Order of the list: name, size or seeders [default: name]
    #[arg(
        long, value_name = "ORDER", value_parser = parse_sort, env = "SHOAL_SORT", help_heading = SOURCE,
        hide_short_help = true
    )]
    pub(super) sort: Option<Sort>,

    /// List whole infohashes, links, and more numbers
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_LONG", help_heading = SOURCE,
        hide_short_help = true
    )]
    pub(super) long: bool,

    /// Fetch only the files that this pattern matches; repeatable
    ///
    /// The pattern is compared with the whole path inside the share; a directory stands for all that is below it. * and ? do not
    /// match a slash, ** does. Run again with other patterns to fetch more: what is here stays.
    #[arg(long, value_name = "GLOB", env = "SHOAL_ONLY", help_heading = SOURCE, hide_short_help = true)]
    pub(super) only: Vec<FilePattern>,

    /// List the files of the share, and fetch nothing else
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_LIST_FILES", help_heading = SOURCE,
        hide_short_help = true
    )]
    pub(super) list_files: bool,

    /// Tracker [default: the link's, or 127.0.0.1:6020, or one in the network]
    ///
    /// Repeatable, or separated by commas.
    #[arg(
        long = "tracker", value_name = "HOST[:PORT]", value_delimiter = ',', value_parser = Endpoint::parse_tracker,
        env = "SHOAL_TRACKER", help_heading = SOURCE
    )]
    pub(super) trackers: Vec<Endpoint>,

    /// Do not look for a tracker in the local network
    ///
    /// By default, without a tracker that is named and without an answer from 127.0.0.1:6020, the leecher looks for trackers by
    /// multicast DNS.
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_NO_DISCOVERY", help_heading = SOURCE,
        hide_short_help = true
    )]
    pub(super) no_discovery: bool,

    /// Peer to fetch from
    ///
    /// With a link or an infohash no tracker is needed. Repeatable, or separated by commas.
    #[arg(long = "peer", value_name = "HOST:PORT", value_delimiter = ',', env = "SHOAL_PEER", help_heading = SOURCE)]
    pub(super) peers: Vec<Endpoint>,

    /// Path to save the share at [default: leeched_NAME]
    #[arg(short, long, value_name = "PATH", env = "SHOAL_OUTPUT", help_heading = OUTPUT)]
    pub(super) output: Option<PathBuf>,

    /// Directory to save the share in, as leeched_NAME
    ///
    /// The leecher creates it if it does not exist. [default: the working directory]
    #[arg(short, long, value_name = "DIR", env = "SHOAL_DIR", help_heading = OUTPUT)]
    pub(super) dir: Option<PathBuf>,

    /// Replace a regular file that is in the way
    ///
    /// The leecher never replaces anything else, such as a directory, a device or a link.
    #[arg(long, value_parser = FalseyValueParser::new(), env = "SHOAL_OVERWRITE", help_heading = OUTPUT)]
    pub(super) overwrite: bool,

    /// Give files the modification times that they have at the seeder
    ///
    /// For a share of a seeder with --times. By default files have the time at which they arrived.
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_TIMES", help_heading = OUTPUT, hide_short_help = true
    )]
    pub(super) times: bool,
    /// Replace what is in the way by this version of the share, in one step
    ///
    /// A directory is replaced only if it holds an earlier version: at least one file of the share by its path. The old version gives
    /// what has not changed, stays until the new one is whole, and is removed then.
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_UPDATE", help_heading = OUTPUT,
        hide_short_help = true
    )]
    pub(super) update: bool,

    /// Only read what is at the output, and fail if it is not the share
    ///
    /// Nothing is changed. The exit code is 0 or 32.
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_CHECK", help_heading = OUTPUT,
        hide_short_help = true
    )]
    pub(super) check: bool,

    /// File or directory to take chunks from that are here already; repeatable
    ///
    /// Chunks are found in files at the same place as in the share, and in files that were moved or renamed. They are proved like
    /// those of peers.
    #[arg(long, value_name = "PATH", env = "SHOAL_FROM", help_heading = SOURCE, hide_short_help = true)]
    pub(super) from: Vec<PathBuf>,

    /// Write zeros to disk, instead of leaving holes in files for them
    ///
    /// Chunks of zeros are never fetched. By default they take no room on disk.
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_NO_SPARSE", help_heading = OUTPUT,
        hide_short_help = true
    )]
    pub(super) no_sparse: bool,

    /// Read again what stays the same in an update, and do not remember what is right
    ///
    /// By default an update to another version does not read files that an earlier run proved and that have not changed since. A share
    /// that is here already is read in any case.
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_NO_CACHE", help_heading = OUTPUT,
        hide_short_help = true
    )]
    pub(super) no_cache: bool,

    /// Where to remember what is right [default: shoal/proofs in the user's cache directory]
    #[arg(long, value_name = "DIR", env = "SHOAL_CACHE_DIR", help_heading = OUTPUT, hide_short_help = true)]
    pub(super) cache_dir: Option<PathBuf>,

    /// Maximum number of peers to fetch from at the same time
    #[arg(
        short = 'x', long, value_name = "COUNT", default_value_t = DEFAULT_MAX_PEERS, value_parser = parse_count,
        env = "SHOAL_MAX_PEERS", help_heading = LIMITS, hide_short_help = true
    )]
    pub(super) max_peers: usize,

    /// Give up when nothing arrives for this long [default: 60s]
    ///
    /// As in 90, 90s, 10m or 2h. What has arrived is kept. The leecher tries for as long to reach a tracker and a peer.
    #[arg(
        long, value_name = "TIME", value_parser = startup::parse_timeout, env = "SHOAL_TIMEOUT", help_heading = LIMITS,
        hide_short_help = true
    )]
    pub(super) timeout: Option<Duration>,

    /// Wait up to this long until a peer has the share, even if no tracker knows it yet
    ///
    /// As in 90, 90s, 10m or 2h. So a leecher can start before its seeder.
    #[arg(
        long, value_name = "TIME", value_parser = startup::parse_duration, env = "SHOAL_WAIT", help_heading = LIMITS,
        hide_short_help = true
    )]
    pub(super) wait: Option<Duration>,

    /// Maximum download rate, as in 10M, 10MiB or 80mbit
    ///
    /// 10M and 10MiB are bytes a second, 80mbit is bits a second. The limit holds for all peers together.
    #[arg(
        long, value_name = "RATE", value_parser = RateLimit::parse, env = "SHOAL_DOWNLOAD_LIMIT", help_heading = LIMITS,
        hide_short_help = true
    )]
    pub(super) download_limit: Option<RateLimit>,

    /// Maximum upload rate, to all peers together
    #[arg(
        long, value_name = "RATE", value_parser = RateLimit::parse, env = "SHOAL_UPLOAD_LIMIT", help_heading = LIMITS,
        hide_short_help = true
    )]
    pub(super) upload_limit: Option<RateLimit>,

    /// File that remembers what each name led to; 'none' for none
    ///
    /// The leecher warns if a name leads to another share than when it was last fetched by. [default: shoal/known-names in the
    /// user's state directory]
    #[arg(long, value_name = "FILE", env = "SHOAL_KNOWN_NAMES", help_heading = SOURCE, hide_short_help = true)]
    pub(super) known_names: Option<PathBuf>,

    /// TCP port to serve on; 0 for any free port
    #[arg(
        short, long, value_name = "PORT", default_value_t = 0, value_parser = startup::parse_port, env = "SHOAL_PORT",
        help_heading = SERVING, hide_short_help = true
    )]
    pub(super) port: u16,

    /// Serve on this IP address only, and contact trackers from it [default: all, IPv4 and IPv6]
    #[arg(
        long, value_name = "ADDR", value_parser = startup::parse_ip, env = "SHOAL_BIND", help_heading = SERVING,
        hide_short_help = true
    )]
    pub(super) bind: Option<IpAddr>,

    /// Do not serve other leechers
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_NO_SERVE", help_heading = SERVING,
        hide_short_help = true
    )]
    pub(super) no_serve: bool,

    /// After the download, go on serving until stopped
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_SEED", help_heading = SERVING,
        hide_short_help = true
    )]
    pub(super) seed: bool,

    /// After the download, go on serving for this long, as in 90, 90s, 10m or 2h
    #[arg(
        long, value_name = "TIME", value_parser = startup::parse_duration, env = "SHOAL_SEED_FOR",
        help_heading = SERVING, hide_short_help = true
    )]
    pub(super) seed_for: Option<Duration>,

    /// After the download, go on serving until RATIO × the size of the share is uploaded
    #[arg(
        long, value_name = "RATIO", value_parser = parse_ratio, env = "SHOAL_SEED_RATIO", help_heading = SERVING,
        hide_short_help = true
    )]
    pub(super) seed_ratio: Option<f64>,

    /// After the download, go on serving until this many hosts have all of the share
    ///
    /// The tracker counts the hosts that have fetched all of the share since it was registered, this one and those that are gone too. Hosts
    /// are distinct by address and --label. The leecher learns the number with each announce, every 30 seconds.
    #[arg(
        long, value_name = "COUNT", value_parser = parse_hosts, env = "SHOAL_STAY_UNTIL_HOSTS", help_heading = SERVING,
        hide_short_help = true
    )]
    pub(super) stay_until_hosts: Option<u32>,

    /// What people call this host in lists [default: the machine's name]
    ///
    /// The tracker shows it. At most 32 bytes are used.
    #[arg(
        long, value_name = "NAME", value_parser = Label::cut, env = "SHOAL_LABEL", help_heading = SERVING,
        hide_short_help = true
    )]
    pub(super) label: Option<Label>,

    /// Where in a network this host is, as a rack or a region [default: nowhere]
    ///
    /// What peers of the same zone have is fetched from them, and few peers of a zone fetch the same from elsewhere. At most 32 bytes are used.
    #[arg(
        long, value_name = "NAME", value_parser = Zone::cut, env = "SHOAL_ZONE", help_heading = SERVING,
        hide_short_help = true
    )]
    pub(super) zone: Option<Zone>,

    /// Show in detail where the time went
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_EXPLAIN", help_heading = REPORTING,
        hide_short_help = true
    )]
    pub(super) explain: bool,

    /// Print nothing but errors
    #[arg(short, long, value_parser = FalseyValueParser::new(), env = "SHOAL_QUIET")]
    pub(super) quiet: bool,

    /// Show no progress
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_NO_PROGRESS", help_heading = REPORTING,
        hide_short_help = true
    )]
    pub(super) no_progress: bool,

    /// Report what happens on stdout, as one JSON object a line
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_JSON", help_heading = REPORTING,
        hide_short_help = true
    )]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) http: HttpArgs,

    #[command(flatten)]
    pub(super) logs: LogArgs,
}

fn parse_sort(text: &str) -> Result<Sort, String> {
    match text {
        "name" => Ok(Sort::Name),
        "size" => Ok(Sort::Size),
        "seeders" => Ok(Sort::Seeders),
        _ => Err("it must be name, size or seeders".to_owned()),
    }
}

/// A transfer cannot use more than 1,000 peers.
pub(crate) fn parse_count(text: &str) -> Result<usize, String> {
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
