//! The task that connects a tracker to the store of its fleet.
//!
//! It has a thread and a runtime of its own. Workers hand it two things and never wait for it: that the handler has noted changes, and
//! lookups that wait for a share. It hands them nothing: it takes changes and adds registrations under the handler's lock, some at a time,
//! and answers the waiting lookups itself.
//!
//! While the store is away, changes wait in the [`Outbox`] and no lookup waits. When it is back, everything that is
//! known here is written back, and everything that it has is read.

mod questions;
mod session;

use std::{
    net::UdpSocket,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rand::{RngExt, rngs::StdRng};
use tokio::{sync::mpsc, time::sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    feed::TrackerId,
    outbox::Outbox,
    redis::{Store, StoreError, Target},
    secret::FleetSecret,
    side::{FleetCounts, FleetSide, Question},
};
use crate::worker::Shared;
use questions::Answerer;
use session::{End, Session};

/// Wait before another try to connect: at first, and at most. A random part of it is left out, so trackers do not come all at once.
const MIN_BACK_OFF: Duration = Duration::from_millis(100);
const MAX_BACK_OFF: Duration = Duration::from_secs(3);

/// Time between two looks for changes while the store is away.
const COLLECT_EVERY: Duration = Duration::from_millis(50);

/// The task.
pub(crate) struct Link {
    target: Target,
    id: TrackerId,
    secret: FleetSecret,
    outbox: Outbox,
    answerer: Answerer,
    questions: mpsc::Receiver<Question>,
    rng: StdRng,
    /// Whether everybody is known, because the store was read once.
    has_read: bool,
}

impl Link {
    /// `socket` is one that the workers answer from.
    pub(crate) fn new(target: Target, questions: mpsc::Receiver<Question>, socket: UdpSocket) -> Link {
        let mut rng: StdRng = rand::make_rng();
        Link {
            target,
            id: TrackerId(rng.random()),
            secret: FleetSecret::random(&mut rng),
            outbox: Outbox::default(),
            answerer: Answerer::new(socket),
            questions,
            rng,
            has_read: false,
        }
    }

    /// Finds out whether the store can be used at all. A store that only does not answer now is no failure.
    pub(crate) async fn try_out(target: &Target) -> Result<(), StoreError> {
        match Store::connect(target).await {
            Err(error @ StoreError::Unusable(_)) => Err(error),
            Err(error) => {
                tracing::warn!(
                    "the registry at {target} cannot be reached: {error}. Going on without it, and trying again"
                );
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// Works on this thread until `stop`.
    pub(crate) fn run(mut self, shared: &Arc<Shared>, stop: &CancellationToken) {
        let Some(side) = &shared.fleet else { return };
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!("the registry cannot be used: {error}"),
        };
        runtime.block_on(self.work(shared, side, stop));
    }

    async fn work(&mut self, shared: &Arc<Shared>, side: &FleetSide, stop: &CancellationToken) {
        let mut back_off = MIN_BACK_OFF;
        let mut is_reported = false;
        loop {
            let result = tokio::select! {
                () = stop.cancelled() => return,
                session = Session::open(self, shared, side) => session,
            };
            let error = match result {
                Ok(session) => {
                    tracing::info!("connected to the registry at {}", self.target);
                    (back_off, is_reported) = (MIN_BACK_OFF, false);
                    let end = session.run(self, stop).await;
                    self.disconnect(shared, side);
                    match end {
                        End::Stopped => return,
                        End::Failed(error) => {
                            FleetCounts::add(&side.counts.lost, 1);
                            error
                        }
                    }
                }
                Err(error) => error,
            };
            side.first_read.notify_one();
            if is_reported {
                tracing::debug!("the registry at {}: {error}", self.target);
            } else {
                tracing::warn!(
                    "the registry at {} is lost: {error}. Going on with what is known here until it is back",
                    self.target
                );
                is_reported = true;
            }
            let until = Instant::now() + back_off.mul_f64(self.rng.random_range(0.5..=1.0));
            back_off = (back_off * 2).min(MAX_BACK_OFF);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wait(shared, side, until) => {}
            }
        }
    }

    /// From now on no lookup waits, and those that do are answered.
    fn disconnect(&mut self, shared: &Shared, side: &FleetSide) {
        side.set_connected(false);
        if let Some((seam, _)) = shared.handler().fleet() {
            seam.let_wait(false);
        }
        // Workers put lookups in under the lock of the handler, so none comes after this.
        while let Ok(question) = self.questions.try_recv() {
            self.answerer.answer(shared, &[question], &mut self.rng);
        }
    }

    /// Collects changes until `until`.
    async fn wait(&mut self, shared: &Shared, side: &FleetSide, until: Instant) {
        while Instant::now() < until {
            self.collect(shared, side);
            sleep_until(until.min(Instant::now() + COLLECT_EVERY).into()).await;
        }
    }

    /// Takes what the handler has noted.
    fn collect(&mut self, shared: &Shared, side: &FleetSide) {
        let Some((changes, dropped)) = shared.handler().fleet().map(|(seam, _)| seam.take_changes()) else {
            return;
        };
        changes.into_iter().for_each(|change| self.outbox.push(change));
        let dropped = dropped.saturating_add(self.outbox.take_dropped());
        side.counts.dropped.fetch_add(dropped, Ordering::Relaxed);
        side.counts.queued.store(self.outbox.len() as u64, Ordering::Relaxed);
    }
}
