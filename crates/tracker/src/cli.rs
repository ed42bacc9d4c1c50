//! The command line of `tracker`.

use std::{
    net::IpAddr, num::NonZeroUsize, path::PathBuf, process, sync::Arc, thread::available_parallelism,
    time::Duration,
};

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use crate::huge_pages;
use crate::{
    limit_args::LimitArgs,
    lists::{Lengths, ListArgs},
    probe,
    seen::Seen,
    status,
};
use clap::{Parser, builder::FalseyValueParser};
use etcetera::{BaseStrategy, choose_base_strategy};
use proto::{Endpoint, tracker::DEFAULT_PORT};
use startup::{
    ExitCode, Failure, Hangups, LogArgs, OnHangup, Output, ParseDurationError, human_time,
    json::{Event, print_event},
    parse_in_range, parse_timeout, print_line, usage_error,
};
use tokio_util::sync::CancellationToken;
use tracker::{Config, MAX_SOCKETS, Tracker, TrackerError};
use web::{HttpArgs, Server};
#[cfg(feature = "registry")]
use {
    std::{fs, path::Path},
    tracker::{Credentials, StoreError, Target},
};

/// Flags that exclude each other: none.
pub const EXCLUSIVE: &[(&str, &str)] = &[];

/// Groups of flags in `--help`.
const LISTENING: &str = "Listening";
const REGISTRATIONS: &str = "Registrations";
const REPORTING: &str = "Reporting";

/// TCP port of `--http`, if the user names none: the number of the UDP port.
const HTTP_PORT: u16 = DEFAULT_PORT;

/// Printed below `--help`.
const EXAMPLES: &str = "\
Examples:
  tracker                           listen on UDP port 6020
  tracker -p 7020 --bind 192.0.2.2  listen on another port, of one address
  tracker --heartbeat 10s --expire 30s
                                    forget a peer that is gone after 30 seconds
  tracker --deny deny.txt           take all shares but those that a file lists
  tracker --check 192.0.2.2         ask whether a tracker answers
  tracker --registry redis://store  be one of several trackers with one registry";

/// Keep track of who has which share, and introduce peers to each other
#[derive(Debug, Parser)]
#[command(name = "tracker", version, after_long_help = EXAMPLES)]
pub struct Args {
    /// UDP port; 0 for any free port
    #[arg(
        short, long, value_name = "PORT", default_value_t = DEFAULT_PORT, value_parser = startup::parse_port,
        env = "SHOAL_PORT", help_heading = LISTENING
    )]
    port: u16,

    /// Listen on this IP address only [default: all]
    ///
    /// By default the tracker listens on all addresses, IPv4 and IPv6.
    #[arg(
        long, value_name = "ADDR", value_parser = startup::parse_ip, env = "SHOAL_BIND", help_heading = LISTENING
    )]
    bind: Option<IpAddr>,

    /// Sockets and threads that answer, 1 to 8 [default: one for each core]
    #[arg(
        long, value_name = "NUMBER", env = "SHOAL_SOCKETS", value_parser = parse_sockets, help_heading = LISTENING,
        hide_short_help = true
    )]
    sockets: Option<NonZeroUsize>,

    /// Time between two announces of a peer
    ///
    /// As in 30, 30s or 2m.
    #[arg(
        long, value_name = "TIME", default_value = "30s", env = "SHOAL_HEARTBEAT", value_parser = parse_heartbeat,
        help_heading = REGISTRATIONS
    )]
    heartbeat: Duration,

    /// Forget a silent peer after this long
    ///
    /// The time counts from the peer's last announce, and has to be longer than --heartbeat.
    #[arg(
        long, value_name = "TIME", default_value = "90s", env = "SHOAL_EXPIRE", value_parser = parse_timeout,
        help_heading = REGISTRATIONS
    )]
    expire: Duration,

    /// File that exists while the tracker has peers; 'none' for none
    ///
    /// If it finds the file when it starts, leechers that ask for a share by its name wait until everybody had time to come back.
    /// [default: shoal/tracker-PORT in the user's state directory; none for -p 0]
    #[arg(
        long, value_name = "FILE", env = "SHOAL_STATE", help_heading = REGISTRATIONS, hide_short_help = true
    )]
    state: Option<PathBuf>,

    /// Redis or Valkey that trackers share their registrations in
    ///
    /// As in redis://host:6379, or rediss:// for TLS. Any number of trackers with the same store act as one. With a cluster, name one of
    /// its nodes.
    #[cfg(feature = "registry")]
    #[arg(
        long, value_name = "URL", env = "SHOAL_REGISTRY", hide_env_values = true, value_parser = parse_registry,
        help_heading = REGISTRATIONS
    )]
    registry: Option<String>,

    /// File with USER:PASSWORD for the registry; :PASSWORD for the default user
    #[cfg(feature = "registry")]
    #[arg(
        long, value_name = "FILE", env = "SHOAL_REGISTRY_CREDENTIALS", requires = "registry",
        help_heading = REGISTRATIONS, hide_short_help = true
    )]
    registry_credentials: Option<PathBuf>,

    /// Do not advertise the tracker in the local network
    ///
    /// By default seeders and leechers that were not told a tracker can find it by multicast DNS.
    #[arg(
        long, value_parser = FalseyValueParser::new(), env = "SHOAL_NO_DISCOVERY", help_heading = LISTENING,
        hide_short_help = true
    )]
    no_discovery: bool,

    /// Ask the tracker at HOST whether it answers, and do nothing else
    ///
    /// It prints how long the answer took. Without an answer within two seconds, the exit code is 6.
    #[arg(
        long, value_name = "HOST[:PORT]", value_parser = Endpoint::parse_tracker, env = "SHOAL_CHECK_TRACKER",
        hide_short_help = true
    )]
    check: Option<Endpoint>,

    #[command(flatten)]
    limits: LimitArgs,

    #[command(flatten)]
    lists: ListArgs,

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

