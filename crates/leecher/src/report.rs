//! Reports a transfer to the user: bars on a terminal, lines elsewhere, or JSON for programs.

mod json;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use leecher::{FetchEvent, Fetched, LeaveReason, PeerProgress, Progress, Started, Target};
use proto::{Endpoint, Link, peer::GoodbyeReason};
use startup::{
    Failure, HumanBytes, Work, bar_line,
    console::{self, columns, cut},
    eprint_line, escape, human_time,
    json::{Event, print_event},
    print_line,
};

use crate::{
    screen::{Block, Screen},
    seen::SeenTransfer,
};
use json::{cannot_serve, event_of, name_moved};

/// Wait between two lines of progress, and before the first line. A short transfer prints none.
const LINE_INTERVAL: Duration = Duration::from_secs(3);

/// Longest time between two lines that say the same about what is waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const FIRST_LINE: Duration = Duration::from_millis(900);

/// Maximum number of peers that have a line on the terminal.
const MAX_PEER_LINES: usize = 12;

/// Maximum paths that are named of what an update removes. With `-v` all are.
const MAX_NAMED: usize = 3;

/// How to report.
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

/// Which transfer of a command is reported.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    /// The command has only this one.
    Only,
    /// One of several.
    OneOfMany {
        /// Its place on the command line.
        number: usize,
        /// What the user asked for.
        target: Target,
        /// Columns that the longest label of all has.
        label_width: usize,
    },
}

/// Reports one transfer to the user.
pub(crate) struct Reporter {
    style: Style,
    subject: Subject,
    /// Trackers and peers of the link that is printed.
    trackers: Vec<Endpoint>,
    peers: Vec<Endpoint>,
    explain: bool,
    /// What the leecher does after the transfer, if it does not leave.
    staying: Option<String>,
    display: Display,
    /// Receives every event too.
    seen: Option<Arc<SeenTransfer>>,
}

enum Display {
    Bars(Bars),
    Lines {
        next: Instant,
        /// What is waited for.
        waiting: Repeated,
    },
    None,
}

impl Subject {
    /// What the user asked for, if there are several transfers.
    fn target(&self) -> Option<&Target> {
        match self {
            Subject::Only => None,
            Subject::OneOfMany { target, .. } => Some(target),
        }
    }

    /// One of several targets.
    pub(crate) fn one_of(targets: &[Target], number: usize, target: &Target) -> Subject {
        if targets.len() == 1 {
            return Subject::Only;
        }
        let of =
            |target: &Target, label_width| Subject::OneOfMany { number, target: target.clone(), label_width };
        let widths = targets.iter().map(|target| columns(&escape(&of(target, 0).label())));
        of(target, widths.max().unwrap_or(0).min(MAX_LABEL))
    }

    /// One that is added to others.
    pub(crate) fn added(number: usize, target: &Target) -> Subject {
        let of = |label_width| Subject::OneOfMany { number, target: target.clone(), label_width };
        of(columns(&escape(&of(0).label())).min(MAX_LABEL))
    }

    /// What its lines start with.
    fn label(&self) -> String {
        match self {
            Subject::Only => String::new(),
            Subject::OneOfMany { target: Target::Link(link), .. } => match &link.name {
                Some(name) => format!("{name}: "),
                None => format!("{}: ", link.infohash),
            },
            Subject::OneOfMany { target, .. } => format!("{target}: "),
        }
    }
}

impl Reporter {
    /// Names these trackers and peers in the link from now on.
    pub(crate) fn rename_endpoints(&mut self, (trackers, peers): (Vec<Endpoint>, Vec<Endpoint>)) {
        (self.trackers, self.peers) = (trackers, peers);
    }

