//! Downloads: every shape of share arrives whole, nothing unproved is written, and a crash loses nothing
//! that was made durable.

mod attributes;
mod bench;
mod holes;
mod intruders;
mod leftovers;
mod linked;
mod parts;
mod remembered;
mod similar;
mod versions;

use std::{fs, ops::ControlFlow, os::unix::fs::FileExt, sync::Arc};

use bench::{Bench, CHUNK, content, listing, names_in};
use proptest::prelude::*;
use proto::{ChunkIndex, Metainfo, SMALL_CHUNK_LEN};
use store::{Content, Download, DownloadError, Output, Resumed, StoreChunkError, Wanted};

#[test]
fn files_of_every_size_arrive_whole() {
    for len in [0, 1, 16_383, 16_384, 16_385, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 9] {
        let bench = Bench::of_file(len);
        let (download, _) = bench.open().unwrap();
        bench.store_missing(&download);
        let path = bench.finish(download);
        assert_eq!(listing(&path), listing(&bench.source()), "{len}");
        assert_eq!(names_in(path.parent().unwrap()), ["leeched_source"]);
    }
}

#[test]
fn a_directory_arrives_with_its_empty_files_and_directories() {
    let bench = Bench::new(|path| {
        for dir in ["a/b/c", "hollow/inner", "空"] {
            fs::create_dir_all(path.join(dir)).unwrap();
        }
        for (name, len) in
            [("a/x", 3 * CHUNK + 1), ("a/b/empty", 0), ("a.txt", 1), ("a-b", CHUNK), ("空/🐟 x", 5)]
        {
            fs::write(path.join(name), content(len, name.len())).unwrap();
        }
        for index in 0..100 {
            fs::write(path.join(format!("a/b/c/{index}")), content(index * 10, index)).unwrap();
        }
    });
    let (download, _) = bench.open().unwrap();
    bench.complete(download);
}

#[test]
fn an_empty_directory_arrives() {
    let bench = Bench::new(|path| fs::create_dir(path).unwrap());
    let (download, _) = bench.open().unwrap();
    assert_eq!(listing(&bench.finish(download)), listing(&bench.source()));
}

#[test]
fn a_wrong_chunk_never_reaches_the_file() {
    let bench = Bench::of_file(2 * CHUNK + 100);
    let (download, _) = bench.open().unwrap();
    let mut wrong = bench.chunk(ChunkIndex(1));
    wrong[77] ^= 1;
    let last = bench.chunk(ChunkIndex(2));
    for (chunk, bytes) in [
        (1, &wrong[..]),
        (0, &bench.chunk(ChunkIndex(1))),
        (1, &bench.chunk(ChunkIndex(1))[..CHUNK - 1]),
        (2, &last[..99]),
        (2, &[last.clone(), vec![0]].concat()),
        (3, &last),
        (2, &[]),
    ] {
        let result = download.store(ChunkIndex(chunk), bytes);
        assert!(matches!(result, Err(StoreChunkError::Wrong(at)) if at.0 == chunk), "{chunk}: {result:?}");
    }
    assert!(download.have().is_empty());
    assert!(fs::read(bench.output().part_path()).unwrap().iter().all(|&byte| byte == 0));
}

#[test]
fn what_was_made_durable_survives_and_is_proved_again() {
    let bench = Bench::of_file(5 * CHUNK);
    let (download, _) = bench.open().unwrap();
    for chunk in [0, 3, 4].map(ChunkIndex) {
        download.store(chunk, &bench.chunk(chunk)).unwrap();
    }
    download.checkpoint().unwrap();
    download.store(ChunkIndex(1), &bench.chunk(ChunkIndex(1))).unwrap();
    drop(download);

    let part = fs::File::options().write(true).open(bench.output().part_path()).unwrap();
    part.write_all_at(b"damage", 3 * SMALL_CHUNK_LEN as u64 + 50).unwrap();
    let download = bench.resume(2, 1);
    assert_eq!(download.have().iter().collect::<Vec<_>>(), [0, 4].map(ChunkIndex));
    // The damaged chunk stays lost, though an earlier resume file claimed it.
    download.checkpoint().unwrap();
    drop(download);
    let download = bench.resume(2, 0);
    bench.complete(download);
}

