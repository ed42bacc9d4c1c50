//! One socket of a tracker and the thread that serves it.

use std::{
    io,
    net::UdpSocket,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::rngs::StdRng;
use tokio::{io::Interest, sync::Notify, task::yield_now, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    datagrams::{Incoming, MAX_BATCHES, Outgoing},
    error::TrackerError,
    fleet::side::{FleetSide, Question},
    handler::{Handler, Swept},
    summaries::Summaries,
};

/// After this many failures with nothing received in between, the socket counts as broken and the tracker gives up.
const MAX_RECEIVE_FAILURES: u32 = 100;

/// Wait after a failure to receive, so that a broken socket does not keep a core busy.
const RECEIVE_FAILURE_PAUSE: Duration = Duration::from_millis(10);

/// What the workers of a tracker have in common.
pub(crate) struct Shared {
    handler: Mutex<Handler>,
    summaries: Summaries,
    /// Replies that the system did not accept.
    unsent: AtomicU64,
    /// Whether anybody is registered. It is written while the handler is locked.
    is_occupied: AtomicBool,
    occupancy: Notify,
    /// If this tracker is part of a fleet.
    pub(crate) fleet: Option<FleetSide>,
}

/// The task of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    Answer,
    /// One worker of a tracker also drops expired peers.
    AnswerAndSweep,
}

/// Serves one socket.
pub(crate) struct Worker {
    socket: UdpSocket,
    duty: Duty,
    shared: Arc<Shared>,
}

/// The state of a worker in its thread.
struct Work<'a> {
    worker: &'a Worker,
    incoming: Incoming,
    outgoing: Outgoing,
    rng: StdRng,
    receive_failures: u32,
}

impl Shared {
    pub(crate) fn new(handler: Handler, fleet: Option<FleetSide>) -> Shared {
        Shared {
            handler: Mutex::new(handler),
            summaries: Summaries::new(),
            unsent: AtomicU64::new(0),
            is_occupied: AtomicBool::new(false),
            occupancy: Notify::new(),
            fleet,
        }
    }

    /// Whether anybody is registered.
    pub(crate) fn is_occupied(&self) -> bool {
        self.is_occupied.load(Ordering::Relaxed)
    }

    /// Waits until [`Shared::is_occupied`] changes, from this call on or, if nobody waited, since it changed last.
    pub(crate) fn occupancy_changed(&self) -> impl Future<Output = ()> {
        self.occupancy.notified()
    }

    /// To be called before the lock of the handler is released.
    pub(crate) fn note_occupancy(&self, handler: &Handler) {
        let is_occupied = handler.stats().peers() > 0;
        if self.is_occupied.load(Ordering::Relaxed) != is_occupied {
            self.is_occupied.store(is_occupied, Ordering::Relaxed);
            self.occupancy.notify_one();
        }
    }

    pub(crate) fn handler(&self) -> MutexGuard<'_, Handler> {
        self.handler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replies that the system did not accept.
    pub(crate) fn unsent(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed)
    }

    /// Writes all counts to the log, with the reason `why`.
    pub(crate) fn log_summary(&self, why: &str) {
        let (counters, stats) = {
            let handler = self.handler();
            (handler.counters(), handler.stats())
        };
        tracing::info!(
            connects = counters.connects,
            announces = counters.announces,
            lookups = counters.lookups,
            tokens_refused = counters.tokens_refused,
            malformed = counters.malformed,
            withheld = counters.withheld,
            put_off = counters.put_off,
            not_allowed = counters.not_allowed,
            slowed = counters.slowed,
            silenced = counters.silenced,
            unsent = self.unsent(),
            shares = stats.shares,
            seeders = stats.seeders,
            leechers = stats.leechers,
            "{why}"
        );
        if let Some(fleet) = &self.fleet {
            fleet.counts.log();
        }
    }
}

impl Worker {
    /// `socket` must be non-blocking.
    pub(crate) fn new(socket: UdpSocket, duty: Duty, shared: Arc<Shared>) -> Worker {
        Worker { socket, duty, shared }
    }