/// Runs the program, or ends it with a usage error when there is nothing to run.
pub fn main(args: Args) -> process::ExitCode {
    let output = Output::of(args.json);
    if let Some(endpoint) = &args.check {
        return probe::check(endpoint, output);
    }
    if args.expire <= args.heartbeat {
        let message = format!(
            "--expire {} is not longer than --heartbeat {}: every peer would be forgotten between two announces",
            human_time(args.expire),
            human_time(args.heartbeat)
        );
        usage_error::<Args>(message, output);
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    huge_pages::ask();
    let logs = args.logs.clone().with_frequent(tracker::FREQUENT);
    // Without lists there is nothing to read again. A service manager asks for it all the same, and does not mean to stop the tracker.
    let reloads = !args.lists.is_empty() || startup::is_service();
    let on_hangup = if reloads { OnHangup::Reload } else { OnHangup::Stop };
    startup::run_with("tracker", &logs, output, on_hangup, |shutdown| serve(args, on_hangup, shutdown))
}

/// Runs a tracker until `shutdown`.
async fn serve(args: Args, on_hangup: OnHangup, shutdown: CancellationToken) -> Result<(), Failure> {
    let hangups = match on_hangup {
        OnHangup::Stop => None,
        OnHangup::Reload => Some(Hangups::new().map_err(|error| Failure::new(ExitCode::Other, error))?),
    };
    let admission = args.lists.read()?;
    let lists = admission.as_ref().map(Lengths::of);
    let (rate, byte_rate) = args.limits.rates();
    let config = Config {
        bind: args.bind,
        port: args.port,
        sockets: args.sockets.unwrap_or_else(default_sockets),
        heartbeat: args.heartbeat,
        expire: args.expire,
        marker: marker(&args),
        limits: args.limits.limits(),
        rate,
        byte_rate,
        admission,
        receive_buffer_len: args.limits.receive_buffer_len(),
        #[cfg(feature = "registry")]
        registry: registry(&args)?,
    };
    let asked = config.address();
    let output = Output::of(args.json);
    if output == Output::Text {
        print_line(format_args!("[STARTING] Tracker is starting at {asked}"));
    }
    let http = Server::bind(&args.http, HTTP_PORT)?;
    let heartbeat = config.heartbeat;
    let tracker = Tracker::bind(config).await.map_err(failure)?;
    // Without --bind that is [::], which takes IPv4 too, or 0.0.0.0 where there is no IPv6.
    let address = tracker.local_addr();
    match output {
        Output::Text => print_line(format_args!("[LISTENING] Tracker is listening on {address}")),
        Output::Json => print_event(&Event::Listening { address }),
    }
    if let Some(lists) = lists {
        lists.print(None, output);
    }
    if let Ok(granted) = tracker.receive_buffer_len() {
        args.limits.check_receive_buffer(granted);
    }
    startup::report_ready(format_args!("Listening on {address}"));
    let advertised = shutdown.child_token();
    let (control, changes, stop) = (tracker.control(), tracker.control(), shutdown.clone());
    let reloading = async {
        if let Some(hangups) = hangups {
            args.lists.reload(hangups, control, output, &advertised).await;
        }
    };
    let advertising = async {
        if !args.no_discovery {
            discovery::advertise(address, advertised.cancelled()).await;
        }
    };
    let (view, shown) = (tracker.view(), tracker.view());
    let seen = async {
        if let Some(http) = http {
            match output {
                Output::Text => print_line(format_args!("[HTTP] Page and metrics are at {}", http.url())),
                Output::Json => print_event(&Event::Http { url: &http.url() }),
            }
            let seen = Arc::new(Seen::new(view, changes, address, heartbeat, stop));
            let source: Arc<dyn web::Source> = seen.clone();
            tokio::join!(http.run(source, advertised.clone()), seen.record(&advertised));
        }
    };
    let serving = async {
        let result = tracker.run(shutdown).await;
        advertised.cancel();
        result
    };
    let status = advertised.run_until_cancelled(status::show(&shown, output));
    let (served, (), (), (), _) = tokio::join!(serving, advertising, seen, reloading, status);
    served.map_err(failure)?;
    if output == Output::Json {
        print_event(&Event::Stopped);
    }
    Ok(())
}

/// The file that says whether the tracker has peers. A tracker on any free port is another one each time.
fn marker(args: &Args) -> Option<PathBuf> {
    match &args.state {
        Some(none) if none.as_os_str() == "none" => None,
        Some(path) => Some(path.clone()),
        None if args.port == 0 => None,
        None => {
            let address = args.bind.map(|ip| format!("{ip}-")).unwrap_or_default();
            let name = format!("tracker-{address}{}", args.port);
            Some(choose_base_strategy().ok()?.state_dir()?.join("shoal").join(name))
        }
    }
}

/// The store of the fleet, if this tracker is part of one.
#[cfg(feature = "registry")]
fn registry(args: &Args) -> Result<Option<Target>, Failure> {
    let Some(url) = &args.registry else { return Ok(None) };
    let credentials = match &args.registry_credentials {
        Some(path) => credentials(path)?,
        None => Credentials::default(),
    };
    let target = Target::new(url, credentials).map_err(|error| Failure::new(ExitCode::Usage, error))?;
    Ok(Some(target))
}

/// Reads the user and the password of the store. They do not belong on a command line, which others can see.
#[cfg(feature = "registry")]
fn credentials(path: &Path) -> Result<Credentials, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::io(error, format_args!("cannot read {}", path.display())))?;
    let Some((user, password)) = text.trim_end_matches(['\r', '\n']).split_once(':') else {
        let message = format!("{} does not have the form USER:PASSWORD", path.display());
        return Err(Failure::new(ExitCode::Usage, message));
    };
    let user = Some(user.to_owned()).filter(|user| !user.is_empty());
    Ok(Credentials { user, password: Some(password.to_owned()) })
}

