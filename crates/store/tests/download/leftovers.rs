//! Parts and resume files of earlier runs, intact and damaged.

use std::{
    fs,
    os::unix::fs::{FileExt, symlink},
    path::Path,
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use proto::SMALL_CHUNK_LEN;
use store::{DownloadError, Output, Resumed};

use crate::bench::{Bench, CHUNK, content, listing, names_in};

fn make_fifo(path: &Path) {
    mkfifo(path, Mode::S_IRWXU).unwrap();
}

/// Downloads the first two of four chunks, and makes them durable.
fn leave_two(bench: &Bench) {
    let (download, _) = bench.open().unwrap();
    bench.store(&download, 0..2);
    download.checkpoint().unwrap();
}

#[test]
fn a_part_counts_though_its_resume_file_is_lost_or_damaged() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("lost", |path| fs::remove_file(path).unwrap()),
        ("empty", |path| fs::write(path, b"").unwrap()),
        ("garbage", |path| fs::write(path, content(9_000, 3)).unwrap()),
        ("cut", |path| fs::File::options().write(true).open(path).unwrap().set_len(100).unwrap()),
        ("of another version", |path| fs::write(path, b"SHOALRS1").unwrap()),
    ];
    for bench in [Bench::of_file(3 * CHUNK + 9), Bench::of_directory(4)] {
        for (what, damage) in damages {
            leave_two(&bench);
            damage(&bench.output().resume_path());
            assert_eq!(bench.open().unwrap().1, Resumed { kept: 2, lost: 0 }, "{what}");
            // And claimed at once, even if this run ends now.
            assert_ne!(fs::read(bench.output().resume_path()).unwrap(), b"");
            let (download, resumed) = bench.open().unwrap();
            assert_eq!(resumed, Resumed { kept: 2, lost: 0 }, "{what}");
            bench.store_missing(&download);
            let path = bench.finish(download);
            assert_eq!(listing(&path), listing(&bench.source()), "{what}");
            assert_eq!(names_in(&bench.out()), ["leeched_source"], "{what}");
            fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)).unwrap();
        }
    }
}

#[test]
fn of_a_part_without_a_resume_file_only_what_is_right_counts() {
    let bench = Bench::of_file(3 * CHUNK + 9);
    let (download, _) = bench.open().unwrap();
    bench.store_missing(&download);
    drop(download);
    fs::remove_file(bench.output().resume_path()).unwrap();
    let part = fs::File::options().write(true).open(bench.output().part_path()).unwrap();
    part.write_all_at(b"damage", 50).unwrap();
    part.set_len(3 * u64::from(SMALL_CHUNK_LEN) + 8).unwrap();
    let download = bench.resume(2, 0);
    bench.complete(download);
}

/// A run that is killed at once leaves only a name.
#[test]
fn an_empty_part_is_begun_anew() {
    let bench = Bench::of_file(CHUNK);
    fs::write(bench.output().part_path(), b"").unwrap();
    assert_eq!(bench.open().unwrap().1, Resumed::default());
    let bench = Bench::of_directory(3);
    fs::create_dir(bench.output().part_path()).unwrap();
    let (download, _) = bench.open().unwrap();
    bench.complete(download);
}

#[test]
fn what_is_no_file_is_an_error_and_nothing_waits_for_it() {
    type Plant = fn(&Path);
    let plants: [(&str, Plant); 4] = [
        ("fifo", make_fifo),
        ("directory with something in it", |path| fs::create_dir_all(path.join("mine")).unwrap()),
        ("link", |path| symlink("elsewhere", path).unwrap()),
        ("socket", |path| _ = std::os::unix::net::UnixListener::bind(path).unwrap()),
    ];
    let paths: [fn(&Output) -> std::path::PathBuf; 2] = [Output::part_path, Output::resume_path];
    for (what, plant) in plants {
        for path in paths {
            for (kind, bench) in [("file", Bench::of_file(CHUNK)), ("directory", Bench::of_directory(2))] {
                let path = path(&bench.output());
                plant(&path);
                let names = names_in(&bench.out());
                match bench.open() {
                    Err(DownloadError::PartInTheWay { path: at, .. }) => assert!(at.starts_with(&path)),
                    other => panic!("{what} for a {kind}, {}: {other:?}", path.display()),
                }
                assert_eq!(names_in(&bench.out()), names, "{what} for a {kind}");
            }
        }
    }
}

