//! Carries out what the core decides, and checks each action.

use std::{net::SocketAddr, time::Duration};

use proto::{
    ChunkIndex,
    peer::{MAX_PIPELINE, PeerMessage, Wish},
};
use swarm::{Action, PeerEvent, scheduler::PeerKey};

use super::{Connection, Sender, Stage, World};

/// Actions that one event can cause. There is at most a command for each request of each peer, and a few more.
const MAX_ACTIONS: usize = 4_000;

/// A chunk that waits for this long at peers that have sent nothing may be requested from another before the endgame.
const HOSTAGE_AGE: Duration = Duration::from_secs(2);

impl World {
    /// Carries out the core's actions.
    pub fn act(&mut self) {
        // What a deaf peer owed is missing again before the actions that were decided with it are carried out.
        let mut is_disturbed = false;
        for _ in 0..MAX_ACTIONS {
            if self.is_over {
                return;
            }
            let Some(action) = self.core.poll(self.now, &mut self.rng) else {
                let wake = self.core.next_timeout();
                assert!(wake.is_none_or(|at| at > self.now), "what is due at {wake:?} was not done");
                return;
            };
            match action {
                Action::LookUp(source) => {
                    assert!(!self.lookups.contains(&source), "{source:?} is being asked");
                    self.lookups.push(source);
                }
                Action::Dial(key, address) => self.dial(key, address),
                Action::AskDescription(key) => {
                    let connection = self.living(key);
                    assert!(!connection.is_active);
                    connection.is_asked = true;
                }
                Action::AskRest(key) => {
                    assert!(!self.living(key).is_active);
                }
                Action::Open => {
                    assert_eq!(self.stage, Stage::Describing);
                    self.stage = Stage::Opening;
                }
                Action::Send(key, message) => {
                    self.send(key, message, is_disturbed);
                    if self.open[&key].is_deaf {
                        is_disturbed = true;
                        self.peer(key, PeerEvent::NotReading);
                    }
                }
                Action::Close(key, _) => self.living(key).is_closing = true,
                Action::Have(chunk, _) => assert!(self.stored.contains(&chunk)),
                Action::Finish => {
                    assert_eq!(self.stage, Stage::Fetching);
                    self.stage = Stage::Flushing;
                    assert_eq!(self.stored.len(), self.space.chunk_count() as usize);
                }
                Action::ReportProgress => self.check_progress(),
                Action::End(result) => {
                    assert!(result.is_err() || self.stage == Stage::Staying);
                    self.is_over = true;
                }
                Action::Announce(_) | Action::Checkpoint | Action::Report(_) => {}
            }
        }
        panic!("the core has actions without end");
    }

    /// A connection that an action may concern.
    fn living(&mut self, key: PeerKey) -> &mut Connection {
        let connection = self.open.get_mut(&key).expect("a connection that is open");
        assert!(!connection.is_closing, "{key:?} was ended");
        connection
    }

    fn dial(&mut self, key: PeerKey, address: SocketAddr) {
        assert!(!self.liars.contains(&address), "{address} lied");
        let is_dialled = |other: &Connection| other.is_dialled && other.address == address;
        assert!(!self.open.values().any(is_dialled), "{address} is dialled twice");
        let is_sender = |(sender, _): &(Sender, Wish)| sender.dialled == Some(address);
        assert!(!self.unproved.iter().any(is_sender), "a chunk from {address} is still being proved");
        self.open(key, address, true);
    }

    fn send(&mut self, key: PeerKey, message: PeerMessage, is_disturbed: bool) {
        if let Some(wish) = message.wish() {
            return self.send_request(key, wish, is_disturbed);
        }
        let PeerMessage::Cancel { chunk } = message else {
            panic!("{message:?} is nothing for a core to send");
        };
        let connection = self.living(key);
        connection.revived = connection.revived.filter(|&revived| revived != chunk);
        // The chunk may have arrived meanwhile, as on a real connection.
        let asked = connection.asked.iter().filter(|(asked, _)| asked.chunk == chunk).count();
        if asked > connection.cancelled.iter().filter(|&&other| other == chunk).count() {
            connection.cancelled.push(chunk);
        }
    }

    fn send_request(&mut self, key: PeerKey, wish: Wish, is_disturbed: bool) {
        let (now, chunk) = (self.now, wish.chunk);
        assert!(self.space.span(chunk).is_some(), "{chunk:?} is not in the share");
        assert!(!self.stored.contains(&chunk) && !self.is_unproved(chunk), "{chunk:?} is here");
        assert_eq!(wish.form, self.form(chunk), "{chunk:?} is requested in the wrong form");
        if !is_disturbed {
            self.check_single(key, chunk);
        }
        let connection = self.living(key);
        assert!(connection.is_active && !connection.is_barred, "{key:?} was refused");
        connection.asked.push((wish, now));
        assert!(connection.asked.len() <= MAX_PIPELINE, "{} requests", connection.asked.len());
    }

    /// A chunk is requested from a second peer only if nothing else is missing, or the others have sent nothing for long.
    fn check_single(&self, key: PeerKey, chunk: ChunkIndex) {
        let others = self.open.iter().filter(|&(&other, _)| other != key);
        let since = others.filter_map(|(_, other)| other.waits_for(chunk)).min();
        let Some(since) = since else { return };
        // A request that was cancelled may be moving to another peer, so its chunk is not missing before it is answered.
        let owes = |other: &Connection, chunk| {
            !other.is_closing && other.asked.iter().any(|(asked, _)| asked.chunk == chunk)
        };
        let is_owed = |chunk| self.open.values().any(|other| owes(other, chunk));
        let is_missing = |&chunk: &ChunkIndex| {
            !self.stored.contains(&chunk) && !self.is_unproved(chunk) && !is_owed(chunk)
        };
        let missing: Vec<_> = self.space.chunks().filter(is_missing).collect();
        let is_hostage = self.now.saturating_duration_since(since) >= HOSTAGE_AGE;
        assert!(missing.is_empty() || is_hostage, "{chunk:?} twice, while {missing:?} are missing");
    }

    fn check_progress(&mut self) {
        let progress = self.core.progress(self.now).expect("a transfer");
        let len = |chunk: &ChunkIndex| u64::from(self.space.span(*chunk).expect("a chunk of the share").len);
        assert_eq!(progress.done, self.stored.iter().map(len).sum::<u64>());
        assert_eq!(progress.total, self.space.total_len());
        assert!(progress.peers.len() <= self.open.len());
        let summary = self.core.summary(self.now);
        assert!(summary.peers.iter().map(|peer| peer.bytes).sum::<u64>() <= progress.done);
        let spent: Duration = summary.spent.iter().map(|&(_, time)| time).sum();
        let elapsed = self.now - self.start;
        assert!(
            spent.abs_diff(elapsed) <= Duration::from_millis(1),
            "{spent:?} of {elapsed:?} are accounted for"
        );
    }
}
