//! The settings of a transfer, and its result.

use std::time::Duration;

use proto::{Endpoint, InfoHash, PeerId, Zone};

use super::{Contribution, Source};
use crate::account::Spent;

/// The settings of a transfer.
#[derive(Debug, Clone)]
pub struct Config {
    /// What to fetch.
    pub infohash: InfoHash,
    /// The id of this side's connections.
    pub own_id: PeerId,
    /// Where in a network this side is.
    pub zone: Zone,
    /// Where addresses come from.
    pub sources: Vec<(Source, Endpoint)>,
    /// Maximum number of connections that this side makes. Those that it accepts have a bound of their own.
    pub max_peers: usize,
    /// Give up when nothing arrives for this long.
    pub stall_timeout: Duration,
    /// Wait this long, if it is longer, until a peer has the share.
    pub wait: Duration,
    /// How long to serve when the share is complete; nothing is served if `None`.
    pub stay: Option<Stay>,
}

/// How long a finished leecher goes on serving.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Stay {
    /// While connected leechers need chunks that only this one has, for a minute at most.
    #[default]
    WhileNeeded,
    /// Until it is stopped.
    Forever,
    /// For this long.
    For(Duration),
    /// Until it has sent this many times the size of the share.
    Ratio(f64),
    /// Until a tracker counts this many hosts that have fetched the share, this one too.
    Hosts(u32),
}

/// The result of a transfer.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Bytes of chunks that were received but not needed: duplicates and wrong ones.
    pub wasted: u64,
    /// What came from each peer, largest first.
    pub peers: Vec<Contribution>,
    /// What the time was spent on, largest first.
    pub spent: Vec<(Spent, Duration)>,
}
