//! Which chunk to request from which peer, and when to stop waiting for it.
//!
//! Pure: time and randomness are arguments, and [`Scheduler::poll_command`] returns what to do.
//!
//! Each chunk is in one state ([`rarity`] holds the missing ones):
//!
//! ```text
//!            fill                 received              stored
//! Missing ─────────▶ Asked ─────────────────▶ Arrived ─────────▶ Stored
//!    ▲                 │ peer left, stalled,     │
//!    └─────────────────┴ rejected ───────────────┘ wrong
//! ```
//! A chunk that is not wanted is `Unwanted` from the beginning to the end.
//!
//! A chunk of which this host has similar bytes is asked for in another [`Form`] first: its leaves, and then the blocks that differ
//! ([`parts`]). It goes through the same states once for each form, and back to `Missing` in between.
//!
//! Policy: A peer that joined with all chunks is a *seeder*, any other a *leecher*. A chunk that a leecher has is requested from
//! it, the rarest first with random ties. Few requests wait at a leecher, because it serves many others. A chunk that no leecher
//! has is requested from a seeder. Many such requests wait there, so that the seeder can choose chunks that no peer has
//! ([`crate::uploads`]). When a leecher announces such a chunk, the request that still waits at a seeder is withdrawn. A seeder is
//! asked for chunks that leechers have only if there is nothing else to ask it for, and few leechers send. Without leechers, as many
//! requests wait at a seeder as its measured rate can serve in [`PIPELINE_TIME`]. A request that waits at one peer moves to another
//! that reports that it is idle ([`moves`]).
//!
//! If a peer is silent for several times as long as a chunk should take, its requests are taken back. If that happens again and
//! again, it is dropped. A peer that sends keep-alives ([`Scheduler::alive`]) only serves others first. When nothing is left to
//! request, chunks that are expected late are requested from a second peer too ([`endgame`]). The first to send the chunk ends the
//! other's request. A wrong chunk bans its sender. Until a first chunk of a peer is proved right, the peer is asked for one chunk at a
//! time, or two if the first takes long, and a second is not proved meanwhile. So a liar gets one wrong chunk in. Leaves are no chunks:
//! as many as are as long as a chunk are asked for meanwhile.
//!
//! A peer answers each request once, with the chunk or a rejection, also when the request was cancelled. So what a peer owes is
//! always known, and a chunk that was not requested is a violation of the protocol.

mod choice;
mod deadlines;
mod endgame;
mod moves;
mod parts;
mod peer;
mod rarity;
mod spread;
mod zone;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use proto::{
    Bitfield, ChunkIndex, ChunkSpace,
    peer::{Form, Wish},
    tracker::Completion,
};
use rand::{Rng, seq::SliceRandom};

use parts::Parts;
use peer::{Earned, Peer, Room, Standing};
use rarity::Rarity;
use zone::Zone;

pub use spread::Spread;
pub use zone::Place;

/// Time that the requests waiting at a seeder should take it: long enough for a round trip, short enough that chunks do not
/// wait at one peer while others are idle.
const PIPELINE_TIME: Duration = Duration::from_millis(250);

/// The key of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub u64);

/// The chunks that a peer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Have {
    /// All chunks: it is a seeder.
    All,
    /// These chunks, and those that it announces later.
    Some(Bitfield),
}

/// A command for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Request the chunk from the peer, or a part of it.
    Request(PeerKey, Wish),
    /// Cancel the request for the chunk.
    Cancel(PeerKey, ChunkIndex),
    /// End the connection, because the peer missed its deadlines too often.
    Drop(PeerKey),
}

impl Command {
    fn peer(self) -> PeerKey {
        match self {
            Command::Request(key, _) | Command::Cancel(key, _) | Command::Drop(key) => key,
        }
    }
}

/// What an onlooker sees of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkView {
    /// Whether it has all chunks.
    pub(crate) seeder: bool,
    /// Requests that it has not answered.
    pub(crate) owed: u32,
}

/// What to do with a chunk that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Prove and write it, then call [`Scheduler::stored`], [`Scheduler::wrong`] or [`Scheduler::ask_again`].
    Verify,
    /// It is already here, or no longer needed in this form, or another chunk of a peer that is not trusted yet is still being proved. Drop its bytes.
    Duplicate,
    /// It was not requested from this peer, which violates the protocol.
    Unrequested,
}