#[cfg(feature = "registry")]
fn parse_registry(text: &str) -> Result<String, StoreError> {
    Target::new(text, Credentials::default()).map(|_| text.to_owned())
}

/// Reads a time that the answer to an announce can hold: whole seconds, in 16 bits.
fn parse_heartbeat(text: &str) -> Result<Duration, ParseDurationError> {
    let time = parse_in_range(text, Duration::from_secs(1), Duration::from_secs(u16::MAX.into()))?;
    Ok(Duration::from_secs(time.as_secs()))
}

fn parse_sockets(text: &str) -> Result<NonZeroUsize, String> {
    let in_range = text.parse().ok().filter(|sockets| (NonZeroUsize::MIN..=MAX_SOCKETS).contains(sockets));
    in_range.ok_or_else(|| format!("it must be a number from 1 to {MAX_SOCKETS}"))
}

/// Linux shares datagrams out to the sockets of a port; elsewhere one gets them all.
fn default_sockets() -> NonZeroUsize {
    if cfg!(target_os = "linux") {
        available_parallelism().map_or(NonZeroUsize::MIN, |cores| cores.min(MAX_SOCKETS))
    } else {
        NonZeroUsize::MIN
    }
}

fn failure(error: TrackerError) -> Failure {
    match error {
        TrackerError::Listen(error) => error.into(),
        TrackerError::Receive(_) | TrackerError::Serve(_) => Failure::new(ExitCode::Network, error)
            .hint("start the tracker again: peers register again by themselves"),
        #[cfg(feature = "registry")]
        TrackerError::Registry { .. } => Failure::new(ExitCode::Network, error)
            .hint("check --registry and --registry-credentials; it has to be Redis 6.2 or later, or Valkey"),
    }
}
