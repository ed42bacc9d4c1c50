//! The logic of a tracker client: tokens, retries with back-off and jitter, reconnecting after the tracker restarted.
//!
//! A lookup of peers or shares needs a token only if its first try, which is large, gets no answer. So it takes one round trip.
//!
//! Pure: no socket and no clock. The caller sends what [`Client::poll_transmit`] returns, hands in the replies, calls it
//! again at [`Client::next_timeout`], and collects [`Client::poll_outcome`]. Every call ends in an outcome, at most
//! [`CALL_TIMEOUT`] after it began.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{Rng, RngExt};

use super::message::{
    Announce, Announced, ErrorCode, FinishedHosts, LateHosts, Peers, Query, Reply, ReplyBody, Request,
    RequestBody, Shares, Token, TransactionId,
};
use crate::Endpoint;

/// A call fails when the tracker has not answered for this long.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(7);

/// Wait before the first retry; each further wait is twice as long. So four tries fit into [`CALL_TIMEOUT`].
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// A refused token means that the tracker restarted and refused every client's token. So the client reconnects after a
/// random part of this.
const RECONNECT_JITTER: Duration = Duration::from_secs(1);

/// Bounds of the wait that a tracker can ask for with `SlowDown`, before its jitter. So no tracker can make a client ask without
/// pause, and a call still has time for another try.
const MIN_SLOW_DOWN: Duration = Duration::from_millis(100);
const MAX_SLOW_DOWN: Duration = Duration::from_secs(3);

/// A token is renewed this long before it ends, so that one in flight is still accepted.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// Names a call until its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

/// A call to the tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Register, renew or end a registration. The client fills in the token.
    Announce(Announce),
    /// Look up peers or shares.
    Lookup(Query),
}

/// The tracker's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To an announce.
    Announced(Announced),
    /// To a lookup of peers.
    Peers(Peers),
    /// To a lookup of shares.
    Shares(Shares),
    /// To a lookup of hosts that are late.
    Late(LateHosts),
    /// To a lookup of hosts that have fetched all of a share.
    Finished(FinishedHosts),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The tracker stayed silent.
    #[error("no answer within {} seconds", CALL_TIMEOUT.as_secs())]
    Unanswered,
    /// The tracker refused.
    #[error(transparent)]
    Refused(#[from] ErrorCode),
    /// The answer belongs to another kind of request.
    #[error("the tracker's reply does not match the request")]
    Unexpected,
}

/// Why a tracker gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TrackerError {
    /// It did not answer, or refused.
    #[error("tracker {endpoint}: {error}")]
    Call {
        /// The tracker.
        endpoint: Endpoint,
        /// Its failure.
        error: CallError,
    },
    /// Its name cannot be resolved.
    #[error("tracker {endpoint}: its name cannot be resolved ({error})")]
    Unresolved {
        /// The tracker.
        endpoint: Endpoint,
        /// The system's error.
        error: Arc<io::Error>,
    },
    /// Its name has no suitable address, or no socket can reach it.
    #[error("tracker {endpoint}: {error}")]
    Unreachable {
        /// The tracker.
        endpoint: Endpoint,
        /// The system's error.
        error: Arc<io::Error>,
    },
    /// The program is stopping.
    #[error("tracker {0}: stopping")]
    Stopping(Endpoint),
}

impl TrackerError {
    /// The tracker.
    pub fn endpoint(&self) -> &Endpoint {
        match self {
            TrackerError::Call { endpoint, .. }
            | TrackerError::Unresolved { endpoint, .. }
            | TrackerError::Unreachable { endpoint, .. }
            | TrackerError::Stopping(endpoint) => endpoint,
        }
    }

    /// Whether the tracker's name cannot be resolved. Usually it is misspelt, and trying again does not help.
    pub fn is_unresolved(&self) -> bool {
        matches!(self, TrackerError::Unresolved { .. })
    }

    /// Whether the tracker does not allow the share.
    pub fn is_not_allowed(&self) -> bool {
        matches!(self, TrackerError::Call { error: CallError::Refused(ErrorCode::NotAllowed), .. })
    }
}

/// A client of one tracker.
#[derive(Debug, Default)]
pub struct Client {
    token: TokenState,
    calls: BTreeMap<CallId, Pending>,
    outcomes: VecDeque<(CallId, Result<Answer, CallError>)>,
    last_call: u64,
}

#[derive(Debug, Default)]
enum TokenState {
    #[default]
    None,
    /// No connect before this time.
    Backoff(Instant),
    Connecting(Flight),
    Held {
        token: Token,
        renew_at: Instant,
    },
}

