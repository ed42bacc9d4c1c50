//! `swarm::uploads::Uploads`, which decides what a seeder sends next, as a state machine: askers request, cancel, leave and receive
//! at any rate, in any order.
//!
//! Every request is answered once, in the end whatever the receivers do. Nobody is sent two chunks at a time. What is due is done.

#![no_main]

#[path = "uploads/input.rs"]
mod input;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use input::Step;
use libfuzzer_sys::fuzz_target;
use proto::{CHUNK_LEN, ChunkIndex, peer::MAX_PIPELINE};
use swarm::uploads::{AskerKey, Requested, Uploads};

const CHUNKS: u32 = 12;

/// Steps of a run.
const MAX_STEPS: usize = 500;

fuzz_target!(|input: (u8, Vec<Step>)| {
    let (slots, steps) = input;
    let now = Instant::now();
    let uploads = Uploads::new(CHUNKS, CHUNK_LEN, 1 + usize::from(slots % 10));
    let mut world = World { uploads, now, askers: BTreeMap::new() };
    for step in steps.into_iter().take(MAX_STEPS) {
        world.step(step);
        world.pump();
    }
    world.drain();
});

struct World {
    uploads: Uploads,
    now: Instant,
    askers: BTreeMap<AskerKey, Asker>,
}

#[derive(Debug, Default)]
struct Asker {
    waiting: Vec<ChunkIndex>,
    /// The chunk that is being sent, and the bytes of it that the socket took.
    sending: Option<(ChunkIndex, u32)>,
}

impl World {
    fn step(&mut self, step: Step) {
        let key = |asker: u8| AskerKey(1 + u64::from(asker % 20));
        match step {
            Step::Request { asker, chunk } => self.request(key(asker), chunk),
            Step::RequestAll { asker } => {
                (0..=MAX_PIPELINE).for_each(|at| self.request(key(asker), at as u8))
            }
            Step::Cancel { asker, chunk } => {
                // One chunk more than there are: a hostile peer asks for any.
                let chunk = ChunkIndex(u32::from(chunk) % (CHUNKS + 1));
                let was_in_time = self.uploads.cancel(key(asker), chunk);
                let waiting = self.askers.get_mut(&key(asker)).map(|asker| &mut asker.waiting);
                let at = waiting.as_ref().and_then(|all| all.iter().position(|&other| other == chunk));
                assert_eq!(was_in_time, at.is_some());
                waiting.zip(at).map(|(waiting, at)| waiting.remove(at));
            }
            Step::Leave { asker } => {
                self.uploads.leave(key(asker));
                self.askers.remove(&key(asker));
            }
            Step::Take { asker, part } => {
                if let Some(Asker { sending: Some((_, taken)), .. }) = self.askers.get_mut(&key(asker)) {
                    *taken = (*taken + u32::from(part) * 2_048).min(CHUNK_LEN);
                }
            }
            Step::Finish { asker } => self.finish(key(asker), CHUNK_LEN),
            Step::Reject { asker } => self.finish(key(asker), 0),
            Step::Pass { ms } => self.now += Duration::from_millis(ms.into()),
            Step::PassToTimeout => self.now = self.uploads.next_timeout(self.now).unwrap_or(self.now),
        }
    }

    fn request(&mut self, key: AskerKey, chunk: u8) {
        let chunk = ChunkIndex(u32::from(chunk) % (CHUNKS + 1));
        let asker = self.askers.entry(key).or_default();
        match self.uploads.request(key, chunk) {
            Requested::Waits => asker.waiting.push(chunk),
            Requested::TooMany => assert_eq!(asker.waiting.len(), MAX_PIPELINE),
        }
        assert!(asker.waiting.len() <= MAX_PIPELINE);
    }

    fn finish(&mut self, key: AskerKey, bytes: u32) {
        // The sender reports only what it was granted.
        if self.askers.get_mut(&key).is_some_and(|asker| asker.sending.take().is_some()) {
            self.uploads.finished(key, bytes, self.now);
        }
    }

    /// As the upload hub does after every change.
    fn pump(&mut self) {
        if self.uploads.is_contended() {
            let taken =
                |key| self.askers.get(&key).and_then(|asker| asker.sending).map_or(0, |(_, taken)| taken);
            self.uploads.progress(taken, self.now);
        }
        while let Some((key, wish)) = self.uploads.start(self.now) {
            let chunk = wish.chunk;
            let asker = self.askers.get_mut(&key).expect("an asker that is here");
            assert!(asker.sending.is_none(), "{key:?} is sent two chunks");
            let at = asker.waiting.iter().position(|&other| other == chunk).expect("a request that waits");
            asker.waiting.remove(at);
            asker.sending = Some((chunk, 0));
        }
        let notified = self.uploads.take_idle(self.now);
        assert!(notified.iter().all(|key| self.askers.contains_key(key)));
        let next = self.uploads.next_timeout(self.now);
        assert!(next.is_none_or(|at| at > self.now), "what is due was not done");
        for (&key, asker) in &self.askers {
            assert_eq!(self.uploads.is_waiting(key), !asker.waiting.is_empty());
            assert_eq!(self.uploads.is_served(key), asker.sending.is_some());
        }
        let waits = self.askers.values().any(|asker| asker.sending.is_none() && !asker.waiting.is_empty());
        let is_sending = self.askers.values().any(|asker| asker.sending.is_some());
        assert!(!waits || is_sending, "a request waits, and nothing is sent");
        assert!(next.is_none() || waits, "it wakes for nobody");
    }

    /// Receivers that took nothing so far hold up nobody for ever: all others are served. Then they are, too.
    fn drain(&mut self) {
        let stuck: Vec<AskerKey> =
            self.askers.iter().filter(|(_, asker)| asker.sending.is_some()).map(|(&key, _)| key).collect();
        for is_all in [false, true] {
            let may_take = |key: &AskerKey| is_all || !stuck.contains(key);
            for _ in 0..100_000 {
                let sending =
                    self.askers.iter().filter(|(key, asker)| may_take(key) && asker.sending.is_some());
                let sending: Vec<_> = sending.map(|(&key, _)| key).collect();
                sending.into_iter().for_each(|key| self.finish(key, CHUNK_LEN));
                self.pump();
                let waits = |(key, asker): (&AskerKey, &Asker)| {
                    may_take(key) && (asker.sending.is_some() || !asker.waiting.is_empty())
                };
                if !self.askers.iter().any(waits) {
                    break;
                }
                self.now = self.uploads.next_timeout(self.now).unwrap_or(self.now + Duration::from_millis(1));
                self.pump();
            }
            let left = self.askers.iter().filter(|&(key, asker)| may_take(key) && !asker.waiting.is_empty());
            assert_eq!(left.count(), 0, "requests wait for ever: {:?}", self.askers);
        }
    }
}
