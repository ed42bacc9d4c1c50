//! Power cuts at every step of a download.
//!
//! A story is a download as it happens: its calls are recorded. After each of them the model of [`disk`] says what a power
//! cut could leave, and a sample of that is put into a directory. There the download is started again. Whatever is left:
//!
//! - what has the share's final name is the whole right share (or, until it is replaced, the file that was there before);
//! - no chunk is offered to others that is not right;
//! - every chunk that a checkpoint had made durable is there and is not fetched again;
//! - the download ends with the right bytes, and nothing else is left beside them.
//!
//! Random numbers come from a seed, so a failure comes back.

mod disk;

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::{FileExt, symlink},
    path::{Path, PathBuf},
};

use proto::{Bitfield, ChunkIndex};
use rand::{SeedableRng, rngs::StdRng};
use rustix::io::Errno;
use tempfile::TempDir;

use super::bench::{Bench, CHUNK, Entry, content, listing, make_executable, names_in};
use crate::{
    Content, Download, DownloadError, Output, Resumed, StoreChunkError,
    disk::{
        Call, faults,
        record::{self, Record},
    },
    download::tests::power_cut::disk::{Disk, Extreme, Renames, Wreck},
};

/// Another seed makes other wrecks.
const SEED: u64 = 12;

/// The file that `--overwrite` replaces.
const OLD: &[u8] = b"what was there before";

/// What has the share's name before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// A file, which `--overwrite` replaces.
    File,
    /// Another version of the directory, which `--update` replaces.
    Version,
    /// Some files of the same share.
    Fewer,
}

/// A share, and what is compared with it.
struct Subject {
    bench: Bench,
    chunks: Vec<Vec<u8>>,
    source: BTreeMap<PathBuf, Entry>,
    before: Before,
    /// Patterns of what is fetched; everything if there are none.
    only: &'static [&'static str],
}

/// One thing that a download does.
#[derive(Debug, Clone, Copy)]
enum Step {
    Store(&'static [usize]),
    Checkpoint,
    Finish,
}

/// What a download was told that it can rely on.
#[derive(Debug, Clone)]
enum Promise {
    /// These chunks are durable.
    Durable(Bitfield),
    /// The share has its name.
    Finished,
}

/// A download as it happened.
struct Story {
    record: Record,
    /// Each with the number of operations before it.
    promises: Vec<(usize, Promise)>,
}

impl Subject {
    fn new(bench: Bench) -> Subject {
        let chunks = bench.shared.metainfo().chunk_space().chunks().map(|chunk| bench.chunk(chunk)).collect();
        let source = listing(&bench.source());
        Subject { bench, chunks, source, before: Before::Nothing, only: &[] }
    }

    /// Three chunks, the last of them short. It can be executed.
    fn file() -> Subject {
        Subject::new(Bench::new(|path| {
            fs::write(path, content(2 * CHUNK + 700, 1)).unwrap();
            make_executable(path);
        }))
    }

    /// A chunk of zeros, a chunk of data, and two more of zeros, the last of them short.
    fn with_holes() -> Subject {
        Subject::new(Bench::new(|path| {
            let file = fs::File::create(path).unwrap();
            file.set_len(3 * CHUNK as u64 + 700).unwrap();
            file.write_all_at(&content(CHUNK, 1), CHUNK as u64).unwrap();
        }))
    }

    /// Few files, each of which is synced: one with its room reserved, small ones, an empty one and an empty directory. One of them
    /// can be executed, and a link leads to another.
    fn few_files() -> Subject {
        Subject::directory(3)
    }

    /// So many files that the whole file system is synced.
    fn many_files() -> Subject {
        Subject::directory(super::SYNC_ALL_FROM)
    }

    fn directory(small: usize) -> Subject {
        Subject::new(Bench::new(|path| {
            fs::create_dir_all(path.join("sub/deeper")).unwrap();
            fs::create_dir_all(path.join("hollow/inner")).unwrap();
            fs::write(path.join("large"), content(70_000, 1)).unwrap();
            fs::write(path.join("empty"), b"").unwrap();
            symlink("../large", path.join("sub/link")).unwrap();
            for number in 0..small {
                let dir = ["", "sub/", "sub/deeper/"][number % 3];
                fs::write(path.join(format!("{dir}small{number}")), content(900 * (number + 1), number))
                    .unwrap();
            }
            make_executable(&path.join("small0"));
        }))
    }

