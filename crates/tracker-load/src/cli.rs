//! The command line of `tracker-load`.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use proto::{Endpoint, tracker::message::MAX_PEERS};
use startup::{ExitCode, Failure, LogArgs, print_line};
use tokio::net::lookup_host;
use tokio_util::sync::CancellationToken;

use crate::{
    dialect::{Dialect, Writer},
    drive::Mix,
    echo, expiry, flood,
    load::Load,
    measure,
    population::{Population, Spread},
    process::Process,
    register,
    report::{Form, Report},
};

/// Default number of requests a second to a tracker on another machine.
const REMOTE_RATE: u32 = 1_000;

/// Maximum number of requests a second to a tracker on another machine: a load, not an attack.
const MAX_REMOTE_RATE: u32 = 50_000;

/// Default number of addresses of a load on this machine: a tracker accepts 10,000 peers from each.
const LOCAL_ADDRESSES: u32 = 200;

/// Maximum number of peers of a load on a tracker on another machine: it accepts no more from one address.
const MAX_REMOTE_PEERS: u32 = 10_000;

/// Measure a tracker: answers a second, loss, times and memory
///
/// Uses trackers on this machine only, unless --remote is given, and ends by itself.
#[derive(Debug, Parser)]
#[command(name = "tracker-load", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    pub(crate) logs: LogArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure answers a second, loss and times under a mix of requests
    Run(RunArgs),
    /// Fill a tracker with peers; with --pid, report the memory that each takes
    Register(RegisterArgs),
    /// Fill a tracker, and measure the times of answers while it forgets everyone
    Expiry(ExpiryArgs),
    /// Flood a tracker on this machine from one address, and measure what that address gets and what others lose
    Flood(FloodArgs),
    /// Print the infohashes of a run with --protocol bep15, for trackers that need a list
    Infohashes {
        /// The run's --seed
        #[arg(long, value_name = "NUMBER")]
        seed: u64,

        /// The run's --shares
        #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        shares: u32,
    },
    /// Send back every datagram on 127.0.0.1: the least cost of an answer, for comparison
    Echo {
        /// UDP port to listen on; 0 for any free port
        #[arg(short, long, value_name = "PORT", default_value_t = 0)]
        port: u16,
    },
}

/// Which tracker to load, and how much.
#[derive(Debug, clap::Args)]
struct LoadArgs {
    /// The tracker
    #[arg(short, long, value_name = "HOST[:PORT]", default_value = "127.0.0.1:6020", value_parser = Endpoint::parse_tracker, env = "SHOAL_TRACKER")]
    tracker: Endpoint,

    /// Use a tracker on another machine; it should be yours
    #[arg(long)]
    remote: bool,

    /// Protocol of the tracker
    #[arg(long, value_enum, default_value_t = Dialect::Shoal)]
    protocol: Dialect,

    /// Maximum requests a second [default: as many as are answered; with --remote 1000]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// Maximum requests in flight
    #[arg(long, value_name = "NUMBER", default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..=16_384))]
    window: u16,

    /// Sockets to send from
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    sockets: u8,

    /// IP addresses of 127.0.0.0/8 to send from, for a tracker on this machine and IPv4 [default: 200]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    addresses: Option<u32>,

    /// Process of the tracker on this machine, for its processor time and memory
    #[arg(long, value_name = "NUMBER")]
    pid: Option<u32>,

    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    #[command(flatten)]
    load: LoadArgs,

    /// Seconds to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    seconds: u16,

    /// Seconds of load before that
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(..=600))]
    warm_up: u16,

    /// Parts of connects, announces, lookups of peers and searches by name
    #[arg(long, value_name = "C:A:L:S", default_value = "10:45:44:1", value_parser = parse_mix)]
    mix: Mix,

    /// Shares that the peers have; some are far more popular than others
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    shares: u32,

    /// Peers that announce [default: 100000; with --remote 1000]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    peers: Option<u32>,

    /// Peers that a lookup asks for
    #[arg(long, value_name = "NUMBER", default_value_t = 30, value_parser = clap::value_parser!(u8).range(..=MAX_PEERS as i64))]
    want: u8,

    /// Seed of the peers and shares, for the same ones each time [default: others each time]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// Leave the peers registered; they expire by themselves
    #[arg(long)]
    keep: bool,
}

