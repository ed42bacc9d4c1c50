//! The port, its connections and their limits.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use listen::{ListenError, listen_tcp};
use startup::Failure;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{HttpArgs, Source, gate::Gate, hosts::Hosts, router::router};

/// Maximum connections at a time. More wait until one is over. A browser has six, and each open page keeps two of them.
const MAX_CONNECTIONS: usize = 64;

/// A request has to be complete after this time, and a connection without a request is closed.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// Bytes of a request that are read at most.
const MAX_REQUEST_LEN: usize = 16 * 1024;

/// How long answers may take to leave when the program stops. The one to the request that stops it is among them.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after a failure to accept. The usual reason is that no file descriptor is free.
const BACK_OFF: Duration = Duration::from_millis(200);

/// A program's HTTP port.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    hosts: Hosts,
    gate: Gate,
}

impl Server {
    /// Takes the port, if the user asked for HTTP. `port` is the default of the program.
    ///
    /// # Panics
    /// Panics outside a Tokio runtime.
    pub fn bind(args: &HttpArgs, port: u16) -> Result<Option<Server>, Failure> {
        let Some(address) = args.listen_at(port) else { return Ok(None) };
        let gate = Gate::new(args.http_token.as_deref())?;
        let hint = |failure: Failure| failure.hint("choose another address or port with --http=ADDR:PORT");
        let listener = listen_tcp(Some(address.ip()), address.port()).map_err(|error| hint(error.into()))?;
        let other = |error| hint(ListenError::Other { address, error }.into());
        let listener = TcpListener::from_std(listener).map_err(other)?;
        let local_addr = listener.local_addr().map_err(other)?;
        Ok(Some(Server { listener, local_addr, hosts: Hosts::new(&args.http_hosts), gate }))
    }

    /// Where the page is.
    pub fn url(&self) -> String {
        format!("http://{}/", self.local_addr)
    }

    /// Answers until `shutdown`. When it returns, every connection is closed.
    pub async fn run(self, source: Arc<dyn Source>, shutdown: CancellationToken) {
        let router = router(source, self.hosts, self.gate, shutdown.clone());
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = async {
                // Never closed, so there is a place in the end.
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                accepted = accepted => accepted,
                () = shutdown.cancelled() => break,
            };
            match accepted {
                Ok((stream, address)) => {
                    let (router, shutdown) = (router.clone(), shutdown.clone());
                    connections.spawn(async move {
                        let _place = place;
                        if let Err(error) = serve(stream, router, &shutdown).await {
                            tracing::debug!(%address, "HTTP: {error}");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!("cannot accept an HTTP connection: {error}");
                    let _ = shutdown.run_until_cancelled(sleep(BACK_OFF)).await;
                }
            }
        }
        let answers = async { while connections.join_next().await.is_some() {} };
        if timeout(STOP_TIMEOUT, answers).await.is_err() {
            connections.shutdown().await;
        }
    }
}

/// Answers requests. After `shutdown`, the one that is being answered is the last.
async fn serve(stream: TcpStream, router: Router, shutdown: &CancellationToken) -> hyper::Result<()> {
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        hyper::service::Service::call(&router, request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(MAX_REQUEST_LEN)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        served = &mut connection => return served,
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
