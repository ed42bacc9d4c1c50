//! Where addresses come from: trackers, and names of peers. When each is asked, and what it said last.

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

/// A tracker, or a peer that the user named: its place in the list that [`super::Config`] gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceId(pub usize);

/// Where addresses of peers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A tracker. It is asked again and again.
    Tracker,
    /// A peer that the user named. Its name is resolved until it leads somewhere.
    Peer,
}

/// What a source says.
#[derive(Debug, Clone)]
pub enum Answer {
    /// These are peers.
    Peers {
        /// Where they listen.
        addresses: Vec<SocketAddr>,
        /// Seconds after which the tracker wants to be asked again, if it is one.
        interval_s: Option<u16>,
    },
    /// The tracker does not know the share.
    Unknown {
        /// It has been up for long enough to know everybody.
        settled: bool,
    },
    /// The tracker cannot say.
    TrackerFailed(TrackerError),
    /// The name of the peer leads nowhere.
    NameFailed(PeerNameError),
}

/// The name of a peer that the user named cannot be resolved.
#[derive(Debug, Clone, thiserror::Error)]
#[error("peer {peer}: the name cannot be resolved ({source})")]
pub struct PeerNameError {
    /// The peer.
    pub peer: Endpoint,
    /// Why not.
    pub source: Arc<io::Error>,
}

/// The sources of addresses.
#[derive(Debug)]
pub(super) struct Sources(Vec<State>);

#[derive(Debug)]
struct State {
    kind: Source,
    pace: LookupPace,
    next: Next,
    said: Said,
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

/// What a source said the last time.
#[derive(Debug)]
enum Said {
    Nothing,
    Peers,
    Unknown { settled: bool },
    TrackerFailed(TrackerError),
    NameFailed(PeerNameError),
}

impl Sources {
    pub(super) fn new(kinds: &[Source]) -> Sources {
        let state = |&kind| State { kind, pace: LookupPace::default(), next: Next::Due, said: Said::Nothing };
        Sources(kinds.iter().map(state).collect())
    }

    /// A source to be asked now, if there is one. `hungry_since` says since when the swarm
    /// has no peer, if so.
    pub(super) fn poll(&mut self, hungry_since: Option<Instant>, now: Instant) -> Option<SourceId> {
        let due = self.0.iter().position(|source| {
            source.next.at(hungry_since).is_some_and(|at| at.is_none_or(|at| at <= now))
        })?;
        self.0[due].next = Next::Asked;
        Some(SourceId(due))
    }

    /// When [`Sources::poll`] may have a source though nothing happened.
    pub(super) fn next_timeout(&self, hungry_since: Option<Instant>) -> Option<Instant> {
        self.0.iter().filter_map(|source| source.next.at(hungry_since).flatten()).min()
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
                interval_s.iter().for_each(|&seconds| source.pace.told(seconds));
                Next::Wait { since: now, wait: source.pace.next(rng) }
            }
            _ => Next::Wait { since: now, wait: source.pace.next(rng) },
        };
        source.said = match answer {
            Answer::Peers { addresses, .. } => {
                for address in addresses {
                    let _ =
                        if is_peer { book.discover_named(address, now) } else { book.discover(address, now) };
                }
                Said::Peers
            }
            Answer::Unknown { settled } => Said::Unknown { settled },
            Answer::TrackerFailed(error) => Said::TrackerFailed(error),
            Answer::NameFailed(error) => Said::NameFailed(error),
        };
    }

    /// Whether there is a tracker: it may name peers later.
    pub(super) fn has_tracker(&self) -> bool {
        self.0.iter().any(|source| source.kind == Source::Tracker)
    }

    /// Why a tracker cannot answer, if one cannot.
    pub(super) fn tracker_error(&self) -> Option<&TrackerError> {
        self.0.iter().find_map(|source| match &source.said {
            Said::TrackerFailed(error) => Some(error),
            _ => None,
        })
    }

    /// Why the name of a peer leads nowhere, if one does not.
    pub(super) fn name_error(&self) -> Option<&PeerNameError> {
        self.0.iter().find_map(|source| match &source.said {
            Said::NameFailed(error) => Some(error),
            _ => None,
        })
    }

    /// Whether every source named peers, as far as it could.
    pub(super) fn all_named_peers(&self) -> bool {
        self.0.iter().all(|source| matches!(source.said, Said::Peers))
    }

    /// Whether every tracker knows everybody and does not know the share, and every name led somewhere.
    pub(super) fn none_will_know(&self) -> bool {
        self.0.iter().all(|source| match source.kind {
            Source::Tracker => matches!(source.said, Said::Unknown { settled: true }),
            Source::Peer => matches!(source.said, Said::Peers),
        })
    }

    /// Whether a tracker or name answered at all.
    pub(super) fn any_answered(&self) -> bool {
        self.0.iter().any(|source| matches!(source.said, Said::Peers | Said::Unknown { .. }))
    }

    /// Whether a tracker does not know the share.
    pub(super) fn any_does_not_know(&self) -> bool {
        self.0.iter().any(|source| matches!(source.said, Said::Unknown { .. }))
    }

    /// Whether a source named peers.
    pub(super) fn any_named_peers(&self) -> bool {
        self.0.iter().any(|source| matches!(source.said, Said::Peers))
    }
}

impl Next {
    /// When the source is to be asked: `Some(None)` for at once, `None` for not as things are.
    fn at(self, hungry_since: Option<Instant>) -> Option<Option<Instant>> {
        match self {
            Next::Due => Some(None),
            Next::Asked | Next::Never => None,
            Next::Wait { since, wait } => {
                // Those who lose the same peer at the same moment do not all ask in it.
                let hungry = hungry_since.map(|hungry| hungry.max(since) + wait.hungry);
                Some(Some(hungry.map_or(since + wait.fed, |hungry| hungry.min(since + wait.fed))))
            }
        }
    }
}

/// The names of several trackers or peers.
pub(super) fn list(endpoints: &[Endpoint]) -> String {
    endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(", ")
}
