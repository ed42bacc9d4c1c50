//! A download: chunks arrive, are proved, and are written. Durable chunks survive a crash.
//!
//! Until it is complete the share is in `<output>.part`, and `<output>.resume` records which chunks are durable. The order
//! makes a crash harmless: chunk data is made durable first, then the resume file claims it. The next start proves every
//! claimed chunk again before it counts. It takes back wrong claims before it writes anything else.
//!
//! Invariant: after a sync that failed, nothing is claimed that was written since the last good one. The system reports a
//! failed write once and then considers the data in memory written: the next sync succeeds, and a read returns data that is
//! on no disk.

mod blocks;
mod found;
mod remember;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io, mem,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use proto::{Bitfield, ChunkIndex, ChunkSpan, Metainfo};

use crate::{
    attributes,
    content::{ChunkSource, Content, OpenChunkError},
    disk,
    error::{AtPath, DownloadError, PathError, StoreChunkError},
    existing::{Existing, Extent, Found, Proved, Record},
    file_pool::FilePool,
    hash_run::OnProgress,
    hashes::ChunkHashes,
    identity::{FileChange, FileIdentity},
    leftovers,
    linked::Linked,
    local::Local,
    merkle,
    output::{Output, Published, Taken},
    part::{Access, Part, is_small, join},
    resume::ResumeFile,
    reuse,
    similar::Similar,
    start::{Resumed, Start},
    survey,
    wanted::Wanted,
};

/// Maximum files of a share that are written to at the same time. Disks and file servers gain little by more.
const WRITERS: usize = 8;

/// One in this many chunks, and the first, is also hashed by `sha2`. `tape-sha256` computes every hash that is trusted, and comes
/// from a small project. A fault that depends on the processor shows with the first chunk. The others are one in 2 GiB, which takes
/// less than a thousandth of the time of hashing.
const CROSS_CHECK_INTERVAL: u64 = 4_096;

/// A share that is being downloaded.
#[derive(Debug)]
pub struct Download {
    metainfo: Arc<Metainfo>,
    hashes: ChunkHashes,
    output: Output,
    part: Part,
    pool: FilePool,
    /// Each file has one of these, held while it is written. The kernel lets one thread at a time write to a file. Others
    /// would spin and keep a core from receiving and hashing.
    writing: [Mutex<()>; WRITERS],
    wanted: Wanted,
    /// The chunks of the wanted files.
    wanted_chunks: Bitfield,
    /// Bytes that were here from the beginning because they are zeros.
    zero_len: u64,
    have: Mutex<Bitfield>,
    /// Chunks that were found elsewhere on this host.
    reused: Bitfield,
    /// Files that are files of the old version too. Nothing writes to them.
    linked: Linked,
    /// Bytes on this host that are similar to chunks that are missing.
    similar: Similar,
    /// Chunks that were hashed so far.
    hashed: AtomicU64,
    /// Locked while data is made durable and claimed.
    ledger: Mutex<Ledger>,
    replaces: Replaces,
    /// What is there now, and will not be when the share has its name.
    removes: Vec<PathBuf>,
    /// The files' identities when the share got its name; those of small files when they were first served after that.
    finished: OnceLock<Vec<OnceLock<FileIdentity>>>,
}

/// What is durable, and whether the resume file claims it.
#[derive(Debug)]
struct Ledger {
    stage: Stage,
    /// Chunks whose data is durable.
    durable: Bitfield,
    /// Whether the resume file claims all that is durable.
    is_claimed: bool,
}

#[derive(Debug)]
enum Stage {
    /// Chunks arrive.
    Open(ResumeFile),
    /// A sync failed: nothing more can become durable.
    Failed(Arc<PathError>),
    /// The share has its name.
    Finished,
}

/// What had the output's name when the download began.
#[derive(Debug)]
enum Replaces {
    Nothing,
    /// Another version, which the user wants to be replaced.
    Version,
    /// Some files of this share, all of them right.
    Fewer(Vec<Option<FileIdentity>>),
}

/// How long it took to store a chunk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Time for proving it.
    pub hashing: Duration,
    /// Time for writing it.
    pub writing: Duration,
    /// Bytes of it that were on this host.
    pub reused: u32,
}

