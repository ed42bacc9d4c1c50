//! `--json`: a program reads it.

use std::{fs, sync::Arc};

use rustix::process::Signal;
use serde_json::Value;
use store::Content;

use crate::{
    content::{Wrong, bytes},
    json_docs::{assert_complete, check},
    leecher,
    network::{Network, link},
    program::{Ended, Place, Running, run, until},
};

/// Every line of stdout, each of which has to be an event as docs/json.md has it.
pub(crate) fn events(ended: &Ended) -> Vec<Value> {
    ended.out.iter().map(|line| check(line)).collect()
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
    fs::write(place.path("taken"), b"x").unwrap();
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
        assert_eq!((&failed["event"], &failed["code"]), (&"error".into(), &code.into()), "{args:?}");
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
    assert!(list.out[1].ends_with(r"a\u{202e}b~\u{e0041}"), "{list:?}");
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
    assert_eq!((&last["event"], &last["target"]), (&"error".into(), &Value::Null));
}

#[test]
fn a_wrong_command_line_is_an_event_too() {
    let place = Place::new();
    for (args, variable, message) in [
        (&["--json", "--bogus"][..], "", "unexpected argument '--bogus' found"),
        (&["--bogus"], "true", "unexpected argument '--bogus' found"),
        (&["--json", "-q"], "", "'--json' and '--quiet' cannot be used together"),
        (&["--json", "a", "b", "-o", "c"], "", "-o names one file, and there are 2 shares to save"),
    ] {
        let mut command = leecher(&place, args);
        command.env("SHOAL_JSON", variable);
        let ended = run(command);
        ended.assert_failed(2, &[message]);
        let [event] = &events(&ended)[..] else { panic!("{ended:?}") };
        assert_eq!((&event["event"], &event["code"]), (&"error".into(), &2.into()));
        assert_eq!(event["message"], message);
    }
    // After two hyphens it is the name of a share. Help is no error.
    run(leecher(&place, &["-x", "0", "--", "--json"])).assert_failed(2, &[]);
    let help = run(leecher(&place, &["--json", "--help"]));
    assert!(help.code == Some(0) && !help.out[0].starts_with('{'), "{help:?}");
}

/// Causes each of them once. Trackers are found in the network by multicast, which tests have not.
#[test]
fn every_event_of_the_page_is_printed() {
    let (place, network, other) = (Place::new(), Network::start(), Network::start());
    let shared = network.file("data.bin", &bytes(4));
    network.seed(shared.clone());
    other.seed(other.file("data.bin", b"another"));
    let of_liar = other.file("wrong.bin", &bytes(2));
    let liar = format!("127.0.0.1:{}", other.seed(Arc::new(Wrong(of_liar.clone()))));
    let (tracker, elsewhere) = (network.tracker(), other.tracker());
    let (of_liar, link) = (link(&*of_liar, &[], &[liar]), link(&*shared, &[network.tracker()], &[]));
    let mut all = Vec::new();
    let mut run_with = |code, args: &[&str]| {
        let ended = run(leecher(&place, &[args, &["--json"]].concat()));
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let events = events(&ended);
        all.extend(events.clone());
        events
    };
    run_with(3, &["nothing", "--wait", "2s", "--timeout", "1s", "--tracker", &tracker]);
    run_with(0, &["data.bin", "-o", "first", "--tracker", &elsewhere]);
    run_with(0, &["data.bin", "-o", "copy", "--tracker", &tracker, "--from", "not there"]);
    run_with(0, &["--check", &link, "-o", "copy"]);
    fs::write(place.path("copy"), b"damaged").unwrap();
    let checked = run_with(32, &["--check", &link, "-o", "copy"]);
    assert_eq!(checked[position(&checked, "difference")]["path"], "copy");
    run_with(3, &["data.bin", "nothing", "-d", "both", "--timeout", "1s", "--tracker", &tracker]);
    let list = run_with(0, &["--list", "--tracker", &tracker]);
    assert_eq!(list.last().unwrap()["listed"], 1);
    run_with(0, &["--list-files", &link]);
    let lied = run_with(32, &[&of_liar]);
    assert_eq!(lied[position(&lied, "peer_left")]["reason"], "lied");
    let mut leecher = leecher(&place, &["--json", &link, "-o", "served", "--seed", "--http=:0"]);
    leecher.env("SHOAL_BIND", "127.0.0.1");
    let leecher = Running::start(leecher);
    until("serving", || {
        let event = check(&leecher.line());
        all.push(event.clone());
        (event["event"] == "serving").then_some(())
    });
    leecher.signal(Signal::TERM);
    let ended = leecher.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    all.extend(events(&ended));
    assert_complete(&all, &["Leecher", "Seeder and leecher", "Lists and checks"], &[]);
    assert_complete(&all, &["All programs"], &["listening", "tracker_found"]);
}

#[test]
fn logs_are_json_if_that_is_asked_for() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("data.bin", b"12345"));
    let tracker = network.tracker();
    let args = ["data.bin", "-v", "--log-format", "json", "--no-progress", "--tracker", &tracker];
    let fetched = run(leecher(&place, &args));
    assert_eq!(fetched.code, Some(0), "{fetched:?}");
    let objects = |text: &str| {
        let object = |line: &str| {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert!(value["timestamp"].is_string() && value["level"].is_string(), "{line}");
            value
        };
        text.lines().map(object).collect::<Vec<_>>()
    };
    assert!(
        objects(&fetched.err).iter().any(|message| message["fields"]["message"] == "peer joined"),
        "{fetched:?}"
    );
    assert!(!objects(&fs::read_to_string(place.path("leecher_debug.log")).unwrap()).is_empty());
    // The end of a program that fails is a message as well.
    let failed = run(leecher(
        &place,
        &["a\u{202e}b", "--timeout", "1", "--log-format", "json", "--no-progress", "--tracker", &tracker],
    ));
    assert_eq!(failed.code, Some(3), "{failed:?}");
    assert!(!failed.err.contains('\u{202e}'), "{failed:?}");
    let last = objects(&failed.err).pop().unwrap();
    assert_eq!((&last["level"], &last["fields"]["code"]), (&"ERROR".into(), &3.into()), "{failed:?}");
}
