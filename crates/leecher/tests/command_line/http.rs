//! What a leecher shows over HTTP, and what can be changed there, is what docs/http.md says.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::json;
use store::Content;

use crate::{
    content::bytes,
    docs,
    get::{Answer, get, post},
    leecher,
    network::Network,
    program::{Place, Running, until},
};

#[test]
fn shows_a_transfer_as_the_docs_say_while_it_runs_and_after() {
    let (place, network, bytes) = (Place::new(), Network::start(), bytes(36));
    let shared = network.file("data.bin", &bytes);
    network.seed(shared.clone());
    let args = ["--http=:0", "--seed", "--tracker", &network.tracker(), "--download-limit", "2M", "data.bin"];
    let leecher = Running::start(leecher(&place, &args));
    let line = leecher.line();
    let url = line.strip_prefix("Page and metrics are at ").unwrap_or_else(|| panic!("{line}"));
    leecher.line_with("Downloading");
    let path = format!("/api/v1/shares/{}", shared.metainfo().infohash());
    let share = || docs::check("Leecher: `/api/v1/shares/INFOHASH`", &get(url, &path).body);
    // It takes two seconds. A picture is at most a second old.
    let during = until("a part that a source gave", || {
        let share = share();
        assert_ne!(share["state"], "done", "nobody saw where it came from");
        let gave = &share["sources"][0]["gave"];
        gave.as_array().is_some_and(|gave| gave.iter().any(|part| *part == 100)).then_some(share)
    });
    assert_eq!((&during["state"], &during["sources"][0]["seeder"]), (&"fetching".into(), &true.into()));
    assert_eq!(during["stored"].as_array().unwrap().len(), 36, "{during}");
    leecher.line_with("Successfully downloaded");
    let after = share();
    assert_eq!(
        (&after["state"], &after["done"], &after["chunks"]),
        (&"done".into(), &bytes.len().into(), &36.into())
    );
    assert_eq!(after["stored"], serde_json::json!(vec![100; 36]), "{after}");
    assert!(after["spent"].as_array().unwrap().iter().any(|spent| spent["on"] == "own_limit"), "{after}");
    let shares = docs::check("Leecher: `/api/v1/shares`", &get(url, "/api/v1/shares").body);
    assert_eq!(shares["shares"][0]["name"], "data.bin");
    let status = docs::check("Leecher: `/api/v1/status`", &get(url, "/api/v1/status").body);
    assert_eq!(status["received"], bytes.len());
    assert_eq!(get(url, &format!("/api/v1/shares/{}", "00".repeat(32))).status, 404);
    let metrics = get(url, "/metrics").body;
    assert_eq!(docs::names_in(&metrics), docs::metrics("shoal_leecher_"));
    for line in [
        format!("shoal_leecher_received_bytes_total {}.0", bytes.len()),
        "shoal_leecher_transfers{state=\"done\"} 1.0".to_owned(),
        "shoal_leecher_proof_failures_total 0.0".to_owned(),
        "shoal_leecher_download_limit_bytes_per_second 2000000.0".to_owned(),
    ] {
        assert!(metrics.lines().any(|has| has == line), "no {line} in {metrics}");
    }
}

#[test]
fn shows_why_it_waits() {
    let (place, network) = (Place::new(), Network::start());
    let args = ["--http=:0", "--tracker", &network.tracker(), "--wait", "10m", "nothing"];
    let leecher = Running::start(leecher(&place, &args));
    let line = leecher.line();
    let url = line.strip_prefix("Page and metrics are at ").unwrap();
    leecher.err_line();
    let shares = docs::check("Leecher: `/api/v1/shares`", &get(url, "/api/v1/shares").body);
    let share = &shares["shares"][0];
    assert_eq!(
        (&share["state"], &share["name"], &share["infohash"]),
        (&"waiting".into(), &"nothing".into(), &serde_json::Value::Null)
    );
    assert!(share["message"].as_str().is_some_and(|message| message.contains("nothing")), "{share}");
}