impl Download {
    /// Starts or resumes a download of the wanted files of a share. Checks the output and the free space, and proves what an earlier
    /// run left. `progress` receives the bytes as they are proved.
    ///
    /// Whole files that an earlier run was asked for stay, and count as wanted. If everything that is wanted has its final name
    /// already, and is right, the download is finished ([`Download::is_finished`]). Chunks that are right in what is replaced, and in
    /// the files and directories `from`, are taken from there. `local` is what this run knows of what is replaced.
    pub fn open(
        metainfo: Arc<Metainfo>,
        hashes: ChunkHashes,
        output: Output,
        mut wanted: Wanted,
        from: &[PathBuf],
        local: Option<&Local>,
        progress: OnProgress<'_>,
    ) -> Result<(Download, Resumed), DownloadError> {
        output.check_usable()?;
        let begun = SystemTime::now();
        let mut existing = Existing::find(&metainfo, output.path())?;
        let local = local.filter(|local| local.root() == output.path());
        let recorded = match (local, output.proofs(), &existing) {
            (None, Some(proofs), Some(_)) => proofs.load(output.path()),
            _ => None,
        };
        let mut local = local.or(recorded.as_ref());
        let mut replaces = Replaces::Nothing;
        if let Some(existing) = &mut existing {
            let mut is_recorded = false;
            if existing.differences.count == 0 {
                let Proved { unknown, record } =
                    existing.prove(&metainfo, &hashes, local, Extent::UntilWrong, progress)?;
                is_recorded = unknown == 0 && local.is_some_and(Local::is_recorded);
                local = local.filter(|_| record == Record::Right);
            }
            if existing.differences.count > 0 {
                output.check_replaceable(existing)?;
                replaces = Replaces::Version;
            } else {
                let is_here = existing.missing(&metainfo, &wanted).is_empty();
                existing.add_to(&mut wanted);
                if is_here && let Some(part) = existing.part.take() {
                    // A run that was killed after it gave the share its name may not have made that durable.
                    part.sync_existing(&metainfo, &wanted)
                        .map_err(|error| DownloadError::NotDurable(Arc::new(error)))?;
                    disk::sync_parent(output.path()).at("sync the directory of", output.path())?;
                    leftovers::clear_finished(&output, &metainfo, &existing.right);
                    let ledger =
                        Ledger { stage: Stage::Finished, is_claimed: true, durable: existing.right.clone() };
                    let have = existing.right.clone();
                    let mut download = Download::new(metainfo, hashes, output, part, wanted, have, ledger);
                    download.finished = OnceLock::from(existing.identities());
                    if !is_recorded {
                        download.remember_existing(existing, begun);
                    }
                    let resumed = Resumed { kept: download.have().count(), lost: 0 };
                    return Ok((download, resumed));
                }
                let identity = |found: &Option<Found>| found.map(|found| found.state.identity);
                replaces = Replaces::Fewer(existing.files.iter().map(identity).collect());
            }
        }
        if output.replaces_version() {
            leftovers::clear_other_version(&output, &metainfo)?;
        }
        let part = Part::open(output.part_path(), metainfo.kind())?;
        let Start { resume, have, durable, zero_len, wanted, resumed } =
            Start::find(&metainfo, &hashes, &output, &part, wanted, progress)?;
        let ledger = Ledger { stage: Stage::Open(resume), is_claimed: true, durable };
        let before = have.clone();
        let mut download = Download::new(metainfo, hashes, output, part, wanted, have, ledger);
        (download.zero_len, download.replaces) = (zero_len, replaces);
        if let Some(existing) = &existing {
            if matches!(download.replaces, Replaces::Version) {
                download.removes = existing.not_in(&download.metainfo, &download.wanted);
            }
            download.linked = reuse::fill_from_old(&download, existing, local, progress)?;
        }
        reuse::fill(&download, from, progress)?;
        download.reused = download.have();
        before.iter().for_each(|chunk| _ = download.reused.remove(chunk));
        Ok((download, resumed))
    }

    /// A download that replaces nothing.
    fn new(
        metainfo: Arc<Metainfo>,
        hashes: ChunkHashes,
        output: Output,
        part: Part,
        wanted: Wanted,
        have: Bitfield,
        ledger: Ledger,
    ) -> Download {
        let chunk_count = have.len();
        Download {
            wanted_chunks: wanted.chunks(metainfo.chunk_space()),
            metainfo,
            hashes,
            output,
            part,
            pool: FilePool::default(),
            writing: Default::default(),
            wanted,
            zero_len: 0,
            have: Mutex::new(have),
            reused: Bitfield::empty(chunk_count),
            linked: Linked::none(chunk_count),
            similar: Similar::default(),
            hashed: AtomicU64::new(0),
            ledger: Mutex::new(ledger),
            replaces: Replaces::Nothing,
            removes: Vec::new(),
            finished: OnceLock::new(),
        }
    }

