//! Which chunk to ask of which peer, and when to stop waiting for it.
//!
//! Pure: time and randomness are arguments, what to do comes out of [`Scheduler::poll_command`]. The shell
//! around it moves the bytes; tests and simulations drive the very same code.
//!
//! Each chunk is in one state ([`rarity`] holds those that nobody was asked for):
//!
//! ```text
//!            fill                 received              stored
//! Missing ─────────▶ Asked ─────────────────▶ Arrived ─────────▶ Stored
//!    ▲                 │ peer left, stalled,     │
//!    └─────────────────┴ rejected ───────────────┘ wrong
//! ```
//!
//! Policy. A peer that joined with everything is a *seeder*, any other a *fellow*. A chunk that a fellow has is
//! asked of the fellow, the rarest first with random ties, and few at a time, for a fellow has many to serve. A
//! chunk that no fellow has is asked of a seeder, and many of these at a time, so that the seeder can choose to
//! send what nobody has ([`crate::uploads`]); as soon as a fellow tells that it has one, a request for it that
//! still waits at a seeder is withdrawn. A seeder is asked for what fellows have only when there is nothing
//! else to ask it for. Without fellows, as many requests wait at a seeder as its measured rate can serve in
//! [`PIPELINE_TIME`]. A request that waits elsewhere moves to a peer that says that it is idle ([`moves`]).
//!
//! A peer that is silent for several times what a chunk should take has its chunks taken back and, if it goes
//! on, is dropped; one that says it is still here ([`Scheduler::alive`]) only serves others first. When nothing
//! is left to ask for, chunks that are expected late are asked of a second peer ([`endgame`]), and the first to
//! send a chunk ends the other's request. A wrong chunk bans its sender.
//!
//! A peer answers every request once, with the chunk or with the word that it will not come, also when the request
//! was cancelled. So what a peer still owes is known, and a chunk that nobody asked for is a fault.

mod endgame;
mod moves;
mod peer;
mod rarity;
mod spread;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use proto::{Bitfield, ChunkIndex, ChunkSpace};
use rand::{Rng, seq::SliceRandom};

use peer::{Lateness, Peer, Standing, UNIQUE_DEPTH};
use rarity::Rarity;

/// Time for which requests wait at a peer: long enough to cover the way there and back, short enough that
/// work is not stuck at one peer while others are idle.
const PIPELINE_TIME: Duration = Duration::from_millis(250);

/// A peer that failed to deliver in time this often is dropped.
const MAX_STRIKES: u32 = 3;

/// Peers that have nothing to do are looked at again after this time.
const REVIEW_INTERVAL: Duration = Duration::from_millis(100);

/// ... and in the endgame all peers after this time.
const ENDGAME_REVIEW_INTERVAL: Duration = Duration::from_millis(25);

/// No more is asked of fellows while so many chunks are arriving: this side's link is the limit then, and each
/// more would only hold up a sender that could serve somebody else.
const MAX_ARRIVING: usize = 8;

/// Names a connection for as long as it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub u64);

/// What a peer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Have {
    /// Everything: a seeder.
    All,
    /// These chunks, and those that it tells of later.
    Some(Bitfield),
}

/// Something that the shell has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Ask the peer for the chunk.
    Request(PeerKey, ChunkIndex),
    /// Tell the peer that the chunk is no longer wanted.
    Cancel(PeerKey, ChunkIndex),
    /// End the connection: the peer failed to deliver too often.
    Drop(PeerKey),
}

impl Command {
    fn peer(self) -> PeerKey {
        match self {
            Command::Request(key, _) | Command::Cancel(key, _) | Command::Drop(key) => key,
        }
    }
}

/// What to do with a chunk that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Prove it and write it, then call [`Scheduler::stored`] or [`Scheduler::wrong`].
    Verify,
    /// It is here already: drop its bytes. They were wasted.
    Duplicate,
    /// It was never asked of this peer: the peer does not keep to the protocol.
    Unrequested,
}

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    Missing,
    Asked,
    Arrived,
    Stored,
}

/// The peers that were asked for a chunk.
#[derive(Debug)]
struct Asked {
    askers: Vec<PeerKey>,
    /// None of these was asked before.
    since: Instant,
}