/// A population to register.
#[derive(Debug, clap::Args)]
struct FillArgs {
    #[command(flatten)]
    load: LoadArgs,

    /// Shares
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    shares: u32,

    /// Peers of each share
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    peers_per_share: u32,
}

#[derive(Debug, clap::Args)]
struct RegisterArgs {
    #[command(flatten)]
    fill: FillArgs,
}

#[derive(Debug, clap::Args)]
struct ExpiryArgs {
    #[command(flatten)]
    fill: FillArgs,

    /// The tracker's --expire
    #[arg(long, value_name = "SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u16).range(2..=3_600))]
    expire: u16,

    /// Lookups a second while peers live and expire
    #[arg(long, value_name = "NUMBER", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    questions: u32,
}

#[derive(Debug, clap::Args)]
struct FloodArgs {
    #[command(flatten)]
    fill: FillArgs,

    /// Requests a second of the flood
    #[arg(long, value_name = "NUMBER", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    flood: u32,

    /// Requests a second of all others
    #[arg(long, value_name = "NUMBER", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    questions: u32,

    /// Seconds without the flood, and with it
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
}

/// Reads the command line; ends the program when there is nothing to run.
pub(crate) fn parse() -> Args {
    startup::parse(&[])
}

/// Runs the subcommand until it ends or `shutdown`.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let other = |error: anyhow::Error| Failure::new(ExitCode::Other, error);
    let target = match &args.command {
        Command::Run(RunArgs { load, .. })
        | Command::Register(RegisterArgs { fill: FillArgs { load, .. } })
        | Command::Expiry(ExpiryArgs { fill: FillArgs { load, .. }, .. })
        | Command::Flood(FloodArgs { fill: FillArgs { load, .. }, .. }) => {
            Some(load.resolve().await.map_err(|error| {
                Failure::new(ExitCode::Network, error).hint("name the tracker with --tracker HOST:PORT")
            })?)
        }
        Command::Infohashes { .. } | Command::Echo { .. } => None,
    };
    let work = move || match (args.command, target) {
        (Command::Run(args), Some(target)) => args.run(target, &shutdown),
        (Command::Register(args), Some(target)) => args.run(target, &shutdown),
        (Command::Expiry(args), Some(target)) => args.run(target, &shutdown),
        (Command::Flood(args), Some(target)) => args.run(target, &shutdown),
        (Command::Infohashes { seed, shares }, _) => {
            print_infohashes(seed, shares);
            Ok(())
        }
        (Command::Echo { port }, _) => echo::run(port, &shutdown),
        (_, None) => Ok(()),
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| other(error.into()))?.map_err(other)
}

impl LoadArgs {
    async fn resolve(&self) -> anyhow::Result<SocketAddr> {
        let Endpoint { host, port } = &self.tracker;
        let found = lookup_host((host.as_str(), *port)).await;
        let target = found.with_context(|| format!("cannot find {host}"))?.next();
        let target = target.with_context(|| format!("{host} has no address"))?;
        if !target.ip().is_loopback() {
            ensure!(self.remote, "{target} is another machine: say --remote if that is what you want");
            let rate = self.rate.unwrap_or(REMOTE_RATE);
            ensure!(rate <= MAX_REMOTE_RATE, "--rate is at most {MAX_REMOTE_RATE} with --remote");
            ensure!(self.addresses.is_none_or(|count| count == 1), "--addresses are of this machine only");
        }
        Ok(target)
    }

    fn rate(&self) -> Option<u32> {
        self.rate.or(self.remote.then_some(REMOTE_RATE))
    }

    fn addresses(&self, target: SocketAddr, peers: u32) -> u32 {
        let several = cfg!(target_os = "linux") && target.is_ipv4() && target.ip().is_loopback();
        let addresses = if several { self.addresses.unwrap_or(LOCAL_ADDRESSES) } else { 1 };
        addresses.min(peers)
    }

