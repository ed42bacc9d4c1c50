//! Why a peer left, and what follows from it, in one table. (That the IP address of a liar is refused too is decided in
//! `swarm/peers.rs`.)

use std::{fmt, io, net::SocketAddr, time::Duration};

use proto::peer::GoodbyeReason;

use crate::{peer_book::Redial, violation::Violation};

/// Wait before a peer is dialled again that was too slow or does not have the share.
pub(crate) const REDIAL_REST: Duration = Duration::from_secs(60);

/// Why a peer is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaveReason {
    /// It could not be reached.
    Unreachable(Unreachable),
    /// One of the two sides sent a `Goodbye`.
    Goodbye(GoodbyeReason),
    /// It closed the connection, or the connection broke.
    Disconnected,
    /// It violated the protocol.
    Protocol(Violation),
    /// It sent something that was proved wrong.
    Lied,
    /// It missed its deadlines again and again.
    TooSlow,
    /// Its files changed since it shared them.
    FileChanged,
    /// It is this process itself.
    Itself,
    /// The transfer is over.
    Finished,
}

/// Why a peer could not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unreachable {
    /// The system reported the error with this number (`errno`).
    Os(i32),
    /// The connection failed with an error that has no number.
    Io(io::ErrorKind),
    /// It accepted the connection and did not answer in time.
    Silent,
}

/// A peer, and what was wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTrouble {
    /// Its address.
    pub address: SocketAddr,
    /// Why it left, or could not be reached.
    pub reason: LeaveReason,
}

/// Whether the share may still be had from the address of a peer that left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The peer does not have the share.
    WithoutShare,
    /// The peer's files changed.
    Changed,
    /// The peer has its maximum number of connections.
    Full,
    /// Any other reason.
    Other,
}

/// What follows when a peer leaves.
pub(crate) struct Consequence {
    /// The goodbye that the peer receives if this side ends the connection.
    pub(crate) goodbye: GoodbyeReason,
    /// When its address may be dialled again.
    pub(crate) redial: Redial,
    pub(crate) outcome: Outcome,
    /// Whether to report it to the user when no other peer is left.
    pub(crate) is_trouble: bool,
}

impl LeaveReason {
    /// The goodbye that a peer receives if this side leaves it for this reason.
    pub fn goodbye(&self) -> GoodbyeReason {
        self.consequence(true).goodbye
    }

    /// What follows from it. `active` is whether the peer could be asked for chunks.
    pub(crate) fn consequence(&self, active: bool) -> Consequence {
        use GoodbyeReason::{Banned, Done, Duplicate, Protocol, SelfConnection, TooManyPeers, UnknownShare};
        use Outcome::{Changed, Full, Other, WithoutShare};
        let rest = Redial::After(REDIAL_REST);
        let (goodbye, redial, outcome, is_trouble) = match self {
            LeaveReason::Unreachable(_) | LeaveReason::Disconnected => {
                (Protocol, Redial::BackOff, Other, true)
            }
            LeaveReason::Goodbye(reason @ TooManyPeers { retry_after_ms }) => {
                let wait = Duration::from_millis((*retry_after_ms).into()).min(REDIAL_REST);
                (*reason, Redial::After(wait), Full, true)
            }
            LeaveReason::Goodbye(reason @ UnknownShare) => (*reason, rest, WithoutShare, true),
            LeaveReason::Goodbye(reason @ Duplicate) => (*reason, Redial::Duplicate, Other, false),
            LeaveReason::Goodbye(reason) => (*reason, Redial::BackOff, Other, true),
            LeaveReason::Protocol(_) => (Protocol, rest, Other, true),
            LeaveReason::Lied => (Banned, Redial::Never, Other, true),
            LeaveReason::TooSlow if active => (Protocol, rest, Other, true),
            // It only sent the description more slowly than others. It may be useful once the share is known.
            LeaveReason::TooSlow => (Protocol, Redial::BackOff, Other, true),
            LeaveReason::FileChanged => (Done, rest, Changed, true),
            LeaveReason::Itself => (SelfConnection, Redial::Itself, Other, false),
            LeaveReason::Finished => (Done, Redial::BackOff, Other, false),
        };
        Consequence { goodbye, redial, outcome, is_trouble }
    }
}

