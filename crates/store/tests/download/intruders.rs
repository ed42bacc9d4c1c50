//! Files that others put where a download writes, and changes after it is finished.

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use proto::{ChunkIndex, ShareName};
use store::{Content, Download, DownloadError, OpenChunkError, Output, Resumed};

use crate::bench::{Bench, CHUNK, listing, names_in};

/// Puts something at a path.
type Plant = fn(&Path);

/// A file outside of the download that must not change.
fn victim(bench: &Bench) -> PathBuf {
    let path = bench.out().join("victim");
    fs::write(&path, b"precious").unwrap();
    path
}

/// Of these three files the first and the last are small.
fn mixed() -> Bench {
    Bench::new(|path| {
        fs::create_dir_all(path.join("sub")).unwrap();
        fs::write(path.join("a"), b"12345").unwrap();
        fs::write(path.join("sub/large"), vec![3; CHUNK]).unwrap();
        fs::write(path.join("sub/small"), b"123").unwrap();
    })
}

#[test]
fn a_link_that_is_planted_meanwhile_is_not_written_through() {
    let plants: [fn(&Path, &Path); 2] = [
        |part, victim| symlink(victim, part.join("sub/small")).unwrap(),
        |part, victim| {
            fs::remove_file(part.join("sub/large")).unwrap();
            symlink(victim, part.join("sub/large")).unwrap();
        },
    ];
    for (plant, chunk) in plants.into_iter().zip([2, 1]) {
        let bench = mixed();
        let victim = victim(&bench);
        let (download, _) = bench.open().unwrap();
        plant(&bench.output().part_path(), &victim);
        let chunk = ChunkIndex(chunk);
        let refused = download.store(chunk, &bench.chunk(chunk)).unwrap_err().to_string();
        assert!(refused.contains("sub/"), "{refused}");
        assert!(!download.have().contains(chunk));
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }
}

#[test]
fn a_linked_directory_is_not_written_to() {
    let bench = mixed();
    let elsewhere = bench.out().join("elsewhere");
    let (download, _) = bench.open().unwrap();
    let sub = bench.output().part_path().join("sub");
    fs::rename(&sub, &elsewhere).unwrap();
    symlink(&elsewhere, &sub).unwrap();
    let small = ChunkIndex(2);
    download.store(small, &bench.chunk(small)).unwrap_err();
    assert_eq!(names_in(&elsewhere), ["large"]);
    drop(download);
    assert!(matches!(bench.open(), Err(DownloadError::PartInTheWay { path, .. }) if path == sub));
}

#[test]
fn a_link_in_what_an_earlier_run_left_is_refused() {
    let bench = mixed();
    let victim = victim(&bench);
    let (download, _) = bench.open().unwrap();
    bench.store(&download, 0..1);
    download.checkpoint().unwrap();
    drop(download);
    let planted = bench.output().part_path().join("sub/small");
    symlink(&victim, &planted).unwrap();
    for _ in 0..2 {
        assert!(matches!(bench.open(), Err(DownloadError::PartInTheWay { path, .. }) if path == planted));
        // With and without claims.
        let _ = fs::remove_file(bench.output().resume_path());
    }
    fs::remove_file(&planted).unwrap();
    assert_eq!(bench.open().unwrap().1, Resumed { kept: 1, lost: 0 });
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
}

