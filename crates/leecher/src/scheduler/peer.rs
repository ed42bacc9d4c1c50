//! What the scheduler knows of one peer.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use proto::{CHUNK_LEN, ChunkIndex, peer::MAX_PIPELINE};

use super::{Have, PIPELINE_TIME};

/// Requests that wait at a peer at least: one that is being sent, and one so that the next follows at once.
const MIN_DEPTH: usize = 2;

/// Requests that wait at a peer at most: 8 MiB, what a fast network has on its way.
const MAX_DEPTH: usize = 16;

/// How much the latest chunk counts in the measured rate.
const RATE_WEIGHT: f64 = 0.3;

/// Patience with a peer whose rate is not known yet.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);

/// A peer is late when it delivers nothing for this many times what a chunk takes at its rate, within limits.
const PATIENCE: f64 = 8.0;
const MIN_PATIENCE: Duration = Duration::from_secs(2);
const MAX_PATIENCE: Duration = Duration::from_secs(30);

/// A peer that was late is asked again after this time, and each time more after the next.
const REST: Duration = Duration::from_secs(3);

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
    /// Requests that are no longer waited for, but may still be answered.
    forgiven: BTreeSet<ChunkIndex>,
    /// Bytes a second, once a chunk has come.
    pub(super) rate: Option<f64>,
    /// When bytes last came, or the first of the present requests was made.
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
            forgiven: BTreeSet::new(),
            rate: None,
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

    pub(super) fn has_room(&self, now: Instant) -> bool {
        self.owed.len() < self.depth() && self.pause_until.is_none_or(|until| until <= now)
    }

    pub(super) fn ask(&mut self, chunk: ChunkIndex, now: Instant) {
        // The clock for the first of several requests starts when it is made.
        if self.owed.is_empty() {
            self.last_progress = now;
        }
        self.owed.push((chunk, now));
        debug_assert!(self.owed.len() <= MAX_PIPELINE);
    }

    pub(super) fn progressed(&mut self, now: Instant) {
        self.last_progress = now;
    }

    pub(super) fn delivered(&mut self, chunk: ChunkIndex, len: u32, now: Instant) -> Debt {
        let debt = match self.owed.iter().position(|&(owed, _)| owed == chunk) {
            Some(at) => {
                let (_, asked_at) = self.owed.remove(at);
                self.measure(len, asked_at, now);
                Debt::Owed
            }
            None if self.forgiven.remove(&chunk) => Debt::Forgiven,
            None => return Debt::None,
        };
        self.last_progress = now;
        self.last_delivered = Some(now);
        self.strikes = 0;
        self.pause_until = None;
        debt
    }

    /// Forgets a request that was refused; false if there was none.
    pub(super) fn forgive(&mut self, chunk: ChunkIndex) -> bool {
        let before = self.owed.len();
        self.owed.retain(|&(owed, _)| owed != chunk);
        self.forgiven.remove(&chunk);
        self.owed.len() < before
    }

    /// Stops waiting for a chunk that came from elsewhere. It may still arrive.
    pub(super) fn cancelled(&mut self, chunk: ChunkIndex, now: Instant) {
        if self.forgive(chunk) {
            self.remember_forgiven(chunk);
            self.last_progress = now;
        }
    }

    /// Stops waiting for everything.
    pub(super) fn take_back_all(&mut self, now: Instant) -> Vec<ChunkIndex> {
        self.last_progress = now;
        let owed: Vec<_> = self.owed.drain(..).map(|(chunk, _)| chunk).collect();
        owed.iter().for_each(|&chunk| self.remember_forgiven(chunk));
        owed
    }

    fn remember_forgiven(&mut self, chunk: ChunkIndex) {
        self.forgiven.insert(chunk);
        // What was forgiven longest ago is not known; any will do, since this many never wait at a peer.
        if self.forgiven.len() > 2 * MAX_PIPELINE {
            self.forgiven.pop_first();
        }
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        !self.owed.is_empty() && now >= self.last_progress + self.patience()
    }

    /// Takes everything back from a peer that is late, and lets it rest.
    pub(super) fn strike(&mut self, now: Instant) -> Vec<ChunkIndex> {
        self.strikes += 1;
        self.pause(now + REST * self.strikes);
        self.rate = None;
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
        let late = (!self.owed.is_empty()).then(|| self.last_progress + self.patience());
        let pause = self.pause_until.filter(|&until| until > now);
        late.into_iter().chain(pause).min()
    }

    /// How long one more chunk would take.
    pub(super) fn expected_next(&self) -> Duration {
        self.chunk_time() * u32::try_from(self.owed.len() + 1).unwrap_or(u32::MAX)
    }

    /// How long ago a chunk was asked for, and how much longer it will take; `None` if it was not.
    pub(super) fn outlook(&self, chunk: ChunkIndex, now: Instant) -> Option<Outlook> {
        let at = self.owed.iter().position(|&(owed, _)| owed == chunk)?;
        let ahead = self.chunk_time() * u32::try_from(at + 1).unwrap_or(u32::MAX);
        // The longer nothing came, the less the rate is worth.
        let silence = now.saturating_duration_since(self.last_progress);
        Some(Outlook { age: now.saturating_duration_since(self.owed[at].1), left: ahead.max(silence) })
    }

    fn chunk_time(&self) -> Duration {
        match self.rate {
            Some(rate) => Duration::from_secs_f64((f64::from(CHUNK_LEN) / rate).min(3_600.0)),
            None => PIPELINE_TIME,
        }
    }

    fn depth(&self) -> usize {
        let Some(rate) = self.rate else { return MIN_DEPTH };
        let chunks = rate * PIPELINE_TIME.as_secs_f64() / f64::from(CHUNK_LEN);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped, and not negative"
        )]
        let depth = chunks.min(1e3).ceil() as usize + 1;
        depth.clamp(MIN_DEPTH, MAX_DEPTH)
    }

    fn patience(&self) -> Duration {
        match self.rate {
            Some(_) => self.chunk_time().mul_f64(PATIENCE).clamp(MIN_PATIENCE, MAX_PATIENCE),
            None => FIRST_PATIENCE,
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
