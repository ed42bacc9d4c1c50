//! Requests that change something, and those that may not.

use std::{collections::BTreeSet, fs, io::Read, os::unix::fs::PermissionsExt};

use tempfile::TempDir;

use crate::{
    Running,
    get::{Answer, begin, post, request},
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A server that can be changed.
struct Guarded {
    dir: TempDir,
    server: Running,
}

impl Guarded {
    fn start() -> Guarded {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        write(&dir, TOKEN);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let server = Running::with(u32::MAX, &["--http-token", file.to_str().unwrap()]);
        Guarded { dir, server }
    }

    fn post(&self, path: &str, lines: &str, body: &str) -> Answer {
        post(&self.server.url, path, lines, body)
    }
}

/// Keeps the mode of the file, if it is there.
fn write(dir: &TempDir, token: &str) {
    fs::write(dir.path().join("token"), token).unwrap();
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[test]
fn a_request_with_the_token_changes_something() {
    let guarded = Guarded::start();
    let done = guarded.post("/api/v1/things", &bearer(TOKEN), r#"{"number": 7}"#);
    assert_eq!((done.status, &*done.body), (200, "7"));
    assert_eq!(guarded.post("/api/v1/token", &bearer(TOKEN), "{}").status, 200);
    let own = format!("{}Origin: http://localhost\r\n", bearer(TOKEN));
    assert_eq!(guarded.post("/api/v1/things", &own, r#"{"number": 7}"#).status, 200);
}

#[test]
fn every_other_request_is_refused_with_its_reason() {
    let guarded = Guarded::start();
    let (good, json) = (bearer(TOKEN), r#"{"number": 7}"#);
    let check = |answer: Answer, status: u16, why: &str| {
        assert_eq!(answer.status, status, "{why}: {answer:?}");
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert!(body["error"].as_str().unwrap().contains(why), "{body}");
        let asks = answer.head.contains(&"www-authenticate: bearer".to_owned());
        assert_eq!(asks, status == 401, "{answer:?}");
        assert!(!answer.head.iter().any(|line| line.starts_with("access-control-")), "{answer:?}");
    };
    for path in ["/api/v1/things", "/api/v1/stop", "/api/v1/token", "/api/v1/nothing"] {
        check(guarded.post(path, "", json), 401, "show the token");
        check(guarded.post(path, "Authorization: Basic YTpi\r\n", json), 401, "show the token");
        check(guarded.post(path, &format!("{good}{good}"), json), 401, "show the token");
        check(guarded.post(path, &bearer("0123456789abcdef0123456789abcdeF"), json), 401, "not the token");
        check(guarded.post(path, &bearer(""), json), 401, "show the token");
        let other_site = format!("{good}Origin: http://evil.example\r\n");
        check(guarded.post(path, &other_site, json), 403, "another site");
        check(guarded.post(path, &format!("{good}Origin: null\r\n"), json), 403, "another site");
    }
    check(guarded.post("/api/v1/things", &good, ""), 400, "EOF");
    check(guarded.post("/api/v1/things", &good, r#"{"number": 7, "more": 1}"#), 400, "unknown field `more`");
    check(guarded.post("/api/v1/stop", &good, r#"{"now": true}"#), 400, "unknown field `now`");
    check(guarded.post("/api/v1/nothing", &good, "{}"), 404, "no such thing");
    check(guarded.post("/api/v1/things", &good, &" ".repeat(20_000)), 413, "16 KiB");
    let raw = |lines: &str| {
        let lines = format!("{lines}{good}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}");
        request(&guarded.server.url, &format!("POST /api/v1/token HTTP/1.1\r\n{lines}"))
    };
    check(raw("Host: localhost\r\nContent-Type: text/plain\r\n"), 415, "application/json");
    check(raw("Host: localhost\r\n"), 415, "application/json");
    assert_eq!(raw("Host: evil.example\r\nContent-Type: application/json\r\n").status, 421);
    // A browser asks this first, for a page of another site. It is not told that it may.
    let asks = "Host: localhost\r\nOrigin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n";
    let answer = request(&guarded.server.url, &format!("OPTIONS /api/v1/stop HTTP/1.1\r\n{asks}"));
    assert_eq!(answer.status, 405);
    assert!(!answer.head.iter().any(|line| line.starts_with("access-control-")), "{answer:?}");
    assert_eq!(guarded.post("/api/v1/token", &good, "{}").status, 200, "it still runs");
}

/// The statuses of errors in docs/http.md.
fn documented_errors() -> BTreeSet<u16> {
    let docs = include_str!("../../../../docs/http.md");
    let table = docs.split("\nAn error is ").nth(1).and_then(|rest| rest.split("\n### ").next()).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    rows.flat_map(|statuses| statuses.split(", ")).filter_map(|status| status.parse().ok()).collect()
}

/// Each status that the docs list is the answer to a request.
#[test]
fn errors_are_those_of_the_docs() {
    let guarded = Guarded::start();
    let (good, json) = (bearer(TOKEN), r#"{"number": 7}"#);
    let raw = |lines: &str, body: &str| {
        request(
            &guarded.server.url,
            &format!("POST /api/v1/things HTTP/1.1\r\n{lines}{good}Connection: close\r\n\r\n{body}"),
        )
    };
    let answers = [
        guarded.post("/api/v1/things", &good, "[]"),
        guarded.post("/api/v1/things", "", json),
        guarded.post("/api/v1/things", &format!("{good}Origin: http://evil.example\r\n"), json),
        guarded.post("/api/v1/nothing", &good, json),
        // The rest of the body never comes.
        raw("Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n", "{"),
        guarded.post("/api/v1/things", &good, &" ".repeat(20_000)),
        guarded.post("/api/v1/busy", &good, "{}"),
        raw("Host: localhost\r\nContent-Length: 2\r\n", "{}"),
        raw("Host: evil.example\r\nContent-Type: application/json\r\nContent-Length: 2\r\n", "{}"),
    ];
    let statuses = answers.map(|answer| answer.status);
    assert_eq!(statuses, [400, 401, 403, 404, 408, 413, 409, 415, 421]);
    assert_eq!(BTreeSet::from(statuses), documented_errors());
}

#[test]
fn without_a_token_file_nothing_can_be_changed() {
    let server = Running::start(u32::MAX);
    for path in ["/api/v1/things", "/api/v1/stop", "/api/v1/token"] {
        let answer = post(&server.url, path, &bearer(TOKEN), "{}");
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.body.contains("--http-token"), "{answer:?}");
    }
}

#[test]
fn a_new_token_counts_at_once_and_one_that_others_may_read_does_not() {
    let guarded = Guarded::start();
    let other = "another token of the same file".replace(' ', "-");
    let status = |token: &str| guarded.post("/api/v1/token", &bearer(token), "{}").status;
    assert_eq!((status(TOKEN), status(&other)), (200, 401));
    write(&guarded.dir, &format!("{other}\n"));
    assert_eq!((status(TOKEN), status(&other)), (401, 200));
    let file = guarded.dir.path().join("token");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(status(&other), 403);
    fs::remove_file(file).unwrap();
    assert_eq!(status(&other), 403);
}

#[test]
fn who_stops_the_program_gets_an_answer_and_streams_end() {
    let guarded = Guarded::start();
    let events = "GET /events/v1/things/1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (head, mut stream) = begin(&guarded.server.url, events);
    assert!(head[0].contains(" 200 "), "{head:?}");
    let answer = guarded.post("/api/v1/stop", &bearer(TOKEN), "{}");
    assert_eq!((answer.status, &*answer.body), (200, "{}"));
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "the stream ends as HTTP wants it: {rest:?}");
}