    /// A reporter whose link names `trackers` and `peers`. `staying` is what the leecher does after the transfer, if it
    /// does not leave.
    pub(crate) fn new(
        style: Style,
        subject: Subject,
        screen: &Screen,
        (trackers, peers): (Vec<Endpoint>, Vec<Endpoint>),
        explain: bool,
        staying: Option<String>,
    ) -> Reporter {
        let display = match style {
            Style::Progress if console::is_interactive() => Display::Bars(Bars::new(&subject, screen)),
            Style::Progress => {
                Display::Lines { next: Instant::now() + FIRST_LINE, waiting: Repeated::default() }
            }
            Style::Plain | Style::Quiet | Style::Json => Display::None,
        };
        Reporter { style, subject, trackers, peers, explain, staying, display, seen: None }
    }

    /// Shows every event to onlookers too.
    pub(crate) fn show_to(&mut self, seen: Arc<SeenTransfer>) {
        self.seen = Some(seen);
    }

    /// How it reports.
    pub(crate) fn style(&self) -> Style {
        self.style
    }

    /// What the user asked for, if there are several transfers.
    pub(crate) fn target(&self) -> Option<&Target> {
        self.subject.target()
    }

    /// Prints an event for programs, if those are reported.
    pub(crate) fn print(&self, event: &Event<'_>) {
        if self.style == Style::Json {
            json::print(self.subject.target(), event);
        }
    }

    pub(crate) fn event(&mut self, event: FetchEvent) {
        if let Some(seen) = &self.seen {
            seen.note(&event);
        }
        if self.style == Style::Json {
            return self.print(&event_of(&event));
        }
        let label = self.subject.label();
        match event {
            FetchEvent::Finished(fetched) => self.finished(&fetched),
            FetchEvent::Waiting(waiting) => self.waiting(&waiting.to_string()),
            FetchEvent::PeerJoined { address, seeder } => tracing::info!(%address, seeder, "peer joined"),
            FetchEvent::PeerLeft { address, reason } => {
                tracing::debug!(%address, "peer left: {reason}");
                // Two that dial each other at once keep one of their connections. Nothing is wrong then.
                if !matches!(reason, LeaveReason::Goodbye(GoodbyeReason::Duplicate)) {
                    self.say(&format!("Peer {address} left: {reason}"));
                }
            }
            FetchEvent::Progress(progress) => match &mut self.display {
                Display::Bars(bars) => bars.progress(&progress),
                Display::Lines { next, .. } => {
                    if is_due(next) {
                        eprint_line(format_args!("{label}{}", line(&progress)));
                    }
                }
                Display::None => {}
            },
            FetchEvent::TrackerTrouble(error) => self.warn(&error.to_string()),
            FetchEvent::Unsaved(error) => self.warn(&error.to_string()),
            FetchEvent::CannotServe(error) => self.warn(&cannot_serve(&error)),
            FetchEvent::Proving { done, total } => match &mut self.display {
                Display::Bars(bars) => bars.proving(done, total),
                Display::Lines { next, .. } => {
                    if is_due(next) {
                        let (percent, done, total) =
                            (percent(done, total), HumanBytes(done), HumanBytes(total));
                        eprint_line(format_args!(
                            "{label}Checking what is here: {percent}% ({done} of {total})"
                        ));
                    }
                }
                Display::None => {}
            },
            FetchEvent::NameMoved { name, before, now } => self.warn(&name_moved(&name, before, now)),
            FetchEvent::Started(started) => self.started(&started),
            FetchEvent::Flushing => {
                if let Display::Bars(bars) = &mut self.display {
                    bars.doing("Writing to disk".to_owned());
                }
            }
        }
    }

    fn waiting(&mut self, waiting: &str) {
        match &mut self.display {
            Display::Bars(bars) => bars.doing(waiting.to_owned()),
            Display::Lines { waiting: repeated, .. } => {
                if repeated.is_due(waiting, Instant::now()) {
                    eprint_line(format_args!("{}{waiting}", self.subject.label()));
                }
            }
            Display::None => {}
        }
    }

