//! The connections of a swarm, each from the dial or the accept until it is over.

mod busy;
mod outcomes;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use proto::{
    PeerId,
    peer::{GoodbyeReason, Hello, Role},
};
use rand::{Rng, RngExt};

use crate::{
    leaving::{LeaveReason, REDIAL_REST},
    peer_book::{Admission, PeerBook, Redial},
    scheduler::PeerKey,
};
use busy::Busy;
use outcomes::Outcomes;

/// What a peer receives if there is no room for it. It may come back after 5 s.
pub const NO_ROOM: GoodbyeReason = GoodbyeReason::TooManyPeers { retry_after_ms: 5_000 };

/// A peer that was dialled and sends no `Hello` within this time makes room for another address, if there is one. The time doubles with
/// each failure of its address in a row, [`MAX_DOUBLINGS`] times at most: by then the session has given up.
const DIAL_PATIENCE: Duration = Duration::from_millis(500);
const MAX_DOUBLINGS: u32 = 5;

/// With this many peers it does not matter how many addresses do not answer.
const ENOUGH: usize = 4;

/// Maximum number of accepted connections, as a multiple of `max_peers`: those that the book lists, those that it does not list
/// ([`Peers::replaced_by_unlisted`]), and some that begin or end.
const ACCEPTED_FACTOR: usize = 2;

/// The connections of a swarm, and the addresses of peers to connect to.
#[derive(Debug)]
pub(super) struct Peers {
    pub(super) book: PeerBook,
    own_id: PeerId,
    peers: BTreeMap<PeerKey, Contact>,
    /// The number of `peers` that this side dialled, and of those of them that it has ended. Kept, because every decision needs them.
    dialled: usize,
    dialled_leaving: usize,
    busy: Busy,
    /// The peers that answered for a chunk that its file changed.
    changed: BTreeSet<PeerKey>,
    outcomes: Outcomes,
    /// Connections that are over while chunks from them are being proved.
    departed: BTreeMap<PeerKey, Departed>,
    /// Maximum number of connections that this side makes. Those that it accepts have a bound of their own.
    max_peers: usize,
    last_key: u64,
}

#[derive(Debug)]
struct Contact {
    /// The other end of the connection.
    address: SocketAddr,
    /// The address in the book, where the peer listens.
    listed: Option<SocketAddr>,
    dialled: bool,
    state: State,
    /// Chunks from it that are being proved.
    unproved: usize,
}

/// The life of a connection.
#[derive(Debug)]
enum State {
    /// This side dials since this time.
    Dialling(Instant),
    /// The peer can only be asked for the description yet, or has just connected.
    Beginning,
    /// The peer can be asked for chunks.
    Active(Hello),
    /// This side ended it, and waits until it is over. Its events no longer count.
    Leaving { reason: LeaveReason, was_active: bool },
}

/// A connection that is over. While a chunk from it is being proved, the book counts its address as connected, so that a
/// liar that left is not dialled before it is found out.
#[derive(Debug)]
struct Departed {
    address: SocketAddr,
    /// The address in the book, where the peer listens.
    listed: Option<SocketAddr>,
    dialled: bool,
    unproved: usize,
    redial: Redial,
}

/// A connection that is over.
pub(super) struct Left {
    pub(super) address: SocketAddr,
    pub(super) reason: LeaveReason,
    pub(super) was_active: bool,
}

/// What to do with a peer that is ready to be asked for chunks.
pub(super) enum Verdict {
    Welcome,
    /// It is welcome, and this other connection must end: the peer's other one, or one that makes room.
    Instead(PeerKey, LeaveReason),
    Refused(GoodbyeReason),
}

impl Peers {
    pub(super) fn new(own_id: PeerId, max_peers: usize) -> Peers {
        Peers {
            book: PeerBook::new(max_peers),
            own_id,
            peers: BTreeMap::new(),
            dialled: 0,
            dialled_leaving: 0,
            busy: Busy::default(),
            changed: BTreeSet::new(),
            outcomes: Outcomes::default(),
            departed: BTreeMap::new(),
            max_peers,
            last_key: 0,
        }
    }

