//! The scheduler's decisions in a large swarm: 10,000 chunks, 100 peers that each have half of them.

#![expect(clippy::disallowed_methods, reason = "a benchmark begins at any moment")]

use std::{collections::VecDeque, time::Instant};

use criterion::{BatchSize, Criterion, Throughput};
use proto::{Bitfield, CHUNK_LEN, ChunkIndex, ChunkSpace};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use swarm::scheduler::{Command, Have, PeerKey, Received, Scheduler};

const CHUNKS: u32 = 10_000;
const PEERS: u64 = 100;
/// Chunks that arrive in one measurement. The transfer is far from its end.
const ARRIVALS: u32 = 1_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut rng = StdRng::seed_from_u64(1);
    let fields: Vec<Bitfield> = (0..PEERS).map(|_| half(&mut rng)).collect();
    let mut group = criterion.benchmark_group("scheduler, 10,000 chunks, 100 peers");
    group.sample_size(20);
    group.bench_function("all join and are asked", |bencher| {
        bencher.iter_batched(|| fields.clone(), Transfer::begin, BatchSize::LargeInput);
    });
    group.throughput(Throughput::Elements(u64::from(ARRIVALS)));
    group.bench_function("1,000 chunks arrive, as many are asked for", |bencher| {
        bencher.iter_batched(
            || Transfer::begin(fields.clone()),
            |mut transfer| {
                (0..ARRIVALS).for_each(|_| transfer.arrival());
                transfer
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
    criterion.final_summary();
}

/// A bitfield with about half of the chunks in it.
fn half(rng: &mut StdRng) -> Bitfield {
    let mut field = Bitfield::empty(CHUNKS);
    for chunk in (0..CHUNKS).filter(|_| rng.random()) {
        field.insert(ChunkIndex(chunk));
    }
    field
}

/// A scheduler whose peers answer in the order in which they were asked.
struct Transfer {
    scheduler: Scheduler,
    now: Instant,
    rng: StdRng,
    asked: VecDeque<(PeerKey, ChunkIndex)>,
}

impl Transfer {
    fn begin(fields: Vec<Bitfield>) -> Transfer {
        let space = ChunkSpace::new([u64::from(CHUNKS) * u64::from(CHUNK_LEN)]).unwrap();
        let mut transfer = Transfer {
            scheduler: Scheduler::new(space, &Bitfield::full(CHUNKS), &Bitfield::empty(CHUNKS)),
            now: Instant::now(),
            rng: StdRng::seed_from_u64(2),
            asked: VecDeque::new(),
        };
        for (key, field) in (0..).map(PeerKey).zip(fields) {
            transfer.scheduler.add_peer(key, Have::Some(field), transfer.now);
        }
        transfer.fill();
        transfer
    }

    fn fill(&mut self) {
        self.scheduler.fill(self.now, &mut self.rng);
        while let Some(command) = self.scheduler.poll_command() {
            if let Command::Request(peer, wish) = command {
                self.asked.push_back((peer, wish.chunk));
            }
        }
    }

    fn arrival(&mut self) {
        let (peer, chunk) = self.asked.pop_front().expect("nothing was asked for");
        if self.scheduler.received(peer, chunk, self.now) == Received::Verify {
            self.scheduler.stored(chunk);
        }
        self.fill();
    }
}
