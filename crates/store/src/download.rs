//! A download: chunks come in, are proved, and are written; what is there survives a crash.
//!
//! While it is under way the share lies in `<output>.part`, and `<output>.resume` says which chunks of it are
//! durable. The order that makes a crash harmless: chunk data is made durable first, then the resume file
//! claims it. At the next start every claimed chunk is proved again before it counts, and claims that prove
//! wrong are taken back before anything else is written.
//!
//! Invariant: after a sync that failed, nothing is claimed that was written since the last good one. The system
//! reports a write that failed once, and then takes the data in memory for written: the next sync succeeds, and
//! whoever reads the file gets data that is on no disk.

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io, mem,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use proto::{Bitfield, ChunkIndex, ChunkSpan, Metainfo};

use crate::{
    content::{ChunkSource, Content, OpenChunkError},
    disk,
    error::{AtPath, DownloadError, PathError, StoreChunkError},
    file_pool::FilePool,
    hash_run::OnProgress,
    hashes::ChunkHashes,
    identity::{FileChange, FileIdentity},
    merkle,
    output::Output,
    part::{Access, Part, is_small, join},
    resume::ResumeFile,
    start::{Resumed, Start},
    survey,
};

/// Most files of a share that are written to at a time: what disks and file servers gain by more is little.
const WRITERS: usize = 8;

/// A share that is being downloaded.
#[derive(Debug)]
pub struct Download {
    metainfo: Arc<Metainfo>,
    hashes: ChunkHashes,
    output: Output,
    part: Part,
    pool: FilePool,
    /// Held while a file is written, files shared out among them. The kernel lets one thread at a time write to
    /// a file; the others would spin, and keep a core from receiving and hashing meanwhile.
    writing: [Mutex<()>; WRITERS],
    have: Mutex<Bitfield>,
    /// Locked while data is made durable and claimed.
    ledger: Mutex<Ledger>,
    /// What the files were when the share got its name; of the small ones, when they were first served after that.
    finished: OnceLock<Vec<OnceLock<FileIdentity>>>,
}

/// What is durable, and what of that the resume file claims.
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
    /// Chunks come in.
    Open(ResumeFile),
    /// A sync failed: nothing more can become durable.
    Failed(Arc<PathError>),
    /// The share has its name.
    Finished,
}

/// What storing a chunk took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Time for proving it.
    pub hashing: Duration,
    /// Time for writing it.
    pub writing: Duration,
}

impl Download {
    /// Starts or resumes a download. Checks the output, the room on disk and what an earlier run left, which
    /// is proved again; `progress` hears of the bytes as they are.
    pub fn open(
        metainfo: Arc<Metainfo>,
        hashes: ChunkHashes,
        output: Output,
        progress: OnProgress<'_>,
    ) -> Result<(Download, Resumed), DownloadError> {
        output.check_free()?;
        let part = Part::open(output.part_path(), metainfo.kind())?;
        let Start { resume, have, resumed } = Start::find(&metainfo, &hashes, &output, &part, progress)?;
        let ledger = Ledger { stage: Stage::Open(resume), is_claimed: true, durable: have.clone() };
        let download = Download {
            metainfo,
            hashes,
            output,
            part,
            pool: FilePool::default(),
            writing: Default::default(),
            have: Mutex::new(have),
            ledger: Mutex::new(ledger),
            finished: OnceLock::new(),
        };
        Ok((download, resumed))
    }

