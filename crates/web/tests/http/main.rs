//! The server as a client of HTTP sees it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod changing;
mod get;

use std::{
    io::{BufRead, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use clap::Parser;
use get::{begin, get, request};
use serde::Deserialize;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use web::{Follow, HttpArgs, Metric, News, Refusal, Server, Source, read_body};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    http: HttpArgs,
}

/// Has one resource, which is gone after some looks.
struct Fake {
    looks: AtomicU32,
    gone_after: u32,
    stop: CancellationToken,
}

/// Counts the looks, and has something else each time.
struct Changing(u32);

impl Follow for Changing {
    fn look(&mut self) -> Option<News> {
        self.0 += 1;
        match self.0 {
            1 => Some(News::All("1".to_owned())),
            2 => Some(News::Nothing),
            3 => Some(News::Change("3".to_owned())),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Thing {
    number: u32,
}

impl Source for Fake {
    fn metrics(&self) -> Vec<Metric> {
        vec![Metric::counter("shoal_looks", "Looks.", 7)]
    }

    fn resource(&self, path: &str, query: &str) -> Option<String> {
        let look = self.looks.fetch_add(1, Ordering::Relaxed);
        (path == "things/1" && look < self.gone_after).then(|| web::json(&(query, look / 2)))
    }

    fn follow(self: Arc<Self>, path: &str) -> Option<Box<dyn Follow>> {
        (path == "things/1").then(|| Box::new(Changing(0)) as Box<dyn Follow>)
    }

    fn change(&self, path: &str, body: &[u8]) -> Result<String, Refusal> {
        match path {
            "things" => Ok(web::json(&read_body::<Thing>(body)?.number)),
            "busy" => Err(Refusal::Conflict("not now".to_owned())),
            _ => Err(Refusal::Unknown("there is no such thing".to_owned())),
        }
    }

    fn stop(&self) {
        self.stop.cancel();
    }
}

/// A server that runs until it is dropped.
struct Running {
    url: String,
    stop: CancellationToken,
    runtime: Option<Runtime>,
}

impl Running {
    fn start(gone_after: u32) -> Running {
        Running::with(gone_after, &[])
    }

    fn with(gone_after: u32, args: &[&str]) -> Running {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let args = [&["program", "--http=:0", "--http-host=seen.example"], args].concat();
        let args = Args::parse_from(args);
        let stop = CancellationToken::new();
        let server = runtime.block_on(async { Server::bind(&args.http, 1).unwrap().unwrap() });
        let url = server.url();
        let fake = Arc::new(Fake { looks: AtomicU32::new(0), gone_after, stop: stop.clone() });
        runtime.spawn(server.run(fake, stop.clone()));
        Running { url, stop, runtime: Some(runtime) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.runtime.take().unwrap().shutdown_background();
    }
}

#[test]
fn every_answer_forbids_other_sites_to_use_it() {
    let server = Running::start(u32::MAX);
    for (path, status, kind) in [
        ("/", 200, "text/html; charset=utf-8"),
        ("/healthz", 200, "text/plain; charset=utf-8"),
        ("/metrics", 200, "text/plain; version=0.0.4; charset=utf-8"),
        ("/api/v1/things/1", 200, "application/json"),
        ("/api/v1/things/2", 404, "application/json"),
        ("/events/v1/things/2", 404, "application/json"),
        ("/nothing", 404, ""),
    ] {
        let answer = get(&server.url, path);
        assert_eq!(answer.status, status, "{path}");
        let header = |name: &str| {
            let prefix = format!("{name}: ");
            answer.head.iter().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().to_owned()
        };
        assert_eq!(header("content-type"), kind, "{path}");
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("cross-origin-resource-policy"), "same-origin");
        assert!(header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        assert_eq!(header("access-control-allow-origin"), "");
    }
    assert_eq!(get(&server.url, "/healthz").body, "ok\n");
    assert_eq!(get(&server.url, "/api/v1/things/1?a=b%20c").body, r#"["a=b%20c",1]"#);
    assert!(get(&server.url, "/metrics").body.contains("\nshoal_looks_total 7.0\n"));
    let head = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text;version=1.0.0\r\nConnection: close\r\n\r\n";
    assert!(request(&server.url, head).body.ends_with("# EOF\n"));
}

#[test]
fn another_host_or_method_is_refused() {
    let server = Running::start(u32::MAX);
    let status = |line: &str, host: &str| {
        request(&server.url, &format!("{line} HTTP/1.1\r\n{host}Connection: close\r\n\r\n")).status
    };
    for path in ["/", "/healthz", "/metrics", "/api/v1/things/1", "/events/v1/things/1", "/nothing"] {
        assert_eq!(status(&format!("GET {path}"), "Host: example.com\r\n"), 421, "{path}");
        assert_eq!(status(&format!("GET {path}"), ""), 421, "{path}");
    }
    assert_eq!(status("GET /healthz", "Host: seen.example:6020\r\n"), 200);
    for method in ["PUT", "DELETE", "OPTIONS", "PATCH"] {
        assert_eq!(status(&format!("{method} /api/v1/things/1"), "Host: localhost\r\n"), 405, "{method}");
    }
}

/// The lines of a stream, until it says that nothing is left.
fn events(server: &Running, path: &str) -> Vec<String> {
    let (head, mut body) = begin(&server.url, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert!(head.contains(&"content-type: text/event-stream".to_owned()), "{head:?}");
    let mut lines = Vec::new();
    while !lines.iter().any(|line| line == "event: gone") {
        let mut line = String::new();
        body.read_line(&mut line).unwrap();
        // Chunks of HTTP have lines with their lengths between these.
        if line.starts_with(":") || line.starts_with("data") || line.starts_with("event") {
            lines.push(line.trim_end().to_owned());
        }
        assert!(lines.len() < 20, "it does not end: {lines:?}");
    }
    lines
}

#[test]
fn a_stream_has_each_change_once_and_says_when_nothing_is_left() {
    let server = Running::start(4);
    let lines = events(&server, "/events/v1/things/1");
    assert_eq!(lines, [r#"data: ["",0]"#, r#"data: ["",1]"#, ":", "event: gone"]);
}

#[test]
fn a_page_that_asks_for_changes_gets_all_once() {
    let server = Running::start(u32::MAX);
    let lines = events(&server, "/events/v1/things/1?changes");
    assert_eq!(lines, ["data: 1", ":", "event: change", "data: 3", "event: gone"]);
}

#[test]
fn streams_are_bounded_and_leave_room_for_requests() {
    let server = Running::start(u32::MAX);
    let open = || begin(&server.url, "GET /events/v1/things/1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut streams = Vec::new();
    while let (head, stream) = open()
        && head[0].contains(" 200 ")
    {
        streams.push(stream);
        assert!(streams.len() <= 64, "streams without end");
    }
    assert_eq!(get(&server.url, "/healthz").status, 200);
    streams.pop();
    // The server notices that it is closed when it sends the next event.
    while !open().0[0].contains(" 200 ") {}
}

#[test]
fn a_request_that_never_ends_is_bounded() {
    let server = Running::start(u32::MAX);
    let (head, _) = begin(
        &server.url,
        &format!("GET / HTTP/1.1\r\nHost: localhost\r\nLong: {}\r\n\r\n", "x".repeat(100_000)),
    );
    assert!(head[0].contains(" 431 "), "{head:?}");
    let mut silent =
        std::net::TcpStream::connect(server.url.trim_start_matches("http://").trim_end_matches('/')).unwrap();
    silent.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).unwrap();
}
