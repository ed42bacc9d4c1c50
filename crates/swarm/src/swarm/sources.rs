//! The sources of addresses: trackers, and names of peers. Decides when each is asked, and keeps its last answer.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{Endpoint, tracker::client::TrackerError};
use rand::Rng;

use crate::{
    lookup_pace::{LookupPace, Wait},
    peer_book::PeerBook,
};

/// Wait before the name of a peer is resolved again.
const NAME_INTERVAL: Duration = Duration::from_secs(2);

/// A source: its index in [`Config::sources`](super::Config::sources).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceId(pub usize);

/// A kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A tracker. It is asked at intervals.
    Tracker,
    /// A peer that the user named. Its name is resolved until that succeeds.
    Peer,
}

/// The answer of a source.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Peers.
    Peers {
        /// Where they listen.
        addresses: Vec<SocketAddr>,
        /// Seconds after which the tracker wants to be asked again, if it is one.
        interval_s: Option<u16>,
    },
    /// The tracker does not know the share.
    Unknown {
        /// The tracker has run long enough to know all peers.
        settled: bool,
    },
    /// The tracker could not be asked.
    TrackerFailed(TrackerError),
    /// The name of the peer could not be resolved.
    NameFailed(PeerNameError),
}

/// The name of a peer that the user named cannot be resolved.
#[derive(Debug, Clone, thiserror::Error)]
#[error("peer {peer}: the name cannot be resolved ({error})")]
pub struct PeerNameError {
    /// The peer.
    pub peer: Endpoint,
    /// The system's error.
    pub error: Arc<io::Error>,
}

/// The sources of addresses.
#[derive(Debug)]
pub(super) struct Sources(Vec<State>);

#[derive(Debug)]
struct State {
    kind: Source,
    pace: LookupPace,
    next: Next,
    last_answer: LastAnswer,
}

/// When a source is asked next.
#[derive(Debug, Clone, Copy)]
enum Next {
    Due,
    /// It is being asked.
    Asked,
    Wait {
        since: Instant,
        wait: Wait,
    },
    Never,
}

/// When to ask a source, as far as that is known.
enum Due {
    Now,
    At(Instant),
    /// Not before something else happens.
    Open,
}

/// The last answer of a source.
#[derive(Debug)]
enum LastAnswer {
    Nothing,
    Peers,
    Unknown { settled: bool },
    TrackerFailed(TrackerError),
    NameFailed(PeerNameError),
}

impl Sources {
    pub(super) fn new(kinds: &[Source]) -> Sources {
        let state = |&kind| State {
            kind,
            pace: LookupPace::default(),
            next: Next::Due,
            last_answer: LastAnswer::Nothing,
        };
        Sources(kinds.iter().map(state).collect())
    }

    /// A source to ask now, if one is due. `hungry_since` is since when the swarm is short of peers, if it is.
    pub(super) fn poll(&mut self, hungry_since: Option<Instant>, now: Instant) -> Option<SourceId> {
        let due = self.0.iter().position(|source| match source.next.due(hungry_since) {
            Due::Now => true,
            Due::At(at) => at <= now,
            Due::Open => false,
        })?;
        self.0[due].next = Next::Asked;
        Some(SourceId(due))
    }

    /// When to call [`Sources::poll`] again if nothing happens before.
    pub(super) fn next_timeout(&self, hungry_since: Option<Instant>) -> Option<Instant> {
        let due = self.0.iter().map(|source| source.next.due(hungry_since));
        due.filter_map(|due| if let Due::At(at) = due { Some(at) } else { None }).min()
    }