    /// Proves a chunk and writes it. `bytes` has to be as long as the chunk. A chunk that is here already is
    /// not written again.
    pub fn store(&self, chunk: ChunkIndex, bytes: &[u8]) -> Result<Stored, StoreChunkError> {
        let begun = Instant::now();
        let wrong = StoreChunkError::Wrong(chunk);
        let Some(span) = self.metainfo.chunk_space().span(chunk) else { return Err(wrong) };
        let file_len = self.metainfo.chunk_space().file_len(span.file);
        if bytes.len() != span.len as usize
            || Some(merkle::chunk_hash(bytes, file_len)) != self.hashes.get(chunk)
        {
            return Err(wrong);
        }
        let proved = Instant::now();
        let hashing = proved - begun;
        if lock(&self.have).contains(chunk) {
            return Ok(Stored { hashing, writing: Duration::ZERO });
        }
        // One that is not small must not begin again without the chunks that were in it.
        let is_small = is_small(&self.metainfo.files()[span.file]);
        let access = if is_small { Access::Create } else { Access::Write };
        let file = self.file(span.file, access)?;
        let turn = lock(&self.writing[span.file % WRITERS]);
        // The same chunk may have come by another thread. A file that is finished must not be written to.
        if !lock(&self.have).contains(chunk) {
            disk::write_all_at(&file, bytes, span.offset).map_err(|source| {
                let path = self.file_path(span.file);
                PathError { action: "write", path, source }
            })?;
            lock(&self.have).insert(chunk);
        }
        drop(turn);
        Ok(Stored { hashing, writing: proved.elapsed() })
    }

    /// The chunks that are here.
    pub fn have(&self) -> Bitfield {
        lock(&self.have).clone()
    }

    /// Whether every chunk is here.
    pub fn is_whole(&self) -> bool {
        lock(&self.have).is_full()
    }

    /// Makes what is here durable and says so in the resume file. After [`DownloadError::NotClaimed`] the download can
    /// go on; what is not claimed yet is claimed by the next checkpoint.
    pub fn checkpoint(&self) -> Result<(), DownloadError> {
        let mut ledger = lock(&self.ledger);
        if matches!(ledger.stage, Stage::Finished) {
            return Ok(());
        }
        self.part.check_there()?;
        // Taken before the data is synced: what comes in meanwhile is for the next time.
        let have = self.have();
        if have != ledger.durable {
            self.sync(&mut ledger, have)?;
        }
        ledger.claim()
    }

    /// Makes the whole share durable and gives it its final name.
    ///
    /// # Panics
    /// If a chunk is missing.
    pub fn finish(&self) -> Result<(), DownloadError> {
        let have = self.have();
        assert!(have.is_full(), "{} of {} chunks", have.count(), have.len());
        let mut ledger = lock(&self.ledger);
        self.part.check_there()?;
        self.sync(&mut ledger, have)?;
        let files = survey::identify_files(&self.part, &self.metainfo)?;
        self.output.publish(self.metainfo.kind())?;
        // Whatever fails from here on, the share has its name, and there is nothing to resume.
        let _ = self.finished.set(files);
        let stage = mem::replace(&mut ledger.stage, Stage::Finished);
        disk::sync_parent(self.output.path()).at("sync the directory of", self.output.path())?;
        if let Stage::Open(resume) = stage {
            resume.remove();
        }
        Ok(())
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
        }
        Ok(ChunkSource { file, offset: span.offset, len: span.len })
    }

    /// Proves a small file again, before it is served for the first time since the share got its name. Looking at each
    /// when the share gets it would keep everybody waiting.
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
        let is_right = Some(merkle::chunk_hash(&bytes, before)) == self.hashes.get(chunk);
        Ok((!is_right).then_some(FileChange::Written))
    }

    /// Makes the chunks of `have` durable.
    fn sync(&self, ledger: &mut Ledger, have: Bitfield) -> Result<(), DownloadError> {
        if let Stage::Failed(error) = &ledger.stage {
            return Err(DownloadError::NotDurable(Arc::clone(error)));
        }
        let space = self.metainfo.chunk_space();
        let is_new =
            |chunk: u32| have.contains(ChunkIndex(chunk)) && !ledger.durable.contains(ChunkIndex(chunk));
        let changed = (0..self.metainfo.files().len()).filter(|&file| space.chunks_of(file).any(is_new));
        let open = |file| self.file(file, Access::Write);
        match self.part.sync(&self.metainfo, changed, open) {
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
    /// Lets the resume file claim what is durable.
    fn claim(&mut self) -> Result<(), DownloadError> {
        match &mut self.stage {
            Stage::Open(resume) if !self.is_claimed => {
                resume.save(&self.durable).map_err(DownloadError::NotClaimed)?;
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
            // To be proved first, which blocks.
            return None;
        }
        let file = self.pool.opened(span.file)?;
        Some(self.source(file, span))
    }

    /// Looks at the file each time, once the share has its name: a change is noticed with the next chunk.
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
