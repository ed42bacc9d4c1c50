//! The `.part` of a download: the file or directory in which the share is built.
//!
//! It is opened once and locked, and all its files are opened from it. So a rename of the part does not change what is
//! written to, and no symbolic link in it is followed.

use std::{
    collections::BTreeSet,
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use proto::{
    Bitfield, Metainfo, ShareName,
    metainfo::{FileEntry, Kind},
};
use rustix::{
    fs::{AtFlags, CWD, OFlags},
    io::Errno,
};

use crate::{
    disk::{self, LockState},
    error::{AtPath, DownloadError, PathError},
    holes,
    identity::FileId,
    tmpfs::is_tmpfs,
    wanted::Wanted,
};

/// A file in a directory that is no longer than this is created when its chunk is written. Reserving room for it would take
/// as long as writing it.
const SMALL_FILE_LEN: u64 = 64 * 1024;

/// With this many files and empty directories, data is made durable by one call for the whole file system instead of one for
/// each.
pub(crate) const SYNC_ALL_FROM: usize = 8;

/// The file or directory in which a share is built.
#[derive(Debug)]
pub(crate) struct Part {
    path: PathBuf,
    kind: Kind,
    /// The file or directory itself. It is locked while it is open: two leechers with one output would destroy each other's
    /// work.
    root: File,
    root_id: FileId,
    /// Whether files or directories were created in it since its directories were synced.
    has_new_entries: AtomicBool,
}

/// Whether a file is one of those that are created when their one chunk is written.
pub(crate) fn is_small(entry: &FileEntry) -> bool {
    !entry.path.is_empty() && (1..=SMALL_FILE_LEN).contains(&entry.node.len)
}

/// What a file of the part is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    /// Creates it, if it is not there.
    Create,
}

impl Part {
    /// Opens the part of a share, or creates an empty one, and locks it.
    pub(crate) fn open(path: PathBuf, kind: Kind) -> Result<Part, DownloadError> {
        let opened = match kind {
            Kind::File => disk::open(&path, OFlags::RDWR | OFlags::CREATE).at("create", &path),
            Kind::Directory => disk::make_dir(CWD, &path)
                .at("create", &path)
                .and_then(|()| disk::open(&path, OFlags::RDONLY | OFlags::DIRECTORY).at("open", &path)),
        };
        let is_fitting = |meta: &Metadata| match kind {
            Kind::File => meta.is_file(),
            Kind::Directory => meta.is_dir(),
        };
        let reason = match kind {
            Kind::File => "it is not a regular file",
            Kind::Directory => "it is not a directory",
        };
        let root = match opened {
            Err(_) if disk::examine(&path).is_ok_and(|meta| !is_fitting(&meta)) => {
                return Err(DownloadError::PartInTheWay { path, reason });
            }
            opened => opened?,
        };
        let meta = root.metadata().at("examine", &path)?;
        if !is_fitting(&meta) {
            return Err(DownloadError::PartInTheWay { path, reason });
        }
        let root_id = FileId::of(&meta);
        let is_ours = disk::lock(&root, &path).at("lock", &path)? == LockState::Ours;
        // The process that had the lock until now may have renamed it to the share's name since it was opened.
        if !is_ours || !root_id.is_at(&path).at("examine", &path)? {
            return Err(DownloadError::Locked(path));
        }
        Ok(Part { path, kind, root, root_id, has_new_entries: AtomicBool::new(true) })
    }

    /// Opens a finished share to read it. It is not locked, because nothing is written to it.
    pub(crate) fn existing(path: PathBuf, kind: Kind) -> Result<Part, PathError> {
        let flags = match kind {
            Kind::File => OFlags::RDONLY,
            Kind::Directory => OFlags::RDONLY | OFlags::DIRECTORY,
        };
        let root = disk::open(&path, flags).at("open", &path)?;
        let root_id = FileId::of(&root.metadata().at("examine", &path)?);
        Ok(Part { path, kind, root, root_id, has_new_entries: AtomicBool::new(true) })
    }

