//! Which peers there are, and whom to connect to when.
//!
//! Pure, like the scheduler. Every address is in one state; bounds hold whatever trackers say. A peer is met
//! once, whoever dialled: one that dialled this process is entered under the address that it listens on.
//!
//! Policy: whom to dial is drawn at random from all that are due, and dialling stops at [`DIALLED_SHARE`] of
//! the connections that there may be. The rest is for those who dial this process. When that is full too, a
//! newcomer takes the place of a random peer that was itself accepted: otherwise those who came first would end up
//! connected to each other and to nobody else, and each such group would have to get its own copy from the
//! origin. Connections that this side dialled are not given up, so that strangers cannot take them all.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand::{Rng, RngExt};

/// Addresses remembered. A tracker's word for more is dropped.
const MAX_ADDRESSES: usize = 1_000;

/// Connections being made at a time.
const MAX_DIALS: usize = 64;

/// Share of the connections up to which this side dials.
const DIALLED_SHARE: f64 = 0.9;

/// A peer that made room for another is not dialled before this time.
const REPLACED_REST: Duration = Duration::from_secs(60);

/// Wait before trying again an address that failed; twice as long with each failure in a row, up to the second.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(15);

/// How a connection ended, as far as the next one is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was not made, or broke.
    Failed,
    /// The peer wants to be left alone for this long.
    RetryAfter(Duration),
    /// It was one too many: the two were connected already, or are by now.
    Duplicate,
    /// Never again: the peer lied, or is this process itself.
    Never,
}

/// What to do with a peer that dialled this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It counts as connected from now on: tell of its end with [`PeerBook::ended`].
    Welcome,
    /// The two are connected already.
    Duplicate,
    /// It is banned.
    Banned,
    /// As [`Admission::Welcome`], but the peer of this address has to go, and is to be told that there are too
    /// many peers. Its connection counts as ended.
    Replaces(SocketAddr),
    /// There are as many connections as there may be, all of them dialled by this side.
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not connected; may be dialled from this time on.
    Idle(Instant),
    Dialling,
    /// Connected, and it was this side that dialled.
    Connected,
    /// Connected, and it was the other side that dialled.
    Accepted,
    Banned,
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// Failures in a row.
    failures: u32,
}

/// The known addresses of a swarm.
#[derive(Debug)]
pub struct PeerBook {
    entries: BTreeMap<SocketAddr, Entry>,
    /// Those that are idle, by when they may be dialled.
    idle: BTreeSet<(Instant, SocketAddr)>,
    dialling: usize,
    connected: usize,
    accepted: BTreeSet<SocketAddr>,
    banned: usize,
    max_peers: usize,
}

impl PeerBook {
    /// A book for at most `max_peers` connections.
    pub fn new(max_peers: usize) -> PeerBook {
        PeerBook {
            entries: BTreeMap::new(),
            idle: BTreeSet::new(),
            dialling: 0,
            connected: 0,
            accepted: BTreeSet::new(),
            banned: 0,
            max_peers,
        }
    }

    /// Takes note of an address; true if it is new.
    pub fn discover(&mut self, address: SocketAddr, now: Instant) -> bool {
        let known = self.entries.contains_key(&address);
        if !known && self.entries.len() < MAX_ADDRESSES {
            self.enter(address, State::Idle(now));
        }
        !known
    }

    /// Number of known addresses.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no address is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there are addresses and not one may be dialled again.
    pub fn is_all_banned(&self) -> bool {
        !self.is_empty() && self.banned == self.entries.len()
    }

    /// An address to connect to now, at random, if there is one and room for it.
    pub fn next_dial(&mut self, now: Instant, rng: &mut impl Rng) -> Option<SocketAddr> {
        if !self.has_room_to_dial() {
            return None;
        }
        let due = || self.idle.iter().take_while(|&&(from, _)| from <= now);
        let count = due().count();
        if count == 0 {
            return None;
        }
        let &(_, address) = due().nth(rng.random_range(0..count))?;
        self.set(address, State::Dialling);
        Some(address)
    }

