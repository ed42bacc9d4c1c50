//! A path that is shared.

use std::{
    fs::File,
    mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use proto::{
    ChunkIndex, ChunkSpan, Digest, Metainfo,
    chunk::{ChunkSpace, TooLargeError},
    metainfo::{FileNode, Kind, MetainfoError},
};

use crate::{
    cache::HashCache,
    content::{ChunkSource, Content, OpenChunkError},
    error::{AtPath, PathError},
    file_pool::FilePool,
    hash_run::{HashRunError, OnProgress, Stopped, hash_chunks},
    hashes::{ChunkHashes, HashesError, file_root},
    identity::{ChangeTime, FileChange, FileIdentity, FileState},
    part::join,
    scan::{Scan, ScanError, ScannedFile},
};
#[cfg(target_os = "linux")]
use rustix::fs::{CWD, ResolveFlags};
use rustix::fs::{Mode, OFlags};

/// A file or directory that is being shared.
#[derive(Debug)]
pub struct Shared {
    metainfo: Metainfo,
    hashes: ChunkHashes,
    /// Where the files are: a directory, or the only file.
    path: PathBuf,
    /// What each file was when it was hashed. Its path is that in the metainfo, because there may be a million.
    files: Vec<FileState>,
    pool: FilePool,
}

/// Why a path cannot be shared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The path or something below it cannot be read or shared.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A file failed while it was read.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A file changed while it was hashed.
    #[error("{} changed while it was read", .0.display())]
    Changed(PathBuf),
    /// More than a share can hold.
    #[error(transparent)]
    Metainfo(#[from] MetainfoError),
    /// More than a share can hold.
    #[error(transparent)]
    TooLarge(#[from] TooLargeError),
    /// The hash cache holds wrong hashes.
    #[error(transparent)]
    Hashes(#[from] HashesError),
    /// The progress callback stopped it.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl Scan {
    /// Hashes the files that `cache` does not know. `progress` receives every byte of the share, those of cached files at once.
    pub fn hash(self, cache: Option<&HashCache>, progress: OnProgress<'_>) -> Result<Shared, ShareError> {
        let space = ChunkSpace::new(self.files.iter().map(|file| file.identity.len))?;
        let cache = cache.map(|cache| (cache, self.begun));
        let hashes = hash_files(&space, &self.files, cache, progress)?;
        self.described(&space, hashes)
    }

    /// Hashes the files. A file may change meanwhile: what was hashed counts only for one that still is what the scan found.
    pub(crate) fn hash_once(self, progress: OnProgress<'_>) -> Result<Shared, ShareError> {
        let space = ChunkSpace::new(self.files.iter().map(|file| file.identity.len))?;
        let chunks: Vec<_> = space.chunks().collect();
        let hashes = hash_listed(&space, &self.files, &chunks, progress)?;
        self.described(&space, hashes)
    }

    fn described(mut self, space: &ChunkSpace, hashes: Vec<Digest>) -> Result<Shared, ShareError> {
        let node = |file| {
            let leaf_count = space.leaf_count(space.file_len(file));
            let pieces_root = file_root(file_hashes(space, &hashes, file), leaf_count);
            let ScannedFile { is_executable, mtime_s, .. } = self.files[file];
            FileNode { is_executable, mtime_s, ..FileNode::new(space.file_len(file), pieces_root) }
        };
        let nodes: Vec<FileNode> = (0..self.files.len()).map(node).collect();
        let state = |file: ScannedFile| FileState { identity: file.identity, changed: file.changed };
        let files = mem::take(&mut self.files).into_iter().map(state).collect();
        let mut path = mem::take(&mut self.path);
        let is_collapsible = self.is_directory();
        let metainfo = self.metainfo(nodes)?;
        // A directory that holds only a file with its own name is described as that file.
        if is_collapsible && metainfo.kind() == Kind::File {
            path.push(metainfo.name().as_str());
        }
        let hashes = ChunkHashes::prove(&metainfo, hashes)?;
        Ok(Shared { metainfo, hashes, path, files, pool: FilePool::default() })
    }
}

fn file_hashes<'a>(space: &ChunkSpace, hashes: &'a [Digest], file: usize) -> &'a [Digest] {
    let chunks = space.chunks_of(file);
    &hashes[chunks.start as usize..chunks.end as usize]
}

/// The hashes of all chunks. The cache comes with the time at which the files were looked at.
fn hash_files(
    space: &ChunkSpace,
    files: &[ScannedFile],
    cache: Option<(&HashCache, SystemTime)>,
    progress: OnProgress<'_>,
) -> Result<Vec<Digest>, ShareError> {
    let mut hashes = vec![Digest([0; 32]); space.chunk_count() as usize];
    let (mut unknown_files, mut unknown_chunks) = (Vec::new(), Vec::new());
    for (index, file) in files.iter().enumerate() {
        let chunks = space.chunks_of(index);
        match cache.and_then(|(cache, _)| cache.load(&file.identity, file.changed, space.chunk_len())) {
            Some(known) => {
                hashes[chunks.start as usize..chunks.end as usize].copy_from_slice(&known);
                if progress(file.identity.len).is_break() {
                    return Err(Stopped.into());
                }
            }
            None => {
                unknown_files.push(index);
                unknown_chunks.extend(chunks.map(ChunkIndex));
            }
        }
    }
    for (chunk, hash) in unknown_chunks.iter().zip(hash_listed(space, files, &unknown_chunks, progress)?) {
        hashes[chunk.0 as usize] = hash;
    }
    for index in unknown_files {
        // Hashes count only if the file has not changed meanwhile.
        let file = &files[index];
        let open = open_unchanged(&file.path, &file.identity)?;
        if let Some((cache, looked_at)) = cache
            && open.metadata().is_ok_and(|meta| ChangeTime::of(&meta) == file.changed)
        {
            cache.save(&file.identity, file.changed, file_hashes(space, &hashes, index), looked_at);
        }
    }
    Ok(hashes)
}

/// The hashes of some chunks. That of a chunk that is cut short is none: its file has changed.
fn hash_listed(
    space: &ChunkSpace,
    files: &[ScannedFile],
    chunks: &[ChunkIndex],
    progress: OnProgress<'_>,
) -> Result<Vec<Digest>, ShareError> {
    let open = |index: usize| open_unchanged(&files[index].path, &files[index].identity).map(Arc::new);
    let hashes = hash_chunks(space, chunks, open, |_| false, progress).map_err(|error| match error {
        HashRunError::Stopped => ShareError::Stopped(Stopped),
        HashRunError::Open(error) => ShareError::from(error),
        HashRunError::Read(index, source) => {
            let path = files[index].path.clone();
            ShareError::Path(PathError { action: "read", path, source })
        }
    })?;
    Ok(hashes.into_iter().map(|hash| hash.unwrap_or(Digest([0; 32]))).collect())
}

/// Why a scanned file can no longer be used.
enum OpenError {
    Changed(PathBuf, FileChange),
    Path(PathError),
}

impl From<OpenError> for ShareError {
    fn from(error: OpenError) -> ShareError {
        match error {
            OpenError::Changed(path, _) => ShareError::Changed(path),
            OpenError::Path(error) => ShareError::Path(error),
        }
    }
}

impl From<OpenError> for OpenChunkError {
    fn from(error: OpenError) -> OpenChunkError {
        match error {
            OpenError::Changed(path, change) => OpenChunkError::Changed { path, change },
            OpenError::Path(error) => OpenChunkError::Path(error),
        }
    }
}

fn open_unchanged(path: &Path, before: &FileIdentity) -> Result<File, OpenError> {
    // If a FIFO took the file's place, opening it would wait for a writer.
    let open = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
    let open = open.map(File::from).at("read", path).map_err(OpenError::Path)?;
    check_unchanged(&open, before, || path.to_owned())?;
    Ok(open)
}

/// Opens a file if that needs no disk because its path is in memory (`openat2` with `RESOLVE_CACHED`, Linux 5.12).
#[cfg(target_os = "linux")]
fn open_cached(path: &Path) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED);
    opened.ok().map(File::from)
}

