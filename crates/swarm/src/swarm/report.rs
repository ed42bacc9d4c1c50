//! The reports of a swarm to the user.

use std::{fmt, net::SocketAddr};

use proto::{Endpoint, ShareName, tracker::client::TrackerError};

use super::sources::{PeerNameError, list};
use crate::leaving::{LeaveReason, PeerTrouble};

/// A report to the user.
#[derive(Debug, Clone)]
pub enum Report {
    /// What the transfer waits for before it can start. Reported every second.
    Waiting(Waiting),
    /// A peer can be asked for chunks.
    PeerJoined {
        /// Its address.
        address: SocketAddr,
        /// Whether it has all of the share.
        seeder: bool,
    },
    /// A peer is gone.
    PeerLeft {
        /// Its address.
        address: SocketAddr,
        /// Why it left, or why this side left it.
        reason: LeaveReason,
    },
    /// The progress of the transfer. The caller makes it at each [`Action::ReportProgress`](super::Action::ReportProgress),
    /// several times a second.
    Progress(Progress),
}

/// What is waited for before a transfer can start, and the errors so far.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// What is waited for.
    pub on: WaitingFor,
    /// The error of a tracker, if one has failed.
    pub tracker_error: Option<TrackerError>,
    /// The error of a peer's name, if one could not be resolved.
    pub name_error: Option<PeerNameError>,
}

/// What is waited for before a transfer can start.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum WaitingFor {
    /// These trackers have not answered.
    Trackers(Vec<Endpoint>),
    /// No tracker knows a share of this name.
    Name(ShareName),
    /// The user named no share, and the trackers know none.
    AnyShare,
    /// A tracker that restarted knows one share that fits. Others may come back that share something else.
    Others {
        /// The tracker.
        tracker: Endpoint,
        /// The name that was asked for.
        name: Option<ShareName>,
        /// Seconds since the tracker started.
        restarted_ago_s: u16,
        /// Seconds until it knows all peers.
        settles_in_s: u16,
    },
    /// No tracker knows the share.
    Share,
    /// No peer has the share.
    Peers,
    /// Peers are being asked for the description.
    Description {
        /// Number of known peers.
        known: usize,
        /// One of them.
        first: SocketAddr,
    },
    /// All known peers have their maximum number of connections.
    Room {
        /// Number of known peers.
        known: usize,
        /// One of them.
        first: SocketAddr,
    },
    /// All known peers were tried, and none sent the description.
    Retry {
        /// Number of known peers.
        known: usize,
        /// The last trouble with one.
        last: Option<PeerTrouble>,
    },
}

/// The progress of a transfer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes proved and written, including those of earlier runs.
    pub done: u64,
    /// Bytes in the share.
    pub total: u64,
    /// Bytes a second, over the last seconds.
    pub rate: u64,
    /// Bytes of chunks that were received but not needed: duplicates and wrong ones.
    pub wasted: u64,
    /// Chunks that were proved wrong.
    pub wrong_chunks: u64,
    /// The connected peers.
    pub peers: Vec<PeerProgress>,
}

/// The progress of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerProgress {
    /// Its address.
    pub address: SocketAddr,
    /// Bytes of proved chunks from it.
    pub bytes: u64,
    /// Bytes a second, over the last seconds.
    pub rate: u64,
}

/// What came from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contribution {
    /// Its address.
    pub address: SocketAddr,
    /// Bytes of proved chunks from it.
    pub bytes: u64,
}

impl From<WaitingFor> for Waiting {
    fn from(on: WaitingFor) -> Waiting {
        Waiting { on, tracker_error: None, name_error: None }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.tracker_error.as_ref().map(ToString::to_string));
        parts.extend(self.name_error.as_ref().map(ToString::to_string));
        // The error of a tracker already names the tracker.
        if parts.is_empty() || !matches!(self.on, WaitingFor::Trackers(_)) {
            parts.insert(0, self.on.to_string());
        }
        write!(f, "{} …", parts.join("; "))
    }
}

impl fmt::Display for WaitingFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitingFor::Trackers(trackers) => write!(f, "Asking tracker {}", list(trackers)),
            WaitingFor::Name(name) => write!(f, "No tracker knows a share called '{name}' yet"),
            WaitingFor::AnyShare => f.write_str("The tracker knows no shares yet"),
            WaitingFor::Others { tracker, name, restarted_ago_s, settles_in_s } => {
                write!(
                    f,
                    "Tracker {tracker} restarted {restarted_ago_s} s ago; waiting {settles_in_s} s for others who may share something else"
                )?;
                if let Some(name) = name {
                    write!(f, " under '{name}'")?;
                }
                f.write_str("; a link starts at once")
            }
            WaitingFor::Share => f.write_str("No tracker knows the share yet"),
            WaitingFor::Peers => f.write_str("Nobody has the share yet"),
            WaitingFor::Description { known: 1, first } => write!(f, "Asking {first} what the share is"),
            WaitingFor::Description { known, .. } => write!(f, "Asking {known} peers what the share is"),
            WaitingFor::Room { known: 1, first } => write!(f, "{first} is full; trying again"),
            WaitingFor::Room { known, .. } => write!(f, "All {known} peers are full; trying again"),
            WaitingFor::Retry { known: 1, last: Some(last) } => write!(f, "{last}; trying again"),
            WaitingFor::Retry { known, last: Some(last) } => {
                write!(f, "None of {known} peers can be used yet, the last was {last}; trying again")
            }
            WaitingFor::Retry { known, last: None } => {
                write!(f, "None of {known} peers can be used yet; trying again")
            }
        }
    }
}
