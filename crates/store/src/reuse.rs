//! Chunks that are on this host already: in the version that is replaced, and where the user says.
//!
//! A file of the share is looked for at its place in each source. If it is not there, or not all of it, every file of the same length
//! is tried whose first chunk is right: the file may have been moved or renamed. Local bytes are proved like those of peers. Where the
//! file system can, a file is cloned and then proved in the part, which costs no room and no writing; its wrong chunks are fetched and
//! written over. A chunk that is wrong is remembered ([`crate::similar`]), because most of its blocks may be right.
//!
//! Whole files of a version that is replaced are linked instead ([`crate::linked`]). A file that is hashed already, by this run or by an
//! earlier one, is not read again ([`Local`]).
//!
//! Sources are only read. A source that cannot be read, or changes meanwhile, costs nothing but its chunks.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use proto::{Bitfield, ChunkIndex, Digest, ShareName, metainfo::MAX_DEPTH};
use rustix::fs::OFlags;

use crate::{
    content::Content,
    cores::on_all_cores,
    disk,
    download::Download,
    error::DownloadError,
    existing::{Existing, Found},
    hash_run::{OnProgress, Stopped},
    identity::FileState,
    linked::{Dirs, LINK_RUN, Linked, Rule},
    local::Local,
    merkle,
    part::Part,
    wanted::joined,
};

/// Maximum files of the sources that are looked at. Their paths are in memory.
const MAX_SOURCES: usize = 1_000_000;

/// Chunks that a thread takes at a time: 1 or 4 MiB in sequence, so that disks get long reads.
const RUN: usize = 8;

/// A file that may hold chunks of the share.
#[derive(Debug)]
struct Source {
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
    /// In a source whose file is to be linked, so its chunks are only proved.
    Linked(usize),
}

/// Takes what is right in the old version, of which the files may be hashed already.
pub(crate) fn fill_from_old(
    download: &Download,
    old: &Existing,
    local: Option<&Local>,
    progress: OnProgress<'_>,
) -> Result<Linked, DownloadError> {
    let root = download.output().path();
    let mut sources = Vec::new();
    for (entry, found) in download.metainfo().files().iter().zip(&old.files) {
        if let Some(Found { state, .. }) = found {
            sources.push(Source { inside: joined(&entry.path), len: state.identity.len });
        }
    }
    for inside in &old.others {
        collect(root, inside, inside.split_terminator('/').count(), &mut sources);
    }
    let filling = Filling { download, root, sources, local, progress };
    let linked = filling.linked(old)?;
    filling.same_places()?;
    filling.moved()?;
    Ok(linked)
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
        let local = download.output().proofs().and_then(|proofs| proofs.load(root));
        let filling = Filling { download, root, sources, local: local.as_ref(), progress };
        filling.same_places()?;
        filling.moved()?;
    }
    Ok(())
}

/// Where a source is.
fn path_of(root: &Path, inside: &str) -> PathBuf {
    if inside.is_empty() { root.to_owned() } else { root.join(inside) }
}

/// Finds the files of a source. Links in it are not followed.
fn collect(root: &Path, inside: &str, depth: usize, sources: &mut Vec<Source>) {
    let path = path_of(root, inside);
    let meta = if depth == 0 { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
    match meta {
        Ok(meta) if meta.is_file() && sources.len() < MAX_SOURCES => {
            sources.push(Source { inside: inside.to_owned(), len: meta.size() });
        }
        Ok(meta) if meta.is_dir() && depth < MAX_DEPTH => {
            let entries = fs::read_dir(&path).into_iter().flatten().filter_map(Result::ok);
            let mut names: Vec<_> =
                entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
            names.sort_unstable();
            for name in names {
                let inside = if inside.is_empty() { name } else { format!("{inside}/{name}") };
                collect(root, &inside, depth + 1, sources);
            }
        }
        Ok(_) => {}
        Err(error) => tracing::debug!("cannot look at {}: {error}", path.display()),
    }
}

struct Filling<'a> {
    download: &'a Download,
    /// What the sources are in.
    root: &'a Path,
    sources: Vec<Source>,
    /// What is known of the sources.
    local: Option<&'a Local>,
    progress: OnProgress<'a>,
}