/// The state of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    /// It is not here and is never requested.
    Unwanted,
    Missing,
    Asked,
    Arrived,
    Stored,
}

/// The peers that were asked for a chunk.
#[derive(Debug)]
struct Asked {
    askers: Vec<PeerKey>,
    /// When the first of them was asked.
    since: Instant,
}

/// Decides which chunk to request from which peer.
#[derive(Debug)]
pub struct Scheduler {
    space: ChunkSpace,
    states: Vec<ChunkState>,
    missing: Rarity,
    /// The chunks that are fetched in parts.
    parts: Parts,
    /// The peers that were asked for each chunk that is `Asked`.
    asked: BTreeMap<ChunkIndex, Asked>,
    peers: BTreeMap<PeerKey, Peer>,
    /// The senders of the chunks that are `Arrived`, and in which form they came.
    proving: BTreeMap<ChunkIndex, (PeerKey, Form)>,
    /// Peers that may have room for another request.
    ready: BTreeSet<PeerKey>,
    /// Peers that were not asked because too many chunks were arriving.
    held_back: Vec<PeerKey>,
    /// Peers that reported that they are idle, and were asked for nothing since.
    idle: BTreeSet<PeerKey>,
    /// Peers from which a chunk is arriving.
    arriving: BTreeSet<PeerKey>,
    /// Number of peers that are not seeders.
    leechers: usize,
    commands: VecDeque<Command>,
    /// Number of chunks that are wanted and not stored.
    unstored: u32,
    stored: u32,
    /// No deadline and no pause ends before this time.
    next_check: Option<Instant>,
    /// When peers were last reviewed.
    reviewed: Option<Instant>,
    /// `None` if this side is in no zone.
    zone: Option<Zone>,
    /// Chunks that the last review found waiting for long at peers that have sent nothing.
    hostages: Vec<ChunkIndex>,
    /// Chunks that were asked for at another peer than a far one and may come from both: no cancellation was confirmed.
    repeated: u32,
}

impl Scheduler {
    /// The chunks of the share.
    pub(crate) fn space(&self) -> &ChunkSpace {
        &self.space
    }

    /// Whether a chunk is stored.
    pub(crate) fn is_stored(&self, chunk: ChunkIndex) -> bool {
        self.states.get(chunk.0 as usize) == Some(&ChunkState::Stored)
    }

    /// Whether a chunk is wanted and not stored.
    pub(crate) fn is_missing(&self, chunk: ChunkIndex) -> bool {
        let state = self.states.get(chunk.0 as usize);
        state.is_some_and(|state| !matches!(state, ChunkState::Stored | ChunkState::Unwanted))
    }

    /// Whether a peer has a chunk that is not stored.
    pub(crate) fn has(&self, key: PeerKey, chunk: ChunkIndex) -> bool {
        self.peers.get(&key).is_some_and(|peer| peer.has(chunk))
    }

    /// What an onlooker sees of a peer.
    pub(crate) fn view(&self, key: PeerKey) -> Option<ChunkView> {
        let peer = self.peers.get(&key)?;
        Some(ChunkView { seeder: peer.have == Have::All, owed: peer.owed() })
    }

    /// Number of chunks that are stored.
    pub(crate) fn stored_count(&self) -> u32 {
        self.stored
    }

    /// How much of what is wanted is stored.
    pub(crate) fn progress(&self) -> Completion {
        Completion::of(self.stored, self.stored + self.unstored)
    }

    /// A scheduler for the chunks `wanted` of a share, of which `have` is here. Chunks that are here count as wanted.
    pub fn new(space: ChunkSpace, wanted: &Bitfield, have: &Bitfield) -> Scheduler {
        let count = space.chunk_count();
        assert_eq!((wanted.len(), have.len()), (count, count), "a bitfield of another share");
        let state = |chunk| match (have.contains(chunk), wanted.contains(chunk)) {
            (true, _) => ChunkState::Stored,
            (false, true) => ChunkState::Missing,
            (false, false) => ChunkState::Unwanted,
        };
        let states: Vec<_> = (0..count).map(ChunkIndex).map(state).collect();
        let mut missing = Rarity::new(count);
        let mut unstored = 0;
        for chunk in wanted.iter().filter(|&chunk| !have.contains(chunk)) {
            missing.insert(chunk);
            unstored += 1;
        }
        Scheduler {
            space,
            states,
            missing,
            parts: Parts::default(),
            asked: BTreeMap::new(),
            peers: BTreeMap::new(),
            proving: BTreeMap::new(),
            ready: BTreeSet::new(),
            held_back: Vec::new(),
            idle: BTreeSet::new(),
            arriving: BTreeSet::new(),
            leechers: 0,
            commands: VecDeque::new(),
            unstored,
            stored: have.count(),
            next_check: None,
            reviewed: None,
            zone: None,
            hostages: Vec::new(),
            repeated: 0,
        }
    }