    /// Maximum number of peers to connect to.
    pub(super) fn most(&self) -> usize {
        self.max_peers
    }

    /// Changes it. Connections beyond it stay.
    pub(super) fn set_most(&mut self, most: usize) {
        self.max_peers = most;
        self.book.set_most(most);
    }

    /// The next peer to dial, if one is due and there is room.
    pub(super) fn dial(&mut self, now: Instant, rng: &mut impl Rng) -> Option<(PeerKey, SocketAddr)> {
        // Counted apart from the accepted ones, so peers that connect cannot stop this side's dials.
        if self.dialled >= self.max_peers {
            return None;
        }
        let address = self.book.next_dial(now, rng)?;
        Some((self.begin(address, Some(address), State::Dialling(now)), address))
    }

    /// The peer that was dialled longest ago of those that do not answer in time, if its place is needed for another address.
    pub(super) fn unanswered(&self, now: Instant) -> Option<PeerKey> {
        if !self.needs_places(now) {
            return None;
        }
        self.silent_from().filter(|&(from, _)| from <= now).min().map(|(_, key)| key)
    }

    /// When to call [`Peers::unanswered`] and [`Peers::dial`] again if nothing happens before.
    pub(super) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        if !self.needs_places(now) {
            return self.book.next_timeout(now);
        }
        self.silent_from().map(|(from, _)| from).filter(|&from| from > now).min()
    }

    /// Whether more addresses are due than can be dialled now and when this side's ended connections are over.
    fn needs_places(&self, now: Instant) -> bool {
        let is_full = !self.book.has_room_to_dial() || self.dialled >= self.max_peers;
        is_full && self.book.has_more_due(self.dialled_leaving, now)
    }

    /// The peers that were dialled and have not answered, and from when on each makes room for another.
    fn silent_from(&self) -> impl Iterator<Item = (Instant, PeerKey)> + '_ {
        // Usually there are none, and every decision asks.
        let peers = self.book.is_dialling().then_some(&self.peers).into_iter().flatten();
        peers.filter_map(|(&key, peer)| match (&peer.state, peer.listed) {
            (&State::Dialling(since), Some(address)) => {
                let patience =
                    DIAL_PATIENCE * 2_u32.saturating_pow(self.book.failures(address).min(MAX_DOUBLINGS));
                Some((since + patience, key))
            }
            _ => None,
        })
    }

    /// A peer sent its `Hello`.
    pub(super) fn answered(&mut self, key: PeerKey) {
        if let Some(Contact { state: state @ State::Dialling(_), .. }) = self.peers.get_mut(&key) {
            *state = State::Beginning;
        }
    }

    /// A peer connected from `address`. `None` if there is no room.
    pub(super) fn accept(&mut self, address: SocketAddr) -> Option<PeerKey> {
        // On a socket for IPv4 and IPv6 both, IPv4 addresses appear as IPv4-mapped IPv6.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let most = ACCEPTED_FACTOR.saturating_mul(self.max_peers);
        (self.peers.len() - self.dialled < most).then(|| self.begin(address, None, State::Beginning))
    }

    fn begin(&mut self, address: SocketAddr, listed: Option<SocketAddr>, state: State) -> PeerKey {
        self.last_key += 1;
        let key = PeerKey(self.last_key);
        let dialled = listed.is_some();
        self.dialled += usize::from(dialled);
        self.peers.insert(key, Contact { address, listed, dialled, state, unproved: 0 });
        key
    }

    /// A peer is ready to be asked for chunks.
    pub(super) fn enter(&mut self, key: PeerKey, hello: Hello, now: Instant, rng: &mut impl Rng) -> Verdict {
        let Some(peer) = self.peers.get(&key) else { return Verdict::Refused(GoodbyeReason::Done) };
        let twin = self.twin_of(peer, &hello);
        if let Some((_, twin_dialled)) = twin {
            // Both sides keep the connection that the peer with the larger id made, so that they do not close both.
            let twin_initiator = if twin_dialled { self.own_id } else { hello.peer_id };
            if twin_initiator == self.own_id.max(hello.peer_id) {
                return Verdict::Refused(GoodbyeReason::Duplicate);
            }
        }
        let replaced = match self.list(key, &hello, now, rng) {
            Ok(replaced) => replaced,
            Err(reason) => return Verdict::Refused(reason),
        };
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.state = State::Active(hello);
        }
        let twin = twin.map(|(twin, _)| (twin, LeaveReason::Goodbye(GoodbyeReason::Duplicate)));
        twin.or(replaced).map_or(Verdict::Welcome, |(other, reason)| Verdict::Instead(other, reason))
    }

    /// The other peers of the host that a peer connected from. None if this side dialled the peer.
    pub(super) fn others_of_its_host(&self, key: PeerKey) -> impl Iterator<Item = (PeerKey, bool)> + '_ {
        let host = self.peers.get(&key).filter(|peer| !peer.dialled).map(|peer| peer.address.ip());
        let others =
            self.peers.iter().filter(move |&(&other, peer)| other != key && Some(peer.address.ip()) == host);
        others.map(|(&key, peer)| (key, peer.dialled))
    }

    /// The same peer's connection in the other direction, if there is one, and whether this side made it. Any peer can claim any
    /// id, so the address that was dialled must be the one where the peer listens.
    fn twin_of(&self, new: &Contact, hello: &Hello) -> Option<(PeerKey, bool)> {
        let listens =
            |accepted: &Contact, hello: &Hello| SocketAddr::new(accepted.address.ip(), hello.listen_port);
        let is_twin = |other: &Contact| match &other.state {
            State::Active(others) if others.peer_id == hello.peer_id => match (new.dialled, other.dialled) {
                (true, false) => listens(other, others) == new.address,
                (false, true) => listens(new, hello) == other.address,
                _ => false,
            },
            _ => false,
        };
        self.peers.iter().find(|(_, peer)| is_twin(peer)).map(|(&key, peer)| (key, peer.dialled))
    }

    /// Enters a peer in the book, under the address where it listens. Returns the peer that must make room for it, if one
    /// must.
    fn list(
        &mut self,
        key: PeerKey,
        hello: &Hello,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Result<Option<(PeerKey, LeaveReason)>, GoodbyeReason> {
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(None) };
        if let Some(listed) = peer.listed {
            self.book.connected(listed, now);
            return Ok(None);
        }
        if self.book.is_barred(peer.address.ip()) {
            return Err(GoodbyeReason::Banned);
        }
        if self.book.is_resting(peer.address.ip(), now) {
            return Err(NO_ROOM);
        }
        // It may be a liar that left. A moment later that is known.
        if self.departed.values().any(|other| !other.dialled && other.address.ip() == peer.address.ip()) {
            return Err(NO_ROOM);
        }
        if hello.listen_port == 0 {
            // It listens nowhere, so there is no address to enter.
            return Ok(self.replaced_by_unlisted(rng));
        }
        let listens = SocketAddr::new(peer.address.ip(), hello.listen_port);
        match self.book.admit(listens, now, rng) {
            Admission::Welcome => peer.listed = Some(listens),
            Admission::Replaces(gone) => {
                peer.listed = Some(listens);
                let is_gone = |peer: &Contact| peer.listed == Some(gone) && peer.is_active();
                let gone = self.peers.iter().find(|(_, peer)| is_gone(peer)).map(|(&key, _)| key);
                return Ok(gone.map(|gone| (gone, LeaveReason::Goodbye(NO_ROOM))));
            }
            // Another connection has this address, or claims it. It is not entered twice.
            Admission::Duplicate => return Ok(self.replaced_by_unlisted(rng)),
            Admission::Banned => return Err(GoodbyeReason::Banned),
            Admission::Full => return Err(NO_ROOM),
        }
        Ok(None)
    }

    /// The peer that has to make room for one that the book does not list: when half of `max_peers` are not listed, a random one of
    /// these, as in the book.
    fn replaced_by_unlisted(&self, rng: &mut impl Rng) -> Option<(PeerKey, LeaveReason)> {
        let unlisted = self.peers.iter().filter(|(_, peer)| peer.listed.is_none() && peer.is_active());
        let unlisted: Vec<_> = unlisted.map(|(&key, _)| key).collect();
        let is_full = unlisted.len() >= self.max_peers.div_ceil(2);
        is_full.then(|| (unlisted[rng.random_range(0..unlisted.len())], LeaveReason::Goodbye(NO_ROOM)))
    }

    /// This side ends a connection. False if it is already ended or over.
    pub(super) fn leave(&mut self, key: PeerKey, reason: LeaveReason, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| !peer.is_leaving()) else { return false };
        let (address, dialled) = (peer.address, peer.dialled);
        peer.state = State::Leaving { reason: reason.clone(), was_active: peer.is_active() };
        self.dialled_leaving += usize::from(dialled);
        // Before the connection is over, so that it cannot come again meanwhile.
        self.refuse_host(&reason, address, dialled, now);
        true
    }

    /// Refuses the host of a peer that lied, or that connected and broke the protocol. It has no other address to be known by.
    fn refuse_host(&mut self, reason: &LeaveReason, address: SocketAddr, dialled: bool, now: Instant) {
        match reason {
            LeaveReason::Lied => self.book.bar(address.ip()),
            LeaveReason::Protocol(_) if !dialled => self.book.rest_host(address.ip(), now + REDIAL_REST),
            _ => {}
        }
    }

    /// A connection is over. `reason` is what the other side or the network did.
    pub(super) fn closed(
        &mut self,
        key: PeerKey,
        reason: LeaveReason,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<Left> {
        let Contact { address, listed, dialled, state, unproved } = self.peers.remove(&key)?;
        self.busy.forget(key);
        self.changed.remove(&key);
        self.dialled -= usize::from(dialled);
        let (reason, was_active) = match state {
            State::Leaving { reason, was_active } => {
                self.dialled_leaving -= usize::from(dialled);
                (reason, was_active)
            }
            State::Active(_) => (reason, true),
            State::Dialling(_) | State::Beginning => (reason, false),
        };
        let consequence = reason.consequence(was_active);
        if consequence.is_trouble {
            self.outcomes.trouble(address, reason.clone());
        }
        self.refuse_host(&reason, address, dialled, now);
        if let Some(listed) = listed {
            self.outcomes.record(listed, consequence.outcome, &self.book);
        }
        let departed = Departed { address, listed, dialled, unproved, redial: consequence.redial };
        if unproved == 0 {
            self.departed(&departed, now, rng);
        } else {
            self.departed.insert(key, departed);
        }
        Some(Left { address, reason, was_active })
    }

    /// Enters in the book that a connection is over and all its chunks are proved.
    fn departed(&mut self, departed: &Departed, now: Instant, rng: &mut impl Rng) {
        let Some(listed) = departed.listed else { return };
        let redial = match departed.redial {
            // A peer that connected may claim another peer's address.
            Redial::Never if !departed.dialled => Redial::After(REDIAL_REST),
            // If the other connection is over too, the address is free.
            Redial::Duplicate if !self.peers.values().any(|other| other.listed == Some(listed)) => {
                Redial::BackOff
            }
            redial => redial,
        };
        self.book.disconnected(listed, redial, now, rng);
    }

    /// A chunk from a peer is being proved.
    pub(super) fn proving(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.unproved += 1;
        }
    }

    /// A chunk from a peer was proved right or wrong.
    pub(super) fn proved(&mut self, key: PeerKey, now: Instant, rng: &mut impl Rng) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.unproved -= 1;
        } else if let Some(departed) = self.departed.get_mut(&key) {
            departed.unproved -= 1;
            if departed.unproved == 0
                && let Some(departed) = self.departed.remove(&key)
            {
                self.departed(&departed, now, rng);
            }
        }
    }

    /// A peer that has left, or is leaving for another reason, was found to have lied. Returns its address if it has left and
    /// was not known as a liar.
    pub(super) fn ban_departed(&mut self, key: PeerKey) -> Option<SocketAddr> {
        if let Some(Contact { state: State::Leaving { reason, .. }, address, .. }) = self.peers.get_mut(&key)
        {
            *reason = LeaveReason::Lied;
            self.book.bar(address.ip());
            return None;
        }
        let departed = self.departed.get_mut(&key).filter(|departed| departed.redial != Redial::Never)?;
        departed.redial = Redial::Never;
        self.book.bar(departed.address.ip());
        self.outcomes.trouble(departed.address, LeaveReason::Lied);
        Some(departed.address)
    }

    /// A welcome peer answered that it is busy for the time `retry_after`. Returns how long not to ask it.
    pub(super) fn busy_rest(&mut self, key: PeerKey, retry_after: Duration) -> Duration {
        self.busy.answered(key, retry_after)
    }

    /// A peer sent a chunk, so it is not busy.
    pub(super) fn delivered(&mut self, key: PeerKey) {
        self.busy.forget(key);
    }

    /// A peer answered for a chunk that its file changed.
    pub(super) fn file_changed(&mut self, key: PeerKey) {
        if self.peers.contains_key(&key) {
            self.changed.insert(key);
        }
    }

    /// The active peers that have a changed file.
    pub(super) fn changed(&self) -> Vec<PeerKey> {
        let is_active = |key: &PeerKey| self.peers.get(key).is_some_and(Contact::is_active);
        self.changed.iter().copied().filter(is_active).collect()
    }

    /// The active seeders.
    pub(super) fn seeders(&self) -> Vec<PeerKey> {
        let is_seeder =
            |peer: &Contact| matches!(&peer.state, State::Active(hello) if hello.role == Role::Seeder);
        self.peers.iter().filter(|(_, peer)| is_seeder(peer)).map(|(&key, _)| key).collect()
    }

    /// Whether a connection exists and this side has not ended it.
    pub(super) fn is_welcome(&self, key: PeerKey) -> bool {
        self.peers.get(&key).is_some_and(|peer| !peer.is_leaving())
    }

    /// Where the other end of a connection is, or was, if a chunk from it is still being proved.
    pub(super) fn address(&self, key: PeerKey) -> Option<SocketAddr> {
        let departed = || self.departed.get(&key).map(|departed| departed.address);
        self.peers.get(&key).map(|peer| peer.address).or_else(departed)
    }

    /// The peers that can be asked for chunks.
    pub(super) fn active(&self) -> impl Iterator<Item = (PeerKey, SocketAddr)> + '_ {
        let active = self.peers.iter().filter(|(_, peer)| peer.is_active());
        active.map(|(&key, peer)| (key, peer.address))
    }

    /// Whether there are too few peers that can be asked for chunks: none, or fewer than [`ENOUGH`] and than addresses that do not
    /// answer.
    pub(super) fn are_too_few(&self) -> bool {
        let active = self.active().take(ENOUGH).count();
        active == 0 || active < ENOUGH && active < self.book.failing()
    }
}

impl Contact {
    fn is_active(&self) -> bool {
        matches!(self.state, State::Active(_))
    }

    fn is_leaving(&self) -> bool {
        matches!(self.state, State::Leaving { .. })
    }
}

#[cfg(test)]
mod tests;
