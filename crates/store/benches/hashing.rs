//! Hashing one chunk: its Merkle root as Shoal does it, beside plain SHA-256 of the same bytes.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use proto::{BLOCK_LEN, CHUNK_LEN};
use sha2::{Digest, Sha256};
use store::merkle::{chunk_hash, chunk_hash_by_sha2};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let chunk: Vec<u8> = (0..CHUNK_LEN).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let mut group = criterion.benchmark_group("hash a chunk");
    group.throughput(Throughput::Bytes(u64::from(CHUNK_LEN)));
    group.bench_function("Merkle root of 32 blocks", |bencher| {
        bencher.iter(|| chunk_hash(black_box(&chunk), CHUNK_LEN / BLOCK_LEN));
    });
    group.bench_function("Merkle root with sha2 alone", |bencher| {
        bencher.iter(|| chunk_hash_by_sha2(black_box(&chunk), CHUNK_LEN / BLOCK_LEN));
    });
    group.bench_function("SHA-256 with sha2", |bencher| {
        bencher.iter(|| Sha256::digest(black_box(&chunk)));
    });
    group.finish();
    criterion.final_summary();
}
