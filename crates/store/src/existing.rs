//! What has the output's name already, compared with the share.
//!
//! Nothing here changes anything, and no symbolic link is followed, not even one of the share. What is found is proved like what arrives: a file is right
//! only if all its chunks have their hashes.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fmt,
    fs::{self, File, Metadata},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use proto::{Bitfield, ChunkIndex, Metainfo, ShareName, metainfo::Kind};
use rustix::fs::{AtFlags, FileType, OFlags, Stat, statat};

use crate::{
    attributes::is_executable,
    disk,
    error::{AtPath, DownloadError, PathError},
    file_pool::FilePool,
    hash_run::{HashRunError, OnProgress, Stopped, hash_chunks},
    hashes::ChunkHashes,
    identity::{FileIdentity, FileState},
    local::Local,
    part::{Access, Part, join},
    wanted::{Wanted, joined},
};

/// Maximum differences that are named: enough to recognise what happened.
const MAX_NAMED: usize = 20;

/// Number of chunks that are proved at a time: 2 or 8 MiB at first, then twice as many each time, up to 64 or 256 MiB. That keeps all cores busy, and
/// a wrong chunk is noticed soon. What was read until then is read again to be taken.
const FIRST_BATCH: usize = 16;
const BATCH: usize = 512;

/// How much of what is there is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    All,
    /// At least until something is found that is wrong: then no more has to be known.
    UntilWrong,
}

/// How something on disk differs from the share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// It is not there.
    Missing,
    /// The share has nothing of that name.
    Foreign,
    /// It is a directory, a file or a link in place of another of these, or none of them.
    Kind,
    /// It has other bytes, or cannot be read. Or it is a link that leads elsewhere.
    Content,
    /// It cannot be executed, and in the share it can.
    NotExecutable,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Difference::Missing => "is missing",
            Difference::Foreign => "does not belong to the share",
            Difference::Kind => "is of another kind than in the share",
            Difference::Content => "differs from the share's",
            Difference::NotExecutable => "is not executable",
        })
    }
}

/// What differs from the share: the first few, and their number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// At most the first 20.
    pub first: Vec<(PathBuf, Difference)>,
    /// How many there are in all.
    pub count: u64,
}

impl Differences {
    fn add(&mut self, path: PathBuf, difference: Difference) {
        self.count += 1;
        if self.first.len() < MAX_NAMED {
            self.first.push((path, difference));
        }
    }
}

/// Compares what is at `path` with the wanted files of a share. Other files of the share may be there, and must be right too.
pub fn check(
    metainfo: &Metainfo,
    hashes: &ChunkHashes,
    path: &Path,
    wanted: &Wanted,
    progress: OnProgress<'_>,
) -> Result<Differences, DownloadError> {
    let Some(mut existing) = Existing::find(metainfo, path)? else {
        let mut differences = Differences::default();
        differences.add(path.to_owned(), Difference::Missing);
        return Ok(differences);
    };
    existing.prove(metainfo, hashes, None, Extent::All, progress)?;
    let missing = existing.missing(metainfo, wanted);
    let mut differences = existing.differences;
    missing.into_iter().for_each(|path| differences.add(path, Difference::Missing));
    Ok(differences)
}

/// What was found when the files that are there were proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proved {
    /// Files of which no hashes were known.
    pub(crate) unknown: usize,
    pub(crate) record: Record,
}

/// The record that an earlier run left ([`crate::proofs`]), as far as it was compared with the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    Right,
    /// A file has the inode and the times that are recorded, and other bytes.
    Wrong,
}

/// A file of the share that is there with the right length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) state: FileState,
    pub(crate) owner: u32,
    pub(crate) mode: u32,
}

impl Found {
    fn of(meta: &Metadata) -> Found {
        Found { state: FileState::of(meta), owner: meta.uid(), mode: meta.mode() }
    }

    #[expect(clippy::useless_conversion, reason = "the types of these fields differ between systems")]
    fn of_stat(stat: &Stat) -> Found {
        Found { state: FileState::of_stat(stat), owner: stat.st_uid, mode: u32::from(stat.st_mode) }
    }
}

