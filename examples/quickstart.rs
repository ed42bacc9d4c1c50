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
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use leecher::{Destination, FetchEvent, Fetched, Target};
use proto::Endpoint;
use rand::Rng;
use seeder::{Event, Seeder};
use startup::{HumanBytes, Work, bar_line, console, eprint_line, print_line};
use store::{Content, Shared};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
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
    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    let on_ctrl_c = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_ctrl_c.cancel();
        }
    });
    let result = transfer(&source, scratch.path(), &shutdown, &tasks).await;
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    let fetched = result?;
    prove(&fetched)?;
    report(&fetched);
    Ok(())
}

/// Starts every role and fetches the share.
async fn transfer(
    source: &Path,
    scratch: &Path,
    shutdown: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Fetched> {
    let tracker =
        Tracker::bind(tracker::Config { bind: Some(LOCALHOST), port: 0, ..Default::default() }).await?;
    let endpoint = Endpoint { host: LOCALHOST.to_string(), port: tracker.local_addr().port() };
    print_line(format_args!("Tracker on {endpoint}"));
    tasks.spawn(tracker.run(shutdown.clone()));

    print_line(format_args!("Hashing {}", source.display()));
    let share = Arc::new(store::share(source, None, None, |_| (), &|_| ControlFlow::Continue(()))?);
    let infohash = share.metainfo().infohash();
    for number in 1..=SEEDERS {
        start_seeder(number, Arc::clone(&share), &endpoint, shutdown, tasks).await?;
    }

    let config = leecher::Config {
        trackers: vec![endpoint],
        destination: Destination::Directory(scratch.to_owned()),
        ..leecher::Config::new(Target::InfoHash(infohash))
    };
    let fetched = leecher::fetch(config, |event| show(&event), shutdown.clone()).await;
    console::hide();
    Ok(fetched?)
}

/// Starts a seeder and waits until the tracker knows it.
async fn start_seeder(
    number: usize,
    share: Arc<Shared>,
    tracker: &Endpoint,
    shutdown: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<()> {
    let config = seeder::Config {
        bind: Some(LOCALHOST),
        port: 0,
        trackers: vec![tracker.clone()],
        ..Default::default()
    };
    let seeder = Seeder::bind(config).await?;
    print_line(format_args!("Seeder {number} on {}", seeder.local_addr()));
    let (told, mut registered) = mpsc::channel(1);
    let on_event = move |event| {
        if let Event::Announced { .. } = event {
            // Only the first one is waited for.
            let _ = told.try_send(());
        }
    };
    tasks.spawn(seeder.run(vec![share], on_event, shutdown.clone()));
    registered.recv().await.context("the seeder ended")
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

/// Hashes what arrived once more: it is the share if it has the share's infohash.
fn prove(fetched: &Fetched) -> Result<()> {
    let name = Some(fetched.name.clone());
    let copy = store::share(&fetched.path, name, None, |_| (), &|_| ControlFlow::Continue(()))?;
    ensure!(copy.metainfo().infohash() == fetched.infohash, "{} is not the share", fetched.path.display());
    print_line(format_args!("Proved: {} has the infohash of the share", fetched.path.display()));
    Ok(())
}
