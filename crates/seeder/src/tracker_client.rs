//! The socket around [`proto::tracker::client`]: one task for each tracker.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use proto::{
    Endpoint,
    tracker::{
        MAX_DATAGRAM_LEN, Query,
        client::{Answer, Call, CallError, CallId, Client},
        codec::{decode_reply, encode_request},
        message::{Announce, Announced, Peers, Shares},
    },
};
use rand::rngs::StdRng;
use tokio::{
    net::{UdpSocket, lookup_host},
    sync::{mpsc, oneshot},
    time::sleep_until,
};
use tokio_util::task::TaskTracker;

/// Calls that wait for the task to take them.
const QUEUE_LEN: usize = 64;

/// Calls under way at a time; more wait in the queue.
const MAX_CALLS: usize = 256;

/// Addresses of one tracker name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Wait after the tracker's name could not be resolved or no socket be had.
const RESOLVE_BACK_OFF: Duration = Duration::from_secs(1);

/// A tracker that can be asked. Clones ask the same one.
#[derive(Debug, Clone)]
pub struct TrackerClient {
    endpoint: Arc<Endpoint>,
    calls: mpsc::Sender<Job>,
}

/// Why a tracker gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum TrackerError {
    /// It did not answer, or refused.
    #[error("tracker {endpoint}: {source}")]
    Call {
        /// The tracker.
        endpoint: Endpoint,
        /// What it said.
        source: CallError,
    },
    /// Its name leads nowhere, or there is no socket to reach it with.
    #[error("tracker {endpoint}: {source}")]
    Unreachable {
        /// The tracker.
        endpoint: Endpoint,
        /// Why.
        source: Arc<io::Error>,
    },
    /// The program is stopping.
    #[error("tracker {0}: stopping")]
    Stopping(Endpoint),
}

impl TrackerError {
    /// The tracker.
    pub fn endpoint(&self) -> &Endpoint {
        match self {
            TrackerError::Call { endpoint, .. }
            | TrackerError::Unreachable { endpoint, .. }
            | TrackerError::Stopping(endpoint) => endpoint,
        }
    }
}

struct Job {
    call: Call,
    result: JobResult,
}

/// Takes the answer, and the address at which the tracker was reached.
type JobResult = oneshot::Sender<Result<(Answer, SocketAddr), JobError>>;

enum JobError {
    Call(CallError),
    Unreachable(Arc<io::Error>),
}

impl TrackerClient {
    /// Starts the task that talks to `endpoint`, from the address `local` if one is given. It ends when every
    /// clone is dropped.
    pub fn spawn(endpoint: Endpoint, local: Option<IpAddr>, tasks: &TaskTracker) -> TrackerClient {
        let (calls, jobs) = mpsc::channel(QUEUE_LEN);
        let endpoint = Arc::new(endpoint);
        let worker = Worker {
            endpoint: Arc::clone(&endpoint),
            local,
            client: Client::default(),
            waiting: BTreeMap::new(),
            rng: rand::make_rng(),
            next_address: 0,
        };
        tasks.spawn(worker.run(jobs));
        TrackerClient { endpoint, calls }
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

    /// Asks for peers, and says at which address the tracker was reached.
    pub async fn peers(&self, query: Query) -> Result<(Peers, SocketAddr), TrackerError> {
        match self.call(Call::Lookup(query)).await? {
            (Answer::Peers(peers), address) => Ok((peers, address)),
            _ => Err(self.unexpected()),
        }
    }

    /// Asks for shares.
    pub async fn shares(&self, query: Query) -> Result<Shares, TrackerError> {
        match self.call(Call::Lookup(query)).await? {
            (Answer::Shares(shares), _) => Ok(shares),
            _ => Err(self.unexpected()),
        }
    }

    async fn call(&self, call: Call) -> Result<(Answer, SocketAddr), TrackerError> {
        let endpoint = || (*self.endpoint).clone();
        let (result, outcome) = oneshot::channel();
        self.calls.send(Job { call, result }).await.map_err(|_| TrackerError::Stopping(endpoint()))?;
        match outcome.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(JobError::Call(source))) => Err(TrackerError::Call { endpoint: endpoint(), source }),
            Ok(Err(JobError::Unreachable(source))) => {
                Err(TrackerError::Unreachable { endpoint: endpoint(), source })
            }
            Err(_) => Err(TrackerError::Stopping(endpoint())),
        }
    }

    fn unexpected(&self) -> TrackerError {
        TrackerError::Call { endpoint: (*self.endpoint).clone(), source: CallError::Unexpected }
    }
}

