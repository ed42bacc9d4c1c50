//! The tracker's UDP sockets, threads and clock.
//!
//! Each socket has a thread with a runtime of its own, because passing datagrams between the threads of a shared runtime
//! costs more than handling them. All share one [`Handler`] under a lock that a thread takes once for each batch. So every
//! socket at once sees what another has registered, limits and secrets hold for all of them, and nothing has to be kept in
//! step. The lock is held for an eighth of the time of a batch; most of the rest is the kernel's. So threads on some eight
//! cores should rarely wait for each other.

use std::{
    io, iter,
    net::{IpAddr, SocketAddr, UdpSocket},
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use listen::{ListenError, asked_address, listen_udp, receive_buffer_len};
use proto::tracker::DEFAULT_PORT;
use rand::rngs::StdRng;
#[cfg(feature = "registry")]
use std::time::{SystemTime, UNIX_EPOCH};
#[cfg(feature = "registry")]
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Level;

#[cfg(feature = "registry")]
use crate::fleet::{
    link::Link,
    redis::Target,
    side::{FleetSide, Question},
    time::{StoreClock, StoreTime},
};
use crate::{
    admission::Admission,
    control::Control,
    error::TrackerError,
    handler::Handler,
    marker::Marker,
    registry::{FREQUENT, Limits, Past, Rules},
    view::View,
    worker::{Duty, Shared, Worker},
};

/// Default size in bytes of the receive buffer of a socket: announces of some 10,000 peers that come back at the same moment. Linux
/// grants at most `net.core.rmem_max`.
pub const DEFAULT_RECEIVE_BUFFER_LEN: usize = 4 * 1024 * 1024;

/// Maximum number of sockets: with more, their threads would mostly wait for each other.
pub const MAX_SOCKETS: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// How to run a tracker.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on; `None`, the default, for every address of this host, IPv6 (where there is any) and IPv4.
    pub bind: Option<IpAddr>,
    /// UDP port, by default 6020; 0 for any free port.
    pub port: u16,
    /// Sockets on that port, at most [`MAX_SOCKETS`]; each has a thread. By default one; one for each core is best where the system
    /// distributes datagrams among them, as Linux does. Elsewhere more than one does not help.
    pub sockets: NonZeroUsize,
    /// Time between two announces of a peer, as the tracker requests it (rounded up to seconds). By default 30 s.
    pub heartbeat: Duration,
    /// A peer is gone this long after its last announce. By default 90 s.
    pub expire: Duration,
    /// Maximum numbers of registrations.
    pub limits: Limits,
    /// Maximum answers a second to one IPv4 address, or one IPv6 network (/64; four times as many to a /48); `None` for no limit. A
    /// lookup counts for more than its part when its answers are large: 200 bytes are one answer. By default 10,000.
    pub rate: Option<NonZeroU32>,
    /// Bytes a second that lookups may bring to such an address. By default 200 for each answer of `rate`.
    pub byte_rate: Option<NonZeroU32>,
    /// Which shares are allowed. By default all are. [`Control::set_admission`] changes it.
    pub admission: Option<Admission>,
    /// Bytes of the receive buffer to request for each socket: [`DEFAULT_RECEIVE_BUFFER_LEN`] by default.
    pub receive_buffer_len: usize,
    /// A file that exists while the tracker has peers, so that it knows after a restart whether some may come back. Until they have,
    /// leechers that ask by name wait. By default none: then the tracker counts as one that had no peers before.
    pub marker: Option<PathBuf>,
    /// The store of the fleet that this tracker is part of. By default it is part of none.
    #[cfg(feature = "registry")]
    pub registry: Option<Target>,
}

/// A tracker that listens but does not answer yet: see [`Tracker::run`].
pub struct Tracker {
    sockets: Vec<UdpSocket>,
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    marker: Option<Marker>,
    /// The store, and the lookups that wait for it.
    #[cfg(feature = "registry")]
    registry: Option<(Target, mpsc::Receiver<Question>)>,
}

impl Default for Config {
    fn default() -> Config {
        let Rules { heartbeat, expire, limits, past: _, rate, byte_rate } = Rules::default();
        let (bind, port, sockets, marker) = (None, DEFAULT_PORT, NonZeroUsize::MIN, None);
        Config {
            bind,
            port,
            sockets,
            heartbeat,
            expire,
            limits,
            rate,
            byte_rate,
            admission: None,
            receive_buffer_len: DEFAULT_RECEIVE_BUFFER_LEN,
            marker,
            #[cfg(feature = "registry")]
            registry: None,
        }
    }
}

/// Before a tracker of a fleet answers, it reads the store, for this long at most. Otherwise its first answers would lack what others
/// know.
#[cfg(feature = "registry")]
const FIRST_READ_TIME: Duration = Duration::from_secs(1);

impl Config {
    /// The address to listen on. `[::]` stands for every address, those of IPv4 too.
    pub fn address(&self) -> SocketAddr {
        asked_address(self.bind, self.port)
    }
}