impl From<io::Error> for Unreachable {
    fn from(error: io::Error) -> Unreachable {
        match error.raw_os_error() {
            Some(number) => Unreachable::Os(number),
            None => Unreachable::Io(error.kind()),
        }
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreachable::Os(number) => write!(f, "{}", io::Error::from_raw_os_error(*number)),
            Unreachable::Io(kind) => write!(f, "{kind}"),
            Unreachable::Silent => f.write_str("it took the connection and did not answer"),
        }
    }
}

impl fmt::Display for PeerTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.reason)
    }
}

impl fmt::Display for LeaveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeaveReason::Unreachable(why) => write!(f, "unreachable: {why}"),
            LeaveReason::Goodbye(reason) => write!(f, "{reason}"),
            LeaveReason::Disconnected => f.write_str("disconnected"),
            LeaveReason::Protocol(violation) => write!(f, "it broke the protocol: {violation}"),
            LeaveReason::Lied => f.write_str("sent wrong data; banned"),
            LeaveReason::TooSlow => f.write_str("it did not deliver in time"),
            LeaveReason::FileChanged => f.write_str("its file changed since it was shared"),
            LeaveReason::Itself => f.write_str("it is this leecher itself"),
            LeaveReason::Finished => f.write_str("finished"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_each_reason_is_as_the_table_of_the_policy_has_it() {
        use GoodbyeReason::{Banned, Done, Duplicate, Protocol, SelfConnection, ShuttingDown, UnknownShare};
        use Outcome::{Changed, Other, WithoutShare};
        let rest = Redial::After(Duration::from_secs(60));
        let silent = || LeaveReason::Unreachable(Unreachable::Silent);
        let violation = LeaveReason::Protocol(Violation::Malformed);
        let goodbye = LeaveReason::Goodbye;
        for (reason, active, sent, redial, outcome, is_trouble) in [
            (silent(), false, Protocol, Redial::BackOff, Other, true),
            (LeaveReason::Disconnected, true, Protocol, Redial::BackOff, Other, true),
            (goodbye(UnknownShare), false, UnknownShare, rest, WithoutShare, true),
            (goodbye(Duplicate), false, Duplicate, Redial::Duplicate, Other, false),
            (goodbye(ShuttingDown), true, ShuttingDown, Redial::BackOff, Other, true),
            (goodbye(Banned), true, Banned, Redial::BackOff, Other, true),
            (violation.clone(), true, Protocol, rest, Other, true),
            (violation, false, Protocol, rest, Other, true),
            (LeaveReason::Lied, true, Banned, Redial::Never, Other, true),
            (LeaveReason::Lied, false, Banned, Redial::Never, Other, true),
            (LeaveReason::TooSlow, true, Protocol, rest, Other, true),
            (LeaveReason::TooSlow, false, Protocol, Redial::BackOff, Other, true),
            (LeaveReason::FileChanged, true, Done, rest, Changed, true),
            (LeaveReason::Itself, false, SelfConnection, Redial::Itself, Other, false),
            (LeaveReason::Finished, true, Done, Redial::BackOff, Other, false),
        ] {
            let follows = reason.consequence(active);
            assert_eq!(
                (follows.goodbye, follows.redial, follows.outcome, follows.is_trouble),
                (sent, redial, outcome, is_trouble),
                "{reason:?}, active: {active}"
            );
        }
    }

    #[test]
    fn a_peer_that_has_no_room_rests_for_the_time_that_it_gives_within_reason() {
        let rest = |retry_after_ms| {
            LeaveReason::Goodbye(GoodbyeReason::TooManyPeers { retry_after_ms }).consequence(true).redial
        };
        assert_eq!(rest(0), Redial::After(Duration::ZERO), "the peer book waits for longer");
        assert_eq!(rest(7_000), Redial::After(Duration::from_secs(7)));
        assert_eq!(rest(60_000), Redial::After(REDIAL_REST));
        assert_eq!(rest(u32::MAX), Redial::After(REDIAL_REST));
        assert_eq!(REDIAL_REST, Duration::from_secs(60));
    }
}
