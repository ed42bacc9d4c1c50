//! What a leecher shows over HTTP is what docs/http.md says.

use store::Content;

use crate::{
    content::bytes,
    docs,
    get::get,
    leecher,
    network::Network,
    program::{Place, Running},
};

#[test]
fn shows_a_transfer_as_the_docs_say_while_it_runs_and_after() {
    let (place, network, bytes) = (Place::new(), Network::start(), bytes(9));
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
    let during = loop {
        let share = share();
        assert_ne!(share["state"], "done", "nobody saw where it came from");
        let gave = &share["sources"][0]["gave"];
        if gave.as_array().is_some_and(|gave| gave.iter().any(|part| *part == 100)) {
            break share;
        }
    };
    assert_eq!((&during["state"], &during["sources"][0]["seeder"]), (&"fetching".into(), &true.into()));
    assert_eq!(during["stored"].as_array().unwrap().len(), 9, "{during}");
    leecher.line_with("Successfully downloaded");
    let after = share();
    assert_eq!(
        (&after["state"], &after["done"], &after["chunks"]),
        (&"done".into(), &bytes.len().into(), &9.into())
    );
    assert_eq!(after["stored"], serde_json::json!(vec![100; 9]), "{after}");
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