#[test]
fn what_does_not_belong_to_the_share_never_ends_up_in_it() {
    let plants: [(&str, Plant); 4] = [
        ("extra", |path| fs::write(path, b"mine").unwrap()),
        ("sub/extra", |path| fs::write(path, b"mine").unwrap()),
        ("sub/dir", |path| fs::create_dir(path).unwrap()),
        ("fifo", |path| mkfifo(path, Mode::S_IRWXU).unwrap()),
    ];
    for (name, plant) in plants {
        let bench = mixed();
        let (download, _) = bench.open().unwrap();
        bench.store_missing(&download);
        let planted = bench.output().part_path().join(name);
        plant(&planted);
        let in_the_way = |error| matches!(error, DownloadError::PartInTheWay { path, .. } if path == planted);
        assert!(in_the_way(download.finish().unwrap_err()), "{name}");
        // The received chunks are kept, and the next run fails before it begins.
        download.checkpoint().unwrap();
        drop(download);
        assert!(in_the_way(bench.open().unwrap_err()), "{name}");
        fs::remove_file(&planted).or_else(|_| fs::remove_dir(&planted)).unwrap();
        let (download, resumed) = bench.open().unwrap();
        assert_eq!(resumed, Resumed { kept: 3, lost: 0 }, "{name}");
        assert_eq!(listing(&bench.finish(download)), listing(&bench.source()));
    }
}

/// A directory that happens to have the part's name is not a download.
#[test]
fn a_directory_of_another_program_is_left_alone() {
    let bench = mixed();
    let part = bench.output().part_path();
    fs::create_dir(&part).unwrap();
    fs::write(part.join("notes"), b"mine").unwrap();
    assert!(matches!(bench.open(), Err(DownloadError::PartInTheWay { .. })));
    assert_eq!(names_in(&part), ["notes"]);
    assert_eq!(names_in(&bench.out()), ["leeched_source.part"]);
}

#[test]
fn only_a_regular_file_is_ever_replaced() {
    let plants: [(&str, Plant); 4] = [
        ("fifo", |path| mkfifo(path, Mode::S_IRWXU).unwrap()),
        ("socket", |path| _ = std::os::unix::net::UnixListener::bind(path).unwrap()),
        ("link to a file", |path| symlink("victim", path).unwrap()),
        ("link to nothing", |path| symlink("nowhere", path).unwrap()),
    ];
    for (what, plant) in plants {
        for bench in [Bench::of_file(10), Bench::of_directory(1)] {
            let victim = victim(&bench);
            let path = bench.output().path().to_owned();
            plant(&path);
            let before = fs::symlink_metadata(&path).unwrap();
            let refused = |result| matches!(result, Err(DownloadError::NotReplaceable(at)) if at == path);
            assert!(refused(bench.open().map(|_| ())), "{what}");
            assert!(refused(bench.open_to(bench.output().replacing_file()).map(|_| ())), "{what}");
            assert_eq!(names_in(&bench.out()), ["leeched_source", "victim"], "{what}");
            // Also if it appears while the download runs.
            fs::remove_file(&path).unwrap();
            let (download, _) = bench.open_to(bench.output().replacing_file()).unwrap();
            bench.store_missing(&download);
            plant(&path);
            assert!(refused(download.finish()), "{what}");
            let after = fs::symlink_metadata(&path).unwrap();
            assert_eq!(before.file_type(), after.file_type(), "{what}");
            assert_eq!(fs::read(&victim).unwrap(), b"precious", "{what}");
        }
    }
}

#[test]
fn a_directory_replaces_a_file_where_that_is_wanted() {
    let bench = Bench::of_directory(2);
    fs::write(bench.output().path(), b"old").unwrap();
    let (download, _) = bench.open_to(bench.output().replacing_file()).unwrap();
    bench.store_missing(&download);
    assert_eq!(fs::read(bench.output().path()).unwrap(), b"old");
    assert_eq!(listing(&bench.finish(download)), listing(&bench.source()));
}

#[test]
fn names_as_long_as_file_systems_have_them_arrive() {
    for len in [230, 236, 240, 247, 248, 255] {
        for bench in [Bench::of_file(10), Bench::of_directory(1)] {
            let name = ShareName::new(&"n".repeat(len)).unwrap();
            let (download, _) = bench.open_to(Output::in_dir(&bench.out(), &name)).unwrap();
            bench.store_missing(&download);
            download.checkpoint().unwrap();
            drop(download);
            let (download, resumed) = bench.open_to(Output::in_dir(&bench.out(), &name)).unwrap();
            assert_eq!(resumed.kept, 1, "{len}");
            download.finish().unwrap();
            assert_eq!(listing(download.output().path()), listing(&bench.source()));
            assert_eq!(names_in(&bench.out()).len(), 1, "{len}");
        }
    }
}

