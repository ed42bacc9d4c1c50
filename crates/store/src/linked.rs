//! Files of the part that are files of the version that it replaces: hard links in place of copies.
//!
//! Only in an update, whose old version is removed as soon as the new one has its name. Until then a linked file is in both, so
//! nothing here may write to it. Four rules keep both versions whole:
//!
//! - A file is linked when all of it is proved right and nothing about it has to change: its owner is this user, and its permissions
//!   (and its time, if the share keeps times) are those that a new file would get. Nobody else has another name for it.
//! - The resume file never claims its chunks. A run that finds a file with several names in its part removes that name first, and finds
//!   the file again in the old version. So no run writes to a file that the old version has too.
//! - Before one of its chunks is served, and before the share gets its name, the file is compared with what it was when it was proved.
//! - Whatever cannot be linked is copied.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    sync::{Mutex, OnceLock, PoisonError},
};

use proto::{Bitfield, ChunkIndex, Metainfo, ShareName, metainfo::FileEntry};
use rustix::fs::{AtFlags, OFlags, Stat, fstat, statat};

use crate::{
    attributes,
    cores::on_all_cores,
    disk,
    error::{AtPath, DownloadError, PathError},
    existing::Found,
    identity::{FileIdentity, FileState},
    part::Part,
};

/// Permissions of a new file before the user's mask, and those that may differ from them.
const FILE_MODE: u32 = 0o666;
const ALL_MODES: u32 = 0o7777;

/// Files that a thread links or examines at a time: they are usually in one directory, and the system changes that for one thread at a
/// time.
pub(crate) const LINK_RUN: usize = 64;

/// The files of the part that are linked.
#[derive(Debug)]
pub(crate) struct Linked {
    /// Each with what it was when it had just been linked, by its position in the share.
    files: BTreeMap<usize, FileState>,
    chunks: Bitfield,
}

impl Linked {
    pub(crate) fn none(chunk_count: u32) -> Linked {
        Linked { files: BTreeMap::new(), chunks: Bitfield::empty(chunk_count) }
    }

    pub(crate) fn new(files: BTreeMap<usize, FileState>, metainfo: &Metainfo) -> Linked {
        let space = metainfo.chunk_space();
        let mut linked = Linked { files, ..Linked::none(space.chunk_count()) };
        let chunks = linked.files.keys().flat_map(|&file| space.chunks_of(file));
        chunks.for_each(|chunk| _ = linked.chunks.insert(ChunkIndex(chunk)));
        linked
    }

    /// What a file was when it was proved, if it is linked.
    pub(crate) fn get(&self, file: usize) -> Option<FileIdentity> {
        self.files.get(&file).map(|state| state.identity)
    }

    /// Fails if a linked file is not what it was when it was proved. `known` learns what it is. Returns the files that changed in some
    /// way all the same: perhaps they only got another name, perhaps somebody wrote to them and set their time back.
    pub(crate) fn check(
        &self,
        part: &Part,
        metainfo: &Metainfo,
        known: &[OnceLock<FileIdentity>],
    ) -> Result<Vec<usize>, DownloadError> {
        let (files, doubtful) = (self.files.iter().collect::<Vec<_>>(), Mutex::new(Vec::new()));
        on_all_cores(&files, LINK_RUN, || {
            let mut dirs = Dirs::new(part);
            let doubtful = &doubtful;
            move |&(&file, before): &(&usize, &FileState)| {
                let entry = &metainfo.files()[file];
                let now = dirs.examine(entry)?.map(|now| FileState::of_stat(&now));
                let Some(now) = now.filter(|now| now.identity == before.identity) else {
                    return Err(DownloadError::LinkChanged(part.path_of(entry)));
                };
                if now.changed != before.changed {
                    doubtful.lock().unwrap_or_else(PoisonError::into_inner).push(file);
                }
                let _ = known[file].set(before.identity);
                Ok(())
            }
        })?;
        Ok(doubtful.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the chunks of linked files out of those that can be claimed.
    pub(crate) fn unclaimed(&self, chunks: &Bitfield) -> Bitfield {
        let mut rest = chunks.clone();
        self.chunks.iter().for_each(|chunk| _ = rest.remove(chunk));
        rest
    }
}

/// Which files of this user may be linked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    user: u32,
    mask: u32,
    keeps_times: bool,
}

impl Rule {
    pub(crate) fn new(keeps_times: bool) -> Rule {
        Rule { user: rustix::process::geteuid().as_raw(), mask: attributes::mask(), keeps_times }
    }

