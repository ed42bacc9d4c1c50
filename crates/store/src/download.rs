//! A download: chunks come in, are proved, and are written; what is there survives a crash.
//!
//! While it is under way the share lies in `<output>.part`, and `<output>.resume` says which chunks are in
//! it. The order that makes a crash harmless: chunk data is made durable first, then the resume file that
//! claims it. At the next start every claimed chunk is proved again before it counts, and claims that prove
//! wrong are taken back before anything else is written.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use proto::{
    Bitfield, ChunkIndex, ChunkSpan, Metainfo,
    metainfo::{FileEntry, Kind},
};

use crate::{
    content::{ChunkSource, Content, OpenChunkError},
    error::{AtPath, PathError},
    file_pool::FilePool,
    hash_run::{HashRunError, Progress, Stopped, hash_chunks},
    hashes::ChunkHashes,
    merkle,
    output::Output,
    part::{SMALL_FILE_LEN, check_space, claims, create, create_root, discard, lock, path_of},
    resume,
};

/// Files from which on making data durable asks the whole file system once rather than each file in turn.
const SYNC_ALL_FROM: usize = 8;

/// Most files of a share that are written to at a time: what disks and file servers gain by more is little.
const WRITERS: usize = 8;

/// A share that is being downloaded.
#[derive(Debug)]
pub struct Download {
    metainfo: Arc<Metainfo>,
    hashes: ChunkHashes,
    output: Output,
    part: PathBuf,
    pool: FilePool,
    /// Held while a file is written, files shared out among them. The kernel lets one thread at a time write to
    /// a file; the others would spin, and keep a core from receiving and hashing meanwhile.
    writing: [Mutex<()>; WRITERS],
    have: Mutex<Bitfield>,
    /// Chunks that the resume file claims; locked while it is written.
    durable: Mutex<Bitfield>,
    /// Held for the life of the download: two leechers on one output would undo each other's work.
    _lock: File,
}

/// Why a download cannot start, go on or finish.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The output's name is taken.
    #[error("{} exists already", .0.display())]
    OutputExists(PathBuf),
    /// The `.part` is not this share's.
    #[error("{} is in the way: {reason}", path.display())]
    PartInTheWay {
        /// The `.part` or `.resume`.
        path: PathBuf,
        /// What it is.
        reason: &'static str,
    },
    /// Another process works on the same output.
    #[error("another leecher is writing {}", .0.display())]
    Locked(PathBuf),
    /// The file system has too little room.
    #[error("{} needs {needed} more bytes, but the file system has {free} free", path.display())]
    NoSpace {
        /// Where the share was to go.
        path: PathBuf,
        /// Bytes still to be written.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// A file operation failed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The progress callback said so.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a chunk was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreChunkError {
    /// Its bytes are not the chunk's.
    #[error("chunk {} does not have its hash", .0.0)]
    Wrong(ChunkIndex),
    /// It could not be written.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// What storing a chunk took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Time for proving it.
    pub hashing: Duration,
    /// Time for writing it.
    pub writing: Duration,
}

/// What became of chunks that an earlier run claimed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Chunks that were proved again.
    pub kept: u32,
    /// Chunks that were claimed, but are not there.
    pub lost: u32,
}

