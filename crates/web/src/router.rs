//! What is where.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, RawQuery, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use startup::report_stopping;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::{Interval, MissedTickBehavior, interval, timeout},
};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    Follow, News, Program, Refusal,
    change::read_empty,
    gate::{Denied, Gate},
    hosts::Hosts,
    json,
    metrics::{open_metrics, text},
    page::page,
    parameter,
};

/// Time between two events of a stream.
const STREAM_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum streams at a time, one for each open page. Each takes one connection.
const MAX_STREAMS: usize = 32;

/// Bytes of a body that are read at most: a path has 4 KiB, and a link hardly more.
const MAX_BODY_LEN: usize = 16 * 1024;

/// A body has to be complete after this time.
const BODY_TIME: Duration = Duration::from_secs(5);

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Context {
    program: Program,
    gate: Gate,
    streams: Arc<Semaphore>,
    /// Ends the streams.
    stop: CancellationToken,
}

/// All that a program answers. `stop` ends the streams.
pub(crate) fn router(program: Program, hosts: Hosts, gate: Gate, stop: CancellationToken) -> Router {
    let context = Context { program, gate, streams: Arc::new(Semaphore::new(MAX_STREAMS)), stop };
    Router::new()
        .route("/", get(show_page))
        .route("/healthz", get(|| async { ([(header::CONTENT_TYPE, TEXT)], "ok\n") }))
        .route("/metrics", get(show_metrics))
        .route("/api/v1/{*path}", get(show_json).post(change))
        .route("/events/v1/{*path}", get(stream_json))
        .layer(from_fn_with_state(Arc::new(hosts), guard))
        .with_state(context)
}

/// Refuses requests that do not name this machine, and forbids other sites to use the answers.
async fn guard(State(hosts): State<Arc<Hosts>>, request: Request, next: Next) -> Response {
    let mut response = if hosts.are_named_by(request.headers()) {
        next.run(request).await
    } else {
        let why = "this is not the name of this host; allow it with --http-host\n";
        (StatusCode::MISDIRECTED_REQUEST, [(header::CONTENT_TYPE, TEXT)], why).into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

async fn show_page() -> Response {
    let (page, policy) = page();
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, &policy)];
    (headers, page).into_response()
}

async fn show_metrics(State(context): State<Context>, headers: HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let metrics = context.program.metrics();
    let (kind, metrics) = if accepts.contains("application/openmetrics-text") {
        (OPEN_METRICS, open_metrics(metrics))
    } else {
        (PROMETHEUS, text(metrics))
    };
    match metrics {
        Ok(metrics) => ([(header::CONTENT_TYPE, kind)], metrics).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn show_json(
    State(context): State<Context>,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    match context.program.resource(&path, &query.unwrap_or_default()) {
        Some(json) => ([(header::CONTENT_TYPE, JSON)], json).into_response(),
        None => not_found(),
    }
}

/// Changes something, if the request shows the token. What all programs can do is done here, and the program does the rest.
async fn change(State(context): State<Context>, Path(path): Path<String>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let gate = context.gate.clone();
    match spawn_blocking(move || gate.admits(&head.headers)).await {
        Ok(Ok(())) => {}
        Ok(Err(denied)) => return denied.into_response(),
        Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
    let body = match timeout(BODY_TIME, to_bytes(body, MAX_BODY_LEN)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return error(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 16 KiB"),
        Err(_) => return error(StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 5 s"),
    };
    let program = context.program;
    let changed = spawn_blocking(move || match &*path {
        // Shows whether the token is right.
        "token" => read_empty(&body).map(|()| "{}".to_owned()),
        "stop" => read_empty(&body).map(|()| {
            tracing::info!("stopping, as asked over HTTP");
            report_stopping();
            program.stop();
            "{}".to_owned()
        }),
        _ => program.change(&path, &body).inspect(|_| tracing::info!(path, "changed over HTTP")),
    });
    match changed.await {
        Ok(Ok(json)) => ([(header::CONTENT_TYPE, JSON)], json).into_response(),
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The same JSON as a stream of server-sent events: now, and whenever it has changed. With `?changes` in the query, only what changed
/// comes after the first event.
async fn stream_json(
    State(context): State<Context>,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.unwrap_or_default();
    let Ok(place) = Arc::clone(&context.streams).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::CONTENT_TYPE, TEXT)], "too many open pages\n")
            .into_response();
    };
    if context.program.resource(&path, &query).is_none() {
        return not_found();
    }
    let changes = parameter(&query, "changes").and_then(|_| Arc::clone(&context.program).follow(&path));
    let whole = || Box::new(Whole { program: context.program, path, query, last: String::new() });
    let events = Events {
        view: changes.unwrap_or_else(|| whole()),
        state: Shown::Nothing,
        ticks: ticks(),
        stop: Box::pin(context.stop.cancelled_owned()),
        _place: place,
    };
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

fn ticks() -> Interval {
    let mut ticks = interval(STREAM_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// A stream of events, which ends when the program stops.
struct Events {
    view: Box<dyn Follow>,
    state: Shown,
    ticks: Interval,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: OwnedSemaphorePermit,
}

/// What the last event left on the page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Nothing,
    Something,
}

impl Events {
    /// The next event, or a comment if nothing changed.
    fn next(&mut self) -> String {
        let before = self.state;
        let news = self.view.look();
        self.state = if news.is_some() { Shown::Something } else { Shown::Nothing };
        match news {
            Some(News::All(json)) => format!("data: {json}\n\n"),
            Some(News::Change(json)) => format!("event: change\ndata: {json}\n\n"),
            None if before == Shown::Something => "event: gone\ndata: null\n\n".to_owned(),
            Some(News::Nothing) | None => ":\n\n".to_owned(),
        }
    }
}

impl Stream for Events {
    type Item = Result<String, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        if self.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        self.ticks.poll_tick(cx).map(|_| Some(Ok(self.next())))
    }
}

/// The whole JSON of a path, whenever it has changed.
struct Whole {
    program: Program,
    path: String,
    query: String,
    last: String,
}

impl Follow for Whole {
    fn look(&mut self) -> Option<News> {
        let Some(json) = self.program.resource(&self.path, &self.query) else {
            self.last.clear();
            return None;
        };
        if json == self.last {
            return Some(News::Nothing);
        }
        self.last.clone_from(&json);
        Some(News::All(json))
    }
}

fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "there is nothing here")
}

fn error(status: StatusCode, error: &str) -> Response {
    #[derive(Serialize)]
    struct Error<'a> {
        error: &'a str,
    }
    (status, [(header::CONTENT_TYPE, JSON)], json(&Error { error })).into_response()
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let mut response = error(self.status(), &self.to_string());
        if self.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        error(self.status(), &self.to_string())
    }
}
