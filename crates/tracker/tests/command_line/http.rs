//! What the tracker shows over HTTP, and what can be changed there.

use std::{fs, io::BufRead};

use proto::tracker::ReplyBody;

use crate::{
    Running,
    asking::{announce_and_look_up, announce_of, register},
    docs,
    get::{begin, get, post},
    run,
};

#[test]
fn shows_what_it_knows_over_http_as_the_docs_say() {
    let tracker = Running::start(&["--bind", "127.0.0.1", "-p", "0", "--http=:0"]);
    let port = tracker.port("127.0.0.1");
    let line = tracker.line();
    let url = line.strip_prefix("[HTTP] Page and metrics are at ").unwrap_or_else(|| panic!("{line}"));
    register(port);
    let status = docs::check("Tracker: `/api/v1/status`", &get(url, "/api/v1/status").body);
    assert_eq!((&status["seeders"], &status["announces"]), (&1.into(), &1.into()), "{status}");
    let shares = docs::check("Tracker: `/api/v1/shares`", &get(url, "/api/v1/shares").body);
    assert_eq!(
        (&shares["shares"][0]["name"], &shares["more"]),
        (&"data.bin".into(), &false.into()),
        "{shares}"
    );
    let none = get(url, "/api/v1/shares?name=data.c").body;
    assert_eq!(docs::check("Tracker: `/api/v1/shares`", &none)["shares"], serde_json::json!([]));
    let path = format!("/api/v1/shares/{}", "01".repeat(32));
    let share = docs::check("Tracker: `/api/v1/shares/INFOHASH`", &get(url, &path).body);
    let host = &share["hosts"][0];
    assert_eq!((&host["address"], &host["percent"]), (&"127.0.0.1:7001".into(), &100.into()), "{share}");
    let picture = get(url, &format!("{path}/picture"));
    let picture = docs::check("Tracker: `/api/v1/shares/INFOHASH/picture`", &picture.body);
    assert_eq!(picture["hosts"][0]["percents"][0], 100, "{picture}");
    assert_eq!(get(url, &format!("/api/v1/shares/{}", "02".repeat(32))).status, 404);
    let metrics = get(url, "/metrics").body;
    let (documented, of_registry) =
        (docs::metrics("shoal_tracker_"), docs::metrics("shoal_tracker_registry_"));
    assert_eq!(docs::names_in(&metrics), &documented - &of_registry);
    for line in [
        "shoal_tracker_requests_total{kind=\"announce\"} 1.0",
        "shoal_tracker_peers{kind=\"seeder\"} 1.0",
        "shoal_tracker_kernel_drops_total 0.0",
    ] {
        assert!(metrics.lines().any(|has| has == line), "no {line} in {metrics}");
    }
    assert_eq!(of_registry.len(), 8);
    let stream =
        format!("GET /events/v1/shares/{}?changes HTTP/1.1\r\nHost: localhost\r\n\r\n", "01".repeat(32));
    let (_, events) = begin(url, &stream);
    let mut events = events.lines().map(Result::unwrap);
    let mut event = |name: &str| {
        events.find(|line| line.starts_with(name)).unwrap();
        events.find_map(|line| Some(line.strip_prefix("data: ")?.to_owned())).unwrap()
    };
    // The length of a part of the answer comes before it.
    docs::check("Tracker: `/api/v1/shares/INFOHASH`", &event(""));
    announce_of(port, 9, 1, "data.bin");
    let change = docs::check("Tracker: what changed", &event("event: change"));
    assert_eq!(change["hosts"][0]["address"], "127.0.0.1:7009", "{change}");
}

/// Each answer is to another announce or lookup, from one address.
#[test]
fn its_limits_change_and_it_stops_as_asked_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let token = "0123456789abcdef0123456789abcdef";
    fs::write(&file, token).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let args = ["--bind", "127.0.0.1", "-p", "0", "--http=:0", "--http-token", file.to_str().unwrap()];
    let mut tracker = Running::start(&args);
    let port = tracker.port("127.0.0.1");
    let url = tracker.line();
    let url = url.strip_prefix("[HTTP] Page and metrics are at ").unwrap();
    let change =
        |path: &str, body: &str| post(url, path, &format!("Authorization: Bearer {token}\r\n"), body);
    let limits = docs::check("Tracker: `/api/v1/limits`", &get(url, "/api/v1/limits").body);
    assert_eq!((&limits["rate"], &limits["max_per_address"]), (&10_000.into(), &10_000.into()));
    for bad in
        [r#"{"rate": 0}"#, r#"{"rate": 5, "max_shares": 0}"#, r#"{"max_peers": 1}"#, r#"{"byte_rate": "x"}"#]
    {
        assert_eq!(change("/api/v1/limits", bad).status, 400, "{bad}");
    }
    assert_eq!(post(url, "/api/v1/limits", "", r#"{"rate": 5}"#).status, 401);
    assert_eq!(change("/api/v1/shares", "{}").status, 404);
    let unchanged = docs::check("Tracker: `/api/v1/limits`", &get(url, "/api/v1/limits").body);
    assert_eq!(unchanged, limits, "a request that is wrong in part changes nothing");
    let is_registered = |(announced, _): (ReplyBody, ReplyBody)| matches!(announced, ReplyBody::Announced(_));
    assert!(is_registered(announce_and_look_up(port, 1, "a.bin")));
    let new = change("/api/v1/limits", r#"{"max_shares": 1, "byte_rate": "1MB"}"#);
    let new = docs::check("Tracker: `/api/v1/limits`", &new.body);
    assert_eq!(
        (&new["max_shares"], &new["byte_rate"], &new["rate"]),
        (&1.into(), &1_000_000.into(), &10_000.into())
    );
    assert!(!is_registered(announce_and_look_up(port, 2, "b.bin")), "there is room for one share");
    assert!(is_registered(announce_and_look_up(port, 1, "a.bin")), "which stays");
    change("/api/v1/limits", r#"{"max_shares": 2, "rate": null}"#);
    assert!(is_registered(announce_and_look_up(port, 2, "b.bin")));
    let stopped = change("/api/v1/stop", "{}");
    assert_eq!((stopped.status, &*stopped.body), (200, "{}"));
    assert!(tracker.child.wait().unwrap().success());
}

#[test]
fn an_http_port_in_use_is_an_error_that_names_the_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let http = format!("--http={}", taken.local_addr().unwrap());
    let (code, _, err) = run(&["--bind", "127.0.0.1", "-p", "0", &http]);
    assert_eq!(code, Some(6), "{err}");
    assert!(err.contains("TCP port") && err.contains("--http=ADDR:PORT"), "{err}");
}
