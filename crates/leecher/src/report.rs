//! Telling the user how a transfer goes: bars on a terminal, lines elsewhere, or JSON for programs.

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    net::SocketAddr,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use leecher::{FetchEvent, Fetched, PeerProgress, Progress, Started};
use proto::{Endpoint, Link};
use serde::Serialize;
use startup::{Failure, HumanBytes, eprint_line, print_line};

/// Wait between two lines of progress, and before the first: a short transfer needs none.
const LINE_INTERVAL: Duration = Duration::from_secs(3);
const FIRST_LINE: Duration = Duration::from_millis(900);

/// Peers that have a line of their own on the terminal.
const MAX_PEER_BARS: usize = 12;

/// How to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Bars or lines, and the outcome.
    Progress,
    /// The outcome.
    Plain,
    /// Nothing.
    Quiet,
    /// JSON lines.
    Json,
}

/// Tells the user about one transfer.
pub(crate) struct Report {
    style: Style,
    trackers: Vec<Endpoint>,
    explain: bool,
    display: Display,
}

enum Display {
    Bars(Bars),
    Lines {
        next: Instant,
        /// What was last waited for.
        said: String,
    },
    None,
}

/// An event as JSON. Sizes are in bytes, rates in bytes a second, times in seconds.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Json<'a> {
    Waiting {
        message: &'a str,
    },
    Warning {
        message: &'a str,
    },
    Proving {
        bytes: u64,
        total: u64,
    },
    Started {
        infohash: String,
        name: &'a str,
        size: u64,
        chunks: u32,
        resumed: u64,
        lost_chunks: u32,
        output: String,
    },
    PeerJoined {
        address: SocketAddr,
        seeder: bool,
    },
    PeerLeft {
        address: SocketAddr,
        reason: String,
    },
    Progress {
        bytes: u64,
        total: u64,
        rate: u64,
        peers: Vec<JsonPeer>,
    },
    Flushing,
    Finished {
        infohash: String,
        name: &'a str,
        output: String,
        bytes: u64,
        seconds: f64,
        wasted: u64,
        uploaded: u64,
        peers: Vec<JsonPeer>,
        spent: Vec<JsonSpent>,
    },
    Left {
        uploaded: u64,
    },
    Failed {
        code: u8,
        message: String,
    },
}

#[derive(Debug, Serialize)]
struct JsonPeer {
    address: SocketAddr,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u64>,
}

#[derive(Debug, Serialize)]
struct JsonSpent {
    on: String,
    seconds: f64,
}

impl Report {
    pub(crate) fn new(style: Style, trackers: Vec<Endpoint>, explain: bool) -> Report {
        let display = match style {
            Style::Progress if std::io::stderr().is_terminal() => Display::Bars(Bars::new()),
            Style::Progress => Display::Lines { next: Instant::now() + FIRST_LINE, said: String::new() },
            Style::Plain | Style::Quiet | Style::Json => Display::None,
        };
        Report { style, trackers, explain, display }
    }

    pub(crate) fn event(&mut self, event: FetchEvent) {
        if self.style == Style::Json {
            return print_json(&json(&event));
        }
        match event {
            FetchEvent::Finished(fetched) => self.finished(&fetched),
            FetchEvent::Waiting(what) => match &mut self.display {
                Display::Bars(bars) => bars.waiting(what),
                Display::Lines { next, said } => {
                    if is_due(next) || *said != what {
                        eprint_line(&what);
                        *said = what;
                    }
                }
                Display::None => {}
            },
            FetchEvent::TrackerTrouble(trouble) => self.say(&format!("warning: {trouble}")),
            FetchEvent::Proving { done, .. } => match &mut self.display {
                Display::Bars(bars) => bars.proving(done),
                Display::Lines { next, .. } => {
                    if is_due(next) {
                        let done = HumanBytes(done);
                        eprint_line(format!("Proving what an earlier run left: {done} so far"));
                    }
                }
                Display::None => {}
            },
            FetchEvent::Started(started) => self.started(&started),
            FetchEvent::PeerJoined { address, seeder } => {
                tracing::info!(%address, seeder, "peer joined");
            }
            FetchEvent::PeerLeft { address, reason } => {
                tracing::info!(%address, "peer left: {reason}");
                self.say(&format!("Peer {address} left: {reason}"));
            }
            FetchEvent::Progress(progress) => match &mut self.display {
                Display::Bars(bars) => bars.progress(&progress),
                Display::Lines { next, .. } => {
                    if is_due(next) {
                        eprint_line(line(&progress));
                    }
                }
                Display::None => {}
            },
            FetchEvent::Flushing => {
                if let Display::Bars(bars) = &mut self.display {
                    bars.flushing();
                }
            }
        }
    }

