//! What the scheduler knows of one peer.

use std::time::{Duration, Instant};

use proto::{CHUNK_LEN, ChunkIndex, peer::MAX_PIPELINE};

use super::{Have, PIPELINE_TIME, PeerKey};

/// A chunk of full length. How much waits at a peer is counted in bytes, so that of small chunks more are asked for at a
/// time: a few kilobytes are sent long before the next request can come. (At most [`MAX_PIPELINE`], as of others.)
const CHUNK: u64 = CHUNK_LEN as u64;

/// Bytes that wait at a peer at least: one chunk that is being sent, and one so that the next follows at once.
const MIN_DEPTH: u64 = 2 * CHUNK;

/// Bytes that wait at a peer at most: what a fast network has on its way.
const MAX_DEPTH: u64 = 16 * CHUNK;

/// Bytes of chunks that no fellow has wait at a seeder up to this many.
pub(super) const UNIQUE_DEPTH: u64 = 16 * CHUNK;

/// Time for which requests wait at a fellow. It serves others too, and others have what it has.
const FELLOW_PIPELINE_TIME: Duration = Duration::from_millis(25);

/// With more fellows than this, one request at a time is enough to be served without a gap by one or other.
const FEW_FELLOWS: usize = 4;

/// How much the latest chunk counts in the measured rate.
const RATE_WEIGHT: f64 = 0.3;

/// Rates are measured over no less time than this.
const MIN_SAMPLE_TIME: Duration = Duration::from_millis(1);

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

/// Bytes a second that a peer is expected to send before it has shown its rate.
const FIRST_RATE: f64 = CHUNK as f64 / PIPELINE_TIME.as_secs_f64();

/// No time is expected to be longer: a rate can come near nothing.
const MAX_TIME_S: f64 = 3_600.0;

/// A peer that has sent part of a chunk and then nothing for this time has stalled, and so has one that does not answer a
/// `Cancel` for this time.
const STALL: Duration = Duration::from_secs(1);

/// From this time on the bytes of a chunk that have come tell how fast it comes. The swarm learns of them every 250 ms.
const MIN_PACE_TIME: Duration = Duration::from_millis(300);

/// A peer that has not sent any chunk yet is expected to need this many times as long as it has let this side wait.
const DOUBT: f64 = 3.0;

/// Why a peer's chunks are taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lateness {
    /// It has said nothing for too long.
    Silent,
    /// It is there, but sends nothing.
    Overdue,
}

/// What a request is that a peer has not answered. It answers every one, also those that were cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its chunk is waited for.
    Wanted,
    /// It was cancelled, so that another peer can be asked when this one says that it will not send the chunk.
    Moving { to: PeerKey, since: Instant },
    /// It was cancelled, and the chunk comes from elsewhere.
    Unwanted,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    chunk: ChunkIndex,
    len: u32,
    asked_at: Instant,
    standing: Standing,
}

/// A chunk of which some bytes have come.
#[derive(Debug, Clone, Copy)]
struct Arriving {
    chunk: ChunkIndex,
    since: Instant,
    bytes: u32,
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
    /// Requests without an answer, oldest first; at most [`MAX_PIPELINE`].
    requests: Vec<Request>,
    /// Bytes a second, once enough has come.
    pub(super) rate: Option<f64>,
    /// Bytes that have come since then and are in no measured rate yet.
    unmeasured: Option<(Instant, u64)>,
    /// The chunk of which the first bytes have come, but not the last.
    arriving: Option<Arriving>,
    /// It has sent a chunk, and was not silent since.
    proven: bool,
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
            requests: Vec::new(),
            rate: None,
            unmeasured: None,
            arriving: None,
            proven: false,
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

    /// Whether it may be asked for anything, for all that it owes answers to.
    pub(super) fn has_room(&self) -> bool {
        self.requests.len() < MAX_PIPELINE
    }

    /// Bytes of the chunks that are waited for.
    pub(super) fn owes(&self) -> u64 {
        let wanted = self.requests.iter().filter(|request| request.standing == Standing::Wanted);
        wanted.map(|request| u64::from(request.len)).sum()
    }