    fn overwriting(mut self) -> Subject {
        self.before = Before::File;
        self
    }

    fn after(mut self, before: Before) -> Subject {
        self.before = before;
        self
    }

    /// Fetches only what is in `sub`.
    fn of_a_part(mut self) -> Subject {
        self.only = &["sub"];
        self
    }

    /// Whether `path` holds right files and all that is wanted. A part may hold other whole files, which an earlier run was asked for.
    fn is_right(&self, path: &Path) -> bool {
        let found = listing(path);
        let is_wanted =
            |path: &Path| self.only.is_empty() || self.only.iter().any(|only| path.starts_with(only));
        found.iter().all(|(path, bytes)| self.source.get(path) == Some(bytes))
            && self.source.keys().all(|path| !is_wanted(path) || found.contains_key(path))
    }

    fn open(&self, root: &Path) -> Result<(Download, Resumed), DownloadError> {
        self.bench.open_only(self.output(root), self.only)
    }

    fn output(&self, root: &Path) -> Output {
        let output = Output::at(root.join("out"));
        match self.before {
            Before::Nothing | Before::Fewer => output,
            Before::File => output.replacing_file(),
            Before::Version => output.replacing_version(),
        }
    }

    /// Starts the download in `root`, or goes on with it, and does these steps.
    fn play(
        &self,
        root: &Path,
        steps: &[Step],
        promises: &mut Vec<(usize, Promise)>,
    ) -> Result<(), DownloadError> {
        let (download, _) = self.open(root)?;
        promises.push((record::len(), Promise::Durable(download.have())));
        for step in steps {
            match step {
                Step::Store(chunks) => self.store(&download, chunks.iter().copied())?,
                Step::Checkpoint => {
                    download.checkpoint()?;
                    promises.push((record::len(), Promise::Durable(download.have())));
                }
                Step::Finish => {
                    self.store(&download, 0..self.chunks.len())?;
                    download.finish()?;
                    promises.push((record::len(), Promise::Finished));
                }
            }
        }
        Ok(())
    }

    fn store(
        &self,
        download: &Download,
        chunks: impl IntoIterator<Item = usize>,
    ) -> Result<(), DownloadError> {
        let is_wanted = |chunk: &usize| download.wanted().contains(ChunkIndex(*chunk as u32));
        for chunk in chunks.into_iter().filter(is_wanted) {
            match download.store(ChunkIndex(chunk as u32), &self.chunks[chunk]) {
                Err(StoreChunkError::Path(error)) => return Err(error.into()),
                stored => _ = stored.unwrap(),
            }
        }
        Ok(())
    }

    /// An empty directory to download to; with what is to be replaced, if the share replaces something.
    fn root(&self) -> TempDir {
        let root = scratch();
        self.make_old(&root.path().join("out"));
        root
    }