    fn finished(&mut self, fetched: &Fetched) {
        self.display = Display::None;
        if self.style == Style::Quiet {
            return;
        }
        let received: u64 = fetched.peers.iter().map(|peer| peer.bytes).sum();
        for peer in &fetched.peers {
            let percent = peer.bytes as f64 / received.max(1) as f64 * 100.0;
            print_line(format_args!("  {percent:5.1}% ({}) from {}", HumanBytes(peer.bytes), peer.address));
        }
        self.spent(fetched);
        let (size, seconds) = (HumanBytes(fetched.size), fetched.elapsed.as_secs_f64());
        let rate = HumanBytes(average(fetched));
        print_line(format_args!("Saved {size} to {} in {seconds:.2} s ({rate}/s)", fetched.path.display()));
        print_line(format_args!("Successfully downloaded {}", fetched.name));
    }

    /// Where the time went: the largest part in a line, or all of it.
    fn spent(&self, fetched: &Fetched) {
        let seconds = fetched.elapsed.as_secs_f64();
        let percent = |time: Duration| time.as_secs_f64() / seconds.max(1e-9) * 100.0;
        if !self.explain {
            if let Some(&(spent, time)) = fetched.spent.first() {
                print_line(format_args!("Most time ({:.0}%) went to {spent}", percent(time)));
            }
            return;
        }
        print_line(format_args!("Where {seconds:.3} s went:"));
        for &(spent, time) in &fetched.spent {
            print_line(format_args!("  {:>8.3} s {:5.1}%  {spent}", time.as_secs_f64(), percent(time)));
        }
        let wasted = HumanBytes(fetched.wasted);
        print_line(format_args!(
            "Received in vain: {wasted}; sent to others: {}",
            HumanBytes(fetched.uploaded)
        ));
    }

    /// The leecher has left the swarm.
    pub(crate) fn left(&mut self, fetched: &Fetched) {
        self.display = Display::None;
        match self.style {
            Style::Json => print_json(&Json::Left { uploaded: fetched.uploaded }),
            Style::Quiet => {}
            Style::Progress | Style::Plain => {
                tracing::info!("sent {} to others", HumanBytes(fetched.uploaded));
            }
        }
    }

    fn started(&mut self, started: &Started) {
        if self.style == Style::Quiet {
            return;
        }
        let link = Link {
            infohash: started.infohash,
            name: Some(started.name.clone()),
            trackers: self.trackers.clone(),
            peers: Vec::new(),
        };
        let (size, output) = (HumanBytes(started.size), started.output.display());
        self.print(&format!("Downloading {} ({size}) to {output}", started.name));
        self.print(&format!("  {link}"));
        if started.resumed > 0 {
            self.print(&format!("  {} are here from an earlier run", HumanBytes(started.resumed)));
        }
        if started.lost_chunks > 0 {
            self.print(&format!("  {} chunks of it were damaged and are fetched again", started.lost_chunks));
        }
        if let Display::Bars(bars) = &mut self.display {
            bars.started(started);
        }
    }

    /// A line on stdout that does not disturb the bars.
    fn print(&self, line: &str) {
        match &self.display {
            Display::Bars(bars) => bars.all.suspend(|| print_line(line)),
            Display::Lines { .. } | Display::None => print_line(line),
        }
    }

    /// A line on stderr that does not disturb the bars.
    fn say(&self, line: &str) {
        match &self.display {
            _ if self.style == Style::Quiet => {}
            Display::Bars(bars) => bars.all.suspend(|| eprint_line(line)),
            Display::Lines { .. } | Display::None => eprint_line(line),
        }
    }
}

/// Bytes a second over the whole transfer.
fn average(fetched: &Fetched) -> u64 {
    let ms = fetched.elapsed.as_millis().max(1);
    u64::try_from(u128::from(fetched.size) * 1_000 / ms).unwrap_or(u64::MAX)
}

fn is_due(next: &mut Instant) -> bool {
    let now = Instant::now();
    let due = now >= *next;
    if due {
        *next = now + LINE_INTERVAL;
    }
    due
}

fn line(progress: &Progress) -> String {
    let percent = (progress.done * 100).checked_div(progress.total).unwrap_or(100);
    let (done, total, rate) =
        (HumanBytes(progress.done), HumanBytes(progress.total), HumanBytes(progress.rate));
    let left = match (progress.total - progress.done).checked_div(progress.rate) {
        Some(seconds) => format!("{seconds} s left"),
        None if progress.peers.is_empty() => "waiting for peers".to_owned(),
        None => "waiting".to_owned(),
    };
    let peers = progress.peers.len();
    let plural = if peers == 1 { "" } else { "s" };
    format!("{percent}% ({done} of {total}) at {rate}/s from {peers} peer{plural}, {left}")
}