struct Worker {
    endpoint: Arc<Endpoint>,
    local: Option<IpAddr>,
    client: Client,
    waiting: BTreeMap<CallId, JobResult>,
    rng: StdRng,
    /// Which of the tracker's addresses to use: the next one each time one stays silent.
    next_address: usize,
}

/// Why a socket is given up.
enum SocketEnd {
    /// Nobody will ask any more.
    Done,
    /// The tracker did not answer there.
    Silent,
}

impl Worker {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.recv().await {
            match self.open_socket().await {
                Ok((socket, address)) => {
                    self.start(job);
                    if let SocketEnd::Done = self.drive(&socket, address, &mut jobs).await {
                        return;
                    }
                    self.next_address += 1;
                }
                Err(error) => {
                    tracing::debug!(endpoint = %self.endpoint, "cannot reach the tracker: {error}");
                    let _ = job.result.send(Err(JobError::Unreachable(Arc::new(error))));
                    tokio::time::sleep(RESOLVE_BACK_OFF).await;
                }
            }
        }
    }

    async fn open_socket(&self) -> io::Result<(UdpSocket, SocketAddr)> {
        let addresses: Vec<_> = lookup_host((self.endpoint.host.as_str(), self.endpoint.port))
            .await?
            .filter(|address| self.local.is_none_or(|local| local.is_ipv4() == address.is_ipv4()))
            .take(MAX_ADDRESSES)
            .collect();
        let Some(&address) = addresses.get(self.next_address % addresses.len().max(1)) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no suitable address"));
        };
        let any: IpAddr =
            if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((self.local.unwrap_or(any), 0)).await?;
        socket.connect(address).await?;
        Ok((socket, address))
    }

    /// Talks to the tracker at one address, until it stays silent there or nobody asks any more.
    async fn drive(
        &mut self,
        socket: &UdpSocket,
        address: SocketAddr,
        jobs: &mut mpsc::Receiver<Job>,
    ) -> SocketEnd {
        // One byte more than is legal, so that longer datagrams are not cut to legal ones.
        let mut datagram = [0; MAX_DATAGRAM_LEN + 1];
        loop {
            self.transmit(socket).await;
            let silent = self.report(address);
            if silent && self.client.calls_under_way() == 0 {
                return SocketEnd::Silent;
            }
            let timeout = self.client.next_timeout();
            tokio::select! {
                received = socket.recv(&mut datagram) => self.receive(received, &datagram),
                job = jobs.recv(), if self.client.calls_under_way() < MAX_CALLS => match job {
                    Some(job) => self.start(job),
                    None => return SocketEnd::Done,
                },
                () = sleep_until(timeout.unwrap_or_else(Instant::now).into()), if timeout.is_some() => {}
            }
        }
    }

    fn start(&mut self, job: Job) {
        let id = self.client.start(job.call, Instant::now());
        self.waiting.insert(id, job.result);
    }

    async fn transmit(&mut self, socket: &UdpSocket) {
        while let Some(request) = self.client.poll_transmit(Instant::now(), &mut self.rng) {
            let mut datagram = BytesMut::with_capacity(MAX_DATAGRAM_LEN);
            let sent = match encode_request(&request, &mut datagram) {
                Ok(()) => socket.send(&datagram).await.map(|_| ()),
                Err(error) => Err(io::Error::other(error)),
            };
            // A lost datagram is sent again, whoever lost it.
            if let Err(error) = sent {
                tracing::debug!(endpoint = %self.endpoint, "cannot send: {error}");
            }
        }
    }

    fn receive(&mut self, received: io::Result<usize>, datagram: &[u8]) {
        match received.map(|len| decode_reply(&datagram[..len])) {
            Ok(Ok(reply)) => self.client.on_reply(reply, Instant::now(), &mut self.rng),
            Ok(Err(error)) => tracing::debug!(endpoint = %self.endpoint, "dropped a datagram: {error}"),
            // "Connection refused": nobody listens now, but a tracker may be restarting. Retries go on.
            Err(error) => tracing::debug!(endpoint = %self.endpoint, "{error}"),
        }
    }

    /// Hands out what has an outcome; true if some call was not answered.
    fn report(&mut self, address: SocketAddr) -> bool {
        let mut silent = false;
        while let Some((id, outcome)) = self.client.poll_outcome() {
            silent |= outcome == Err(CallError::Unanswered);
            if let Some(result) = self.waiting.remove(&id) {
                // An asker that went away needs no answer.
                let _ = result.send(outcome.map(|answer| (answer, address)).map_err(JobError::Call));
            }
        }
        silent
    }
}
