//! Downloads to a path where something is: the share itself, a part of it, or another version. And what is taken from it.

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use store::{Content, Difference, Download, DownloadError, Output, Resumed, Wanted, check};

use crate::bench::{Bench, CHUNK, Entry, content, listing, make_executable, names_in};

/// A large file, two small ones, one of which can be executed, an empty one, an empty directory and a link.
fn bench() -> Bench {
    Bench::new(|path| {
        fs::create_dir_all(path.join("sub")).unwrap();
        fs::create_dir_all(path.join("void")).unwrap();
        for (seed, (name, len)) in
            [("large", 3 * CHUNK + 1), ("small", 900), ("sub/small", 700), ("empty", 0)]
                .into_iter()
                .enumerate()
        {
            fs::write(path.join(name), content(len, seed)).unwrap();
        }
        make_executable(&path.join("small"));
        symlink("../small", path.join("sub/link")).unwrap();
    })
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in listing(from) {
        match bytes {
            Entry::Directory => fs::create_dir_all(to.join(path)).unwrap(),
            Entry::Link(text) => symlink(text, to.join(path)).unwrap(),
            Entry::File { bytes, is_executable } => {
                fs::write(to.join(&path), bytes).unwrap();
                if is_executable {
                    make_executable(&to.join(path));
                }
            }
        }
    }
}

/// Puts a copy of the source where the output will be.
fn placed(bench: &Bench) -> PathBuf {
    let path = bench.output().path().to_owned();
    if bench.source().is_dir() {
        copy(&bench.source(), &path);
    } else {
        fs::copy(bench.source(), &path).unwrap();
    }
    path
}

/// A way to change a copy of the source, and what is found then.
type Change = (fn(&Path), &'static str, Difference);

const CHANGES: [Change; 10] = [
    (
        |path| fs::set_permissions(path.join("small"), fs::Permissions::from_mode(0o644)).unwrap(),
        "small",
        Difference::NotExecutable,
    ),
    (
        |path| {
            fs::remove_file(path.join("sub/link")).unwrap();
            symlink("../large", path.join("sub/link")).unwrap();
        },
        "sub/link",
        Difference::Content,
    ),
    (
        |path| {
            fs::remove_file(path.join("sub/link")).unwrap();
            fs::write(path.join("sub/link"), "../small").unwrap();
        },
        "sub/link",
        Difference::Kind,
    ),
    (|path| flip(&path.join("large"), 2 * CHUNK), "large", Difference::Content),
    (|path| flip(&path.join("sub/small"), 1), "sub/small", Difference::Content),
    (|path| fs::write(path.join("small"), b"short").unwrap(), "small", Difference::Content),
    (|path| fs::write(path.join("empty"), b"no").unwrap(), "empty", Difference::Content),
    (|path| fs::write(path.join("void/more"), b"").unwrap(), "void/more", Difference::Foreign),
    (
        |path| {
            fs::remove_file(path.join("small")).unwrap();
            fs::create_dir(path.join("small")).unwrap();
        },
        "small",
        Difference::Kind,
    ),
    (
        |path| {
            fs::rename(path.join("sub"), path.join("../away")).unwrap();
            symlink("../away", path.join("sub")).unwrap();
        },
        "sub",
        Difference::Kind,
    ),
];

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn taken(bench: &Bench, download: &Download) -> Vec<u32> {
    assert_eq!(download.reused().count(), download.have().count());
    let have = download.have();
    bench.shared.metainfo().chunk_space().chunks().filter(|&c| have.contains(c)).map(|c| c.0).collect()
}

#[test]
fn what_is_here_already_is_proved_and_served_and_not_changed() {
    for bench in [bench(), Bench::of_file(2 * CHUNK + 7), Bench::of_file(0)] {
        let path = placed(&bench);
        let before = fs::metadata(&path).unwrap();
        for output in [bench.output(), bench.output().replacing_file(), bench.output().replacing_version()] {
            let (download, resumed) = bench.open_to(output).unwrap();
            assert!(download.is_finished() && download.is_whole());
            assert_eq!(resumed, Resumed { kept: download.wanted().count(), lost: 0 });
            download.checkpoint().unwrap();
            download.finish().unwrap();
            for chunk in download.metainfo().chunk_space().chunks() {
                download.open_chunk(chunk).unwrap();
            }
        }
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before.modified().unwrap());
        assert_eq!(names_in(&bench.out()), ["leeched_source"]);
    }
}

#[test]
fn a_change_of_what_was_here_already_is_noticed_before_it_is_served() {
    let bench = bench();
    let path = placed(&bench);
    let (download, _) = bench.open().unwrap();
    fs::write(path.join("large"), b"other").unwrap();
    download.open_chunk(proto::ChunkIndex(0)).unwrap_err();
}