    /// Answers, on this thread, until `stop` is cancelled or the socket breaks.
    pub(crate) fn run(&self, stop: &CancellationToken) -> Result<(), TrackerError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(TrackerError::Serve)?;
        let mut work = Work {
            worker: self,
            incoming: Incoming::new(),
            outgoing: Outgoing::new(),
            rng: rand::make_rng(),
            receive_failures: 0,
        };
        runtime.block_on(work.serve(stop))
    }
}

impl Work<'_> {
    async fn serve(&mut self, stop: &CancellationToken) -> Result<(), TrackerError> {
        // The runtime only watches this handle; datagrams go through the other.
        let watched = self.worker.socket.try_clone().and_then(tokio::net::UdpSocket::from_std);
        let watched = watched.map_err(TrackerError::Serve)?;
        let sweep = sleep(Duration::ZERO);
        tokio::pin!(sweep);
        let mut swept = Swept::Until(Instant::now());
        loop {
            if let Swept::Until(next) = swept
                && sweep.deadline() != next.into()
            {
                sweep.as_mut().reset(next.into());
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = &mut sweep, if self.worker.duty == Duty::AnswerAndSweep && swept != Swept::InPart => {
                    swept = self.sweep();
                }
                // Requests go first. A timer would take a millisecond for each step.
                () = yield_now(), if swept == Swept::InPart => swept = self.sweep(),
                ready = watched.readable() => {
                    let received = ready.and_then(|()| self.answer_batches(&watched));
                    if let Err(error) = received {
                        self.endure(error).await?;
                    }
                }
            }
        }
    }

    /// Drops some expired peers.
    fn sweep(&self) -> Swept {
        let now = Instant::now();
        let (swept, journal) = {
            let shared = &self.worker.shared;
            let mut handler = shared.handler();
            let swept = handler.sweep(now);
            shared.note_occupancy(&handler);
            (swept, handler.take_journal())
        };
        journal.write();
        swept
    }

    /// Answers the datagrams that have arrived, up to [`MAX_BATCHES`].
    fn answer_batches(&mut self, watched: &tokio::net::UdpSocket) -> io::Result<()> {
        for _ in 0..MAX_BATCHES {
            let receive = || self.incoming.receive(&self.worker.socket);
            match watched.try_io(Interest::READABLE, receive) {
                Ok(()) => {
                    self.receive_failures = 0;
                    self.answer();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Answers the batch that has just arrived.
    fn answer(&mut self) {
        let shared = &self.worker.shared;
        let mut handler = shared.handler();
        handler.preload(self.incoming.datagrams().map(|(_, datagram)| datagram));
        // One time for the whole batch, which takes less than a millisecond.
        let now = Instant::now();
        for (source, datagram) in self.incoming.datagrams() {
            let handle = |replies: &mut _| handler.handle(datagram, source.ip(), now, &mut self.rng, replies);
            self.outgoing.push(source, handle);
            if let Some(fleet) = &shared.fleet
                && let Some(infohash) = handler.fleet().and_then(|(seam, _)| seam.take_waiting())
            {
                let question = Question { source, datagram: datagram.into(), infohash, at: now };
                if fleet.questions.try_send(question).is_err() {
                    let handle = |replies: &mut _| {
                        handler.handle_at_last(datagram, source.ip(), now, &mut self.rng, replies)
                    };
                    self.outgoing.push(source, handle);
                }
            }
        }
        if let Some(fleet) = &shared.fleet
            && handler.fleet().is_some_and(|(seam, _)| seam.has_changes())
        {
            fleet.changed.notify_one();
        }
        let journal = handler.take_journal();
        shared.note_occupancy(&handler);
        drop(handler);
        journal.write();
        let unsent = self.outgoing.send(&self.worker.socket);
        if unsent > 0 {
            shared.unsent.fetch_add(unsent, Ordering::Relaxed);
        }
        if shared.summaries.is_due(now) {
            shared.log_summary("serving");
        }
    }

    /// A failure to receive usually reports that an earlier reply reached nobody, which is no reason to stop.
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
}
