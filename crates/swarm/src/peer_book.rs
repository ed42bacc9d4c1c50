//! Which peers there are, and whom to connect to when.
//!
//! Pure, like the scheduler. Every address is in one state; bounds hold whatever trackers say. A peer is met
//! once, whoever dialled: one that dialled this process is entered under the address that it listens on.
//!
//! Policy: whom to dial is drawn at random from all that are due and failed least often (from the newest of them, if the
//! book is full), with now and then a turn for the one that is due for longest. Dialling stops at [`DIALLED_SHARE`] of
//! the connections that there may be. The rest is for those who dial this process. When that is full too, a
//! newcomer takes the place of a random peer that was itself accepted: otherwise those who came first would end up
//! connected to each other and to nobody else, and each such group would have to get its own copy from the
//! origin. Connections that this side dialled are not given up, so that strangers cannot take them all.
//!
//! A full book forgets the address that failed most often for a new one, but none that the user named.
//!
//! A peer that lied is banned: its address is not dialled again, and nobody is let in from its IP address. Others at that IP
//! address (behind the same NAT, or on the same host) can still be dialled where they listen.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use rand::{Rng, RngExt};

/// Peers that a leecher connects to at a time unless it is told otherwise.
pub const DEFAULT_MAX_PEERS: usize = 80;

/// Addresses remembered. For more, those that failed most often are forgotten.
const MAX_ADDRESSES: usize = 1_000;

/// Addresses that are banned at a time, and as many IP addresses. The ban that is oldest is lifted for another: a liar
/// that comes back is found out again, and the others have room.
const MAX_BANNED: usize = 500;

/// Connections being made at a time.
const MAX_DIALS: usize = 64;

/// Share of the connections up to which this side dials.
const DIALLED_SHARE: f64 = 0.9;

/// A peer that made room for another is not dialled before this time.
const REPLACED_REST: Duration = Duration::from_secs(60);

/// Wait before trying again an address that failed; twice as long with each failure in a row, up to the second.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(15);

/// A connection that lasted for this long was no failure, however it ended.
const STEADY: Duration = Duration::from_secs(10);

/// One of so many dials goes to the address that is due for longest, whatever became of it before.
const LONGEST_DUE_TURN: u32 = 4;

/// When an address may be dialled again whose connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redial {
    /// After a wait that grows with each failure in a row.
    BackOff,
    /// After this time, or as [`Redial::BackOff`] if it is shorter than the first wait of that.
    After(Duration),
    /// The peer has another connection. When that is over, its own end decides.
    Duplicate,
    /// Never again: the peer lied.
    Never,
    /// It is this process itself.
    Itself,
}