/// What has the output's name.
#[derive(Debug)]
pub(crate) struct Existing {
    path: PathBuf,
    /// `None` if it is a file and the share a directory, or the other way round.
    pub(crate) part: Option<Part>,
    /// The files of the share that are there with the right length.
    pub(crate) files: Vec<Option<Found>>,
    /// What is there beside these files: paths inside it. Chunks of the share may be in it too.
    pub(crate) others: Vec<String>,
    /// What the share has nothing of that name for.
    pub(crate) foreign: Vec<PathBuf>,
    /// Whether each link of the share is there.
    links: Vec<bool>,
    /// Whether each empty directory of the share is there.
    directories: Vec<bool>,
    /// Chunks that were proved right.
    pub(crate) right: Bitfield,
    /// What is there and differs. What is missing does not count.
    pub(crate) differences: Differences,
    is_directory: bool,
    /// A file of the share has its name there, right or wrong.
    is_related: bool,
}

/// What the share has at a path.
enum Entry {
    File(usize),
    Link(usize),
    EmptyDirectory(usize),
    Directory,
}

impl Existing {
    /// Looks at what is at `path`, without reading the files. `None` if there is nothing.
    pub(crate) fn find(metainfo: &Metainfo, path: &Path) -> Result<Option<Existing>, DownloadError> {
        let meta = match disk::examine(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            meta => meta.at("examine", path)?,
        };
        let mut existing = Existing {
            path: path.to_owned(),
            part: None,
            files: vec![None; metainfo.files().len()],
            others: Vec::new(),
            foreign: Vec::new(),
            links: vec![false; metainfo.links().len()],
            directories: vec![false; metainfo.empty_directories().len()],
            right: Bitfield::empty(metainfo.chunk_space().chunk_count()),
            differences: Differences::default(),
            is_directory: meta.is_dir(),
            is_related: false,
        };
        match metainfo.kind() {
            Kind::File if meta.is_file() => {
                existing.part = Some(Part::existing(path.to_owned(), Kind::File)?);
                existing.file(metainfo, 0, path, "", &Found::of(&meta));
            }
            Kind::Directory if meta.is_dir() => {
                let part = existing.part.insert(Part::existing(path.to_owned(), Kind::Directory)?);
                let root =
                    disk::open_in(part.root(), ".", OFlags::RDONLY | OFlags::DIRECTORY).at("open", path)?;
                existing.walk(metainfo, root, path, "", &entries(metainfo))?;
            }
            _ => {
                existing.others.push(String::new());
                existing.differences.add(path.to_owned(), Difference::Kind);
            }
        }
        Ok(Some(existing))
    }

    fn file(&mut self, metainfo: &Metainfo, file: usize, path: &Path, inside: &str, found: &Found) {
        self.is_related = true;
        if found.state.identity.len != metainfo.chunk_space().file_len(file) {
            self.others.push(inside.to_owned());
            return self.differences.add(path.to_owned(), Difference::Content);
        }
        self.files[file] = Some(*found);
        if metainfo.files()[file].node.is_executable && !is_executable(found.mode) {
            self.differences.add(path.to_owned(), Difference::NotExecutable);
        }
    }

    fn link(&mut self, metainfo: &Metainfo, link: usize, path: &Path) {
        match fs::read_link(path) {
            Ok(text) if text.as_os_str() == &*metainfo.links()[link].text() => self.links[link] = true,
            Ok(_) => self.differences.add(path.to_owned(), Difference::Content),
            // It is no link.
            Err(_) => self.differences.add(path.to_owned(), Difference::Kind),
        }
    }