    /// Takes note of a request for a chunk of `len` bytes.
    pub(super) fn ask(&mut self, chunk: ChunkIndex, len: u32, now: Instant) {
        debug_assert!(self.debts().all(|request| request.chunk != chunk), "{chunk:?} is waited for");
        // The clock for the first of several requests starts when it is made.
        if self.debts().next().is_none() {
            self.restart_clock(now);
        }
        self.requests.push(Request { chunk, len, asked_at: now, standing: Standing::Wanted });
        debug_assert!(self.requests.len() <= MAX_PIPELINE);
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// Takes note that so many bytes of the chunk that arrives have come.
    pub(super) fn progressed(&mut self, bytes: u32, now: Instant) {
        self.restart_clock(now);
        if let Some(arriving) = &mut self.arriving {
            arriving.bytes = bytes;
        }
    }

    fn restart_clock(&mut self, now: Instant) {
        self.last_heard = now;
        self.last_progress = now;
    }

    /// Takes note of the first bytes of a chunk, and says what the request for it is; `None` if there is none.
    pub(super) fn arriving(&mut self, chunk: ChunkIndex, now: Instant) -> Option<Standing> {
        self.restart_clock(now);
        self.arriving = Some(Arriving { chunk, since: now, bytes: 0 });
        self.requests.iter().find(|request| request.chunk == chunk).map(|request| request.standing)
    }

    /// Waits again for a chunk that comes though it was cancelled. True if the peer was asked for it once more meanwhile: that
    /// request is not wanted any more, and the peer has to be told.
    pub(super) fn want_again(&mut self, chunk: ChunkIndex) -> bool {
        let mut requests = self.requests.iter_mut().filter(|request| request.chunk == chunk);
        let Some(coming) = requests.next() else { return false };
        coming.standing = Standing::Wanted;
        let Some(again) = requests.find(|request| request.standing == Standing::Wanted) else { return false };
        again.standing = Standing::Unwanted;
        true
    }

    /// When it was asked for a chunk, if it owes an answer to that.
    pub(super) fn asked_at(&self, chunk: ChunkIndex) -> Option<Instant> {
        self.requests.iter().find(|request| request.chunk == chunk).map(|request| request.asked_at)
    }

    /// Whether the first bytes of a chunk have come.
    pub(super) fn is_sending(&self, chunk: ChunkIndex) -> bool {
        self.arriving.is_some_and(|arriving| arriving.chunk == chunk)
    }

    /// A whole chunk came; says what the request was, `None` if there was none.
    pub(super) fn delivered(&mut self, chunk: ChunkIndex, len: u32, now: Instant) -> Option<Standing> {
        self.arriving = None;
        let Request { asked_at, standing, .. } = self.answered(|request| request.chunk == chunk)?;
        if standing != Standing::Unwanted
            && let Some(sample) = self.sample(len, asked_at, now)
        {
            self.measured(sample);
        }
        self.restart_clock(now);
        self.last_delivered = Some(now);
        self.proven = true;
        self.strikes = 0;
        self.pause_until = None;
        Some(standing)
    }

    /// It will not send a chunk; says whether that was waited for.
    pub(super) fn refused(&mut self, chunk: ChunkIndex) -> bool {
        let request = self.answered(|request| request.chunk == chunk);
        request.is_some_and(|request| request.standing != Standing::Unwanted)
    }

    /// It will not send a chunk, because that was cancelled; says what the request was, `None` if it had not been.
    pub(super) fn cancelled(&mut self, chunk: ChunkIndex) -> Option<Standing> {
        let cancelled = |request: &Request| request.chunk == chunk && request.standing != Standing::Wanted;
        let Request { len, asked_at, standing, .. } = self.answered(cancelled)?;
        if let Standing::Moving { since, .. } = standing {
            // It is slower than that. Or two peers that were fast once could move a chunk to and fro for ever.
            let sample = rate(len.into(), since.saturating_duration_since(self.began(asked_at)));
            if self.rate.is_some_and(|rate| sample < rate) {
                self.measured(sample);
            }
        }
        Some(standing)
    }

    /// Whether a request that waits here is to move to that peer.
    pub(super) fn is_moving_to(&self, key: PeerKey) -> bool {
        let moving = |request: &Request| matches!(request.standing, Standing::Moving { to, .. } if to == key);
        self.requests.iter().any(moving)
    }

    /// Whether a request that is to move was cancelled not long ago, so that an answer may be expected.
    pub(super) fn will_answer(&self, chunk: ChunkIndex, now: Instant) -> bool {
        let request = self.requests.iter().find(|request| request.chunk == chunk);
        match request.map(|request| request.standing) {
            Some(Standing::Moving { since, .. }) => now.saturating_duration_since(since) < STALL,
            Some(Standing::Wanted | Standing::Unwanted) | None => false,
        }
    }

    /// How long a request for a chunk has waited; `None` if there is none, or its chunk comes.
    pub(super) fn waiting_for(&self, chunk: ChunkIndex, now: Instant) -> Option<Duration> {
        let wanted = |request: &&Request| request.chunk == chunk && request.standing == Standing::Wanted;
        let request = self.requests.iter().find(wanted).filter(|_| !self.is_sending(chunk))?;
        Some(now.saturating_duration_since(request.asked_at))
    }

    fn answered(&mut self, which: impl Fn(&Request) -> bool) -> Option<Request> {
        let at = self.requests.iter().position(which)?;
        Some(self.requests.remove(at))
    }

    /// Takes note that a chunk need not come; false if the peer need not be told.
    pub(super) fn cancel(&mut self, chunk: ChunkIndex, standing: Standing, now: Instant) -> bool {
        let Some(request) = self.debts_mut().find(|request| request.chunk == chunk) else { return false };
        let was_wanted = std::mem::replace(&mut request.standing, standing) == Standing::Wanted;
        let Request { len, asked_at, .. } = *request;
        if self.rate.is_none() && was_wanted {
            // All that is known of its rate: it is less than this.
            let bound = rate(len.into(), now.saturating_duration_since(self.began(asked_at)));
            self.rate = (bound < FIRST_RATE).then_some(bound);
        }
        was_wanted
    }

    /// Stops waiting for everything. Says what was waited for.
    pub(super) fn cancel_all(&mut self, now: Instant) -> Vec<ChunkIndex> {
        self.restart_clock(now);
        let cancel = |request: &mut Request| {
            request.standing = Standing::Unwanted;
            request.chunk
        };
        self.debts_mut().map(cancel).collect()
    }

    /// The requests whose chunks are waited for or may still come, oldest first.
    fn debts(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(|request| request.standing != Standing::Unwanted)
    }

    fn debts_mut(&mut self) -> impl Iterator<Item = &mut Request> {
        self.requests.iter_mut().filter(|request| request.standing != Standing::Unwanted)
    }

    pub(super) fn lateness(&self, now: Instant) -> Option<Lateness> {
        if self.debts().next().is_none() {
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
        self.proven = false;
        self.cancel_all(now)
    }

    /// Takes everything back from a peer that is busy with others, and lets it be for a moment.
    pub(super) fn excuse(&mut self, now: Instant) -> Vec<ChunkIndex> {
        self.pause(now + REST);
        self.cancel_all(now)
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
        let late = self.debts().next().map(|_| late());
        let pause = self.pause_until.filter(|&until| until > now);
        late.into_iter().chain(pause).min()
    }

    /// How long one more chunk would take.
    pub(super) fn expected_next(&self) -> Duration {
        self.time_for(self.owes() + CHUNK)
    }

    /// Whether bytes of any chunk come.
    pub(super) fn is_receiving(&self, now: Instant) -> bool {
        self.arriving.is_some() && now.saturating_duration_since(self.last_progress) < STALL
    }

    /// Whether it has sent a chunk, and was not silent since.
    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    /// Whether it might take over what peers that have sent nothing were asked for.
    pub(super) fn has_time(&self) -> bool {
        self.proven && self.nothing_to_ask
    }

    /// How much longer the chunk that arrives will take, by its bytes so far; `None` if none arrives.
    fn rest_of_arriving(&self, now: Instant) -> Option<Duration> {
        let Arriving { chunk, since, bytes } = self.arriving?;
        let len = self.requests.iter().find(|request| request.chunk == chunk)?.len;
        let elapsed = now.saturating_duration_since(since);
        if elapsed < MIN_PACE_TIME {
            return Some(self.time_for(len.into()));
        }
        let pace = f64::from(bytes.max(1)) / elapsed.as_secs_f64();
        Some(Duration::from_secs_f64((f64::from(len.saturating_sub(bytes)) / pace).min(MAX_TIME_S)))
    }

    /// Whether it can say within `time` that it will not send a chunk that waits: messages go between chunks.
    pub(super) fn answers_within(&self, time: Duration, now: Instant) -> bool {
        self.proven && self.rest_of_arriving(now).is_none_or(|rest| rest <= time)
    }

    /// The chunk that has been waited for longest.
    #[cfg(test)]
    pub(super) fn oldest_wanted(&self) -> Option<ChunkIndex> {
        let wanted = self.requests.iter().find(|request| request.standing == Standing::Wanted);
        wanted.map(|request| request.chunk)
    }

    /// Whether a chunk waits here that others are to come before.
    pub(super) fn is_behind_others(&self, chunk: ChunkIndex) -> bool {
        self.debts().skip(1).any(|request| request.chunk == chunk)
    }

    /// How long a chunk that was asked for will take, at this peer's rate; `None` if it was not asked for.
    pub(super) fn wait_for(&self, chunk: ChunkIndex) -> Option<Duration> {
        let mut ahead = 0;
        for request in self.debts() {
            ahead += u64::from(request.len);
            if request.chunk == chunk {
                return Some(self.time_for(ahead));
            }
        }
        None
    }

    /// How long ago a chunk was asked for, and how much longer it will take; `None` if it was not.
    pub(super) fn outlook(&self, chunk: ChunkIndex, now: Instant) -> Option<Outlook> {
        let oldest = self.debts().next()?.asked_at;
        let asked_at = self.debts().find(|request| request.chunk == chunk)?.asked_at;
        let age = now.saturating_duration_since(asked_at);
        let arriving = self.rest_of_arriving(now);
        if let Some(left) = arriving.filter(|_| self.is_sending(chunk)) {
            return Some(Outlook { age, left });
        }
        // The longer no whole chunk came, the less the rate is worth, even if bytes trickle.
        let since = now.saturating_duration_since(self.began(oldest));
        let left = match arriving {
            Some(rest) => rest + self.time_for(CHUNK),
            None if self.proven => self.wait_for(chunk)?,
            None => since.mul_f64(DOUBT),
        };
        Some(Outlook { age, left: left.max(since) })
    }

    /// How long it takes to send so many bytes.
    fn time_for(&self, len: u64) -> Duration {
        let rate = self.rate.unwrap_or(FIRST_RATE);
        Duration::from_secs_f64((len as f64 / rate).min(MAX_TIME_S))
    }

    /// Whether more should wait at this peer, one of so many fellows or a seeder beside them.
    pub(super) fn wants_more(&self, fellows: usize) -> bool {
        let fellow = self.have != Have::All;
        let least = if fellow && fellows > FEW_FELLOWS { CHUNK } else { MIN_DEPTH };
        let Some(rate) = self.rate else { return self.owes() < least };
        let time = if fellow { FELLOW_PIPELINE_TIME } else { PIPELINE_TIME };
        let more = if fellow { 0 } else { CHUNK };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; too large a number becomes the largest"
        )]
        let sent_meanwhile = (rate * time.as_secs_f64()) as u64;
        self.owes() < sent_meanwhile.saturating_add(more).clamp(least, MAX_DEPTH)
    }

