//! When requests are reviewed, and what happens to those that wait too long.

use std::time::{Duration, Instant};

use super::{Command, Scheduler, peer::Lateness};

/// A peer that missed its deadlines this often in a row is dropped.
const MAX_STRIKES: u32 = 3;

/// Interval at which waiting requests are reviewed.
pub(super) const REVIEW_INTERVAL: Duration = Duration::from_millis(100);

/// The same interval in the endgame.
const ENDGAME_REVIEW_INTERVAL: Duration = Duration::from_millis(25);

impl Scheduler {
    /// When to call [`Scheduler::fill`] again if nothing happens before.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let tick = self.review_interval().map(|interval| {
            let due = self.reviewed.map(|at| at + interval);
            due.filter(|&due| due > now).unwrap_or(now + interval)
        });
        let drought = self.drought_interval().map(|interval| now + interval);
        self.next_check.into_iter().chain(tick).chain(drought).min()
    }

    /// Takes back overdue requests, and looks for requests that another peer should take over, as far as that is due.
    pub(super) fn look_back(&mut self, now: Instant) {
        if self.next_check.is_some_and(|check| check <= now) {
            self.check_deadlines(now);
        }
        self.look_for_drought(now);
        if let Some(interval) = self.review_interval()
            && self.reviewed.is_none_or(|at| at + interval <= now)
        {
            self.reviewed = Some(now);
            self.review(now);
        }
    }

    /// The interval of reviews, if there is something to review.
    fn review_interval(&self) -> Option<Duration> {
        if self.is_endgame() {
            return Some(ENDGAME_REVIEW_INTERVAL);
        }
        (!self.asked.is_empty()).then_some(REVIEW_INTERVAL)
    }

    /// Finds requests that wait too long, and peers that might take them over.
    fn review(&mut self, now: Instant) {
        self.find_hostages(now);
        if self.is_endgame() {
            self.ready.extend(self.peers.keys());
            return;
        }
        self.ready.extend(&self.idle);
        if !self.hostages.is_empty() {
            let with_time = self.peers.iter().filter(|(_, peer)| peer.has_time());
            self.ready.extend(with_time.map(|(&key, _)| key));
        }
    }

    fn check_deadlines(&mut self, now: Instant) {
        let late: Vec<_> =
            self.peers.iter().filter_map(|(&key, peer)| Some((key, peer.lateness(now)?))).collect();
        for (key, lateness) in late {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let owed = match lateness {
                Lateness::Silent => peer.strike(now),
                Lateness::Overdue => peer.excuse(now),
            };
            if peer.strikes >= MAX_STRIKES {
                self.commands.push_back(Command::Drop(key));
            }
            self.commands.extend(owed.iter().map(|&chunk| Command::Cancel(key, chunk)));
            self.take_back(key, &owed);
        }
        let rested = self.peers.iter_mut().filter_map(|(&key, peer)| peer.rested(now).then_some(key));
        self.ready.extend(rested);
        self.ready.extend(self.held_back.drain(..));
        self.next_check = self.peers.values().filter_map(|peer| peer.next_timeout(now)).min();
    }
}
