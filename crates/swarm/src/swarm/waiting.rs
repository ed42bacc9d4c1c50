//! What is waited for while nothing arrives, and when that is hopeless.

use std::time::Instant;

use super::{Failure, Source, Swarm};

impl Swarm {
    /// The reason to give up before anything began, if there is one: everybody was asked who has the share, and
    /// nobody ever will.
    pub(super) fn hopeless(&self) -> Option<Failure> {
        let peers = &self.peers;
        // Trackers may name others yet.
        if !self.sources.has_tracker() && self.sources.all_named_peers() {
            if peers.book.is_all_banned() {
                return Some(Failure::OnlyLiars);
            }
            if peers.book.is_empty() {
                let last = "the one that was named is this leecher itself".to_owned();
                return Some(Failure::NoPeer { known: 0, last });
            }
        }
        let nobody = peers.book.is_empty() || peers.all_without_share();
        (self.config.wait.is_zero() && self.sources.none_will_know() && nobody)
            .then_some(Failure::UnknownShare(self.config.infohash))
    }

    /// Why no peer described the share.
    pub(super) fn nobody_described(&self) -> Failure {
        let (peers, sources) = (&self.peers, &self.sources);
        let known = peers.book.len();
        if peers.book.is_all_banned() {
            Failure::OnlyLiars
        } else if peers.all_without_share() {
            Failure::UnknownShare(self.config.infohash)
        } else if peers.all_full() {
            Failure::AllFull { known }
        } else if known > 0 {
            Failure::NoPeer { known, last: self.last_trouble() }
        } else if let Some(trouble) = sources.name_trouble() {
            Failure::PeerName(trouble.to_owned())
        } else if sources.any_answered() {
            Failure::UnknownShare(self.config.infohash)
        } else if let Some(trouble) = sources.tracker_trouble() {
            Failure::NoTracker(trouble.to_owned())
        } else {
            Failure::NoTracker(format!("no answer from {}", self.tracker_names()))
        }
    }

    /// Why nothing more will arrive, if so.
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
        let why = match self.peers.active().count() {
            0 => format!("no peer is connected; the last was {}", self.last_trouble()),
            1 => "one peer is connected and sends nothing".to_owned(),
            many => format!("{many} peers are connected and send nothing"),
        };
        Some(Failure::Stalled { after, done: transfer.done, total: transfer.total, why })
    }

    /// What is waited for before the transfer can begin.
    pub(super) fn waited_for(&self) -> String {
        let sources = &self.sources;
        let mut parts = Vec::new();
        if let Some(peers) = self.peers_waited_for() {
            parts.push(peers);
        } else if sources.any_does_not_know() {
            parts.push("No tracker knows the share yet".to_owned());
        } else if sources.any_named_peers() {
            parts.push("Nobody has the share yet".to_owned());
        }
        let troubles = [sources.tracker_trouble(), sources.name_trouble()];
        parts.extend(troubles.into_iter().flatten().map(str::to_owned));
        if parts.is_empty() {
            parts.push(format!("Asking tracker {}", self.tracker_names()));
        }
        format!("{} …", parts.join("; "))
    }

    fn peers_waited_for(&self) -> Option<String> {
        let peers = &self.peers;
        let known = peers.book.len();
        let mut addresses = peers.book.addresses();
        let (first, others) = (addresses.next()?, addresses.next().is_some());
        if !peers.all_tried() {
            return Some(match others {
                false => format!("Asking {first} what the share is"),
                true => format!("Asking {known} peers what the share is"),
            });
        }
        let last = self.last_trouble();
        Some(match (others, peers.all_full()) {
            (false, true) => format!("{first} is full; trying again"),
            (true, true) => format!("All {known} peers are full; trying again"),
            (false, false) => format!("{last}; trying again"),
            (true, false) => {
                format!("None of {known} peers can be used yet, the last was {last}; trying again")
            }
        })
    }

    fn last_trouble(&self) -> String {
        match self.peers.last_trouble() {
            Some((address, reason)) => format!("{address}: {reason}"),
            None => "none answered".to_owned(),
        }
    }

    fn tracker_names(&self) -> String {
        let trackers = self.config.sources.iter().filter(|(kind, _)| *kind == Source::Tracker);
        trackers.map(|(_, endpoint)| endpoint.to_string()).collect::<Vec<_>>().join(", ")
    }
}
