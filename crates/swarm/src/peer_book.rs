//! The known peers, and which to connect to when.
//!
//! Pure. Each address is in one state. The bounds hold no matter what trackers send. Two peers have one connection, no matter which
//! side dialled: a peer that dialled this process is entered under the address where it listens.
//!
//! Policy: The next address to dial is drawn at random from those that are due and have failed least often. First a site is drawn (an
//! IPv4 address, or an IPv6 /64), then an address of it. So the many ports of one host get no more dials than one of another. If the
//! book is full, it is drawn from the newest of these. Now and then the address that is due longest has its turn. Dialling stops at
//! [`DIALLED_SHARE`] of the maximum number of connections. The rest is for peers that dial this process. But this
//! side always dials up to [`OWN_SHARE`], no matter how many peers dialled it, so strangers cannot take all places. When the places of
//! the others are full, a new peer replaces a random one that also dialled this process. Otherwise the first peers would be connected
//! only to each other, and each such group would have to get its own copy from the origin. Connections that this side dialled are
//! never replaced.
//!
//! A full book makes room for a new address: it forgets the one that failed most often, unless the user named it. But if a site has more
//! than [`MANY_OF_A_SITE`] addresses, or if none failed, one of the site with most is forgotten. A peer that dials this process is
//! entered even if there is no room. While there are too many, an address is forgotten when its connection is over.
//!
//! A peer that lied is banned. Its address is not dialled again, and connections from its IP address are refused. Other peers at
//! that IP address (behind the same NAT, or on the same host) can still be dialled.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use rand::{Rng, RngExt};

use crate::places::site;

/// Default maximum number of peers that a leecher connects to at the same time.
pub const DEFAULT_MAX_PEERS: usize = 80;

/// Maximum number of known addresses.
const MAX_ADDRESSES: usize = 1_000;

/// A site with more addresses in a full book loses one for a new address of another site. A NAT seldom has more peers behind it that
/// can be dialled.
const MANY_OF_A_SITE: usize = 100;

/// Maximum number of banned addresses, and of banned IP addresses. A new ban lifts the oldest. A liar that then returns is
/// found out again.
const MAX_BANNED: usize = 500;

/// Maximum number of dials under way.
const MAX_DIALS: usize = 64;

/// Part of the connections that this side may dial.
const DIALLED_SHARE: f64 = 0.9;

/// Part of the connections that are this side's alone to dial.
const OWN_SHARE: f64 = 0.5;

/// Wait before a peer that was replaced is dialled again.
const REPLACED_REST: Duration = Duration::from_secs(60);

/// Wait before an address that failed is dialled again. It doubles with each failure in a row, up to [`LAST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(15);

/// A connection that lasted this long is not a failure, however it ended.
const STEADY: Duration = Duration::from_secs(10);

/// One in this many dials goes to the address that is due longest, however often it failed.
const LONGEST_DUE_TURN: u32 = 4;

/// When an address may be dialled again after its connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redial {
    /// After a wait that grows with each failure in a row.
    BackOff,
    /// After this time. If it is shorter than [`FIRST_RETRY`], as [`Redial::BackOff`].
    After(Duration),
    /// When the peer's other connection is over, and as that one ends.
    Duplicate,
    /// Never, because the peer lied.
    Never,
    /// Never, because it is this process itself.
    Itself,
}

/// What to do with a peer that dialled this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is let in, and counts as connected until [`PeerBook::disconnected`].
    Welcome,
    /// The two are connected already.
    Duplicate,
    /// It is banned.
    Banned,
    /// As [`Admission::Welcome`]. In return the peer at this address must be disconnected because there are too many peers. It
    /// no longer counts as connected.
    Replaces(SocketAddr),
    /// There is no room, and this side dialled all connections.
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not connected. It may be dialled from this time on.
    Idle(Instant),
    Dialling,
    /// Connected since this time. This side dialled.
    Connected(Instant),
    /// Connected since this time. The other side dialled.
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
    /// The user named it, so it is never forgotten.
    named: bool,
}

