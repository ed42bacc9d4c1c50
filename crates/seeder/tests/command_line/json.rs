//! `--json`: a program reads it.

use std::{
    fs,
    os::unix::fs::symlink,
    time::{Duration, SystemTime},
};

use proto::{ChunkIndex, InfoHash, Link, SMALL_CHUNK_LEN, peer::PeerMessage, tracker::Completion};
use rustix::process::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{
    json_docs::{assert_complete, check},
    peer::{answer, connect, send},
    program::{self, Ended, Place, Running, run},
    seeder,
    tracking::Tracking,
};

/// Every line of stdout, each of which has to be an event as docs/json.md has it.
fn events(ended: &Ended) -> Vec<Value> {
    ended.out.iter().map(|line| check(line)).collect()
}

/// Reads events until there is one of this name.
fn until(seeder: &Running, name: &str, all: &mut Vec<Value>) -> Value {
    program::until(name, || {
        let event = check(&seeder.line());
        all.push(event.clone());
        (event["event"] == name).then_some(event)
    })
}

/// Causes each of them once. Trackers are found in the network by multicast, which tests have not.
#[test]
fn every_event_of_the_page_is_printed() {
    let (place, tracker) = (Place::new(), Tracking::start());
    fs::create_dir(place.path("dir")).unwrap();
    symlink("/nowhere", place.path("dir/link")).unwrap();
    fs::write(place.path("dir/data.bin"), vec![7; SMALL_CHUNK_LEN as usize]).unwrap();
    let address = tracker.address();
    let args = ["dir", "--tracker", &address, "--tracker", "no-such-host.invalid", "--json", "--http=:0"];
    let seeder_runs = Running::start(seeder(&place, &args));
    let mut all = Vec::new();
    let listening = until(&seeder_runs, "listening", &mut all)["address"].as_str().unwrap().to_owned();
    let shared = until(&seeder_runs, "shared", &mut all);
    for link in ["link", "link_here"] {
        assert!(shared[link].as_str().unwrap().parse::<Link>().is_ok(), "{shared}");
    }
    let infohash: InfoHash = shared["infohash"].as_str().unwrap().parse().unwrap();
    let port = listening.rsplit(':').next().unwrap().parse().unwrap();
    Runtime::new().unwrap().block_on(async {
        let mut peer = connect(port, infohash, 0).await.unwrap();
        send(&mut peer, [PeerMessage::Request { chunk: ChunkIndex(0), progress: Completion::NOTHING }]).await;
        answer(&mut peer).await;
        let joined = until(&seeder_runs, "receiver_joined", &mut all);
        assert_eq!(joined["name"], "dir");
        // The file is another one from now on, which the next request finds out.
        let file = fs::File::options().write(true).open(place.path("dir/data.bin")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        send(&mut peer, [PeerMessage::Request { chunk: ChunkIndex(0), progress: Completion::NOTHING }]).await;
        answer(&mut peer).await;
    });
    let is_missing = |all: &[Value], name| !all.iter().any(|event| event["event"] == name);
    for name in ["receiver_left", "withdrawn", "registered", "not_registered", "serving"] {
        if is_missing(&all, name) {
            until(&seeder_runs, name, &mut all);
        }
    }
    let left = all.iter().find(|event| event["event"] == "receiver_left").unwrap();
    assert_eq!(left["sent"], SMALL_CHUNK_LEN);
    seeder_runs.signal(Signal::TERM);
    let ended = seeder_runs.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    all.extend(events(&ended));
    assert_eq!(all.last().unwrap()["event"], "left");

    let failed = run(seeder(&place, &["--json", "not there"]));
    assert_eq!(failed.code, Some(17), "{failed:?}");
    all.extend(events(&failed));
    assert_complete(&all, &["Seeder", "Seeder and leecher"], &[]);
    assert_complete(&all, &["All programs"], &["tracker_found"]);
    let usage = run(seeder(&place, &["--json", "--bogus"]));
    usage.assert_failed(2, &["'--bogus'"]);
    assert_eq!(events(&usage)[0]["code"], 2);
}