#[cfg(not(target_os = "linux"))]
fn open_cached(_path: &Path) -> Option<File> {
    None
}

fn check_unchanged(open: &File, before: &FileIdentity, path: impl Fn() -> PathBuf) -> Result<(), OpenError> {
    let examined = open.metadata().map_err(|source| PathError { action: "read", path: path(), source });
    let meta = examined.map_err(OpenError::Path)?;
    match before.change(&FileIdentity::of(&meta)) {
        None => Ok(()),
        Some(change) => Err(OpenError::Changed(path(), change)),
    }
}

impl Content for Shared {
    fn metainfo(&self) -> &Metainfo {
        &self.metainfo
    }

    fn hashes(&self) -> &ChunkHashes {
        &self.hashes
    }

    fn try_open_chunk(&self, chunk: ChunkIndex) -> Option<Result<ChunkSource, OpenChunkError>> {
        let Some(span) = self.metainfo.chunk_space().span(chunk) else {
            return Some(Err(OpenChunkError::NotHave(chunk)));
        };
        let file = self.pool.file(span.file, || open_cached(&self.path_of(span.file)).ok_or(())).ok()?;
        Some(self.source(file, span))
    }

    /// Checks the file each time: a change after the share was made is noticed with the next chunk.
    fn open_chunk(&self, chunk: ChunkIndex) -> Result<ChunkSource, OpenChunkError> {
        let span = self.metainfo.chunk_space().span(chunk).ok_or(OpenChunkError::NotHave(chunk))?;
        let open = || open_unchanged(&self.path_of(span.file), &self.files[span.file].identity);
        let file = self.pool.file(span.file, open)?;
        self.source(file, span)
    }

    fn check(&self, is_stopped: &dyn Fn() -> bool) -> Result<(), OpenChunkError> {
        self.files.iter().enumerate().take_while(|_| !is_stopped()).try_for_each(|(file, before)| {
            let path = self.path_of(file);
            let meta = std::fs::metadata(&path).at("read", &path)?;
            match before.identity.change(&FileIdentity::of(&meta)) {
                None => Ok(()),
                Some(change) => Err(OpenChunkError::Changed { path, change }),
            }
        })
    }
}

impl Shared {
    /// Its description, its hashes, and what its files were when they were hashed.
    pub(crate) fn into_hashed(self) -> (Metainfo, ChunkHashes, Vec<FileState>) {
        (self.metainfo, self.hashes, self.files)
    }

    fn path_of(&self, file: usize) -> PathBuf {
        join(&self.path, &self.metainfo.files()[file].path)
    }

    fn source(&self, file: Arc<File>, span: ChunkSpan) -> Result<ChunkSource, OpenChunkError> {
        check_unchanged(&file, &self.files[span.file].identity, || self.path_of(span.file))?;
        Ok(ChunkSource { file, offset: span.offset, len: span.len })
    }
}