    /// Looks at a directory. It is no deeper than the share.
    fn walk(
        &mut self,
        metainfo: &Metainfo,
        dir: File,
        path: &Path,
        below: &str,
        entries: &HashMap<String, Entry>,
    ) -> Result<(), PathError> {
        let mut listed = disk::list(dir).at("read", path)?;
        let mut names = Vec::new();
        while let Some(entry) = listed.read() {
            let entry = entry.at("read", path)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        // So that the same differences are named each time.
        names.sort();
        let dir = listed.fd().at("read", path)?;
        for name in names {
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            let inside = name.to_str().ok().map(|name| match below {
                "" => name.to_owned(),
                below => format!("{below}/{name}"),
            });
            let stat = statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW).at("examine", &path)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let entry = inside.as_ref().and_then(|inside| entries.get(inside));
            match (entry, inside) {
                (None, inside) => {
                    self.others.extend(inside);
                    self.foreign.push(path.clone());
                    self.differences.add(path, Difference::Foreign);
                }
                (Some(Entry::File(file)), Some(inside)) if kind == FileType::RegularFile => {
                    self.file(metainfo, *file, &path, &inside, &Found::of_stat(&stat));
                }
                (Some(Entry::Link(link)), _) => self.link(metainfo, *link, &path),
                (Some(entry @ (Entry::EmptyDirectory(_) | Entry::Directory)), Some(inside))
                    if kind == FileType::Directory =>
                {
                    if let Entry::EmptyDirectory(number) = entry {
                        self.directories[*number] = true;
                    }
                    let opened =
                        disk::open_in(dir, &*name.to_string_lossy(), OFlags::RDONLY | OFlags::DIRECTORY);
                    self.walk(metainfo, opened.at("read", &path)?, &path, &inside, entries)?;
                }
                (Some(_), inside) => {
                    self.others.extend(inside);
                    self.differences.add(path, Difference::Kind);
                }
            }
        }
        Ok(())
    }

    /// Proves the files that are there.
    ///
    /// Files that this run has hashed are not read again. A record of an earlier run only shows what is wrong: all that it has is read
    /// before it counts as right. Files that it does not know are read first, because what is wrong is most likely among them.
    pub(crate) fn prove(
        &mut self,
        metainfo: &Metainfo,
        hashes: &ChunkHashes,
        local: Option<&Local>,
        extent: Extent,
        progress: OnProgress<'_>,
    ) -> Result<Proved, DownloadError> {
        let mut proved = Proved { unknown: 0, record: Record::Right };
        let Some(part) = &self.part else { return Ok(proved) };
        let space = metainfo.chunk_space();
        let chunks_of = |file| space.chunks_of(file).map(ChunkIndex);
        let there =
            || self.files.iter().enumerate().filter_map(|(file, there)| Some((file, (*there)?.state)));
        let mut right = Bitfield::empty(space.chunk_count());
        let (mut unread, mut recorded, mut is_wrong) = (Vec::new(), Vec::new(), false);
        let mut is_read = vec![true; self.files.len()];
        for (file, state) in there() {
            let names = metainfo.files()[file].path.iter().map(ShareName::as_str);
            let Some(known) = local.and_then(|local| local.hashes_of(names, &state, space.chunk_len()))
            else {
                proved.unknown += 1;
                unread.extend(chunks_of(file));
                continue;
            };
            for (chunk, hash) in chunks_of(file).zip(known) {
                if hashes.get(chunk) == Some(*hash) {
                    right.insert(chunk);
                } else {
                    is_wrong = true;
                }
            }
            if local.is_some_and(Local::is_recorded) {
                recorded.extend(chunks_of(file));
            } else {
                is_read[file] = false;
            }
        }
        // Once something is wrong, no more has to be known.
        let is_known_wrong = is_wrong && extent == Extent::UntilWrong;
        if is_known_wrong {
            is_read.fill(false);
        } else {
            unread.append(&mut recorded);
        }
        let chunks = if is_known_wrong { Vec::new() } else { unread };
        let pool = FilePool::default();
        let open = |file: usize| pool.file(file, || part.open_file(&metainfo.files()[file], Access::Read));
        // Whatever cannot be read differs.
        let is_lost = |error: &HashRunError<PathError>| !matches!(error, HashRunError::Stopped);
        let (mut left, mut len) = (&chunks[..], FIRST_BATCH);
        while !left.is_empty() {
            let (batch, rest) = left.split_at(len.min(left.len()));
            (left, len) = (rest, BATCH.min(2 * len));
            let found = hash_chunks(space, batch, open, is_lost, progress).map_err(|_| Stopped)?;
            let mut is_batch_right = true;
            for (&chunk, hash) in batch.iter().zip(found) {
                if hash.is_some() && hash == hashes.get(chunk) {
                    right.insert(chunk);
                    continue;
                }
                is_batch_right = false;
                if right.remove(chunk) {
                    proved.record = Record::Wrong;
                }
            }
            // The rest counts as wrong, unless it is recorded.
            if extent == Extent::UntilWrong && !is_batch_right {
                break;
            }
        }
        let mut wrong = Vec::new();
        for (file, before) in there() {
            let is_right = chunks_of(file).all(|chunk| right.contains(chunk));
            // What was written while it was read may not be what was hashed.
            let now = || open(file).ok()?.metadata().ok().map(|meta| FileIdentity::of(&meta));
            if !is_right || (is_read[file] && now() != Some(before.identity)) {
                wrong.push(file);
            }
        }
        for file in wrong {
            self.differences.add(join(&self.path, &metainfo.files()[file].path), Difference::Content);
        }
        self.right = right;
        Ok(proved)
    }