    fn finished(&mut self, fetched: &Fetched) {
        self.display = Display::None;
        if self.style == Style::Quiet {
            return;
        }
        if fetched.already_here {
            print_line(format_args!("Nothing to fetch: {} is here already", fetched.name));
            if let Some(staying) = &self.staying {
                print_line(staying);
            }
            return;
        }
        let received = fetched.received();
        for peer in &fetched.peers {
            let percent = peer.bytes as f64 / received.max(1) as f64 * 100.0;
            print_line(format_args!("  {percent:5.1}% ({}) from {}", HumanBytes(peer.bytes), peer.address));
        }
        self.spent(fetched);
        let (size, seconds) = (HumanBytes(fetched.wanted), fetched.elapsed.as_secs_f64());
        let rate = HumanBytes(average(fetched));
        // What was here before was not fetched, and does not count for the rate.
        let part = match received == fetched.wanted {
            true => format!("{rate}/s"),
            false => format!("fetched {} of it, {rate}/s", HumanBytes(received)),
        };
        print_line(format_args!("Saved {size} to {} in {seconds:.2} s ({part})", fetched.path.display()));
        print_line(format_args!("Successfully downloaded {}", fetched.name));
        if let Some(staying) = &self.staying {
            print_line(staying);
        }
    }

    /// Prints what the time was spent on: the largest part in a line, or all parts.
    fn spent(&self, fetched: &Fetched) {
        let seconds = fetched.elapsed.as_secs_f64();
        let percent = |time: Duration| time.as_secs_f64() / seconds.max(1e-9) * 100.0;
        if !self.explain {
            if let Some(&(spent, time)) = fetched.spent.first() {
                print_line(format_args!(
                    "The largest part of the time ({:.0}%) went to {spent}",
                    percent(time)
                ));
            }
            return;
        }
        print_line(format_args!("Where {seconds:.3} s went:"));
        for &(spent, time) in &fetched.spent {
            print_line(format_args!("  {:>8.3} s {:5.1}%  {spent}", time.as_secs_f64(), percent(time)));
        }
        let wasted = HumanBytes(fetched.wasted);
        print_line(format_args!(
            "Received but not needed: {wasted}; sent to others: {}",
            HumanBytes(fetched.uploaded)
        ));
    }

    /// Reports the end of the transfer. If it is the only one, its failure is reported when the program ends.
    pub(crate) fn end(mut self, result: &Result<Fetched, Failure>) {
        self.display = Display::None;
        match result {
            Ok(fetched) => self.left(fetched),
            Err(_) => self.failed(result),
        }
    }

    /// Reports a failure, if the transfer had one and is not the only one.
    pub(crate) fn failed<T>(&self, result: &Result<T, Failure>) {
        match (result, &self.subject) {
            (Ok(_), _) | (Err(_), Subject::Only) => {}
            (Err(failure), subject) if self.style == Style::Json => {
                json::print(subject.target(), &Event::failed(failure));
            }
            (Err(failure), subject) => {
                // The failure is already escaped, and its hint may have several lines.
                let text = format!("error: {}{failure}", subject.label());
                text.lines().for_each(eprint_line);
            }
        }
    }

    /// The leecher has left the swarm.
    fn left(&self, fetched: &Fetched) {
        match self.style {
            Style::Json => self.print(&Event::Left { uploaded: fetched.uploaded }),
            Style::Quiet => {}
            Style::Progress | Style::Plain => {
                let sent =
                    format!("Leecher stopped after sending {} to others", HumanBytes(fetched.uploaded));
                match self.staying {
                    Some(_) => print_line(sent),
                    None => tracing::info!("{sent}"),
                }
            }
        }
    }

