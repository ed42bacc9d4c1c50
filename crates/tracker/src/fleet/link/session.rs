//! One connection to the store, from its beginning to its end.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use proto::InfoHash;
use tokio::{task::JoinSet, time::sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Link, questions::Waiting};
use crate::{
    fleet::{
        feed::{self, Change},
        layout::Bucket,
        outbox::MAX_BATCH,
        record::Record,
        redis::{Check, Cursor, Feed, Lasting, Message, Store, StoreError},
        secret::FleetSecret,
        side::{FleetCounts, FleetSide, Question},
        time::{StoreClock, StoreTime},
    },
    worker::Shared,
};

/// Minimum time between the beginnings of two batches. With [`MAX_BATCH`] it bounds what this tracker can make the store do: 51,200 changes
/// a second. And with little to write, batches are not too small.
const BATCH_PAUSE: Duration = Duration::from_millis(10);

/// Wait after the store refused a batch because it is full.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// Time between two checks of the store: that it is there, what time it is, and that it is not empty.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// A feed on which even this tracker's own checks do not arrive for this long is broken.
const MAX_SILENCE: Duration = Duration::from_secs(5);

/// Shares that are read at the same time for lookups that wait.
const MAX_READS: usize = 64;

/// Registrations that are taken in under the lock at a time: a tenth of a millisecond.
const TAKEN_AT_ONCE: usize = 64;

/// Time for the last batch when the tracker stops.
const LAST_BATCH_TIME: Duration = Duration::from_millis(500);

/// A connection.
pub(super) struct Session<'a> {
    shared: &'a Arc<Shared>,
    side: &'a FleetSide,
    store: Store,
    feed: Feed,
    clock: StoreClock,
    /// Since when the store has the registrations of the fleet.
    since: StoreTime,
    expire: Duration,
    jobs: JoinSet<Done>,
    /// Whether the handler has noted changes that are not in the outbox yet.
    is_noted: bool,
    is_writing: bool,
    is_checking: bool,
    write_after: Instant,
    check_at: Instant,
    heard_at: Instant,
    waiting: Waiting,
    reads: usize,
    /// Where the scan of all shares is, unless it is over.
    scan: Option<Cursor>,
    is_scanning: bool,
    /// The next share of the registry to write back.
    walk: Option<usize>,
    is_full: bool,
}

/// Why a session is over.
pub(super) enum End {
    Stopped,
    Failed(StoreError),
}

/// What the store has done.
enum Done {
    Wrote(Result<(), StoreError>),
    Read(InfoHash, Result<Vec<Record>, StoreError>),
    Scanned(Result<(Vec<Record>, Option<Cursor>), StoreError>),
    Checked(Instant, Result<Check, StoreError>),
}

