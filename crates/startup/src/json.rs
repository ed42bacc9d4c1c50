//! What the programs report with `--json`: one object a line on stdout. docs/json.md describes each event.
//!
//! Invariant: the keys of an event stay what they are while [`VERSION`] does. New events and new keys may come.

use std::{
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use humantime::format_rfc3339_millis;
use serde::Serialize;

use crate::{console::print_json_line, exit::Failure, serving::Served};

/// Version of the events, in the key `v`.
const VERSION: u32 = 1;

/// How a program reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Text,
    /// For programs: [`Event`]s on stdout.
    Json,
}

impl Output {
    /// What the flag `--json` stands for.
    pub fn of(json: bool) -> Output {
        if json { Output::Json } else { Output::Text }
    }
}

/// An event. Sizes are in bytes, rates in bytes a second.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "docs/json.md describes them, and a test compares the two")]
pub enum Event<'a> {
    // All programs.
    Error { code: u8, message: String, hint: Option<String> },
    Warning { kind: &'a str, message: String },
    Http { url: &'a str },
    Listening { address: SocketAddr },
    TrackerFound { tracker: String, name: &'a str },
    // Tracker.
    Status(Status),
    Stopped,
    Answers { tracker: String, after_ms: f64 },
    Lists { allowed: Option<usize>, denied: Option<usize>, ended: u64 },
    // Seeder.
    Hashing { path: String, bytes: u64, total: u64 },
    Shared(Shared<'a>),
    Registered { infohash: String, name: &'a str, tracker: String, seeders: u32, leechers: u32 },
    NotRegistered { infohash: String, name: &'a str, tracker: String, message: String },
    Withdrawn { infohash: String, name: &'a str, message: String },
    ReceiverJoined { infohash: String, name: &'a str, address: SocketAddr },
    ReceiverLeft { infohash: String, name: &'a str, address: SocketAddr, sent: u64 },
    // Seeder and leecher.
    Serving(&'a Served),
    Left { uploaded: u64 },
    // Leecher.
    Waiting { on: &'a str, message: String },
    NameMoved { name: &'a str, before: String, now: String, message: String },
    Proving { bytes: u64, total: u64 },
    Started(Started<'a>),
    PeerJoined { address: SocketAddr, seeder: bool },
    PeerLeft { address: SocketAddr, reason: &'a str, message: String },
    Progress { bytes: u64, total: u64, rate: u64, peers: Vec<Source> },
    Flushing,
    Finished(Finished<'a>),
    Failed { code: u8, message: String, hint: Option<String> },
    // What is asked for in place of a transfer.
    Listed(Listed<'a>),
    EndOfList { listed: usize, cut: bool },
    File { infohash: &'a str, path: &'a str, size: u64, link: Option<&'a str> },
    Checked { name: &'a str, output: String, bytes: u64 },
    Difference { path: String, message: String },
    // The barrier.
    Completions(Completions),
    Reached(Completions),
}

/// What a tracker knows and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "docs/json.md describes them, and a test compares the two")]
pub struct Status {
    pub shares: usize,
    pub seeders: usize,
    pub leechers: usize,
    pub announces: u64,
    pub lookups: u64,
    pub answers: u64,
}

/// A share that is offered.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "docs/json.md describes them, and a test compares the two")]
pub struct Shared<'a> {
    pub infohash: String,
    pub name: &'a str,
    pub path: String,
    pub size: u64,
    pub files: usize,
    pub chunks: u32,
    pub link: String,
    pub link_here: String,
}

/// A transfer that begins.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "docs/json.md describes them, and a test compares the two")]
pub struct Started<'a> {
    pub infohash: String,
    pub name: &'a str,
    pub size: u64,
    pub wanted: u64,
    pub chunks: u32,
    pub resumed: u64,
    pub zeros: u64,
    pub reused: u64,
    pub already_here: bool,
    pub removes: u64,
    pub lost_chunks: u32,
    pub output: String,
}

/// A transfer that is done.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "docs/json.md describes them, and a test compares the two")]
pub struct Finished<'a> {
    pub infohash: String,
    pub name: &'a str,
    pub output: String,
    pub bytes: u64,
    pub received: u64,
    pub resumed: u64,
    pub zeros: u64,
    pub reused: u64,
    pub already_here: bool,
    pub seconds: f64,
    pub wasted: u64,
    pub uploaded: u64,
    pub peers: Vec<Source>,
    pub spent: Vec<Spent>,
}

/// A peer that sends chunks.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "docs/json.md describes them, and a test compares the two")]
pub struct Source {
    pub address: SocketAddr,
    pub bytes: u64,
    /// `None` if the transfer is over.
    pub rate: Option<u64>,
}

/// What time was spent on.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "docs/json.md describes them, and a test compares the two")]
pub struct Spent {
    pub on: &'static str,
    pub peer: Option<SocketAddr>,
    pub seconds: f64,
}

/// A share in a list.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "docs/json.md describes them, and a test compares the two")]
pub struct Listed<'a> {
    pub infohash: String,
    pub name: &'a str,
    pub size: u64,
    pub seeders: u32,
    pub leechers: u32,
    pub addresses: u32,
    pub completed: u32,
    pub link: String,
}

/// How many hosts have fetched a share.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "docs/json.md describes them, and a test compares the two")]
pub struct Completions {
    pub completed: u32,
    pub hosts: u32,
    pub seeders: u32,
    pub leechers: u32,
    pub late: Vec<Late>,
    /// Hosts that have fetched all of it, those that are gone too.
    pub done: Vec<Done>,
}

/// A host that does not have all of it.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "docs/json.md describes them, and a test compares the two")]
pub struct Late {
    pub address: SocketAddr,
    pub label: String,
    pub percent: u8,
    /// Seconds since this last grew, as far as it was seen.
    pub unchanged_s: u64,
}

/// A host that has fetched all of it.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "docs/json.md describes them, and a test compares the two")]
pub struct Done {
    pub address: IpAddr,
    pub label: String,
}

impl Event<'_> {
    /// The program fails.
    pub fn error(failure: &Failure) -> Event<'static> {
        Event::Error { code: failure.code() as u8, message: failure.message(), hint: failure.hint_text() }
    }

    /// One of several transfers failed.
    pub fn failed(failure: &Failure) -> Event<'static> {
        Event::Failed { code: failure.code() as u8, message: failure.message(), hint: failure.hint_text() }
    }
}

/// An event with what every line has.
#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    ts: String,
    #[serde(flatten)]
    event: &'a Event<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
}

/// Prints an event.
pub fn print_event(event: &Event<'_>) {
    print(event, None);
}

/// Prints an event that is about one of several targets of a command.
pub fn print_event_of(target: &str, event: &Event<'_>) {
    print(event, Some(target));
}

fn print(event: &Event<'_>, target: Option<&str>) {
    print_json_line(&line(event, target, SystemTime::now()));
}

fn line(event: &Event<'_>, target: Option<&str>, now: SystemTime) -> String {
    let line = Line { v: VERSION, ts: format_rfc3339_millis(now).to_string(), event, target };
    // It has no map and no number that JSON cannot hold, so this does not fail.
    serde_json::to_string(&line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        time::{Duration, UNIX_EPOCH},
    };

    use serde_json::Value;

    use super::*;
    use crate::exit::ExitCode;

    const INFOHASH: &str = "d2f9af42da3de371b62985f633987c5f60072463ced0842295500b26a50ed51b";
    const BEFORE: &str = "0f5c7e9b1d3a5c7e9b1d3a5c7e9b1d3a5c7e9b1d3a5c7e9b1d3a5c7e9b1d3a5c";
    const ELSEWHERE: &str = "magnet:?xt=urn:btmh:1220d2f9…&dn=disk.img&tr=shoal://192.0.2.2:6020";
    const HERE: &str = "magnet:?xt=urn:btmh:1220d2f9…&dn=disk.img&tr=shoal://127.0.0.1:6020";
    const NAME: &str = "disk.img";
    const OUTPUT: &str = "leeched_disk.img";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// One of each event, as the page has it.
    fn events(served: &Served) -> Vec<Event<'_>> {
        let (infohash, tracker) = (|| INFOHASH.to_owned(), || "192.0.2.2:6020".to_owned());
        let (seeder, receiver) = (address("192.0.2.2:7000"), address("192.0.2.7:41234"));
        let done = vec![Done { address: seeder.ip(), label: "node2".to_owned() }];
        let in_use = Failure::new(ExitCode::Network, "TCP port 7000 is in use")
            .hint("choose another port with -p, or -p 0 for any that is free");
        let unknown = Failure::new(ExitCode::NotFound, "no tracker knows a share called 'disk.img'").hint(
            "check that a seeder is running with the same tracker; --list shows the shares that the tracker knows",
        );
        vec![
            Event::error(&in_use),
            Event::Warning { kind: "tracker", message: "tracker 192.0.2.2:6020 does not answer".to_owned() },
            Event::Http { url: "http://127.0.0.1:6020/" },
            Event::Listening { address: address("[::]:6020") },
            Event::TrackerFound { tracker: tracker(), name: "store1" },
            Event::Status(Status {
                shares: 2,
                seeders: 3,
                leechers: 50,
                announces: 4711,
                lookups: 815,
                answers: 5560,
            }),
            Event::Stopped,
            Event::Answers { tracker: "build1:6020".into(), after_ms: 0.4 },
            Event::Lists { allowed: None, denied: Some(12), ended: 3 },
            Event::Hashing { path: "images/disk.img".to_owned(), bytes: 104_857_600, total: 300_000_000 },
            Event::Shared(Shared {
                infohash: infohash(),
                name: NAME,
                path: "images/disk.img".to_owned(),
                size: 300_000_000,
                files: 1,
                chunks: 573,
                link: ELSEWHERE.to_owned(),
                link_here: HERE.to_owned(),
            }),
            Event::Registered {
                infohash: infohash(),
                name: NAME,
                tracker: tracker(),
                seeders: 1,
                leechers: 0,
            },
            Event::NotRegistered {
                infohash: infohash(),
                name: NAME,
                tracker: tracker(),
                message: "'disk.img' is not registered: tracker 192.0.2.2:6020 does not answer; trying again"
                    .to_owned(),
            },
            Event::Withdrawn {
                infohash: infohash(),
                name: NAME,
                message: "disk.img changed since it was shared".to_owned(),
            },
            Event::ReceiverJoined { infohash: infohash(), name: NAME, address: receiver },
            Event::ReceiverLeft { infohash: infohash(), name: NAME, address: receiver, sent: 5_242_880 },
            Event::Serving(served),
            Event::Left { uploaded: 900_000_000 },
            Event::Waiting { on: "share", message: "No tracker knows the share yet …".to_owned() },
            Event::NameMoved {
                name: NAME,
                before: BEFORE.to_owned(),
                now: infohash(),
                message: "'disk.img' led to … and leads to … now".to_owned(),
            },
            Event::Proving { bytes: 104_857_600, total: 300_000_000 },
            Event::Started(Started {
                infohash: infohash(),
                name: NAME,
                size: 300_000_000,
                wanted: 300_000_000,
                chunks: 573,
                resumed: 104_857_600,
                zeros: 0,
                reused: 0,
                already_here: false,
                removes: 0,
                lost_chunks: 0,
                output: OUTPUT.to_owned(),
            }),
            Event::PeerJoined { address: seeder, seeder: true },
            Event::PeerLeft { address: seeder, reason: "goodbye", message: "it is stopping".to_owned() },
            Event::Progress {
                bytes: 157_286_400,
                total: 300_000_000,
                rate: 24_000_000,
                peers: vec![Source { address: seeder, bytes: 52_428_800, rate: Some(24_000_000) }],
            },
            Event::Flushing,
            Event::Finished(Finished {
                infohash: infohash(),
                name: NAME,
                output: OUTPUT.to_owned(),
                bytes: 300_000_000,
                received: 195_142_400,
                resumed: 104_857_600,
                zeros: 0,
                reused: 0,
                already_here: false,
                seconds: 8.5,
                wasted: 0,
                uploaded: 5_242_880,
                peers: vec![Source { address: seeder, bytes: 195_142_400, rate: None }],
                spent: vec![Spent { on: "receiving", peer: None, seconds: 8.5 }],
            }),
            Event::failed(&unknown),
            Event::Listed(Listed {
                infohash: infohash(),
                name: NAME,
                size: 300_000_000,
                seeders: 3,
                leechers: 50,
                addresses: 2,
                completed: 7,
                link: ELSEWHERE.to_owned(),
            }),
            Event::EndOfList { listed: 1, cut: false },
            Event::File { infohash: INFOHASH, path: "small/config.json", size: 1234, link: None },
            Event::Checked { name: NAME, output: OUTPUT.to_owned(), bytes: 300_000_000 },
            Event::Difference { path: OUTPUT.to_owned(), message: "differs".to_owned() },
            Event::Completions(Completions {
                completed: 49,
                hosts: 50,
                seeders: 3,
                leechers: 1,
                late: vec![Late {
                    address: receiver,
                    label: "node7".to_owned(),
                    percent: 40,
                    unchanged_s: 12,
                }],
                done: done.clone(),
            }),
            Event::Reached(Completions {
                completed: 50,
                hosts: 50,
                seeders: 3,
                leechers: 0,
                late: Vec::new(),
                done: done.clone(),
            }),
        ]
    }

    /// The examples of the page, by the headings above them.
    fn examples() -> BTreeMap<String, Value> {
        let page = include_str!("../../../docs/json.md");
        let sections = page.split("\n### ").skip(1);
        let example = |section: &str| {
            let (heading, rest) = section.split_once('\n').unwrap();
            let example = rest.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
            (heading.to_owned(), serde_json::from_str(example).unwrap())
        };
        sections.map(example).collect()
    }

    #[test]
    fn every_event_is_on_the_page_and_the_page_has_no_other() {
        let served = Served {
            infohash: INFOHASH.to_owned(),
            name: NAME.to_owned(),
            size: 300_000_000,
            peers: 12,
            sent: 900_000_000,
            rate: 12_000_000,
        };
        let now = UNIX_EPOCH + Duration::from_millis(1_795_832_154_123);
        let mut printed = BTreeMap::new();
        for event in events(&served) {
            let line: Value = serde_json::from_str(&line(&event, None, now)).unwrap();
            printed.insert(line["event"].as_str().unwrap().to_owned(), line);
        }
        for (name, example) in examples() {
            assert_eq!(printed.remove(&name), Some(example), "{name}");
        }
        assert!(printed.is_empty(), "not on the page: {printed:?}");
    }

    #[test]
    fn a_line_begins_with_what_every_line_has() {
        let text = line(&Event::Flushing, Some("a.bin"), UNIX_EPOCH);
        assert_eq!(text, r#"{"v":1,"ts":"1970-01-01T00:00:00.000Z","event":"flushing","target":"a.bin"}"#);
    }
}
