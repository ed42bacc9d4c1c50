//! The `.part` of a download, before there is anything in it: what an earlier run left, whether there is room, and making
//! what is to be written to.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use proto::{
    Bitfield, Metainfo,
    metainfo::{FileEntry, Kind},
};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::{
    download::DownloadError,
    error::{AtPath, PathError},
    output::Output,
    resume::{self, Resume},
    tmpfs::is_tmpfs,
};

/// A file in a directory that is no longer than this is created when its chunk is written. To reserve room for it
/// would take as long as to write it.
pub(crate) const SMALL_FILE_LEN: u64 = 64 * 1024;

/// What an earlier run left of this share; `None` if nothing.
pub(crate) fn claims(
    metainfo: &Metainfo,
    output: &Output,
    part: &Path,
) -> Result<Option<Bitfield>, DownloadError> {
    let in_the_way = |path: &Path, reason| DownloadError::PartInTheWay { path: path.to_owned(), reason };
    let path = output.resume_path();
    let left = fs::symlink_metadata(part).is_ok();
    let resume = resume::load(&path, metainfo.infohash(), metainfo.chunk_space().chunk_count());
    match resume.at("read", &path)? {
        Resume::Missing if left => {
            Err(in_the_way(part, "no resume file beside it says that it is a download"))
        }
        Resume::Missing => Ok(None),
        Resume::OtherShare(_) if left => Err(in_the_way(part, "it is a download of another share")),
        Resume::Unreadable if left => Err(in_the_way(&path, "it is damaged, or not a resume file")),
        Resume::Unreadable => Err(in_the_way(&path, "it is not a resume file")),
        Resume::OtherShare(_) => Ok(None),
        Resume::Claims(_) if !left => Ok(None),
        Resume::Claims(claims) => Ok(Some(claims)),
    }
}

/// Removes what a download that could not start has made.
pub(crate) fn discard(output: &Output) {
    let part = output.part_path();
    let removed = fs::remove_file(&part).or_else(|_| fs::remove_dir_all(&part));
    if removed.is_ok() || !part.exists() {
        let _ = fs::remove_file(output.resume_path());
    }
}

/// Refuses if the file system has fewer than `needed` bytes free.
pub(crate) fn check_space(output: &Output, needed: u64) -> Result<(), DownloadError> {
    let path = output.path();
    let dir = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let stat = statvfs(dir).at("examine", dir)?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    // A file system without blocks holds no files; creating one there says so better.
    if free < needed && stat.f_blocks > 0 {
        return Err(DownloadError::NoSpace { path: path.to_owned(), needed, free });
    }
    Ok(())
}

/// Creates the directory or the one file that all of the share is in, if it is not there yet.
pub(crate) fn create_root(kind: Kind, part: &Path) -> Result<(), DownloadError> {
    match kind {
        Kind::Directory => create_dir(part)?,
        Kind::File => {
            OpenOptions::new().create(true).truncate(false).write(true).open(part).at("create", part)?;
        }
    }
    Ok(())
}

/// Creates the directories of the share and those of its files that are needed now, or what is missing of them.
pub(crate) fn create(
    metainfo: &Metainfo,
    part: &Path,
    is_needed_now: impl Fn(&FileEntry) -> bool,
) -> Result<(), DownloadError> {
    if metainfo.kind() == Kind::Directory {
        for dir in metainfo.empty_directories() {
            let path = dir.iter().fold(part.to_owned(), |path, name| path.join(name.as_str()));
            fs::create_dir_all(&path).at("create", &path)?;
        }
    }
    let mut last_dir = None;
    for entry in metainfo.files() {
        let path = path_of(part, entry);
        if metainfo.kind() == Kind::Directory && last_dir.as_deref() != path.parent() {
            last_dir = path.parent().map(Path::to_owned);
            if let Some(dir) = &last_dir {
                fs::create_dir_all(dir).at("create", dir)?;
            }
        }
        if !is_needed_now(entry) {
            continue;
        }
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(&path).at("create", &path)?;
        let len = file.metadata().at("examine", &path)?.len();
        if len != entry.node.len {
            allocate(&file, entry.node.len).map_err(|source| no_space(metainfo, part, source, &path))?;
        }
    }
    Ok(())
}

fn create_dir(path: &Path) -> Result<(), PathError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.at("create", path),
    }
}

/// Reserves room where the file system can, so that a full disk shows now and not in the middle (of small files: see
/// [`SMALL_FILE_LEN`]). In memory that would be to write everything twice; there the free space that was seen has to do.
fn allocate(file: &File, len: u64) -> io::Result<()> {
    file.set_len(len)?;
    if len == 0 || is_tmpfs(file) {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), 0, len) {
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOSYS) => Ok(()),
        result => Ok(result?),
    }
}

fn no_space(metainfo: &Metainfo, part: &Path, source: io::Error, path: &Path) -> DownloadError {
    if source.kind() != io::ErrorKind::StorageFull {
        return PathError { action: "allocate", path: path.to_owned(), source }.into();
    }
    let free = statvfs(part).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    DownloadError::NoSpace { path: part.to_owned(), needed: metainfo.chunk_space().total_len(), free }
}

/// Sees to it that no other process works on the same output, for as long as the file is open.
pub(crate) fn lock(part: &Path) -> Result<File, DownloadError> {
    let file = File::open(part).at("open", part)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DownloadError::Locked(part.to_owned())),
        Err(TryLockError::Error(source)) => {
            Err(PathError { action: "lock", path: part.to_owned(), source }.into())
        }
    }
}

/// Where a file of the share is.
pub(crate) fn path_of(part: &Path, entry: &FileEntry) -> PathBuf {
    entry.path.iter().fold(part.to_owned(), |path, name| path.join(name.as_str()))
}
