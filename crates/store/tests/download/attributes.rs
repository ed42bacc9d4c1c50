//! Files that can be executed, symbolic links and times.

use std::{
    fs,
    os::unix::fs::{MetadataExt, OpenOptionsExt, symlink},
    path::{Path, PathBuf},
};

use proto::ChunkIndex;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use store::{Content, DownloadError, Resumed, ScanRules};

use crate::bench::{Bench, CHUNK, content, listing, make_executable};

/// A build: a large and a small executable, a file, and links of all kinds.
fn build() -> Bench {
    Bench::new(|path| {
        fs::create_dir_all(path.join("bin")).unwrap();
        fs::create_dir_all(path.join("lib/only-links")).unwrap();
        fs::write(path.join("bin/large"), content(CHUNK + 7, 1)).unwrap();
        fs::write(path.join("bin/small"), b"#!/bin/sh\n").unwrap();
        fs::write(path.join("bin/empty"), b"").unwrap();
        fs::write(path.join("lib/data"), b"12345").unwrap();
        for name in ["bin/large", "bin/small", "bin/empty"] {
            make_executable(&path.join(name));
        }
        symlink("bin/large", path.join("current")).unwrap();
        symlink("../current", path.join("lib/through")).unwrap();
        symlink("../../bin", path.join("lib/only-links/directory")).unwrap();
        symlink("nowhere", path.join("lib/only-links/dangling")).unwrap();
    })
}

