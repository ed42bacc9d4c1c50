//! A transfer in detail, for people to look at.

use std::{net::SocketAddr, time::Duration};

use proto::ChunkIndex;

use super::{Swarm, peers::Peers, transfer::Transfer};
use crate::{account::Spent, parts::Tally, scheduler::ChunkView};

/// Chunks that are looked at. Of a larger share it is every second, third … one, so that a look takes a few milliseconds at most.
const MAX_LOOKS: u32 = 16_384;

/// A transfer in detail. Lists of percentages have one for each part of the share (see [`crate::parts`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// How much of each part is here.
    pub stored: Vec<u8>,
    /// The connected peers.
    pub peers: Vec<PeerPicture>,
    /// What the time was spent on so far, largest first.
    pub spent: Vec<(Spent, Duration)>,
}

/// A connected peer in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerPicture {
    /// Its address.
    pub address: SocketAddr,
    /// Whether it joined with all of the share.
    pub seeder: bool,
    /// Requests that it has not answered.
    pub owed: u32,
    /// How much it has of what is wanted and missing here, of each part. 100 if nothing is.
    pub has: Vec<u8>,
    /// How much of each part came from it.
    pub gave: Vec<u8>,
}

impl Swarm {
    /// The transfer in detail, if it has started.
    pub fn picture(&self, now: std::time::Instant) -> Option<Picture> {
        self.transfer.as_ref().map(|transfer| picture(transfer, &self.peers, now))
    }
}

fn picture(transfer: &Transfer, peers: &Peers, now: std::time::Instant) -> Picture {
    let (scheduler, chunks) = (&transfer.scheduler, transfer.scheduler.space().chunk_count());
    let stride = chunks.div_ceil(MAX_LOOKS).max(1);
    let looked_at = || (0..chunks).step_by(stride as usize).map(ChunkIndex);
    let (mut all, mut stored, mut missing) = (Tally::new(chunks), Tally::new(chunks), Tally::new(chunks));
    for chunk in looked_at() {
        all.add(chunk);
        if scheduler.is_stored(chunk) {
            stored.add(chunk);
        } else if scheduler.is_missing(chunk) {
            missing.add(chunk);
        }
    }
    let peer = |(key, address)| {
        let ChunkView { seeder, owed } = scheduler.view(key)?;
        let mut has = Tally::new(chunks);
        looked_at()
            .filter(|&chunk| scheduler.is_missing(chunk) && scheduler.has(key, chunk))
            .for_each(|chunk| has.add(chunk));
        let gave = transfer.given_by(address).map_or_else(|| Tally::new(chunks).percents(), Tally::percents);
        Some(PeerPicture { address, seeder, owed, has: has.percents_of(&missing), gave })
    };
    Picture {
        stored: stored.percents_of(&all),
        peers: peers.active().filter_map(peer).collect(),
        spent: transfer.spent_so_far(now),
    }
}