#[test]
fn what_differs_is_named_and_left_alone() {
    for (change, name, how) in CHANGES {
        let bench = bench();
        let path = placed(&bench);
        change(&path);
        let before = listing(&path);
        for output in [bench.output(), bench.output().replacing_file()] {
            match bench.open_to(output) {
                Err(DownloadError::OutputDiffers { at, how: found, .. }) => {
                    assert_eq!((at, found), (path.join(name), how));
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        assert_eq!(listing(&path), before);
        assert!(!bench.output().part_path().exists());
    }
}

#[test]
fn a_copy_is_checked_and_what_is_wrong_is_listed() {
    let check = |bench: &Bench, only: &[&str]| {
        let metainfo = bench.shared.metainfo();
        let only: Vec<_> = only.iter().map(|pattern| pattern.parse().unwrap()).collect();
        let wanted = Wanted::of(metainfo, &only).unwrap();
        let output = bench.output();
        check(metainfo, bench.shared.hashes(), output.path(), &wanted, &|_| ControlFlow::Continue(()))
            .unwrap()
    };
    for (change, name, how) in CHANGES {
        let bench = bench();
        assert_eq!(check(&bench, &[]).first, [(bench.output().path().to_owned(), Difference::Missing)]);
        let path = placed(&bench);
        assert_eq!(check(&bench, &[]).count, 0);
        change(&path);
        let found = check(&bench, &[]);
        assert!(found.first.contains(&(path.join(name), how)), "{found:?}");
    }
    let bench = bench();
    let path = placed(&bench);
    fs::remove_file(path.join("small")).unwrap();
    fs::remove_dir(path.join("void")).unwrap();
    let missing = |name: &str| (path.join(name), Difference::Missing);
    assert_eq!(check(&bench, &[]).first, [missing("small"), missing("void")]);
    assert_eq!(check(&bench, &["large", "sub"]).count, 0);
    for number in 0..100 {
        fs::write(path.join(format!("more{number}")), b"").unwrap();
    }
    let found = check(&bench, &["large"]);
    assert_eq!((found.count, found.first.len()), (100, 20));
}

/// What is there is right, so nobody has to allow that more is added.
#[test]
fn a_part_of_the_share_grows_in_one_step() {
    let bench = bench();
    let finish = |only: &[&str]| {
        let (download, _) = bench.open_only(bench.output(), only).unwrap();
        let taken = download.reused().count();
        bench.store_missing(&download);
        download.finish().unwrap();
        taken
    };
    assert_eq!(finish(&["sub"]), 0);
    assert_eq!(finish(&["large"]), 1);
    let path = bench.output().path().to_owned();
    assert_eq!(names_in(&path), ["large", "sub"]);
    assert!(bench.open_only(bench.output(), &["sub"]).unwrap().0.is_finished());
    let (download, _) = bench.open().unwrap();
    assert!(!download.is_finished());
    assert_eq!(names_in(&path), ["large", "sub"], "until the end");
    assert_eq!(taken(&bench, &download).len(), 5);
    bench.complete(download);
    assert_eq!(names_in(&bench.out()), ["leeched_source"]);
}

#[test]
fn what_appears_while_a_part_grows_is_not_replaced() {
    let changes: [fn(&Path); 2] =
        [|path| fs::write(path.join("notes"), b"mine").unwrap(), |path| flip(&path.join("sub/small"), 9)];
    for change in changes {
        let bench = bench();
        let path = bench.output().path().to_owned();
        let (download, _) = bench.open_only(bench.output(), &["sub"]).unwrap();
        bench.store_missing(&download);
        download.finish().unwrap();
        drop(download);
        let (download, _) = bench.open().unwrap();
        bench.store_missing(&download);
        change(&path);
        let before = listing(&path);
        assert!(matches!(download.finish(), Err(DownloadError::OutputDiffers { .. })));
        assert_eq!(listing(&path), before);
    }
}

#[test]
fn a_version_is_replaced_whole_and_gives_what_it_has() {
    let bench = bench();
    let path = placed(&bench);
    flip(&path.join("large"), CHUNK + 5);
    fs::rename(path.join("sub/small"), path.join("renamed")).unwrap();
    fs::write(path.join("gone"), b"gone").unwrap();
    let before = listing(&path);
    let (download, _) = bench.open_to(bench.output().replacing_version()).unwrap();
    // All but one chunk of the large file; `small` at its place, `sub/small` under another name.
    assert_eq!(taken(&bench, &download), [0, 2, 3, 4, 5]);
    bench.store_missing(&download);
    assert_eq!(listing(&path), before, "until the end");
    bench.complete(download);
    assert_eq!(names_in(&bench.out()), ["leeched_source"]);
}

#[test]
fn a_file_that_is_replaced_gives_what_it_has() {
    let bench = Bench::of_file(4 * CHUNK);
    for output in [bench.output().replacing_file(), bench.output().replacing_version()] {
        let path = placed(&bench);
        flip(&path, 2 * CHUNK + 1);
        let (download, _) = bench.open_to(output).unwrap();
        assert_eq!(taken(&bench, &download), [0, 1, 3]);
        bench.complete(download);
    }
}

#[test]
fn a_directory_of_other_things_is_never_replaced() {
    for bench in [bench(), Bench::of_file(10)] {
        let path = bench.output().path().to_owned();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("mine"), b"mine").unwrap();
        let opened = bench.open_to(bench.output().replacing_version());
        assert!(matches!(opened, Err(DownloadError::Unrelated(at)) if at == path));
        assert_eq!(names_in(&path), ["mine"]);
    }
}

/// A newer version appeared before the update to this one was done.
#[test]
fn an_unfinished_update_to_another_version_is_not_in_the_way() {
    let (bench, other) = (bench(), Bench::of_directory(3));
    let path = placed(&bench);
    flip(&path.join("small"), 3);
    let output = || Output::at(path.clone());
    let metainfo = std::sync::Arc::new(other.shared.metainfo().clone());
    let elsewhere = Output::at(bench.out().join("elsewhere"));
    let (download, _) = Download::open(
        metainfo.clone(),
        other.shared.hashes().clone(),
        elsewhere.clone(),
        Wanted::all(&metainfo),
        &[],
        None,
        &|_| ControlFlow::Continue(()),
    )
    .unwrap();
    other.store(&download, 0..1);
    download.checkpoint().unwrap();
    let moves = || {
        fs::rename(elsewhere.part_path(), output().part_path()).unwrap();
        fs::rename(elsewhere.resume_path(), output().resume_path()).unwrap();
    };
    moves();
    // While another process is at work there, it is left alone.
    assert!(matches!(bench.open_to(output().replacing_version()), Err(DownloadError::Locked(_))));
    drop(download);
    let (download, _) = bench.open_to(output().replacing_version()).unwrap();
    bench.complete(download);
    assert_eq!(names_in(&bench.out()), ["leeched_source"]);
}

#[test]
fn chunks_are_taken_from_where_the_user_says() {
    let bench = bench();
    let elsewhere = bench.out().join("elsewhere");
    let take = |from: &[&str]| {
        let from: Vec<_> = from.iter().map(|path| elsewhere.join(path)).collect();
        let (download, _) = bench.open_from(bench.output(), &[], &from).unwrap();
        let taken = taken(&bench, &download);
        drop(download);
        fs::remove_dir_all(bench.output().part_path()).unwrap();
        fs::remove_file(bench.output().resume_path()).unwrap();
        taken
    };
    copy(&bench.source(), &elsewhere.join("same"));
    assert_eq!(take(&["same"]), [0, 1, 2, 3, 4, 5]);
    assert_eq!(take(&["missing", "same/sub"]), [5], "found by its content");
    // Named alone, under another name, without its end.
    let large = fs::read(bench.source().join("large")).unwrap();
    fs::write(elsewhere.join("other"), &large).unwrap();
    assert_eq!(take(&["other"]), [0, 1, 2, 3]);
    fs::create_dir(elsewhere.join("cut")).unwrap();
    fs::write(elsewhere.join("cut/large"), &large[..CHUNK + 100]).unwrap();
    assert_eq!(take(&["cut"]), [0]);
    // One source has what the other has not.
    flip(&elsewhere.join("other"), CHUNK);
    flip(&elsewhere.join("same/large"), 2 * CHUNK);
    assert_eq!(take(&["same", "other"]), [0, 1, 2, 3, 4, 5]);
    // Links lead to bytes of others.
    fs::create_dir(elsewhere.join("links")).unwrap();
    symlink("../other", elsewhere.join("links/large")).unwrap();
    assert_eq!(take(&["links"]), [] as [u32; 0]);
}

/// A file that has other bytes behind a right beginning gives no wrong byte.
#[test]
fn what_is_taken_is_proved() {
    let bench = bench();
    let from = bench.out().join("elsewhere");
    copy(&bench.source(), &from);
    for at in [5, CHUNK + 5, 2 * CHUNK + 5, 3 * CHUNK] {
        flip(&from.join("large"), at);
    }
    flip(&from.join("small"), 1);
    let (download, _) = bench.open_from(bench.output(), &[], std::slice::from_ref(&from)).unwrap();
    assert_eq!(taken(&bench, &download), [5]);
    fs::remove_dir_all(&from).unwrap();
    bench.complete(download);
}
