//! What a finished download is remembered by: an update need not read again what has not changed. A run that finds the share here
//! reads all of it all the same.

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use proto::Metainfo;
use sha2::{Digest, Sha256};
use store::{Content, Download, DownloadError, Output, ProofCache, Wanted, check};

use crate::bench::{Bench, CHUNK, content, listing, names_in};

const LARGE: usize = 2 * CHUNK + 1;
const TOTAL: u64 = (LARGE + 900 + 700) as u64;

fn bench() -> Bench {
    version(1)
}

/// Versions differ in a file.
fn version(seed_of_one: usize) -> Bench {
    Bench::new(|path| {
        fs::create_dir_all(path.join("sub")).unwrap();
        for (seed, (name, len)) in
            [(0, ("large", LARGE)), (seed_of_one, ("one", 900)), (2, ("sub/two", 700)), (3, ("empty", 0))]
        {
            fs::write(path.join(name), content(len, seed)).unwrap();
        }
    })
}

fn cache(bench: &Bench) -> PathBuf {
    bench.source().with_file_name("proofs")
}

fn output(bench: &Bench) -> Output {
    bench.output().replacing_version().remembering(ProofCache::new(cache(bench)))
}

/// A download, and how many bytes of files that are here were read for it.
fn open(bench: &Bench) -> Result<(Download, u64), DownloadError> {
    let (download, read) = open_to(bench, output(bench));
    Ok((download?, read))
}