    /// Whether the first chunk of a peer is requested or being proved.
    pub(crate) fn is_tried(&self, key: PeerKey) -> bool {
        self.peers.get(&key).is_some_and(Peer::is_tried)
    }

    /// Whether a chunk of a peer was proved right.
    pub(crate) fn is_trusted(&self, key: PeerKey) -> bool {
        self.peers.get(&key).is_some_and(Peer::is_trusted)
    }

    /// Whether every wanted chunk is stored.
    pub fn is_finished(&self) -> bool {
        self.unstored == 0
    }

    /// A peer joined.
    pub fn add_peer(&mut self, key: PeerKey, have: Have, now: Instant) {
        if let Have::Some(field) = &have {
            field.iter().for_each(|chunk| self.missing.more_available(chunk));
            self.leechers += 1;
            if self.leechers == 1 {
                self.ready_seeders();
            }
        }
        let old = self.peers.insert(key, Peer::new(have, self.space.chunk_len(), now));
        debug_assert!(old.is_none(), "{key:?} joined twice");
        self.ready.insert(key);
    }

    /// A peer left. The chunks that it owes are missing again.
    pub fn remove_peer(&mut self, key: PeerKey, now: Instant) {
        let Some(mut peer) = self.peers.remove(&key) else { return };
        self.commands.retain(|command| command.peer() != key);
        self.ready.extend(self.held_back.drain(..));
        self.ready.remove(&key);
        self.arriving.remove(&key);
        self.idle.remove(&key);
        self.left_zone(key, &peer);
        if let Have::Some(field) = &peer.have {
            field.iter().for_each(|chunk| self.missing.less_available(chunk));
            self.leechers -= 1;
            // Seeders may now be the only peers that have some chunks.
            self.ready_seeders();
        }
        let owed = peer.cancel_all(now);
        self.take_back(key, &owed);
    }

    /// A peer announced more chunks. If the share does not have one of them, the error names it.
    pub fn add_haves(
        &mut self,
        key: PeerKey,
        chunks: impl IntoIterator<Item = ChunkIndex>,
        now: Instant,
    ) -> Result<(), ChunkIndex> {
        let mut peer = self.peers.get_mut(&key);
        if let Some(peer) = &mut peer {
            peer.alive(now);
        }
        let (mut newly_spread, mut newly_near) = (Vec::new(), Vec::new());
        let mut result = Ok(());
        for chunk in chunks {
            let Some(&state) = self.states.get(chunk.0 as usize) else {
                result = Err(chunk);
                break;
            };
            let Some(peer) = &mut peer else { continue };
            let Have::Some(field) = &mut peer.have else { continue };
            // Chunks that are stored here count too, because a peer that has them does not need this side.
            if !field.insert(chunk) {
                continue;
            }
            self.missing.more_available(chunk);
            if self.zone.as_mut().is_some_and(|zone| zone.spreads(key, chunk)) {
                newly_near.push(chunk);
            }
            match state {
                // A peer that has other missing chunks waits for something else.
                ChunkState::Missing if peer.nothing_to_ask => {
                    peer.nothing_to_ask = false;
                    self.ready.insert(key);
                }
                ChunkState::Asked if self.missing.available(chunk) == 1 => newly_spread.push(chunk),
                ChunkState::Unwanted
                | ChunkState::Missing
                | ChunkState::Asked
                | ChunkState::Arrived
                | ChunkState::Stored => {}
            }
        }
        newly_spread.into_iter().for_each(|chunk| self.withdraw(chunk, now));
        newly_near.into_iter().for_each(|chunk| self.withdraw_far(chunk, now));
        result
    }