    fn started(&mut self, started: &Started) {
        if self.style == Style::Quiet {
            return;
        }
        let (trackers, peers) = (self.trackers.clone(), self.peers.clone());
        let link = Link { infohash: started.infohash, name: Some(started.name.clone()), trackers, peers };
        let size = match HumanBytes(started.size) {
            size if started.wanted == started.size => size.to_string(),
            size => format!("{} of {size}", HumanBytes(started.wanted)),
        };
        let output = started.output.display();
        print_line(match started.already_here {
            true => format!("{output} has {} ({size}), and every byte of it is proved", started.name),
            false => format!("Downloading {} ({size}) to {output}", started.name),
        });
        print_line(format_args!("  {link}"));
        if started.already_here {
            return;
        }
        if started.zeros > 0 {
            print_line(format_args!(
                "  {} of it are zeros, which are not fetched",
                HumanBytes(started.zeros)
            ));
        }
        if started.reused > 0 {
            print_line(format_args!("  {} are taken from files that are here", HumanBytes(started.reused)));
        }
        if started.resumed > 0 {
            print_line(format_args!("  {} are here from an earlier run", HumanBytes(started.resumed)));
        }
        if let Some(removed) = removed(&started.removes) {
            print_line(format_args!("  {removed}"));
            started.removes.iter().for_each(|path| tracing::info!("will be removed: {}", path.display()));
        }
        match started.lost_chunks {
            0 => {}
            1 => print_line("  1 chunk of it was damaged and is fetched again"),
            lost => print_line(format_args!("  {lost} chunks of it were damaged and are fetched again")),
        }
    }

    fn warn(&self, trouble: &str) {
        self.say(&format!("warning: {trouble}"));
    }

    /// A line on stderr.
    fn say(&self, line: &str) {
        if self.style != Style::Quiet {
            eprint_line(format_args!("{}{line}", self.subject.label()));
        }
    }
}

/// Bytes that came from peers in a second, over the whole transfer.
fn average(fetched: &Fetched) -> u64 {
    per_second(fetched.received(), fetched.elapsed)
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000 / time.as_millis().max(1)).unwrap_or(u64::MAX)
}

/// A text that is printed ever more seldom while it stays the same.
#[derive(Default)]
struct Repeated {
    text: String,
    /// When to print it again, and the time until then.
    next: Option<(Instant, Duration)>,
}

impl Repeated {
    /// Whether to print this text now.
    fn is_due(&mut self, text: &str, now: Instant) -> bool {
        let pause = match self.next {
            Some((next, _)) if self.text == text && now < next => return false,
            Some((_, pause)) if self.text == text => (2 * pause).min(LONGEST_PAUSE),
            _ => LINE_INTERVAL,
        };
        text.clone_into(&mut self.text);
        self.next = Some((now + pause, pause));
        true
    }
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
    let work = work(progress);
    let (done, total, rate) = (HumanBytes(work.done), HumanBytes(work.total), HumanBytes(work.rate));
    let left = match work.left() {
        Some(left) => format!("{} left", human_time(left)),
        None if progress.peers.is_empty() => "waiting for peers".to_owned(),
        None => "waiting".to_owned(),
    };
    format!("{}% ({done} of {total}) at {rate}/s from {}, {left}", work.percent(), peers(progress))
}

fn percent(done: u64, total: u64) -> u64 {
    Work { done, total, rate: 0 }.percent()
}

fn work(progress: &Progress) -> Work {
    Work { done: progress.done, total: progress.total, rate: progress.rate }
}

/// Formats the number of peers: "1 peer", "2 peers".
fn peers(progress: &Progress) -> String {
    match progress.peers.len() {
        1 => "1 peer".to_owned(),
        many => format!("{many} peers"),
    }
}

/// Prints where the page is.
pub(crate) fn print_http(style: Style, url: &str) {
    match style {
        Style::Progress | Style::Plain => print_line(format_args!("Page and metrics are at {url}")),
        Style::Json => print_event(&Event::Http { url }),
        Style::Quiet => {}
    }
}

/// A bar for the transfer. If it is the only one, a line for each peer follows. Before and after the transfer there is a line
/// that names what is being done.
struct Bars {
    block: Block,
    label: String,
    /// When proving what is here began.
    proving_since: Option<Instant>,
}

/// Maximum columns of a label beside a bar. A longer one is cut.
pub(crate) const MAX_LABEL: usize = 24;

impl Bars {
    fn new(subject: &Subject, screen: &Screen) -> Bars {
        let (number, width) = match subject {
            Subject::Only => (0, 0),
            Subject::OneOfMany { number, label_width, .. } => (*number, *label_width),
        };
        let label = cut(&escape(&subject.label()), width);
        // So that all bars begin in the same column.
        let label = format!("{label}{}", " ".repeat(width.saturating_sub(columns(&label))));
        let bars = Bars { block: screen.block(number), label, proving_since: None };
        bars.doing("Looking for peers".to_owned());
        bars
    }

