//! What came out of a run.

use std::fmt;

use crate::Scenario;

/// The figures of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Name of the scenario.
    pub name: &'static str,
    /// What the run was made from.
    pub seed: u64,
    /// A hash of everything that happened, in order.
    pub digest: u64,
    /// Number of events.
    pub events: u64,
    /// Leechers that should have everything in the end.
    pub wanting: usize,
    /// Those that have.
    pub finished: usize,
    /// Seconds from its arrival until each of these had everything, in order of size.
    pub durations: Vec<f64>,
    /// Seconds from the beginning until the last had everything.
    pub last: f64,
    /// The least that this could be.
    pub t_opt: f64,
    /// What the origin sent, in copies of the share.
    pub origin_copies: f64,
    /// What it had sent when it had sent every chunk once; 0 if it has not.
    pub first_copy: f64,
    /// Whether it left before the end.
    pub origin_left: bool,
    /// What came into the zone that received most from others, in copies of the share.
    pub crossed: f64,
    /// Share of the bytes received that were here already.
    pub duplicates: f64,
    /// Share of the bytes received that were wrong.
    pub wrong: f64,
    /// Share of their time that leechers' uplinks were in use, from the first arrival to the last completion.
    pub uplink_use: f64,
    /// Connections that were dropped because the peer was too slow.
    pub dropped: u64,
    /// Connections that were given up for a newcomer.
    pub replaced: u64,
    /// Most connections that a leecher had at a time.
    pub most_links: usize,
    /// Messages, without those about chunks that a peer has by now.
    pub messages: u64,
    /// Chunks in those: each of them for each peer that reads it.
    pub haves: u64,
}

impl Report {
    /// How much longer than the least possible it took.
    pub fn ratio(&self) -> f64 {
        self.last / self.t_opt
    }

    /// Whether everyone has everything.
    pub fn is_complete(&self) -> bool {
        self.finished == self.wanting
    }

    /// The report on a scenario that nothing is known of yet.
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> Report {
        Report {
            name: scenario.name,
            seed,
            digest: 0,
            events: 0,
            wanting: 0,
            finished: 0,
            durations: Vec::new(),
            last: 0.0,
            t_opt: scenario.t_opt(),
            origin_copies: 0.0,
            first_copy: 0.0,
            origin_left: false,
            crossed: 0.0,
            duplicates: 0.0,
            wrong: 0.0,
            uplink_use: 0.0,
            dropped: 0,
            replaced: 0,
            most_links: 0,
            messages: 0,
            haves: 0,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let median = self.durations.get(self.durations.len() / 2).copied().unwrap_or(f64::NAN);
        write!(
            f,
            "{:<20} seed {:<3} {:>4}/{:<4} last {:>7.2} s  median {:>7.2} s  T/T_opt {:.3}  origin {:.3} copies{} \
             (all of it after {:.3})  crossed {:.3}  \
             duplicates {:.3} %  wrong {:.3} %  uplinks {:.1} %  dropped {}  replaced {}  links {}  messages {}, {} haves  \
             events {}  digest {:016x}",
            self.name,
            self.seed,
            self.finished,
            self.wanting,
            self.last,
            median,
            self.ratio(),
            self.origin_copies,
            if self.origin_left { ", then left" } else { "" },
            self.first_copy,
            self.crossed,
            self.duplicates * 100.0,
            self.wrong * 100.0,
            self.uplink_use * 100.0,
            self.dropped,
            self.replaced,
            self.most_links,
            self.messages,
            self.haves,
            self.events,
            self.digest,
        )
    }
}