/// A request in flight.
#[derive(Debug, Clone, Copy)]
struct Flight {
    transaction: TransactionId,
    tries: u32,
    retry_at: Instant,
}

#[derive(Debug)]
struct Pending {
    call: Call,
    give_up_at: Instant,
    /// `None` until it is sent.
    flight: Option<Flight>,
    /// The tracker's last answer, if it was [`ErrorCode::SlowDown`].
    slowed: Option<ErrorCode>,
}

impl Client {
    /// Begins a call.
    pub fn start(&mut self, call: Call, now: Instant) -> CallId {
        self.last_call += 1;
        let id = CallId(self.last_call);
        self.calls.insert(id, Pending { call, give_up_at: now + CALL_TIMEOUT, flight: None, slowed: None });
        id
    }

    /// Number of calls without an outcome yet.
    pub fn calls_under_way(&self) -> usize {
        self.calls.len()
    }

    /// The next request to send now, if any. Call until it returns `None`.
    pub fn poll_transmit(&mut self, now: Instant, rng: &mut impl Rng) -> Option<Request> {
        self.expire(now);
        if self.calls.is_empty() {
            return None;
        }
        if let TokenState::Held { token, renew_at } = self.token
            && now < renew_at
        {
            return self.calls.values_mut().find_map(|pending| pending.poll_transmit(token, now, rng));
        }
        if let TokenState::Backoff(until) = self.token {
            if now < until {
                return None;
            }
            self.token = TokenState::None;
        }
        let first = self.calls.values_mut().find_map(|pending| pending.first_lookup(now, rng));
        if first.is_some() {
            return first;
        }
        if !self.calls.values().any(|pending| pending.needs_token(now)) {
            // The call that needed it was given up.
            if matches!(&self.token, TokenState::Connecting(flight) if now >= flight.retry_at) {
                self.token = TokenState::None;
            }
            return None;
        }
        match &mut self.token {
            TokenState::Connecting(flight) if now < flight.retry_at => None,
            TokenState::Connecting(flight) => {
                flight.retry(now, rng);
                Some(Request { transaction: flight.transaction, body: RequestBody::CONNECT })
            }
            TokenState::None | TokenState::Backoff(_) | TokenState::Held { .. } => {
                let flight = Flight::new(now, rng);
                self.token = TokenState::Connecting(flight);
                Some(Request { transaction: flight.transaction, body: RequestBody::CONNECT })
            }
        }
    }

    /// Receives a reply. Replies to no current request are ignored.
    pub fn on_reply(&mut self, reply: Reply, now: Instant, rng: &mut impl Rng) {
        if let TokenState::Connecting(flight) = &self.token
            && flight.transaction == reply.transaction
        {
            if let ReplyBody::Connected { token, lifetime_s } = reply.body {
                let lifetime = Duration::from_secs(lifetime_s.into());
                // Even if its life is short, the token serves the calls that wait for it.
                let renew_at = now + lifetime.saturating_sub(TOKEN_MARGIN).max(Duration::from_secs(1));
                self.token = TokenState::Held { token, renew_at };
            }
            return;
        }
        let answers = |pending: &Pending| pending.flight.is_some_and(|f| f.transaction == reply.transaction);
        let Some(id) = self.calls.iter().find(|(_, pending)| answers(pending)).map(|(&id, _)| id) else {
            return;
        };
        if reply.body == ReplyBody::Error(ErrorCode::TokenRefused) {
            return self.reconnect(now, rng);
        }
        if let ReplyBody::Error(code @ ErrorCode::SlowDown { retry_after_ms }) = reply.body {
            return self.slow_down(id, code, retry_after_ms, now, rng);
        }
        if let Some(pending) = self.calls.remove(&id) {
            self.outcomes.push_back((id, pending.outcome(reply.body)));
        }
    }

    /// The tracker is asked at another address from now on, where another tracker may be. Calls under way begin anew there, and have as
    /// much time left as before.
    pub fn start_over(&mut self) {
        self.token = TokenState::None;
        for pending in self.calls.values_mut() {
            pending.flight = None;
        }
    }

    /// The next finished call, if any. Call until it returns `None`.
    pub fn poll_outcome(&mut self) -> Option<(CallId, Result<Answer, CallError>)> {
        self.outcomes.pop_front()
    }

    /// When to call [`Client::poll_transmit`] again if nothing arrives.
    pub fn next_timeout(&self) -> Option<Instant> {
        let give_up = self.calls.values().map(|pending| pending.give_up_at).min()?;
        let retry = match &self.token {
            TokenState::Backoff(until) => Some(*until),
            // A call that has to be sent again waits for the token.
            TokenState::Connecting(flight) => Some(flight.retry_at),
            TokenState::None | TokenState::Held { .. } => {
                self.calls.values().filter_map(|pending| pending.flight).map(|flight| flight.retry_at).min()
            }
        };
        Some(retry.map_or(give_up, |retry| retry.min(give_up)))
    }