/// Decides what to ask of whom. See the module's text.
#[derive(Debug)]
pub struct Scheduler {
    space: ChunkSpace,
    states: Vec<ChunkState>,
    missing: Rarity,
    /// Who was asked for each chunk that is `Asked`.
    asked: BTreeMap<ChunkIndex, Asked>,
    peers: BTreeMap<PeerKey, Peer>,
    /// Peers that may have room for another request.
    ready: BTreeSet<PeerKey>,
    /// Peers that were not asked because too much was arriving.
    held_back: Vec<PeerKey>,
    /// Peers that said that they have nothing to send, and were asked for nothing since.
    idle: BTreeSet<PeerKey>,
    /// Peers of whose chunk the first bytes have come, but not the last.
    arriving: BTreeSet<PeerKey>,
    /// Peers that are not seeders.
    fellows: usize,
    commands: VecDeque<Command>,
    unstored: u32,
    /// No deadline or pause ends before this time.
    next_check: Option<Instant>,
    /// When peers were last reviewed.
    reviewed: Option<Instant>,
    /// Chunks that were found then to wait for long at peers that have sent nothing.
    hostages: Vec<ChunkIndex>,
}

impl Scheduler {
    /// The chunks of the share.
    pub(crate) fn space(&self) -> &ChunkSpace {
        &self.space
    }

    /// How many chunks are not stored.
    pub(crate) fn unstored(&self) -> u32 {
        self.unstored
    }

    /// A scheduler for a share of which `have` is here.
    pub fn new(space: ChunkSpace, have: &Bitfield) -> Scheduler {
        let count = space.chunk_count();
        assert_eq!(have.len(), count, "a bitfield of another share");
        let state = |chunk| if have.contains(chunk) { ChunkState::Stored } else { ChunkState::Missing };
        let states: Vec<_> = (0..count).map(ChunkIndex).map(state).collect();
        let mut missing = Rarity::new(count);
        for chunk in (0..count).map(ChunkIndex).filter(|&chunk| !have.contains(chunk)) {
            missing.insert(chunk);
        }
        Scheduler {
            space,
            states,
            missing,
            asked: BTreeMap::new(),
            peers: BTreeMap::new(),
            ready: BTreeSet::new(),
            held_back: Vec::new(),
            idle: BTreeSet::new(),
            arriving: BTreeSet::new(),
            fellows: 0,
            commands: VecDeque::new(),
            unstored: count - have.count(),
            next_check: None,
            reviewed: None,
            hostages: Vec::new(),
        }
    }

    /// Whether every chunk is stored.
    pub fn is_finished(&self) -> bool {
        self.unstored == 0
    }

    /// A peer joined.
    pub fn add_peer(&mut self, key: PeerKey, have: Have, now: Instant) {
        if let Have::Some(field) = &have {
            field.iter().for_each(|chunk| self.missing.more_available(chunk));
            self.fellows += 1;
            if self.fellows == 1 {
                self.ready_seeders();
            }
        }
        let old = self.peers.insert(key, Peer::new(have, now));
        debug_assert!(old.is_none(), "{key:?} joined twice");
        self.ready.insert(key);
    }

    /// A peer left: what it owes goes back to the others.
    pub fn remove_peer(&mut self, key: PeerKey, now: Instant) {
        let Some(mut peer) = self.peers.remove(&key) else { return };
        self.commands.retain(|command| command.peer() != key);
        self.ready.extend(self.held_back.drain(..));
        self.ready.remove(&key);
        self.arriving.remove(&key);
        self.idle.remove(&key);
        if let Have::Some(field) = &peer.have {
            field.iter().for_each(|chunk| self.missing.less_available(chunk));
            self.fellows -= 1;
            // They may have become the only ones to ask for some chunks.
            self.ready_seeders();
        }
        let owed = peer.cancel_all(now);
        self.take_back(key, &owed);
    }

    /// A peer that is there told of more chunks. If the share does not have one of them, the error names it.
    pub fn add_haves(
        &mut self,
        key: PeerKey,
        chunks: impl IntoIterator<Item = ChunkIndex>,
        now: Instant,
    ) -> Result<(), ChunkIndex> {
        let mut peer = self.peers.get_mut(&key);
        if let Some(peer) = &mut peer {
            peer.heard(now);
        }
        let mut newly_spread = Vec::new();
        let mut result = Ok(());
        for chunk in chunks {
            let Some(&state) = self.states.get(chunk.0 as usize) else {
                result = Err(chunk);
                break;
            };
            let Some(peer) = &mut peer else { continue };
            let Have::Some(field) = &mut peer.have else { continue };
            // How available a chunk is that is here matters no more. To forget the message altogether keeps the
            // peer's field and the count in step.
            if state == ChunkState::Stored || !field.insert(chunk) {
                continue;
            }
            self.missing.more_available(chunk);
            match state {
                // A peer that has other chunks to be asked for waits for something else.
                ChunkState::Missing if peer.nothing_to_ask => {
                    peer.nothing_to_ask = false;
                    self.ready.insert(key);
                }
                ChunkState::Asked if self.missing.available(chunk) == 1 => newly_spread.push(chunk),
                ChunkState::Missing | ChunkState::Asked | ChunkState::Arrived | ChunkState::Stored => {}
            }
        }
        newly_spread.into_iter().for_each(|chunk| self.withdraw(chunk, now));
        result
    }