/// What to do with a peer that dialled this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It counts as connected until [`PeerBook::disconnected`].
    Welcome,
    /// The two are connected already.
    Duplicate,
    /// It is banned.
    Banned,
    /// As [`Admission::Welcome`], but the peer of this address has to go, and is to be told that there are too
    /// many peers. It counts as disconnected.
    Replaces(SocketAddr),
    /// There are as many connections as there may be, all of them dialled by this side.
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not connected; may be dialled from this time on.
    Idle(Instant),
    Dialling,
    /// Connected since then, and it was this side that dialled.
    Connected(Instant),
    /// Connected since then, and it was the other side that dialled.
    Accepted(Instant),
    Banned,
    /// This process.
    Itself,
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// Failures in a row.
    failures: u32,
    /// The user named it: it is not forgotten.
    named: bool,
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
    /// Addresses that are banned, in the order in which they were.
    banned: VecDeque<SocketAddr>,
    /// IP addresses from which nobody is let in, likewise.
    barred: VecDeque<IpAddr>,
    itself: usize,
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
            banned: VecDeque::new(),
            barred: VecDeque::new(),
            itself: 0,
            max_peers,
        }
    }

    /// Takes note of an address; true if it is new, and there was room for it.
    pub fn discover(&mut self, address: SocketAddr, now: Instant) -> bool {
        if self.entries.contains_key(&address) {
            return false;
        }
        if self.entries.len() >= MAX_ADDRESSES && !self.forget_one() {
            return false;
        }
        self.enter(address, State::Idle(now));
        true
    }

    /// As [`PeerBook::discover`], for an address that the user named.
    pub fn discover_named(&mut self, address: SocketAddr, now: Instant) -> bool {
        let new = self.discover(address, now);
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.named = true;
        }
        new
    }

    /// Makes room for another address; false if none has failed.
    fn forget_one(&mut self) -> bool {
        let idle = self.idle.iter().filter_map(|&(_, address)| Some((address, self.entries.get(&address)?)));
        let failed = idle.filter(|(_, entry)| entry.failures > 0 && !entry.named);
        let Some((address, _)) = failed.max_by_key(|(_, entry)| entry.failures) else { return false };
        self.forget(address);
        true
    }

    fn forget(&mut self, address: SocketAddr) {
        if let Some(entry) = self.entries.remove(&address) {
            self.count(address, entry.state, false);
        }
    }

    /// Number of known addresses, this process's own not counted.
    pub fn len(&self) -> usize {
        self.entries.len() - self.itself
    }

    /// Whether no address is known but this process's own.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The known addresses, this process's own left out.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.entries.iter().filter(|(_, entry)| entry.state != State::Itself).map(|(&address, _)| address)
    }

    /// Whether there are addresses and not one may be dialled again.
    pub fn is_all_banned(&self) -> bool {
        !self.is_empty() && self.banned.len() == self.len()
    }

    /// Whether somebody who dials this process from there is refused.
    pub fn is_barred(&self, ip: IpAddr) -> bool {
        self.barred.contains(&ip.to_canonical())
    }

    /// Refuses everybody who dials this process from there, from now on.
    pub fn bar(&mut self, ip: IpAddr) {
        if self.is_barred(ip) {
            return;
        }
        if self.barred.len() >= MAX_BANNED {
            self.barred.pop_front();
        }
        self.barred.push_back(ip.to_canonical());
    }

    /// An address to connect to now, at random, if there is one and room for it.
    pub fn next_dial(&mut self, now: Instant, rng: &mut impl Rng) -> Option<SocketAddr> {
        if !self.has_room_to_dial() {
            return None;
        }
        let due = self.idle.iter().take_while(|&&(from, _)| from <= now);
        let due: Vec<_> = due
            .map(|&(from, address)| (self.entries.get(&address).map_or(0, |e| e.failures), from, address))
            .collect();
        let fewest = due.iter().map(|&(failures, ..)| failures).min()?;
        let mut best: Vec<_> = due.iter().filter(|&&(failures, ..)| failures == fewest).collect();
        if self.entries.len() >= MAX_ADDRESSES {
            // More than can be tried are told of: who is new would have little hope among them.
            let newest = best.iter().map(|&&(_, from, _)| from).max();
            best.retain(|&&(_, from, _)| Some(from) == newest);
        }
        let (.., longest_due) = due[0];
        let address = if best.len() < due.len() && rng.random_ratio(1, LONGEST_DUE_TURN) {
            longest_due
        } else {
            best[rng.random_range(0..best.len())].2
        };
        self.set(address, State::Dialling);
        Some(address)
    }

    /// A dial led to a connection.
    pub fn connected(&mut self, address: SocketAddr, now: Instant) {
        self.set(address, State::Connected(now));
    }

    /// Number of connections.
    pub fn connections(&self) -> usize {
        self.connected + self.accepted.len()
    }

    /// A peer that listens on `address` dialled this process. When both dial each other at the same time, each
    /// side takes in the other's dial; which of the two connections stays is for the shell to say, and the end
    /// of the other one is [`Redial::Duplicate`].
    pub fn admit(&mut self, address: SocketAddr, now: Instant, rng: &mut impl Rng) -> Admission {
        let known = self.entries.get(&address).map(|entry| entry.state);
        match known {
            _ if self.is_barred(address.ip()) => return Admission::Banned,
            Some(State::Banned) => return Admission::Banned,
            Some(State::Connected(_) | State::Accepted(_) | State::Itself) => return Admission::Duplicate,
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
            Some(_) => self.set(address, State::Accepted(now)),
            // Beyond what trackers may fill, but bounded by the connections.
            None => self.enter(address, State::Accepted(now)),
        }
        admission
    }

    /// A dial failed, or a connection is over.
    pub fn disconnected(&mut self, address: SocketAddr, redial: Redial, now: Instant, rng: &mut impl Rng) {
        if redial == Redial::Never {
            self.bar(address.ip());
        }
        let Some(entry) = self.entries.get_mut(&address) else { return };
        if let State::Connected(since) | State::Accepted(since) = entry.state
            && now.saturating_duration_since(since) >= STEADY
        {
            entry.failures = 0;
        }
        let state = match (redial, entry.state) {
            (_, State::Banned | State::Itself) => return,
            (Redial::Never, _) => State::Banned,
            (Redial::Itself, _) => State::Itself,
            (Redial::Duplicate, State::Connected(_) | State::Accepted(_)) => return,
            // It made room for another, and was not counted since.
            (Redial::After(_) | Redial::BackOff, State::Idle(_)) => return,
            (Redial::After(wait), _) if wait >= FIRST_RETRY => State::Idle(now + wait),
            (Redial::After(_) | Redial::BackOff | Redial::Duplicate, _) => {
                let wait = (FIRST_RETRY * 2_u32.saturating_pow(entry.failures)).min(LAST_RETRY);
                entry.failures += 1;
                State::Idle(now + wait.mul_f64(rng.random_range(0.8..1.2)))
            }
        };
        self.set(address, state);
        if self.banned.len() > MAX_BANNED
            && let Some(&oldest) = self.banned.front()
        {
            self.forget(oldest);
        }
    }

    /// When [`PeerBook::next_dial`] may have another address though nothing happened.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        if !self.has_room_to_dial() {
            return None;
        }
        self.idle.iter().map(|&(from, _)| from).find(|&from| from > now)
    }

    /// Whether there is an address that could be dialled now if there were room.
    pub fn has_due(&self, now: Instant) -> bool {
        self.idle.first().is_some_and(|&(from, _)| from <= now)
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
        self.entries.insert(address, Entry { state, failures: 0, named: false });
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
            State::Connected(_) => &mut self.connected,
            State::Itself => &mut self.itself,
            State::Accepted(_) => {
                if enters {
                    self.accepted.insert(address);
                } else {
                    self.accepted.remove(&address);
                }
                return;
            }
            State::Banned => {
                if enters {
                    self.banned.push_back(address);
                } else {
                    self.banned.retain(|&banned| banned != address);
                }
                return;
            }
        };
        *counter = if enters { *counter + 1 } else { *counter - 1 };
    }
}