    fn expire(&mut self, now: Instant) {
        while let Some(id) =
            self.calls.iter().find(|(_, pending)| pending.give_up_at <= now).map(|(&id, _)| id)
        {
            let slowed = self.calls.remove(&id).and_then(|pending| pending.slowed);
            self.outcomes.push_back((id, Err(slowed.map_or(CallError::Unanswered, CallError::Refused))));
        }
        if self.calls.is_empty() && !matches!(self.token, TokenState::Held { .. }) {
            self.token = TokenState::None;
        }
    }

    /// The tracker wants this call to come later.
    fn slow_down(
        &mut self,
        id: CallId,
        code: ErrorCode,
        retry_after_ms: u16,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let wait = Duration::from_millis(retry_after_ms.into()).clamp(MIN_SLOW_DOWN, MAX_SLOW_DOWN);
        if let Some(pending) = self.calls.get_mut(&id) {
            pending.slowed = Some(code);
            if let Some(flight) = &mut pending.flight {
                // Everybody behind one address gets this answer, and they should not all come back together.
                flight.retry_at = now + wait.mul_f64(rng.random_range(1.0..2.0));
            }
        }
    }

    fn reconnect(&mut self, now: Instant, rng: &mut impl Rng) {
        self.token = TokenState::Backoff(now + RECONNECT_JITTER.mul_f64(rng.random()));
        for pending in self.calls.values_mut() {
            pending.flight = None;
        }
    }
}

impl Flight {
    fn new(now: Instant, rng: &mut impl Rng) -> Flight {
        let mut flight = Flight { transaction: TransactionId(rng.random()), tries: 0, retry_at: now };
        flight.retry(now, rng);
        flight
    }

    /// Counts a try and sets the time of the next one. The transaction stays the same, so a late reply to an earlier try
    /// still counts.
    fn retry(&mut self, now: Instant, rng: &mut impl Rng) {
        let wait = FIRST_RETRY * 2_u32.saturating_pow(self.tries);
        self.tries += 1;
        self.retry_at = now + wait.mul_f64(rng.random_range(0.8..1.2));
    }
}

impl Pending {
    /// A lookup that was not sent yet, without a token.
    fn first_lookup(&mut self, now: Instant, rng: &mut impl Rng) -> Option<Request> {
        let (Call::Lookup(query), None) = (&self.call, self.flight) else { return None };
        if query.needs_token() {
            return None;
        }
        let flight = *self.flight.insert(Flight::new(now, rng));
        let body = RequestBody::FirstLookup { query: query.clone() };
        Some(Request { transaction: flight.transaction, body })
    }

    /// Whether it cannot be sent without a token.
    fn needs_token(&self, now: Instant) -> bool {
        self.flight.is_none_or(|flight| now >= flight.retry_at)
    }

    fn poll_transmit(&mut self, token: Token, now: Instant, rng: &mut impl Rng) -> Option<Request> {
        let flight = match &mut self.flight {
            Some(flight) if now < flight.retry_at => return None,
            Some(flight) => {
                flight.retry(now, rng);
                flight
            }
            none => none.insert(Flight::new(now, rng)),
        };
        let body = match self.call.clone() {
            Call::Announce(announce) => RequestBody::Announce(Announce { token, ..announce }),
            Call::Lookup(query) => RequestBody::Lookup { token, query },
        };
        Some(Request { transaction: flight.transaction, body })
    }

    fn outcome(self, body: ReplyBody) -> Result<Answer, CallError> {
        match (self.call, body) {
            (_, ReplyBody::Error(code)) => Err(CallError::Refused(code)),
            (Call::Announce(_), ReplyBody::Announced(announced)) => Ok(Answer::Announced(announced)),
            (Call::Lookup(Query::Peers { .. }), ReplyBody::Peers(peers)) => Ok(Answer::Peers(peers)),
            (Call::Lookup(Query::Named { .. } | Query::List { .. }), ReplyBody::Shares(shares)) => {
                Ok(Answer::Shares(shares))
            }
            (Call::Lookup(Query::Late { .. }), ReplyBody::Late(late)) => Ok(Answer::Late(late)),
            (Call::Lookup(Query::Finished { .. }), ReplyBody::Finished(finished)) => {
                Ok(Answer::Finished(finished))
            }
            _ => Err(CallError::Unexpected),
        }
    }
}

#[cfg(test)]
mod tests;
