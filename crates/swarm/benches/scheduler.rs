//! The scheduler's decisions in a large swarm: 80 peers, as many as a leecher connects to, and shares of 1 and 100 GiB.

#![expect(clippy::disallowed_methods, reason = "a benchmark begins at any moment")]

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use proto::{Bitfield, ChunkIndex, ChunkSpace, SMALL_CHUNK_LEN};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use swarm::scheduler::{Command, Have, PeerKey, Received, Scheduler};

const PEERS: u64 = 80;
/// Chunks that arrive in one measurement. The transfer is far from its end.
const ARRIVALS: u32 = 500;
/// Chunks that are announced in one measurement, one at a time.
const NEWS: u32 = 10_000;
/// A chunk on a link of 4 Gbit/s.
const CHUNK_TIME: Duration = Duration::from_millis(1);

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (chunks, name) in [(2_048, "2,048 chunks"), (200_000, "200,000 chunks")] {
        let mut group = criterion.benchmark_group(format!("scheduler, 80 peers, {name}"));
        group.sample_size(20);
        requests(&mut group, chunks);
        news(&mut group, chunks);
        group.finish();
    }
    criterion.final_summary();
}

/// Every peer has half of the chunks.
fn requests(group: &mut BenchmarkGroup<'_, WallTime>, chunks: u32) {
    let mut rng = StdRng::seed_from_u64(1);
    let fields: Vec<Bitfield> = (0..PEERS).map(|_| half(chunks, &mut rng)).collect();
    group.throughput(Throughput::Elements(PEERS));
    group.bench_function("a peer joins and is asked", |bencher| {
        bencher.iter_batched(
            || fields.clone(),
            |fields| Transfer::begin(chunks, fields),
            BatchSize::LargeInput,
        );
    });
    group.throughput(Throughput::Elements(u64::from(ARRIVALS)));
    group.bench_function("a chunk arrives, and another is asked for", |bencher| {
        bencher.iter_batched(
            || Transfer::begin(chunks, fields.clone()),
            |mut transfer| {
                (0..ARRIVALS).for_each(|_| transfer.arrival());
                transfer
            },
            BatchSize::LargeInput,
        );
    });
}

/// Every peer has nothing at first.
fn news(group: &mut BenchmarkGroup<'_, WallTime>, chunks: u32) {
    let mut rng = StdRng::seed_from_u64(2);
    let mut news: Vec<(PeerKey, ChunkIndex)> = (0..NEWS)
        .map(|number| (PeerKey(u64::from(number) % PEERS), ChunkIndex(rng.random_range(0..chunks))))
        .collect();
    news.shuffle(&mut rng);
    group.throughput(Throughput::Elements(u64::from(NEWS)));
    group.bench_function("a peer announces a chunk, and may be asked for it", |bencher| {
        bencher.iter_batched(
            || Transfer::begin(chunks, vec![Bitfield::empty(chunks); PEERS as usize]),
            |mut transfer| {
                news.iter().for_each(|&(peer, chunk)| transfer.announced(peer, chunk));
                transfer
            },
            BatchSize::LargeInput,
        );
    });
}

/// A bitfield with about half of the chunks in it.
fn half(chunks: u32, rng: &mut StdRng) -> Bitfield {
    let mut field = Bitfield::empty(chunks);
    for chunk in (0..chunks).filter(|_| rng.random()) {
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
    fn begin(chunks: u32, fields: Vec<Bitfield>) -> Transfer {
        let space = ChunkSpace::new([u64::from(chunks) * u64::from(SMALL_CHUNK_LEN)]).unwrap();
        let mut transfer = Transfer {
            scheduler: Scheduler::new(space, &Bitfield::full(chunks), &Bitfield::empty(chunks)),
            now: Instant::now(),
            rng: StdRng::seed_from_u64(3),
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
        self.now += CHUNK_TIME;
        if self.scheduler.received(peer, chunk, self.now) == Received::Verify {
            self.scheduler.stored(chunk);
        }
        self.fill();
    }

    fn announced(&mut self, peer: PeerKey, chunk: ChunkIndex) {
        self.scheduler.add_haves(peer, [chunk], self.now).expect("the share has it");
        self.fill();
    }
}