fn open_to(bench: &Bench, output: Output) -> (Result<Download, DownloadError>, u64) {
    let metainfo = Arc::new(Metainfo::decode(bench.shared.metainfo().as_bytes()).unwrap());
    let (hashes, wanted) = (bench.shared.hashes().clone(), Wanted::all(&metainfo));
    let read = AtomicU64::new(0);
    let progress = |bytes| {
        read.fetch_add(bytes, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    let opened = Download::open(metainfo, hashes, output, wanted, &[], None, &progress);
    (opened.map(|(download, _)| download), read.into_inner())
}

/// How many bytes are read to find out that what is here is another version than this one: none if the record counts.
fn read_to_compare(bench: &Bench) -> u64 {
    let output = Output::at(bench.output().path().to_owned()).remembering(ProofCache::new(cache(bench)));
    let (opened, read) = open_to(&version(77), output);
    assert!(matches!(opened, Err(DownloadError::OutputDiffers { .. })), "{opened:?}");
    read
}

/// A bench whose share was fetched.
fn fetched() -> Bench {
    let bench = bench();
    bench.complete(open(&bench).unwrap().0);
    bench
}

fn record(bench: &Bench) -> PathBuf {
    let names = names_in(&cache(bench));
    assert_eq!(names.len(), 1, "{names:?}");
    cache(bench).join(&names[0])
}

/// What is recorded of a file: its inode and times.
fn numbers(path: &Path) -> Vec<u8> {
    let meta = fs::symlink_metadata(path).unwrap();
    let numbers =
        [meta.ino().cast_signed(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
    numbers.into_iter().flat_map(i64::to_be_bytes).collect()
}

/// Where these numbers are in a record.
fn position(record: &[u8], numbers: &[u8]) -> Option<usize> {
    record.windows(numbers.len()).position(|window| window == numbers)
}

/// Whether the record has each of the files that are not empty, as it is now.
#[track_caller]
fn assert_all_known(bench: &Bench) {
    let (record, path) = (fs::read(record(bench)).unwrap(), bench.output().path().to_owned());
    for name in ["large", "one", "sub/two"] {
        assert!(position(&record, &numbers(&path.join(name))).is_some(), "{name}");
    }
}

/// Changes a byte of a file, and the record so that it has the file as it is then: what a disk does that changes a byte by itself.
fn rot(bench: &Bench, name: &str) {
    let (record, path) = (record(bench), bench.output().path().join(name));
    let (mut bytes, before) = (fs::read(&record).unwrap(), numbers(&path));
    fs::File::options().write(true).open(&path).unwrap().write_all_at(b"x", 0).unwrap();
    let at = position(&bytes, &before).unwrap();
    bytes[at..at + before.len()].copy_from_slice(&numbers(&path));
    let checked = bytes.len() - 32;
    let checksum = Sha256::digest(&bytes[..checked]);
    bytes[checked..].copy_from_slice(&checksum);
    fs::write(&record, bytes).unwrap();
}

/// Writes to a file, and sets back when it was changed.
fn change_unseen(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn a_share_that_is_here_is_read_again_whatever_the_record_says() {
    let bench = fetched();
    let path = bench.output().path().to_owned();
    assert_all_known(&bench);
    for _ in 0..2 {
        let (download, read) = open(&bench).unwrap();
        assert!(download.is_finished());
        assert_eq!(read, TOTAL);
    }
    // Another inode.
    fs::copy(path.join("one"), path.join("copy")).unwrap();
    fs::rename(path.join("copy"), path.join("one")).unwrap();
    assert_eq!(open(&bench).unwrap().1, TOTAL);
    for name in ["large", "one", "sub/two"] {
        let bench = fetched();
        rot(&bench, name);
        let (download, _) = open(&bench).unwrap();
        assert!(!download.is_finished(), "{name}");
        bench.complete(download);
    }
}

#[test]
fn what_is_known_to_be_another_version_is_not_read_to_find_that_out() {
    let bench = fetched();
    assert_eq!(read_to_compare(&bench), 0);
    fs::remove_file(record(&bench)).unwrap();
    assert_eq!(read_to_compare(&bench), TOTAL);
}

#[test]
fn a_file_that_was_changed_and_has_its_old_time_is_read() {
    let bench = fetched();
    change_unseen(&bench.output().path().join("sub/two"));
    let (download, _) = open(&bench).unwrap();
    assert_eq!(download.have().count(), download.wanted().count() - 1);
    bench.complete(download);
}

/// The files that were linked have another time of change since then, because they lost a name.
#[test]
fn after_an_update_what_it_linked_and_what_it_fetched_is_known() {
    let bench = fetched();
    let path = bench.output().path().to_owned();
    fs::write(path.join("one"), content(900, 77)).unwrap();
    let (download, _) = open(&bench).unwrap();
    bench.complete(download);
    assert_all_known(&bench);
}

/// The record is of the version before, because the run was ended between the exchange and the record of the new one.
#[test]
fn a_record_of_an_earlier_version_is_no_word_about_this_one() {
    let bench = fetched();
    let path = bench.output().path().to_owned();
    let before = fs::read(record(&bench)).unwrap();
    fs::write(path.join("one"), content(900, 77)).unwrap();
    let (download, _) = open(&bench).unwrap();
    bench.complete(download);
    fs::write(record(&bench), before).unwrap();
    let (download, read) = open(&bench).unwrap();
    assert!(download.is_finished());
    assert_eq!(read, TOTAL);
}

#[test]
fn a_record_that_is_damaged_or_that_others_could_write_does_not_count() {
    let bench = fetched();
    let record = record(&bench);
    let good = fs::read(&record).unwrap();
    for damage in [&[][..], &good[..good.len() - 1], &[&good[..], b"x"].concat()] {
        fs::write(&record, damage).unwrap();
        assert_eq!(read_to_compare(&bench), TOTAL);
    }
    fs::write(&record, &good).unwrap();
    assert_eq!(read_to_compare(&bench), 0);
    for mode in [0o620, 0o602] {
        fs::set_permissions(&record, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(read_to_compare(&bench), TOTAL, "{mode:o}");
    }
    fs::set_permissions(&record, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(read_to_compare(&bench), 0);
    // Only root can give a file to somebody else.
    if std::os::unix::fs::chown(&record, Some(12_345), None).is_ok() {
        assert_eq!(read_to_compare(&bench), TOTAL);
    }
}

/// Its time is in the future, so that the next change may have the same.
#[test]
fn what_has_no_settled_time_is_read_each_time() {
    let bench = bench();
    let path = bench.output().path().to_owned();
    fs::create_dir_all(path.join("sub")).unwrap();
    for name in ["large", "one", "sub/two", "empty"] {
        fs::copy(bench.source().join(name), path.join(name)).unwrap();
        let file = fs::File::options().write(true).open(path.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(3_600)).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(open(&bench).unwrap().1, TOTAL);
    }
    assert!(!cache(&bench).exists());
}

#[test]
fn a_check_reads_everything() {
    let bench = fetched();
    let read = AtomicU64::new(0);
    let progress = |bytes| {
        read.fetch_add(bytes, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    let (metainfo, path) = (bench.shared.metainfo(), bench.output().path().to_owned());
    let found = check(metainfo, bench.shared.hashes(), &path, &Wanted::all(metainfo), &progress).unwrap();
    assert_eq!((found.count, read.into_inner()), (0, TOTAL));
}

/// Of a share that is fetched elsewhere, what is known of a source is not read to be found, and is proved when it is copied.
#[test]
fn a_source_that_is_known_gives_what_it_has() {
    let bench = fetched();
    let from = bench.output().path().to_owned();
    let metainfo = Arc::new(Metainfo::decode(bench.shared.metainfo().as_bytes()).unwrap());
    let (hashes, wanted) = (bench.shared.hashes().clone(), Wanted::all(&metainfo));
    let elsewhere = Output::at(bench.out().join("elsewhere")).remembering(ProofCache::new(cache(&bench)));
    let go_on = |_| ControlFlow::Continue(());
    let (download, _) = Download::open(metainfo, hashes, elsewhere, wanted, &[from], None, &go_on).unwrap();
    download.finish().unwrap();
    assert_eq!(listing(&bench.out().join("elsewhere")), listing(&bench.source()));
}

#[test]
fn a_linked_file_that_was_changed_and_has_its_old_time_ends_the_update() {
    let bench = fetched();
    let path = bench.output().path().to_owned();
    fs::write(path.join("one"), content(900, 77)).unwrap();
    let (download, _) = open(&bench).unwrap();
    bench.store_missing(&download);
    change_unseen(&path.join("sub/two"));
    let before = listing(&path);
    assert!(matches!(download.finish(), Err(DownloadError::LinkChanged(_))));
    assert_eq!(listing(&path), before);
}

#[test]
fn a_linked_file_that_only_gets_another_name_does_not_end_the_update() {
    let bench = fetched();
    let path = bench.output().path().to_owned();
    fs::write(path.join("one"), content(900, 77)).unwrap();
    let (download, _) = open(&bench).unwrap();
    fs::hard_link(path.join("large"), bench.out().join("backup")).unwrap();
    bench.complete(download);
}

#[test]
fn one_file_is_remembered_too() {
    let bench = Bench::of_file(3 * CHUNK);
    bench.complete(open(&bench).unwrap().0);
    let is_known = || position(&fs::read(record(&bench)).unwrap(), &numbers(bench.output().path())).is_some();
    assert!(is_known());
    change_unseen(bench.output().path());
    assert!(!is_known());
    let (download, _) = open(&bench).unwrap();
    assert_eq!(download.have().count(), 2);
    bench.complete(download);
    assert!(is_known());
}

#[test]
fn nothing_is_remembered_without_a_place_for_it() {
    let bench = bench();
    bench.complete(bench.open().unwrap().0);
    assert!(!cache(&bench).exists());
    assert_eq!(open(&bench).unwrap().1, TOTAL);
}