impl Download {
    /// Starts or resumes a download. Checks the output, the room on disk and what an earlier run left, which
    /// is proved again; `progress` hears of the bytes as they are.
    pub fn open(
        metainfo: Arc<Metainfo>,
        hashes: ChunkHashes,
        output: Output,
        progress: Progress<'_>,
    ) -> Result<(Download, Resumed), DownloadError> {
        output.check_free()?;
        let part = output.part_path();
        let claims = claims(&metainfo, &output, &part)?;
        let new = claims.is_none();
        let chunk_count = metainfo.chunk_space().chunk_count();
        if new {
            check_space(&output, metainfo.chunk_space().total_len())?;
            let resume = output.resume_path();
            resume::save(&resume, metainfo.infohash(), &Bitfield::empty(chunk_count)).at("write", &resume)?;
        }
        let is_needed_now = |file: &FileEntry| {
            // What an earlier run was to write has to be there to be proved, or to be found wrong.
            !new || metainfo.kind() == Kind::File || !(1..=SMALL_FILE_LEN).contains(&file.node.len)
        };
        let locked = create_root(metainfo.kind(), &part)
            .and_then(|()| lock(&part))
            .and_then(|lock| create(&metainfo, &part, is_needed_now).map(|()| lock));
        let lock = match locked {
            Ok(lock) => lock,
            Err(error) => {
                // Whoever holds the lock is at work on what is there.
                if new && !matches!(error, DownloadError::Locked(_)) {
                    discard(&output);
                }
                return Err(error);
            }
        };
        let download = Download {
            part,
            pool: FilePool::default(),
            writing: Default::default(),
            have: Mutex::new(Bitfield::empty(chunk_count)),
            durable: Mutex::new(Bitfield::empty(chunk_count)),
            _lock: lock,
            metainfo,
            hashes,
            output,
        };
        let resumed = match claims {
            Some(claims) => download.prove_claims(&claims, progress)?,
            None => Resumed::default(),
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
        if lock_bits(&self.have).contains(chunk) {
            return Ok(Stored { hashing, writing: Duration::ZERO });
        }
        let file = self.file_to_write(span.file)?;
        let turn = self.writing[span.file % WRITERS].lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all_at(bytes, span.offset).map_err(|source| {
            let path = self.file_path(span.file);
            PathError { action: "write", path, source }
        })?;
        drop(turn);
        lock_bits(&self.have).insert(chunk);
        Ok(Stored { hashing, writing: proved.elapsed() })
    }

    /// The chunks that are here.
    pub fn have(&self) -> Bitfield {
        lock_bits(&self.have).clone()
    }

    /// Whether every chunk is here.
    pub fn is_whole(&self) -> bool {
        lock_bits(&self.have).is_full()
    }

    /// Makes what is here durable and says so in the resume file.
    pub fn checkpoint(&self) -> Result<(), DownloadError> {
        let mut durable = lock_bits(&self.durable);
        // Taken before the data is synced: what comes in meanwhile is for the next time.
        let have = self.have();
        if have == *durable {
            return Ok(());
        }
        self.sync_data(&have, &durable)?;
        self.save_claims(&have)?;
        *durable = have;
        Ok(())
    }

    /// Makes the whole share durable and gives it its final name.
    ///
    /// # Panics
    /// If a chunk is missing.
    pub fn finish(&self) -> Result<(), DownloadError> {
        let have = self.have();
        assert!(have.is_full(), "{} of {} chunks", have.count(), have.len());
        self.sync_data(&have, &lock_bits(&self.durable))?;
        self.output.publish().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory => {
                DownloadError::OutputExists(self.output.path().to_owned())
            }
            _ => PathError { action: "rename to", path: self.output.path().to_owned(), source: error }.into(),
        })?;
        resume::sync_parent(self.output.path()).at("sync the directory of", self.output.path())?;
        let resume = self.output.resume_path();
        fs::remove_file(&resume).at("remove", &resume)?;
        Ok(())
    }

    /// Where the share will be.
    pub fn output(&self) -> &Output {
        &self.output
    }

    fn prove_claims(&self, claims: &Bitfield, progress: Progress<'_>) -> Result<Resumed, DownloadError> {
        let chunks: Vec<_> = claims.iter().collect();
        let open = |file| self.file(file);
        let found =
            hash_chunks(self.metainfo.chunk_space(), &chunks, open, progress).map_err(
                |error| match error {
                    HashRunError::Stopped => DownloadError::Stopped(Stopped),
                    HashRunError::Open(error) => error.into(),
                    HashRunError::Read(file, source) => {
                        PathError { action: "read", path: self.file_path(file), source }.into()
                    }
                },
            )?;
        let mut have = lock_bits(&self.have);
        for (&chunk, hash) in chunks.iter().zip(found) {
            if hash.is_some() && hash == self.hashes.get(chunk) {
                have.insert(chunk);
            }
        }
        let resumed = Resumed { kept: have.count(), lost: claims.count() - have.count() };
        if resumed.lost > 0 {
            // Corrected now: a chunk that is claimed counts as synced, and one that is fetched again is not.
            self.save_claims(&have)?;
        }
        *lock_bits(&self.durable) = have.clone();
        Ok(resumed)
    }

    fn save_claims(&self, claims: &Bitfield) -> Result<(), PathError> {
        let resume = self.output.resume_path();
        resume::save(&resume, self.metainfo.infohash(), claims).at("write", &resume)
    }

    fn span_held(&self, chunk: ChunkIndex) -> Result<ChunkSpan, OpenChunkError> {
        let held = lock_bits(&self.have).contains(chunk);
        let span = if held { self.metainfo.chunk_space().span(chunk) } else { None };
        span.ok_or(OpenChunkError::NotHave(chunk))
    }

    /// Creates it, if it is small and not there yet.
    fn file_to_write(&self, index: usize) -> Result<Arc<File>, PathError> {
        self.pool.file(index, || {
            let path = self.file_path(index);
            // A larger one that is gone must not begin again without the chunks that were in it.
            let is_small = self.metainfo.files()[index].node.len <= SMALL_FILE_LEN;
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(is_small).truncate(false).open(&path).at("open", &path)
        })
    }

    fn file(&self, index: usize) -> Result<Arc<File>, PathError> {
        self.pool.file(index, || {
            let path = self.file_path(index);
            match OpenOptions::new().read(true).write(true).open(&path) {
                // Finished and renamed since: only to be read now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let path = path_of(self.output.path(), &self.metainfo.files()[index]);
                    File::open(&path).at("open", &path)
                }
                result => result.at("open", &path),
            }
        })
    }

    fn file_path(&self, index: usize) -> PathBuf {
        path_of(&self.part, &self.metainfo.files()[index])
    }

    fn sync_data(&self, have: &Bitfield, durable: &Bitfield) -> Result<(), DownloadError> {
        let space = self.metainfo.chunk_space();
        if self.metainfo.files().len() >= SYNC_ALL_FROM && sync_file_system(&self.part)? {
            return Ok(());
        }
        let news = |file: &usize| {
            space
                .chunks_of(*file)
                .map(ChunkIndex)
                .any(|chunk| have.contains(chunk) && !durable.contains(chunk))
        };
        for file in (0..self.metainfo.files().len()).filter(news) {
            self.file(file)?.sync_data().at("sync", &self.file_path(file))?;
        }
        Ok(())
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
        let file = self.pool.opened(span.file)?;
        Some(Ok(ChunkSource { file, offset: span.offset, len: span.len }))
    }

    fn open_chunk(&self, chunk: ChunkIndex) -> Result<ChunkSource, OpenChunkError> {
        let span = self.span_held(chunk)?;
        Ok(ChunkSource { file: self.file(span.file)?, offset: span.offset, len: span.len })
    }
}

fn lock_bits(bits: &Mutex<Bitfield>) -> MutexGuard<'_, Bitfield> {
    bits.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes everything on the file system of `path` durable; false where there is no such operation.
#[cfg(target_os = "linux")]
fn sync_file_system(path: &Path) -> Result<bool, PathError> {
    let file = File::open(path).at("open", path)?;
    rustix::fs::syncfs(file).at("sync", path)?;
    Ok(true)
}

/// Makes everything on the file system of `path` durable; false where there is no such operation.
#[cfg(not(target_os = "linux"))]
fn sync_file_system(_path: &Path) -> Result<bool, PathError> {
    Ok(false)
}