#[test]
fn a_part_that_was_cut_short_is_resumed_with_what_is_left() {
    let bench = Bench::of_file(4 * CHUNK);
    let (download, _) = bench.open().unwrap();
    bench.store_missing(&download);
    download.checkpoint().unwrap();
    drop(download);
    fs::File::options()
        .write(true)
        .open(bench.output().part_path())
        .unwrap()
        .set_len(CHUNK as u64 + 9)
        .unwrap();
    let download = bench.resume(1, 3);
    bench.complete(download);
}

/// A claimed chunk counts as synced, also when the share gets its name. So a wrong claim must be removed before the chunk
/// arrives again.
#[test]
fn a_chunk_that_was_lost_is_claimed_again_only_when_it_is_durable_again() {
    let bench = Bench::of_file(2 * CHUNK);
    let lost = ChunkIndex(1);
    let (download, _) = bench.open().unwrap();
    bench.store_missing(&download);
    download.checkpoint().unwrap();
    drop(download);
    let part = fs::File::options().write(true).open(bench.output().part_path()).unwrap();
    part.write_all_at(b"other", u64::from(SMALL_CHUNK_LEN)).unwrap();
    let download = bench.resume(1, 1);
    download.store(lost, &bench.chunk(lost)).unwrap();
    drop(download);
    assert_eq!(bench.open().unwrap().1, Resumed { kept: 1, lost: 0 });
}

#[test]
fn a_directory_of_small_files_is_resumed_with_those_that_are_there() {
    let bench = Bench::new(|path| {
        fs::create_dir(path).unwrap();
        fs::write(path.join("empty"), b"").unwrap();
        fs::write(path.join("large"), content(CHUNK + 5, 1)).unwrap();
        for number in 0..9 {
            fs::write(path.join(format!("small{number}")), content(4_000 + number, number)).unwrap();
        }
    });
    let space = bench.shared.metainfo().chunk_space().clone();
    let (download, _) = bench.open().unwrap();
    // Small files take no room before they arrive; for large ones it is reserved.
    assert_eq!(names_in(&bench.output().part_path()), ["empty", "large"]);
    let stored: Vec<_> = space.chunks().skip(1).step_by(2).collect();
    for &chunk in &stored {
        download.store(chunk, &bench.chunk(chunk)).unwrap();
    }
    download.checkpoint().unwrap();
    drop(download);
    let lost = bench.shared.metainfo().files()[space.span(stored[2]).unwrap().file].path[0].clone();
    fs::remove_file(bench.output().part_path().join(lost.as_str())).unwrap();

    let download = bench.resume(stored.len() as u32 - 1, 1);
    bench.complete(download);
}

