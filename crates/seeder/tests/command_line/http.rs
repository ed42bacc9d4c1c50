//! What a seeder shows over HTTP, and what can be changed there, is what docs/http.md says.

use std::{fs, os::unix::fs::PermissionsExt};

use proto::{ChunkIndex, peer::PeerMessage, tracker::Completion};
use tokio::runtime::Runtime;

use crate::{
    docs,
    get::{Answer, get, post},
    peer::{answer, connect, send},
    program::{Place, Running, until},
    seeder,
    sharing::described,
    tracking::Tracking,
};

#[test]
fn shows_its_peers_as_the_docs_say() {
    let (place, tracking) = (Place::new(), Tracking::start());
    fs::write(place.path("a file"), "12345").unwrap();
    let args = ["--http=:0", "a file", "--tracker", &tracking.address(), "--upload-limit", "1M"];
    let seeder = Running::start(seeder(&place, &args));
    let line = seeder.line();
    let url = line.strip_prefix("Page and metrics are at ").unwrap_or_else(|| panic!("{line}"));
    let described = described(&seeder, "a file");
    seeder.line_with("Registered");
    let infohash = described.link.infohash;
    Runtime::new().unwrap().block_on(async {
        let mut peer = connect(described.port, infohash, 0).await.unwrap();
        send(&mut peer, [PeerMessage::Request { chunk: ChunkIndex(0), progress: Completion::NOTHING }]).await;
        let (message, _) = answer(&mut peer).await;
        assert_eq!(message, PeerMessage::Chunk { chunk: ChunkIndex(0), len: 5 });
        // The chunk may be here before it is counted there.
        let share = until("the chunk is counted", || {
            let answer = get(url, &format!("/api/v1/shares/{infohash}"));
            let share = docs::check("Seeder: `/api/v1/shares/INFOHASH`", &answer.body);
            (share["sent"] == 5).then_some(share)
        });
        let receiver = &share["receivers"][0];
        assert_eq!((&receiver["sent"], &receiver["given"]), (&5.into(), &vec![100].into()), "{share}");
        assert_eq!(share["trackers"][0]["registered"], true, "{share}");
        let shares = docs::check("Seeder: `/api/v1/shares`", &get(url, "/api/v1/shares").body);
        assert_eq!(
            (&shares["shares"][0]["name"], &shares["shares"][0]["peers"]),
            (&"a file".into(), &1.into())
        );
        let status = docs::check("Seeder: `/api/v1/status`", &get(url, "/api/v1/status").body);
        assert_eq!((&status["peers"], &status["upload_limit"]), (&1.into(), &1_000_000.into()));
        let metrics = get(url, "/metrics").body;
        assert_eq!(docs::names_in(&metrics), docs::metrics("shoal_seeder_"));
        for line in [
            "shoal_seeder_sent_bytes_total 5.0",
            "shoal_seeder_peers 1.0",
            "shoal_seeder_registrations 1.0",
            "shoal_seeder_announces_total{outcome=\"accepted\"} 1.0",
        ] {
            assert!(metrics.lines().any(|has| has == line), "no {line} in {metrics}");
        }
        assert_eq!(get(url, &format!("/api/v1/shares/{}", "00".repeat(32))).status, 404);
    });
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

/// Waits until the list of shares is as wanted, and returns it.
fn list_until(url: &str, is_wanted: impl Fn(&[serde_json::Value]) -> bool) -> serde_json::Value {
    until("the list", || {
        let answer = docs::check("Seeder: `/api/v1/shares`", &get(url, "/api/v1/shares").body);
        is_wanted(answer["shares"].as_array().unwrap()).then(|| answer["shares"].clone())
    })
}

#[test]
fn shares_are_added_and_removed_while_it_runs() {
    let (place, tracking) = (Place::new(), Tracking::start());
    token(&place);
    fs::write(place.path("first"), "12345").unwrap();
    fs::create_dir(place.path("root")).unwrap();
    fs::write(place.path("root/second"), "67890").unwrap();
    fs::write(place.path("outside"), "secret").unwrap();
    std::os::unix::fs::symlink(place.path("outside"), place.path("root/link")).unwrap();
    let tracker = tracking.address();
    let args =
        ["--http=:0", "--http-token", "token", "--http-share-root", "root", "first", "--tracker", &tracker];
    let seeder = Running::start(seeder(&place, &args));
    let line = seeder.line();
    let url = line.strip_prefix("Page and metrics are at ").unwrap();
    seeder.line_with("Registered 'first'");
    let add = |path: &std::path::Path| change(url, "/api/v1/shares", &serde_json::json!({ "path": path }));
    for (path, status) in [
        (place.path("outside"), 403),
        (place.path("root/link"), 403),
        (place.path("root/../outside"), 403),
        (place.path("nothing"), 403),
        (place.path("root/nothing"), 403),
        ("root/second".into(), 400),
    ] {
        let answer = add(&path);
        assert_eq!(answer.status, status, "{path:?}: {answer:?}");
    }
    let added = docs::check("Seeder: `POST /api/v1/shares`", &add(&place.path("root/second")).body);
    assert_eq!(added["state"], "hashing", "{added}");
    seeder.line_with("Registered 'second'");
    let list = list_until(url, |shares| shares.len() == 2 && shares.iter().all(|s| s["state"] == "seeding"));
    let second = list.as_array().unwrap().iter().find(|share| share["name"] == "second").unwrap().clone();
    let remove =
        |share: &serde_json::Value| change(url, "/api/v1/remove", &serde_json::json!({ "share": share }));
    assert_eq!(remove(&second["infohash"]).body, "{}");
    seeder.line_with("'second' is no longer shared");
    list_until(url, |shares| shares.len() == 1);
    assert_eq!(remove(&second["infohash"]).status, 404);
    assert!(place.path("root/second").exists(), "files stay");
    // At once again, while its peers get their goodbyes; and one that cannot be shared.
    assert_eq!(add(&place.path("root/second")).status, 200);
    seeder.line_with("Registered 'second'");
    fs::write(place.path("root/unreadable"), "x").unwrap();
    assert!(std::process::Command::new("mkfifo").arg(place.path("root/fifo")).status().unwrap().success());
    assert_eq!(add(&place.path("root/fifo")).status, 200);
    let list = list_until(url, |shares| shares.iter().any(|share| share["state"] == "failed"));
    let failed = list.as_array().unwrap().iter().find(|share| share["state"] == "failed").unwrap().clone();
    assert!(failed["message"].as_str().is_some_and(|why| why.contains("FIFO")), "{failed}");
    assert_eq!(remove(&failed["name"]).status, 200);
    list_until(url, |shares| shares.len() == 2);
}

#[test]
fn nothing_is_added_without_a_root_or_to_a_watched_directory() {
    let place = Place::new();
    token(&place);
    fs::create_dir(place.path("dir")).unwrap();
    fs::write(place.path("a file"), "12345").unwrap();
    let add = |url: &str| change(url, "/api/v1/shares", &serde_json::json!({ "path": place.path("a file") }));
    for (args, status, why) in [
        (["--http-token", "token", "a file"], 403, "started without --http-share-root"),
        (["--http-token", "token", "--watch=dir"], 409, "directory"),
    ] {
        let seeder = Running::start(seeder(&place, &[&["--http=:0"], &args[..]].concat()));
        let line = seeder.line();
        let answer = add(line.strip_prefix("Page and metrics are at ").unwrap());
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.body.contains(why), "{answer:?}");
    }
}

