//! What the scheduler knows of one peer.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use proto::{CHUNK_LEN, ChunkIndex, peer::MAX_PIPELINE};

use super::{Have, PIPELINE_TIME};

/// Requests that wait at a peer at least: one that is being sent, and one so that the next follows at once.
const MIN_DEPTH: usize = 2;

/// Requests that wait at a peer at most: 8 MiB, what a fast network has on its way.
const MAX_DEPTH: usize = 16;

/// Requests for chunks that no fellow has wait at a seeder up to this many.
pub(super) const UNIQUE_DEPTH: usize = 16;

/// Time for which requests wait at a fellow. It serves others too, and others have what it has.
const FELLOW_PIPELINE_TIME: Duration = Duration::from_millis(25);

/// With more fellows than this, one request at a time is enough to be served without a gap by one or other.
const FEW_FELLOWS: usize = 4;

/// How much the latest chunk counts in the measured rate.
const RATE_WEIGHT: f64 = 0.3;

/// A peer that owes chunks is late when nothing is heard of it for this many times what a chunk takes at its
/// rate, within limits. Those who only let a peer wait tell it so more often than that.
const PATIENCE: f64 = 8.0;
const MIN_PATIENCE: Duration = Duration::from_secs(3);
const MAX_PATIENCE: Duration = Duration::from_secs(30);

/// Patience with a peer whose rate is not known yet.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);

/// A peer that is there but sends nothing is overdue after as many times what a chunk takes, within limits, or
/// after the longer if that is not known. It may be busy: others are asked, and so is this one again.
const MIN_FORBEARANCE: Duration = Duration::from_secs(5);
const MAX_FORBEARANCE: Duration = Duration::from_secs(60);
const FIRST_FORBEARANCE: Duration = Duration::from_secs(30);

/// A peer that was late is asked again after this time, and each time more after the next.
const REST: Duration = Duration::from_secs(3);

/// A chunk of which some bytes have come is asked of another peer when no more come for this time.
const STALL: Duration = Duration::from_secs(1);

/// Forgiven requests remembered: a peer that sends what it was never asked for is found out as long as no more
/// than these were withdrawn from it.
const MAX_FORGIVEN: usize = 4 * MAX_PIPELINE;

/// Why a peer's chunks are taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lateness {
    /// It has said nothing for too long.
    Silent,
    /// It is there, but sends nothing.
    Overdue,
}

/// Whether a peer owed a chunk that it delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Debt {
    /// It was asked for it.
    Owed,
    /// It was asked for it, but the chunk was taken back or cancelled meanwhile.
    Forgiven,
    /// It was not.
    None,
}

/// What to expect of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outlook {
    /// Since it was made.
    pub(super) age: Duration,
    /// Until it is answered.
    pub(super) left: Duration,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) have: Have,
    /// Requests without an answer, oldest first, with the time they were made.
    owed: Vec<(ChunkIndex, Instant)>,
    /// Requests that are no longer waited for, but may still be answered, the latest last.
    forgiven: VecDeque<ChunkIndex>,
    /// There were too many of these to remember.
    forgot: bool,
    /// Bytes a second, once a chunk has come.
    pub(super) rate: Option<f64>,
    /// The chunk of which the first bytes have come, but not the last.
    arriving: Option<(ChunkIndex, Instant)>,
    /// When anything last came, or the first of the present requests was made.
    last_heard: Instant,
    /// When bytes of chunks last came, or the first of the present requests was made.
    last_progress: Instant,
    /// When a whole chunk last came.
    last_delivered: Option<Instant>,
    pub(super) strikes: u32,
    /// Not to be asked before this time.
    pause_until: Option<Instant>,
    /// A search for a missing chunk of this peer found none, and nothing changed since.
    pub(super) nothing_to_ask: bool,
}

impl Peer {
    pub(super) fn new(have: Have, now: Instant) -> Peer {
        Peer {
            have,
            owed: Vec::new(),
            forgiven: VecDeque::new(),
            forgot: false,
            rate: None,
            arriving: None,
            last_heard: now,
            last_progress: now,
            last_delivered: None,
            strikes: 0,
            pause_until: None,
            nothing_to_ask: false,
        }
    }