/// Two leechers of one machine, so they need labels to be two hosts.
#[test]
fn stays_until_enough_hosts_have_the_share() {
    let network = Network::lively();
    network.seed(network.file("data.bin", &bytes(2)));
    let places = [Place::new(), Place::new()];
    let start = |number: usize| {
        let label = format!("node{number}");
        let args =
            ["--stay-until-hosts", "2", "--label", &label, "--tracker", &network.tracker(), "data.bin"];
        Running::start(leecher(&places[number], &args))
    };
    let first = start(0);
    first.line_with("Serving other leechers until 2 hosts have all of the share");
    let second = start(1);
    for leecher in [first, second] {
        leecher.line_with("Leecher stopped after");
        assert_eq!(leecher.end().code, Some(0));
    }
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Asks for a change, with the token.
fn change(url: &str, path: &str, body: &serde_json::Value) -> Answer {
    post(url, path, &format!("Authorization: Bearer {TOKEN}\r\n"), &body.to_string())
}

/// Makes a file with the token.
fn token(place: &Place) {
    fs::write(place.path("token"), TOKEN).unwrap();
    fs::set_permissions(place.path("token"), fs::Permissions::from_mode(0o600)).unwrap();
}

/// At 1 KB/s it would take hours, longer than anything here is waited for.
#[test]
fn a_limit_that_is_lifted_counts_for_a_transfer_that_runs() {
    let (place, network) = (Place::new(), Network::start());
    token(&place);
    network.seed(network.file("data.bin", &bytes(9)));
    let args = [
        "--http=:0",
        "--http-token",
        "token",
        "--tracker",
        &network.tracker(),
        "--download-limit",
        "1K",
        "data.bin",
    ];
    let leecher = Running::start(leecher(&place, &args));
    let line = leecher.line();
    let url = line.strip_prefix("Page and metrics are at ").unwrap();
    leecher.line_with("Downloading");
    let limits = docs::check("Leecher: `/api/v1/limits`", &get(url, "/api/v1/limits").body);
    assert_eq!(limits, json!({ "upload_limit": null, "download_limit": 1_000, "max_peers": 80 }));
    for bad in [
        json!({ "download_limit": "fast" }),
        json!({ "download_limit": null, "peers": 1 }),
        json!({ "download_limit": null, "max_peers": 0 }),
    ] {
        assert_eq!(change(url, "/api/v1/limits", &bad).status, 400, "{bad}");
    }
    assert_eq!(post(url, "/api/v1/limits", "", r#"{"download_limit": null}"#).status, 401);
    let unchanged = docs::check("Leecher: `/api/v1/limits`", &get(url, "/api/v1/limits").body);
    assert_eq!(unchanged, limits, "a request that is wrong in part changes nothing");
    let new = change(url, "/api/v1/limits", &json!({ "download_limit": null, "upload_limit": "2M" }));
    assert_eq!(docs::check("Leecher: `/api/v1/limits`", &new.body)["upload_limit"], 2_000_000);
    leecher.line_with("Successfully downloaded");
    assert_eq!(leecher.end().code, Some(0));
}

/// At 1 KB/s the transfer lasts longer than anything here is waited for.
#[test]
fn more_peers_are_asked_when_that_is_allowed() {
    let (place, network) = (Place::new(), Network::start());
    token(&place);
    let shared = network.file("data.bin", &bytes(9));
    (0..3).for_each(|_| _ = network.seed(shared.clone()));
    let tracker = network.tracker();
    let args = [
        "--http=:0",
        "--http-token",
        "token",
        "--tracker",
        &tracker,
        "--download-limit",
        "1K",
        "--max-peers",
        "1",
        "data.bin",
    ];
    let leecher = Running::start(leecher(&place, &args));
    let line = leecher.line();
    let url = line.strip_prefix("Page and metrics are at ").unwrap();
    leecher.line_with("Downloading");
    let path = format!("/api/v1/shares/{}", shared.metainfo().infohash());
    let sources = || {
        let share = docs::check("Leecher: `/api/v1/shares/INFOHASH`", &get(url, &path).body);
        share["sources"].as_array().unwrap().len()
    };
    until("a source", || (sources() > 0).then_some(()));
    assert_eq!(sources(), 1);
    let new = change(url, "/api/v1/limits", &json!({ "max_peers": 3 }));
    assert_eq!(docs::check("Leecher: `/api/v1/limits`", &new.body)["max_peers"], 3);
    until("three sources", || (sources() >= 3).then_some(()));
    let status = docs::check("Leecher: `/api/v1/status`", &get(url, "/api/v1/status").body);
    assert_eq!(status["max_peers"], 3, "{status}");
}

#[test]
fn transfers_are_added_and_removed_while_it_runs() {
    let (place, network) = (Place::new(), Network::start());
    token(&place);
    network.seed(network.file("first.bin", &bytes(2)));
    let second = network.file("second.bin", &bytes(3));
    network.seed(second.clone());
    let args = [
        "--http=:0",
        "--http-token",
        "token",
        "--tracker",
        &network.tracker(),
        "--seed",
        "-o",
        "saved",
        "first.bin",
    ];
    let leecher = Running::start(leecher(&place, &args));
    let line = leecher.line();
    let url = line.strip_prefix("Page and metrics are at ").unwrap();
    leecher.line_with("Successfully downloaded");
    let add = |target: &str| change(url, "/api/v1/shares", &json!({ "target": target }));
    assert_eq!(add("magnet:?nothing").status, 400);
    assert_eq!(add("first.bin").status, 409, "it is here already");
    let added = docs::check("Leecher: `POST /api/v1/shares`", &add("second.bin").body);
    assert_eq!((&added["name"], &added["state"]), (&"second.bin".into(), &"waiting".into()));
    leecher.line_with("Successfully downloaded");
    assert_eq!(place.names(), ["leeched_second.bin", "leecher_debug.log", "saved", "token"]);
    // One that nobody has waits, and has no infohash to be removed by.
    assert_eq!(add("nothing").status, 200);
    let remove = |share: &str| change(url, "/api/v1/remove", &json!({ "share": share }));
    assert_eq!(remove("nothing").body, "{}");
    assert_eq!(remove("nothing").status, 404);
    assert_eq!(remove(&second.metainfo().infohash().to_string()).status, 200);
    let list = docs::check("Leecher: `/api/v1/shares`", &get(url, "/api/v1/shares").body);
    assert_eq!(list["shares"].as_array().unwrap().len(), 1, "{list}");
    let received = format!("shoal_leecher_received_bytes_total {}.0", bytes(5).len());
    let metrics = get(url, "/metrics").body;
    assert!(metrics.lines().any(|line| line == received), "no {received}, so a counter went back: {metrics}");
    assert!(place.path("leeched_second.bin").exists(), "what has arrived stays");
    let stopped = change(url, "/api/v1/stop", &json!({}));
    assert_eq!((stopped.status, &*stopped.body), (200, "{}"));
    leecher.end();
}
