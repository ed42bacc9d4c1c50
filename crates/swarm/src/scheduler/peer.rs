//! What the scheduler knows about one peer: what it has, what it owes, and since when it is silent. How fast it is, is in [`speed`].

mod flight;
mod speed;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use proto::{
    ChunkIndex,
    peer::{Form, MAX_PIPELINE, Wish},
};

use super::{Have, PIPELINE_TIME, PeerKey, Place};
use flight::{Departure, Flight};
use speed::rate;

pub(super) use speed::Outlook;

/// Maximum chunks that no leecher has that wait at a seeder, if they are full ones.
pub(super) const UNIQUE_DEPTH: u64 = 16;

/// Requests that may wait at a peer that is not trusted yet, once its first chunk is seen to take long.
const TRIAL_REQUESTS: usize = 2;

/// Wait before a late peer is asked again. It grows by this time with each strike.
const LATE_PAUSE: Duration = Duration::from_secs(3);

/// A peer has stalled if it sent part of a chunk and then nothing for this time, or did not answer a `Cancel` for this time.
const STALL: Duration = Duration::from_secs(1);

/// Why a peer's requests are taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lateness {
    /// It sent no message for too long.
    Silent,
    /// It sends messages, but no chunk.
    Overdue,
}

/// The state of a request that a peer has not answered. A peer answers each one, even if it was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its chunk is needed.
    Wanted,
    /// It was cancelled, and the peer `to` is asked when this one confirms that.
    Moving { to: PeerKey, since: Instant },
    /// It was cancelled, and the chunk comes from another peer.
    Unwanted,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    chunk: ChunkIndex,
    form: Form,
    /// Bytes that were asked for.
    len: u32,
    asked_at: Instant,
    departure: Departure,
    standing: Standing,
}

/// A chunk that is arriving.
#[derive(Debug, Clone, Copy)]
struct Arriving {
    chunk: ChunkIndex,
    since: Instant,
    bytes: u32,
}

/// What may be requested from a peer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Nothing,
    /// Hashes of the blocks of chunks.
    Leaves,
    Everything,
}

/// What a proof brings the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Earned {
    Trust,
    Nothing,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) have: Have,
    pub(super) place: Place,
    /// The length of a full chunk. The requests that wait at a peer are counted in bytes, so that more short chunks are requested at a
    /// time. (At most [`MAX_PIPELINE`] requests wait in any case.)
    chunk_len: u64,
    /// Requests without an answer, oldest first; at most [`MAX_PIPELINE`].
    requests: VecDeque<Request>,
    /// In bytes a second, if it was measured.
    pub(super) rate: Option<f64>,
    /// Bandwidth and delay of the way to it.
    flight: Flight,
    /// Bytes received since this time that are in no measured rate yet.
    unmeasured: Option<(Instant, u64)>,
    /// The chunk that is arriving.
    arriving: Option<Arriving>,
    /// It has sent a chunk, and was not silent since.
    proven: bool,
    /// A chunk from it was proved right.
    trusted: bool,
    /// Chunks from it that are being proved.
    proving: usize,
    /// When the last message arrived, or the first of the waiting requests was made.
    last_heard: Instant,
    /// When the last bytes of a chunk arrived, or the first of the waiting requests was made.
    last_progress: Instant,
    /// When the last complete chunk arrived.
    last_delivered: Option<Instant>,
    pub(super) strikes: u32,
    /// Not to be asked before this time.
    pause_until: Option<Instant>,
    /// The last search for a missing chunk that this peer has found none, and nothing changed since.
    pub(super) nothing_to_ask: bool,
}

