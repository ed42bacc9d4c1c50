//! Where addresses come from: trackers, and names of peers. What they said tells whether there is anybody to ask.

use std::{collections::BTreeSet, time::Instant};

use super::{SwarmConfig, peers::Peers};
use crate::{
    error::FetchError,
    peer_book::PeerBook,
    target::{Discovery, SourceId},
};

/// What the sources of addresses said.
#[derive(Debug)]
pub(super) struct Sources {
    asked: usize,
    answered: BTreeSet<SourceId>,
    /// Trackers that do not know the share.
    unknown: BTreeSet<SourceId>,
    trouble: Option<String>,
    no_such_peer: Option<String>,
}

impl Sources {
    /// So many sources were asked.
    pub(super) fn new(asked: usize) -> Sources {
        Sources {
            asked,
            answered: BTreeSet::new(),
            unknown: BTreeSet::new(),
            trouble: None,
            no_such_peer: None,
        }
    }

    /// A source answered. Trackers do so again and again.
    pub(super) fn heard(&mut self, id: SourceId, discovery: Discovery, book: &mut PeerBook) {
        self.answered.insert(id);
        self.unknown.remove(&id);
        match discovery {
            Discovery::Peers(addresses) => {
                let now = Instant::now();
                for address in addresses {
                    if book.discover(address, now) {
                        tracing::debug!(%address, "found a peer");
                    }
                }
            }
            Discovery::Unknown => _ = self.unknown.insert(id),
            Discovery::Trouble(trouble) => {
                tracing::debug!("{trouble}");
                self.trouble = Some(trouble);
            }
            Discovery::NoSuchPeer(trouble) => self.no_such_peer = Some(trouble),
        }
    }

    /// Why a tracker cannot say anything, if there is one.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// The reason to give up before anything began, if there is one: everybody was asked who has the share, and
    /// nobody does.
    pub(super) fn hopeless(&self, config: &SwarmConfig, peers: &Peers, last: &str) -> Option<FetchError> {
        if self.answered.len() < self.asked {
            return None;
        }
        if !peers.book.is_empty() {
            // Peers that were named and failed, or lied: nobody will ever tell of others.
            let hopeless = config.trackers.is_empty() && peers.all_failed();
            return hopeless.then(|| self.no_peer(config, peers, last));
        }
        Some(match (&self.no_such_peer, &self.trouble) {
            (Some(peer), _) => FetchError::PeerName(peer.clone()),
            (None, Some(trouble)) if self.unknown.is_empty() => FetchError::NoTracker(trouble.clone()),
            _ => FetchError::UnknownShare(config.infohash),
        })
    }

    /// Why no peer described the share. `last` is what the last peer that failed had to say.
    pub(super) fn no_peer(&self, config: &SwarmConfig, peers: &Peers, last: &str) -> FetchError {
        if peers.book.is_empty() {
            return FetchError::NoTracker(self.trouble.clone().unwrap_or_else(|| last.to_owned()));
        }
        if peers.book.is_all_banned() {
            return FetchError::OnlyLiars;
        }
        if peers.all_without_share() {
            return FetchError::UnknownShare(config.infohash);
        }
        FetchError::NoPeer { known: peers.book.len(), last: last.to_owned() }
    }
}
