//! Chunks that are put together from blocks that arrive and from similar bytes that are here.

use std::{fs, path::PathBuf};

use proto::{
    ChunkIndex, Digest,
    peer::{BlockSet, Form},
};
use store::{Download, StoreChunkError, merkle::Leaves};

use crate::bench::{Bench, CHUNK, content, listing};

const BLOCK: usize = 16 * 1024;

/// A download of a file of three chunks, and a version of it in which these bytes differ.
fn download(different: &[usize]) -> (Bench, Download, PathBuf) {
    let bench = Bench::of_file(2 * CHUNK + 100_000);
    let mut bytes = fs::read(bench.source()).unwrap();
    different.iter().for_each(|&at| bytes[at] ^= 1);
    let earlier = bench.out().with_file_name("earlier");
    fs::write(&earlier, bytes).unwrap();
    let (download, _) = bench.open_from(bench.output(), &[], std::slice::from_ref(&earlier)).unwrap();
    (bench, download, earlier)
}

fn leaves(bytes: &[u8]) -> Vec<Digest> {
    Leaves::of(bytes).hashes().iter().copied().map(Digest).collect()
}

/// The blocks of a chunk, as if a peer had sent them, and 0xee elsewhere.
fn sent(bench: &Bench, chunk: u32, blocks: BlockSet) -> Vec<u8> {
    let right = bench.chunk(ChunkIndex(chunk));
    let mut bytes = vec![0xee; right.len()];
    for range in blocks.ranges(u32::try_from(right.len()).unwrap()) {
        let range = range.start as usize..range.end as usize;
        bytes[range.clone()].copy_from_slice(&right[range]);
    }
    bytes
}

#[test]
fn a_chunk_needs_only_the_blocks_that_differ() {
    let last = 2 * CHUNK + 100_000 - 1;
    let (bench, download, earlier) = download(&[CHUNK + 3 * BLOCK, CHUNK + 5 * BLOCK + 1, last]);
    assert_eq!(download.similar().iter().map(|chunk| chunk.0).collect::<Vec<_>>(), [1, 2]);
    for (chunk, blocks, len) in [(1, BlockSet(0b10_1000), 2 * BLOCK), (2, BlockSet(1 << 6), 100_000 % BLOCK)]
    {
        let index = ChunkIndex(chunk);
        let form = download.compare(index, leaves(&bench.chunk(index))).unwrap();
        assert_eq!(form, Form::Blocks(blocks));
        let mut bytes = sent(&bench, chunk, blocks);
        let stored = download.store_blocks(index, blocks, &mut bytes).unwrap();
        assert_eq!(stored.reused as usize, bytes.len() - len);
    }
    assert!(download.similar().is_empty());
    let before = fs::read(&earlier).unwrap();
    assert_eq!(listing(&bench.finish(download)), listing(&bench.source()));
    assert!(fs::read(&earlier).unwrap() == before, "what is similar is only read");
}

#[test]
fn wrong_hashes_and_wrong_blocks_are_known_at_once() {
    let (bench, download, _) = download(&[CHUNK]);
    let chunk = ChunkIndex(1);
    let right = leaves(&bench.chunk(chunk));
    let mut wrong = right.clone();
    wrong[5].0[4] ^= 1;
    let longer = [&right[..], &[right[0]]].concat();
    for hashes in [&wrong[..], &right[..7], &longer, &right[..1], &[], &[right[0]; 40]] {
        let result = download.compare(chunk, hashes.iter().copied());
        assert!(matches!(result, Err(StoreChunkError::Wrong(at)) if at == chunk), "{result:?}");
    }
    let mut bytes = sent(&bench, 1, BlockSet(1));
    bytes[5] ^= 1;
    let result = download.store_blocks(chunk, BlockSet(1), &mut bytes);
    assert!(matches!(result, Err(StoreChunkError::Wrong(at)) if at == chunk), "{result:?}");
    assert!(!download.have().contains(chunk));
    // The next peer is honest.
    download.store_blocks(chunk, BlockSet(1), &mut sent(&bench, 1, BlockSet(1))).unwrap();
    assert!(download.have().contains(chunk));
}

/// The peer is not to blame.
#[test]
fn a_chunk_whose_similar_bytes_change_is_fetched_whole() {
    let changes: [fn(&PathBuf); 3] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::write(path, b"short").unwrap(),
        |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[CHUNK + 5 * BLOCK] ^= 1;
            fs::write(path, bytes).unwrap();
        },
    ];
    for change in changes {
        let (bench, download, earlier) = download(&[CHUNK]);
        let chunk = ChunkIndex(1);
        let right = leaves(&bench.chunk(chunk));
        assert_eq!(download.compare(chunk, right.clone()).unwrap(), Form::Blocks(BlockSet(1)));
        change(&earlier);
        let result = download.store_blocks(chunk, BlockSet(1), &mut sent(&bench, 1, BlockSet(1)));
        assert!(matches!(result, Err(StoreChunkError::SimilarChanged(at)) if at == chunk), "{result:?}");
        assert!(!download.have().contains(chunk));
        assert_eq!(download.compare(chunk, right).unwrap(), Form::Whole);
        bench.complete(download);
    }
}

#[test]
fn blocks_are_not_worth_it_where_most_differ() {
    let half: Vec<_> = (0..4).map(|block| CHUNK + 2 * block * BLOCK).collect();
    let (bench, download, _) = download(&half);
    let chunk = ChunkIndex(1);
    let Ok(Form::Blocks(blocks)) = download.compare(chunk, leaves(&bench.chunk(chunk))) else {
        panic!("half")
    };
    assert_eq!(blocks.count(), 4);
    let more = [&half[..], &[CHUNK + BLOCK]].concat();
    let (bench, download, _) = self::download(&more);
    assert_eq!(download.compare(chunk, leaves(&bench.chunk(chunk))).unwrap(), Form::Whole);
    // So is a chunk of which nothing similar is here.
    assert_eq!(download.compare(ChunkIndex(0), leaves(&bench.chunk(ChunkIndex(0)))).unwrap(), Form::Whole);
}

/// Their hashes would cost a round trip, and there is little to spare.
#[test]
fn small_files_are_fetched_whole() {
    for (len, is_similar) in [(3 * BLOCK, false), (3 * BLOCK + 1, true)] {
        let bench = Bench::of_file(len);
        let earlier = bench.out().with_file_name("earlier");
        let mut bytes = content(len, 1);
        bytes[9] ^= 1;
        fs::write(&earlier, bytes).unwrap();
        let (download, _) = bench.open_from(bench.output(), &[], &[earlier]).unwrap();
        assert_eq!(download.similar().contains(ChunkIndex(0)), is_similar, "{len}");
    }
}