/// Tells of a failure as JSON.
pub(crate) fn print_failure(failure: &Failure) {
    print_json(&Json::Failed { code: failure.code() as u8, message: failure.to_string() });
}

fn print_json(event: &Json<'_>) {
    match serde_json::to_string(event) {
        Ok(line) => print_line(line),
        Err(error) => tracing::error!("cannot write an event as JSON: {error}"),
    }
}

fn json(event: &FetchEvent) -> Json<'_> {
    match event {
        FetchEvent::Waiting(message) => Json::Waiting { message },
        FetchEvent::TrackerTrouble(message) => Json::Warning { message },
        FetchEvent::Proving { done, total } => Json::Proving { bytes: *done, total: *total },
        FetchEvent::Started(started) => Json::Started {
            infohash: started.infohash.to_string(),
            name: started.name.as_str(),
            size: started.size,
            chunks: started.chunks,
            resumed: started.resumed,
            lost_chunks: started.lost_chunks,
            output: started.output.display().to_string(),
        },
        FetchEvent::PeerJoined { address, seeder } => Json::PeerJoined { address: *address, seeder: *seeder },
        FetchEvent::PeerLeft { address, reason } => {
            Json::PeerLeft { address: *address, reason: reason.to_string() }
        }
        FetchEvent::Progress(progress) => Json::Progress {
            bytes: progress.done,
            total: progress.total,
            rate: progress.rate,
            peers: progress
                .peers
                .iter()
                .map(|peer| JsonPeer { address: peer.address, bytes: peer.bytes, rate: Some(peer.rate) })
                .collect(),
        },
        FetchEvent::Flushing => Json::Flushing,
        FetchEvent::Finished(fetched) => finished_json(fetched),
    }
}

fn finished_json(fetched: &Fetched) -> Json<'_> {
    let peers = fetched.peers.iter();
    let spent = fetched.spent.iter();
    Json::Finished {
        infohash: fetched.infohash.to_string(),
        name: fetched.name.as_str(),
        output: fetched.path.display().to_string(),
        bytes: fetched.size,
        seconds: fetched.elapsed.as_secs_f64(),
        wasted: fetched.wasted,
        uploaded: fetched.uploaded,
        peers: peers.map(|peer| JsonPeer { address: peer.address, bytes: peer.bytes, rate: None }).collect(),
        spent: spent
            .map(|(on, time)| JsonSpent { on: on.to_string(), seconds: time.as_secs_f64() })
            .collect(),
    }
}

/// A bar for the transfer, and under it a line for each peer.
struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    peers: BTreeMap<SocketAddr, ProgressBar>,
}

impl Bars {
    fn new() -> Bars {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let total = all.add(ProgressBar::new_spinner());
        total.set_style(style("{spinner} {msg}"));
        total.set_message("Looking for peers");
        total.enable_steady_tick(Duration::from_millis(200));
        Bars { all, total, peers: BTreeMap::new() }
    }

    fn waiting(&mut self, what: String) {
        self.total.set_message(what);
    }

    fn proving(&mut self, done: u64) {
        self.total.set_message(format!("Proving what an earlier run left: {} so far", HumanBytes(done)));
    }

    fn started(&mut self, started: &Started) {
        self.total.set_style(style("{prefix} {wide_bar} {msg}"));
        self.total.set_length(started.size);
        self.total.set_prefix(started.name.to_string());
        self.total.set_position(started.resumed);
        self.total.set_message("");
    }

    fn progress(&mut self, progress: &Progress) {
        self.total.set_position(progress.done);
        self.total.set_message(line(progress));
        let here = |address| progress.peers.iter().any(|peer| peer.address == address);
        self.peers.retain(|&address, bar| {
            let stays = here(address);
            if !stays {
                bar.finish_and_clear();
            }
            stays
        });
        for peer in &progress.peers {
            self.peer(peer);
        }
    }

    fn peer(&mut self, peer: &PeerProgress) {
        if self.peers.len() >= MAX_PEER_BARS && !self.peers.contains_key(&peer.address) {
            return;
        }
        let bar = self.peers.entry(peer.address).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new_spinner());
            bar.set_style(style("  {wide_msg}"));
            bar
        });
        let (bytes, rate) = (HumanBytes(peer.bytes).to_string(), HumanBytes(peer.rate));
        bar.set_message(format!("{:<24} {bytes:>12} at {rate}/s", peer.address.to_string()));
    }

    fn flushing(&mut self) {
        self.total.set_style(style("{spinner} {msg}"));
        self.total.set_message("Writing to disk");
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.peers.values().for_each(ProgressBar::finish_and_clear);
        self.total.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