impl Peer {
    pub(super) fn new(have: Have, chunk_len: u32, now: Instant) -> Peer {
        Peer {
            have,
            place: Place::Near,
            chunk_len: chunk_len.into(),
            requests: VecDeque::new(),
            rate: None,
            flight: Flight::default(),
            unmeasured: None,
            arriving: None,
            proven: false,
            trusted: false,
            proving: 0,
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

    /// Requests without an answer.
    pub(super) fn owed(&self) -> u32 {
        // At most `MAX_PIPELINE`.
        u32::try_from(self.requests.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.pause_until.is_some_and(|until| until > now)
    }

    /// What one more request may be for. A peer that is not trusted yet is asked for one chunk, and for more when that is proved.
    /// If that chunk takes long to arrive, a second is requested meanwhile, so that a far peer does not pause for a round trip. Leaves
    /// may be requested meanwhile, together as long as a chunk: they are short, and the first wrong ones end the connection.
    pub(super) fn room(&self) -> Room {
        if self.requests.len() >= MAX_PIPELINE {
            return Room::Nothing;
        }
        if self.trusted {
            return Room::Everything;
        }
        let is_leaves = |request: &&Request| request.form == Form::Leaves;
        let leaves_len: u64 = self.debts().filter(is_leaves).map(|request| u64::from(request.len)).sum();
        if leaves_len >= self.chunk_len {
            return Room::Nothing;
        }
        let is_tried = self.proving > 0 || self.debts().any(|request| !is_leaves(&request));
        let is_slow_trial = self.proving == 0
            && self.requests.iter().filter(|request| !is_leaves(request)).count() < TRIAL_REQUESTS
            && self.arriving.is_some_and(|arriving| arriving.bytes > 0);
        if !is_tried || is_slow_trial { Room::Everything } else { Room::Leaves }
    }

    /// Whether it is not trusted yet, and its first chunk is requested or being proved.
    pub(super) fn is_tried(&self) -> bool {
        !self.trusted && (self.proving > 0 || self.debts().next().is_some())
    }

    /// Whether a chunk from it was proved right.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Whether what arrives now in this form may be proved. Of a peer that is not trusted yet, one chunk is proved at a time.
    pub(super) fn may_prove(&self, form: Form) -> bool {
        self.trusted || self.proving == 0 || form == Form::Leaves
    }

    /// Trusts it as if a chunk from it had been proved.
    #[cfg(test)]
    pub(super) fn trust(&mut self) {
        self.trusted = true;
    }

    /// What came of a chunk from it is being proved.
    pub(super) fn proving(&mut self, form: Form) {
        self.proving += usize::from(form != Form::Leaves);
    }

    /// What came of a chunk from it was proved.
    pub(super) fn proved(&mut self, form: Form, earned: Earned) {
        self.proving -= usize::from(form != Form::Leaves);
        self.trusted |= earned == Earned::Trust;
    }

    /// Bytes of the chunks that it owes.
    pub(super) fn owes(&self) -> u64 {
        let wanted = self.requests.iter().filter(|request| request.standing == Standing::Wanted);
        wanted.map(|request| u64::from(request.len)).sum()
    }

    /// Records a request for `len` bytes, made at `asked_at`.
    pub(super) fn ask(&mut self, Wish { chunk, form }: Wish, len: u32, asked_at: Instant, now: Instant) {
        debug_assert!(self.debts().all(|request| request.chunk != chunk), "{chunk:?} is waited for");
        // The time of the first of several requests starts when it is made.
        if self.debts().next().is_none() {
            self.restart_clock(now);
        }
        self.owe(Wish { chunk, form }, len, asked_at, Standing::Wanted);
    }

    /// Records that a chunk is on its way that is not needed.
    pub(super) fn expect_unwanted(&mut self, chunk: ChunkIndex, len: u32, now: Instant) {
        self.owe(Wish { chunk, form: Form::Whole }, len, now, Standing::Unwanted);
    }

    fn owe(&mut self, Wish { chunk, form }: Wish, len: u32, asked_at: Instant, standing: Standing) {
        let departure = self.flight.depart(asked_at);
        self.requests.push_back(Request { chunk, form, len, asked_at, departure, standing });
        debug_assert!(self.requests.len() <= MAX_PIPELINE + 1, "the peer chooses one more");
    }

    pub(super) fn alive(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// Records that `bytes` of the arriving chunk were received.
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

    /// Records the first bytes of a chunk. Returns the state of its request and what it asks for, or `None` if there is none.
    pub(super) fn arriving(&mut self, chunk: ChunkIndex, now: Instant) -> Option<(Standing, Form)> {
        self.restart_clock(now);
        self.arriving = Some(Arriving { chunk, since: now, bytes: 0 });
        let request = self.requests.iter().find(|request| request.chunk == chunk)?;
        self.flight.begin(request.departure, now);
        Some((request.standing, request.form))
    }

    /// Waits again for a chunk that arrives although it was cancelled. True if the peer was asked for it again meanwhile. That
    /// second request must be cancelled.
    pub(super) fn want_again(&mut self, chunk: ChunkIndex) -> bool {
        let mut requests = self.requests.iter_mut().filter(|request| request.chunk == chunk);
        let Some(coming) = requests.next() else { return false };
        coming.standing = Standing::Wanted;
        let Some(again) = requests.find(|request| request.standing == Standing::Wanted) else { return false };
        again.standing = Standing::Unwanted;
        true
    }

    /// When the unanswered request for a chunk was made, if there is one.
    pub(super) fn asked_at(&self, chunk: ChunkIndex) -> Option<Instant> {
        self.requests.iter().find(|request| request.chunk == chunk).map(|request| request.asked_at)
    }

    /// Whether this chunk is arriving.
    pub(super) fn is_sending(&self, chunk: ChunkIndex) -> bool {
        self.arriving.is_some_and(|arriving| arriving.chunk == chunk)
    }

    /// What was asked for arrived, all of it. Returns the state of its request, or `None` if there was none.
    pub(super) fn delivered(&mut self, Wish { chunk, form }: Wish, now: Instant) -> Option<Standing> {
        self.arriving = None;
        let request = self.answered(|request| request.chunk == chunk && request.form == form)?;
        let Request { len, asked_at, departure, standing, .. } = request;
        self.flight.arrive(departure, len, now);
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

    /// It rejected a request. Returns whether the chunk was still expected from it, or `None` if it was not requested.
    pub(super) fn refused(&mut self, chunk: ChunkIndex) -> Option<bool> {
        let request = self.answered(|request| request.chunk == chunk)?;
        Some(request.standing != Standing::Unwanted)
    }

    /// It confirmed a cancellation. Returns the state of the request, or `None` if none was cancelled.
    pub(super) fn cancelled(&mut self, chunk: ChunkIndex) -> Option<Standing> {
        let cancelled = |request: &Request| request.chunk == chunk && request.standing != Standing::Wanted;
        let Request { len, asked_at, standing, .. } = self.answered(cancelled)?;
        if let Standing::Moving { since, .. } = standing {
            // Its rate is lower than this. Otherwise two peers that were once fast could move a chunk between them for ever.
            let sample = rate(len.into(), since.saturating_duration_since(self.began(asked_at)));
            if self.rate.is_some_and(|rate| sample < rate) {
                self.measured(sample);
            }
        }
        Some(standing)
    }

    /// Whether a request that waits here moves to that peer.
    pub(super) fn is_moving_to(&self, key: PeerKey) -> bool {
        let moving = |request: &Request| matches!(request.standing, Standing::Moving { to, .. } if to == key);
        self.requests.iter().any(moving)
    }

    /// Whether a moving request was cancelled a short time ago, so that the answer is expected soon.
    pub(super) fn will_answer(&self, chunk: ChunkIndex, now: Instant) -> bool {
        let request = self.requests.iter().find(|request| request.chunk == chunk);
        match request.map(|request| request.standing) {
            Some(Standing::Moving { since, .. }) => now.saturating_duration_since(since) < STALL,
            Some(Standing::Wanted | Standing::Unwanted) | None => false,
        }
    }

    /// How long a request for a chunk has waited. `None` if there is none, or the chunk is arriving.
    pub(super) fn waiting_for(&self, chunk: ChunkIndex, now: Instant) -> Option<Duration> {
        let wanted = |request: &&Request| request.chunk == chunk && request.standing == Standing::Wanted;
        let request = self.requests.iter().find(wanted).filter(|_| !self.is_sending(chunk))?;
        Some(now.saturating_duration_since(request.asked_at))
    }

    fn answered(&mut self, which: impl Fn(&Request) -> bool) -> Option<Request> {
        let at = self.requests.iter().position(which)?;
        self.requests.remove(at)
    }

    /// Records that a chunk is no longer needed from this peer. True if the peer must be sent a `Cancel`.
    pub(super) fn cancel(&mut self, chunk: ChunkIndex, standing: Standing, now: Instant) -> bool {
        let Some(request) = self.debts_mut().find(|request| request.chunk == chunk) else { return false };
        let was_wanted = std::mem::replace(&mut request.standing, standing) == Standing::Wanted;
        let Request { len, asked_at, .. } = *request;
        if self.rate.is_none() && was_wanted {
            // Nothing else is known about its rate than that it is below this.
            let bound = rate(len.into(), now.saturating_duration_since(self.began(asked_at)));
            self.rate = (bound < self.first_rate()).then_some(bound);
        }
        was_wanted
    }

    /// Cancels all requests. Returns the chunks that were expected.
    pub(super) fn cancel_all(&mut self, now: Instant) -> Vec<ChunkIndex> {
        self.restart_clock(now);
        let cancel = |request: &mut Request| {
            request.standing = Standing::Unwanted;
            request.chunk
        };
        self.debts_mut().map(cancel).collect()
    }

    /// The requests whose chunks are still expected, oldest first.
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

    /// Takes all requests back from a silent peer, and pauses it.
    pub(super) fn strike(&mut self, now: Instant) -> Vec<ChunkIndex> {
        self.strikes += 1;
        self.pause(now + LATE_PAUSE * self.strikes);
        self.rate = None;
        self.proven = false;
        self.cancel_all(now)
    }

    /// Takes all requests back from a peer that is busy with others, and pauses it.
    pub(super) fn excuse(&mut self, now: Instant) -> Vec<ChunkIndex> {
        self.pause(now + LATE_PAUSE);
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

    /// Whether bytes of a chunk are arriving.
    pub(super) fn is_receiving(&self, now: Instant) -> bool {
        self.arriving.is_some() && now.saturating_duration_since(self.last_progress) < STALL
    }

    /// Whether it has sent a chunk, and was not silent since.
    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    /// Whether it might take over requests from peers that have sent nothing.
    pub(super) fn has_time(&self) -> bool {
        self.proven && self.nothing_to_ask
    }

    /// The chunk of the oldest request.
    #[cfg(test)]
    pub(super) fn oldest_wanted(&self) -> Option<ChunkIndex> {
        let wanted = self.requests.iter().find(|request| request.standing == Standing::Wanted);
        wanted.map(|request| request.chunk)
    }

    /// Whether a chunk waits here behind others.
    pub(super) fn is_behind_others(&self, chunk: ChunkIndex) -> bool {
        self.debts().skip(1).any(|request| request.chunk == chunk)
    }
}
