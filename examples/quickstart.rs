//! A whole Shoal in one process: a tracker, three seeders and a leecher on localhost.
//!
//! Shares a file, fetches it from all three at once, proves it, and says what came from whom:
//!
//! ```text
//! cargo run --release --example quickstart                      # a file that it makes
//! cargo run --release --example quickstart -- --file PATH       # or one of yours
//! ```

use std::{
    fs::File,
    io::{BufWriter, Write},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;
use rand::Rng;
use shoal::{Fetch, FetchEvent, Fetched, Node, Share, ShareEvent, ShareHandle, StreamExt};
use startup::{HumanBytes, Work, bar_line, console, eprint_line, print_line};
use tokio_util::sync::CancellationToken;
use tracker::Tracker;

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
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint_line(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    // Removed at the end, whatever happens.
    let scratch = tempfile::tempdir().context("no directory for temporary files")?;
    let source = match args.file {
        Some(path) => path,
        None => make_file(&scratch.path().join("quickstart.bin"), args.mib)?,
    };
    let config = tracker::Config { bind: Some(LOCALHOST), port: 0, ..Default::default() };
    let tracker = Tracker::bind(config).await?;
    print_line(format_args!("Tracker on {}", tracker.local_addr()));
    let node = Node::builder().tracker(tracker.local_addr()).bind(LOCALHOST).build();
    let shutdown = CancellationToken::new();
    let tracker = tokio::spawn(tracker.run(shutdown.clone()));

    let result = tokio::select! {
        result = transfer(&node, &source, scratch.path()) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
    };
    console::hide();
    node.stop().await;
    shutdown.cancel();
    tracker.await??;
    report(&result?);
    Ok(())
}

/// Shares the source several times, fetches it, and proves what arrived.
async fn transfer(node: &Node, source: &Path, scratch: &Path) -> Result<Fetched> {
    let mut seeders = Vec::with_capacity(SEEDERS);
    for number in 1..=SEEDERS {
        print_line(format_args!("Hashing {}", source.display()));
        let mut share = node.share(source).await?;
        print_line(format_args!("Seeder {number} on {}", share.local_addr()));
        wait_until_registered(&mut share).await?;
        seeders.push(share);
    }
    let mut fetch = node.fetch(Fetch::new(seeders[0].infohash()).directory(scratch));
    while let Some(event) = fetch.events().next().await {
        show(&event);
    }
    console::hide();
    let fetched = fetch.finished().await?;

    // Hashed once more, it has the share's infohash if it is the share.
    let copy = node.share(Share::new(&fetched.path).name(fetched.name.clone())).await?;
    ensure!(copy.infohash() == fetched.infohash, "{} is not the share", fetched.path.display());
    print_line(format_args!("Proved: {} has the infohash of the share", fetched.path.display()));
    Ok(fetched)
}

async fn wait_until_registered(share: &mut ShareHandle) -> Result<()> {
    while let Some(event) = share.events().next().await {
        if let ShareEvent::Registered { .. } = event {
            return Ok(());
        }
    }
    bail!("the seeder ended")
}

fn show(event: &FetchEvent) {
    match event {
        FetchEvent::Progress(progress) if console::is_interactive() => {
            let work = Work { done: progress.done, total: progress.total, rate: progress.rate };
            console::show(vec![bar_line(console::width(), "Fetching", work, "")]);
        }
        FetchEvent::Progress(progress) => {
            print_line(format_args!("{} of {}", HumanBytes(progress.done), HumanBytes(progress.total)));
        }
        FetchEvent::PeerJoined { address, .. } => print_line(format_args!("Fetching from {address}")),
        FetchEvent::PeerLeft { address, reason } => print_line(format_args!("{address} left: {reason}")),
        _ => {}
    }
}

fn report(fetched: &Fetched) {
    for peer in &fetched.peers {
        print_line(format_args!("  {} from {}", HumanBytes(peer.bytes), peer.address));
    }
    let (size, seconds) = (HumanBytes(fetched.size), fetched.elapsed.as_secs_f64());
    print_line(format_args!("Successfully downloaded {} ({size}) in {seconds:.2} s", fetched.name));
}

/// Makes a file that compresses badly and repeats nowhere.
fn make_file(path: &Path, mib: u64) -> Result<PathBuf> {
    let mut file =
        BufWriter::new(File::create(path).with_context(|| format!("cannot create {}", path.display()))?);
    let mut rng = rand::rng();
    let mut block = vec![0; 1024 * 1024];
    for _ in 0..mib {
        rng.fill_bytes(&mut block);
        file.write_all(&block).with_context(|| format!("cannot write {}", path.display()))?;
    }
    file.flush()?;
    Ok(path.to_owned())
}
