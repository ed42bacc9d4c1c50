//! Events of a transfer as `--json` reports them.

use leecher::{FetchEvent, Fetched, LeaveReason, Progress, Target, WaitingFor};
use proto::{InfoHash, ShareName};
use startup::json::{self, Event, print_event, print_event_of};
use store::OpenChunkError;

use crate::seen;

/// Prints an event of the transfer of `target`, if it is one of several.
pub(super) fn print(target: Option<&Target>, event: &Event<'_>) {
    match target {
        Some(target) => print_event_of(&target.to_string(), event),
        None => print_event(event),
    }
}

/// What is reported about an event.
pub(super) fn event_of(event: &FetchEvent) -> Event<'_> {
    let warning = |kind, message| Event::Warning { kind, message };
    match event {
        FetchEvent::Waiting(waiting) => {
            Event::Waiting { on: waiting_for(&waiting.on), message: waiting.to_string() }
        }
        FetchEvent::PeerJoined { address, seeder } => {
            Event::PeerJoined { address: *address, seeder: *seeder }
        }
        FetchEvent::PeerLeft { address, reason } => {
            Event::PeerLeft { address: *address, reason: left_because(reason), message: reason.to_string() }
        }
        FetchEvent::Progress(progress) => progress_event(progress),
        FetchEvent::TrackerTrouble(error) => warning("tracker", error.to_string()),
        FetchEvent::Unsaved(error) => warning("unsaved", error.to_string()),
        FetchEvent::CannotServe(error) => warning("cannot_serve", cannot_serve(error)),
        FetchEvent::NameMoved { name, before, now } => Event::NameMoved {
            name: name.as_str(),
            before: before.to_string(),
            now: now.to_string(),
            message: name_moved(name, *before, *now),
        },
        FetchEvent::Proving { done, total } => Event::Proving { bytes: *done, total: *total },
        FetchEvent::Started(started) => Event::Started(json::Started {
            infohash: started.infohash.to_string(),
            name: started.name.as_str(),
            size: started.size,
            wanted: started.wanted,
            chunks: started.chunks,
            resumed: started.resumed,
            zeros: started.zeros,
            reused: started.reused,
            already_here: started.already_here,
            removes: started.removes.len() as u64,
            lost_chunks: started.lost_chunks,
            output: started.output.display().to_string(),
        }),
        FetchEvent::Flushing => Event::Flushing,
        FetchEvent::Finished(fetched) => finished_event(fetched),
    }
}

fn progress_event(progress: &Progress) -> Event<'_> {
    let peers = progress.peers.iter();
    Event::Progress {
        bytes: progress.done,
        total: progress.total,
        rate: progress.rate,
        peers: peers
            .map(|peer| json::Source { address: peer.address, bytes: peer.bytes, rate: Some(peer.rate) })
            .collect(),
    }
}

fn finished_event(fetched: &Fetched) -> Event<'_> {
    let peers = fetched.peers.iter();
    Event::Finished(json::Finished {
        infohash: fetched.infohash.to_string(),
        name: fetched.name.as_str(),
        output: fetched.path.display().to_string(),
        bytes: fetched.wanted,
        received: fetched.received(),
        resumed: fetched.resumed,
        zeros: fetched.zeros,
        reused: fetched.reused,
        already_here: fetched.already_here,
        seconds: fetched.elapsed.as_secs_f64(),
        wasted: fetched.wasted,
        uploaded: fetched.uploaded,
        peers: peers
            .map(|peer| json::Source { address: peer.address, bytes: peer.bytes, rate: None })
            .collect(),
        spent: seen::spent(&fetched.spent),
    })
}

/// Names that do not change with the text for users.
fn waiting_for(on: &WaitingFor) -> &'static str {
    match on {
        WaitingFor::Trackers(_) => "trackers",
        WaitingFor::Name(_) => "name",
        WaitingFor::AnyShare => "any_share",
        WaitingFor::Others { .. } => "others",
        WaitingFor::Share => "share",
        WaitingFor::Peers => "peers",
        WaitingFor::Description { .. } => "description",
        WaitingFor::Room { .. } => "room",
        WaitingFor::Retry { .. } => "retry",
        _ => "other",
    }
}

fn left_because(reason: &LeaveReason) -> &'static str {
    match reason {
        LeaveReason::Unreachable(_) => "unreachable",
        LeaveReason::Goodbye(_) => "goodbye",
        LeaveReason::Disconnected => "disconnected",
        LeaveReason::Protocol(_) => "protocol",
        LeaveReason::Lied => "lied",
        LeaveReason::TooSlow => "too_slow",
        LeaveReason::FileChanged => "file_changed",
        LeaveReason::Itself => "itself",
        LeaveReason::Finished => "finished",
        _ => "other",
    }
}

pub(super) fn name_moved(name: &ShareName, before: InfoHash, now: InfoHash) -> String {
    format!("'{name}' led to {before} when it was last fetched here, and leads to {now} now")
}

pub(super) fn cannot_serve(error: &OpenChunkError) -> String {
    format!("part of what is here cannot be served: {error}")
}
