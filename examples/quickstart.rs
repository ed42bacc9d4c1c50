//! A whole Shoal in one process: shares a file three times on localhost, fetches it from all three, and proves the copy.
//!
//! ```text
//! cargo run --release --example quickstart                      # a file that it makes
//! cargo run --release --example quickstart -- --file PATH       # or one of yours
//! ```

use std::{
    fs::File,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow, ensure};
use clap::Parser;
use shoal::{Fetch, FetchEvent, Node, Share, ShareEvent, StreamExt, tracker};

const SEEDERS: usize = 3;
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Share a file from three seeders and fetch it, all in this process
#[derive(Debug, Parser)]
struct Args {
    /// File or directory to share [default: a file of random bytes]
    #[arg(long)]
    file: Option<PathBuf>,

    /// Size of the file that is made if none is given, in MiB
    #[arg(long, default_value_t = 256)]
    mib: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    // Removed at the end, after Ctrl-C too.
    let scratch = tempfile::tempdir()?;
    tokio::select! {
        result = run(Args::parse(), scratch.path()) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
    }
}

async fn run(args: Args, scratch: &Path) -> Result<()> {
    let made = scratch.join("quickstart.bin");
    if args.file.is_none() {
        io::copy(&mut File::open("/dev/urandom")?.take(args.mib << 20), &mut File::create(&made)?)?;
    }
    let source = args.file.unwrap_or(made);
    let config = tracker::Config { bind: Some(LOCALHOST), port: 0, ..tracker::Config::default() };
    let tracker = tracker::TrackerHandle::start(config).await?;
    println!("Tracker on {}", tracker.local_addr());
    let new_node = || Node::builder().tracker(tracker.local_addr()).bind(LOCALHOST).build();

    let mut seeders = Vec::new();
    for _ in 0..SEEDERS {
        let mut share = new_node().share(source.as_path()).await?;
        // The first event: the tracker has registered it.
        ensure!(matches!(share.events().next().await, Some(ShareEvent::Registered { .. })), "not registered");
        println!("Seeder on {}", share.local_addr());
        seeders.push(share);
    }
    let mut fetch = new_node().fetch(Fetch::new(seeders[0].infohash()).directory(scratch));
    while let Some(event) = fetch.events().next().await {
        match event {
            FetchEvent::Progress(progress) => {
                println!("{} of {} bytes", progress.done, progress.total);
            }
            FetchEvent::PeerJoined { address, .. } => println!("Fetching from {address}"),
            _ => {}
        }
    }
    let fetched = fetch.finished().await?;

    // Hashed once more, a copy has the share's infohash only if it is the share.
    let copy = new_node().share(Share::new(&fetched.path).name(fetched.name.clone())).await?;
    ensure!(copy.infohash() == fetched.infohash, "{} is not the share", fetched.path.display());
    println!("Proved: {} has the infohash of the share", fetched.path.display());
    for peer in &fetched.peers {
        println!("  {} bytes from {}", peer.bytes, peer.address);
    }
    println!("Downloaded {} ({} bytes) in {:.2?}", fetched.name, fetched.size, fetched.elapsed);
    for share in seeders.into_iter().chain([copy]) {
        share.stop().await;
    }
    Ok(tracker.stop().await?)
}
