//! The `evil-peers` program: evil peers on loopback addresses of their own, for benches.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, Result};
use clap::Parser;
use evil::{EvilPeer, KINDS, Kind, Share};
use tokio_util::task::TaskTracker;

/// Runs peers that misbehave, until it is killed, and prints `ADDRESS KIND` for each
#[derive(Debug, Parser)]
struct Args {
    /// File that they share
    #[arg(long)]
    share: PathBuf,
    /// First address; each peer has the next one
    #[arg(long, default_value = "127.0.1.1")]
    from: Ipv4Addr,
    /// Close each connection and connect to the port that its `Hello` names
    #[arg(long)]
    call_back: bool,
    /// Kinds, each with a number of peers (`silent`, `silent:60`), or `all`
    #[arg(required = true)]
    kinds: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let share = Arc::new(Share::of_file(&args.share)?);
    let tasks = TaskTracker::new();
    let mut peers = Vec::new();
    for kind in kinds(&args.kinds)? {
        let number = u32::try_from(peers.len())?;
        let ip = IpAddr::V4(Ipv4Addr::from_bits(args.from.to_bits() + number));
        let start = if args.call_back { EvilPeer::call_back } else { EvilPeer::listen };
        peers.push(start(kind, &share, ip, &tasks).with_context(|| format!("{kind} on {ip}"))?);
    }
    let mut out = std::io::stdout().lock();
    for peer in &peers {
        writeln!(out, "{} {}", peer.address, peer.kind)?;
    }
    writeln!(out, "ready")?;
    out.flush()?;
    std::future::pending().await
}

/// The kinds that arguments name.
fn kinds(arguments: &[String]) -> Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    for argument in arguments {
        let (name, count) = argument.split_once(':').unwrap_or((argument, "1"));
        let count = count.parse().with_context(|| format!("{argument}: no number"))?;
        for _ in 0..count {
            match name {
                "all" => kinds.extend(KINDS),
                name => kinds.push(name.parse().map_err(anyhow::Error::msg)?),
            }
        }
    }
    Ok(kinds)
}
