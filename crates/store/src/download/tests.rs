//! Downloads when calls to the file system fail.

use std::{
    fs, iter,
    ops::ControlFlow,
    os::unix::fs::{FileExt, symlink},
};

use rustix::io::Errno;

use super::*;
use crate::{
    Resumed,
    disk::{Call, faults},
    identity::{ChangeTime, FileState},
    part::SYNC_ALL_FROM,
};

#[path = "../../tests/download/bench.rs"]
mod bench;
mod power_cut;

use bench::{Bench, CHUNK, content, listing, make_executable, names_in};

/// A share of one file, one of a few, and one of so many that the whole file system is synced.
fn shapes() -> [(Bench, Call); 3] {
    [
        (Bench::of_file(4 * CHUNK + 9), Call::SyncData),
        (Bench::of_directory(5), Call::SyncData),
        (Bench::of_directory(SYNC_ALL_FROM + 1), Call::SyncFileSystem),
    ]
}

/// A share with files that can be executed and with links: of this many entries.
fn with_attributes(count: usize) -> Bench {
    Bench::new(|path| {
        fs::create_dir_all(path.join("sub")).unwrap();
        symlink("../file0", path.join("sub/link")).unwrap();
        symlink("nowhere", path.join("dangling")).unwrap();
        for index in 0..count - 2 {
            let path = path.join(format!("file{index}"));
            fs::write(&path, content(900 * (index + 1), index)).unwrap();
            make_executable(&path);
        }
    })
}

/// A file with holes: chunks of data and chunks of zeros, the last of which is short.
fn with_holes() -> Bench {
    Bench::new(|path| {
        let file = File::create(path).unwrap();
        file.set_len(3 * CHUNK as u64 + 9).unwrap();
        for chunk in [0, 1] {
            file.write_all_at(&content(CHUNK, chunk), (chunk * CHUNK) as u64).unwrap();
        }
    })
}

fn count(calls: &[Call], kind: Call) -> usize {
    calls.iter().filter(|&&call| call == kind).count()
}

