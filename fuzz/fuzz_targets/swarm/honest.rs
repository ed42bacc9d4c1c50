//! The end of each run: every peer becomes honest, and the transfer finishes.

use std::{net::SocketAddr, time::Duration};

use proto::{PeerId, peer::Wish};
use swarm::{Answer, Event, LeaveReason, PeerEvent, Source, scheduler::PeerKey};

use super::{Reason, Stage, World};

/// Turns in which a transfer finishes with honest peers. Some 100 are enough in most runs.
const HONEST_TURNS: usize = 20_000;

/// The same where nothing can name new peers, so that the transfer may never finish.
const LONELY_TURNS: usize = 200;

impl World {
    /// From now on every peer has all chunks and answers each request, none leaves, and new ones can be found.
    pub fn become_honest(&mut self) {
        let is_alone = !self.sources.contains(&Source::Tracker);
        for _ in 0..if is_alone { LONELY_TURNS } else { HONEST_TURNS } {
            self.act();
            if self.is_over {
                return;
            }
            match self.stage {
                Stage::Opening => self.opened(),
                Stage::Flushing => self.finished(),
                Stage::Staying => self.handle(Event::Stop),
                Stage::Describing | Stage::Fetching => {}
            }
            for source in std::mem::take(&mut self.lookups) {
                self.fresh += 1;
                let [high, low] = self.fresh.to_be_bytes();
                let addresses = vec![SocketAddr::from(([10, 1, high, low], 7_000))];
                self.handle(Event::Answered(source, Answer::Peers { addresses, interval_s: Some(3) }));
            }
            let keys: Vec<_> = self.open.keys().copied().collect();
            keys.into_iter().for_each(|key| self.answer_honestly(key));
            while !self.unproved.is_empty() {
                self.prove(0, true);
            }
            self.act();
            let wake = self.core.next_timeout().unwrap_or(self.now + Duration::from_secs(1));
            self.now = wake.min(self.now + Duration::from_secs(2)).max(self.now + Duration::from_micros(1));
        }
        assert!(is_alone || self.is_impatient, "{:?} with honest peers only: {:#?}", self.stage, self.open);
    }

    fn answer_honestly(&mut self, key: PeerKey) {
        let Some(connection) = self.open.get_mut(&key) else { return };
        connection.is_deaf = false;
        if connection.is_closing {
            self.close(key, LeaveReason::Disconnected);
        } else if !connection.is_active && self.stage >= Stage::Fetching {
            connection.is_honest = true;
            let [high, low] = self.fresh.to_be_bytes();
            self.activate(key, PeerId([high, low, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]), 0, None);
        } else if !connection.is_active && std::mem::take(&mut connection.is_asked) {
            self.peer(key, PeerEvent::Described);
        } else if !connection.is_active {
            let answers_in = Duration::from_millis(1);
            if !std::mem::replace(&mut connection.is_honest, true) {
                self.peer(key, PeerEvent::Ready { answers_in });
            }
        } else if let Some(chunk) = connection.arriving {
            self.deliver(key, chunk);
        } else if !std::mem::replace(&mut connection.is_honest, true) {
            self.core.add_haves(key, self.space.chunks(), self.now);
        } else if let Some(&(Wish { chunk, .. }, _)) = connection.asked.first() {
            if connection.cancelled.contains(&chunk) {
                self.reject(key, chunk, Reason::Cancelled);
            } else {
                self.deliver(key, chunk);
            }
        }
    }

    /// When all is over, nothing is left of any connection.
    pub fn forget_all(&mut self) {
        if self.is_over {
            // The driver drops the core.
            return;
        }
        while !self.unproved.is_empty() {
            self.prove(0, true);
        }
        let keys: Vec<_> = self.open.keys().copied().collect();
        keys.into_iter().for_each(|key| self.close(key, LeaveReason::Disconnected));
        assert!(self.keys.iter().all(|&key| self.core.address(key).is_none()));
    }
}