    /// More bytes of a chunk arrived, though not all: so many by now.
    pub fn progressed(&mut self, key: PeerKey, bytes: u32, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.progressed(bytes, now);
        }
    }

    /// A message of any kind came: the peer is there. To be told beside what the message says.
    pub fn alive(&mut self, key: PeerKey, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.heard(now);
        }
    }

    /// The first bytes of a chunk arrived: whoever else was asked for it need not begin.
    pub fn arriving(&mut self, key: PeerKey, chunk: ChunkIndex, now: Instant) {
        let (Some(peer), Some(&state)) = (self.peers.get_mut(&key), self.states.get(chunk.0 as usize)) else {
            return;
        };
        self.arriving.insert(key);
        let may_come = match (peer.arriving(chunk, now), state) {
            (Some(Standing::Wanted), ChunkState::Asked) => true,
            (Some(Standing::Moving { .. }), ChunkState::Asked) => {
                peer.want_again(chunk);
                true
            }
            (Some(Standing::Unwanted), ChunkState::Missing | ChunkState::Asked) => {
                // It crossed with the word that it need not come. Now it is sooner here than from anyone else.
                if peer.want_again(chunk) {
                    self.commands.push_back(Command::Cancel(key, chunk));
                }
                self.missing.remove(chunk);
                self.states[chunk.0 as usize] = ChunkState::Asked;
                let asked_at = peer.asked_at(chunk).unwrap_or(now);
                note_asked(&mut self.asked, chunk, key, asked_at);
                true
            }
            _ => false,
        };
        let Some(Asked { askers, .. }) =
            self.asked.get(&chunk).filter(|asked| may_come && asked.askers.len() > 1)
        else {
            return;
        };
        let is_idle = |other: &PeerKey| self.peers.get(other).is_some_and(|peer| !peer.is_sending(chunk));
        let others: Vec<_> =
            askers.iter().copied().filter(|&other| other != key && is_idle(&other)).collect();
        for other in others {
            self.cancel(other, chunk, Standing::Unwanted, now);
            self.take_back(other, &[chunk]);
        }
    }

    /// A whole chunk arrived.
    pub fn received(&mut self, key: PeerKey, chunk: ChunkIndex, now: Instant) -> Received {
        let Some(span) = self.space.span(chunk) else { return Received::Unrequested };
        let Some(peer) = self.peers.get_mut(&key) else { return Received::Duplicate };
        let standing = peer.delivered(chunk, span.len, now);
        self.arriving.remove(&key);
        self.ready.insert(key);
        self.ready.extend(self.held_back.drain(..));
        match (standing, self.states[chunk.0 as usize]) {
            (None, _) => return Received::Unrequested,
            (_, ChunkState::Arrived | ChunkState::Stored) => return Received::Duplicate,
            // Taken back from this peer, and nobody else was asked yet.
            (_, ChunkState::Missing) => self.missing.remove(chunk),
            (_, ChunkState::Asked) => {
                for other in self.asked.remove(&chunk).into_iter().flat_map(|asked| asked.askers) {
                    self.cancel(other, chunk, Standing::Unwanted, now);
                }
            }
        }
        self.states[chunk.0 as usize] = ChunkState::Arrived;
        Received::Verify
    }

    /// A chunk that had to be verified was proved and written.
    pub fn stored(&mut self, chunk: ChunkIndex) {
        let state = &mut self.states[chunk.0 as usize];
        debug_assert_eq!(*state, ChunkState::Arrived, "{chunk:?}");
        *state = ChunkState::Stored;
        self.unstored -= 1;
    }

    /// A chunk that had to be verified was wrong: its sender has to go ([`Scheduler::remove_peer`]), and the
    /// chunk is missing again.
    pub fn wrong(&mut self, chunk: ChunkIndex) {
        debug_assert_eq!(self.states[chunk.0 as usize], ChunkState::Arrived, "{chunk:?}");
        self.set_missing(chunk);
    }

    /// A peer will not send a chunk that it was asked for, because it does not have it.
    pub fn not_have(&mut self, key: PeerKey, chunk: ChunkIndex) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let owed = peer.refused(chunk);
        match &mut peer.have {
            Have::Some(field) => {
                if field.remove(chunk) {
                    self.missing.less_available(chunk);
                }
            }
            // A seeder without a chunk is none, but the rest of its chunks may still be good.
            Have::All => {
                let mut field = Bitfield::full(self.space.chunk_count());
                field.remove(chunk);
                self.fellows += 1;
                field.iter().for_each(|chunk| self.missing.more_available(chunk));
                peer.have = Have::Some(field);
            }
        }
        if owed {
            self.take_back(key, &[chunk]);
        }
        self.ready.insert(key);
    }

    /// Whether a peer has a chunk that is not here and has not arrived.
    pub fn wants_of(&self, key: PeerKey) -> bool {
        let is_wanted = |chunk: ChunkIndex| {
            matches!(self.states[chunk.0 as usize], ChunkState::Missing | ChunkState::Asked)
        };
        self.peers.get(&key).is_some_and(|peer| match &peer.have {
            Have::All => self.unstored > 0,
            Have::Some(field) => field.iter().any(is_wanted),
        })
    }

    /// A peer has too much to do: it is not asked again before `until`.
    pub fn busy(&mut self, key: PeerKey, chunk: ChunkIndex, until: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.pause(until);
        self.next_check = self.next_check.map_or(Some(until), |check| Some(check.min(until)));
        if peer.refused(chunk) {
            self.take_back(key, &[chunk]);
        }
    }

    /// Takes back what is overdue, and asks every peer for as much as it should have waiting.
    pub fn fill(&mut self, now: Instant, rng: &mut impl Rng) {
        if self.next_check.is_some_and(|check| check <= now) {
            self.check_deadlines(now);
        }
        if let Some(interval) = self.review_interval()
            && self.reviewed.is_none_or(|at| at + interval <= now)
        {
            self.reviewed = Some(now);
            self.review(now);
        }
        if self.ready.is_empty() {
            return;
        }
        let mut round: Vec<PeerKey> = std::mem::take(&mut self.ready).into_iter().collect();
        round.shuffle(rng);
        // One request a peer and round, so that a share of few chunks is spread over all.
        while !round.is_empty() {
            round.retain(|&key| self.ask(key, now, rng));
        }
    }

    /// The next thing to do, if any. Call until it returns `None`.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Whether [`Scheduler::fill`] may find something to do at once.
    pub fn has_news(&self) -> bool {
        !self.ready.is_empty() || !self.commands.is_empty()
    }

    /// When to call [`Scheduler::fill`] again though nothing happened.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let tick = self.review_interval().map(|interval| {
            let due = self.reviewed.map(|at| at + interval);
            due.filter(|&due| due > now).unwrap_or(now + interval)
        });
        self.next_check.into_iter().chain(tick).min()
    }

    /// What is asked of seeders depends on the fellows that there are.
    fn ready_seeders(&mut self) {
        for (&key, seeder) in self.peers.iter_mut().filter(|(_, peer)| peer.have == Have::All) {
            seeder.nothing_to_ask = false;
            self.ready.insert(key);
        }
    }

    /// After which time requests that wait are to be looked at again, if they are.
    fn review_interval(&self) -> Option<Duration> {
        if self.is_endgame() {
            return Some(ENDGAME_REVIEW_INTERVAL);
        }
        (!self.asked.is_empty()).then_some(REVIEW_INTERVAL)
    }

    /// Looks for requests that wait where they are, and for peers that might take them over.
    fn review(&mut self, now: Instant) {
        self.find_hostages(now);
        if self.is_endgame() {
            self.ready.extend(self.peers.keys());
            return;
        }
        self.ready.extend(&self.idle);
        if !self.hostages.is_empty() {
            let with_time = self.peers.iter().filter(|(_, peer)| peer.has_time());
            self.ready.extend(with_time.map(|(&key, _)| key));
        }
    }

    fn check_deadlines(&mut self, now: Instant) {
        let late: Vec<_> =
            self.peers.iter().filter_map(|(&key, peer)| Some((key, peer.lateness(now)?))).collect();
        for (key, lateness) in late {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let owed = match lateness {
                Lateness::Silent => peer.strike(now),
                Lateness::Overdue => peer.excuse(now),
            };
            if peer.strikes >= MAX_STRIKES {
                self.commands.push_back(Command::Drop(key));
            }
            self.commands.extend(owed.iter().map(|&chunk| Command::Cancel(key, chunk)));
            self.take_back(key, &owed);
        }
        let rested = self.peers.iter_mut().filter_map(|(&key, peer)| peer.rested(now).then_some(key));
        self.ready.extend(rested);
        self.ready.extend(self.held_back.drain(..));
        self.next_check = self.peers.values().filter_map(|peer| peer.next_timeout(now)).min();
    }

    /// Asks a peer for one chunk; false if it has enough to do or nothing that is wanted.
    fn ask(&mut self, key: PeerKey, now: Instant, rng: &mut impl Rng) -> bool {
        let Some(chunk) = self.choose(key, now, rng) else { return false };
        self.request(key, chunk, now);
        true
    }

    /// Asks a peer for a chunk.
    fn request(&mut self, key: PeerKey, chunk: ChunkIndex, now: Instant) {
        self.missing.remove(chunk);
        self.states[chunk.0 as usize] = ChunkState::Asked;
        note_asked(&mut self.asked, chunk, key, now);
        self.idle.remove(&key);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.ask(chunk, self.space.span(chunk).map_or(0, |span| span.len), now);
            let timeout = peer.next_timeout(now);
            self.next_check = self.next_check.into_iter().chain(timeout).min();
        }
        self.commands.push_back(Command::Request(key, chunk));
    }

    /// What to ask a peer for, if anything.
    fn choose(&mut self, key: PeerKey, now: Instant, rng: &mut impl Rng) -> Option<ChunkIndex> {
        let peer = self.peers.get_mut(&key)?;
        if peer.is_paused(now) || !peer.has_room() {
            return None;
        }
        let alone = self.fellows == 0;
        if peer.have == Have::All && !alone && peer.owes() < UNIQUE_DEPTH {
            // What no fellow has.
            if let Some(chunk) = self.missing.pick_unavailable(rng) {
                return Some(chunk);
            }
        }
        if !peer.wants_more(self.fellows) {
            return None;
        }
        if peer.have != Have::All && self.is_flooded(now) {
            self.held_back.push(key);
            return None;
        }
        let peer = self.peers.get_mut(&key)?;
        let chunk = if peer.nothing_to_ask { None } else { self.missing.pick(&peer.have, rng) };
        if chunk.is_none() {
            peer.nothing_to_ask = true;
            self.move_to_idle(key, now);
            return self.endgame_pick(key, now);
        }
        chunk
    }

    /// Whether as many chunks are arriving as should.
    fn is_flooded(&self, now: Instant) -> bool {
        let arriving = || self.arriving.iter().filter_map(|key| self.peers.get(key));
        self.arriving.len() >= MAX_ARRIVING
            && arriving().filter(|peer| peer.is_receiving(now)).count() >= MAX_ARRIVING
    }

    /// Tells a peer that a chunk need not come.
    fn cancel(&mut self, key: PeerKey, chunk: ChunkIndex, standing: Standing, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.cancel(chunk, standing, now) {
            self.ready.insert(key);
            self.commands.push_back(Command::Cancel(key, chunk));
        }
    }

    /// Chunks that a peer was asked for and will not be waited for: missing again, unless asked elsewhere too.
    fn take_back(&mut self, key: PeerKey, chunks: &[ChunkIndex]) {
        for &chunk in chunks {
            let Some(asked) = self.asked.get_mut(&chunk) else { continue };
            asked.askers.retain(|&asker| asker != key);
            if asked.askers.is_empty() {
                self.asked.remove(&chunk);
                self.set_missing(chunk);
            }
        }
    }

    fn set_missing(&mut self, chunk: ChunkIndex) {
        self.states[chunk.0 as usize] = ChunkState::Missing;
        self.missing.insert(chunk);
        for (&key, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.has(chunk)) {
            peer.nothing_to_ask = false;
            self.ready.insert(key);
        }
    }
}

/// Takes note that a peer was asked for a chunk.
fn note_asked(asked: &mut BTreeMap<ChunkIndex, Asked>, chunk: ChunkIndex, key: PeerKey, at: Instant) {
    let Asked { askers, since } =
        asked.entry(chunk).or_insert_with(|| Asked { askers: Vec::new(), since: at });
    *since = at.min(*since);
    if !askers.contains(&key) {
        askers.push(key);
    }
}

#[cfg(test)]
mod tests;