    /// Proves a chunk and writes it. `bytes` must have the length of the chunk. A chunk that is here already is not written
    /// again.
    pub fn store(&self, chunk: ChunkIndex, bytes: &[u8]) -> Result<Stored, StoreChunkError> {
        let begun = Instant::now();
        let Some(span) = self.metainfo.chunk_space().span(chunk) else {
            return Err(StoreChunkError::Wrong(chunk));
        };
        if bytes.len() != span.len as usize {
            return Err(StoreChunkError::Wrong(chunk));
        }
        let hash = merkle::chunk_hash(bytes, span.leaf_count);
        let is_right = Some(hash) == self.hashes.get(chunk);
        let is_cross_checked =
            self.hashed.fetch_add(1, Ordering::Relaxed).is_multiple_of(CROSS_CHECK_INTERVAL);
        // A wrong chunk is checked too, so that a machine that errs accuses no honest peer.
        if (is_cross_checked || !is_right) && merkle::chunk_hash_by_sha2(bytes, span.leaf_count) != hash {
            return Err(StoreChunkError::HashersDisagree(chunk));
        }
        if !is_right {
            return Err(StoreChunkError::Wrong(chunk));
        }
        let proved = Instant::now();
        let hashing = proved - begun;
        if lock(&self.have).contains(chunk) {
            return Ok(Stored { hashing, writing: Duration::ZERO, reused: 0 });
        }
        self.put(chunk, span, bytes)?;
        Ok(Stored { hashing, writing: proved.elapsed(), reused: 0 })
    }

    /// Writes a chunk that was proved, unless it is here.
    fn put(&self, chunk: ChunkIndex, span: ChunkSpan, bytes: &[u8]) -> Result<(), PathError> {
        // A file that is not small must not be created again without the chunks that it held.
        let is_small = is_small(&self.metainfo.files()[span.file]);
        let access = if is_small { Access::Create } else { Access::Write };
        let file = self.file(span.file, access)?;
        let turn = lock(&self.writing[span.file % WRITERS]);
        // Another thread may have stored the same chunk. A finished file must not be written to.
        if !lock(&self.have).contains(chunk) {
            disk::write_all_at(&file, bytes, span.offset).map_err(|source| {
                let path = self.file_path(span.file);
                PathError { action: "write", path, source }
            })?;
            lock(&self.have).insert(chunk);
        }
        drop(turn);
        Ok(())
    }

    /// The wanted files of which chunks are missing.
    pub(crate) fn incomplete_files(&self) -> Vec<usize> {
        let (space, have) = (self.metainfo.chunk_space(), self.have());
        let is_missing = |chunk| !have.contains(ChunkIndex(chunk));
        self.wanted.positions().filter(|&file| space.chunks_of(file).any(is_missing)).collect()
    }

    /// Whether everything that is wanted is here.
    pub(crate) fn is_complete(&self) -> bool {
        *lock(&self.have) == self.wanted_chunks
    }

    /// The chunks that are here.
    pub fn have(&self) -> Bitfield {
        lock(&self.have).clone()
    }

    /// The chunks to fetch, and those that are here.
    pub fn wanted(&self) -> &Bitfield {
        &self.wanted_chunks
    }

    /// Bytes in the wanted files.
    pub fn wanted_len(&self) -> u64 {
        self.wanted.total_len(self.metainfo.chunk_space())
    }

    /// Bytes that are here because they are zeros, and were not received.
    pub fn zero_len(&self) -> u64 {
        self.zero_len
    }

    /// Whether everything that is wanted is durable and has its final name.
    pub fn is_finished(&self) -> bool {
        self.finished.get().is_some()
    }

    /// Chunks that were found elsewhere on this host when the download began.
    pub fn reused(&self) -> &Bitfield {
        &self.reused
    }

    /// What is removed when the share gets its name, because the version that is replaced has it and the new one does not. A directory
    /// stands for everything in it.
    pub fn removes(&self) -> &[PathBuf] {
        &self.removes
    }

    /// Whether every chunk of the share is here, wanted or not.
    pub fn is_whole(&self) -> bool {
        lock(&self.have).is_full()
    }