    /// A dial led to a connection.
    pub fn connected(&mut self, address: SocketAddr) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.failures = 0;
            self.set(address, State::Connected);
        }
    }

    /// Number of connections.
    pub fn connections(&self) -> usize {
        self.connected + self.accepted.len()
    }

    /// A peer that listens on `address` dialled this process. When both dial each other at the same time, each
    /// side takes in the other's dial; which of the two connections stays is for the shell to say, and the end
    /// of the other one is [`Ending::Duplicate`].
    pub fn admit(&mut self, address: SocketAddr, now: Instant, rng: &mut impl Rng) -> Admission {
        let known = self.entries.get(&address).map(|entry| entry.state);
        match known {
            Some(State::Banned) => return Admission::Banned,
            Some(State::Connected | State::Accepted) => return Admission::Duplicate,
            Some(State::Idle(_) | State::Dialling) | None => {}
        }
        let mut admission = Admission::Welcome;
        if self.connections() >= self.max_peers {
            if self.accepted.is_empty() {
                return Admission::Full;
            }
            let victim = self.accepted.iter().nth(rng.random_range(0..self.accepted.len())).copied();
            if let Some(victim) = victim {
                self.set(victim, State::Idle(now + REPLACED_REST));
                admission = Admission::Replaces(victim);
            }
        }
        match known {
            Some(_) => self.set(address, State::Accepted),
            // Beyond what trackers may fill, but bounded by the connections.
            None => self.enter(address, State::Accepted),
        }
        admission
    }

    /// A dial or connection ended.
    pub fn ended(&mut self, address: SocketAddr, ending: Ending, now: Instant, rng: &mut impl Rng) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        let state = match (ending, entry.state) {
            (_, State::Banned) => return,
            (Ending::Never, _) => State::Banned,
            (Ending::Duplicate, State::Connected | State::Accepted) => return,
            // It made room for another, and was not counted since.
            (Ending::RetryAfter(_) | Ending::Failed, State::Idle(_)) => return,
            (Ending::RetryAfter(wait), _) => State::Idle(now + wait),
            (Ending::Failed | Ending::Duplicate, _) => {
                let wait = (FIRST_RETRY * 2_u32.saturating_pow(entry.failures)).min(LAST_RETRY);
                entry.failures += 1;
                State::Idle(now + wait.mul_f64(rng.random_range(0.8..1.2)))
            }
        };
        self.set(address, state);
    }

    /// When [`PeerBook::next_dial`] may have another address though nothing happened.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        if !self.has_room_to_dial() {
            return None;
        }
        self.idle.iter().map(|&(from, _)| from).find(|&from| from > now)
    }

    fn has_room_to_dial(&self) -> bool {
        // While nobody has answered, the share for those who dial this process is no use to anyone.
        let most = if self.connections() == 0 { self.max_peers } else { self.dialled_at_most() };
        self.dialling < MAX_DIALS && self.dialling + self.connections() < most
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a usize")]
    fn dialled_at_most(&self) -> usize {
        (self.max_peers as f64 * DIALLED_SHARE).ceil() as usize
    }

    fn enter(&mut self, address: SocketAddr, state: State) {
        self.count(address, state, true);
        self.entries.insert(address, Entry { state, failures: 0 });
    }

    fn set(&mut self, address: SocketAddr, state: State) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        let old = std::mem::replace(&mut entry.state, state);
        self.count(address, old, false);
        self.count(address, state, true);
    }

    fn count(&mut self, address: SocketAddr, state: State, enters: bool) {
        let counter = match state {
            State::Idle(from) => {
                if enters {
                    self.idle.insert((from, address));
                } else {
                    self.idle.remove(&(from, address));
                }
                return;
            }
            State::Dialling => &mut self.dialling,
            State::Connected => &mut self.connected,
            State::Accepted => {
                if enters {
                    self.accepted.insert(address);
                } else {
                    self.accepted.remove(&address);
                }
                return;
            }
            State::Banned => &mut self.banned,
        };
        *counter = if enters { *counter + 1 } else { *counter - 1 };
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn dials(book: &mut PeerBook, now: Instant, rng: &mut StdRng) -> usize {
        std::iter::from_fn(|| book.next_dial(now, rng)).count()
    }

    #[test]
    fn dials_each_address_once_and_no_more_than_it_may() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut book = PeerBook::new(6);
        for port in [1, 2, 3, 2, 1] {
            book.discover(address(port), now);
        }
        assert_eq!(dials(&mut book, now, &mut rng), 3);
        (4..10).for_each(|port| _ = book.discover(address(port), now));
        assert_eq!(dials(&mut book, now, &mut rng), 3);
        book.connected(address(1));
        assert_eq!(dials(&mut book, now, &mut rng), 0);
        book.ended(address(1), Ending::Never, now, &mut rng);
        assert_eq!(dials(&mut book, now, &mut rng), 1);
    }

    #[test]
    fn few_dials_are_under_way_at_a_time() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut book = PeerBook::new(500);
        (1..100).for_each(|port| _ = book.discover(address(port), now));
        assert_eq!(dials(&mut book, now, &mut rng), MAX_DIALS);
    }

    #[test]
    fn failures_are_tried_again_after_longer_and_longer_waits() {
        let (mut now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut book = PeerBook::new(5);
        book.discover(address(1), now);
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(book.next_dial(now, &mut rng), Some(address(1)));
            book.ended(address(1), Ending::Failed, now, &mut rng);
            assert_eq!(book.next_dial(now, &mut rng), None);
            let next = book.next_timeout(now).unwrap();
            waits.push(next - now);
            now = next;
        }
        assert!(waits[..4].windows(2).all(|w| w[1] > w[0]), "{waits:?}");
        assert!(waits.iter().all(|&wait| wait < LAST_RETRY.mul_f64(1.2)), "{waits:?}");
    }

    #[test]
    fn who_asks_to_be_left_alone_is_and_who_lied_is_for_ever() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut book = PeerBook::new(5);
        book.discover(address(1), now);
        book.next_dial(now, &mut rng);
        book.ended(address(1), Ending::RetryAfter(Duration::from_secs(7)), now, &mut rng);
        assert_eq!(book.next_timeout(now), Some(now + Duration::from_secs(7)));
        let later = now + Duration::from_secs(7);
        assert_eq!(book.next_dial(later, &mut rng), Some(address(1)));
        book.ended(address(1), Ending::Never, later, &mut rng);
        assert!(book.is_all_banned());
        assert_eq!(book.next_timeout(later), None);
        assert!(!book.discover(address(1), later));
        assert_eq!(book.next_dial(later + Duration::from_secs(999), &mut rng), None);
    }

    #[test]
    fn a_newcomer_finds_room_and_each_is_met_once() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut book = PeerBook::new(4);
        for port in 1..3 {
            book.discover(address(port), now);
            assert_eq!(book.next_dial(now, &mut rng), Some(address(port)));
            book.connected(address(port));
        }
        assert_eq!(book.admit(address(100), now, &mut rng), Admission::Welcome);
        assert_eq!(book.admit(address(100), now, &mut rng), Admission::Duplicate);
        book.ended(address(100), Ending::Duplicate, now, &mut rng);
        assert_eq!(book.admit(address(100), now, &mut rng), Admission::Duplicate, "the first is still there");
        assert_eq!(book.admit(address(101), now, &mut rng), Admission::Welcome);
        assert_eq!(book.connections(), 4);
        let Admission::Replaces(gone) = book.admit(address(102), now, &mut rng) else {
            panic!("a newcomer finds room");
        };
        assert!([address(100), address(101)].contains(&gone), "what this side dialled is kept");
        assert_eq!(book.connections(), 4);
        book.ended(gone, Ending::Failed, now, &mut rng);
        assert_eq!(book.connections(), 4);
        book.ended(address(102), Ending::Never, now, &mut rng);
        assert_eq!(book.admit(address(102), now, &mut rng), Admission::Banned);
        assert_eq!(book.connections(), 3);
    }

    #[test]
    fn who_dialled_everybody_has_no_room() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut book = PeerBook::new(1);
        book.discover(address(1), now);
        let dialled = book.next_dial(now, &mut rng).unwrap();
        book.connected(dialled);
        assert_eq!(book.admit(address(2), now, &mut rng), Admission::Full);
    }

    #[test]
    fn a_flood_of_addresses_is_bounded() {
        let now = Instant::now();
        let mut book = PeerBook::new(5);
        (1..5_000).for_each(|port| _ = book.discover(address(port), now));
        assert_eq!(book.len(), MAX_ADDRESSES);
    }
}