    /// Whether this file is what a new file of the share would be, apart from its content. That it has one name only shows when it is
    /// linked.
    pub(crate) fn allows(self, entry: &FileEntry, found: &Found) -> bool {
        let FileIdentity { len, mtime_s, mtime_ns, .. } = found.state.identity;
        let new = FILE_MODE & !self.mask;
        let mode = if entry.node.is_executable { attributes::executable(new, self.mask) } else { new };
        let has_time = match entry.node.mtime_s.filter(|_| self.keeps_times) {
            Some(wanted_s) => (mtime_s, mtime_ns) == (wanted_s.get(), 0),
            None => true,
        };
        len == entry.node.len && found.owner == self.user && found.mode & ALL_MODES == mode && has_time
    }
}

/// The directory of a part, or of the old version, that was used last, open. The next file of the share is usually in it.
pub(crate) struct Dirs<'a> {
    part: &'a Part,
    dir: Option<(&'a [ShareName], File)>,
}

impl<'a> Dirs<'a> {
    pub(crate) fn new(part: &'a Part) -> Dirs<'a> {
        Dirs { part, dir: None }
    }

    /// The directory that a file is in, and its name there. `None` if the file is the share.
    fn of(&mut self, entry: &'a FileEntry) -> Result<Option<(&File, &'a str)>, PathError> {
        let Some((name, parents)) = entry.path.split_last() else { return Ok(None) };
        if parents.is_empty() {
            return Ok(Some((self.part.root(), name.as_str())));
        }
        let dir = match self.dir.take() {
            Some((open, dir)) if open == parents => dir,
            _ => disk::open_below(self.part.root(), parents, OFlags::RDONLY | OFlags::DIRECTORY)
                .at("open", &self.part.path_of(entry))?,
        };
        Ok(Some((&self.dir.insert((parents, dir)).1, name.as_str())))
    }

    /// `None` if the file is not there.
    pub(crate) fn examine(&mut self, entry: &'a FileEntry) -> Result<Option<Stat>, PathError> {
        let Some((dir, name)) = self.of(entry)? else { return Ok(fstat(self.part.root()).ok()) };
        Ok(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok())
    }

    /// Gives a file of the old version its name in the part, and returns what it is then. `None` if the file system cannot, or it is no
    /// longer what was proved.
    pub(crate) fn link(
        &mut self,
        entry: &'a FileEntry,
        old: &mut Dirs<'a>,
        proved: &FileIdentity,
    ) -> Result<Option<FileState>, PathError> {
        let part = self.part;
        let path = || part.path_of(entry);
        let Some((dir, name)) = self.of(entry)? else { return Ok(None) };
        // What cannot be opened there any more is looked for elsewhere.
        let Ok(Some((from, _))) = old.of(entry) else { return Ok(None) };
        let mut made = disk::link(from, name, dir, name);
        if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            // Its room was reserved.
            disk::remove_in(dir, name, AtFlags::empty()).at("remove", &path())?;
            made = disk::link(from, name, dir, name);
        }
        if let Err(error) = made {
            tracing::debug!("cannot link {}: {error}", path().display());
            return Ok(None);
        }
        // Between the proof and the link anything may have happened.
        if let Ok(now) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            let state = FileState::of_stat(&now);
            if state.identity == *proved && now.st_nlink == 2 {
                part.has_new_entry();
                return Ok(Some(state));
            }
        }
        disk::remove_in(dir, name, AtFlags::empty()).at("remove", &path())?;
        Ok(None)
    }
}
