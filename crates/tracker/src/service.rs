//! The tracker's UDP socket and clock.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use proto::tracker::{DEFAULT_PORT, MAX_DATAGRAM_LEN};
use rand::rngs::StdRng;
use startup::{ListenError, asked_address, listen_udp};
use tokio::{
    net::UdpSocket,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    handler::{Handler, SWEEP_EVERY},
    registry::{Limits, Rules},
};

/// Bytes of receive buffer to ask for: announces of some 10,000 peers that all come back at once. The kernel
/// grants what `net.core.rmem_max` allows.
const RECEIVE_BUFFER_LEN: usize = 4 * 1024 * 1024;

/// The socket is broken, and the tracker gives up, after this many failures with nothing received in between.
const MAX_RECEIVE_FAILURES: u32 = 100;

/// Wait after a failure to receive, so that a broken socket does not keep a core busy.
const RECEIVE_FAILURE_PAUSE: Duration = Duration::from_millis(10);

/// How to run a tracker.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on; `None` for every address of this host, IPv6 (where there is any) and IPv4.
    pub bind: Option<IpAddr>,
    /// UDP port; 0 for any that is free.
    pub port: u16,
    /// Time between two announces of a peer, as told to it (rounded up to seconds).
    pub heartbeat: Duration,
    /// A peer is gone this long after its last announce.
    pub expire: Duration,
    /// How much to hold.
    pub limits: Limits,
}

/// Why a tracker cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrackerError {
    /// The port cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The socket broke while in use.
    #[error("cannot receive any more")]
    Receive(#[source] io::Error),
}

/// A tracker that listens but does not answer yet: see [`Tracker::run`].
pub struct Tracker {
    socket: UdpSocket,
    local_addr: SocketAddr,
    handler: Handler,
    rng: StdRng,
    /// Replies that the system did not take.
    unsent: u64,
    receive_failures: u32,
}

impl Default for Config {
    fn default() -> Config {
        let Rules { heartbeat, expire, limits } = Rules::default();
        Config { bind: None, port: DEFAULT_PORT, heartbeat, expire, limits }
    }
}

impl Config {
    /// The address that this asks for. `0.0.0.0` stands for every address, those of IPv6 too: that is how
    /// users know it.
    pub fn address(&self) -> SocketAddr {
        asked_address(self.bind, self.port)
    }
}

impl Tracker {
    /// Takes the port. From here on datagrams queue up for [`Tracker::run`].
    pub async fn bind(config: Config) -> Result<Tracker, TrackerError> {
        let other = |source| ListenError::Other { address: config.address(), source };
        let socket = listen_udp(config.bind, config.port, RECEIVE_BUFFER_LEN)?;
        let socket = UdpSocket::from_std(socket).map_err(other)?;
        let local_addr = socket.local_addr().map_err(other)?;
        let mut rng: StdRng = rand::make_rng();
        let Config { heartbeat, expire, limits, .. } = config;
        let handler = Handler::new(Rules { heartbeat, expire, limits }, Instant::now(), &mut rng);
        Ok(Tracker { socket, local_addr, handler, rng, unsent: 0, receive_failures: 0 })
    }

    /// Where the tracker listens. `[::]` takes IPv4 too.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers until `shutdown` is cancelled or the socket breaks.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), TrackerError> {
        let result = self.serve(&shutdown).await;
        self.log_summary();
        result
    }

    async fn serve(&mut self, shutdown: &CancellationToken) -> Result<(), TrackerError> {
        // One byte more than a datagram may have, so that a larger one does not pass as a cut one.
        let mut datagram = [0; MAX_DATAGRAM_LEN + 1];
        let mut reply = BytesMut::with_capacity(MAX_DATAGRAM_LEN);
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = sweep.tick() => self.handler.sweep(Instant::now()),
                received = self.socket.recv_from(&mut datagram) => match received {
                    Ok((len, source)) => {
                        self.receive_failures = 0;
                        self.answer(&datagram[..len], source, &mut reply);
                    }
                    Err(error) => self.endure(error).await?,
                },
            }
        }
    }

    fn answer(&mut self, datagram: &[u8], source: SocketAddr, buffer: &mut BytesMut) {
        let now = Instant::now();
        let Some(reply) = self.handler.handle(datagram, source.ip(), now, &mut self.rng, buffer) else {
            return;
        };
        // A full send buffer may stay full for seconds (replies to a neighbour that does not exist), so a
        // reply that has no room is lost like any datagram: whoever asked asks again.
        if let Err(error) = self.socket.try_send_to(reply, source) {
            tracing::trace!(%source, "no reply: {error}");
            self.unsent += 1;
        }
    }

    /// A failure to receive is mostly the echo of an earlier reply that reached nobody, and no reason to stop.
    async fn endure(&mut self, error: io::Error) -> Result<(), TrackerError> {
        tracing::debug!("cannot receive: {error}");
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::Interrupted
        ) {
            return Ok(());
        }
        self.receive_failures += 1;
        if self.receive_failures >= MAX_RECEIVE_FAILURES {
            return Err(TrackerError::Receive(error));
        }
        sleep(RECEIVE_FAILURE_PAUSE).await;
        Ok(())
    }

    fn log_summary(&self) {
        let counters = self.handler.counters();
        let stats = self.handler.stats();
        tracing::info!(
            connects = counters.connects,
            announces = counters.announces,
            lookups = counters.lookups,
            tokens_refused = counters.tokens_refused,
            malformed = counters.malformed,
            withheld = counters.withheld,
            put_off = counters.put_off,
            unsent = self.unsent,
            shares = stats.shares,
            seeders = stats.seeders,
            leechers = stats.leechers,
            "stopped"
        );
    }
}