    /// Makes a finished share durable that may have been written by anybody.
    pub(crate) fn sync_existing(&self, metainfo: &Metainfo, wanted: &Wanted) -> Result<(), PathError> {
        let open = |file: usize| self.open_file(&metainfo.files()[file], Access::Read).map(Arc::new);
        self.sync(metainfo, wanted, wanted.positions(), &[], open)
    }

    /// Whether it is still empty.
    pub(crate) fn is_empty(&self) -> Result<bool, PathError> {
        match self.kind {
            Kind::File => Ok(self.root.metadata().at("examine", &self.path)?.len() == 0),
            Kind::Directory => Ok(fs::read_dir(&self.path).at("read", &self.path)?.next().is_none()),
        }
    }

    /// Removes it. Only for one that was empty when it was opened.
    pub(crate) fn discard(&self) {
        let removed = match self.kind {
            Kind::File => disk::remove(&self.path),
            Kind::Directory => disk::remove_tree(&self.path),
        };
        if let Err(error) = removed {
            tracing::debug!("cannot remove {}: {error}", self.path.display());
        }
    }

    /// Fails if the part is no longer where it was created: then what is written to it is lost.
    pub(crate) fn check_there(&self) -> Result<(), DownloadError> {
        match self.root_id.is_at(&self.path).at("examine", &self.path)? {
            true => Ok(()),
            false => Err(DownloadError::PartGone(self.path.clone())),
        }
    }

    /// Creates missing directories, and missing files that are not small, and reserves room for those files, but for `holes`. Only what
    /// is wanted is created.
    pub(crate) fn reserve(
        &self,
        metainfo: &Metainfo,
        wanted: &Wanted,
        holes: &Bitfield,
    ) -> Result<(), DownloadError> {
        let (links, empty) = (wanted.links(metainfo), wanted.empty_directories(metainfo));
        let mut dirs = DirStack::default();
        for dir in &*empty {
            dirs.make(self, dir)?;
        }
        for link in &*links {
            if let Some((_, parents)) = link.path.split_last() {
                dirs.make(self, parents)?;
            }
        }
        let space = metainfo.chunk_space();
        for index in wanted.positions() {
            let entry = &metainfo.files()[index];
            if let Some((_, parents)) = entry.path.split_last() {
                dirs.make(self, parents)?;
            }
            if is_small(entry) {
                continue;
            }
            let file = self.open_file(entry, Access::Create)?;
            let path = self.path_of(entry);
            if file.metadata().at("examine", &path)?.len() != entry.node.len {
                // On `tmpfs`, reserving fills memory once and writing fills it again, so only the free space was checked.
                let parts =
                    if is_tmpfs(&file) { Vec::new() } else { holes::data_ranges(space, index, holes) };
                disk::reserve(&file, entry.node.len, &parts)
                    .map_err(|source| self.no_space(metainfo, wanted, source, &path))?;
            }
        }
        Ok(())
    }