    /// What is there before.
    fn make_old(&self, path: &Path) {
        let write = |name: &str, bytes: &[u8]| {
            let path = path.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        let of_the_share = |name: &str| match &self.source[Path::new(name)] {
            Entry::File { bytes, .. } => bytes.clone(),
            other => panic!("{other:?}"),
        };
        match self.before {
            Before::Nothing => {}
            Before::File => fs::write(path, OLD).unwrap(),
            Before::Version => {
                write("large", &content(70_000, 9));
                write("small0", &of_the_share("small0"));
                write("sub/moved", &of_the_share("sub/small1"));
                write("gone/gone", b"gone");
            }
            Before::Fewer => {
                write("empty", b"");
                write("sub/small1", &of_the_share("sub/small1"));
            }
        }
    }

    /// Whether it is what was there before.
    fn is_old(&self, path: &Path) -> bool {
        let old = scratch();
        self.make_old(&old.path().join("out"));
        self.before != Before::Nothing && listing(path) == listing(&old.path().join("out"))
    }

    /// Records runs, one after the other.
    fn story(&self, runs: &[&[Step]]) -> Story {
        let root = self.root();
        record::begin(root.path());
        let mut promises = Vec::new();
        for steps in runs {
            self.play(root.path(), steps, &mut promises).unwrap();
        }
        Story { record: record::end(), promises }
    }

    /// Checks that a download goes on well from a wreck.
    fn check(&self, root: &Path, promise: Option<&Promise>, renames: Renames) -> Result<(), String> {
        let output = self.output(root);
        let is_finished = output.path().exists() && self.is_right(output.path());
        if output.path().exists() && !is_finished && !self.is_old(output.path()) {
            return Err("what has the final name is neither the share nor what was there before".to_owned());
        }
        if let Some(Promise::Finished) = promise {
            return if is_finished { Ok(()) } else { Err("the finished share is gone".to_owned()) };
        }
        let (download, resumed) =
            self.open(root).map_err(|error| format!("it does not start again: {error}"))?;
        let have = download.have();
        let is_data = |chunk: &ChunkIndex| self.chunks[chunk.0 as usize].iter().any(|&byte| byte != 0);
        let data = have.iter().filter(is_data).count();
        if !download.is_finished() && data != (resumed.kept + download.reused().count()) as usize {
            return Err(format!("{} chunks are here, and {} were kept", have.count(), resumed.kept));
        }
        if resumed.lost > 0 {
            return Err(format!("{} chunks were claimed before they were durable", resumed.lost));
        }
        // With half a rename, all may be gone.
        if let Some(Promise::Durable(durable)) = promise
            && renames == Renames::Whole
            && !is_finished
            && let Some(lost) =
                durable.iter().find(|&chunk| download.wanted().contains(chunk) && !have.contains(chunk))
        {
            return Err(format!("chunk {} was durable and is fetched again", lost.0));
        }
        for chunk in have.iter() {
            let source = download.open_chunk(chunk).map_err(|error| error.to_string())?;
            let mut bytes = vec![0; source.len as usize];
            super::disk::read_exact_at(&source.file, &mut bytes, source.offset).unwrap();
            if bytes != self.chunks[chunk.0 as usize] {
                return Err(format!("chunk {} is served and wrong", chunk.0));
            }
        }
        self.store(&download, 0..self.chunks.len()).map_err(|error| format!("storing: {error}"))?;
        download.finish().map_err(|error| format!("finishing: {error}"))?;
        if !self.is_right(output.path()) {
            return Err("the end is not the share".to_owned());
        }
        let mut names = names_in(root);
        // It stays if somebody removed the resume file, another was being created, and the removal was lost.
        names.retain(|name| name != "out.resume.tmp");
        if renames == Renames::Whole && names != ["out"] {
            return Err(format!("left beside the share: {names:?}"));
        }
        Ok(())
    }
}

/// A directory in memory, where there is one.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Wrecks that were tried.
#[derive(Default)]
struct Sweep {
    seen: HashSet<u64>,
}

impl Sweep {
    /// Cuts the power after every operation of a story from the operation `first` on, `rounds` times.
    fn story(&mut self, name: &str, subject: &Subject, story: &Story, first: usize, rounds: u64) {
        self.wrecks(name, story, first, rounds, |wreck, promise, renames| {
            let root = scratch();
            wreck.place(root.path());
            subject.check(root.path(), promise, renames)
        });
    }

    /// Calls `check` with wrecks that it has not seen.
    fn wrecks(
        &mut self,
        name: &str,
        story: &Story,
        first: usize,
        rounds: u64,
        check: impl Fn(&Wreck, Option<&Promise>, Renames) -> Result<(), String>,
    ) {
        let mut disk = Disk::new(&story.record);
        for cut in 0..=story.record.ops.len() {
            if cut > 0 {
                disk.apply(&story.record.ops[cut - 1]);
            }
            if cut < first {
                continue;
            }
            let promised = story.promises.iter().filter(|(after, _)| *after <= cut).count();
            let promise = promised.checked_sub(1).map(|last| &story.promises[last].1);
            for round in 0..rounds {
                let extreme = Extreme::ALL.get(round as usize).copied();
                let renames = if round % 4 == 3 { Renames::Split } else { Renames::Whole };
                let seed = hash(&(SEED, name, cut, round));
                let wreck = disk.crash(renames, extreme, &mut StdRng::seed_from_u64(seed));
                if !self.seen.insert(hash(&(name, wreck.fingerprint, promised))) {
                    continue;
                }
                if let Err(wrong) = check(&wreck, promise, renames) {
                    let before = &story.record.ops[cut.saturating_sub(4)..cut];
                    let before: Vec<_> = before.iter().map(|op| format!("{op:?}")).collect();
                    panic!(
                        "{wrong}: {name}, the power cut after operation {cut}, round {round} ({renames:?}, {extreme:?}), \
                         seed {SEED}; the last operations: {before:#?}"
                    );
                }
            }
        }
    }

