//! The peers of a swarm: one session each, from the dial or the accept until it is over.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use peer::{handshake, outbox::Outbox};
use proto::peer::{GoodbyeReason, Hello, PeerMessage, Role};
use rand::rngs::StdRng;
use swarm::{
    peer_book::{Admission, Ending, PeerBook},
    scheduler::PeerKey,
};
use tokio::{
    net::TcpStream,
    sync::Notify,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    event::LeaveReason,
    joined,
    session::{self, Context, Origin},
};

/// A peer that was too slow, or does not have the share, is left alone for this time.
pub(super) const REST: Duration = Duration::from_secs(60);

/// When a peer that found no room should come back, in milliseconds.
const RETRY_AFTER_MS: u32 = 5_000;

/// A peer that says that it is busy is not asked again for this long, and twice as long each time until it sends
/// something, whatever it says itself.
const BUSY_REST: Duration = Duration::from_millis(250);
const MAX_BUSY_REST: Duration = Duration::from_secs(15);

/// Sessions that are over and may yet be found to have lied: more than there are chunks that wait to be proved.
const MAX_GONE: usize = 64;

/// How long sessions may take to say goodbye.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The sessions of a swarm, and the addresses that more could come from.
pub(super) struct Peers {
    pub(super) book: PeerBook,
    context: Arc<Context>,
    sessions: JoinSet<(PeerKey, LeaveReason)>,
    /// Every session that was started, joined or not.
    peers: BTreeMap<PeerKey, Peer>,
    /// What came of the addresses where no session is, as far as they are in the book.
    outcomes: BTreeMap<SocketAddr, Outcome>,
    /// Which addresses of the book the last sessions had that are over.
    gone: VecDeque<(PeerKey, SocketAddr)>,
    /// What was last wrong with a peer.
    last_trouble: String,
    /// Sessions that this side makes at most; as many again may come from others.
    max_peers: usize,
    last_key: u64,
}

struct Peer {
    /// The other end of the connection.
    address: SocketAddr,
    /// Its address in the book, where it listens.
    listed: Option<SocketAddr>,
    dialled: bool,
    stop: CancellationToken,
    /// Lets the session ask what the share is.
    turn: Arc<Notify>,
    /// Once the peer joined.
    joined: Option<Joined>,
    /// Times that it said it is busy since it last sent a chunk.
    busy: u32,
    /// Whether it said of some chunk that its file changed.
    changed: bool,
    /// Why the swarm ended the session, if it did.
    verdict: Option<LeaveReason>,
}

struct Joined {
    hello: Hello,
    outbox: Outbox,
}

/// A session that is over.
pub(super) struct Left {
    pub(super) key: PeerKey,
    pub(super) address: SocketAddr,
    pub(super) reason: LeaveReason,
    /// Whether the peer had joined.
    pub(super) joined: bool,
}

/// What is wrong with a peer that might be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The peer does not have the share.
    WithoutShare,
    /// The peer's files changed.
    Changed,
    /// The peer has as many connections as it may.
    Full,
    /// Something else.
    Other,
}

impl Outcome {
    fn of(reason: &LeaveReason) -> Outcome {
        match reason {
            LeaveReason::Gone => Outcome::Changed,
            LeaveReason::Goodbye(GoodbyeReason::UnknownShare) => Outcome::WithoutShare,
            LeaveReason::Goodbye(GoodbyeReason::TooManyPeers { .. }) => Outcome::Full,
            _ => Outcome::Other,
        }
    }
}

/// What became of a session that is ready.
pub(super) enum Joining {
    /// It is a peer now.
    Welcome,
    /// It is a peer now, in the place of another: of the same peer, or of one that had to make room.
    Instead(PeerKey),
    /// It is one too many, and was ended.
    Refused,
}

impl Peers {
    pub(super) fn new(context: Arc<Context>, max_peers: usize) -> Peers {
        Peers {
            book: PeerBook::new(max_peers),
            context,
            sessions: JoinSet::new(),
            peers: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            gone: VecDeque::new(),
            last_trouble: String::from("none answered"),
            max_peers,
            last_key: 0,
        }
    }

    /// Connects to whom the book says.
    pub(super) fn dial(&mut self, now: Instant, rng: &mut StdRng) {
        while self.peers.len() < self.max_peers
            && let Some(address) = self.book.next_dial(now, rng)
        {
            self.start(address, Some(address), Origin::Dial(address));
        }
    }