    pub(super) fn has(&self, chunk: ChunkIndex) -> bool {
        match &self.have {
            Have::All => true,
            Have::Some(field) => field.contains(chunk),
        }
    }

    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.pause_until.is_some_and(|until| until > now)
    }

    /// Number of requests without an answer.
    pub(super) fn owes(&self) -> usize {
        self.owed.len()
    }

    pub(super) fn ask(&mut self, chunk: ChunkIndex, now: Instant) {
        // The clock for the first of several requests starts when it is made.
        if self.owed.is_empty() {
            self.progressed(now);
        }
        // It may have been forgiven before, and may then come twice.
        self.owed.push((chunk, now));
        debug_assert!(self.owed.len() <= MAX_PIPELINE);
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    pub(super) fn progressed(&mut self, now: Instant) {
        self.last_heard = now;
        self.last_progress = now;
    }

    /// Takes note of the first bytes of a chunk, and says whether the peer owes it.
    pub(super) fn arriving(&mut self, chunk: ChunkIndex, now: Instant) -> Debt {
        self.progressed(now);
        self.arriving = Some((chunk, now));
        if self.owed.iter().any(|&(owed, _)| owed == chunk) {
            Debt::Owed
        } else if self.forgot || self.forgiven.contains(&chunk) {
            Debt::Forgiven
        } else {
            Debt::None
        }
    }

    /// Waits again for a chunk that was forgiven.
    pub(super) fn expect_again(&mut self, chunk: ChunkIndex, now: Instant) {
        self.forget_forgiven(chunk);
        self.owed.insert(0, (chunk, now));
    }

    /// Whether the first bytes of a chunk have come.
    pub(super) fn is_sending(&self, chunk: ChunkIndex) -> bool {
        self.arriving.is_some_and(|(arriving, _)| arriving == chunk)
    }

    pub(super) fn delivered(&mut self, chunk: ChunkIndex, len: u32, now: Instant) -> Debt {
        self.arriving = None;
        let debt = match self.owed.iter().position(|&(owed, _)| owed == chunk) {
            Some(at) => {
                let (_, asked_at) = self.owed.remove(at);
                self.measure(len, asked_at, now);
                Debt::Owed
            }
            None if self.forget_forgiven(chunk) || self.forgot => Debt::Forgiven,
            None => return Debt::None,
        };
        self.progressed(now);
        self.last_delivered = Some(now);
        self.strikes = 0;
        self.pause_until = None;
        debt
    }

    /// Forgets a request that was refused; false if it was not waited for.
    pub(super) fn forgive(&mut self, chunk: ChunkIndex) -> bool {
        let owed = self.owed.iter().position(|&(owed, _)| owed == chunk);
        match owed {
            Some(at) => _ = self.owed.remove(at),
            None => _ = self.forget_forgiven(chunk),
        }
        owed.is_some()
    }

    /// Stops waiting for a chunk that came from elsewhere. It may still arrive.
    pub(super) fn cancelled(&mut self, chunk: ChunkIndex) {
        if self.forgive(chunk) {
            self.remember_forgiven(chunk);
        }
    }

    /// Stops waiting for everything.
    pub(super) fn take_back_all(&mut self, now: Instant) -> Vec<ChunkIndex> {
        self.progressed(now);
        let owed: Vec<_> = self.owed.drain(..).map(|(chunk, _)| chunk).collect();
        owed.iter().for_each(|&chunk| self.remember_forgiven(chunk));
        owed
    }

    fn remember_forgiven(&mut self, chunk: ChunkIndex) {
        self.forgiven.push_back(chunk);
        if self.forgiven.len() > MAX_FORGIVEN {
            self.forgiven.pop_front();
            self.forgot = true;
        }
    }

    fn forget_forgiven(&mut self, chunk: ChunkIndex) -> bool {
        let at = self.forgiven.iter().rposition(|&forgiven| forgiven == chunk);
        at.is_some_and(|at| self.forgiven.remove(at).is_some())
    }

    pub(super) fn lateness(&self, now: Instant) -> Option<Lateness> {
        if self.owed.is_empty() {
            None
        } else if now >= self.last_heard + self.patience() {
            Some(Lateness::Silent)
        } else if now >= self.last_progress + self.forbearance() {
            Some(Lateness::Overdue)
        } else {
            None
        }
    }

    /// Takes everything back from a peer that is silent, and lets it rest.
    pub(super) fn strike(&mut self, now: Instant) -> Vec<ChunkIndex> {
        self.strikes += 1;
        self.pause(now + REST * self.strikes);
        self.rate = None;
        self.take_back_all(now)
    }

    /// Takes everything back from a peer that is busy with others, and lets it be for a moment.
    pub(super) fn excuse(&mut self, now: Instant) -> Vec<ChunkIndex> {
        self.pause(now + REST);
        self.take_back_all(now)
    }

    pub(super) fn pause(&mut self, until: Instant) {
        self.pause_until = Some(self.pause_until.map_or(until, |old| old.max(until)));
    }

    /// Whether a pause just ended.
    pub(super) fn rested(&mut self, now: Instant) -> bool {
        let rested = self.pause_until.is_some_and(|until| until <= now);
        if rested {
            self.pause_until = None;
        }
        rested
    }

    pub(super) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let late = || (self.last_heard + self.patience()).min(self.last_progress + self.forbearance());
        let late = (!self.owed.is_empty()).then(late);
        let pause = self.pause_until.filter(|&until| until > now);
        late.into_iter().chain(pause).min()
    }

    /// How long one more chunk would take.
    pub(super) fn expected_next(&self) -> Duration {
        self.chunk_time() * u32::try_from(self.owed.len() + 1).unwrap_or(u32::MAX)
    }

    /// Whether bytes of any chunk come.
    pub(super) fn is_receiving(&self, now: Instant) -> bool {
        self.arriving.is_some_and(|(chunk, _)| self.is_coming(chunk, now))
    }

    /// Whether bytes of a chunk have come, the last of them not long ago.
    pub(super) fn is_coming(&self, chunk: ChunkIndex, now: Instant) -> bool {
        self.is_sending(chunk) && now.saturating_duration_since(self.last_progress) < STALL
    }

    /// Whether a chunk is coming, and not for longer than `patience` or [`STALL`] already: bytes that trickle are
    /// no reason to wait.
    pub(super) fn will_come(&self, chunk: ChunkIndex, patience: Duration, now: Instant) -> bool {
        let begun = self.arriving.map(|(_, begun)| begun);
        let recent = begun.is_some_and(|begun| now.saturating_duration_since(begun) < patience.max(STALL));
        recent && self.is_coming(chunk, now)
    }

    /// How long a chunk that was asked for will take, at this peer's rate; `None` if it was not asked for.
    pub(super) fn wait_for(&self, chunk: ChunkIndex) -> Option<Duration> {
        let at = self.owed.iter().position(|&(owed, _)| owed == chunk)?;
        Some(self.chunk_time() * u32::try_from(at + 1).unwrap_or(u32::MAX))
    }

    /// How long ago a chunk was asked for, and how much longer it will take; `None` if it was not.
    pub(super) fn outlook(&self, chunk: ChunkIndex, now: Instant) -> Option<Outlook> {
        let &(_, asked_at) = self.owed.iter().find(|&&(owed, _)| owed == chunk)?;
        let ahead = self.wait_for(chunk)?;
        // The longer no whole chunk came, the less the rate is worth, even if bytes trickle.
        let oldest = self.owed.first().map_or(asked_at, |&(_, asked_at)| asked_at);
        let since = self.last_delivered.map_or(oldest, |last| last.max(oldest));
        let left = ahead.max(now.saturating_duration_since(since));
        Some(Outlook { age: now.saturating_duration_since(asked_at), left })
    }

    fn chunk_time(&self) -> Duration {
        match self.rate {
            Some(rate) => Duration::from_secs_f64((f64::from(CHUNK_LEN) / rate).min(3_600.0)),
            None => PIPELINE_TIME,
        }
    }

    /// How many requests should wait at this peer, one of so many fellows or a seeder beside them.
    pub(super) fn depth(&self, fellows: usize) -> usize {
        let fellow = self.have != Have::All;
        let least = if fellow && fellows > FEW_FELLOWS { 1 } else { MIN_DEPTH };
        let time = if fellow { FELLOW_PIPELINE_TIME } else { PIPELINE_TIME };
        let Some(rate) = self.rate else { return least };
        let chunks = (rate * time.as_secs_f64() / f64::from(CHUNK_LEN)).min(1e3).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped, and not negative"
        )]
        let depth = chunks as usize + usize::from(!fellow);
        depth.clamp(least, MAX_DEPTH)
    }

    fn patience(&self) -> Duration {
        match self.rate {
            Some(_) => self.chunk_time().mul_f64(PATIENCE).clamp(MIN_PATIENCE, MAX_PATIENCE),
            None => FIRST_PATIENCE,
        }
    }

    fn forbearance(&self) -> Duration {
        match self.rate {
            Some(_) => self.chunk_time().mul_f64(PATIENCE).clamp(MIN_FORBEARANCE, MAX_FORBEARANCE),
            None => FIRST_FORBEARANCE,
        }
    }

    /// A chunk took the time since the one before it, or since it was asked for if that is later.
    fn measure(&mut self, len: u32, asked_at: Instant, now: Instant) {
        let started = self.last_delivered.map_or(asked_at, |last| last.max(asked_at));
        let seconds = now.saturating_duration_since(started).as_secs_f64().max(1e-5);
        let sample = f64::from(len) / seconds;
        self.rate = Some(self.rate.map_or(sample, |rate| rate + (sample - rate) * RATE_WEIGHT));
    }
}
