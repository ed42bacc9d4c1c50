//! What is where.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, RawQuery, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_stream::{StreamExt, wrappers::IntervalStream};

use crate::{
    Program,
    hosts::Hosts,
    metrics::{open_metrics, text},
    page::page,
};

/// Time between two events of a stream.
const STREAM_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum streams at a time, one for each open page. Each takes one connection.
const MAX_STREAMS: usize = 32;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Context {
    program: Program,
    streams: Arc<Semaphore>,
}

/// All that a program answers.
pub(crate) fn router(program: Program, hosts: Hosts) -> Router {
    let context = Context { program, streams: Arc::new(Semaphore::new(MAX_STREAMS)) };
    Router::new()
        .route("/", get(show_page))
        .route("/healthz", get(|| async { ([(header::CONTENT_TYPE, TEXT)], "ok\n") }))
        .route("/metrics", get(show_metrics))
        .route("/api/v1/{*path}", get(show_json))
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

/// The same JSON as a stream of server-sent events: now, and whenever it has changed.
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
    let mut view = Watched { program: context.program, path, query, last: String::new(), _place: place };
    let events = IntervalStream::new(ticks()).map(move |_| Ok::<_, Infallible>(view.event()));
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

fn ticks() -> Interval {
    let mut ticks = interval(STREAM_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// What one stream shows.
struct Watched {
    program: Program,
    path: String,
    query: String,
    last: String,
    _place: OwnedSemaphorePermit,
}

impl Watched {
    /// The next event: the JSON, or a comment if it did not change. JSON is one line.
    fn event(&mut self) -> String {
        match self.program.resource(&self.path, &self.query) {
            Some(json) if json != self.last => {
                self.last = json;
                format!("data: {}\n\n", self.last)
            }
            Some(_) => ":\n\n".to_owned(),
            None if self.last.is_empty() => ":\n\n".to_owned(),
            None => {
                self.last.clear();
                "event: gone\ndata: null\n\n".to_owned()
            }
        }
    }
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, JSON)], r#"{"error":"there is nothing here"}"#)
        .into_response()
}
