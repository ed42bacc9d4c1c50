//! Events as JSON, one object a line.

use std::net::SocketAddr;

use leecher::{FetchEvent, Fetched, Progress, Target};
use proto::{InfoHash, ShareName};
use serde::Serialize;
use startup::{Failure, print_json_line};
use store::OpenChunkError;

/// An event as JSON. Sizes are in bytes, rates in bytes a second, times in seconds.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Json<'a> {
    Http {
        url: &'a str,
    },
    TrackerFound {
        tracker: String,
        name: &'a str,
    },
    Waiting {
        message: String,
    },
    Warning {
        message: String,
    },
    NameMoved {
        name: &'a str,
        before: String,
        now: String,
        message: String,
    },
    Proving {
        bytes: u64,
        total: u64,
    },
    Started {
        infohash: String,
        name: &'a str,
        size: u64,
        wanted: u64,
        chunks: u32,
        resumed: u64,
        zeros: u64,
        reused: u64,
        already_here: bool,
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
        zeros: u64,
        reused: u64,
        already_here: bool,
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

/// An event, and the transfer that it is about if the command has several.
#[derive(Debug, Serialize)]
struct JsonLine<'a> {
    #[serde(flatten)]
    event: &'a Json<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct JsonPeer {
    address: SocketAddr,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct JsonSpent {
    on: String,
    seconds: f64,
}

/// Prints a failure as JSON.
pub(super) fn print_failure(target: Option<&Target>, failure: &Failure) {
    print_json(target, &Json::Failed { code: failure.code() as u8, message: failure.to_string() });
}

/// Prints an event of the transfer of `target`, if it is one of several.
pub(super) fn print_json(target: Option<&Target>, event: &Json<'_>) {
    let target = target.map(Target::to_string);
    match serde_json::to_string(&JsonLine { event, target }) {
        Ok(line) => print_json_line(&line),
        Err(error) => tracing::error!("cannot write an event as JSON: {error}"),
    }
}

/// The JSON of an event.
pub(super) fn json(event: &FetchEvent) -> Json<'_> {
    match event {
        FetchEvent::Waiting(waiting) => Json::Waiting { message: waiting.to_string() },
        FetchEvent::PeerJoined { address, seeder } => Json::PeerJoined { address: *address, seeder: *seeder },
        FetchEvent::PeerLeft { address, reason } => {
            Json::PeerLeft { address: *address, reason: reason.to_string() }
        }
        FetchEvent::Progress(progress) => progress_json(progress),
        FetchEvent::TrackerTrouble(error) => Json::Warning { message: error.to_string() },
        FetchEvent::Unsaved(error) => Json::Warning { message: error.to_string() },
        FetchEvent::CannotServe(error) => Json::Warning { message: cannot_serve(error) },
        FetchEvent::NameMoved { name, before, now } => Json::NameMoved {
            name: name.as_str(),
            before: before.to_string(),
            now: now.to_string(),
            message: name_moved(name, *before, *now),
        },
        FetchEvent::Proving { done, total } => Json::Proving { bytes: *done, total: *total },
        FetchEvent::Started(started) => Json::Started {
            infohash: started.infohash.to_string(),
            name: started.name.as_str(),
            size: started.size,
            wanted: started.wanted,
            chunks: started.chunks,
            resumed: started.resumed,
            zeros: started.zeros,
            reused: started.reused,
            already_here: started.already_here,
            lost_chunks: started.lost_chunks,
            output: started.output.display().to_string(),
        },
        FetchEvent::Flushing => Json::Flushing,
        FetchEvent::Finished(fetched) => finished_json(fetched),
    }
}

fn progress_json(progress: &Progress) -> Json<'_> {
    let peers = progress.peers.iter();
    Json::Progress {
        bytes: progress.done,
        total: progress.total,
        rate: progress.rate,
        peers: peers
            .map(|peer| JsonPeer { address: peer.address, bytes: peer.bytes, rate: Some(peer.rate) })
            .collect(),
    }
}

fn finished_json(fetched: &Fetched) -> Json<'_> {
    let peers = fetched.peers.iter();
    let spent = fetched.spent.iter();
    Json::Finished {
        infohash: fetched.infohash.to_string(),
        name: fetched.name.as_str(),
        output: fetched.path.display().to_string(),
        bytes: fetched.wanted,
        zeros: fetched.zeros,
        reused: fetched.reused,
        already_here: fetched.already_here,
        seconds: fetched.elapsed.as_secs_f64(),
        wasted: fetched.wasted,
        uploaded: fetched.uploaded,
        peers: peers.map(|peer| JsonPeer { address: peer.address, bytes: peer.bytes, rate: None }).collect(),
        spent: spent
            .map(|(on, time)| JsonSpent { on: on.to_string(), seconds: time.as_secs_f64() })
            .collect(),
    }
}

pub(super) fn name_moved(name: &ShareName, before: InfoHash, now: InfoHash) -> String {
    format!("'{name}' led to {before} when it was last fetched here, and leads to {now} now")
}

pub(super) fn cannot_serve(error: &OpenChunkError) -> String {
    format!("part of what is here cannot be served: {error}")
}