    /// What is known of the files, for a download that serves them.
    pub(crate) fn identities(&self) -> Vec<OnceLock<FileIdentity>> {
        let known =
            |found: &Option<Found>| found.map_or_else(OnceLock::new, |found| found.state.identity.into());
        self.files.iter().map(known).collect()
    }

    /// What a new version of which this is wanted does not have.
    pub(crate) fn not_in(&self, metainfo: &Metainfo, wanted: &Wanted) -> Vec<PathBuf> {
        let is_left_out = |&file: &usize| self.files[file].is_some() && !wanted.has_file(file);
        let left_out = (0..self.files.len()).filter(is_left_out);
        let left_out = left_out.map(|file| join(&self.path, &metainfo.files()[file].path));
        let mut all: Vec<_> = self.foreign.iter().cloned().chain(left_out).collect();
        all.sort_unstable();
        all
    }

    /// Notes that a file changed since it was proved.
    pub(crate) fn note_changed(&mut self, metainfo: &Metainfo, file: usize) {
        self.differences.add(join(&self.path, &metainfo.files()[file].path), Difference::Content);
    }

    /// What is wanted and not there.
    pub(crate) fn missing(&self, metainfo: &Metainfo, wanted: &Wanted) -> Vec<PathBuf> {
        if self.part.is_none() {
            return Vec::new();
        }
        let files = wanted.positions().filter(|&file| self.files[file].is_none());
        let files = files.map(|file| &metainfo.files()[file].path);
        let links = wanted.link_positions().filter(|&number| !self.links[number]);
        let links = links.map(|number| &metainfo.links()[number].path);
        let directories = wanted.directory_positions().filter(|&number| !self.directories[number]);
        let directories = directories.map(|number| &metainfo.empty_directories()[number]);
        let paths = files.chain(links).chain(directories).map(|path| join(&self.path, path));
        // What is there and differs is not missing.
        paths.filter(|path| fs::symlink_metadata(path).is_err()).collect()
    }

    /// Adds everything of the share that is there to what is wanted.
    pub(crate) fn add_to(&self, wanted: &mut Wanted) {
        let there = |(at, is_there): (usize, bool)| is_there.then_some(at);
        let files = self.files.iter().map(Option::is_some).enumerate().filter_map(there);
        files.for_each(|file| wanted.add_file(file));
        let links = self.links.iter().copied().enumerate().filter_map(there);
        links.for_each(|number| wanted.add_link(number));
        let directories = self.directories.iter().copied().enumerate().filter_map(there);
        directories.for_each(|number| wanted.add_directory(number));
    }

    /// Whether nothing in this directory has to do with the share.
    pub(crate) fn is_unrelated(&self) -> bool {
        self.is_directory && !self.is_related
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.is_directory
    }
}

/// What the share has, by path inside it.
fn entries(metainfo: &Metainfo) -> HashMap<String, Entry> {
    let mut entries = HashMap::new();
    let mut add = |path: &[ShareName], entry: Entry| {
        for len in 1..path.len() {
            entries.entry(joined(&path[..len])).or_insert(Entry::Directory);
        }
        entries.insert(joined(path), entry);
    };
    for (file, entry) in metainfo.files().iter().enumerate() {
        add(&entry.path, Entry::File(file));
    }
    for (number, link) in metainfo.links().iter().enumerate() {
        add(&link.path, Entry::Link(number));
    }
    for (number, path) in metainfo.empty_directories().iter().enumerate() {
        add(path, Entry::EmptyDirectory(number));
    }
    entries
}