    fn load(&self, target: SocketAddr, population: Population, want: u8) -> anyhow::Result<Load> {
        let writer = Writer::new(self.protocol, population, want);
        Load::new(target, self.sockets, self.window, writer)
    }

    fn print(&self, report: &Report) {
        report.print(if self.json { Form::Json } else { Form::Text });
    }
}

impl RunArgs {
    fn run(&self, target: SocketAddr, stop: &CancellationToken) -> anyhow::Result<()> {
        let peers = self.peers.unwrap_or(if self.load.remote { 1_000 } else { 100_000 });
        ensure!(
            !self.load.remote || peers <= MAX_REMOTE_PEERS,
            "--peers is at most {MAX_REMOTE_PEERS} with --remote"
        );
        let population = Population {
            shares: self.shares,
            peers,
            addresses: self.load.addresses(target, peers),
            spread: Spread::Popular,
            seed: self.seed.unwrap_or_else(rand::random),
        };
        let load = self.load.load(target, population, self.want)?;
        let plan = measure::Plan {
            mix: self.mix,
            warm_up: Duration::from_secs(self.warm_up.into()),
            time: Duration::from_secs(self.seconds.into()),
            rate: self.load.rate(),
            process: self.load.pid.map(Process),
            keep: self.keep,
        };
        self.load.print(&measure::run(load, &plan, stop)?);
        Ok(())
    }
}

impl FillArgs {
    fn load(&self, target: SocketAddr) -> anyhow::Result<Load> {
        let peers =
            self.shares.checked_mul(self.peers_per_share).context("that many peers cannot be counted")?;
        ensure!(
            !self.load.remote || peers <= MAX_REMOTE_PEERS,
            "with --remote there are at most {MAX_REMOTE_PEERS} peers"
        );
        let population = Population {
            shares: self.shares,
            peers,
            addresses: self.load.addresses(target, peers),
            spread: Spread::Even,
            seed: rand::random(),
        };
        self.load.load(target, population, 30)
    }
}

impl RegisterArgs {
    fn run(&self, target: SocketAddr, stop: &CancellationToken) -> anyhow::Result<()> {
        let args = &self.fill.load;
        let load = self.fill.load(target)?;
        args.print(&register::run(load, args.rate(), args.pid.map(Process), stop)?);
        Ok(())
    }
}

impl ExpiryArgs {
    fn run(&self, target: SocketAddr, stop: &CancellationToken) -> anyhow::Result<()> {
        let args = &self.fill.load;
        let load = self.fill.load(target)?;
        let expire = Duration::from_secs(self.expire.into());
        args.print(&expiry::run(load, args.rate(), self.questions, expire, stop)?);
        Ok(())
    }
}

impl FloodArgs {
    fn run(&self, target: SocketAddr, stop: &CancellationToken) -> anyhow::Result<()> {
        let args = &self.fill.load;
        let is_here = cfg!(target_os = "linux") && target.is_ipv4() && target.ip().is_loopback();
        ensure!(is_here && args.protocol == Dialect::Shoal, "only a Shoal tracker on 127.0.0.1 is flooded");
        let plan = flood::Plan {
            flood: self.flood,
            questions: self.questions,
            time: Duration::from_secs(self.seconds.into()),
        };
        args.print(&flood::run(target, self.fill.load(target)?, &plan, stop)?);
        Ok(())
    }
}

/// BEP 15 has room for the first 20 bytes (40 digits).
fn print_infohashes(seed: u64, shares: u32) {
    let population = Population { shares, peers: 1, addresses: 1, spread: Spread::Popular, seed };
    for share in 0..shares {
        print_line(format_args!("{:.40}", population.infohash(share).to_string()));
    }
}

fn parse_mix(text: &str) -> Result<Mix, String> {
    let parts: Result<Vec<u32>, _> = text.split(':').map(str::parse).collect();
    match parts.as_deref() {
        Ok(&[connect, announce, lookup, search])
            if parts.iter().flatten().all(|&part| part <= 1_000_000)
                && parts.iter().flatten().any(|&part| part > 0) =>
        {
            Ok(Mix { connect, announce, lookup, search })
        }
        _ => Err("not four numbers like 10:45:44:1, one of them above 0".to_owned()),
    }
}
