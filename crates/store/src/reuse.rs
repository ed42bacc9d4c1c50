//! Chunks that are on this host already: in the version that is replaced, and where the user says.
//!
//! A file of the share is looked for at its place in each source. If it is not there, or not all of it, every file of the same length
//! is tried whose first chunk is right: the file may have been moved or renamed. Local bytes are proved like those of peers. Where the
//! file system can, a file is cloned and then proved in the part, which costs no room and no writing; its wrong chunks are fetched and
//! written over. A chunk that is wrong is remembered ([`crate::similar`]), because most of its blocks may be right.
//!
//! Sources are only read. A source that cannot be read, or changes meanwhile, costs nothing but its chunks.

use std::{
    collections::HashMap,
    fs::{self, File},
    num::NonZeroUsize,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use proto::{ChunkIndex, chunk::CHUNK_LEN, metainfo::MAX_DEPTH};
use rustix::fs::OFlags;

use crate::{
    content::Content,
    disk,
    download::Download,
    error::DownloadError,
    hash_run::{OnProgress, Stopped},
    merkle,
    wanted::joined,
};

/// Maximum files of the sources that are looked at. Their paths are in memory.
const MAX_SOURCES: usize = 1_000_000;

/// Chunks that a thread takes at a time: 4 MiB in sequence, so that disks get long reads.
const RUN: usize = 8;

/// A file that may hold chunks of the share.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    /// Its path below the directory that the user named; empty if the user named the file.
    inside: String,
    len: u64,
}

/// Where a chunk may be.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In a source, by its position.
    Source(usize),
    /// In the part, because its file was cloned.
    Part,
}

/// Takes what is right in these files and directories.
pub(crate) fn fill(
    download: &Download,
    roots: &[PathBuf],
    progress: OnProgress<'_>,
) -> Result<(), DownloadError> {
    for root in roots {
        if download.is_complete() {
            return Ok(());
        }
        let mut sources = Vec::new();
        collect(root, "", 0, &mut sources);
        let filling = Filling { download, sources, progress };
        filling.same_places()?;
        filling.moved()?;
    }
    Ok(())
}

/// Finds the files of a source. Links in it are not followed.
fn collect(path: &Path, inside: &str, depth: usize, sources: &mut Vec<Source>) {
    let meta = if depth == 0 { fs::metadata(path) } else { fs::symlink_metadata(path) };
    match meta {
        Ok(meta) if meta.is_file() && sources.len() < MAX_SOURCES => {
            sources.push(Source { path: path.to_owned(), inside: inside.to_owned(), len: meta.size() });
        }
        Ok(meta) if meta.is_dir() && depth < MAX_DEPTH => {
            let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
            let mut names: Vec<_> =
                entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
            names.sort_unstable();
            for name in names {
                let inside = if inside.is_empty() { name.clone() } else { format!("{inside}/{name}") };
                collect(&path.join(&name), &inside, depth + 1, sources);
            }
        }
        Ok(_) => {}
        Err(error) => tracing::debug!("cannot look at {}: {error}", path.display()),
    }
}

struct Filling<'a> {
    download: &'a Download,
    sources: Vec<Source>,
    progress: OnProgress<'a>,
}