fn assert_fails(bench: &Bench, errno: Errno, result: Result<(), DownloadError>) {
    match result {
        Err(DownloadError::NotDurable(error)) => {
            assert_eq!(error.source.raw_os_error(), Some(errno.raw_os_error()));
            assert!(error.path.starts_with(bench.output().part_path()), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

/// A fault of the lanes shows with the first chunk, and no peer is accused for it later.
#[test]
fn a_machine_whose_two_hashers_disagree_stores_nothing_and_accuses_no_peer() {
    let bench = Bench::of_file(3 * CHUNK);
    let (download, _) = bench.open().unwrap();
    let store = |chunk| download.store(ChunkIndex(chunk), &bench.chunk(ChunkIndex(chunk)));
    merkle::faults::set(true);
    assert!(matches!(store(0), Err(StoreChunkError::HashersDisagree(ChunkIndex(0)))));
    merkle::faults::set(false);
    assert!(store(0).is_ok());
    merkle::faults::set(true);
    // This one is not the first, but it seems wrong.
    assert!(matches!(store(1), Err(StoreChunkError::HashersDisagree(ChunkIndex(1)))));
    merkle::faults::set(false);
    assert!(matches!(
        download.store(ChunkIndex(1), &bench.chunk(ChunkIndex(0))),
        Err(StoreChunkError::Wrong(_))
    ));
    assert_eq!(download.have().count(), 1);
}

/// Lanes may also err in the same way at the seeder, so that wrong hashes seem right.
#[test]
fn the_first_chunk_and_one_in_thousands_are_hashed_twice() {
    merkle::faults::set(true);
    let bench = Bench::of_file(2 * CHUNK);
    let (download, _) = bench.open().unwrap();
    let bytes = bench.chunk(ChunkIndex(0));
    let store_as = |number: u64| {
        download.hashed.store(number, Ordering::Relaxed);
        download.store(ChunkIndex(0), &bytes)
    };
    for number in [0, CROSS_CHECK_INTERVAL, 5 * CROSS_CHECK_INTERVAL] {
        assert!(matches!(store_as(number), Err(StoreChunkError::HashersDisagree(_))), "{number}");
    }
    for number in [1, CROSS_CHECK_INTERVAL - 1, CROSS_CHECK_INTERVAL + 1] {
        assert!(store_as(number).is_ok(), "{number}");
    }
    merkle::faults::set(false);
}

#[test]
fn after_a_failed_sync_nothing_is_claimed_that_was_written_since_the_last_good_one() {
    for (bench, sync) in shapes() {
        for errno in [Errno::IO, Errno::NOSPC, Errno::DQUOT] {
            let (download, _) = bench.open().unwrap();
            bench.store(&download, 0..2);
            download.checkpoint().unwrap();
            bench.store(&download, 2..4);
            faults::fail(sync, errno, 1);
            assert_fails(&bench, errno, download.checkpoint());
            // The system would report success now.
            faults::end();
            assert_fails(&bench, errno, download.checkpoint());
            bench.store_missing(&download);
            assert_fails(&bench, errno, download.checkpoint());
            assert_fails(&bench, errno, download.finish());
            assert_eq!(faults::end().iter().filter(|&&call| call == sync).count(), 0);
            assert!(!bench.output().path().exists());
            drop(download);
            let download = bench.resume(2, 0);
            drop(download);
            let _ = fs::remove_file(bench.output().resume_path());
            let part = bench.output().part_path();
            fs::remove_file(&part).or_else(|_| fs::remove_dir_all(&part)).unwrap();
        }
    }
}

#[test]
fn a_sync_that_fails_at_the_end_is_not_made_good_by_the_last_checkpoint() {
    for (bench, sync) in shapes() {
        let (download, _) = bench.open().unwrap();
        bench.store_missing(&download);
        faults::fail(sync, Errno::IO, 1);
        assert_fails(&bench, Errno::IO, download.finish());
        assert_fails(&bench, Errno::IO, download.checkpoint());
        drop(download);
        let download = bench.resume(0, 0);
        bench.complete(download);
    }
}

/// The next run may read data from memory that is on no disk.
#[test]
fn unclaimed_chunks_are_written_again_before_they_are_claimed() {
    for (bench, sync) in shapes() {
        let (download, _) = bench.open().unwrap();
        bench.store(&download, 0..3);
        faults::fail(sync, Errno::IO, 1);
        assert_fails(&bench, Errno::IO, download.checkpoint());
        drop(download);
        fs::remove_file(bench.output().resume_path()).unwrap();
        faults::end();
        let download = bench.resume(3, 0);
        let calls = faults::end();
        // The last one is the new resume file.
        assert_eq!(count(&calls, Call::Write), 3 + 1);
        let claimed = calls.iter().rposition(|&call| call == Call::Write).unwrap();
        assert!(count(&calls[..claimed], sync) >= 1, "{calls:?}");
        drop(download);
        fs::remove_file(bench.output().resume_path()).unwrap();
        faults::fail(sync, Errno::IO, 1);
        assert_fails(&bench, Errno::IO, bench.open().map(|_| ()));
        assert!(!bench.output().resume_path().exists());
        assert_eq!(bench.open().unwrap().1, Resumed { kept: 3, lost: 0 });
        assert_eq!(resume_claims(&bench), 3);
    }
}

#[test]
fn a_claim_that_cannot_be_written_is_written_by_the_next_checkpoint() {
    for errno in [Errno::NOSPC, Errno::IO] {
        for call in [Call::Write, Call::SyncData] {
            let bench = Bench::of_directory(SYNC_ALL_FROM + 1);
            let (download, _) = bench.open().unwrap();
            bench.store(&download, 0..2);
            download.checkpoint().unwrap();
            bench.store(&download, 2..4);
            faults::fail(call, errno, 2);
            for _ in 0..2 {
                assert!(matches!(download.checkpoint(), Err(DownloadError::NotClaimed(_))));
            }
            // The old claim or the new one: both are true.
            assert!([2, 4].contains(&resume_claims(&bench)));
            download.checkpoint().unwrap();
            assert_eq!(resume_claims(&bench), 4);
            bench.store_missing(&download);
            bench.finish(download);
        }
    }
}

fn resume_claims(bench: &Bench) -> u32 {
    use crate::resume::{Resume, load};
    let metainfo = bench.shared.metainfo();
    let chunk_count = metainfo.chunk_space().chunk_count();
    match load(&bench.output().resume_path(), metainfo.infohash(), chunk_count).unwrap() {
        Resume::Claims(_, claims) => claims.count(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_chunk_that_cannot_be_written_is_not_here_and_the_others_are() {
    for (bench, _) in shapes() {
        for errno in [Errno::NOSPC, Errno::IO] {
            let (download, resumed) = bench.open().unwrap();
            let before = resumed.kept;
            faults::fail(Call::Write, errno, 1);
            let chunk = ChunkIndex(before + 1);
            assert!(matches!(download.store(chunk, &bench.chunk(chunk)), Err(StoreChunkError::Path(_))));
            assert!(!download.have().contains(chunk));
            bench.store(&download, iter::once(before));
            download.checkpoint().unwrap();
            drop(download);
            assert_eq!(bench.open().unwrap().1, Resumed { kept: before + 1, lost: 0 });
        }
        let (download, _) = bench.open().unwrap();
        bench.complete(download);
    }
}

#[test]
fn a_chunk_that_cannot_be_read_again_is_fetched_again() {
    for has_resume in [true, false] {
        let bench = Bench::of_file(5 * CHUNK);
        let (download, _) = bench.open().unwrap();
        bench.store(&download, 0..4);
        download.checkpoint().unwrap();
        drop(download);
        if !has_resume {
            fs::remove_file(bench.output().resume_path()).unwrap();
        }
        // The resume file itself is read first.
        faults::end();
        if has_resume {
            faults::fail_after(Call::Read, 1, Errno::IO);
        } else {
            faults::fail(Call::Read, Errno::IO, 1);
        }
        let download = bench.resume(3, u32::from(has_resume));
        assert!(!download.have().contains(ChunkIndex(0)));
        bench.complete(download);
    }
}

#[test]
fn a_resume_file_that_cannot_be_read_costs_no_chunk() {
    let bench = Bench::of_file(5 * CHUNK);
    let (download, _) = bench.open().unwrap();
    bench.store(&download, 0..4);
    drop(download);
    for (call, errno) in [(Call::Read, Errno::IO), (Call::Read, Errno::IO)] {
        faults::fail(call, errno, 1);
        assert_eq!(bench.open().unwrap().1, Resumed { kept: 4, lost: 0 });
    }
}

#[test]
fn a_share_that_cannot_get_its_name_keeps_all() {
    for (bench, sync) in shapes() {
        let (download, _) = bench.open().unwrap();
        bench.store_missing(&download);
        let all = download.have().count();
        faults::end();
        faults::fail(Call::Rename, Errno::IO, 1);
        assert!(matches!(download.finish(), Err(DownloadError::Path(error)) if error.action == "rename to"));
        let syncs = count(&faults::end(), sync);
        download.checkpoint().unwrap();
        // Its data was already durable: only the claim is written.
        assert!(count(&faults::end(), sync) <= 1 && syncs >= 1);
        drop(download);
        let download = bench.resume(all, 0);
        assert_eq!(listing(&bench.finish(download)), listing(&bench.source()));
    }
}

#[test]
fn a_resume_file_that_cannot_be_removed_does_not_undo_the_end() {
    let bench = Bench::of_file(10);
    let (download, _) = bench.open().unwrap();
    bench.store_missing(&download);
    faults::fail(Call::Remove, Errno::IO, 1);
    download.finish().unwrap();
    assert_eq!(names_in(&bench.out()), ["leeched_source", "leeched_source.resume"]);
    // It is not in the way of the next run.
    fs::remove_file(bench.output().path()).unwrap();
    assert_eq!(bench.open().unwrap().1, Resumed::default());
}

#[test]
fn a_file_system_without_locks_or_synced_directories_will_do() {
    for (bench, _) in shapes() {
        for errno in [Errno::NOLCK, Errno::NOTSUP, Errno::NOSYS] {
            faults::fail(Call::Lock, errno, usize::MAX);
            faults::fail(Call::SyncDirectory, Errno::INVAL, usize::MAX);
            faults::fail(Call::SyncFileSystem, Errno::INVAL, usize::MAX);
            let (download, _) = bench.open().unwrap();
            bench.store(&download, 0..2);
            download.checkpoint().unwrap();
            drop(download);
            let (download, resumed) = bench.open().unwrap();
            assert_eq!(resumed.kept, 2);
            bench.store_missing(&download);
            let path = bench.finish(download);
            assert_eq!(listing(&path), listing(&bench.source()));
            fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)).unwrap();
            faults::end();
        }
        // But a failing disk is different from a file system without locks.
        faults::fail(Call::Lock, Errno::IO, 1);
        assert!(matches!(bench.open(), Err(DownloadError::Path(error)) if error.action == "lock"));
    }
}

/// Puts a version where the output will be that differs in `file0`.
fn placed(bench: &Bench) {
    let path = bench.output().path().to_owned();
    fs::create_dir_all(path.join("sub/deeper")).unwrap();
    for entry in bench.shared.metainfo().files() {
        let from = join(&bench.source(), &entry.path);
        fs::copy(&from, join(&path, &entry.path)).unwrap();
    }
    fs::write(path.join("file0"), content(CHUNK - 1, 77)).unwrap();
}

/// The first file that is linked loses the room that was reserved for it, whether it can be linked or not.
#[test]
fn an_update_copies_files_that_cannot_be_linked() {
    for skip in [None, Some(1)] {
        let bench = Bench::of_directory(4);
        placed(&bench);
        match skip {
            None => faults::fail(Call::HardLink, Errno::PERM, usize::MAX),
            Some(skip) => faults::fail_after(Call::HardLink, skip, Errno::MLINK),
        }
        let (download, _) = bench.open_to(bench.output().replacing_version()).unwrap();
        faults::end();
        assert_eq!(download.have().count(), 3, "{skip:?}");
        bench.complete(download);
    }
}

/// What this run has hashed already is not read again: not to prove it, and not to look for files that moved.
#[test]
fn an_update_reads_only_what_differs() {
    let bench = Bench::of_directory(4);
    placed(&bench);
    let go_on = |_| ControlFlow::Continue(());
    let path = bench.output().path().to_owned();
    let local = Local::hash(&path, Local::scan(&path, 1, u64::MAX).unwrap().unwrap(), &go_on).unwrap();
    let metainfo = Arc::new(bench.shared.metainfo().clone());
    let (hashes, output) = (bench.shared.hashes().clone(), bench.output().replacing_version());
    let wanted = Wanted::all(&metainfo);
    faults::end();
    let (download, _) = Download::open(metainfo, hashes, output, wanted, &[], Some(&local), &go_on).unwrap();
    // The old `file0`, whose blocks are compared with the new ones.
    assert_eq!(count(&faults::end(), Call::Read), 1);
    bench.complete(download);
}

/// A change right after that could have the same time.
#[test]
fn a_file_that_changed_at_the_same_time_as_the_clock_ticked_is_not_remembered() {
    let bench = Bench::of_directory(2);
    let (download, _) = bench.open().unwrap();
    bench.store_missing(&download);
    download.finish().unwrap();
    let state = |name: &str| FileState::of(&fs::metadata(download.output().path().join(name)).unwrap());
    let states = [state("file0"), state("sub/file1")];
    let last = states.iter().max_by_key(|state| state.changed).unwrap();
    let at_the_same_time = download.states(last).unwrap();
    assert!(
        states
            .iter()
            .zip(at_the_same_time)
            .all(|(state, found)| found
                .is_none_or(|found| { found == *state && found.changed < last.changed }))
    );
    let later = ChangeTime { ns: last.changed.ns + 1, ..last.changed };
    assert_eq!(download.states(&FileState { changed: later, ..*last }).unwrap(), states.map(Some));
    let elsewhere = FileIdentity { device: last.identity.device + 1, ..last.identity };
    assert_eq!(download.states(&FileState { identity: elsewhere, changed: later }).unwrap(), [None, None]);
}

#[test]
fn the_entries_of_few_files_are_made_durable() {
    let bench = Bench::of_directory(3);
    let (download, _) = bench.open().unwrap();
    faults::end();
    bench.store(&download, 0..1);
    download.checkpoint().unwrap();
    // The part, `sub` and `sub/deeper`.
    assert_eq!(count(&faults::end(), Call::SyncDirectory), 3);
    bench.store_missing(&download);
    download.finish().unwrap();
    // A small file is new, and so is the share's name.
    assert_eq!(count(&faults::end(), Call::SyncDirectory), 3 + 1);
}

/// Makes each call of a download fail in turn, and then goes on as if the program had been started again.
#[test]
fn whichever_call_fails_nothing_durable_is_lost_and_the_next_run_ends_well() {
    let attributed = [4, SYNC_ALL_FROM].map(with_attributes);
    for bench in shapes().map(|(bench, _)| bench).into_iter().chain(attributed).chain([with_holes()]) {
        for (left, errno) in Left::WITH_ERRORS {
            for number in 0.. {
                let claimed = left.prepare(&bench);
                faults::end();
                faults::fail_one(number, errno);
                let ran = run(&bench, claimed);
                let has_failed = !faults::is_waiting();
                let calls = faults::end();
                let trace = format!("call {number} of {:?}, {errno}: {:?}", calls.get(number), ran.error);
                if bench.output().path().exists() {
                    // Whole, but its name may not be durable.
                    assert_eq!(listing(bench.output().path()), listing(&bench.source()), "{trace}");
                } else {
                    let (download, resumed) =
                        bench.open().unwrap_or_else(|error| panic!("{trace}: {error:?}"));
                    assert!(resumed.kept >= ran.durable, "{resumed:?} of {}; {trace}", ran.durable);
                    if ran.is_sync_failed {
                        assert_eq!(resumed.kept, ran.durable, "{trace}");
                    }
                    bench.store_missing(&download);
                    download.finish().unwrap_or_else(|error| panic!("{trace}: {error:?}"));
                }
                assert_eq!(listing(bench.output().path()), listing(&bench.source()), "{trace}");
                for name in names_in(&bench.out()) {
                    let path = bench.out().join(name);
                    fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)).unwrap();
                }
                if !has_failed {
                    assert!(ran.error.is_none(), "{trace}");
                    break;
                }
            }
        }
    }
}

/// What an earlier run left.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Left {
    Nothing,
    TwoClaimed,
    TwoUnclaimed,
}

impl Left {
    const WITH_ERRORS: [(Left, Errno); 4] = [
        (Left::Nothing, Errno::IO),
        (Left::Nothing, Errno::NOSPC),
        (Left::TwoClaimed, Errno::IO),
        (Left::TwoUnclaimed, Errno::IO),
    ];

    /// Prepares this state, and returns how many chunks are claimed.
    fn prepare(self, bench: &Bench) -> u32 {
        if self == Left::Nothing {
            return 0;
        }
        let (download, _) = bench.open().unwrap();
        bench.store(&download, 0..2);
        download.checkpoint().unwrap();
        if self == Left::TwoClaimed {
            return 2;
        }
        fs::remove_file(bench.output().resume_path()).unwrap();
        0
    }
}

/// The outcome of a run that may have met a fault.
struct Ran {
    /// Chunks that a checkpoint made durable and claimed.
    durable: u32,
    is_sync_failed: bool,
    error: Option<DownloadError>,
}

/// Chunks that are here, without those of zeros, which are always.
fn count_data(bench: &Bench, download: &Download) -> u32 {
    let have = download.have();
    let is_data = |&chunk: &ChunkIndex| bench.chunk(chunk).iter().any(|&byte| byte != 0);
    have.iter().filter(is_data).count() as u32
}

/// Like a leecher: any failure but that of a claim ends the run, and then a last checkpoint is tried.
fn run(bench: &Bench, claimed: u32) -> Ran {
    let mut ran = Ran { durable: claimed, is_sync_failed: false, error: None };
    let download = match bench.open() {
        Ok((download, _)) => download,
        Err(error) => return Ran { error: Some(error), ..ran },
    };
    let result = (|| {
        for chunk in bench.shared.metainfo().chunk_space().chunks() {
            match download.store(chunk, &bench.chunk(chunk)) {
                Err(StoreChunkError::Path(error)) => return Err(error.into()),
                stored => _ = stored.unwrap(),
            }
            if chunk.0 % 2 == 1 {
                match download.checkpoint() {
                    Err(DownloadError::NotClaimed(_)) => {}
                    result => {
                        result?;
                        ran.durable = count_data(bench, &download);
                    }
                }
            }
        }
        download.finish()
    })();
    if result.is_err() && download.checkpoint().is_ok() {
        ran.durable = count_data(bench, &download);
    }
    ran.is_sync_failed = matches!(result, Err(DownloadError::NotDurable(_)));
    ran.error = result.err();
    ran
}