    /// Takes in a peer that connected, if there is room.
    pub(super) fn accept(&mut self, stream: TcpStream, address: SocketAddr) {
        // On a socket for IPv4 and IPv6 both, IPv4 addresses come in the clothes of IPv6.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if self.peers.len() < 2 * self.max_peers {
            return self.start(address, None, Origin::Accepted(stream));
        }
        // A burst of strangers costs no more than the peers that there may be.
        if self.sessions.len() < 3 * self.max_peers {
            self.last_key += 1;
            let key = PeerKey(self.last_key);
            self.sessions.spawn(async move {
                let reason = GoodbyeReason::TooManyPeers { retry_after_ms: RETRY_AFTER_MS };
                // It will find out either way.
                let _ = handshake::refuse(stream, reason).await;
                (key, LeaveReason::Finished)
            });
        }
    }

    fn start(&mut self, address: SocketAddr, listed: Option<SocketAddr>, origin: Origin) {
        self.last_key += 1;
        let (key, stop, turn) = (PeerKey(self.last_key), CancellationToken::new(), Arc::<Notify>::default());
        let peer = Peer {
            address,
            listed,
            dialled: listed.is_some(),
            stop: stop.clone(),
            turn: Arc::clone(&turn),
            joined: None,
            busy: 0,
            changed: false,
            verdict: None,
        };
        self.peers.insert(key, peer);
        let context = Arc::clone(&self.context);
        self.sessions.spawn(async move { (key, session::run(context, key, origin, turn, stop).await) });
    }

    /// Lets a session ask what the share is.
    pub(super) fn ask_description(&self, key: PeerKey) {
        if let Some(peer) = self.peers.get(&key) {
            peer.turn.notify_one();
        }
    }

    /// A session is ready.
    pub(super) fn join(
        &mut self,
        key: PeerKey,
        hello: Hello,
        outbox: Outbox,
        now: Instant,
        rng: &mut StdRng,
    ) -> Joining {
        let Some(twin) = self.peers.get(&key).map(|peer| self.twin_of(peer, &hello)) else {
            return Joining::Refused;
        };
        if let Some((twin, twin_dialled)) = twin {
            // Two that dialled each other keep the connection that the one with the larger id made, and so do
            // not each drop the other's.
            let twin_initiator = if twin_dialled { self.context.peer_id } else { hello.peer_id };
            if twin_initiator == self.context.peer_id.max(hello.peer_id) {
                outbox.close(GoodbyeReason::Duplicate);
                self.end(key, LeaveReason::Goodbye(GoodbyeReason::Duplicate));
                return Joining::Refused;
            }
            self.end(twin, LeaveReason::Goodbye(GoodbyeReason::Duplicate));
        }
        let replaced = match self.enter(key, &hello, now, rng) {
            Ok(replaced) => replaced,
            Err(reason) => {
                outbox.close(reason);
                self.end(key, LeaveReason::Goodbye(reason));
                return Joining::Refused;
            }
        };
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.joined = Some(Joined { hello, outbox });
        }
        twin.map(|(twin, _)| twin).or(replaced).map_or(Joining::Welcome, Joining::Instead)
    }

    /// The session that the same peer has in the other direction, if there is one, and whether this side made it.
    /// Anybody can claim anybody's id, so the address that was dialled has to be the one that it listens at.
    fn twin_of(&self, new: &Peer, hello: &Hello) -> Option<(PeerKey, bool)> {
        let listens = |accepted: &Peer, hello: &Hello| {
            SocketAddr::new(accepted.address.ip().to_canonical(), hello.listen_port)
        };
        let is_twin = |other: &Peer| {
            let Some(joined) = other.joined.as_ref().filter(|_| other.verdict.is_none()) else {
                return false;
            };
            joined.hello.peer_id == hello.peer_id
                && match (new.dialled, other.dialled) {
                    (true, false) => listens(other, &joined.hello) == new.address,
                    (false, true) => listens(new, hello) == other.address,
                    _ => false,
                }
        };
        self.peers.iter().find(|(_, peer)| is_twin(peer)).map(|(&key, peer)| (key, peer.dialled))
    }

    /// Enters a peer into the book, under the address where it listens; gives the session that made room for it,
    /// if one had to.
    fn enter(
        &mut self,
        key: PeerKey,
        hello: &Hello,
        now: Instant,
        rng: &mut StdRng,
    ) -> Result<Option<PeerKey>, GoodbyeReason> {
        const NO_ROOM: GoodbyeReason = GoodbyeReason::TooManyPeers { retry_after_ms: RETRY_AFTER_MS };
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(None) };
        if let Some(listed) = peer.listed {
            self.book.connected(listed, now);
            return Ok(None);
        }
        if self.book.is_barred(peer.address.ip()) {
            return Err(GoodbyeReason::Banned);
        }
        if hello.listen_port == 0 {
            // Nobody can dial it, so there is no address to enter; the sessions are bounded anyhow.
            return Ok(None);
        }
        let listens = SocketAddr::new(peer.address.ip().to_canonical(), hello.listen_port);
        match self.book.admit(listens, now, rng) {
            Admission::Welcome => peer.listed = Some(listens),
            Admission::Replaces(gone) => {
                peer.listed = Some(listens);
                let is_gone = |peer: &Peer| peer.listed == Some(gone) && peer.joined.is_some();
                let gone = self.peers.iter().find(|(_, peer)| is_gone(peer)).map(|(&key, _)| key);
                if let Some(gone) = gone {
                    self.end(gone, LeaveReason::Goodbye(NO_ROOM));
                }
                return Ok(gone);
            }
            // Known by that address already, as somebody else may claim: it is not entered twice.
            Admission::Duplicate => {}
            Admission::Banned => return Err(GoodbyeReason::Banned),
            Admission::Full => return Err(NO_ROOM),
        }
        Ok(None)
    }

    /// Ends a session for a reason that the swarm found.
    pub(super) fn end(&mut self, key: PeerKey, reason: LeaveReason) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if let Some(joined) = &peer.joined {
            joined.outbox.close(match reason {
                LeaveReason::Lied => GoodbyeReason::Banned,
                LeaveReason::Finished => GoodbyeReason::Done,
                LeaveReason::Goodbye(reason) => reason,
                _ => GoodbyeReason::Protocol,
            });
        }
        peer.verdict = Some(reason);
        peer.stop.cancel();
    }

    /// Waits for a session to end; `None` while there is none.
    pub(super) async fn next_ended(&mut self) -> Option<Result<(PeerKey, LeaveReason), JoinError>> {
        self.sessions.join_next().await
    }

    /// Takes note that a session is over; `None` if it was only a refusal.
    pub(super) fn ended(
        &mut self,
        ended: Result<(PeerKey, LeaveReason), JoinError>,
        now: Instant,
        rng: &mut StdRng,
    ) -> Option<Left> {
        let (key, reason) = joined(ended);
        let peer = self.peers.remove(&key)?;
        let reason = peer.verdict.unwrap_or(reason);
        let (address, had_joined) = (peer.address, peer.joined.is_some());
        tracing::debug!(%address, had_joined, "session over: {reason}");
        if !matches!(
            reason,
            LeaveReason::Itself | LeaveReason::Finished | LeaveReason::Goodbye(GoodbyeReason::Duplicate)
        ) {
            self.last_trouble = format!("{address}: {reason}");
        }
        if reason == LeaveReason::Lied {
            self.book.bar(address.ip());
        }
        if let Some(listed) = peer.listed {
            let ending = match ending(&reason, had_joined) {
                // Whoever connects can claim to listen where somebody else does.
                Ending::Never if !peer.dialled => Ending::RetryAfter(REST),
                // Only if it goes on is the address still taken.
                Ending::Duplicate if !self.peers.values().any(|other| other.listed == Some(listed)) => {
                    Ending::Failed
                }
                ending => ending,
            };
            self.book.ended(listed, ending, now, rng);
            self.outcomes.insert(listed, Outcome::of(&reason));
            if self.outcomes.len() > 2 * self.book.len() {
                let known: std::collections::BTreeSet<_> = self.book.addresses().collect();
                self.outcomes.retain(|address, _| known.contains(address));
            }
            if peer.dialled {
                self.gone.push_back((key, listed));
                if self.gone.len() > MAX_GONE {
                    self.gone.pop_front();
                }
            }
        }
        Some(Left { key, address, reason, joined: had_joined })
    }

    /// A peer that had left before was found to have lied.
    pub(super) fn ban_gone(&mut self, key: PeerKey, address: SocketAddr, now: Instant, rng: &mut StdRng) {
        self.book.bar(address.ip());
        if let Some(&(_, listed)) = self.gone.iter().find(|&&(gone, _)| gone == key) {
            self.book.ended(listed, Ending::Never, now, rng);
        }
        self.last_trouble = format!("{address}: {}", LeaveReason::Lied);
    }

    /// A peer says that it is busy, for so long: for how long it is not to be asked.
    pub(super) fn busy_rest(&mut self, key: PeerKey, told: Duration) -> Duration {
        let Some(peer) = self.peers.get_mut(&key) else { return BUSY_REST };
        peer.busy = peer.busy.saturating_add(1);
        busy_rest(peer.busy, told)
    }

    /// A peer said of a chunk that its file changed.
    pub(super) fn told_change(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.changed = true;
        }
    }

    /// The peers some of whose files changed, and that were not sent away.
    pub(super) fn changed(&self) -> Vec<PeerKey> {
        let changed = self.peers.iter().filter(|(_, peer)| peer.changed && peer.verdict.is_none());
        changed.map(|(&key, _)| key).collect()
    }

    /// A peer sent a chunk: it is not busy.
    pub(super) fn delivered(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.busy = 0;
        }
    }

    /// What was last wrong with a peer.
    pub(super) fn last_trouble(&self) -> &str {
        &self.last_trouble
    }

    /// Why nothing arrives.
    pub(super) fn stalled(&self) -> String {
        match self.joined().count() {
            0 => format!("no peer is connected; the last was {}", self.last_trouble),
            1 => "one peer is connected and sends nothing".to_owned(),
            many => format!("{many} peers are connected and send nothing"),
        }
    }

    /// What is waited for before the share is known; `None` if no peer is known.
    pub(super) fn waited_for(&self) -> Option<String> {
        let known = self.book.len();
        if known == 0 {
            return None;
        }
        let mut addresses = self.book.addresses();
        let (first, others) = (addresses.next()?, addresses.next().is_some());
        if !self.all_had(|_| true) {
            return Some(match others {
                false => format!("Asking {first} what the share is"),
                true => format!("Asking {known} peers what the share is"),
            });
        }
        Some(match (others, self.all_full()) {
            (false, true) => format!("{first} is full; trying again"),
            (true, true) => format!("All {known} peers are full; trying again"),
            (false, false) => format!("{}; trying again", self.last_trouble),
            (true, false) => {
                format!(
                    "None of {known} peers can be used yet, the last was {}; trying again",
                    self.last_trouble
                )
            }
        })
    }

    /// Whether every known address was tried, and this came of all of them.
    fn all_had(&self, outcome: impl Fn(Outcome) -> bool) -> bool {
        !self.book.is_empty()
            && self.book.addresses().all(|address| self.outcomes.get(&address).is_some_and(|&o| outcome(o)))
    }

    /// Whether every known peer said that it does not have the share.
    pub(super) fn all_without_share(&self) -> bool {
        self.all_had(|outcome| outcome == Outcome::WithoutShare)
    }

    /// Whether every known peer said that it is full.
    pub(super) fn all_full(&self) -> bool {
        self.all_had(|outcome| outcome == Outcome::Full)
    }

    /// Whether the files of every known peer changed, and none is being looked at again.
    pub(super) fn all_changed(&self) -> bool {
        self.peers.is_empty() && self.all_had(|outcome| outcome == Outcome::Changed)
    }

    /// Whether the session goes on, as far as the swarm is concerned.
    pub(super) fn is_welcome(&self, key: PeerKey) -> bool {
        self.peers.get(&key).is_some_and(|peer| peer.verdict.is_none())
    }

    /// Where the other end of a session is.
    pub(super) fn address(&self, key: PeerKey) -> Option<SocketAddr> {
        self.peers.get(&key).map(|peer| peer.address)
    }

    /// The peers that joined and were not sent away.
    pub(super) fn joined(&self) -> impl Iterator<Item = (PeerKey, SocketAddr)> + '_ {
        let welcome = self.peers.iter().filter(|(_, peer)| peer.joined.is_some() && peer.verdict.is_none());
        welcome.map(|(&key, peer)| (key, peer.address))
    }

    /// Sends a message; false if the peer does not read what it is sent.
    pub(super) fn send(&self, key: PeerKey, message: PeerMessage) -> bool {
        let joined = self.peers.get(&key).and_then(|peer| peer.joined.as_ref());
        joined.is_none_or(|joined| joined.outbox.message(message).is_ok())
    }

    /// Lets every leecher know that there is something new in the log.
    pub(super) fn wake_leechers(&self) {
        for joined in self.peers.values().filter_map(|peer| peer.joined.as_ref()) {
            if joined.hello.role == Role::Leecher {
                joined.outbox.wake();
            }
        }
    }

    /// Ends the sessions with seeders: nothing more is wanted of them, and they want nothing.
    pub(super) fn dismiss_seeders(&mut self) {
        let is_seeder = |peer: &Peer| peer.joined.as_ref().is_some_and(|j| j.hello.role == Role::Seeder);
        let seeders: Vec<_> =
            self.peers.iter().filter(|(_, peer)| is_seeder(peer)).map(|(&key, _)| key).collect();
        seeders.into_iter().for_each(|key| self.end(key, LeaveReason::Finished));
    }

    /// Ends every session, and waits until they are over.
    pub(super) async fn stop(&mut self) {
        self.peers.values().for_each(|peer| peer.stop.cancel());
        let goodbyes = async { while self.sessions.join_next().await.is_some() {} };
        if timeout(STOP_TIMEOUT, goodbyes).await.is_err() {
            self.sessions.shutdown().await;
        }
    }
}

