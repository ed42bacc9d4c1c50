//! What is due in each phase of a transfer.

use std::time::{Duration, Instant};

use proto::peer::PeerMessage;
use rand::Rng;

use super::{Action, CHECKPOINT_INTERVAL, PROGRESS_INTERVAL, Phase, Report, Stay, Swarm, WAITING_INTERVAL};
use crate::{
    describers::Turn,
    leaving::{LeaveReason, Unreachable},
    scheduler::Command,
};

/// Maximum time that a finished leecher stays because others need chunks that only it has.
const MAX_LINGER: Duration = Duration::from_secs(60);

impl Swarm {
    /// Makes all decisions that may be due.
    pub(super) fn decide(&mut self, now: Instant, rng: &mut impl Rng) {
        match self.phase {
            Phase::Describing { .. } => self.describe(now),
            Phase::Fetching => self.fetch(now, rng),
            Phase::Staying(since) => {
                self.next_report = now + PROGRESS_INTERVAL;
                if self.may_leave(since, now) {
                    self.phase = self.end(Ok(()));
                }
            }
            Phase::Opening => self.next_report = now + WAITING_INTERVAL,
            Phase::Flushing => self.dismiss_seeders(now),
            Phase::Over => {}
        }
        if self.is_seeking() {
            while let Some(key) = self.peers.unanswered(now) {
                self.leave(key, LeaveReason::Unreachable(Unreachable::Silent), now);
            }
            while let Some((key, address)) = self.peers.dial(now, rng) {
                self.actions.push_back(Action::Dial(key, address));
                if let Phase::Describing { describers, .. } = &mut self.phase
                    && describers.ask_early(key)
                {
                    self.actions.push_back(Action::AskDescription(key));
                }
            }
            while let Some(source) = self.sources.poll(self.hungry_since, now) {
                self.actions.push_back(Action::LookUp(source));
            }
        }
        if let Some(transfer) = &mut self.transfer {
            let fetching = matches!(self.phase, Phase::Fetching);
            transfer.book(fetching, self.is_limited, &self.peers, now);
        }
    }

    /// Whether to look for more peers. A finished leecher does not: peers that need it connect to it.
    pub(super) fn is_seeking(&self) -> bool {
        matches!(self.phase, Phase::Describing { .. } | Phase::Opening | Phase::Fetching)
    }

    pub(super) fn patience(&self) -> Duration {
        self.config.stall_timeout.max(self.config.wait)
    }

    fn describe(&mut self, now: Instant) {
        loop {
            let strangers = self.peers.book.has_due(now);
            let Phase::Describing { describers, .. } = &mut self.phase else { return };
            match describers.poll(strangers, now) {
                Some(Turn::Begin(key)) => self.actions.push_back(Action::AskDescription(key)),
                Some(Turn::GoOn(key)) => self.actions.push_back(Action::AskRest(key)),
                Some(Turn::Cut(key)) => self.leave(key, LeaveReason::TooSlow, now),
                None => break,
            }
        }
        let Phase::Describing { last_progress, .. } = self.phase else { return };
        if let Some(failure) = self.hopeless() {
            self.phase = self.end(Err(failure));
        } else if now >= last_progress + self.patience() {
            self.phase = self.end(Err(self.none_described()));
        } else if now >= self.next_report {
            self.next_report = now + WAITING_INTERVAL;
            self.actions.push_back(Action::Report(Report::Waiting(self.waiting())));
        }
    }

    fn fetch(&mut self, now: Instant, rng: &mut impl Rng) {
        let Some(transfer) = &mut self.transfer else { return };
        transfer.scheduler.fill(now, rng);
        let progress = transfer.scheduler.progress();
        while let Some(command) =
            self.transfer.as_mut().and_then(|transfer| transfer.scheduler.poll_command())
        {
            self.actions.push_back(match command {
                Command::Request(key, wish) => Action::Send(key, wish.request(progress)),
                Command::Cancel(key, chunk) => Action::Send(key, PeerMessage::Cancel { chunk }),
                Command::Drop(key) => {
                    self.leave(key, LeaveReason::TooSlow, now);
                    continue;
                }
            });
        }
        let Some(transfer) = &mut self.transfer else { return };
        let finished = transfer.scheduler.is_finished();
        if finished || now >= self.next_report {
            self.next_report = now + PROGRESS_INTERVAL;
            self.actions.push_back(Action::Announce(transfer.completion()));
            self.actions.push_back(Action::ReportProgress);
            self.leave_changed(now);
        }
        if finished {
            if let Some(transfer) = &mut self.transfer {
                // Then other leechers can use that seeder too.
                transfer.is_spread = transfer.scheduler.knows_seeder();
            }
            self.phase = Phase::Flushing;
            self.actions.push_back(Action::Finish);
            // Reported before the seeders leave, so that it includes them.
            self.is_decided = false;
        } else if let Some(failure) = self.stalled(now) {
            self.phase = self.end(Err(failure));
        } else if now >= self.next_checkpoint {
            self.next_checkpoint = now + CHECKPOINT_INTERVAL;
            self.actions.push_back(Action::Checkpoint);
        }
    }

    /// Leaves peers with a changed file that have no other chunk that is needed.
    fn leave_changed(&mut self, now: Instant) {
        for key in self.peers.changed() {
            if !self.transfer.as_ref().is_some_and(|transfer| transfer.scheduler.wants_of(key)) {
                self.leave(key, LeaveReason::FileChanged, now);
            }
        }
    }

    /// Whether a finished transfer has served long enough.
    fn may_leave(&self, since: Instant, now: Instant) -> bool {
        let (Some(stay), Some(transfer)) = (self.config.stay, &self.transfer) else { return true };
        let stayed = now.saturating_duration_since(since);
        match stay {
            Stay::Forever => false,
            Stay::For(time) => stayed >= time,
            Stay::Ratio(ratio) => self.uploaded as f64 >= ratio * transfer.total as f64,
            Stay::Hosts(hosts) => self.completions >= hosts,
            Stay::WhileNeeded => {
                transfer.is_spread || stayed >= MAX_LINGER || !transfer.scheduler.is_needed()
            }
        }
    }
}
