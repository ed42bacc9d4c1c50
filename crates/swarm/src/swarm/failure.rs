//! Why a swarm gives up.

use std::time::Duration;

use proto::{Endpoint, InfoHash, metainfo::MetainfoError, tracker::client::TrackerError};

use super::sources::{PeerNameError, list};
use crate::leaving::PeerTrouble;

/// Why a swarm gave up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// No tracker answered, and no peer was named.
    #[error("no tracker can be reached: {}", no_tracker(trackers, last.as_ref()))]
    NoTracker {
        /// The trackers that were asked.
        trackers: Vec<Endpoint>,
        /// The last error of one, if there was an error.
        last: Option<TrackerError>,
    },
    /// The trackers that answered do not know the share.
    #[error("no tracker knows the share {0}")]
    UnknownShare(InfoHash),
    /// A tracker does not allow the share, and no other tracker knows it.
    #[error(transparent)]
    NotAllowed(TrackerError),
    /// There are peers, but none sent the description.
    #[error("{}", no_peer(*known, last.as_deref()))]
    NoPeer {
        /// Peers that were tried, without this leecher itself.
        known: usize,
        /// The last trouble with one.
        last: Option<Box<PeerTrouble>>,
    },
    /// The name of a peer that the user named cannot be resolved.
    #[error(transparent)]
    PeerName(PeerNameError),
    /// All peers that had the share changed it.
    #[error("the share changed at every peer that had it")]
    AllChanged,
    /// All known peers have the maximum number of connections.
    #[error("{}", match known {
        1 => "the only known peer is full".to_owned(),
        _ => format!("all {known} known peers are full"),
    })]
    AllFull {
        /// Number of known peers.
        known: usize,
    },
    /// The metainfo has the right infohash and is malformed.
    #[error("the share itself is malformed: {0}")]
    BadShare(MetainfoError),
    /// Every peer sent wrong data.
    #[error("every peer sent wrong data")]
    OnlyLiars,
    /// No data arrived for too long.
    #[error("nothing arrived for {after:?} ({done} of {total} bytes are here); {}", stall(*peers, last.as_deref()))]
    Stalled {
        /// How long nothing arrived.
        after: Duration,
        /// Bytes received and proved.
        done: u64,
        /// Bytes in the share.
        total: u64,
        /// Peers that are connected.
        peers: usize,
        /// The last trouble with a peer.
        last: Option<Box<PeerTrouble>>,
    },
    /// The user stopped it. A leecher reports this as an error of its own, with the path of what was received.
    #[error("interrupted")]
    Interrupted,
}

fn no_tracker(trackers: &[Endpoint], last: Option<&TrackerError>) -> String {
    match (last, trackers) {
        (Some(error), _) => error.to_string(),
        (None, []) => "none was named".to_owned(),
        (None, trackers) => format!("no answer from {}", list(trackers)),
    }
}

fn no_peer(known: usize, last: Option<&PeerTrouble>) -> String {
    let who = match known {
        0 => return "there is no other peer: the one that was named is this leecher itself".to_owned(),
        1 => "the only known peer could not be reached".to_owned(),
        _ => format!("none of {known} known peers could be reached"),
    };
    last.map_or(who.clone(), |last| format!("{who}: {last}"))
}

fn stall(peers: usize, last: Option<&PeerTrouble>) -> String {
    match (peers, last) {
        (0, None) => "no peer is connected".to_owned(),
        (0, Some(last)) => format!("no peer is connected; the last was {last}"),
        (1, _) => "one peer is connected and sends nothing".to_owned(),
        _ => format!("{peers} peers are connected and send nothing"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::leaving::{LeaveReason, Unreachable};

    #[test]
    fn a_failure_names_what_was_last_wrong() {
        let trackers = vec!["a:1".parse().unwrap(), "b:2".parse().unwrap()];
        let failure = Failure::NoTracker { trackers, last: None };
        assert_eq!(failure.to_string(), "no tracker can be reached: no answer from a:1, b:2");

        let refused = LeaveReason::Unreachable(Unreachable::from(io::Error::from_raw_os_error(111)));
        let last =
            || Some(Box::new(PeerTrouble { address: ([10, 0, 0, 1], 7000).into(), reason: refused.clone() }));
        assert_eq!(
            Failure::NoPeer { known: 2, last: last() }.to_string(),
            "none of 2 known peers could be reached: 10.0.0.1:7000: unreachable: Connection refused (os error 111)"
        );
        let stalled = |peers, last| {
            Failure::Stalled { after: Duration::from_secs(60), done: 1, total: 2, peers, last }.to_string()
        };
        let nothing = "nothing arrived for 60s (1 of 2 bytes are here)";
        assert_eq!(stalled(0, None), format!("{nothing}; no peer is connected"));
        assert!(
            stalled(0, last())
                .starts_with(&format!("{nothing}; no peer is connected; the last was 10.0.0.1:7000"))
        );
        assert_eq!(stalled(3, None), format!("{nothing}; 3 peers are connected and send nothing"));
    }
}
