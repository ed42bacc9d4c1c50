//! The socket around [`proto::tracker::client`]: one task for each tracker.

use std::{
    collections::BTreeMap,
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use proto::{
    Endpoint, InfoHash,
    tracker::{
        MAX_DATAGRAM_LEN, Query,
        client::{Answer, Call, CallError, CallId, Client},
        codec::{decode_reply, encode_request},
        message::{Announce, Announced, FinishedHosts, LateHosts, PeerEntry, Peers, Shares},
    },
};
use rand::rngs::StdRng;
use tokio::{
    net::{UdpSocket, lookup_host},
    sync::{mpsc, oneshot},
    time::{sleep_until, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

pub use proto::tracker::client::TrackerError;

/// Maximum calls that wait for the task.
const QUEUE_LEN: usize = 64;

/// Maximum calls in flight; more wait in the queue.
const MAX_CALLS: usize = 256;

/// Maximum addresses of a tracker name that are tried.
const MAX_RESOLVED: usize = 8;

/// A tracker that has several addresses is asked at the next one if it is silent for this long. By then a request was sent twice. So a
/// call goes on elsewhere within two seconds, and few do so because datagrams were lost.
const FAILOVER: Duration = Duration::from_millis(1_200);

/// Wait after the tracker's name could not be resolved, or no socket could be opened.
const RESOLVE_BACK_OFF: Duration = Duration::from_secs(1);

/// A client of one tracker. Clones share its task.
#[derive(Debug, Clone)]
pub struct TrackerClient {
    endpoint: Arc<Endpoint>,
    calls: mpsc::Sender<Job>,
    _open: Arc<DropGuard>,
}

struct Job {
    call: Call,
    result: JobResult,
}

/// Receives the answer, and the address at which the tracker was reached.
type JobResult = oneshot::Sender<Result<(Answer, SocketAddr), JobError>>;

#[derive(Debug, Clone)]
enum JobError {
    Call(CallError),
    Unreachable(Arc<io::Error>),
    /// The tracker's name cannot be resolved.
    Unresolved(Arc<io::Error>),
}

impl TrackerClient {
    /// Starts the task that sends requests to `endpoint`, from the address `local` if one is given. It ends when every clone is dropped,
    /// even while the tracker's name is being resolved.
    pub fn spawn(endpoint: Endpoint, local: Option<IpAddr>, tasks: &TaskTracker) -> TrackerClient {
        let (calls, jobs) = mpsc::channel(QUEUE_LEN);
        let endpoint = Arc::new(endpoint);
        let name = Arc::clone(&endpoint);
        let resolve = async move || Ok(lookup_host((name.host.as_str(), name.port)).await?.collect());
        let working = Worker::new(Arc::clone(&endpoint), local).run(jobs, resolve);
        TrackerClient::with(endpoint, calls, working, tasks)
    }

    /// The client of a worker that takes its `calls`.
    fn with(
        endpoint: Arc<Endpoint>,
        calls: mpsc::Sender<Job>,
        working: impl Future<Output = ()> + Send + 'static,
        tasks: &TaskTracker,
    ) -> TrackerClient {
        let stop = CancellationToken::new();
        tasks.spawn(stop.clone().run_until_cancelled_owned(working));
        TrackerClient { endpoint, calls, _open: Arc::new(stop.drop_guard()) }
    }

    /// The tracker.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Registers, renews or ends a registration; the token is filled in.
    pub async fn announce(&self, announce: Announce) -> Result<Announced, TrackerError> {
        match self.call(Call::Announce(announce)).await? {
            (Answer::Announced(announced), _) => Ok(announced),
            _ => Err(self.unexpected()),
        }
    }

    /// Looks up peers. Also returns the address at which the tracker was reached.
    pub async fn peers(&self, query: Query) -> Result<(Peers, SocketAddr), TrackerError> {
        match self.call(Call::Lookup(query)).await? {
            (Answer::Peers(peers), address) => Ok((peers, address)),
            _ => Err(self.unexpected()),
        }
    }

    /// Looks up shares. Also returns the address at which the tracker was reached.
    pub async fn shares(&self, query: Query) -> Result<(Shares, SocketAddr), TrackerError> {
        match self.call(Call::Lookup(query)).await? {
            (Answer::Shares(shares), address) => Ok((shares, address)),
            _ => Err(self.unexpected()),
        }
    }

    /// Looks up hosts that do not have all of a share. Also returns the address at which the tracker was reached.
    pub async fn late(
        &self,
        infohash: InfoHash,
        after: Option<PeerEntry>,
    ) -> Result<(LateHosts, SocketAddr), TrackerError> {
        match self.call(Call::Lookup(Query::Late { infohash, after })).await? {
            (Answer::Late(late), address) => Ok((late, address)),
            _ => Err(self.unexpected()),
        }
    }

    /// Looks up hosts that have fetched all of a share, without the first `after`. Also returns the address at which the tracker was
    /// reached.
    pub async fn finished(
        &self,
        infohash: InfoHash,
        after: u32,
    ) -> Result<(FinishedHosts, SocketAddr), TrackerError> {
        match self.call(Call::Lookup(Query::Finished { infohash, after })).await? {
            (Answer::Finished(finished), address) => Ok((finished, address)),
            _ => Err(self.unexpected()),
        }
    }

    /// Whether the tracker answers within this time. A refusal is an answer too.
    pub async fn answers(&self, within: Duration) -> bool {
        let asked = timeout(within, self.shares(Query::List { after: None })).await;
        matches!(asked, Ok(Ok(_) | Err(TrackerError::Call { error: CallError::Refused(_), .. })))
    }

    async fn call(&self, call: Call) -> Result<(Answer, SocketAddr), TrackerError> {
        let endpoint = || (*self.endpoint).clone();
        let (result, outcome) = oneshot::channel();
        self.calls.send(Job { call, result }).await.map_err(|_| TrackerError::Stopping(endpoint()))?;
        match outcome.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(JobError::Call(error))) => Err(TrackerError::Call { endpoint: endpoint(), error }),
            Ok(Err(JobError::Unresolved(error))) => {
                Err(TrackerError::Unresolved { endpoint: endpoint(), error })
            }
            Ok(Err(JobError::Unreachable(source))) => {
                Err(TrackerError::Unreachable { endpoint: endpoint(), error: source })
            }
            Err(_) => Err(TrackerError::Stopping(endpoint())),
        }
    }

    fn unexpected(&self) -> TrackerError {
        TrackerError::Call { endpoint: (*self.endpoint).clone(), error: CallError::Unexpected }
    }
}

struct Worker {
    endpoint: Arc<Endpoint>,
    local: Option<IpAddr>,
    client: Client,
    waiting: BTreeMap<CallId, JobResult>,
    rng: StdRng,
    /// The addresses of the tracker's name, as it was last resolved.
    addresses: Vec<SocketAddr>,
    /// Those that could not be used, the latest last. They are tried last. A name server may return its addresses in another order
    /// each time.
    failed: Vec<SocketAddr>,
}

/// Why a socket is closed.
enum SocketEnd {
    /// All clients are dropped.
    Done,
    /// The tracker does not answer there. Calls in flight go on at another address.
    NoTracker,
}

/// What came from a tracker's address.
enum Received {
    Reply,
    /// Something that cannot be decoded.
    Other,
}

impl Worker {
    fn new(endpoint: Arc<Endpoint>, local: Option<IpAddr>) -> Worker {
        Worker {
            endpoint,
            local,
            client: Client::default(),
            waiting: BTreeMap::new(),
            rng: rand::make_rng(),
            addresses: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// Handles jobs, at the addresses that `resolve` finds for the tracker's name, until no client is left.
    async fn run(
        mut self,
        mut jobs: mpsc::Receiver<Job>,
        resolve: impl AsyncFn() -> io::Result<Vec<SocketAddr>>,
    ) {
        loop {
            if self.client.calls_under_way() == 0 {
                let Some(job) = jobs.recv().await else { return };
                self.start(job);
            }
            let opened = match self.resolve(&resolve).await {
                Ok(()) => self.open_socket().await.map_err(|error| JobError::Unreachable(Arc::new(error))),
                Err(error) => Err(JobError::Unresolved(Arc::new(error))),
            };
            match opened {
                Ok((socket, address)) => {
                    if let SocketEnd::Done = self.drive(&socket, address, &mut jobs).await {
                        return;
                    }
                    self.note_failed(address);
                    // If none is left to try, calls go on at their pace.
                    if self.has_untried() {
                        self.client.start_over();
                    }
                }
                Err(error) => {
                    tracing::debug!(endpoint = %self.endpoint, "cannot reach the tracker: {error:?}");
                    self.fail_all(&error);
                    tokio::time::sleep(RESOLVE_BACK_OFF).await;
                }
            }
        }
    }

    /// Resolves the tracker's name, unless one of its addresses has yet to be tried.
    async fn resolve(&mut self, resolve: &impl AsyncFn() -> io::Result<Vec<SocketAddr>>) -> io::Result<()> {
        if !self.failed.is_empty() && self.has_untried() {
            return Ok(());
        }
        let mut addresses = resolve().await?;
        addresses.retain(|address| self.local.is_none_or(|local| local.is_ipv4() == address.is_ipv4()));
        addresses.truncate(MAX_RESOLVED);
        self.failed.retain(|address| addresses.contains(address));
        self.addresses = addresses;
        Ok(())
    }

    fn has_untried(&self) -> bool {
        self.addresses.iter().any(|address| !self.failed.contains(address))
    }

    fn note_failed(&mut self, address: SocketAddr) {
        self.failed.retain(|&failed| failed != address);
        self.failed.push(address);
    }

    /// A socket to the address that failed longest ago, or never, of those for which one can be opened.
    async fn open_socket(&mut self) -> io::Result<(UdpSocket, SocketAddr)> {
        let mut addresses = self.addresses.clone();
        let failed = |address: &SocketAddr| self.failed.iter().position(|failed| failed == address);
        addresses.sort_by_key(|address| failed(address).map_or(0, |place| place + 1));
        let (skipped, opened) = open_first(&addresses, self.local).await?;
        addresses.iter().take(skipped).for_each(|&address| self.note_failed(address));
        Ok(opened)
    }

    /// Uses the tracker at one address, until that fails or no client is left.
    async fn drive(
        &mut self,
        socket: &UdpSocket,
        address: SocketAddr,
        jobs: &mut mpsc::Receiver<Job>,
    ) -> SocketEnd {
        // One byte more than is legal, so that a datagram that is too long is not cut to a legal one.
        let mut datagram = [0; MAX_DATAGRAM_LEN + 1];
        // When the tracker was first asked since it last answered.
        let mut silent_since = None;
        loop {
            if self.transmit(socket).await && silent_since.is_none() {
                silent_since = Some(Instant::now());
            }
            let unanswered = self.report(address);
            if self.client.calls_under_way() == 0 {
                if unanswered {
                    return SocketEnd::NoTracker;
                }
                silent_since = None;
            }
            let failover = silent_since.filter(|_| self.addresses.len() > 1).map(|since| since + FAILOVER);
            let timeout = [self.client.next_timeout(), failover].into_iter().flatten().min();
            tokio::select! {
                received = socket.recv(&mut datagram) => match self.receive(received, &datagram) {
                    Ok(Received::Reply) => {
                        silent_since = None;
                        self.failed.retain(|&failed| failed != address);
                    }
                    Ok(Received::Other) => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return SocketEnd::NoTracker,
                    Err(_) => {}
                },
                job = jobs.recv(), if self.client.calls_under_way() < MAX_CALLS => match job {
                    Some(job) => self.start(job),
                    None => return SocketEnd::Done,
                },
                () = sleep_until(timeout.unwrap_or_else(Instant::now).into()), if timeout.is_some() => {
                    if failover.is_some_and(|failover| failover <= Instant::now()) {
                        tracing::debug!(endpoint = %self.endpoint, %address, "silent: the next address is tried");
                        return SocketEnd::NoTracker;
                    }
                }
            }
        }
    }

    fn start(&mut self, job: Job) {
        let id = self.client.start(job.call, Instant::now());
        self.waiting.insert(id, job.result);
    }

    /// Sends what is due. Returns whether anything was.
    async fn transmit(&mut self, socket: &UdpSocket) -> bool {
        let mut was_due = false;
        while let Some(request) = self.client.poll_transmit(Instant::now(), &mut self.rng) {
            was_due = true;
            let mut datagram = BytesMut::with_capacity(MAX_DATAGRAM_LEN);
            let sent = match encode_request(&request, &mut datagram) {
                Ok(()) => socket.send(&datagram).await.map(|_| ()),
                Err(error) => Err(io::Error::other(error)),
            };
            // A lost datagram is sent again.
            if let Err(error) = sent {
                tracing::debug!(endpoint = %self.endpoint, "cannot send: {error}");
            }
        }
        was_due
    }

    fn receive(&mut self, received: io::Result<usize>, datagram: &[u8]) -> io::Result<Received> {
        match received.map(|len| decode_reply(&datagram[..len])) {
            Ok(Ok(reply)) => {
                self.client.on_reply(reply, Instant::now(), &mut self.rng);
                Ok(Received::Reply)
            }
            Ok(Err(error)) => {
                tracing::debug!(endpoint = %self.endpoint, "dropped a datagram: {error}");
                Ok(Received::Other)
            }
            Err(error) => {
                tracing::debug!(endpoint = %self.endpoint, "{error}");
                Err(error)
            }
        }
    }

    /// There is no address to send to.
    fn fail_all(&mut self, error: &JobError) {
        self.client = Client::default();
        for result in mem::take(&mut self.waiting).into_values() {
            let _ = result.send(Err(error.clone()));
        }
    }

    /// Returns outcomes to their callers; true if a call was not answered.
    fn report(&mut self, address: SocketAddr) -> bool {
        let mut unanswered = false;
        while let Some((id, outcome)) = self.client.poll_outcome() {
            unanswered |= outcome == Err(CallError::Unanswered);
            if let Some(result) = self.waiting.remove(&id) {
                // A caller that went away needs no answer.
                let _ = result.send(outcome.map(|answer| (answer, address)).map_err(JobError::Call));
            }
        }
        unanswered
    }
}

/// A socket to the first of `addresses` for which one can be opened, and how many were skipped.
async fn open_first(
    addresses: &[SocketAddr],
    local: Option<IpAddr>,
) -> io::Result<(usize, (UdpSocket, SocketAddr))> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no suitable address");
    for (skipped, &address) in addresses.iter().enumerate() {
        match open(address, local).await {
            Ok(socket) => return Ok((skipped, (socket, address))),
            Err(error) => {
                tracing::debug!(%address, "cannot open a socket: {error}");
                last = error;
            }
        }
    }
    Err(last)
}

async fn open(address: SocketAddr, local: Option<IpAddr>) -> io::Result<UdpSocket> {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((local.unwrap_or(any), 0)).await?;
    socket.connect(address).await?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
