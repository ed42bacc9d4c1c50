//! Sends requests when they are due and there is room: a list of them until each has an answer, or a mix for some time.

use std::{
    iter, thread,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use rand::{Rng, RngExt};
use tokio_util::sync::CancellationToken;

use crate::{
    dialect::{Job, Kind},
    load::{End, Load},
};

/// A list fails after this long without an answer.
const SILENCE: Duration = Duration::from_secs(5);

/// Sleep when there is nothing to do and the rate is limited. It is much shorter than any time on a network, and keeps no
/// core busy.
const NAP: Duration = Duration::from_micros(50);

/// Requests that are collected before they are sent when nothing limits the rate, so each system call carries many.
const GATHER: usize = 16;

/// When the next request is due.
pub(crate) struct Pace {
    per_second: Option<u32>,
    began: Instant,
    made: u64,
}

/// Parts of each kind of request in a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mix {
    pub(crate) connect: u32,
    pub(crate) announce: u32,
    pub(crate) lookup: u32,
    pub(crate) search: u32,
}

/// The outcome of a list of requests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Completed {
    pub(crate) answered: u64,
    pub(crate) refused: u64,
}

impl Pace {
    /// This number of requests a second, or as many as there is room for.
    pub(crate) fn new(per_second: Option<u32>) -> Pace {
        Pace { per_second, began: Instant::now(), made: 0 }
    }

    /// The times at which the requests to send by now were due.
    fn due(&self, now: Instant) -> impl Iterator<Item = Instant> + use<> {
        let Pace { per_second, began, made } = *self;
        let rate = f64::from(per_second.unwrap_or(1));
        let place = move |number: u64| Duration::from_secs_f64(number as f64 / rate);
        (made..)
            .map(move |number| if per_second.is_some() { began + place(number) } else { now })
            .take_while(move |due| *due <= now)
    }

    fn nap(&self) {
        match self.per_second {
            Some(_) => thread::sleep(NAP),
            None => std::hint::spin_loop(),
        }
    }
}

impl Mix {
    fn draw(&self, rng: &mut impl Rng) -> Kind {
        let parts = [
            (Kind::Connect, self.connect),
            (Kind::Announce, self.announce),
            (Kind::Lookup, self.lookup),
            (Kind::Search, self.search),
        ];
        let mut drawn = rng.random_range(0..parts.iter().map(|&(_, part)| part).sum());
        for (kind, part) in parts {
            if drawn < part {
                return kind;
            }
            drawn -= part;
        }
        Kind::Connect
    }
}

/// Connects from every address.
pub(crate) fn connect(load: &mut Load, pace: &mut Pace, stop: &CancellationToken) -> anyhow::Result<()> {
    let addresses = 0..load.writer().population.addresses;
    let jobs = addresses.map(|address| Job { kind: Kind::Connect, address, peer: address });
    complete(load, jobs, pace, stop).map(drop)
}

/// One request of `kind` for each peer.
pub(crate) fn everyone(load: &Load, kind: Kind) -> impl Iterator<Item = Job> + use<> {
    let population = load.writer().population.clone();
    (0..population.addresses).flat_map(move |address| {
        let population = population.clone();
        let peers = 0..population.peers_at(address);
        peers.map(move |index| Job { kind, address, peer: population.peer_at(address, index) })
    })
}

/// Sends each request until it is answered. It is fastest if they are sorted by kind and address.
pub(crate) fn complete(
    load: &mut Load,
    jobs: impl Iterator<Item = Job>,
    pace: &mut Pace,
    stop: &CancellationToken,
) -> anyhow::Result<Completed> {
    let mut jobs = jobs.peekable();
    let mut again: Vec<Job> = Vec::new();
    let mut completed = Completed::default();
    let mut answered = Instant::now();
    while !stop.is_cancelled() {
        if load.receive()? {
            answered = Instant::now();
        }
        ensure!(answered.elapsed() < SILENCE, "no answer for {} seconds", SILENCE.as_secs());
        for (job, end) in load.ended.drain(..) {
            match end {
                End::Answered | End::Unknown => completed.answered += 1,
                End::Refused => completed.refused += 1,
                End::Again => again.push(job),
            }
        }
        if let Some(&lost) =
            again.iter().find(|job| job.kind != Kind::Connect && !load.has_token(job.address))
        {
            bail!("the tracker refused a token for {:?}: was it restarted?", lost.kind);
        }
        let first = again.pop().or_else(|| jobs.next());
        let Some(first) = first else {
            if load.is_idle() {
                break;
            }
            pace.nap();
            continue;
        };
        let alike = |job: &Job| (job.kind, job.address) == (first.kind, first.address);
        let batch = iter::once(first).chain(iter::from_fn(|| jobs.next_if(alike)));
        // Requests that are taken out of the list must be sent, so take no more than there is room for.
        let ready: Vec<Instant> =
            pace.due(Instant::now()).take(load.room().min(crate::sender::MAX_SEGMENTS)).collect();
        if ready.is_empty() {
            again.push(first);
            pace.nap();
            continue;
        }
        pace.made += load.ask(ready.iter().copied().zip(batch).map(|(due, job)| (job, due)))? as u64;
    }
    Ok(completed)
}

/// Sends random requests until `end`.
pub(crate) fn mix(
    load: &mut Load,
    mix: Mix,
    pace: &mut Pace,
    end: Instant,
    rng: &mut impl Rng,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let population = load.writer().population.clone();
    // The next peer of each address.
    let mut next = vec![0_u32; population.addresses as usize];
    while !stop.is_cancelled() {
        let mut busy = load.receive()?;
        load.ended.clear();
        let now = Instant::now();
        if now >= end {
            break;
        }
        // A few at a time, even when many are due, so they have several kinds and addresses.
        let gather = if pace.per_second.is_some() { 1 } else { GATHER };
        while load.room() >= gather && pace.due(now).next().is_some() {
            let address = rng.random_range(0..population.addresses);
            let kind = if load.has_token(address) { mix.draw(rng) } else { Kind::Connect };
            let index = &mut next[address as usize];
            let jobs = pace.due(now).map(|due| {
                let peer = match kind {
                    // In turn, so every peer sends its heartbeat.
                    Kind::Announce => {
                        *index = (*index + 1) % population.peers_at(address);
                        population.peer_at(address, *index)
                    }
                    _ => rng.random_range(0..population.peers),
                };
                (Job { kind, address, peer }, due)
            });
            pace.made += load.ask(jobs)? as u64;
            busy = true;
        }
        if !busy {
            pace.nap();
        }
    }
    Ok(())
}
