//! The decisions of a busy seeder: 500 askers with 16 waiting requests each.

#![expect(clippy::disallowed_methods, reason = "a benchmark begins at any moment")]

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion, Throughput};
use proto::{CHUNK_LEN, ChunkIndex};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use swarm::uploads::{AskerKey, DEFAULT_SLOTS, Uploads};

const CHUNKS: u32 = 10_000;
const ASKERS: u64 = 500;
const WAITING: u32 = 16;
/// Chunks that are sent in one measurement: two for each asker.
const SENT: u32 = 1_000;
/// A chunk on a link of 4 Gbit/s.
const CHUNK_TIME: Duration = Duration::from_millis(1);

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("uploads, 500 askers with 16 requests each");
    group.sample_size(20);
    group.throughput(Throughput::Elements(ASKERS * u64::from(WAITING)));
    group.bench_function("all ask", |bencher| bencher.iter(Seeder::begin));
    group.throughput(Throughput::Elements(u64::from(SENT)));
    group.bench_function("a chunk is sent, its asker asks again, the next is chosen", |bencher| {
        bencher.iter_batched(
            Seeder::begin,
            |mut seeder| {
                (0..SENT).for_each(|_| seeder.send());
                seeder
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
    criterion.final_summary();
}

/// A seeder whose link sends one chunk after the other.
struct Seeder {
    uploads: Uploads,
    now: Instant,
    rng: StdRng,
    /// Who receives a chunk, in the order in which they were chosen.
    receiving: VecDeque<AskerKey>,
}

impl Seeder {
    fn begin() -> Seeder {
        let mut seeder = Seeder {
            uploads: Uploads::new(CHUNKS, CHUNK_LEN, DEFAULT_SLOTS),
            now: Instant::now(),
            rng: StdRng::seed_from_u64(1),
            receiving: VecDeque::new(),
        };
        for key in (0..ASKERS).map(AskerKey) {
            (0..WAITING).for_each(|_| seeder.ask(key));
        }
        seeder.start();
        seeder
    }

    fn ask(&mut self, key: AskerKey) {
        let chunk = ChunkIndex(self.rng.random_range(0..CHUNKS));
        self.uploads.request(key, chunk);
    }

    fn start(&mut self) {
        while let Some((key, _)) = self.uploads.start(self.now) {
            self.receiving.push_back(key);
        }
    }

    fn send(&mut self) {
        let key = self.receiving.pop_front().expect("nothing is sent");
        self.now += CHUNK_TIME;
        self.uploads.progress(|_| 0, self.now);
        self.uploads.finished(key, CHUNK_LEN, self.now);
        self.ask(key);
        if self.uploads.is_contended() {
            self.uploads.progress(|_| 0, self.now);
        }
        self.start();
    }
}
