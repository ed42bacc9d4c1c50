//! What a transfer waits for while nothing arrives, and when to give up.

use std::time::Instant;

use proto::Endpoint;

use super::{Failure, Source, Swarm, Waiting, WaitingFor};

impl Swarm {
    /// The reason to give up before the transfer starts, if there is one: all sources and peers were asked, and waiting cannot
    /// help.
    pub(super) fn hopeless(&self) -> Option<Failure> {
        let peers = &self.peers;
        // Trackers may name others yet.
        if !self.sources.has_tracker() && self.sources.all_named_peers() {
            if peers.book.is_all_banned() {
                return Some(Failure::OnlyLiars);
            }
            if peers.book.is_empty() {
                return Some(Failure::NoPeer { known: 0, last: None });
            }
        }
        if self.config.wait.is_zero() && peers.book.is_empty() && self.sources.none_is_resolved() {
            return Some(self.none_described());
        }
        let nobody = peers.book.is_empty() || peers.all_without_share();
        (self.config.wait.is_zero() && self.sources.none_will_know() && nobody).then(|| self.unknown())
    }

    /// Why no peer sent the description.
    pub(super) fn none_described(&self) -> Failure {
        let (peers, sources) = (&self.peers, &self.sources);
        let known = peers.book.len();
        if peers.book.is_all_banned() {
            Failure::OnlyLiars
        } else if peers.all_without_share() {
            Failure::UnknownShare(self.config.infohash)
        } else if peers.all_full() {
            Failure::AllFull { known }
        } else if known > 0 {
            Failure::NoPeer { known, last: peers.last_trouble().cloned().map(Box::new) }
        } else if let Some(error) = sources.name_error() {
            Failure::PeerName(error.clone())
        } else if sources.any_answered() || sources.not_allowed().is_some() {
            self.unknown()
        } else {
            Failure::NoTracker { trackers: self.trackers(), last: sources.tracker_error().cloned() }
        }
    }

    /// No tracker names a peer.
    fn unknown(&self) -> Failure {
        let not_allowed = self.sources.not_allowed().cloned();
        not_allowed.map_or(Failure::UnknownShare(self.config.infohash), Failure::NotAllowed)
    }

    /// The reason to give up a transfer that has started, if there is one.
    pub(super) fn stalled(&self, now: Instant) -> Option<Failure> {
        let transfer = self.transfer.as_ref()?;
        let is_proving = transfer.unproved > 0;
        let all_banned = self.peers.book.is_all_banned() && !is_proving;
        if all_banned && !self.sources.has_tracker() {
            return Some(Failure::OnlyLiars);
        }
        if !is_proving && self.peers.all_changed() {
            return Some(Failure::AllChanged);
        }
        let after = self.config.stall_timeout;
        if now.saturating_duration_since(transfer.last_arrival) < after {
            return None;
        }
        if all_banned {
            return Some(Failure::OnlyLiars);
        }
        let peers = self.peers.active().count();
        let last = self.peers.last_trouble().cloned().map(Box::new);
        Some(Failure::Stalled { after, done: transfer.done, total: transfer.total, peers, last })
    }

    /// What is waited for before the transfer can start.
    pub(super) fn waiting(&self) -> Waiting {
        let (peers, sources) = (&self.peers, &self.sources);
        let on = match peers.book.addresses().next() {
            Some(first) => {
                let known = peers.book.len();
                if !peers.all_tried() {
                    WaitingFor::Description { known, first }
                } else if peers.all_full() {
                    WaitingFor::Room { known, first }
                } else {
                    WaitingFor::Retry { known, last: peers.last_trouble().cloned() }
                }
            }
            None if sources.any_does_not_know() => WaitingFor::Share,
            None if sources.any_named_peers() => WaitingFor::Peers,
            None => WaitingFor::Trackers(self.trackers()),
        };
        let (tracker_error, name_error) = (sources.tracker_error().cloned(), sources.name_error().cloned());
        Waiting { on, tracker_error, name_error }
    }

    fn trackers(&self) -> Vec<Endpoint> {
        let trackers = self.config.sources.iter().filter(|(kind, _)| *kind == Source::Tracker);
        trackers.map(|(_, endpoint)| endpoint.clone()).collect()
    }
}