    /// Makes what is here durable and claims it in the resume file. After [`DownloadError::NotClaimed`] the download can go
    /// on, and the next checkpoint claims the rest.
    pub fn checkpoint(&self) -> Result<(), DownloadError> {
        let mut ledger = lock(&self.ledger);
        if matches!(ledger.stage, Stage::Finished) {
            return Ok(());
        }
        self.part.check_there()?;
        // Copied before the data is synced: chunks that arrive meanwhile belong to the next checkpoint.
        let have = self.have();
        if have != ledger.durable {
            self.sync(&mut ledger, have, &[])?;
        }
        ledger.claim(&self.linked)
    }

    /// Makes everything that is wanted durable and gives it the share's final name.
    ///
    /// # Panics
    /// If a wanted chunk is missing.
    pub fn finish(&self) -> Result<(), DownloadError> {
        let have = self.have();
        assert!(have == self.wanted_chunks, "{} of {} chunks", have.count(), self.wanted_chunks.count());
        let mut ledger = lock(&self.ledger);
        if matches!(ledger.stage, Stage::Finished) {
            return Ok(());
        }
        self.part.check_there()?;
        let open = |file| self.file(file, Access::Write);
        let Download { part, metainfo, wanted, .. } = self;
        let attributed =
            attributes::apply(part, metainfo, wanted, self.output.keeps_times(), &self.linked, open)?;
        self.sync(&mut ledger, have, &attributed)?;
        let taken = self.taken()?;
        let files = survey::identify_files(part, metainfo, wanted)?;
        for file in self.linked.check(part, metainfo, &files)? {
            self.prove_linked(file)?;
        }
        let published = self.output.publish(self.metainfo.kind(), taken)?;
        // If anything fails from here on, the share still has its name, and there is nothing to resume.
        let _ = self.finished.set(files);
        let stage = mem::replace(&mut ledger.stage, Stage::Finished);
        disk::sync_parent(self.output.path()).at("sync the directory of", self.output.path())?;
        if let Published::Exchanged(old) = published
            && let Err(error) = leftovers::remove(&self.output, old)
        {
            // The resume file stays, so that the next run removes both.
            tracing::warn!("{error}: what was replaced is still there");
            return Ok(());
        }
        if let Stage::Open(resume) = stage {
            self.remember(&resume);
            resume.remove();
        }
        Ok(())
    }

    /// What the finished share may replace. A share of which only more is fetched replaces what was there when the download began, and
    /// nothing that came to be there since.
    fn taken(&self) -> Result<Taken, DownloadError> {
        let before = match &self.replaces {
            Replaces::Nothing => return Ok(Taken::Free),
            Replaces::Version => return Ok(Taken::Compared),
            Replaces::Fewer(files) => files,
        };
        let Some(mut now) = Existing::find(&self.metainfo, self.output.path())? else {
            return Ok(Taken::Free);
        };
        let is_changed =
            |(before, now): (&Option<_>, &Option<Found>)| *before != now.map(|now| now.state.identity);
        if let Some(changed) = before.iter().zip(&now.files).position(is_changed) {
            now.note_changed(&self.metainfo, changed);
        }
        if now.differences.count > 0 {
            self.output.check_replaceable(&now)?;
        }
        Ok(Taken::Compared)
    }

    /// Where the share will be.
    pub fn output(&self) -> &Output {
        &self.output
    }

    fn span_held(&self, chunk: ChunkIndex) -> Result<ChunkSpan, OpenChunkError> {
        let held = lock(&self.have).contains(chunk);
        let span = if held { self.metainfo.chunk_space().span(chunk) } else { None };
        span.ok_or(OpenChunkError::NotHave(chunk))
    }

    fn file(&self, index: usize, access: Access) -> Result<Arc<File>, PathError> {
        self.pool.file(index, || self.part.open_file(&self.metainfo.files()[index], access))
    }

    fn file_path(&self, index: usize) -> PathBuf {
        self.part.path_of(&self.metainfo.files()[index])
    }

