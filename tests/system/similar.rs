//! A leecher that has an earlier version of a share fetches the blocks that differ, and no more.

use std::fs;

use proto::BLOCK_LEN;
use shoal::{Fetched, Stay};

use crate::{
    source::{CHUNK, MIB, Source},
    swarm::test,
};

/// Several chunks, of which the last is short.
const SIZE: u64 = 4 * MIB + 70_000;

const BLOCK: u64 = BLOCK_LEN as u64;

/// Where bytes of the earlier version differ: two in one block, one in the block after it, one in another chunk, and one in the last
/// block, which is short.
const DIFFERENT: [u64; 5] = [3 * BLOCK, 4 * BLOCK - 1, 4 * BLOCK + 5, 2 * CHUNK + 9 * BLOCK, SIZE - 1];

/// Bytes of the blocks that differ.
const DIFFERENT_LEN: u64 = 3 * BLOCK + 70_000 % BLOCK;

/// The share with some bytes changed.
fn earlier(source: &Source, different: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let mut bytes = fs::read(&source.path).unwrap();
    different.into_iter().for_each(|at| bytes[usize::try_from(at).unwrap()] ^= 1);
    bytes
}

fn received(fetched: &Fetched) -> u64 {
    fetched.peers.iter().map(|peer| peer.bytes).sum()
}

fn assert_thrifty(source: &Source, fetched: &Fetched) {
    source.assert_fetched(fetched);
    assert_eq!(received(fetched), DIFFERENT_LEN);
    assert_eq!((fetched.reused, fetched.wasted), (source.size() - DIFFERENT_LEN, 0));
}

/// What is replaced is the earlier version itself.
#[test]
fn only_the_blocks_that_differ_travel() {
    test(async |swarm| {
        let source = swarm.share("image.bin", SIZE);
        let seeder = swarm.seed_unannounced(&source).await;
        let plan = swarm.plan(&source, &[seeder.address]).with(|fetch| fetch.update());
        fs::write(plan.directory.join("leeched_image.bin"), earlier(&source, DIFFERENT)).unwrap();
        assert_thrifty(&source, &swarm.fetch(plan).fetched().await);
    });
}

/// A leecher serves hashes and blocks of the chunks that it has.
#[test]
fn the_blocks_can_come_from_a_leecher() {
    test(async |swarm| {
        let source = swarm.share("image.bin", SIZE);
        let seeder = swarm.seed_unannounced(&source).await;
        let plan = swarm.plan_for(source.infohash());
        let plan = plan.with(|fetch| fetch.peer(seeder.address).stay(Stay::Forever));
        let mut first = swarm.fetch(plan);
        first.finished().await;
        let address = swarm.known_peer(source.infohash()).await;
        let plan = swarm.plan(&source, &[address]).with(|fetch| fetch.update());
        fs::write(plan.directory.join("leeched_image.bin"), earlier(&source, DIFFERENT)).unwrap();
        assert_thrifty(&source, &swarm.fetch(plan).fetched().await);
        first.stop();
    });
}

/// One byte of each block differs: hashes of blocks help nothing, and are asked for once.
#[test]
fn a_version_that_differs_everywhere_is_fetched_whole() {
    test(async |swarm| {
        let source = swarm.share("image.bin", SIZE);
        let seeder = swarm.seed_unannounced(&source).await;
        let plan = swarm.plan(&source, &[seeder.address]).with(|fetch| fetch.update());
        let bytes = earlier(&source, (0..SIZE).step_by(BLOCK_LEN as usize));
        fs::write(plan.directory.join("leeched_image.bin"), bytes).unwrap();
        let fetched = swarm.fetch(plan).fetched().await;
        source.assert_fetched(&fetched);
        assert_eq!((received(&fetched), fetched.reused, fetched.wasted), (SIZE, 0, 0));
    });
}
