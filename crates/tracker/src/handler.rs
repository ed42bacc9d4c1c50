//! From one datagram to at most one reply.
//!
//! Pure: the [`service`](crate::service) has the socket and the clock. Three rules hold for every datagram. Without a token
//! that proves the source address, nothing is registered. Without one no reply is larger than its request, so nobody can aim the
//! tracker at a third party. And nobody gets more than the rates of an address allow.

use std::{
    net::IpAddr,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use proto::{
    ShareNameRef,
    tracker::{
        ErrorCode, MAX_DATAGRAM_LEN, PeerEntry, Peers, Query, ReplyBody, RequestBody, ShareEntry, Shares,
        codec::{borrow_request, encode_answer, peek_subject},
        message::MAX_PEERS,
    },
};
use rand::CryptoRng;

use crate::{
    admission::Admission,
    fleet::{seam::Seam, secret::FleetSecret, time::StoreClock},
    rates::{Rates, Source, Verdict},
    registry::{Asker, Caps, Eviction, Journal, Registry, Rules, Stats, Sweep},
    token::{self, Tokens},
};

/// Time between two turns of sweeping in a round.
const TURN_EVERY: Duration = Duration::from_millis(20);

/// Minimum time between two rounds of sweeping. An expired peer is swept at most 4 s later: after this rest and a round.
const REST: Duration = Duration::from_secs(2);

/// Maximum time between two rounds in a fleet.
const FLEET_REST: Duration = Duration::from_secs(5);

/// Peers that one call of [`Handler::sweep`] checks (and all those of the last share that it checks). Requests wait
/// meanwhile: with a million peers expiring, answers took less than 10 ms (docs/benchmarks.md).
const SWEEP_STEP: usize = 256;

/// Maximum turns of a round. With [`TURN_EVERY`] a round takes two seconds. In a small registry one turn is a whole round.
const TURNS_PER_ROUND: usize = 100;

/// Bytes of a reply with one share, at most, without the share's name and its peers. Like the decoder's limit, it counts a number by
/// its size in memory.
const SOLE_SHARE_LEN: usize = 168;

/// Bytes of a peer in a reply, at most, counted in the same way.
const PEER_ENTRY_LEN: usize = 24;

/// Bytes of an address's limit that a lookup of late hosts uses up besides its answer, because it takes as long as some 50 other lookups.
const LATE_COST: usize = 8 * 1024;

/// The tracker without its socket.
pub struct Handler {
    registry: Registry,
    tokens: Tokens,
    rates: Rates,
    counters: Counters,
    sweeping: Sweeping,
    /// Memory for the peers of the next reply.
    spare_entries: Vec<PeerEntry>,
    /// If this tracker is part of a fleet.
    seam: Option<Box<Seam>>,
}

/// The state of sweeping.
#[derive(Debug, Clone, Copy)]
enum Sweeping {
    /// There is nothing to do before this time.
    Resting(Instant),
    /// In a round, in which every turn checks `budget` peers. The number is the same for the whole round. Otherwise the rest
    /// of it would take longer and longer as peers go.
    Turn {
        budget: usize,
        /// Peers to check in the rest of this turn.
        left: usize,
    },
}

/// What a request shows of its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// It has a good token.
    Good,
    /// It has another token.
    Refused,
    /// It needs no token.
    None,
}

/// What a call of [`Handler::sweep`] left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Swept {
    /// Nothing until then, even if peers come or go meanwhile.
    Until(Instant),
    /// More: call again soon, but answer requests first.
    InPart,
}

/// Datagrams that a handler has received so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests for a token.
    pub connects: u64,
    /// Announces with a good token.
    pub announces: u64,
    /// Lookups with a good token, or with padding instead of one.
    pub lookups: u64,
    /// Requests whose token was refused.
    pub tokens_refused: u64,
    /// Datagrams that are no request of this protocol version, dropped without a reply.
    pub malformed: u64,
    /// Replies not sent because they were larger than an unproved request, or than a datagram.
    pub withheld: u64,
    /// Lookups that were not answered because too many expired shares were in the way.
    pub put_off: u64,
    /// Lookups answered by `SlowDown`.
    pub slowed: u64,
    /// Requests beyond the rate of their address, dropped without a reply.
    pub silenced: u64,
    /// Registrations refused because there is no room.
    pub full: u64,
    /// Announces refused because the peer id is another's.
    pub not_yours: u64,
    /// Announces and lookups of shares that are not allowed here.
    pub not_allowed: u64,
    /// Lookups of shares that are unknown here.
    pub unknown_shares: u64,
    /// Bytes of all datagrams that were received.
    pub bytes_received: u64,
    /// Bytes of all replies.
    pub bytes_replied: u64,
}