fn finished(bench: &Bench) -> (Download, PathBuf) {
    let (download, _) = bench.open().unwrap();
    bench.store_missing(&download);
    download.finish().unwrap();
    (download, bench.output().path().to_owned())
}

fn bytes_of(download: &Download, chunk: u32) -> Result<Vec<u8>, OpenChunkError> {
    // Like a sender.
    let source = match download.try_open_chunk(ChunkIndex(chunk)) {
        Some(source) => source?,
        None => download.open_chunk(ChunkIndex(chunk))?,
    };
    let mut bytes = vec![0; source.len as usize];
    source.file.read_exact_at(&mut bytes, source.offset).unwrap();
    Ok(bytes)
}

#[test]
fn a_finished_file_that_changes_is_no_longer_served() {
    let bench = Bench::of_file(2 * CHUNK);
    let (download, path) = finished(&bench);
    assert_eq!(bytes_of(&download, 1).unwrap(), bench.chunk(ChunkIndex(1)));
    // Another name or other permissions do not change its content.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    fs::rename(&path, path.with_extension("moved")).unwrap();
    assert_eq!(bytes_of(&download, 0).unwrap(), bench.chunk(ChunkIndex(0)));
    fs::set_permissions(path.with_extension("moved"), fs::Permissions::from_mode(0o600)).unwrap();
    let file = fs::File::options().write(true).open(path.with_extension("moved")).unwrap();
    file.write_all_at(b"other", 7).unwrap();
    for chunk in 0..2 {
        assert!(
            matches!(bytes_of(&download, chunk), Err(OpenChunkError::Changed { path: at, .. }) if at == path)
        );
    }
}

/// This includes files that have to be opened again, because a limited number stays open.
#[test]
fn a_finished_directory_is_served_but_for_the_files_that_changed() {
    let bench = Bench::new(|path| {
        fs::create_dir(path).unwrap();
        for index in 0..100 {
            fs::write(path.join(format!("{index:02}")), format!("file {index:02}")).unwrap();
        }
    });
    let (download, path) = finished(&bench);
    let at = |index: u32| path.join(format!("{index:02}"));
    let old = fs::metadata(at(50)).unwrap().modified().unwrap();
    for (written, replaced, gone) in [(0, 1, 2), (97, 98, 99)] {
        let file = fs::File::options().write(true).open(at(written)).unwrap();
        file.write_all_at(b"F", 0).unwrap();
        assert!(
            matches!(bytes_of(&download, written), Err(OpenChunkError::Changed { path, .. }) if path == at(written))
        );
        // The same time and length as before.
        fs::write(path.join("new"), b"FILE 00").unwrap();
        let file = fs::File::options().write(true).open(path.join("new")).unwrap();
        file.set_times(fs::FileTimes::new().set_modified(old)).unwrap();
        fs::rename(path.join("new"), at(replaced)).unwrap();
        fs::remove_file(at(gone)).unwrap();
    }
    assert!(matches!(bytes_of(&download, 1), Err(OpenChunkError::Changed { path, .. }) if path == at(1)));
    assert!(matches!(bytes_of(&download, 2), Err(OpenChunkError::Path(_))));
    for still_open in [98, 99] {
        assert_eq!(bytes_of(&download, still_open).unwrap(), bench.chunk(ChunkIndex(still_open)));
    }
    // A file that was served before may change, too.
    for _ in 0..2 {
        assert_eq!(bytes_of(&download, 50).unwrap(), bench.chunk(ChunkIndex(50)));
    }
    fs::File::options().write(true).open(at(50)).unwrap().write_all_at(b"F", 0).unwrap();
    assert!(matches!(bytes_of(&download, 50), Err(OpenChunkError::Changed { path, .. }) if path == at(50)));
}