/// For how long a peer is not asked that says for the `times`th time in a row that it is busy, for so long.
fn busy_rest(times: u32, told: Duration) -> Duration {
    let least = BUSY_REST.saturating_mul(2_u32.saturating_pow(times.saturating_sub(1))).min(MAX_BUSY_REST);
    told.max(least).min(REST)
}

/// When a peer that left for this reason may be dialled again.
fn ending(reason: &LeaveReason, had_joined: bool) -> Ending {
    match reason {
        LeaveReason::Lied => Ending::Never,
        LeaveReason::Itself => Ending::Itself,
        LeaveReason::Goodbye(GoodbyeReason::TooManyPeers { retry_after_ms }) => {
            Ending::RetryAfter(Duration::from_millis((*retry_after_ms).into()).min(REST))
        }
        LeaveReason::Goodbye(GoodbyeReason::Duplicate) => Ending::Duplicate,
        // It was slower than others to say what the share is, and may be of use when that is known.
        LeaveReason::TooSlow if !had_joined => Ending::Failed,
        LeaveReason::Goodbye(GoodbyeReason::UnknownShare)
        | LeaveReason::Gone
        | LeaveReason::TooSlow
        | LeaveReason::Protocol(_) => Ending::RetryAfter(REST),
        LeaveReason::Goodbye(_)
        | LeaveReason::Unreachable(_)
        | LeaveReason::Disconnected
        | LeaveReason::Finished => Ending::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_always_busy_is_asked_less_and_less_often() {
        let rests: Vec<_> = (1..=9).map(|times| busy_rest(times, Duration::ZERO).as_millis()).collect();
        assert_eq!(rests, [250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]);
        assert_eq!(busy_rest(u32::MAX, Duration::ZERO), MAX_BUSY_REST);
        assert_eq!(busy_rest(1, Duration::from_secs(7)), Duration::from_secs(7), "it is taken at its word");
        assert_eq!(busy_rest(1, Duration::MAX), REST, "within reason");
    }

    #[test]
    fn a_peer_that_has_no_room_is_left_alone_for_as_long_as_it_says_within_reason() {
        let rest = |retry_after_ms| {
            ending(&LeaveReason::Goodbye(GoodbyeReason::TooManyPeers { retry_after_ms }), true)
        };
        assert_eq!(rest(0), Ending::RetryAfter(Duration::ZERO), "the peer book waits for longer");
        assert_eq!(rest(7_000), Ending::RetryAfter(Duration::from_secs(7)));
        assert_eq!(rest(60_000), Ending::RetryAfter(REST));
        assert_eq!(rest(u32::MAX), Ending::RetryAfter(REST));
        assert_eq!(REST, Duration::from_secs(60));
    }
}
