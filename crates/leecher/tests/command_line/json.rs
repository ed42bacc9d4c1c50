//! `--json`: a program reads it.

use serde_json::Value;
use store::Content;

use crate::{
    content::bytes,
    leecher,
    network::Network,
    program::{Ended, Place, run},
};

/// Every line of stdout, each of which has to be an event.
pub(crate) fn events(ended: &Ended) -> Vec<Value> {
    ended
        .out
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

pub(crate) fn position(events: &[Value], name: &str) -> usize {
    events.iter().position(|event| event["event"] == name).unwrap_or_else(|| panic!("no {name}: {events:?}"))
}

#[test]
fn reports_a_transfer_from_start_to_finish() {
    let (place, network, bytes) = (Place::new(), Network::start(), bytes(9));
    let shared = network.file("data.bin", &bytes);
    let ports = [network.seed(shared.clone()), network.seed(shared.clone())];
    let ended = run(leecher(&place, &["--json", "--tracker", &network.tracker()]));
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    let events = events(&ended);

    let (size, infohash) = (bytes.len() as u64, shared.metainfo().infohash().to_string());
    let (started, finished) = (position(&events, "started"), position(&events, "finished"));
    assert_eq!(started, 0);
    assert!(events[finished + 1..].iter().all(|event| event["event"] == "left"), "{events:?}");
    assert!(position(&events, "peer_joined") < finished && position(&events, "flushing") < finished);
    let started = &events[started];
    assert_eq!((&started["name"], &started["infohash"]), (&"data.bin".into(), &infohash.as_str().into()));
    assert_eq!((&started["size"], &started["chunks"]), (&size.into(), &9.into()));
    assert_eq!((&started["resumed"], &started["output"]), (&0.into(), &"leeched_data.bin".into()));

    let progress: Vec<_> = events.iter().filter(|event| event["event"] == "progress").collect();
    assert!(progress.iter().all(|event| event["total"] == size));
    assert!(progress.is_sorted_by_key(|event| event["bytes"].as_u64().unwrap()), "{progress:?}");
    assert_eq!(progress.last().unwrap()["bytes"], size);

    let finished = &events[finished];
    assert_eq!((&finished["name"], &finished["infohash"]), (&"data.bin".into(), &infohash.as_str().into()));
    assert_eq!((&finished["bytes"], &finished["output"]), (&size.into(), &"leeched_data.bin".into()));
    assert!(finished["seconds"].as_f64().unwrap() > 0.0 && finished["wasted"].is_u64());
    let peers = finished["peers"].as_array().unwrap();
    assert_eq!(peers.iter().map(|peer| peer["bytes"].as_u64().unwrap()).sum::<u64>(), size);
    let addresses = ports.map(|port| format!("127.0.0.1:{port}"));
    assert!(
        peers.iter().all(|peer| addresses.iter().any(|address| peer["address"] == *address)),
        "{peers:?}"
    );
}

#[test]
fn every_failure_is_an_event() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("data.bin", b"12345"));
    std::fs::write(place.path("taken"), b"x").unwrap();
    let (good, bad) = (network.tracker(), "no such tracker.invalid".replace(' ', "-"));
    let failures: [(&[&str], u8); 6] = [
        (&["nothing", "--tracker", &good, "--timeout", "1"], 3),
        (&["data.bin", "--tracker", &good, "-o", "taken"], 13),
        (&["data.bin", "--tracker", &good, "-o", "."], 13),
        (&["data.bin", "--tracker", &good, "-d", "taken"], 17),
        (&["data.bin", "--tracker", &bad, "--timeout", "1"], 6),
        (&["--list", "--tracker", &bad], 6),
    ];
    for (args, code) in failures {
        let ended = run(leecher(&place, &[args, &["--json"]].concat()));
        ended.assert_failed(code.into(), &[]);
        let events = events(&ended);
        let failed = events.last().unwrap_or_else(|| panic!("{args:?}: no event"));
        assert_eq!((&failed["event"], &failed["code"]), (&"failed".into(), &code.into()), "{args:?}");
        assert!(ended.err.contains(failed["message"].as_str().unwrap()), "{args:?}: {ended:?}");
    }
}

#[test]
fn names_that_cannot_be_seen_keep_their_meaning() {
    let (place, network) = (Place::new(), Network::start());
    let name = "a\u{202e}b\u{7e}\u{e0041}";
    network.seed(network.file(name, b"12345"));
    let tracker = network.tracker();
    let list = run(leecher(&place, &["--list", "--tracker", &tracker]));
    assert!(list.out[0].ends_with(r"a\u{202e}b~\u{e0041}"), "{list:?}");
    for args in [&["--list", "--json"][..], &["--json", "-o", "x\u{7f}"]] {
        let ended = run(leecher(&place, &[args, &["--tracker", &tracker]].concat()));
        assert!(!ended.out.concat().contains(['\u{202e}', '\u{7f}', '\u{e0041}']), "{ended:?}");
        let events = events(&ended);
        assert!(events.iter().any(|event| event["name"] == name), "{events:?}");
        assert!(events.iter().all(|event| event["output"].as_str().is_none_or(|output| output == "x\u{7f}")));
    }
}

#[test]
fn of_several_transfers_every_event_names_its_target() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("a.bin", b"12345"));
    let tracker = network.tracker();
    let ended =
        run(leecher(&place, &["--json", "a.bin", "nothing.bin", "--timeout", "1s", "--tracker", &tracker]));
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let events = events(&ended);
    let (last, of_targets) = events.split_last().unwrap();
    assert!(
        of_targets.iter().all(|event| ["a.bin", "nothing.bin"].contains(&event["target"].as_str().unwrap()))
    );
    assert_eq!(events[position(&events, "finished")]["target"], "a.bin");
    let failed = &events[position(&events, "failed")];
    assert_eq!((&failed["target"], &failed["code"]), (&"nothing.bin".into(), &3.into()));
    assert_eq!((&last["event"], &last["target"]), (&"failed".into(), &Value::Null));
}
