//! Downloads of some files of a share.

use std::{fs, path::Path};

use proto::ChunkIndex;
use store::{Content, Download, DownloadError, Resumed};

use crate::bench::{Bench, CHUNK, content, listing, names_in};

/// In `a` and `b` a large file and a small one each, beside them one that is empty and two empty directories.
fn bench() -> Bench {
    Bench::new(|path| {
        for dir in ["a", "b", "hollow/inner", "void"] {
            fs::create_dir_all(path.join(dir)).unwrap();
        }
        for (seed, (name, len)) in [
            ("a/large", 3 * CHUNK + 1),
            ("a/small", 900),
            ("b/large", 2 * CHUNK),
            ("b/small", 700),
            ("none", 0),
        ]
        .into_iter()
        .enumerate()
        {
            fs::write(path.join(name), content(len, seed)).unwrap();
        }
    })
}

fn open(bench: &Bench, only: &[&str]) -> (Download, Resumed) {
    bench.open_only(bench.output(), only).unwrap()
}

/// Files and directories below `path`, without their content.
fn paths(path: &Path) -> Vec<String> {
    let listing = listing(path);
    listing.keys().map(|path| path.to_str().unwrap().to_owned()).filter(|path| !path.is_empty()).collect()
}

/// Checks that the output holds these entries, each with the bytes of the source.
#[track_caller]
fn assert_output(bench: &Bench, expected: &[&str]) {
    let output = bench.output();
    assert_eq!(paths(output.path()), expected);
    let (source, saved) = (listing(&bench.source()), listing(output.path()));
    assert!(saved.iter().all(|(path, bytes)| source[path] == *bytes), "wrong bytes");
    assert_eq!(names_in(&bench.out()), ["leeched_source"]);
}

#[test]
fn what_is_not_wanted_is_neither_created_nor_reserved() {
    for (only, reserved, saved) in [
        (&["b"][..], &["b", "b/large"][..], &["b", "b/large", "b/small"][..]),
        (&["*/small"], &["a", "b"], &["a", "a/small", "b", "b/small"]),
        (&["none", "void"], &["none", "void"], &["none", "void"]),
        (&["hollow/"], &["hollow", "hollow/inner"], &["hollow", "hollow/inner"]),
    ] {
        let bench = bench();
        let (download, resumed) = open(&bench, only);
        assert_eq!(
            (resumed, paths(&bench.output().part_path())),
            (Resumed::default(), reserved.iter().map(ToString::to_string).collect())
        );
        assert!(!download.is_whole());
        bench.store_missing(&download);
        download.finish().unwrap();
        assert_output(&bench, saved);
        // It serves what it has, and nothing else.
        for chunk in download.metainfo().chunk_space().chunks() {
            assert_eq!(download.open_chunk(chunk).is_ok(), download.wanted().contains(chunk), "{chunk:?}");
        }
        assert!(!download.is_whole(), "a part is not the whole");
    }
}

#[test]
fn a_pattern_that_matches_nothing_is_refused_before_anything_is_created() {
    let bench = bench();
    let refused = bench.open_only(bench.output(), &["a", "c/*"]);
    assert!(matches!(refused, Err(DownloadError::NothingMatches(pattern)) if pattern == "c/*"));
    assert!(names_in(&bench.out()).is_empty());
}

#[test]
fn an_interrupted_download_of_a_part_goes_on() {
    let bench = bench();
    let (download, _) = open(&bench, &["b"]);
    let first = download.wanted().iter().next().unwrap();
    bench.store(&download, [first.0]);
    download.checkpoint().unwrap();
    drop(download);
    let (download, resumed) = open(&bench, &["b"]);
    assert_eq!(resumed, Resumed { kept: 1, lost: 0 });
    bench.store_missing(&download);
    download.finish().unwrap();
    assert_output(&bench, &["b", "b/large", "b/small"]);
}

/// Whole files that an earlier run was asked for stay. Those of which a part is here go, because nobody could distinguish them from
/// whole ones.
#[test]
fn a_run_that_wants_less_keeps_only_whole_files() {
    for is_claimed in [true, false] {
        let bench = bench();
        let (download, _) = open(&bench, &[]);
        let space = download.metainfo().chunk_space().clone();
        let (of_a_large, of_a_small) = (space.chunks_of(0), space.chunks_of(1));
        bench.store(&download, of_a_large.take(2).chain(of_a_small));
        download.checkpoint().unwrap();
        drop(download);
        if !is_claimed {
            fs::remove_file(bench.output().resume_path()).unwrap();
        }
        let (download, resumed) = open(&bench, &["b/small"]);
        assert_eq!(resumed, Resumed { kept: 1, lost: 0 });
        assert_eq!(paths(&bench.output().part_path()), ["a", "a/small", "b"]);
        assert_eq!(download.wanted().count(), 2);
        drop(download);
        // What was taken back stays so.
        let (download, resumed) = open(&bench, &["b/small"]);
        assert_eq!(resumed, Resumed { kept: 1, lost: 0 });
        bench.store_missing(&download);
        download.finish().unwrap();
        assert_output(&bench, &["a", "a/small", "b", "b/small"]);
    }
}

#[test]
fn a_run_that_wants_more_keeps_all() {
    let bench = bench();
    let (download, _) = open(&bench, &["b"]);
    bench.store_missing(&download);
    download.checkpoint().unwrap();
    drop(download);
    let (download, resumed) = open(&bench, &[]);
    assert_eq!(resumed, Resumed { kept: 3, lost: 0 });
    assert!(!download.have().contains(ChunkIndex(0)));
    bench.complete(download);
}