/// The mode of an executable that a program creates here.
fn executable_mode(dir: &Path) -> u32 {
    let path = dir.join("probe");
    fs::OpenOptions::new().write(true).create_new(true).mode(0o777).open(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().mode();
    fs::remove_file(path).unwrap();
    mode
}

#[test]
fn executables_and_links_arrive() {
    let bench = build();
    let (download, _) = bench.open().unwrap();
    bench.store_missing(&download);
    // Neither is there before everything is.
    let part = bench.output().part_path();
    assert_eq!(fs::metadata(part.join("bin/large")).unwrap().mode() & 0o111, 0);
    assert!(!part.join("current").is_symlink());
    let path = bench.finish(download);
    assert_eq!(listing(&path), listing(&bench.source()));
    let expected = executable_mode(&bench.out());
    for name in ["bin/large", "bin/small", "bin/empty"] {
        assert_eq!(fs::metadata(path.join(name)).unwrap().mode(), expected, "{name}");
    }
    assert_eq!(fs::metadata(path.join("lib/data")).unwrap().mode() & 0o111, 0);
    assert_eq!(fs::read(path.join("lib/through")).unwrap(), content(CHUNK + 7, 1));
}

#[test]
fn a_single_file_stays_executable() {
    let bench = Bench::new(|path| {
        fs::write(path, b"#!/bin/sh\n").unwrap();
        make_executable(path);
    });
    let (download, _) = bench.open().unwrap();
    bench.store_missing(&download);
    let path = bench.finish(download);
    assert_eq!(fs::metadata(&path).unwrap().mode(), executable_mode(&bench.out()));
}

/// A run that failed between the links and the name left them behind.
#[test]
fn links_of_an_earlier_run_are_taken_over() {
    let bench = build();
    let (download, _) = bench.open().unwrap();
    bench.store_missing(&download);
    fs::write(bench.output().path(), b"in the way").unwrap();
    assert!(matches!(download.finish(), Err(DownloadError::OutputExists(_))));
    download.checkpoint().unwrap();
    drop(download);
    assert!(bench.output().part_path().join("lib/through").is_symlink());
    fs::remove_file(bench.output().path()).unwrap();
    for has_resume in [true, false] {
        if !has_resume {
            fs::remove_file(bench.output().resume_path()).unwrap();
        }
        assert_eq!(bench.open().unwrap().1, Resumed { kept: 4, lost: 0 });
    }
    let download = bench.resume(4, 0);
    assert_eq!(listing(&bench.finish(download)), listing(&bench.source()));
}

#[test]
fn a_link_that_leads_elsewhere_is_not_one_of_the_share() {
    let bench = build();
    let victim = bench.out().join("victim");
    fs::write(&victim, b"precious").unwrap();
    let plants: [fn(&Path, &Path); 3] = [
        |at, victim| symlink(victim, at).unwrap(),
        |at, _| fs::write(at, b"mine").unwrap(),
        |at, _| fs::create_dir(at).unwrap(),
    ];
    for plant in plants {
        let (download, _) = bench.open().unwrap();
        bench.store_missing(&download);
        let planted = bench.output().part_path().join("lib/through");
        plant(&planted, &victim);
        let in_the_way = |error| matches!(error, DownloadError::PartInTheWay { path, .. } if path == planted);
        assert!(in_the_way(download.finish().unwrap_err()));
        download.checkpoint().unwrap();
        drop(download);
        assert!(in_the_way(bench.open().unwrap_err()));
        fs::remove_file(&planted).or_else(|_| fs::remove_dir(&planted)).unwrap();
    }
    let download = bench.resume(4, 0);
    assert_eq!(listing(&bench.finish(download)), listing(&bench.source()));
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
}

/// The links of a run that wanted more are gone, with the directories that held nothing else.
#[test]
fn links_are_wanted_like_files() {
    let bench = build();
    let (download, _) = bench.open().unwrap();
    bench.store_missing(&download);
    fs::write(bench.output().path(), b"in the way").unwrap();
    download.finish().unwrap_err();
    download.checkpoint().unwrap();
    drop(download);
    fs::remove_file(bench.output().path()).unwrap();
    let (download, _) = bench.open_only(bench.output(), &["lib/t*", "lib/data", "current"]).unwrap();
    let path = bench.finish(download);
    let found: Vec<_> = listing(&path).into_keys().collect();
    let bin = ["bin", "bin/large", "bin/small"];
    let expected: Vec<_> =
        [""].into_iter().chain(bin).chain(["current", "lib", "lib/data", "lib/through"]).collect();
    // Files that were whole stay.
    assert_eq!(found, expected.into_iter().map(PathBuf::from).collect::<Vec<_>>());
}

/// No file can be below a link, but a directory of the part can be exchanged for one.
#[test]
fn no_link_is_created_through_another() {
    let bench = build();
    let elsewhere = bench.out().join("elsewhere");
    let (download, _) = bench.open().unwrap();
    bench.store_missing(&download);
    let dir = bench.output().part_path().join("lib/only-links");
    fs::rename(&dir, &elsewhere).unwrap();
    symlink(&elsewhere, &dir).unwrap();
    download.finish().unwrap_err();
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn times_are_kept_where_the_share_has_them_and_the_user_wants_them() {
    const TIME_S: i64 = 1_234_567_890;
    const NAMES: [&str; 4] = ["large", "small", "empty", "link"];

    let make = |path: &Path| {
        fs::create_dir(path).unwrap();
        fs::write(path.join("large"), content(CHUNK + 7, 1)).unwrap();
        fs::write(path.join("small"), b"12345").unwrap();
        fs::write(path.join("empty"), b"").unwrap();
        symlink("large", path.join("link")).unwrap();
        let time = Timespec { tv_sec: TIME_S, tv_nsec: 5 };
        let times = Timestamps { last_access: time, last_modification: time };
        for name in NAMES {
            utimensat(CWD, path.join(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
    };
    for (has_times, wants_times) in [(true, true), (true, false), (false, true)] {
        let bench = Bench::with_rules(&ScanRules { times: has_times, ..ScanRules::default() }, make);
        let output = if wants_times { bench.output().keeping_times() } else { bench.output() };
        let (download, _) = bench.open_to(output).unwrap();
        bench.store_missing(&download);
        download.finish().unwrap();
        for name in NAMES {
            let time = fs::symlink_metadata(download.output().path().join(name)).unwrap().mtime();
            assert_eq!(time == TIME_S, has_times && wants_times, "{name}, {has_times}, {wants_times}");
        }
        // It is served as it is now.
        download.open_chunk(ChunkIndex(0)).unwrap();
    }
}