    /// Where to read a chunk, unless its file changed since the share got its name.
    fn source(&self, file: Arc<File>, span: ChunkSpan) -> Result<ChunkSource, OpenChunkError> {
        if let Some(files) = self.finished.get() {
            let path = || join(self.output.path(), &self.metainfo.files()[span.file].path);
            let meta =
                file.metadata().map_err(|source| PathError { action: "examine", path: path(), source })?;
            let now = FileIdentity::of(&meta);
            let change = match files[span.file].get() {
                Some(before) => before.change(&now),
                None => self.prove_small(&file, span, &now).map_err(|source| PathError {
                    action: "read",
                    path: path(),
                    source,
                })?,
            };
            if let Some(change) = change {
                return Err(OpenChunkError::Changed { path: path(), change });
            }
            // If another thread was first, it proved the same file.
            let _ = files[span.file].set(now);
        } else if let Some(before) = self.linked.get(span.file) {
            let path = self.file_path(span.file);
            let now = file.metadata().at("examine", &path)?;
            if let Some(change) = before.change(&FileIdentity::of(&now)) {
                return Err(OpenChunkError::Changed { path, change });
            }
        }
        Ok(ChunkSource { file, offset: span.offset, len: span.len })
    }

    /// Proves a small file again, before it is served for the first time since the share got its name. Doing that for all
    /// files at once would delay the end of the transfer.
    fn prove_small(
        &self,
        file: &File,
        span: ChunkSpan,
        now: &FileIdentity,
    ) -> io::Result<Option<FileChange>> {
        let space = self.metainfo.chunk_space();
        let before = space.file_len(span.file);
        if now.len != before {
            return Ok(Some(FileChange::Len { before, now: now.len }));
        }
        let mut bytes = vec![0; span.len as usize];
        disk::read_exact_at(file, &mut bytes, span.offset)?;
        let chunk = ChunkIndex(space.chunks_of(span.file).start);
        let is_right = Some(merkle::chunk_hash(&bytes, span.leaf_count)) == self.hashes.get(chunk);
        Ok((!is_right).then_some(FileChange::Written))
    }

    /// Makes the chunks of `have` durable, and the permissions and times of the files `attributed`.
    fn sync(&self, ledger: &mut Ledger, have: Bitfield, attributed: &[usize]) -> Result<(), DownloadError> {
        if let Stage::Failed(error) = &ledger.stage {
            return Err(DownloadError::NotDurable(Arc::clone(error)));
        }
        let space = self.metainfo.chunk_space();
        let is_new =
            |chunk: u32| have.contains(ChunkIndex(chunk)) && !ledger.durable.contains(ChunkIndex(chunk));
        let changed = (0..self.metainfo.files().len()).filter(|&file| space.chunks_of(file).any(is_new));
        let open = |file| self.file(file, Access::Write);
        match self.part.sync(&self.metainfo, &self.wanted, changed, attributed, open) {
            Ok(()) => {
                ledger.is_claimed &= have == ledger.durable;
                ledger.durable = have;
                Ok(())
            }
            Err(error) => {
                let error = Arc::new(error);
                ledger.stage = Stage::Failed(Arc::clone(&error));
                Err(DownloadError::NotDurable(error))
            }
        }
    }
}

impl Ledger {
    /// Claims what is durable in the resume file.
    fn claim(&mut self, linked: &Linked) -> Result<(), DownloadError> {
        match &mut self.stage {
            Stage::Open(resume) if !self.is_claimed => {
                resume.save(&linked.unclaimed(&self.durable)).map_err(DownloadError::NotClaimed)?;
                self.is_claimed = true;
                Ok(())
            }
            Stage::Open(_) | Stage::Finished => Ok(()),
            Stage::Failed(error) => Err(DownloadError::NotDurable(Arc::clone(error))),
        }
    }
}

impl Content for Download {
    fn metainfo(&self) -> &Metainfo {
        &self.metainfo
    }

    fn hashes(&self) -> &ChunkHashes {
        &self.hashes
    }

    fn try_open_chunk(&self, chunk: ChunkIndex) -> Option<Result<ChunkSource, OpenChunkError>> {
        let span = match self.span_held(chunk) {
            Ok(span) => span,
            Err(error) => return Some(Err(error)),
        };
        if self.finished.get().is_some_and(|files| files[span.file].get().is_none()) {
            // It has to be proved first, which blocks.
            return None;
        }
        let file = self.pool.opened(span.file)?;
        Some(self.source(file, span))
    }

    /// Checks the file each time, once the share has its name: a change is noticed with the next chunk.
    fn open_chunk(&self, chunk: ChunkIndex) -> Result<ChunkSource, OpenChunkError> {
        let span = self.span_held(chunk)?;
        // A finished share may have been made read-only.
        let access = if self.finished.get().is_some() { Access::Read } else { Access::Write };
        self.source(self.file(span.file, access)?, span)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