/// A file of the old version that the new one may have too.
struct Candidate {
    file: usize,
    source: usize,
    /// What it was before it was read.
    state: FileState,
}

impl Filling<'_> {
    /// The incomplete files of the share that have the same place in the source.
    fn at_same_place(&self) -> Vec<(usize, usize)> {
        let by_place: HashMap<&str, usize> =
            self.sources.iter().enumerate().map(|(at, source)| (&*source.inside, at)).collect();
        let metainfo = self.download.metainfo();
        let source_of = |file: usize| {
            let place = joined(&metainfo.files()[file].path);
            // The only file of a share has no path, but a name.
            let named = || by_place.get(metainfo.name().as_str()).filter(|_| place.is_empty());
            Some((file, *by_place.get(&*place).or_else(named)?))
        };
        self.download.incomplete_files().into_iter().filter_map(source_of).collect()
    }

    /// Links files that are the same in the new version, and copies what is right of those that could be.
    fn linked(&self, old: &Existing) -> Result<Linked, DownloadError> {
        let (metainfo, space) = (self.download.metainfo(), self.download.metainfo().chunk_space());
        let chunks_of = |file| space.chunks_of(file).map(ChunkIndex);
        let rule = Rule::new(self.download.output().keeps_times());
        let (mut candidates, mut jobs) = (Vec::new(), Vec::new());
        let mut proved = Bitfield::empty(space.chunk_count());
        for (file, source) in self.at_same_place() {
            let entry = &metainfo.files()[file];
            let Some(found) = old.files[file].filter(|found| rule.allows(entry, found)) else { continue };
            if !self.download.may_link(file) {
                continue;
            }
            let names = entry.path.iter().map(ShareName::as_str);
            match self.local.and_then(|local| local.hashes_of(names, &found.state, space.chunk_len())) {
                Some(hashes) if self.download.has_hashes(file, hashes) => {
                    chunks_of(file).for_each(|chunk| _ = proved.insert(chunk));
                    self.proceed(entry.node.len)?;
                }
                // It differs: its blocks are compared when it is copied.
                Some(_) => continue,
                None if self.is_cloned(file, source) => continue,
                None => jobs.extend(chunks_of(file).map(|chunk| (chunk, Place::Linked(source)))),
            }
            candidates.push(Candidate { file, source, state: found.state });
        }
        self.run(&jobs)?.iter().for_each(|chunk| _ = proved.insert(chunk));
        let is_right = |candidate: &&Candidate| chunks_of(candidate.file).all(|chunk| proved.contains(chunk));
        let right: Vec<_> = candidates.iter().filter(is_right).collect();
        let linked = match &old.part {
            Some(part) => self.link(&right, part)?,
            None => BTreeMap::new(),
        };
        let rest = candidates.iter().filter(|candidate| !linked.contains_key(&candidate.file));
        let copies = rest.flat_map(|Candidate { file, source, .. }| {
            let right = chunks_of(*file).filter(|&chunk| proved.contains(chunk));
            right.map(|chunk| (chunk, Place::Source(*source)))
        });
        self.run(&copies.collect::<Vec<_>>())?;
        Ok(Linked::new(linked, metainfo))
    }

    /// Links files, on all cores. Returns those that are linked.
    fn link(
        &self,
        candidates: &[&Candidate],
        old: &Part,
    ) -> Result<BTreeMap<usize, FileState>, DownloadError> {
        let linked = Mutex::new(BTreeMap::new());
        on_all_cores(candidates, LINK_RUN, || {
            let (mut dirs, mut old, linked) = (self.download.linker(), Dirs::new(old), &linked);
            move |&candidate: &&Candidate| {
                let Candidate { file, state, .. } = candidate;
                if let Some(now) = self.download.link_file(&mut dirs, &mut old, *file, &state.identity)? {
                    linked.lock().unwrap_or_else(PoisonError::into_inner).insert(*file, now);
                }
                Ok::<_, DownloadError>(())
            }
        })?;
        Ok(linked.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes chunks of files that have the same place as in the share.
    fn same_places(&self) -> Result<(), DownloadError> {
        let mut jobs = Vec::new();
        for (file, source) in self.at_same_place() {
            self.add_jobs(file, source, &mut jobs);
        }
        self.run(&jobs).map(|_| ())
    }

    /// Takes chunks of files that have another place or name than in the share.
    fn moved(&self) -> Result<(), DownloadError> {
        let space = self.download.metainfo().chunk_space();
        let mut by_first: HashMap<(u64, Digest), Vec<usize>> = HashMap::new();
        let mut lens = HashMap::new();
        for file in self.download.incomplete_files() {
            let len = space.file_len(file);
            if let Some(first) = self.download.hashes().get(ChunkIndex(space.chunks_of(file).start)) {
                by_first.entry((len, first)).or_default().push(file);
                *lens.entry(len).or_insert(0_usize) += 1;
            }
        }
        if by_first.is_empty() {
            return Ok(());
        }
        let known = self.known_beginnings(|len| lens.contains_key(&len));
        let mut jobs = Vec::new();
        let mut buffer = vec![0; space.chunk_len() as usize];
        for (at, source) in self.sources.iter().enumerate() {
            if lens.get(&source.len).is_none_or(|&left| left == 0) {
                continue;
            }
            let first = match known.get(&*source.inside) {
                Some(&first) => first,
                None => match self.beginning(source, &mut buffer)? {
                    Some(first) => first,
                    None => continue,
                },
            };
            // One source is enough for each file: a file of the same length and beginning is rarely another.
            let found = by_first.remove(&(source.len, first));
            for file in found.into_iter().flatten() {
                lens.entry(source.len).and_modify(|left| *left -= 1);
                self.add_jobs(file, at, &mut jobs);
            }
        }
        self.run(&jobs).map(|_| ())
    }

    /// The hashes of the first chunks of files that are complete, by their places: what has the same place in the source is most likely
    /// where they came from. If it is not, proving its chunks is wasted work.
    fn known_beginnings(&self, is_of_use: impl Fn(u64) -> bool) -> HashMap<String, Digest> {
        let (metainfo, have) = (self.download.metainfo(), self.download.have());
        let space = metainfo.chunk_space();
        let known = |file: usize| {
            let mut chunks = space.chunks_of(file).map(ChunkIndex);
            let first = chunks.clone().next()?;
            let is_known = is_of_use(space.file_len(file)) && chunks.all(|chunk| have.contains(chunk));
            Some((
                joined(&metainfo.files()[file].path),
                self.download.hashes().get(first).filter(|_| is_known)?,
            ))
        };
        (0..metainfo.files().len()).filter_map(known).collect()
    }

    /// The hash of the first chunk of a source, `None` if it cannot be read.
    fn beginning(&self, source: &Source, buffer: &mut [u8]) -> Result<Option<Digest>, DownloadError> {
        let Source { inside, len } = source;
        let path = path_of(self.root, inside);
        let space = self.download.metainfo().chunk_space();
        if let Some(local) = self.local
            && let Ok(meta) = disk::examine(&path)
            && let Some(hashes) =
                local.hashes_of(inside.split_terminator('/'), &FileState::of(&meta), space.chunk_len())
        {
            return Ok(hashes.first().copied());
        }
        let first_len = (*len).min(buffer.len() as u64);
        let first = &mut buffer[..usize::try_from(first_len).unwrap_or(0)];
        if open(&path).is_none_or(|file| disk::read_exact_at(&file, first, 0).is_err()) {
            return Ok(None);
        }
        self.proceed(first_len)?;
        Ok(Some(merkle::chunk_hash(first, space.leaf_count(*len))))
    }

    /// Clones a file into the part, if none of it is here and the file system can.
    fn is_cloned(&self, file: usize, source: usize) -> bool {
        self.download.may_clone(file)
            && self.open(source).is_some_and(|from| self.download.clone_file(file, &from))
    }

    /// Adds the chunks of a file that are not here.
    fn add_jobs(&self, file: usize, source: usize, jobs: &mut Vec<(ChunkIndex, Place)>) {
        let len = &self.sources[source].len;
        let place = if self.is_cloned(file, source) { Place::Part } else { Place::Source(source) };
        let space = self.download.metainfo().chunk_space();
        let is_there = |chunk: &ChunkIndex| {
            space.span(*chunk).is_some_and(|span| span.offset + u64::from(span.len) <= *len)
        };
        let chunks = space.chunks_of(file).map(ChunkIndex).filter(is_there);
        let have = self.download.have();
        jobs.extend(chunks.filter(|&chunk| !have.contains(chunk)).map(|chunk| (chunk, place)));
    }

    /// Proves chunks and takes those that are right, on all cores. Returns those that are only proved.
    fn run(&self, jobs: &[(ChunkIndex, Place)]) -> Result<Bitfield, DownloadError> {
        let proved = Mutex::new(Bitfield::empty(self.download.metainfo().chunk_space().chunk_count()));
        on_all_cores(jobs, RUN, || {
            let mut worker = Worker { filling: self, proved: &proved, current: None, buffer: Vec::new() };
            move |&(chunk, place): &(ChunkIndex, Place)| worker.take(chunk, place)
        })?;
        Ok(proved.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn path_of(&self, source: usize) -> PathBuf {
        path_of(self.root, &self.sources[source].inside)
    }

    fn open(&self, source: usize) -> Option<File> {
        open(&self.path_of(source))
    }

    fn proceed(&self, bytes: u64) -> Result<(), DownloadError> {
        if (self.progress)(bytes).is_break() { Err(Stopped.into()) } else { Ok(()) }
    }
}

struct Worker<'a> {
    filling: &'a Filling<'a>,
    /// Chunks that are only proved.
    proved: &'a Mutex<Bitfield>,
    /// The source that was read last.
    current: Option<(usize, Option<File>)>,
    buffer: Vec<u8>,
}

impl Worker<'_> {
    fn take(&mut self, chunk: ChunkIndex, place: Place) -> Result<(), DownloadError> {
        let download = self.filling.download;
        let Some(span) = download.metainfo().chunk_space().span(chunk) else { return Ok(()) };
        let (Place::Source(source) | Place::Linked(source)) = place else {
            download.prove_cloned(chunk, span, &mut self.buffer)?;
            return self.filling.proceed(span.len.into());
        };
        let file = match &self.current {
            Some((current, file)) if *current == source => file,
            _ => &self.current.insert((source, self.filling.open(source))).1,
        };
        self.buffer.resize(span.len as usize, 0);
        if let Some(file) = file
            && disk::read_exact_at(file, &mut self.buffer, span.offset).is_ok()
        {
            let from = self.filling.path_of(source);
            if let Place::Source(_) = place {
                download.take_if_right(chunk, span, &self.buffer, &from)?;
            } else if download.is_right(chunk, span, &self.buffer, &from) {
                self.proved.lock().unwrap_or_else(PoisonError::into_inner).insert(chunk);
            }
        }
        self.filling.proceed(span.len.into())
    }
}

/// Opens a file on this host to read it.
pub(crate) fn open(path: &Path) -> Option<File> {
    let opened = disk::open(path, OFlags::RDONLY);
    opened.inspect_err(|error| tracing::debug!("cannot open {}: {error}", path.display())).ok()
}