impl Tracker {
    /// Takes the port. From now on datagrams wait for [`Tracker::run`].
    pub async fn bind(config: Config) -> Result<Tracker, TrackerError> {
        #[cfg(feature = "registry")]
        if let Some(target) = &config.registry {
            Link::try_out(target)
                .await
                .map_err(|error| TrackerError::Registry { target: target.to_string(), error })?;
        }
        let other = |error| ListenError::Other { address: config.address(), error };
        let count = config.sockets.min(MAX_SOCKETS);
        let sockets = listen_udp(config.bind, config.port, config.receive_buffer_len, count)?;
        let first = sockets.first().ok_or_else(|| other(io::ErrorKind::NotFound.into()))?;
        let local_addr = first.local_addr().map_err(other)?;
        #[cfg(feature = "registry")]
        let registry = config.registry;
        let Config { heartbeat, expire, limits, rate, byte_rate, marker, admission, .. } = config;
        let now = Instant::now();
        let mut rules = Rules { heartbeat, expire, limits, past: Past::NoPeers, rate, byte_rate };
        let marker = marker.map(|path| {
            let (marker, past) = Marker::open(path, now + rules.settles_after());
            rules.past = past;
            marker
        });
        let mut handler = Handler::new(rules, now, &mut rand::make_rng::<StdRng>());
        // Nobody is registered yet.
        let _ = handler.set_admission(admission.map(Arc::new));
        if tracing::enabled!(target: FREQUENT, Level::DEBUG) {
            handler.keep_journal();
        }
        #[cfg(feature = "registry")]
        let (side, registry) = match registry {
            Some(target) => {
                // Until the store has been asked, this host's own calendar has to do.
                handler.join_fleet(StoreClock::new(now, calendar()));
                let (side, questions) = FleetSide::new();
                (Some(side), Some((target, questions)))
            }
            None => (None, None),
        };
        #[cfg(not(feature = "registry"))]
        let side = None;
        Ok(Tracker {
            sockets,
            local_addr,
            shared: Arc::new(Shared::new(handler, side)),
            marker,
            #[cfg(feature = "registry")]
            registry,
        })
    }

    /// The address that the tracker listens on. `[::]` includes IPv4.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What an operator may change of it, also while it runs.
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.shared))
    }

    /// Bytes that the receive buffer of each socket has room for. The system may have granted fewer than were requested.
    pub fn receive_buffer_len(&self) -> io::Result<usize> {
        let mut lens = self.sockets.iter().map(receive_buffer_len);
        lens.try_fold(usize::MAX, |least, len| Ok(least.min(len?)))
    }

    /// What an operator may see of it, also while it runs.
    pub fn view(&self) -> View {
        View::new(Arc::clone(&self.shared), &self.sockets)
    }

    /// Answers until `shutdown` is cancelled or a socket breaks. No thread is left when it returns.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), TrackerError> {
        let shared = self.shared;
        #[cfg(feature = "registry")]
        let link = match self.registry.zip(self.sockets.first()) {
            Some(((target, questions), socket)) => {
                let socket = socket.try_clone().map_err(TrackerError::Serve)?;
                Some(Link::new(target, questions, socket))
            }
            None => None,
        };
        // If the caller drops this future, the threads end too.
        let stop = shutdown.child_token();
        let _stopped = stop.clone().drop_guard();
        let mut workers = JoinSet::new();
        #[cfg(feature = "registry")]
        if let Some(link) = link {
            let (shared, stop) = (Arc::clone(&shared), stop.clone());
            workers.spawn_blocking(move || {
                link.run(&shared, &stop);
                Ok(())
            });
        }
        #[cfg(feature = "registry")]
        if let Some(side) = &shared.fleet {
            // Meanwhile requests wait in the sockets.
            tokio::select! {
                () = side.first_read.notified() => {}
                () = tokio::time::sleep(FIRST_READ_TIME) => {}
                () = stop.cancelled() => {}
            }
        }
        let duties = [Duty::AnswerAndSweep].into_iter().chain(iter::repeat(Duty::Answer));
        for (socket, duty) in self.sockets.into_iter().zip(duties) {
            let worker = Worker::new(socket, duty, Arc::clone(&shared));
            let stop = stop.clone();
            workers.spawn_blocking(move || worker.run(&stop));
        }
        let marker = self.marker;
        let keeping = async {
            match marker {
                Some(marker) => Some(marker.keep(&shared, &stop).await),
                None => None,
            }
        };
        let (result, marker) = tokio::join!(ended(workers, &stop), keeping);
        if let Some(marker) = marker {
            marker.close(shared.is_occupied()).await;
        }
        shared.log_summary("stopped");
        result
    }
}

/// What this host takes for the time.
#[cfg(feature = "registry")]
fn calendar() -> StoreTime {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    StoreTime::default().plus(since_1970)
}

/// Waits until all workers have ended. If one fails, the others end too.
async fn ended(
    mut workers: JoinSet<Result<(), TrackerError>>,
    stop: &CancellationToken,
) -> Result<(), TrackerError> {
    let mut result = Ok(());
    while let Some(ended) = workers.join_next().await {
        let ended = ended.unwrap_or_else(|error| Err(TrackerError::Serve(error.into())));
        if ended.is_err() && result.is_ok() {
            stop.cancel();
            result = ended;
        }
    }
    // If they all ended well, nothing is left to do either.
    stop.cancel();
    result
}
