//! The peers of a swarm: one session each, from the dial or the accept until it is over.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use proto::peer::{GoodbyeReason, Hello, PeerMessage, Role};
use rand::rngs::StdRng;
use seeder::{handshake, outbox::Outbox};
use tokio::{
    net::TcpStream,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    event::LeaveReason,
    joined,
    peer_book::{Admission, Ending, PeerBook},
    scheduler::PeerKey,
    session::{self, Context, Origin},
};

/// A peer that left though it kept to the protocol is tried again after this time.
const REJOIN_AFTER: Duration = Duration::from_secs(2);

/// A peer that was too slow, or does not have the share, is left alone for this time.
pub(super) const REST: Duration = Duration::from_secs(60);

/// When a peer that found no room should come back, in milliseconds.
const RETRY_AFTER_MS: u32 = 5_000;

/// How long sessions may take to say goodbye.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The sessions of a swarm, and the addresses that more could come from.
pub(super) struct Peers {
    pub(super) book: PeerBook,
    context: Arc<Context>,
    sessions: JoinSet<(PeerKey, LeaveReason)>,
    /// Every session that was started, joined or not.
    peers: BTreeMap<PeerKey, Peer>,
    /// Addresses that are of no use at present.
    outcomes: BTreeMap<SocketAddr, Outcome>,
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
    /// Once the peer joined.
    joined: Option<Joined>,
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
    /// Something else.
    Other,
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
            max_peers,
            last_key: 0,
        }
    }

    /// Connects to whom the book says.
    pub(super) fn dial(&mut self, rng: &mut StdRng) {
        while self.peers.len() < self.max_peers
            && let Some(address) = self.book.next_dial(Instant::now(), rng)
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
        let (key, stop) = (PeerKey(self.last_key), CancellationToken::new());
        let dialled = listed.is_some();
        let peer = Peer { address, listed, dialled, stop: stop.clone(), joined: None, verdict: None };
        self.peers.insert(key, peer);
        let context = Arc::clone(&self.context);
        self.sessions.spawn(async move { (key, session::run(context, key, origin, stop).await) });
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
            self.book.connected(listed);
            return Ok(None);
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
        rng: &mut StdRng,
    ) -> Option<Left> {
        let (key, reason) = joined(ended);
        let peer = self.peers.remove(&key)?;
        let reason = peer.verdict.unwrap_or(reason);
        if let Some(listed) = peer.listed {
            self.book.ended(listed, ending(&reason), Instant::now(), rng);
            // The book bounds the number of addresses.
            let outcome = match reason {
                LeaveReason::Gone => Some(Outcome::Changed),
                LeaveReason::Goodbye(GoodbyeReason::UnknownShare) => Some(Outcome::WithoutShare),
                // It may come back, or have room later.
                LeaveReason::Goodbye(_) | LeaveReason::Disconnected => None,
                _ => Some(Outcome::Other),
            };
            match outcome {
                Some(outcome) => _ = self.outcomes.insert(listed, outcome),
                None => _ = self.outcomes.remove(&listed),
            }
        }
        let had_joined = peer.joined.is_some();
        tracing::debug!(address = %peer.address, had_joined, "session over: {reason}");
        Some(Left { key, address: peer.address, reason, joined: had_joined })
    }

    /// Never connects to an address again.
    pub(super) fn ban(&mut self, address: SocketAddr, rng: &mut StdRng) {
        self.book.ended(address, Ending::Never, Instant::now(), rng);
        self.outcomes.insert(address, Outcome::Other);
    }

    /// Whether every known address was tried in vain and none is connected or being dialled.
    pub(super) fn all_failed(&self) -> bool {
        self.peers.is_empty() && !self.book.is_empty() && self.outcomes.len() >= self.book.len()
    }

    /// Whether every known peer said that it does not have the share.
    pub(super) fn all_without_share(&self) -> bool {
        self.all_failed() && self.outcomes.values().all(|&outcome| outcome == Outcome::WithoutShare)
    }

    /// Whether the files of every known peer changed.
    pub(super) fn all_changed(&self) -> bool {
        self.all_failed() && self.outcomes.values().all(|&outcome| outcome == Outcome::Changed)
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

/// When a peer that left for this reason may be dialled again.
fn ending(reason: &LeaveReason) -> Ending {
    match reason {
        LeaveReason::Lied | LeaveReason::Itself => Ending::Never,
        LeaveReason::Goodbye(GoodbyeReason::TooManyPeers { retry_after_ms }) => {
            Ending::RetryAfter(Duration::from_millis((*retry_after_ms).into()).min(REST))
        }
        LeaveReason::Goodbye(GoodbyeReason::Duplicate) => Ending::Duplicate,
        LeaveReason::Goodbye(GoodbyeReason::UnknownShare)
        | LeaveReason::Gone
        | LeaveReason::TooSlow
        | LeaveReason::Protocol(_) => Ending::RetryAfter(REST),
        LeaveReason::Goodbye(_) => Ending::RetryAfter(REJOIN_AFTER),
        LeaveReason::Unreachable(_) | LeaveReason::Disconnected | LeaveReason::Finished => Ending::Failed,
    }
}
