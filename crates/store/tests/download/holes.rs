//! Chunks of zeros: here from the beginning, and holes in the files.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use proto::ChunkIndex;
use store::{Content, Download, DownloadError, Resumed};

use crate::bench::{Bench, CHUNK, content, listing};

/// Writes a file with holes but for these chunks.
fn write_sparse(path: &Path, len: usize, data: &[usize]) {
    let file = File::create(path).unwrap();
    file.set_len(len as u64).unwrap();
    for &chunk in data {
        let at = chunk * CHUNK;
        file.write_all_at(&content(CHUNK.min(len - at), chunk), at as u64).unwrap();
    }
}

/// An image of ten chunks and a bit, with data in two of them.
const LEN: usize = 10 * CHUNK + 5_000;

fn image() -> Bench {
    Bench::new(|path| write_sparse(path, LEN, &[0, 6]))
}

/// Bytes that a file takes on the disk.
fn room(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

fn have(download: &Download) -> Vec<u32> {
    download.have().iter().map(|chunk| chunk.0).collect()
}

const ZEROS: [u32; 9] = [1, 2, 3, 4, 5, 7, 8, 9, 10];

/// More than a file's data takes: a file system may use blocks for its own records.
const SLACK: u64 = 64 * 1024;

#[test]
fn zeros_are_here_from_the_beginning_and_take_no_room() {
    let bench = image();
    let (download, resumed) = bench.open().unwrap();
    assert_eq!((resumed, have(&download)), (Resumed::default(), ZEROS.to_vec()));
    assert_eq!(download.zero_len(), (LEN - 2 * CHUNK) as u64);
    assert!(!download.is_whole());
    // They are served to others, like chunks that were received.
    let mut bytes = vec![1; 5_000];
    let source = download.open_chunk(ChunkIndex(10)).unwrap();
    source.file.read_exact_at(&mut bytes, source.offset).unwrap();
    assert_eq!((source.len, bytes), (5_000, vec![0; 5_000]));
    bench.store(&download, [0, 6]);
    let path = bench.finish(download);
    assert_eq!(listing(&path), listing(&bench.source()));
    assert!(room(&path) <= 2 * CHUNK as u64 + SLACK, "{}", room(&path));
}

#[test]
fn a_share_of_nothing_but_zeros_is_whole_at_once() {
    let bench = Bench::new(|path| {
        fs::create_dir(path).unwrap();
        write_sparse(&path.join("a"), 3 * CHUNK, &[]);
        write_sparse(&path.join("b"), CHUNK, &[]);
    });
    for has_resume in [true, false] {
        let (download, _) = bench.open().unwrap();
        assert!(download.is_whole());
        download.checkpoint().unwrap();
        drop(download);
        if !has_resume {
            fs::remove_file(bench.output().resume_path()).unwrap();
        }
    }
    let download = bench.resume(0, 0);
    assert_eq!(listing(&bench.finish(download)), listing(&bench.source()));
}

#[test]
fn a_download_with_holes_is_resumed_with_and_without_its_resume_file() {
    for is_claimed in [true, false] {
        let bench = image();
        let (download, _) = bench.open().unwrap();
        bench.store(&download, [6]);
        if is_claimed {
            download.checkpoint().unwrap();
        }
        drop(download);
        if !is_claimed {
            fs::remove_file(bench.output().resume_path()).unwrap();
        }
        let download = bench.resume(1, 0);
        assert_eq!(have(&download).len(), ZEROS.len() + 1);
        assert_eq!(download.zero_len(), (LEN - 2 * CHUNK) as u64);
        bench.store(&download, [0]);
        let path = bench.finish(download);
        assert_eq!(listing(&path), listing(&bench.source()));
        assert!(room(&path) <= 2 * CHUNK as u64 + SLACK, "{}", room(&path));
    }
}

/// A part may have been damaged, or cut.
#[test]
fn what_should_be_zeros_and_is_not_is_received() {
    for is_claimed in [true, false] {
        let bench = image();
        let (download, _) = bench.open().unwrap();
        bench.store(&download, [0]);
        if is_claimed {
            download.checkpoint().unwrap();
        }
        drop(download);
        let part = File::options().write(true).open(bench.output().part_path()).unwrap();
        part.write_all_at(b"garbage", 3 * CHUNK as u64 + 9).unwrap();
        part.set_len(9 * CHUNK as u64).unwrap();
        let (download, resumed) = bench.open().unwrap();
        assert_eq!(resumed, Resumed { kept: u32::from(is_claimed), lost: 0 });
        let missing = ZEROS.iter().copied().filter(|&chunk| !download.have().contains(ChunkIndex(chunk)));
        assert_eq!(missing.collect::<Vec<_>>(), [3]);
        bench.complete(download);
    }
}

#[test]
fn zeros_are_written_where_holes_are_not_wanted() {
    for is_resumed in [false, true] {
        let bench = image();
        if is_resumed {
            let (download, _) = bench.open().unwrap();
            bench.store(&download, [6]);
            download.checkpoint().unwrap();
        }
        let (download, resumed) = bench.open_to(bench.output().without_holes()).unwrap();
        assert_eq!(resumed.kept, u32::from(is_resumed));
        assert_eq!(have(&download).len(), ZEROS.len() + usize::from(is_resumed));
        bench.store_missing(&download);
        let path = bench.finish(download);
        assert_eq!(listing(&path), listing(&bench.source()));
        assert!(room(&path) >= LEN as u64, "{}", room(&path));
    }
}

#[test]
fn zeros_of_files_that_are_not_wanted_are_not_created() {
    let bench = Bench::new(|path| {
        fs::create_dir(path).unwrap();
        write_sparse(&path.join("a"), 3 * CHUNK, &[1]);
        write_sparse(&path.join("b"), 3 * CHUNK, &[]);
    });
    let (download, _) = bench.open_only(bench.output(), &["a"]).unwrap();
    assert_eq!(have(&download), [0, 2]);
    bench.store(&download, [1]);
    let path = bench.finish(download);
    assert_eq!(listing(&path).len(), 2);
    assert!(!path.join("b").exists());
}

/// Zeros prove nothing: any sparse file has them.
#[test]
fn a_sparse_file_of_another_program_is_left_alone() {
    let bench = image();
    File::create(bench.output().part_path()).unwrap().set_len(LEN as u64).unwrap();
    assert!(matches!(bench.open(), Err(DownloadError::PartInTheWay { .. })));
}
