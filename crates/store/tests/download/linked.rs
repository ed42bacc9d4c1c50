//! Files that an update has in common with the version that it replaces.

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::Metainfo;
use store::{Content, Download, DownloadError, Local, Output, Resumed, Wanted};

use crate::bench::{Bench, CHUNK, content, listing, make_executable};

/// A large file, and small ones, one of which can be executed.
fn bench() -> Bench {
    Bench::new(|path| {
        fs::create_dir_all(path.join("sub")).unwrap();
        for (seed, (name, len)) in
            [("large", 2 * CHUNK + 1), ("one", 900), ("run", 800), ("sub/two", 700)].into_iter().enumerate()
        {
            fs::write(path.join(name), content(len, seed)).unwrap();
        }
        make_executable(&path.join("run"));
    })
}

/// Puts a version where the output will be that differs in `one`.
fn placed(bench: &Bench) -> PathBuf {
    let path = bench.output().path().to_owned();
    fs::create_dir_all(path.join("sub")).unwrap();
    for name in ["large", "one", "run", "sub/two"] {
        fs::copy(bench.source().join(name), path.join(name)).unwrap();
    }
    fs::write(path.join("one"), content(900, 77)).unwrap();
    path
}

fn update(bench: &Bench) -> Result<(Download, Resumed), DownloadError> {
    bench.open_to(bench.output().replacing_version())
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[test]
fn files_that_stay_the_same_are_neither_copied_nor_claimed() {
    let bench = bench();
    let path = placed(&bench);
    let part = bench.output().part_path();
    let before = ["large", "one", "run", "sub/two"].map(|name| inode(&path.join(name)));
    let (download, _) = update(&bench).unwrap();
    download.checkpoint().unwrap();
    assert_eq!(
        ["large", "run", "sub/two"].map(|name| inode(&part.join(name))),
        [before[0], before[2], before[3]]
    );
    drop(download);
    // The old version is gone, and nothing is lost that was claimed.
    let (download, resumed) = update(&bench).unwrap();
    assert_eq!(resumed, Resumed { kept: 0, lost: 0 });
    bench.complete(download);
    let after = ["large", "one", "run", "sub/two"].map(|name| inode(&path.join(name)));
    assert_eq!([after[0], after[2], after[3]], [before[0], before[2], before[3]]);
    assert_ne!(after[1], before[1]);
    assert!(
        ["large", "one", "run", "sub/two"]
            .iter()
            .all(|name| fs::metadata(path.join(name)).unwrap().nlink() == 1)
    );
}

/// What a run would write to a file that is linked would be written to the old version.
#[test]
fn the_old_version_is_never_written_to_whatever_happens_to_it() {
    let bench = bench();
    let path = placed(&bench);
    let (download, _) = update(&bench).unwrap();
    download.checkpoint().unwrap();
    drop(download);
    fs::write(path.join("sub/two"), content(700, 50)).unwrap();
    let large = fs::File::options().write(true).open(path.join("large")).unwrap();
    large.write_all_at(b"longer", 2 * CHUNK as u64 + 1).unwrap();
    let before = listing(&path);
    let (download, _) = update(&bench).unwrap();
    bench.store_missing(&download);
    assert_eq!(listing(&path), before);
    bench.complete(download);
}

#[test]
fn a_linked_file_that_changes_is_not_served_and_ends_the_update() {
    let bench = bench();
    let path = placed(&bench);
    let (download, _) = update(&bench).unwrap();
    bench.store_missing(&download);
    let file = fs::File::options().write(true).open(path.join("sub/two")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let last = download.metainfo().chunk_space().chunks().last().unwrap();
    assert!(download.open_chunk(last).is_err());
    let before = listing(&path);
    assert!(matches!(download.finish(), Err(DownloadError::LinkChanged(_))));
    drop(download);
    assert_eq!(listing(&path), before);
    bench.complete(update(&bench).unwrap().0);
}

/// A link would keep what the new version should not have: another name, an owner's choice of permissions, or a time.
#[test]
fn a_file_that_is_not_as_a_new_one_would_be_is_copied() {
    let bench = bench();
    let path = placed(&bench);
    fs::hard_link(path.join("large"), bench.out().join("mine")).unwrap();
    fs::set_permissions(path.join("sub/two"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(path.join("run"), fs::Permissions::from_mode(0o644)).unwrap();
    let before = ["large", "run", "sub/two"].map(|name| inode(&path.join(name)));
    let (download, _) = update(&bench).unwrap();
    assert_eq!(download.have().count(), download.wanted().count() - 1);
    bench.complete(download);
    for (name, before) in ["large", "run", "sub/two"].into_iter().zip(before) {
        assert_ne!(inode(&path.join(name)), before, "{name}");
    }
}

#[test]
fn what_this_run_has_hashed_counts_as_long_as_it_does_not_change() {
    let bench = bench();
    let path = placed(&bench);
    let scan = Local::scan(&path, 1, u64::MAX).unwrap().unwrap();
    let local = Local::hash(&path, scan, &|_| ControlFlow::Continue(())).unwrap();
    assert!(Local::scan(&path, 5, u64::MAX).unwrap().is_none());
    assert!(Local::scan(&path, 1, 1_000).unwrap().is_none());
    let time = fs::metadata(path.join("sub/two")).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(path.join("sub/two")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.set_modified(time).unwrap();
    let metainfo = Arc::new(Metainfo::decode(bench.shared.metainfo().as_bytes()).unwrap());
    let output: Output = bench.output().replacing_version();
    let (hashes, wanted) = (bench.shared.hashes().clone(), Wanted::all(&metainfo));
    let opened =
        Download::open(metainfo, hashes, output, wanted, &[], Some(&local), &|_| ControlFlow::Continue(()));
    let (download, _) = opened.unwrap();
    // All but `one` and `sub/two`.
    assert_eq!(download.have().count(), download.wanted().count() - 2);
    bench.complete(download);
}