/// The known addresses of a swarm.
#[derive(Debug)]
pub struct PeerBook {
    entries: BTreeMap<SocketAddr, Entry>,
    /// The idle addresses, ordered by when they may be dialled.
    idle: BTreeSet<(Instant, SocketAddr)>,
    dialling: usize,
    connected: usize,
    accepted: BTreeSet<SocketAddr>,
    /// The banned addresses, oldest ban first.
    banned: VecDeque<SocketAddr>,
    /// The IP addresses from which connections are refused, oldest first.
    barred: VecDeque<IpAddr>,
    /// The IP addresses from which connections are refused until a time, oldest first.
    resting: VecDeque<(IpAddr, Instant)>,
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
            resting: VecDeque::new(),
            itself: 0,
            max_peers,
        }
    }

    /// From now on, for at most `most` connections. Those beyond it stay.
    pub(crate) fn set_most(&mut self, most: usize) {
        self.max_peers = most;
    }

    /// Adds an address. True if it is new and there was room for it.
    pub fn discover(&mut self, address: SocketAddr, now: Instant) -> bool {
        if self.entries.contains_key(&address) {
            return false;
        }
        if self.entries.len() >= MAX_ADDRESSES && !self.forget_one(site(address.ip())) {
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

    /// Makes room for another address, of the site `new`. False if no address has failed and no site has many more than this one.
    fn forget_one(&mut self, new: IpAddr) -> bool {
        let mut sizes: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.entries.keys().for_each(|address| *sizes.entry(site(address.ip())).or_default() += 1);
        let size = |ip: IpAddr| sizes.get(&ip).copied().unwrap_or(0);
        let idle = || {
            let idle =
                self.idle.iter().filter_map(|&(_, address)| Some((address, self.entries.get(&address)?)));
            idle.filter(|(_, entry)| !entry.named)
        };
        // With one more address, the new site must still be smaller.
        let crowded = idle().filter(|(address, _)| size(site(address.ip())) > size(new) + 1);
        let crowded = crowded.max_by_key(|(address, entry)| (size(site(address.ip())), entry.failures));
        let failed = idle().filter(|(_, entry)| entry.failures > 0).max_by_key(|(_, entry)| entry.failures);
        let is_crowd = crowded.is_some_and(|(address, _)| size(site(address.ip())) > MANY_OF_A_SITE);
        let Some((address, _)) = (if is_crowd { crowded } else { failed.or(crowded) }) else { return false };
        self.forget(address);
        true
    }

    fn forget(&mut self, address: SocketAddr) {
        if let Some(entry) = self.entries.remove(&address) {
            self.count(address, entry.state, false);
        }
    }

    /// Number of known addresses, without those of this process.
    pub fn len(&self) -> usize {
        self.entries.len() - self.itself
    }

    /// Whether no address is known, apart from those of this process.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The known addresses, without those of this process.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.entries.iter().filter(|(_, entry)| entry.state != State::Itself).map(|(&address, _)| address)
    }

    /// Whether there are addresses and all are banned.
    pub fn is_all_banned(&self) -> bool {
        !self.is_empty() && self.banned.len() == self.len()
    }

    /// Whether connections from this IP address are refused.
    pub fn is_barred(&self, ip: IpAddr) -> bool {
        self.barred.contains(&ip.to_canonical())
    }

    /// Refuses connections from this IP address from now on.
    pub fn bar(&mut self, ip: IpAddr) {
        if self.is_barred(ip) {
            return;
        }
        if self.barred.len() >= MAX_BANNED {
            self.barred.pop_front();
        }
        self.barred.push_back(ip.to_canonical());
    }

    /// Whether connections from this IP address are refused now.
    pub fn is_resting(&self, ip: IpAddr, now: Instant) -> bool {
        self.resting.iter().any(|&(resting, until)| resting == ip.to_canonical() && until > now)
    }

    /// Refuses connections from this IP address until a time.
    pub fn rest_host(&mut self, ip: IpAddr, until: Instant) {
        let ip = ip.to_canonical();
        self.resting.retain(|&(resting, _)| resting != ip);
        if self.resting.len() >= MAX_BANNED {
            self.resting.pop_front();
        }
        self.resting.push_back((ip, until));
    }

    /// The next address to dial, if one is due and there is room.
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
            // Trackers name more addresses than can be tried. Otherwise a new one would hardly get its turn.
            let newest = best.iter().map(|&&(_, from, _)| from).max();
            best.retain(|&&(_, from, _)| Some(from) == newest);
        }
        let (.., longest_due) = due[0];
        let address = if best.len() < due.len() && rng.random_ratio(1, LONGEST_DUE_TURN) {
            longest_due
        } else {
            let sites: BTreeSet<_> = best.iter().map(|&&(.., address)| site(address.ip())).collect();
            let drawn = sites.iter().nth(rng.random_range(0..sites.len())).copied();
            best.retain(|&&(.., address)| Some(site(address.ip())) == drawn);
            best[rng.random_range(0..best.len())].2
        };
        self.set(address, State::Dialling);
        Some(address)
    }

    /// A dial succeeded.
    pub fn connected(&mut self, address: SocketAddr, now: Instant) {
        self.set(address, State::Connected(now));
    }

    /// Number of connections.
    pub fn connections(&self) -> usize {
        self.connected + self.accepted.len()
    }

    /// A peer that listens on `address` dialled this process. If both sides dial each other at the same time, each admits the
    /// other. The caller chooses which of the two connections stays; the other ends with [`Redial::Duplicate`].
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
                self.rest(victim, now + REPLACED_REST);
                admission = Admission::Replaces(victim);
            }
        }
        match known {
            Some(_) => self.set(address, State::Accepted(now)),
            // This may exceed MAX_ADDRESSES by the number of connections. See `rest`.
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
        let from = match (redial, entry.state) {
            (_, State::Banned | State::Itself) => return,
            (Redial::Never, _) => return self.ban(address),
            (Redial::Itself, _) => return self.set(address, State::Itself),
            (Redial::Duplicate, State::Connected(_) | State::Accepted(_)) => return,
            // It was replaced, and no longer counts as connected.
            (Redial::After(_) | Redial::BackOff, State::Idle(_)) => return,
            (Redial::After(wait), _) if wait >= FIRST_RETRY => now + wait,
            (Redial::After(_) | Redial::BackOff | Redial::Duplicate, _) => {
                let wait = (FIRST_RETRY * 2_u32.saturating_pow(entry.failures)).min(LAST_RETRY);
                entry.failures += 1;
                now + wait.mul_f64(rng.random_range(0.8..1.2))
            }
        };
        self.rest(address, from);
    }

    /// An address is not connected any more. It may be dialled from this time on, unless there are too many addresses: then it is
    /// forgotten, if the user did not name it. Otherwise a peer could fill the book by connecting again and again, each time under
    /// another port.
    fn rest(&mut self, address: SocketAddr, from: Instant) {
        let is_named = self.entries.get(&address).is_some_and(|entry| entry.named);
        if self.entries.len() > MAX_ADDRESSES && !is_named {
            self.forget(address);
        } else {
            self.set(address, State::Idle(from));
        }
    }

    fn ban(&mut self, address: SocketAddr) {
        self.set(address, State::Banned);
        if self.banned.len() > MAX_BANNED
            && let Some(&oldest) = self.banned.front()
        {
            self.forget(oldest);
        }
    }

    /// When to call [`PeerBook::next_dial`] again if nothing happens before.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        if !self.has_room_to_dial() {
            return None;
        }
        self.idle.iter().map(|&(from, _)| from).find(|&from| from > now)
    }

    /// Whether more than `count` addresses are due.
    pub(crate) fn has_more_due(&self, count: usize, now: Instant) -> bool {
        // They are in the order of their times. A book may have a thousand, and this is asked at each decision.
        self.idle.iter().nth(count).is_some_and(|&(from, _)| from <= now)
    }

    /// Whether an address is being dialled.
    pub(crate) fn is_dialling(&self) -> bool {
        self.dialling > 0
    }

    /// Whether an address is due, whether or not there is room.
    pub fn has_due(&self, now: Instant) -> bool {
        self.idle.first().is_some_and(|&(from, _)| from <= now)
    }

    /// How often an address failed in a row.
    pub(crate) fn failures(&self, address: SocketAddr) -> u32 {
        self.entries.get(&address).map_or(0, |entry| entry.failures)
    }

    /// Number of addresses that failed last and are not connected.
    pub(crate) fn failing(&self) -> usize {
        let is_failing =
            |entry: &&Entry| entry.failures > 0 && matches!(entry.state, State::Idle(_) | State::Dialling);
        self.entries.values().filter(is_failing).count()
    }

    /// Whether one more address may be dialled.
    pub(crate) fn has_room_to_dial(&self) -> bool {
        // Without a connection, no peer knows this process, so no places need to be kept for peers that dial it.
        let most = if self.connections() == 0 { self.max_peers } else { self.part(DIALLED_SHARE) };
        let dialled = self.dialling + self.connected;
        let has_room = dialled < self.part(OWN_SHARE) || dialled + self.accepted.len() < most;
        has_room && self.dialling < MAX_DIALS
    }

    /// A part of the maximum number of connections, rounded up.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a usize")]
    fn part(&self, share: f64) -> usize {
        (self.max_peers as f64 * share).ceil() as usize
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
