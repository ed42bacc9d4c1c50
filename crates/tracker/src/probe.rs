//! Asking a tracker whether it answers, as a health check does.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use proto::{
    Endpoint,
    tracker::{
        MAX_DATAGRAM_LEN, ReplyBody, Request, RequestBody, TransactionId,
        codec::{decode_reply, encode_request},
    },
};
use startup::{
    ExitCode, Failure, Output, fail,
    json::{Event, print_event},
    print_line,
};
use tokio::{
    net::{UdpSocket, lookup_host},
    task::JoinSet,
    time::timeout,
};

/// Time for all of it, the name included. A check with its process takes less than 2 s.
const CHECK_TIME: Duration = Duration::from_millis(1_800);

/// Wait for an answer before the request is sent again.
const RETRY: Duration = Duration::from_millis(400);

/// Addresses of a name that are asked, all at once.
const MAX_ADDRESSES: usize = 8;

/// Asks the tracker for a token, prints how long the answer took, and returns 0 if there was one.
pub(crate) fn check(endpoint: &Endpoint, output: Output) -> process::ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::new(ExitCode::Other, error)),
    };
    let asked = runtime.block_on(async { timeout(CHECK_TIME, ask_all(endpoint)).await });
    // A name that is being looked up would hold it.
    runtime.shutdown_background();
    let asked = asked.unwrap_or_else(|_| {
        let why = format!("no answer within {} s", CHECK_TIME.as_secs_f32());
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    });
    match asked {
        Ok(time) => {
            let after_ms = time.as_secs_f64() * 1e3;
            match output {
                Output::Text => print_line(format_args!("Tracker {endpoint} answers after {after_ms:.1} ms")),
                Output::Json => print_event(&Event::Answers { tracker: endpoint.to_string(), after_ms }),
            }
            process::ExitCode::SUCCESS
        }
        Err(error) => {
            let failure = Failure::new(ExitCode::Network, format!("tracker {endpoint}: {error}"))
                .hint("check that a tracker of this version runs there, and that UDP reaches it");
            if output == Output::Json {
                print_event(&Event::error(&failure));
            }
            fail(&failure)
        }
    }
}

/// Asks every address of the tracker, and returns how long the first answer took.
async fn ask_all(endpoint: &Endpoint) -> io::Result<Duration> {
    let addresses = lookup_host((endpoint.host.as_str(), endpoint.port)).await?;
    let mut asking: JoinSet<_> = addresses.take(MAX_ADDRESSES).map(ask).collect();
    let mut last = io::Error::other("the name has no address");
    while let Some(asked) = asking.join_next().await {
        match asked {
            Ok(Ok(time)) => return Ok(time),
            Ok(Err(error)) => last = error,
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

async fn ask(address: SocketAddr) -> io::Result<Duration> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    loop {
        let transaction = TransactionId(rand::random());
        let mut request = BytesMut::new();
        encode_request(&Request { transaction, body: RequestBody::CONNECT }, &mut request)
            .map_err(io::Error::other)?;
        let began = Instant::now();
        socket.send(&request).await?;
        if let Ok(answered) = timeout(RETRY, answer(&socket, transaction)).await {
            return answered.map(|()| began.elapsed());
        }
    }
}

/// Waits for the answer, and skips everything else.
async fn answer(socket: &UdpSocket, transaction: TransactionId) -> io::Result<()> {
    let mut datagram = [0; MAX_DATAGRAM_LEN];
    loop {
        let len = socket.recv(&mut datagram).await?;
        let is_answer = decode_reply(&datagram[..len]).is_ok_and(|reply| {
            reply.transaction == transaction && matches!(reply.body, ReplyBody::Connected { .. })
        });
        if is_answer {
            return Ok(());
        }
    }
}