#[test]
fn a_token_file_that_others_may_read_is_a_usage_error() {
    let place = Place::new();
    token(&place);
    fs::set_permissions(place.path("token"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(place.path("a file"), "12345").unwrap();
    let ended = Running::start(seeder(&place, &["--http=:0", "--http-token", "token", "a file"])).end();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("other users may read token") && ended.err.contains("chmod 600"), "{ended:?}");
}

/// At 1 KB/s the chunk would take minutes, longer than anything here is waited for.
#[test]
fn a_limit_that_is_lifted_counts_for_a_chunk_that_is_being_sent() {
    let place = Place::new();
    token(&place);
    fs::write(place.path("a file"), vec![7; 100_000]).unwrap();
    let args = ["--http=:0", "--http-token", "token", "--upload-limit", "1K", "--max-peers", "9", "a file"];
    let seeder = Running::start(seeder(&place, &args));
    let line = seeder.line();
    let url = line.strip_prefix("Page and metrics are at ").unwrap();
    let described = described(&seeder, "a file");
    let limits = docs::check("Seeder: `/api/v1/limits`", &get(url, "/api/v1/limits").body);
    assert_eq!((&limits["upload_limit"], &limits["max_peers"]), (&1_000.into(), &9.into()));
    Runtime::new().unwrap().block_on(async {
        let mut peer = connect(described.port, described.link.infohash, 0).await.unwrap();
        send(&mut peer, [PeerMessage::Request { chunk: ChunkIndex(0), progress: Completion::NOTHING }]).await;
        let answer_comes = answer(&mut peer);
        for bad in [
            serde_json::json!({ "upload_limit": "fast" }),
            serde_json::json!({ "upload_limit": null, "max_peers": 0 }),
            serde_json::json!({ "upload_limit": null, "download_limit": null }),
        ] {
            let refused = change(url, "/api/v1/limits", &bad);
            assert_eq!(refused.status, 400, "{refused:?}");
        }
        let unchanged = docs::check("Seeder: `/api/v1/limits`", &get(url, "/api/v1/limits").body);
        assert_eq!(unchanged, limits, "a request that is wrong in part changes nothing");
        let new = change(url, "/api/v1/limits", &serde_json::json!({ "upload_limit": null, "max_peers": 7 }));
        let new = docs::check("Seeder: `/api/v1/limits`", &new.body);
        assert_eq!((&new["upload_limit"], &new["max_peers"]), (&serde_json::Value::Null, &7.into()));
        let (message, _) = answer_comes.await;
        assert_eq!(message, PeerMessage::Chunk { chunk: ChunkIndex(0), len: 100_000 });
    });
    let status = docs::check("Seeder: `/api/v1/status`", &get(url, "/api/v1/status").body);
    assert_eq!((&status["max_peers"], &status["upload_limit"]), (&7.into(), &serde_json::Value::Null));
}

#[test]
fn it_stops_as_asked() {
    let place = Place::new();
    token(&place);
    fs::write(place.path("a file"), "12345").unwrap();
    let seeder = Running::start(seeder(&place, &["--http=:0", "--http-token", "token", "a file"]));
    let line = seeder.line();
    let url = line.strip_prefix("Page and metrics are at ").unwrap();
    seeder.line_with("Press Ctrl+C to stop");
    assert_eq!(post(url, "/api/v1/stop", "", "{}").status, 401);
    let stopped = change(url, "/api/v1/stop", &serde_json::json!({}));
    assert_eq!((stopped.status, &*stopped.body), (200, "{}"));
    seeder.line_with("Seeder stopped");
    assert_eq!(seeder.end().code, Some(0));
}