#[test]
fn nothing_that_is_there_is_replaced_unasked() {
    let bench = Bench::of_file(10);
    let path = bench.output().path().to_owned();
    fs::write(&path, b"mine").unwrap();
    assert!(matches!(bench.open(), Err(DownloadError::OutputDiffers { path: at, .. }) if at == path));
    assert_eq!(names_in(path.parent().unwrap()), ["leeched_source"]);

    let (download, _) = bench.open_to(bench.output().replacing_file()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    bench.store_missing(&download);
    bench.finish(download);
    assert_eq!(listing(&path), listing(&bench.source()));
}

#[test]
fn a_file_that_appears_during_the_download_is_not_replaced() {
    let bench = Bench::of_file(10);
    let (download, _) = bench.open().unwrap();
    bench.store_missing(&download);
    fs::write(bench.output().path(), b"mine").unwrap();
    assert!(matches!(download.finish(), Err(DownloadError::OutputExists(_))));
    drop(download);
    assert_eq!(fs::read(bench.output().path()).unwrap(), b"mine");
    fs::remove_file(bench.output().path()).unwrap();
    assert_eq!(bench.open().unwrap().1, Resumed { kept: 0, lost: 0 });
}

#[test]
fn a_directory_is_not_replaced_in_place_of_a_file() {
    let bench = Bench::of_file(10);
    fs::create_dir(bench.output().path()).unwrap();
    let output = bench.output().replacing_file();
    assert!(matches!(bench.open_to(output), Err(DownloadError::OutputDiffers { .. })));
}

#[test]
fn leftovers_of_others_are_not_touched() {
    let bench = Bench::of_file(10);
    let (part, resume) = (bench.output().part_path(), bench.output().resume_path());
    fs::write(&part, b"mine").unwrap();
    assert!(matches!(bench.open(), Err(DownloadError::PartInTheWay { .. })));
    fs::write(&resume, b"mine too").unwrap();
    assert!(matches!(bench.open(), Err(DownloadError::PartInTheWay { .. })));
    fs::remove_file(&part).unwrap();
    assert!(matches!(bench.open(), Err(DownloadError::PartInTheWay { .. })));
    assert_eq!(fs::read(&resume).unwrap(), b"mine too");
}

#[test]
fn a_part_of_another_share_is_not_touched() {
    let (old, new) = (Bench::of_file(10), Bench::of_file(11));
    let (download, _) = old.open_to(new.output()).unwrap();
    drop(download);
    assert!(matches!(new.open(), Err(DownloadError::PartInTheWay { .. })));
}

#[test]
fn two_downloads_cannot_work_on_one_output() {
    let bench = Bench::of_file(CHUNK);
    let (download, _) = bench.open().unwrap();
    assert!(matches!(bench.open(), Err(DownloadError::Locked(_))));
    bench.store_missing(&download);
    download.finish().unwrap();
}

#[test]
fn a_share_larger_than_the_disk_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let metainfo = {
        use proto::{
            Digest, ShareName,
            metainfo::{FileNode, Tree},
        };
        let len = proto::chunk::MAX_SHARE_LEN;
        let hashes = vec![Digest([1; 32]); proto::chunk::MAX_CHUNKS as usize];
        let root = store::merkle::root_of_chunks(&hashes, 32);
        let tree = Tree::File(FileNode::new(len, Some(root)));
        let metainfo = Metainfo::new(ShareName::new("huge").unwrap(), tree).unwrap();
        (store::ChunkHashes::prove(&metainfo, hashes).unwrap(), Arc::new(metainfo))
    };
    let output = Output::in_dir(dir.path(), metainfo.1.name());
    let wanted = Wanted::all(&metainfo.1);
    let result =
        Download::open(metainfo.1, metainfo.0, output, wanted, &[], None, &|_| ControlFlow::Continue(()));
    assert!(matches!(result, Err(DownloadError::NoSpace { .. })), "{result:?}");
    assert_eq!(names_in(dir.path()), [""; 0]);
}

#[test]
fn chunks_can_be_read_as_soon_as_they_are_stored() {
    let bench = Bench::of_file(2 * CHUNK);
    let (download, _) = bench.open().unwrap();
    assert!(download.open_chunk(ChunkIndex(1)).is_err());
    download.store(ChunkIndex(1), &bench.chunk(ChunkIndex(1))).unwrap();
    let source = download.open_chunk(ChunkIndex(1)).unwrap();
    let mut bytes = vec![0; source.len as usize];
    source.file.read_exact_at(&mut bytes, source.offset).unwrap();
    assert_eq!(bytes, bench.chunk(ChunkIndex(1)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// For every sequence of chunks that are stored, made durable, damaged or cut off by a crash: a resumed download never
    /// has a chunk that it did not prove, keeps every durable and undamaged one, and ends whole.
    #[test]
    fn crashes_lose_nothing_durable(
        steps in prop::collection::vec((0..4_u8, 0..6_u32), 1..12),
    ) {
        let bench = Bench::of_file(5 * CHUNK + 17);
        let mut download = bench.open().unwrap().0;
        let mut durable = download.have();
        for (step, index) in steps {
            let chunk = ChunkIndex(index);
            match step {
                0 => _ = download.store(chunk, &bench.chunk(chunk)).unwrap(),
                1 => {
                    download.checkpoint().unwrap();
                    durable = download.have();
                }
                2 => {
                    drop(download);
                    let resumed;
                    (download, resumed) = bench.open().unwrap();
                    prop_assert_eq!(resumed.kept, durable.count());
                    prop_assert_eq!(&download.have(), &durable);
                }
                _ => {
                    drop(download);
                    let part = fs::File::options().write(true).open(bench.output().part_path()).unwrap();
                    part.write_all_at(&[0x55; 3], u64::from(index) * u64::from(SMALL_CHUNK_LEN) + 2).unwrap();
                    durable.remove(chunk);
                    download = bench.open().unwrap().0;
                    prop_assert_eq!(&download.have(), &durable);
                }
            }
        }
        bench.store_missing(&download);
        prop_assert_eq!(listing(&bench.finish(download)), listing(&bench.source()));
    }
}