    /// A source answered.
    pub(super) fn answered(
        &mut self,
        SourceId(id): SourceId,
        answer: Answer,
        book: &mut PeerBook,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let Some(source) = self.0.get_mut(id) else { return };
        let is_peer = source.kind == Source::Peer;
        source.next = match &answer {
            Answer::Peers { .. } if is_peer => Next::Never,
            _ if is_peer => {
                Next::Wait { since: now, wait: Wait { fed: NAME_INTERVAL, hungry: NAME_INTERVAL } }
            }
            Answer::Peers { interval_s, .. } => {
                interval_s.iter().for_each(|&seconds| source.pace.set_interval(seconds));
                Next::Wait { since: now, wait: source.pace.next(rng) }
            }
            _ => Next::Wait { since: now, wait: source.pace.next(rng) },
        };
        source.last_answer = match answer {
            Answer::Peers { addresses, .. } => {
                for address in addresses {
                    let _ =
                        if is_peer { book.discover_named(address, now) } else { book.discover(address, now) };
                }
                LastAnswer::Peers
            }
            Answer::Unknown { settled } => LastAnswer::Unknown { settled },
            Answer::TrackerFailed(error) => LastAnswer::TrackerFailed(error),
            Answer::NameFailed(error) => LastAnswer::NameFailed(error),
        };
    }

    /// Whether there is a tracker, which may name peers later.
    pub(super) fn has_tracker(&self) -> bool {
        self.0.iter().any(|source| source.kind == Source::Tracker)
    }

    /// The error of a tracker, if one has failed.
    pub(super) fn tracker_error(&self) -> Option<&TrackerError> {
        self.0.iter().find_map(|source| match &source.last_answer {
            LastAnswer::TrackerFailed(error) => Some(error),
            _ => None,
        })
    }

    /// The error of a peer's name, if one could not be resolved.
    pub(super) fn name_error(&self) -> Option<&PeerNameError> {
        self.0.iter().find_map(|source| match &source.last_answer {
            LastAnswer::NameFailed(error) => Some(error),
            _ => None,
        })
    }

    /// Whether every source named peers.
    pub(super) fn all_named_peers(&self) -> bool {
        self.0.iter().all(|source| matches!(source.last_answer, LastAnswer::Peers))
    }

    /// The answer of a tracker that does not allow the share, if there is one.
    pub(super) fn not_allowed(&self) -> Option<&TrackerError> {
        self.0.iter().find_map(|source| match &source.last_answer {
            LastAnswer::TrackerFailed(error) if error.is_not_allowed() => Some(error),
            _ => None,
        })
    }

    /// Whether every tracker knows all peers and does not know the share, or does not allow it, and every name was resolved.
    pub(super) fn none_will_know(&self) -> bool {
        self.0.iter().all(|source| match source.kind {
            Source::Tracker => match &source.last_answer {
                LastAnswer::Unknown { settled } => *settled,
                LastAnswer::TrackerFailed(error) => error.is_not_allowed(),
                _ => false,
            },
            Source::Peer => matches!(source.last_answer, LastAnswer::Peers),
        })
    }

    /// Whether there are sources, and the name of none can be resolved.
    pub(super) fn none_is_resolved(&self) -> bool {
        let is_unresolved = |source: &State| match &source.last_answer {
            LastAnswer::TrackerFailed(error) => error.is_unresolved(),
            LastAnswer::NameFailed(_) => true,
            _ => false,
        };
        !self.0.is_empty() && self.0.iter().all(is_unresolved)
    }

    /// Whether any source answered without an error.
    pub(super) fn any_answered(&self) -> bool {
        self.0
            .iter()
            .any(|source| matches!(source.last_answer, LastAnswer::Peers | LastAnswer::Unknown { .. }))
    }

    /// Whether any tracker answered that it does not know the share.
    pub(super) fn any_does_not_know(&self) -> bool {
        self.0.iter().any(|source| matches!(source.last_answer, LastAnswer::Unknown { .. }))
    }

    /// Whether a source named peers.
    pub(super) fn any_named_peers(&self) -> bool {
        self.0.iter().any(|source| matches!(source.last_answer, LastAnswer::Peers))
    }
}

impl Next {
    fn due(self, hungry_since: Option<Instant>) -> Due {
        match self {
            Next::Due => Due::Now,
            Next::Asked | Next::Never => Due::Open,
            Next::Wait { since, wait } => {
                // The wait counts from the loss too, so that leechers that lose a peer together do not all ask at that moment.
                let hungry = hungry_since.map(|hungry| hungry.max(since) + wait.hungry);
                Due::At(hungry.map_or(since + wait.fed, |hungry| hungry.min(since + wait.fed)))
            }
        }
    }
}

/// Formats several trackers or peers.
pub(super) fn list(endpoints: &[Endpoint]) -> String {
    endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(", ")
}