    /// Ends the sweep: it must have tried this many different wrecks.
    fn end(self, least: usize) {
        println!("{} crash states", self.seen.len());
        assert!(self.seen.len() >= least, "{} crash states", self.seen.len());
    }
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

const AT_ONCE: &[Step] =
    &[Step::Store(&[2]), Step::Checkpoint, Step::Store(&[0]), Step::Checkpoint, Step::Finish];
const HALF: &[Step] = &[Step::Store(&[1]), Step::Checkpoint, Step::Store(&[0])];
const REST: &[Step] = &[Step::Store(&[2]), Step::Checkpoint, Step::Finish];

#[test]
fn a_file_survives_power_cuts() {
    let mut sweep = Sweep::default();
    let subject = Subject::file();
    sweep.story("a file", &subject, &subject.story(&[AT_ONCE]), 0, 200);
    sweep.story("a file, resumed", &subject, &subject.story(&[HALF, REST]), 0, 150);
    let subject = subject.overwriting();
    sweep.story("a file in place of another", &subject, &subject.story(&[AT_ONCE]), 0, 150);
    let subject = Subject::with_holes();
    sweep.story("a file with holes", &subject, &subject.story(&[AT_ONCE]), 0, 150);
    sweep.story("a file with holes, resumed", &subject, &subject.story(&[HALF, REST]), 0, 150);
    sweep.end(1_000);
}

#[test]
fn a_directory_survives_power_cuts() {
    let mut sweep = Sweep::default();
    for (name, subject) in [("few files", Subject::few_files()), ("many files", Subject::many_files())] {
        sweep.story(name, &subject, &subject.story(&[AT_ONCE]), 0, 60);
        sweep.story(&format!("{name}, resumed"), &subject, &subject.story(&[HALF, REST]), 0, 60);
        let subject = subject.overwriting();
        sweep.story(&format!("{name} in place of a file"), &subject, &subject.story(&[AT_ONCE]), 0, 30);
    }
    sweep.end(3_000);
}

/// The old version or the new one is there, whole, at any moment.
#[cfg(target_os = "linux")]
#[test]
fn a_new_version_in_place_of_an_old_one_survives_power_cuts() {
    let mut sweep = Sweep::default();
    for (name, make) in
        [("few files", Subject::few_files as fn() -> Subject), ("many files", Subject::many_files)]
    {
        for before in [Before::Version, Before::Fewer] {
            let subject = make().after(before);
            let name = format!("{name} in place of {before:?}");
            sweep.story(&name, &subject, &subject.story(&[AT_ONCE]), 0, 24);
            sweep.story(&format!("{name}, resumed"), &subject, &subject.story(&[HALF, REST]), 0, 16);
        }
    }
    sweep.end(1_500);
}

/// What a process that was killed at any call leaves, is taken up by the next run.
#[cfg(target_os = "linux")]
#[test]
fn a_new_version_survives_kills_and_power_cuts_after_them() {
    let mut sweep = Sweep::default();
    let subject = Subject::few_files().after(Before::Version);
    for calls in 0.. {
        let root = subject.root();
        record::begin(root.path());
        let mut promises = Vec::new();
        faults::kill_after(calls);
        let _ = subject.play(root.path(), AT_ONCE, &mut promises);
        // The program was not there any more to claim anything.
        let was_killed = faults::end().len() > calls;
        promises.retain(|promise| !matches!(promise, (_, Promise::Finished)) || !was_killed);
        let killed_at = record::len();
        subject.play(root.path(), AT_ONCE, &mut promises).unwrap();
        let story = Story { record: record::end(), promises };
        sweep.story(&format!("a new version, killed after {calls} calls"), &subject, &story, killed_at, 3);
        assert_eq!(names_in(root.path()), ["out"]);
        assert!(subject.is_right(&root.path().join("out")));
        if !was_killed {
            break;
        }
    }
    sweep.end(1_500);
}

/// The second run fetches less than the first, so it takes claims back and removes files.
#[test]
fn a_part_of_a_directory_survives_power_cuts() {
    let mut sweep = Sweep::default();
    for (name, make) in
        [("few files", Subject::few_files as fn() -> Subject), ("many files", Subject::many_files)]
    {
        let subject = make().of_a_part();
        sweep.story(&format!("part of {name}"), &subject, &subject.story(&[AT_ONCE]), 0, 30);
        let root = subject.root();
        record::begin(root.path());
        let mut promises = Vec::new();
        make().play(root.path(), HALF, &mut promises).unwrap();
        let first = record::len();
        subject.play(root.path(), REST, &mut promises).unwrap();
        let story = Story { record: record::end(), promises };
        sweep.story(&format!("less of {name}"), &subject, &story, first, 60);
    }
    sweep.end(300);
}

/// Without `syncfs` and `renameat2` there are other calls, in another order.
#[test]
fn a_download_survives_power_cuts_on_a_system_without_newer_calls() {
    let mut sweep = Sweep::default();
    for (name, subject) in [("many files", Subject::many_files()), ("a file", Subject::file())] {
        let without = |subject: &Subject| {
            faults::fail(Call::SyncFileSystem, Errno::NOSYS, usize::MAX);
            // The first rename is that of the resume file.
            faults::fail_after(Call::Rename, 1, Errno::INVAL);
            let story = subject.story(&[AT_ONCE]);
            faults::end();
            story
        };
        sweep.story(&format!("{name}, older calls"), &subject, &without(&subject), 0, 30);
        let subject = subject.overwriting();
        sweep.story(&format!("{name}, older calls, in place"), &subject, &without(&subject), 0, 30);
    }
    sweep.end(1_500);
}

/// The resume file is gone, so what is right in the part is proved, written again and claimed.
#[test]
fn a_download_without_its_resume_file_survives_power_cuts() {
    let mut sweep = Sweep::default();
    for (name, subject) in [("a file", Subject::file()), ("few files", Subject::few_files())] {
        let root = subject.root();
        record::begin(root.path());
        let mut promises = Vec::new();
        subject.play(root.path(), HALF, &mut promises).unwrap();
        super::disk::remove(&subject.output(root.path()).resume_path()).unwrap();
        // Nothing in the part is claimed now.
        promises.clear();
        let first = record::len();
        subject.play(root.path(), REST, &mut promises).unwrap();
        let story = Story { record: record::end(), promises };
        sweep.story(name, &subject, &story, first, 150);
    }
    sweep.end(500);
}

/// What a process that was killed had written is in the system's memory. The next run finds it there, as if it were durable.
#[test]
fn a_download_that_was_killed_and_started_again_survives_power_cuts() {
    let mut sweep = Sweep::default();
    for (name, subject, rounds) in [
        ("a file", Subject::file(), 5),
        ("a file with holes", Subject::with_holes(), 5),
        ("few files", Subject::few_files(), 8),
        ("many files in place of a file", Subject::many_files().overwriting(), 8),
    ] {
        let mut last = usize::MAX;
        for calls in 0.. {
            let root = subject.root();
            record::begin(root.path());
            let mut promises = Vec::new();
            faults::kill_after(calls);
            let end = subject.play(root.path(), AT_ONCE, &mut promises);
            faults::end();
            let killed_at = record::len();
            if end.is_ok() {
                record::end();
                break;
            }
            // A call that changes nothing makes no difference.
            if killed_at == last {
                record::end();
                continue;
            }
            last = killed_at;
            if let Err(error) = subject.play(root.path(), AT_ONCE, &mut promises)
                && !subject.output(root.path()).path().exists()
            {
                panic!("{name}, killed after {calls} calls: {error}");
            }
            let story = Story { record: record::end(), promises };
            sweep.story(&format!("{name}, killed after {calls} calls"), &subject, &story, killed_at, rounds);
        }
    }
    sweep.end(4_500);
}

#[test]
fn a_download_survives_a_power_cut_after_a_power_cut() {
    let mut sweep = Sweep::default();
    for (name, subject) in [("a file", Subject::file()), ("few files", Subject::few_files())] {
        let seconds = RefCell::new(Vec::new());
        let first = subject.story(&[AT_ONCE]);
        Sweep::default().wrecks(name, &first, 0, 8, |wreck, promise, renames| {
            if renames == Renames::Split || matches!(promise, Some(Promise::Finished)) {
                return Ok(());
            }
            let root = scratch();
            wreck.place(root.path());
            record::begin(root.path());
            let mut promises: Vec<_> = promise.map(|promise| (0, promise.clone())).into_iter().collect();
            let played = subject.play(root.path(), AT_ONCE, &mut promises);
            let story = Story { record: record::end(), promises };
            seconds.borrow_mut().push(story);
            played.map_err(|error| error.to_string())
        });
        for (number, story) in seconds.into_inner().iter().enumerate() {
            sweep.story(&format!("{name}, after power cut {number}"), &subject, story, 0, 1);
        }
    }
    sweep.end(1_500);
}