    fn doing(&self, what: String) {
        self.block.show(vec![format!("{}{what}", self.label)]);
    }

    fn proving(&mut self, done: u64, total: u64) {
        let since = *self.proving_since.get_or_insert_with(Instant::now);
        let work = Work { done, total, rate: per_second(done, since.elapsed()) };
        let (width, what) = (console::width(), "checking what is here");
        self.block.show(match self.label.is_empty() {
            true => vec!["Checking what is here".to_owned(), bar_line(width, "", work, "")],
            false => vec![bar_line(width, &self.label, work, what)],
        });
    }

    fn progress(&self, progress: &Progress) {
        let width = console::width();
        self.block.show(if self.label.is_empty() {
            progress_lines(width, progress)
        } else {
            vec![bar_line(width, &self.label, work(progress), &peers(progress))]
        });
    }
}

/// The transfer and its peers in lines of at most `width` columns.
fn progress_lines(width: usize, progress: &Progress) -> Vec<String> {
    let mut peers_in_order: Vec<_> = progress.peers.iter().collect();
    peers_in_order.sort_by_key(|peer| peer.address);
    let mut lines = vec![bar_line(width, "", work(progress), &peers(progress))];
    lines.extend(peers_in_order.iter().take(MAX_PEER_LINES).map(|peer| peer_line(width, peer)));
    let more = peers_in_order.len().saturating_sub(MAX_PEER_LINES);
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
    lines
}

fn peer_line(width: usize, peer: &PeerProgress) -> String {
    let (address, rate) = (peer.address.to_string(), format!("{}/s", HumanBytes(peer.rate)));
    let line = format!("  {address:<24} {:>12} at {rate}", HumanBytes(peer.bytes).to_string());
    if line.len() <= width { line } else { format!("  {address} {rate}") }
}

/// What an update removes, as one line: the first few, and how many more.
fn removed(paths: &[PathBuf]) -> Option<String> {
    let names: Vec<_> = paths.iter().take(MAX_NAMED).map(|path| path.display().to_string()).collect();
    let more = match paths.len().checked_sub(names.len())? {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!paths.is_empty())
        .then(|| format!("not in this version, so it will be removed: {}{more}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_repeated_ever_more_seldom_while_it_is_the_same() {
        let (mut repeated, start) = (Repeated::default(), Instant::now());
        let mut printed = Vec::new();
        for second in 0..240 {
            let text = if second < 200 { "Asking tracker a" } else { "Asking tracker b" };
            if repeated.is_due(text, start + Duration::from_secs(second)) {
                printed.push(second);
            }
        }
        let interval = LINE_INTERVAL.as_secs();
        let doubled: Vec<_> =
            (0..5).map(|times| interval * ((1 << times) - 1)).filter(|&at| at < 60).collect();
        assert!(printed.starts_with(&doubled), "{printed:?}");
        assert!(printed.contains(&200), "another text is printed at once: {printed:?}");
        assert!(printed.len() < 12, "{printed:?}");
    }

    #[test]
    fn peers_fit_a_narrow_terminal() {
        let peer = |n: u8| PeerProgress {
            address: ([192, 168, 100, 100 + n], 65_535).into(),
            bytes: 1023 << 30,
            rate: 100 << 20,
        };
        let progress =
            Progress { total: 1 << 40, peers: (0..14).rev().map(peer).collect(), ..Progress::default() };
        for width in [38, 78] {
            let lines = progress_lines(width, &progress);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:?}");
            assert_eq!(lines.len(), 1 + MAX_PEER_LINES + 1);
            assert!(lines[0].matches('░').count() >= 20, "{lines:?}");
            assert!(lines[1].starts_with("  192.168.100.100:65535") && lines[1].ends_with("100.00 MiB/s"));
            assert_eq!(lines[13], "  and 2 more");
        }
    }
}
