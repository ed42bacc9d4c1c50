//! The `evil-attack` program: keeps connections to a seeder open that want nothing from it, for benches.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context, Result};
use clap::Parser;
use evil::{Attack, Share, Victim};
use tokio::task::JoinSet;

/// Attacks a seeder until it is killed. It prints `ready` when all connections were begun
#[derive(Debug, Parser)]
struct Args {
    /// File that the seeder shares
    #[arg(long)]
    share: PathBuf,
    /// Where the seeder listens
    #[arg(long)]
    seeder: SocketAddr,
    /// Version of the seeder's protocol
    #[arg(long, default_value_t = proto::VERSION)]
    protocol: u8,
    /// Number of connections
    #[arg(long, default_value_t = 1_000)]
    count: u32,
    /// Number of addresses that they come from
    #[arg(long, default_value_t = 1)]
    hosts: u32,
    /// The first of these addresses
    #[arg(long, default_value = "127.0.2.1")]
    from: Ipv4Addr,
    /// `idle`, `half-open`, `half-hello`, `length-bomb` or `slow-reader`
    attack: Attack,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let infohash = Share::of_file(&args.share).context("the share")?.infohash();
    let victim = Victim { address: args.seeder, infohash, version: args.protocol };
    let mut connections = JoinSet::new();
    for number in 0..args.count {
        let ip = Ipv4Addr::from_bits(args.from.to_bits() + number % args.hosts.max(1));
        connections.spawn(args.attack.repeat(victim, IpAddr::V4(ip)));
    }
    println!("ready");
    while connections.join_next().await.is_some() {}
    Ok(())
}