    /// More bytes of a chunk arrived, but not all: `bytes` in total.
    pub fn progressed(&mut self, key: PeerKey, bytes: u32, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.progressed(bytes, now);
            if peer.is_tried() && peer.room() == Room::Everything {
                self.ready.insert(key);
            }
        }
    }

    /// A message of any kind arrived, so the peer is alive. Call this in addition to the method for the message.
    pub fn alive(&mut self, key: PeerKey, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.alive(now);
        }
    }

    /// The first bytes of a chunk arrived. Other peers that were asked for it need not send it.
    pub fn arriving(&mut self, key: PeerKey, chunk: ChunkIndex, now: Instant) {
        let (Some(peer), Some(&state)) = (self.peers.get_mut(&key), self.states.get(chunk.0 as usize)) else {
            return;
        };
        self.arriving.insert(key);
        let request = peer.arriving(chunk, now);
        // An answer in a form that is of no use any more changes nothing.
        let request = request.filter(|&(_, form)| self.parts.is_useful(chunk, form));
        let may_come = match (request.map(|(standing, _)| standing), state) {
            (Some(Standing::Wanted), ChunkState::Asked) => true,
            (Some(Standing::Moving { .. }), ChunkState::Asked) => {
                peer.want_again(chunk);
                true
            }
            (Some(Standing::Unwanted), ChunkState::Missing | ChunkState::Asked) => {
                // It crossed with the cancellation. Now no other peer could send it sooner.
                if peer.want_again(chunk) {
                    self.commands.push_back(Command::Cancel(key, chunk));
                }
                self.missing.remove(chunk);
                self.parts.not_missing(chunk);
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

    /// A chunk arrived, or what was asked for of it.
    pub fn received(&mut self, key: PeerKey, wish: impl Into<Wish>, now: Instant) -> Received {
        let wish @ Wish { chunk, form } = wish.into();
        if chunk.0 >= self.space.chunk_count() {
            return Received::Unrequested;
        }
        let Some(peer) = self.peers.get_mut(&key) else { return Received::Duplicate };
        let standing = peer.delivered(wish, now);
        let may_prove = peer.may_prove(form);
        self.arriving.remove(&key);
        self.ready.insert(key);
        self.ready.extend(self.held_back.drain(..));
        self.feeds_zone(key);
        match (standing, self.states[chunk.0 as usize]) {
            (None, _) => return Received::Unrequested,
            (_, ChunkState::Unwanted | ChunkState::Arrived | ChunkState::Stored) => {
                return Received::Duplicate;
            }
            // It crossed with the answer of another peer, after which the chunk is asked for in another form.
            _ if !self.parts.is_useful(chunk, form) => return Received::Duplicate,
            _ if !may_prove => {
                self.take_back(key, &[chunk]);
                return Received::Duplicate;
            }
            // It was taken back from this peer, and no other was asked yet.
            (_, ChunkState::Missing) => {
                self.missing.remove(chunk);
                self.parts.not_missing(chunk);
            }
            (_, ChunkState::Asked) => {
                for other in self.asked.remove(&chunk).into_iter().flat_map(|asked| asked.askers) {
                    self.cancel(other, chunk, Standing::Unwanted, now);
                }
            }
        }
        self.states[chunk.0 as usize] = ChunkState::Arrived;
        self.proving.insert(chunk, (key, form));
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.proving(form);
        }
        Received::Verify
    }

    /// What came of a chunk was proved. Returns the bytes that came for it.
    fn proved(&mut self, chunk: ChunkIndex, earned: Earned) -> u32 {
        let Some((key, form)) = self.proving.remove(&chunk) else { return 0 };
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.proved(form, earned);
            self.ready.insert(key);
        }
        self.space.span(chunk).map_or(0, |span| form.len(span.len))
    }

    /// A chunk was proved and written, after [`Received::Verify`]. Returns the bytes that came for it last.
    pub fn stored(&mut self, chunk: ChunkIndex) -> u32 {
        let state = &mut self.states[chunk.0 as usize];
        debug_assert_eq!(*state, ChunkState::Arrived, "{chunk:?}");
        *state = ChunkState::Stored;
        self.unstored -= 1;
        self.stored += 1;
        self.parts.set(chunk, Form::Whole);
        self.proved(chunk, Earned::Trust)
    }

    /// A chunk was proved wrong, after [`Received::Verify`], and is missing again. The caller must remove its sender
    /// ([`Scheduler::remove_peer`]). Returns the bytes that came.
    pub fn wrong(&mut self, chunk: ChunkIndex) -> u32 {
        debug_assert_eq!(self.states[chunk.0 as usize], ChunkState::Arrived, "{chunk:?}");
        let len = self.proved(chunk, Earned::Nothing);
        self.set_missing(chunk);
        len
    }

    /// What came of a chunk after [`Received::Verify`] is right, and the chunk has to be asked for again, in this form.
    pub fn ask_again(&mut self, chunk: ChunkIndex, form: Form) {
        debug_assert_eq!(self.states[chunk.0 as usize], ChunkState::Arrived, "{chunk:?}");
        self.parts.set(chunk, form);
        // Hashes of blocks are in any case right at a liar whose blocks are wrong.
        self.proved(chunk, Earned::Nothing);
        self.set_missing(chunk);
    }

    /// This host has bytes that are similar to these chunks. They are asked for in parts, if they are missing.
    pub fn has_similar(&mut self, chunks: &Bitfield) {
        for chunk in chunks.iter().filter(|chunk| self.states[chunk.0 as usize] == ChunkState::Missing) {
            self.parts.set(chunk, Form::Leaves);
        }
    }

    /// A peer rejected a request, because it does not have the chunk. False if it was not requested, which violates the protocol.
    pub fn not_have(&mut self, key: PeerKey, chunk: ChunkIndex) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else { return true };
        let Some(owed) = peer.refused(chunk) else { return false };
        match &mut peer.have {
            Have::Some(field) => {
                if field.remove(chunk) {
                    self.missing.less_available(chunk);
                }
            }
            // A seeder that lacks a chunk is no seeder, but its other chunks may still be good.
            Have::All => {
                let mut field = Bitfield::full(self.space.chunk_count());
                field.remove(chunk);
                self.leechers += 1;
                field.iter().for_each(|chunk| self.missing.more_available(chunk));
                peer.have = Have::Some(field);
            }
        }
        if owed {
            self.take_back(key, &[chunk]);
        }
        self.ready.insert(key);
        true
    }

    /// Whether a peer has a chunk that has not arrived.
    pub fn wants_of(&self, key: PeerKey) -> bool {
        let is_wanted = |chunk: ChunkIndex| {
            matches!(self.states[chunk.0 as usize], ChunkState::Missing | ChunkState::Asked)
        };
        self.peers.get(&key).is_some_and(|peer| match &peer.have {
            Have::All => self.unstored > 0,
            Have::Some(field) => field.iter().any(is_wanted),
        })
    }

    /// A peer rejected a request because it is busy. It is not asked again before `until`. False if it was not requested, which
    /// violates the protocol.
    pub fn busy(&mut self, key: PeerKey, chunk: ChunkIndex, until: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else { return true };
        let Some(owed) = peer.refused(chunk) else { return false };
        peer.pause(until);
        self.next_check = self.next_check.map_or(Some(until), |check| Some(check.min(until)));
        if owed {
            self.take_back(key, &[chunk]);
        }
        true
    }

    /// Takes back overdue requests, and makes as many requests to each peer as should wait there.
    pub fn fill(&mut self, now: Instant, rng: &mut impl Rng) {
        self.look_back(now);
        if self.ready.is_empty() {
            return;
        }
        let mut round: Vec<PeerKey> = std::mem::take(&mut self.ready).into_iter().collect();
        round.shuffle(rng);
        // One request for each peer in a round, so that few chunks are spread over all peers.
        while !round.is_empty() {
            round.retain(|&key| self.ask(key, now, rng));
        }
    }

    /// The next command, if any. Call until it returns `None`.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Whether to call [`Scheduler::fill`] or [`Scheduler::poll_command`] now.
    pub fn has_news(&self) -> bool {
        !self.ready.is_empty() || !self.commands.is_empty()
    }

    /// Looks at the seeders again, because what they are asked for depends on the leechers.
    fn ready_seeders(&mut self) {
        for (&key, seeder) in self.peers.iter_mut().filter(|(_, peer)| peer.have == Have::All) {
            seeder.nothing_to_ask = false;
            self.ready.insert(key);
        }
    }

    /// Cancels the request for a chunk.
    fn cancel(&mut self, key: PeerKey, chunk: ChunkIndex, standing: Standing, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.cancel(chunk, standing, now) {
            self.ready.insert(key);
            self.commands.push_back(Command::Cancel(key, chunk));
        }
    }

    /// Takes back requests from a peer. The chunks are missing again, unless another peer was asked for them too.
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
        self.parts.missing(chunk);
        for (&key, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.has(chunk)) {
            peer.nothing_to_ask = false;
            self.ready.insert(key);
        }
    }
}

/// Records that a peer was asked for a chunk.
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