    fn patience(&self) -> Duration {
        match self.rate {
            Some(_) => self.time_for(CHUNK).mul_f64(PATIENCE).clamp(MIN_PATIENCE, MAX_PATIENCE),
            None => FIRST_PATIENCE,
        }
    }

    fn forbearance(&self) -> Duration {
        match self.rate {
            Some(_) => self.time_for(CHUNK).mul_f64(PATIENCE).clamp(MIN_FORBEARANCE, MAX_FORBEARANCE),
            None => FIRST_FORBEARANCE,
        }
    }

    /// When a chunk that was asked for then had this peer's attention: when the one before it had come, or when it was
    /// asked for if that is later.
    fn began(&self, asked_at: Instant) -> Instant {
        self.last_delivered.map_or(asked_at, |last| last.max(asked_at))
    }

    /// The rate at which a chunk came, with those just before it if they came within [`MIN_SAMPLE_TIME`]: several small
    /// ones come at once, which says nothing about any of them.
    fn sample(&mut self, len: u32, asked_at: Instant, now: Instant) -> Option<f64> {
        let began = self.began(asked_at);
        let before = self.unmeasured.take().filter(|_| began != asked_at);
        let (since, before) = before.unwrap_or((began, 0));
        let (bytes, time) = (before + u64::from(len), now.saturating_duration_since(since));
        if time < MIN_SAMPLE_TIME {
            self.unmeasured = Some((since, bytes));
            return None;
        }
        Some(rate(bytes, time))
    }

    fn measured(&mut self, sample: f64) {
        self.rate = Some(self.rate.map_or(sample, |rate| rate + (sample - rate) * RATE_WEIGHT));
    }
}

/// Bytes a second.
fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.max(MIN_SAMPLE_TIME).as_secs_f64()
}