    /// Removes the files of the share that are not wanted, and directories in which nothing is left.
    pub(crate) fn remove_unwanted(&self, metainfo: &Metainfo, wanted: &Wanted) -> Result<(), PathError> {
        if wanted.is_all() {
            return Ok(());
        }
        let is_unwanted = |file: &usize| !wanted.has_file(*file);
        for file in (0..metainfo.files().len()).filter(is_unwanted) {
            self.remove_entry(&metainfo.files()[file].path, AtFlags::empty())?;
        }
        let links = wanted.links(metainfo);
        for link in metainfo.links().iter().filter(|link| !links.contains(link)) {
            self.remove_entry(&link.path, AtFlags::empty())?;
        }
        let mut kept: BTreeSet<&[ShareName]> = BTreeSet::new();
        kept.extend(links.iter().flat_map(|link| directories_above(&link.path)));
        let empty = wanted.empty_directories(metainfo);
        for file in wanted.positions() {
            kept.extend(directories_above(&metainfo.files()[file].path));
        }
        for path in &*empty {
            kept.extend(directories_above(path).chain([&path[..]]));
        }
        let above_files = metainfo.files().iter().flat_map(|entry| directories_above(&entry.path));
        let above_links = metainfo.links().iter().flat_map(|link| directories_above(&link.path));
        let all = metainfo.empty_directories().iter();
        let all = all.flat_map(|path| directories_above(path).chain([&path[..]]));
        let gone: BTreeSet<&[ShareName]> =
            above_files.chain(above_links).chain(all).filter(|dir| !kept.contains(dir)).collect();
        // Those inside come before those that they are in.
        for dir in gone.into_iter().rev() {
            self.remove_entry(dir, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }

    /// Removes the names that files of the old version have in the part of an update. Nothing may be written to those files.
    pub(crate) fn remove_links(&self, metainfo: &Metainfo) -> Result<(), PathError> {
        if self.kind == Kind::File {
            return Ok(());
        }
        for entry in metainfo.files() {
            let path = self.path_of(entry);
            // Only names that were seen not to be links are used here, and what is removed is a name.
            if disk::examine(&path).is_ok_and(|meta| meta.is_file() && meta.nlink() > 1) {
                self.remove_entry(&entry.path, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Removes an entry, if it is there.
    fn remove_entry(&self, path: &[ShareName], flags: AtFlags) -> Result<(), PathError> {
        let Some((name, parents)) = path.split_last() else { return Ok(()) };
        let removed = match parents {
            [] => disk::remove_in(&self.root, name.as_str(), flags),
            parents => disk::open_below(&self.root, parents, OFlags::RDONLY | OFlags::DIRECTORY)
                .and_then(|dir| disk::remove_in(&dir, name.as_str(), flags)),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => {
                self.has_new_entry();
                result.at("remove", &join(&self.path, path))
            }
        }
    }

    /// Opens a file of the share.
    pub(crate) fn open_file(&self, entry: &FileEntry, access: Access) -> Result<File, PathError> {
        let file = match self.kind {
            Kind::File => self.root.try_clone(),
            Kind::Directory => self.open_entry(entry, access),
        };
        file.map_err(|error| if disk::is_one_of(&error, &[Errno::LOOP]) { link_in_the_way() } else { error })
            .at("open", &self.path_of(entry))
    }

    fn open_entry(&self, entry: &FileEntry, access: Access) -> io::Result<File> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write | Access::Create => OFlags::RDWR,
        };
        if access == Access::Create {
            match disk::open_below(&self.root, &entry.path, flags | OFlags::CREATE | OFlags::EXCL) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => {
                    self.has_new_entry();
                    return created;
                }
            }
        }
        let file = disk::open_below(&self.root, &entry.path, flags)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        // A file of the old version too is not written to.
        if access != Access::Read && meta.nlink() == 1 && meta.len() > entry.node.len {
            disk::cut(&file, entry.node.len)?;
        }
        Ok(file)
    }

    /// Where a file of the share is.
    pub(crate) fn path_of(&self, entry: &FileEntry) -> PathBuf {
        join(&self.path, &entry.path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Remembers that something was created in it.
    pub(crate) fn has_new_entry(&self) {
        self.has_new_entries.store(true, Ordering::Release);
    }

    /// Makes durable what was written to the files `changed`, the permissions and times of the files `attributed`, and the names of
    /// files and directories.
    pub(crate) fn sync(
        &self,
        metainfo: &Metainfo,
        wanted: &Wanted,
        changed: impl Iterator<Item = usize>,
        attributed: &[usize],
        open: impl Fn(usize) -> Result<Arc<File>, PathError>,
    ) -> Result<(), PathError> {
        let count = metainfo.files().len() + metainfo.links().len() + metainfo.empty_directories().len();
        // The handle was open before anything was written, so it reports every write that failed.
        if count >= SYNC_ALL_FROM && disk::sync_file_system(&self.root).at("sync", &self.path)? {
            return Ok(());
        }
        for file in changed {
            disk::sync_data(&*open(file)?).at("sync", &self.path_of(&metainfo.files()[file]))?;
        }
        for &file in attributed {
            disk::sync_all(&*open(file)?).at("sync", &self.path_of(&metainfo.files()[file]))?;
        }
        self.sync_directories(metainfo, wanted)
    }

    /// The file or directory itself.
    pub(crate) fn root(&self) -> &File {
        &self.root
    }

    /// Makes the names of files and directories durable, if some are new.
    fn sync_directories(&self, metainfo: &Metainfo, wanted: &Wanted) -> Result<(), PathError> {
        if self.kind == Kind::File || !self.has_new_entries.swap(false, Ordering::Acquire) {
            return Ok(());
        }
        let links = wanted.links(metainfo);
        let paths = wanted.positions().map(|file| &metainfo.files()[file].path);
        let paths = paths.chain(links.iter().map(|link| &link.path));
        let parents = paths.filter_map(|path| path.split_last()).map(|(_, parents)| parents);
        let empty = wanted.empty_directories(metainfo);
        let empty = empty.iter().map(|path| &path[..]);
        let dirs: BTreeSet<&[ShareName]> =
            parents.chain(empty).flat_map(|path| (1..=path.len()).map(move |len| &path[..len])).collect();
        for dir in dirs {
            let path = join(&self.path, dir);
            let file =
                disk::open_below(&self.root, dir, OFlags::RDONLY | OFlags::DIRECTORY).at("open", &path)?;
            disk::sync_directory(&file, &path).at("sync", &path)?;
        }
        disk::sync_directory(&self.root, &self.path).at("sync", &self.path)
    }

    fn no_space(
        &self,
        metainfo: &Metainfo,
        wanted: &Wanted,
        source: io::Error,
        path: &Path,
    ) -> DownloadError {
        if source.kind() != io::ErrorKind::StorageFull {
            return PathError { action: "allocate", path: path.to_owned(), source }.into();
        }
        let free = disk::free_space(&self.path).ok().flatten().unwrap_or(0);
        let needed = wanted.total_len(metainfo.chunk_space());
        DownloadError::NoSpace { path: self.path.clone(), needed, free }
    }
}

/// The directories of a share that a path is in, outermost first.
fn directories_above(path: &[ShareName]) -> impl Iterator<Item = &[ShareName]> {
    (1..path.len()).map(|len| &path[..len])
}

fn link_in_the_way() -> io::Error {
    io::Error::other("a symbolic link is in its place")
}

pub(crate) fn join(root: &Path, path: &[ShareName]) -> PathBuf {
    path.iter().fold(root.to_owned(), |path, name| path.join(name.as_str()))
}

/// The directory that was created last, and those above it, open: the next one is usually near.
#[derive(Default)]
struct DirStack<'a> {
    open: Vec<(&'a ShareName, File)>,
}

impl<'a> DirStack<'a> {
    /// Creates a directory of the part, and those above it.
    fn make(&mut self, part: &Part, dir: &'a [ShareName]) -> Result<(), PathError> {
        let common = self.open.iter().zip(dir).take_while(|((open, _), name)| open == name).count();
        self.open.truncate(common);
        for name in &dir[common..] {
            let parent = self.open.last().map_or(&part.root, |(_, file)| file);
            let made = disk::make_dir(parent, name.as_str())
                .and_then(|()| disk::open_in(parent, name.as_str(), OFlags::RDONLY | OFlags::DIRECTORY))
                .at("create", &join(&part.path, dir))?;
            self.open.push((name, made));
            part.has_new_entry();
        }
        Ok(())
    }
}