impl Filling<'_> {
    /// Takes chunks of files that have the same place as in the share.
    fn same_places(&self) -> Result<(), DownloadError> {
        let by_place: HashMap<&str, usize> =
            self.sources.iter().enumerate().map(|(at, source)| (&*source.inside, at)).collect();
        let metainfo = self.download.metainfo();
        let mut jobs = Vec::new();
        for file in self.download.incomplete_files() {
            let place = joined(&metainfo.files()[file].path);
            // The only file of a share has no path, but a name.
            let named = || by_place.get(metainfo.name().as_str()).filter(|_| place.is_empty());
            if let Some(&source) = by_place.get(&*place).or_else(named) {
                self.add_jobs(file, source, &mut jobs);
            }
        }
        self.run(&jobs)
    }

    /// Takes chunks of files that have another place or name than in the share.
    fn moved(&self) -> Result<(), DownloadError> {
        let space = self.download.metainfo().chunk_space();
        let mut by_first: HashMap<(u64, proto::Digest), Vec<usize>> = HashMap::new();
        let mut lens = HashMap::new();
        for file in self.download.incomplete_files() {
            let len = space.file_len(file);
            if let Some(first) = self.download.hashes().get(ChunkIndex(space.chunks_of(file).start)) {
                by_first.entry((len, first)).or_default().push(file);
                *lens.entry(len).or_insert(0_usize) += 1;
            }
        }
        let mut jobs = Vec::new();
        let mut buffer = vec![0; CHUNK_LEN as usize];
        for (at, source) in self.sources.iter().enumerate() {
            if lens.get(&source.len).is_none_or(|&left| left == 0) {
                continue;
            }
            let first_len = source.len.min(CHUNK_LEN.into());
            let first = &mut buffer[..usize::try_from(first_len).unwrap_or(0)];
            if open(&source.path).is_none_or(|file| disk::read_exact_at(&file, first, 0).is_err()) {
                continue;
            }
            self.proceed(first_len)?;
            // One source is enough for each file: a file of the same length and beginning is rarely another.
            let found = by_first.remove(&(source.len, merkle::chunk_hash(first, source.len)));
            for file in found.into_iter().flatten() {
                lens.entry(source.len).and_modify(|left| *left -= 1);
                self.add_jobs(file, at, &mut jobs);
            }
        }
        self.run(&jobs)
    }

    /// Adds the chunks of a file that are not here. The file is cloned, if none of it is here and the file system can.
    fn add_jobs(&self, file: usize, source: usize, jobs: &mut Vec<(ChunkIndex, Place)>) {
        let Source { path, len, .. } = &self.sources[source];
        let cloned = self.download.may_clone(file)
            && open(path).is_some_and(|from| self.download.clone_file(file, &from));
        let place = if cloned { Place::Part } else { Place::Source(source) };
        let space = self.download.metainfo().chunk_space();
        let is_there = |chunk: &ChunkIndex| {
            space.span(*chunk).is_some_and(|span| span.offset + u64::from(span.len) <= *len)
        };
        let chunks = space.chunks_of(file).map(ChunkIndex).filter(is_there);
        let have = self.download.have();
        jobs.extend(chunks.filter(|&chunk| !have.contains(chunk)).map(|chunk| (chunk, place)));
    }

    /// Proves chunks and takes those that are right, on all cores.
    fn run(&self, jobs: &[(ChunkIndex, Place)]) -> Result<(), DownloadError> {
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        let work = || {
            let mut worker = Worker { filling: self, current: None, buffer: Vec::new() };
            loop {
                let start = next.fetch_add(RUN, Ordering::Relaxed);
                let Some(run) = jobs.get(start..).filter(|run| !run.is_empty()) else { return };
                for &(chunk, place) in &run[..run.len().min(RUN)] {
                    if let Err(error) = worker.take(chunk, place) {
                        // The other threads find no work left.
                        next.store(jobs.len(), Ordering::Relaxed);
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        return;
                    }
                }
            }
        };
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = threads.min(jobs.len().div_ceil(RUN));
        thread::scope(|scope| {
            (1..threads).for_each(|_| _ = scope.spawn(work));
            work();
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn proceed(&self, bytes: u64) -> Result<(), DownloadError> {
        if (self.progress)(bytes).is_break() { Err(Stopped.into()) } else { Ok(()) }
    }
}

struct Worker<'a> {
    filling: &'a Filling<'a>,
    /// The source that was read last.
    current: Option<(usize, Option<File>)>,
    buffer: Vec<u8>,
}

impl Worker<'_> {
    fn take(&mut self, chunk: ChunkIndex, place: Place) -> Result<(), DownloadError> {
        let Filling { download, sources, .. } = self.filling;
        let Some(span) = download.metainfo().chunk_space().span(chunk) else { return Ok(()) };
        let Place::Source(source) = place else {
            download.prove_cloned(chunk, span, &mut self.buffer)?;
            return self.filling.proceed(span.len.into());
        };
        let file = match &self.current {
            Some((current, file)) if *current == source => file,
            _ => &self.current.insert((source, open(&sources[source].path))).1,
        };
        self.buffer.resize(span.len as usize, 0);
        if let Some(file) = file
            && disk::read_exact_at(file, &mut self.buffer, span.offset).is_ok()
        {
            download.take_if_right(chunk, span, &self.buffer, &sources[source].path)?;
        }
        self.filling.proceed(span.len.into())
    }
}

/// Opens a file on this host to read it.
pub(crate) fn open(path: &Path) -> Option<File> {
    let opened = disk::open(path, OFlags::RDONLY);
    opened.inspect_err(|error| tracing::debug!("cannot open {}: {error}", path.display())).ok()
}