#[test]
fn a_resume_file_that_is_removed_meanwhile_is_made_again_or_not_needed() {
    let bench = Bench::of_file(2 * CHUNK);
    let (download, _) = bench.open().unwrap();
    bench.store(&download, 0..1);
    fs::remove_file(bench.output().resume_path()).unwrap();
    download.checkpoint().unwrap();
    drop(download);
    let download = bench.resume(1, 0);
    fs::remove_file(bench.output().resume_path()).unwrap();
    bench.store_missing(&download);
    download.finish().unwrap();
    // The same as after any failure.
    download.checkpoint().unwrap();
    assert_eq!(names_in(&bench.out()), ["leeched_source"]);
}

/// A file that somebody put there is not overwritten.
#[test]
fn a_resume_file_that_is_replaced_meanwhile_is_left_alone() {
    let bench = Bench::of_file(2 * CHUNK);
    let (download, _) = bench.open().unwrap();
    bench.store(&download, 0..1);
    fs::remove_file(bench.output().resume_path()).unwrap();
    fs::write(bench.output().resume_path(), b"mine").unwrap();
    assert!(matches!(download.checkpoint(), Err(DownloadError::NotClaimed(_))));
    bench.store_missing(&download);
    download.finish().unwrap();
    assert_eq!(fs::read(bench.output().resume_path()).unwrap(), b"mine");
}

#[test]
fn a_part_that_is_removed_or_replaced_meanwhile_is_noticed_at_the_next_checkpoint() {
    for bench in [Bench::of_file(2 * CHUNK), Bench::of_directory(2), Bench::of_directory(9)] {
        let (download, _) = bench.open().unwrap();
        let part = bench.output().part_path();
        let aside = part.with_extension("aside");
        fs::rename(&part, &aside).unwrap();
        assert!(matches!(download.checkpoint(), Err(DownloadError::PartGone(at)) if at == part));
        if aside.is_dir() {
            fs::create_dir(&part).unwrap();
        } else {
            fs::write(&part, b"mine").unwrap();
        }
        assert!(matches!(download.checkpoint(), Err(DownloadError::PartGone(at)) if at == part));
        bench.store_missing(&download);
        assert!(matches!(download.finish(), Err(DownloadError::PartGone(at)) if at == part));
        assert!(!bench.output().path().exists());
    }
}

#[test]
fn a_file_that_is_removed_or_cut_in_a_part_is_fetched_again() {
    type Harm = fn(&Path);
    let harms: [Harm; 2] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::File::options().write(true).open(path).unwrap().set_len(7).unwrap(),
    ];
    for harm in harms {
        let bench = Bench::of_directory(3);
        let (download, _) = bench.open().unwrap();
        bench.store_missing(&download);
        let file = bench.output().part_path().join("sub/file1");
        harm(&file);
        assert!(matches!(download.finish(), Err(DownloadError::PartGone(at)) if at == file));
        download.checkpoint().unwrap();
        drop(download);
        let download = bench.resume(2, 1);
        bench.complete(download);
    }
}

/// Its beginning would be right.
#[test]
fn a_small_file_that_is_too_long_is_cut() {
    let bench = Bench::new(|path| {
        fs::create_dir(path).unwrap();
        fs::write(path.join("small"), b"12345").unwrap();
        fs::write(path.join("other"), b"123").unwrap();
    });
    let (download, _) = bench.open().unwrap();
    bench.store_missing(&download);
    download.checkpoint().unwrap();
    drop(download);
    fs::write(bench.output().part_path().join("small"), b"12345 and more").unwrap();
    let download = bench.resume(2, 0);
    assert_eq!(listing(&bench.finish(download)), listing(&bench.source()));
}