impl Handler {
    /// A tracker that knows nobody yet.
    pub fn new(rules: Rules, now: Instant, rng: &mut impl CryptoRng) -> Handler {
        Handler {
            rates: Rates::new(rules.rate, rules.byte_rate, now, rng),
            registry: Registry::new(rules, now),
            tokens: Tokens::new(now, rng),
            counters: Counters::default(),
            sweeping: Sweeping::Resting(now),
            spare_entries: Vec::with_capacity(MAX_PEERS),
            seam: None,
        }
    }

    /// From now on, this tracker, which must not have answered yet, is part of a fleet.
    pub fn join_fleet(&mut self, clock: StoreClock) {
        self.seam = Some(Box::new(Seam::new(&mut self.registry, clock)));
    }

    /// The rules that may change.
    pub fn caps(&mut self) -> Caps {
        self.registry.rules().caps()
    }

    /// Changes them. Registrations beyond the new limits stay, and can be renewed.
    pub fn set_caps(&mut self, caps: Caps) {
        self.rates.set(caps.rate, caps.byte_rate);
        self.registry.rules().set_caps(caps);
    }

    /// From now on, only these shares are allowed. [`Handler::evict`] ends registrations of others, from where this returns.
    pub fn set_admission(&mut self, admission: Option<Arc<Admission>>) -> Eviction {
        self.registry.set_admission(admission);
        self.registry.begin_eviction()
    }

    /// See [`Registry::evict`].
    pub fn evict(&mut self, at: Eviction, shares: usize, peers: usize) -> (Eviction, bool) {
        self.registry.evict(at, shares, peers)
    }

    /// If this tracker is part of a fleet: what it has to do with the others.
    pub fn fleet(&mut self) -> Option<(&mut Seam, &mut Registry)> {
        self.seam.as_deref_mut().map(|seam| (seam, &mut self.registry))
    }

    /// From now on, tokens are those of all trackers that have this secret.
    pub fn share_tokens(&mut self, secret: &FleetSecret, clock: StoreClock, now: Instant) {
        self.tokens.share(secret, clock, now);
    }

    /// Handles a datagram like [`Handler::handle`], and answers a lookup of an unknown share too, because it has waited already.
    pub fn handle_at_last(
        &mut self,
        datagram: &[u8],
        source: IpAddr,
        now: Instant,
        rng: &mut impl CryptoRng,
        replies: &mut BytesMut,
    ) -> Option<Range<usize>> {
        let could_wait = self.seam.as_mut().is_some_and(|seam| {
            let could_wait = seam.may_wait();
            seam.let_wait(false);
            could_wait
        });
        let reply = self.handle(datagram, source, now, rng, replies);
        if let Some(seam) = &mut self.seam {
            seam.let_wait(could_wait);
        }
        reply
    }