impl<'a> Session<'a> {
    /// Connects and subscribes, and has the tracker use the time and the secret of the fleet.
    pub(super) async fn open(
        link: &mut Link,
        shared: &'a Arc<Shared>,
        side: &'a FleetSide,
    ) -> Result<Session<'a>, StoreError> {
        let mut store = Store::connect(&link.target).await?;
        // First, so that nothing is missed between reading and listening.
        let feed = Store::subscribe(&link.target).await?;
        let check = store.check(link.id, &link.secret).await?;
        let now = Instant::now();
        let own_ip = link.target.own_ip().await;
        let mut session = Session {
            shared,
            side,
            store,
            feed,
            clock: StoreClock::new(now, check.now),
            since: check.since,
            expire: Duration::ZERO,
            jobs: JoinSet::new(),
            is_noted: true,
            is_writing: false,
            is_checking: false,
            write_after: now,
            check_at: now + CHECK_EVERY,
            heard_at: now,
            waiting: Waiting::default(),
            reads: 0,
            scan: Some(Cursor::default()),
            is_scanning: false,
            walk: Some(0),
            is_full: false,
        };
        session.adopt(link, now, &check);
        let mut handler = shared.handler();
        if let Some((seam, registry)) = handler.fleet() {
            (_, session.expire) = registry.times();
            if let Some(ip) = own_ip {
                seam.set_own_ip(ip);
            }
            seam.let_wait(true);
        }
        drop(handler);
        side.set_connected(true);
        Ok(session)
    }

    /// Works until `stop` or a failure.
    pub(super) async fn run(mut self, link: &mut Link, stop: &CancellationToken) -> End {
        let end = loop {
            self.begin(link);
            let timer = self.next_timer(link);
            let result = tokio::select! {
                () = stop.cancelled() => break End::Stopped,
                message = self.feed.next() => self.heard(link, message),
                Some(done) = self.jobs.join_next() => match done {
                    Ok(done) => self.finish(link, done),
                    Err(error) => Err(StoreError::Lost(error.to_string())),
                },
                Some(question) = link.questions.recv() => {
                    self.ask(question, &link.secret);
                    Ok(())
                }
                () = self.side.changed.notified(), if !self.is_noted => {
                    self.is_noted = true;
                    Ok(())
                }
                () = sleep_until(timer.into()) => self.tick(link),
            };
            if let Err(error) = result {
                break End::Failed(error);
            }
        };
        self.jobs.abort_all();
        if self.is_writing {
            link.outbox.failed();
        }
        let waiting = self.waiting.take_all();
        link.answerer.answer(self.shared, &waiting, &mut link.rng);
        if let End::Stopped = end {
            let _ = tokio::time::timeout(LAST_BATCH_TIME, self.write_rest(link)).await;
        }
        end
    }

    /// Begins what is due.
    fn begin(&mut self, link: &mut Link) {
        let now = Instant::now();
        if !self.is_writing && now >= self.write_after {
            self.is_noted = false;
            link.collect(self.shared, self.side);
            self.write_back(link, now);
            let batch = link.outbox.begin();
            if !batch.is_empty() {
                self.is_writing = true;
                self.write_after = now + BATCH_PAUSE;
                let (mut store, from, lasting) = (self.store.clone(), link.id, self.lasting(link, now));
                self.jobs.spawn(async move { Done::Wrote(store.write(from, &batch, &lasting).await) });
            }
        }
        if let Some(cursor) = self.scan.filter(|_| !self.is_scanning) {
            self.is_scanning = true;
            let (mut store, store_now) = (self.store.clone(), self.clock.read(now));
            self.jobs.spawn(async move { Done::Scanned(store.scan(cursor, store_now).await) });
        }
        if !self.is_checking && now >= self.check_at {
            self.is_checking = true;
            let (mut store, from, secret) = (self.store.clone(), link.id, link.secret.clone());
            self.jobs.spawn(async move { Done::Checked(now, store.check(from, &secret).await) });
        }
    }

    fn lasting(&self, link: &Link, now: Instant) -> Lasting {
        Lasting { secret: link.secret.clone(), expire: self.expire, now: self.clock.read(now) }
    }

    fn next_timer(&self, link: &Link) -> Instant {
        let has_more = self.is_noted || self.walk.is_some() || !link.outbox.is_empty();
        let writes = (has_more && !self.is_writing).then_some(self.write_after);
        let checks = (!self.is_checking).then_some(self.check_at);
        let timers = [writes, checks, self.waiting.next_due(), Some(self.heard_at + MAX_SILENCE)];
        timers.into_iter().flatten().min().unwrap_or(self.check_at)
    }

    /// Puts some of what is known here into the outbox, if everything is to be written back and there is room.
    fn write_back(&mut self, link: &mut Link, now: Instant) {
        while let Some(share) = self.walk
            && link.outbox.len() < MAX_BATCH
        {
            let mut handler = self.shared.handler();
            let Some((seam, registry)) = handler.fleet() else { return };
            let known = seam.export(registry, share, now, |change| link.outbox.push(change));
            self.walk = known.map(|_| share + 1);
        }
    }

    /// A lookup waits for the store.
    fn ask(&mut self, question: Question, secret: &FleetSecret) {
        FleetCounts::add(&self.side.counts.waited, 1);
        let infohash = question.infohash;
        if self.waiting.push(question) && self.reads < MAX_READS {
            self.reads += 1;
            let (mut store, now) = (self.store.clone(), self.clock.read(Instant::now()));
            let bucket = Bucket::of(&infohash, secret);
            self.jobs.spawn(async move { Done::Read(infohash, store.read(bucket, now).await) });
        }
    }

    fn tick(&mut self, link: &mut Link) -> Result<(), StoreError> {
        let now = Instant::now();
        while let Some(questions) = self.waiting.take_due(now) {
            FleetCounts::add(&self.side.counts.late, questions.len());
            link.answerer.answer(self.shared, &questions, &mut link.rng);
        }
        if now >= self.heard_at + MAX_SILENCE {
            return Err(StoreError::Lost("nothing is published any more".to_owned()));
        }
        Ok(())
    }

    /// Another tracker, or this one, has published something.
    fn heard(&mut self, link: &mut Link, message: Option<Message>) -> Result<(), StoreError> {
        let message = message.ok_or_else(|| StoreError::Lost("the connection is closed".to_owned()))?;
        self.heard_at = Instant::now();
        if let Some((from, changes)) = feed::decode(message.bytes())
            && from != link.id
        {
            let changes: Vec<Change> = changes.collect();
            changes.iter().for_each(|change| link.outbox.withdraw(change));
            self.take_in(&changes);
        }
        Ok(())
    }

    fn finish(&mut self, link: &mut Link, done: Done) -> Result<(), StoreError> {
        match done {
            Done::Wrote(result) => {
                self.is_writing = false;
                self.wrote(link, result)
            }
            Done::Read(infohash, result) => {
                self.reads -= 1;
                // Even a failure is an answer to those who wait.
                let result = result.map(|records| self.take_in(&present(records)));
                let questions = self.waiting.take(&infohash);
                link.answerer.answer(self.shared, &questions, &mut link.rng);
                result
            }
            Done::Scanned(result) => {
                self.is_scanning = false;
                let (records, next) = result?;
                self.take_in(&present(records));
                self.scan = next;
                if next.is_none() {
                    self.settle(link);
                }
                Ok(())
            }
            Done::Checked(asked_at, result) => {
                self.is_checking = false;
                let now = Instant::now();
                self.check_at = now + CHECK_EVERY;
                // The store's clock was read at some time between the two.
                let at = asked_at + now.saturating_duration_since(asked_at) / 2;
                self.adopt(link, at, &result?);
                Ok(())
            }
        }
    }

    fn wrote(&mut self, link: &mut Link, result: Result<(), StoreError>) -> Result<(), StoreError> {
        match result {
            Ok(()) => {
                self.is_full = false;
                FleetCounts::add(&self.side.counts.written, link.outbox.in_flight());
                link.outbox.arrived();
                Ok(())
            }
            Err(StoreError::Full(error)) => {
                if !self.is_full {
                    tracing::warn!(
                        "the registry is full: {error}. Trackers still learn of changes from each other"
                    );
                }
                self.is_full = true;
                link.outbox.failed();
                self.write_after = Instant::now() + FULL_PAUSE;
                Ok(())
            }
            Err(error) => {
                link.outbox.failed();
                Err(error)
            }
        }
    }

    /// Uses what the store says about time and secret. If it was emptied, everything is written back.
    fn adopt(&mut self, link: &mut Link, at: Instant, check: &Check) {
        self.clock = StoreClock::new(at, check.now);
        let was_emptied = check.since != self.since;
        if was_emptied {
            tracing::warn!("the registry was emptied: what is known here is written back");
            self.since = check.since;
            self.walk = Some(0);
        }
        link.secret = check.secret.clone();
        let mut handler = self.shared.handler();
        handler.share_tokens(&check.secret, self.clock, Instant::now());
        if let Some((seam, _)) = handler.fleet() {
            seam.set_clock(self.clock);
        }
    }

    /// The store has been read. Once the trackers had time to write everything to it, everybody is known.
    fn settle(&mut self, link: &mut Link) {
        if std::mem::replace(&mut link.has_read, true) {
            return;
        }
        self.side.first_read.notify_one();
        let now = Instant::now();
        let age = self.clock.read(now).since(self.since);
        if let Some((_, registry)) = self.shared.handler().fleet() {
            registry.settle(registry.settling_time().saturating_sub(age), now);
        }
    }

    fn take_in(&mut self, changes: &[Change]) {
        for some in changes.chunks(TAKEN_AT_ONCE) {
            let mut handler = self.shared.handler();
            let now = Instant::now();
            let Some((seam, registry)) = handler.fleet() else { return };
            let taken = some.iter().filter(|change| seam.take_in(registry, change, now)).count();
            self.shared.note_occupancy(&handler);
            drop(handler);
            self.side.counts.taken_in.fetch_add(taken as u64, Ordering::Relaxed);
        }
    }

    /// Writes what is left, so that others learn of it.
    async fn write_rest(&mut self, link: &mut Link) {
        link.collect(self.shared, self.side);
        while !link.outbox.is_empty() {
            let batch = link.outbox.begin();
            let lasting = self.lasting(link, Instant::now());
            if self.store.write(link.id, &batch, &lasting).await.is_err() {
                return;
            }
            link.outbox.arrived();
        }
    }
}

fn present(records: Vec<Record>) -> Vec<Change> {
    records.into_iter().map(Change::Present).collect()
}
