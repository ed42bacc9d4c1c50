//! Which peers there are, and whom to connect to when.
//!
//! Pure, like the scheduler. Every address is in one state; bounds hold whatever trackers say.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand::{Rng, RngExt};

/// Addresses remembered. A tracker's word for more is dropped.
const MAX_ADDRESSES: usize = 1_000;

/// Connections being made at a time.
const MAX_DIALS: usize = 16;

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
    /// Never again: the peer lied, or is this process itself.
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not connected; may be dialled from this time on.
    Idle(Instant),
    Dialling,
    Connected,
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
    max_peers: usize,
}

impl PeerBook {
    /// A book for at most `max_peers` connections.
    pub fn new(max_peers: usize) -> PeerBook {
        PeerBook { entries: BTreeMap::new(), max_peers }
    }

    /// Takes note of an address; true if it is new.
    pub fn discover(&mut self, address: SocketAddr, now: Instant) -> bool {
        let known = self.entries.contains_key(&address);
        if !known && self.entries.len() < MAX_ADDRESSES {
            self.entries.insert(address, Entry { state: State::Idle(now), failures: 0 });
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
        !self.is_empty() && self.entries.values().all(|entry| entry.state == State::Banned)
    }

    /// An address to connect to now, at random, if there is one and room for it.
    pub fn next_dial(&mut self, now: Instant, rng: &mut impl Rng) -> Option<SocketAddr> {
        let dialling = self.count(State::Dialling);
        if dialling >= MAX_DIALS || dialling + self.count(State::Connected) >= self.max_peers {
            return None;
        }
        let is_due = |entry: &Entry| matches!(entry.state, State::Idle(from) if from <= now);
        let due = self.entries.values().filter(|entry| is_due(entry)).count();
        if due == 0 {
            return None;
        }
        let pick = rng.random_range(0..due);
        let (&address, entry) = self.entries.iter_mut().filter(|(_, entry)| is_due(entry)).nth(pick)?;
        entry.state = State::Dialling;
        Some(address)
    }

    /// A dial led to a connection.
    pub fn connected(&mut self, address: SocketAddr) {
        if let Some(entry) = self.entries.get_mut(&address) {
            *entry = Entry { state: State::Connected, failures: 0 };
        }
    }

    /// A dial or connection ended.
    pub fn ended(&mut self, address: SocketAddr, ending: Ending, now: Instant, rng: &mut impl Rng) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        entry.state = match ending {
            Ending::Never => State::Banned,
            Ending::RetryAfter(wait) => State::Idle(now + wait),
            Ending::Failed => {
                let wait = (FIRST_RETRY * 2_u32.saturating_pow(entry.failures)).min(LAST_RETRY);
                entry.failures += 1;
                State::Idle(now + wait.mul_f64(rng.random_range(0.8..1.2)))
            }
        };
    }

    /// When [`PeerBook::next_dial`] may have another address though nothing happened.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let idle = self.entries.values().filter_map(|entry| match entry.state {
            State::Idle(from) => Some(from),
            _ => None,
        });
        idle.filter(|&from| from > now).min()
    }

    fn count(&self, state: State) -> usize {
        self.entries.values().filter(|entry| entry.state == state).count()
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
        let mut book = PeerBook::new(5);
        for port in [1, 2, 3, 2, 1] {
            book.discover(address(port), now);
        }
        assert_eq!(dials(&mut book, now, &mut rng), 3);
        (4..10).for_each(|port| _ = book.discover(address(port), now));
        assert_eq!(dials(&mut book, now, &mut rng), 2);
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
    fn a_flood_of_addresses_is_bounded() {
        let now = Instant::now();
        let mut book = PeerBook::new(5);
        (1..5_000).for_each(|port| _ = book.discover(address(port), now));
        assert_eq!(book.len(), MAX_ADDRESSES);
    }
}