    /// Loads into the processor's caches what the answers to these datagrams, at most a batch, are going to read. It only
    /// saves time: it changes no answer and trusts nothing. The same datagrams are to be handled next, in this order.
    pub fn preload<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>) {
        self.registry.preload(datagrams.map(peek_subject));
    }

    /// Handles one datagram from `source`. The reply, if there is one, is appended to `replies`, and its position there is
    /// returned. Allocates only for new registrations and for lookups of shares.
    pub fn handle(
        &mut self,
        datagram: &[u8],
        source: IpAddr,
        now: Instant,
        rng: &mut impl CryptoRng,
        replies: &mut BytesMut,
    ) -> Option<Range<usize>> {
        self.registry.advance();
        let source = source.to_canonical();
        self.counters.bytes_received += datagram.len() as u64;
        // Requests and answers stay where they are made: moving one costs more than reading it.
        let request = borrow_request(datagram);
        let Ok(request) = &request else {
            self.counters.malformed += 1;
            return None;
        };
        // Nearly all tokens are good. While one is checked, what its address has been sent is loaded.
        let expected = if has_token(&request.body) { Source::Proved } else { Source::Unproved };
        let mut ticket = self.rates.ticket(source, expected, now, rng);
        let proof = self.prove(&request.body, source, now, rng);
        let (from, limit) = match proof {
            Proof::Good => (Source::Proved, MAX_DATAGRAM_LEN),
            Proof::Refused | Proof::None => (Source::Unproved, datagram.len()),
        };
        if from != expected {
            ticket = self.rates.ticket(source, from, now, rng);
        }
        let verdict = self.rates.admit(ticket, now);
        let answer = match (proof, verdict) {
            (_, Verdict::Nothing) => {
                self.counters.silenced += 1;
                None
            }
            (Proof::Refused, _) => Some(ReplyBody::Error(ErrorCode::TokenRefused)),
            (_, Verdict::Small(left)) if is_lookup(&request.body) => {
                self.counters.slowed += 1;
                let retry_after_ms = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
                Some(ReplyBody::Error(ErrorCode::SlowDown { retry_after_ms }))
            }
            (Proof::Good | Proof::None, _) => self.answer(&request.body, source, now, rng),
        };
        let extra = if matches!(answer, Some(ReplyBody::Late(_))) { LATE_COST } else { 0 };
        let start = replies.len();
        let encoded = encode_answer(request.transaction, answer.as_ref()?, replies);
        if let Some(
            ReplyBody::Peers(Peers { peers, .. })
            | ReplyBody::Shares(Shares { peers: Some(Peers { peers, .. }), .. }),
        ) = answer
        {
            self.spare_entries = peers;
        }
        if encoded.is_err() || replies.len() - start > limit {
            replies.truncate(start);
            self.counters.withheld += 1;
            return None;
        }
        self.rates.charge(ticket, replies.len() - start + extra);
        self.counters.bytes_replied += (replies.len() - start) as u64;
        Some(start..replies.len())
    }

    /// Drops some expired peers, if any can have expired. Call it again at the time that it returns, and while it returns
    /// [`Swept::InPart`].
    pub fn sweep(&mut self, now: Instant) -> Swept {
        let (budget, left) = match self.sweeping {
            Sweeping::Resting(until) if now < until => return Swept::Until(until),
            Sweeping::Resting(_) => {
                let budget = self.registry.stats().peers().div_ceil(TURNS_PER_ROUND).max(SWEEP_STEP);
                (budget, budget)
            }
            Sweeping::Turn { budget, left } => (budget, left),
        };
        let Sweep { looked, nobody_before } = self.registry.sweep(now, left.min(SWEEP_STEP));
        if let Some(nobody_before) = nobody_before {
            let mut until = nobody_before.max(now + REST);
            if self.seam.is_some() {
                // Others may know of peers that expire sooner.
                until = until.min(now + FLEET_REST);
            }
            self.sweeping = Sweeping::Resting(until);
            return Swept::Until(until);
        }
        match left.saturating_sub(looked) {
            0 => {
                self.sweeping = Sweeping::Turn { budget, left: budget };
                Swept::Until(now + TURN_EVERY)
            }
            left => {
                self.sweeping = Sweeping::Turn { budget, left };
                Swept::InPart
            }
        }
    }

    /// From now on, collects changes of registrations for the log.
    pub fn keep_journal(&mut self) {
        self.registry.keep_journal();
    }

    /// Changes of registrations since the last call. Write them when nothing waits for this handler.
    pub fn take_journal(&mut self) -> Journal {
        self.registry.take_journal()
    }

    /// The current counts of the registry.
    pub fn stats(&self) -> Stats {
        self.registry.stats()
    }

    /// What is registered.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The counts of datagrams so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Checks the token of a request.
    fn prove(
        &mut self,
        request: &RequestBody<ShareNameRef<'_>>,
        source: IpAddr,
        now: Instant,
        rng: &mut impl CryptoRng,
    ) -> Proof {
        let token = match request {
            RequestBody::Connect { .. } => {
                self.counters.connects += 1;
                return Proof::None;
            }
            RequestBody::FirstLookup { query } if !query.needs_token() => return Proof::None,
            RequestBody::FirstLookup { .. } => {
                self.counters.tokens_refused += 1;
                return Proof::Refused;
            }
            RequestBody::Announce(announce) => &announce.token,
            RequestBody::Lookup { token, .. } => token,
        };
        if self.tokens.accepts(token, source, now, rng) {
            return Proof::Good;
        }
        self.counters.tokens_refused += 1;
        Proof::Refused
    }

    /// The answer to a request that may be answered; `None` if the client should ask again.
    fn answer(
        &mut self,
        request: &RequestBody<ShareNameRef<'_>>,
        source: IpAddr,
        now: Instant,
        rng: &mut impl CryptoRng,
    ) -> Option<ReplyBody> {
        let answer = match request {
            RequestBody::Connect { .. } => {
                let token = self.tokens.issue(source, now, rng);
                ReplyBody::Connected { token, lifetime_s: token::LIFETIME_S }
            }
            RequestBody::Announce(announce) => {
                self.counters.announces += 1;
                let announced = match &mut self.seam {
                    None => self.registry.announce(announce, source, now),
                    Some(seam) => seam.announce(&mut self.registry, announce, source, now),
                };
                match announced {
                    Ok(announced) => ReplyBody::Announced(announced),
                    Err(code) => {
                        self.counters.full += u64::from(matches!(code, ErrorCode::Full(_)));
                        self.counters.not_yours += u64::from(code == ErrorCode::NotYours);
                        self.counters.not_allowed += u64::from(code == ErrorCode::NotAllowed);
                        ReplyBody::Error(code)
                    }
                }
            }
            RequestBody::Lookup { query, .. } | RequestBody::FirstLookup { query } => {
                self.counters.lookups += 1;
                if let Some(admission) = self.registry.admission()
                    && !may_be_known(admission, query)
                {
                    self.counters.not_allowed += 1;
                    return Some(ReplyBody::Error(ErrorCode::NotAllowed));
                }
                return self.look_up(query, source, now, rng);
            }
        };
        Some(answer)
    }

    fn look_up(
        &mut self,
        query: &Query<ShareNameRef<'_>>,
        source: IpAddr,
        now: Instant,
        rng: &mut impl CryptoRng,
    ) -> Option<ReplyBody> {
        let shares = match query {
            Query::Peers { infohash, want, zone } => {
                let (entries, asker) = (&mut self.spare_entries, Asker { ip: source, zone: *zone });
                return match self.registry.peers_into(entries, infohash, *want, &asker, now, rng) {
                    Ok(peers) => Some(ReplyBody::Peers(peers)),
                    Err(_) if self.seam.as_mut().is_some_and(|seam| seam.wait_for(infohash)) => None,
                    Err(code) => {
                        self.counters.unknown_shares += 1;
                        Some(ReplyBody::Error(code))
                    }
                };
            }
            Query::Named { name, after: None } => {
                let mut shares = self.registry.named(name, None, now);
                if let Some(shares) = &mut shares
                    && let ([share], false) = (&shares.shares[..], shares.more)
                {
                    let want = peers_that_fit(share);
                    let entries = &mut self.spare_entries;
                    let peers =
                        self.registry.peers_into(entries, &share.infohash, want, &source.into(), now, rng);
                    shares.peers = peers.ok();
                }
                shares
            }
            Query::Named { name, after } => self.registry.named(name, *after, now),
            Query::List { after } => self.registry.list(after.clone(), now),
            Query::Late { infohash, after } => {
                let late = self.registry.late(infohash, after.as_ref(), source, now, rng);
                return Some(late.map_or_else(ReplyBody::Error, ReplyBody::Late));
            }
            Query::Finished { infohash, after } => {
                let finished = self.registry.finished(infohash, *after, source, now);
                return Some(finished.map_or_else(ReplyBody::Error, ReplyBody::Finished));
            }
        };
        // No answer: the client asks again by itself, and by then the expired shares have been swept.
        self.counters.put_off += u64::from(shares.is_none());
        shares.map(ReplyBody::Shares)
    }
}

/// Whether a share that a query is about may be registered.
fn may_be_known(admission: &Admission, query: &Query<ShareNameRef<'_>>) -> bool {
    match query {
        Query::Peers { infohash, .. } | Query::Late { infohash, .. } | Query::Finished { infohash, .. } => {
            admission.allows_infohash(infohash)
        }
        Query::Named { name, .. } => admission.allows_name(name.as_ref()),
        Query::List { .. } => true,
    }
}

fn is_lookup(request: &RequestBody<ShareNameRef<'_>>) -> bool {
    matches!(request, RequestBody::Lookup { .. } | RequestBody::FirstLookup { .. })
}

fn has_token(request: &RequestBody<ShareNameRef<'_>>) -> bool {
    matches!(request, RequestBody::Announce(_) | RequestBody::Lookup { .. })
}

/// How many peers of a share fit into a reply beside the share itself.
fn peers_that_fit(share: &ShareEntry) -> u8 {
    let room = MAX_DATAGRAM_LEN.saturating_sub(SOLE_SHARE_LEN + share.name.as_str().len());
    u8::try_from(room / PEER_ENTRY_LEN).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests;
