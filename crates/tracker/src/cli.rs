//! The command line of `tracker`.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    thread::available_parallelism,
    time::Duration,
};

use clap::{CommandFactory, Parser, error::ErrorKind};
use proto::tracker::DEFAULT_PORT;
use startup::{ExitCode, Failure, LogArgs, print_line};
use tokio_util::sync::CancellationToken;
use tracker::{Config, MAX_SOCKETS, Tracker, TrackerError};

/// Tell peers of each other: who seeds what, and who fetches it
#[derive(Debug, Parser)]
#[command(name = "tracker", version)]
pub(crate) struct Args {
    /// Listen on this IP address only [default: all, IPv4 and IPv6]
    #[arg(long, value_name = "ADDR", env = "SHOAL_BIND")]
    bind: Option<IpAddr>,

    /// UDP port to listen on; 0 for any that is free
    #[arg(short, long, value_name = "PORT", default_value_t = DEFAULT_PORT, env = "SHOAL_PORT")]
    port: u16,

    /// Sockets and threads to answer with, 1 to 8 [default: one for each core]
    #[arg(long, value_name = "NUMBER", env = "SHOAL_SOCKETS", value_parser = parse_sockets)]
    sockets: Option<NonZeroUsize>,

    /// Seconds between two announces of a peer
    #[arg(
        long, value_name = "SECONDS", default_value_t = 30, env = "SHOAL_HEARTBEAT",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    heartbeat: u16,

    /// Seconds after its last announce until a peer is forgotten; more than --heartbeat
    #[arg(long, value_name = "SECONDS", default_value_t = 90, env = "SHOAL_EXPIRE")]
    expire: u32,

    #[command(flatten)]
    pub(crate) logs: LogArgs,
}

/// Reads the command line; ends the program when there is nothing to run.
pub(crate) fn parse() -> Args {
    let args: Args = startup::parse(&[]);
    if args.expire <= args.heartbeat.into() {
        let message = format!(
            "--expire {} is not longer than --heartbeat {}: every peer would be forgotten between two announces",
            args.expire, args.heartbeat
        );
        Args::command().error(ErrorKind::ValueValidation, message).exit();
    }
    args
}

/// Runs a tracker until `shutdown`.
pub(crate) async fn serve(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let config = Config {
        bind: args.bind,
        port: args.port,
        sockets: args.sockets.unwrap_or_else(default_sockets),
        heartbeat: Duration::from_secs(args.heartbeat.into()),
        expire: Duration::from_secs(args.expire.into()),
        ..Config::default()
    };
    let asked = config.address();
    print_line(format_args!("[STARTING] Tracker is starting at {asked}"));
    let tracker = Tracker::bind(config).await.map_err(failure)?;
    // The address as it was asked for: without --bind that is 0.0.0.0, and what the system calls the socket
    // ([::], which takes IPv4 too) would look like IPv6 only.
    let listening = SocketAddr::new(asked.ip(), tracker.local_addr().port());
    print_line(format_args!("[LISTENING] Tracker is listening on {listening}"));
    tracker.run(shutdown).await.map_err(failure)
}

fn parse_sockets(text: &str) -> Result<NonZeroUsize, String> {
    let in_range = text.parse().ok().filter(|sockets| (NonZeroUsize::MIN..=MAX_SOCKETS).contains(sockets));
    in_range.ok_or_else(|| format!("not a number from 1 to {MAX_SOCKETS}"))
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
    }
}
