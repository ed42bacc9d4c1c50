//! Transfers that are stopped, killed or stall, and that the same command takes up again.

use std::{fs, sync::Arc};

use proto::{ChunkIndex, SMALL_CHUNK_LEN};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    content::{Withheld, bytes},
    json::{events, position},
    leecher,
    network::{Network, silent_tracker},
    program::{PATIENCE, Place, Running, run, until},
    stopping::stopping_signals,
};

/// Chunks in the share, and how many of them come before the transfer stands still.
const CHUNKS: usize = 5;
const SERVED: u32 = 3;
const SERVED_LEN: u64 = SERVED as u64 * SMALL_CHUNK_LEN as u64;

/// A share of which only some chunks can be had, until it is seeded properly.
struct Half {
    place: Place,
    network: Network,
    shared: Arc<store::Shared>,
    bytes: Vec<u8>,
}

impl Half {
    fn new() -> Half {
        let (place, network, bytes) = (Place::new(), Network::start(), bytes(CHUNKS));
        let shared = network.file("data.bin", &bytes);
        network.seed(Arc::new(Withheld { shared: shared.clone(), from: ChunkIndex(SERVED) }));
        Half { place, network, shared, bytes }
    }

    fn command(&self, more: &[&str]) -> std::process::Command {
        leecher(&self.place, &[&["data.bin", "--tracker", &self.network.tracker()], more].concat())
    }

    /// Starts a transfer and waits until everything that can be had is here.
    fn fetch_what_there_is(&self) -> Running {
        let leecher = Running::start(self.command(&["--json"]));
        all_there_is(&leecher);
        leecher
    }

    /// Runs the same command again with everything to be had: it goes on from what is here.
    fn resume(&self) {
        assert_eq!(
            self.place.names(),
            ["leeched_data.bin.part", "leeched_data.bin.resume", "leecher_debug.log"]
        );
        self.network.seed(self.shared.clone());
        let ended = run(self.command(&["--json"]));
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
        let events = events(&ended);
        let started = &events[position(&events, "started")];
        assert_eq!((&started["resumed"], &started["lost_chunks"]), (&SERVED_LEN.into(), &0.into()));
        let peers = events[position(&events, "finished")]["peers"].as_array().unwrap();
        let fetched: u64 = peers.iter().map(|peer| peer["bytes"].as_u64().unwrap()).sum();
        assert_eq!(SERVED_LEN + fetched, self.bytes.len() as u64);
        assert_eq!(self.place.names(), ["leeched_data.bin", "leecher_debug.log"]);
        assert_eq!(fs::read(self.place.path("leeched_data.bin")).unwrap(), self.bytes);
    }
}

/// Waits until everything that can be had is here.
fn all_there_is(leecher: &Running) {
    until("the bytes that can be had", || (next_progress(leecher) >= SERVED_LEN).then_some(()));
}

/// Bytes that are here by the next progress event.
fn next_progress(leecher: &Running) -> u64 {
    let event: Value = serde_json::from_str(&leecher.line_with(r#""event":"progress""#)).unwrap();
    event["bytes"].as_u64().unwrap()
}

#[test]
fn every_signal_that_stops_a_leecher_keeps_what_came() {
    for signal in stopping_signals() {
        let half = Half::new();
        let leecher = half.fetch_what_there_is();
        leecher.signal(signal);
        let ended = leecher.end();
        ended.assert_failed(130, &["interrupted", "kept in leeched_data.bin.part", "the same command"]);
        assert_eq!(events(&ended).last().unwrap()["code"], 130);
        half.resume();
    }
}

#[test]
fn ctrl_c_before_anything_came_leaves_nothing() {
    let place = Place::new();
    for target in ["data.bin", &"ab".repeat(32)] {
        let (silent, address) = silent_tracker();
        let leecher = Running::start(leecher(&place, &[target, "--tracker", &address]));
        // It listens to signals before it asks anybody anything.
        silent.set_read_timeout(Some(PATIENCE)).unwrap();
        silent.recv_from(&mut [0; 1500]).unwrap();
        leecher.signal(Signal::INT);
        leecher.end().assert_failed(130, &["interrupted", "nothing was saved"]);
    }
    assert_eq!(place.names(), ["leecher_debug.log"]);
}

#[test]
fn a_transfer_that_is_killed_goes_on_from_its_last_checkpoint() {
    let half = Half::new();
    let leecher = Running::start(half.command(&["--json"]));
    leecher.line_with(r#""event":"started""#);
    let resume = half.place.path("leeched_data.bin.resume");
    let empty = fs::read(&resume).unwrap();
    // Progress events are the ticks of a clock here: sooner or later a checkpoint was made between two.
    until("a checkpoint", || {
        (next_progress(&leecher) >= SERVED_LEN && fs::read(&resume).unwrap() != empty).then_some(())
    });
    leecher.signal(Signal::KILL);
    assert_eq!(leecher.end().code, None);
    half.resume();
}

#[test]
fn a_transfer_that_stalls_gives_up_and_keeps_what_came() {
    let half = Half::new();
    let ended = run(half.command(&["--timeout", "1"]));
    let here = format!("{SERVED_LEN} of {} bytes", half.bytes.len());
    ended.assert_failed(7, &["nothing arrived for 1s", &here, "the same command"]);
    half.resume();
}

/// Ctrl-Z, or a laptop that was closed: the transfer goes on where it was, however long that took.
#[test]
fn time_in_which_the_leecher_did_not_run_is_no_stall() {
    let half = Half::new();
    let stopped = Running::start(half.command(&["--json", "--timeout", "5"]));
    all_there_is(&stopped);
    stopped.signal(Signal::STOP);
    // It is stopped for as long as it takes another one to give up.
    let ended = run(half.command(&["--timeout", "5", "-o", "other"]));
    ended.assert_failed(7, &["nothing arrived for 5s"]);
    stopped.signal(Signal::CONT);
    // What it had printed before, what it prints at once, and then some.
    for _ in 0..10 {
        next_progress(&stopped);
    }
    stopped.signal(Signal::INT);
    stopped.end().assert_failed(130, &["interrupted"]);
}

#[test]
fn two_leechers_do_not_write_one_output() {
    let half = Half::new();
    let first = half.fetch_what_there_is();
    run(half.command(&[])).assert_failed(13, &["another leecher is writing", "leeched_data.bin.part", "-o"]);
    first.signal(Signal::INT);
    assert_eq!(first.end().code, Some(130));
    half.resume();
}

#[test]
fn a_part_of_another_share_is_left_alone() {
    let half = Half::new();
    let leecher = half.fetch_what_there_is();
    leecher.signal(Signal::INT);
    assert_eq!(leecher.end().code, Some(130));
    half.network.seed(half.network.file("other", b"12345"));
    let args = ["other", "--tracker", &half.network.tracker(), "-o", "leeched_data.bin"];
    let ended = run(self::leecher(&half.place, &args));
    ended.assert_failed(13, &["leeched_data.bin.part is in the way", "another share", "remove it"]);
    half.resume();
}
