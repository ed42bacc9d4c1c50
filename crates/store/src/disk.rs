//! Every call to the file system that a download makes.
//!
//! They are in one place so that tests can make any of them fail, and can record what they change. In this crate's own tests
//! each call first asks `faults`, and each change is reported to `record`. Elsewhere the first is an empty function and the
//! second is not compiled, so both cost nothing.
//!
//! Nothing here follows a symbolic link in the last name of a path, and [`open_below`] follows none at all. Nothing waits
//! for the other end of a FIFO.

use std::{
    fs::{self, File, Metadata, Permissions, TryLockError},
    io,
    num::NonZeroI64,
    ops::Range,
    os::{fd::AsFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::Once,
};

use proto::ShareName;
use rustix::{
    fs::{
        AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
    },
    io::Errno,
};

use crate::cores::on_all_cores;
#[cfg(test)]
use faults::attempt;

#[cfg(test)]
pub(crate) mod faults;
#[cfg(test)]
pub(crate) mod record;

/// In place of `faults`: nothing is made to fail.
#[cfg(not(test))]
fn attempt(_call: Call) -> io::Result<()> {
    Ok(())
}

/// A kind of call to the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Open,
    Create,
    MakeDir,
    Examine,
    List,
    Lock,
    Cut,
    Reserve,
    Read,
    Write,
    SyncData,
    SyncDirectory,
    #[cfg(any(test, target_os = "linux"))]
    SyncFileSystem,
    Rename,
    Remove,
    SetPermissions,
    SetTime,
    MakeLink,
    ReadLink,
    Clone,
    HardLink,
}

/// Given to every `open`: see the head of this file.
const ALWAYS: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Permissions of new files and directories, before the user's mask.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
const DIR_MODE: Mode = Mode::from_raw_mode(0o777);

/// Opens `path`, unless its last name is a symbolic link.
pub(crate) fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    open_in(CWD, path, flags)
}

/// Opens `name` in `dir`, unless it is a symbolic link.
pub(crate) fn open_in(dir: impl AsFd, name: impl AsRef<Path>, flags: OFlags) -> io::Result<File> {
    attempt(call_of(flags))?;
    let file: File = rustix::fs::openat(dir.as_fd(), name.as_ref(), flags | ALWAYS, FILE_MODE)?.into();
    #[cfg(test)]
    record::opened(dir, name.as_ref(), &file, flags);
    Ok(file)
}

/// Opens what is at `path` below `dir`, unless a name on the way is a symbolic link.
pub(crate) fn open_below(dir: &File, path: &[ShareName], flags: OFlags) -> io::Result<File> {
    match open_resolved(dir, path, flags) {
        // An older kernel, or a container whose filter does not know the call.
        Err(error) if is_one_of(&error, &[Errno::NOSYS, Errno::PERM]) => open_stepwise(dir, path, flags),
        result => result,
    }
}

/// With one call (`openat2`, Linux 5.6).
#[cfg(target_os = "linux")]
fn open_resolved(dir: &File, path: &[ShareName], flags: OFlags) -> io::Result<File> {
    use rustix::fs::{ResolveFlags, openat2};

    attempt(call_of(flags))?;
    let path = path.iter().map(ShareName::as_str).collect::<Vec<_>>().join("/");
    // The call refuses a mode when nothing is created.
    let mode = if flags.contains(OFlags::CREATE) { FILE_MODE } else { Mode::empty() };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file: File = openat2(dir, &path, flags | ALWAYS, mode, resolve)?.into();
    #[cfg(test)]
    record::opened(dir, path.as_ref(), &file, flags);
    Ok(file)
}

#[cfg(not(target_os = "linux"))]
fn open_resolved(_dir: &File, _path: &[ShareName], _flags: OFlags) -> io::Result<File> {
    Err(Errno::NOSYS.into())
}

/// Name by name.
fn open_stepwise(dir: &File, path: &[ShareName], flags: OFlags) -> io::Result<File> {
    let Some((name, parents)) = path.split_last() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut parent = None;
    for name in parents {
        let above = parent.as_ref().unwrap_or(dir);
        parent = Some(open_in(above, name.as_str(), OFlags::RDONLY | OFlags::DIRECTORY)?);
    }
    open_in(parent.as_ref().unwrap_or(dir), name.as_str(), flags)
}

/// Creates a directory, unless something has that name already.
pub(crate) fn make_dir(parent: impl AsFd, name: impl AsRef<Path>) -> io::Result<()> {
    attempt(Call::MakeDir)?;
    match rustix::fs::mkdirat(parent.as_fd(), name.as_ref(), DIR_MODE) {
        Err(Errno::EXIST) => return Ok(()),
        result => result?,
    }
    #[cfg(test)]
    record::made_dir(parent, name.as_ref());
    Ok(())
}

/// Metadata of `path`; of a symbolic link, those of the link.
pub(crate) fn examine(path: &Path) -> io::Result<Metadata> {
    attempt(Call::Examine)?;
    fs::symlink_metadata(path)
}

/// Which process has the lock of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockState {
    /// This one, as long as the file is open.
    Ours,
    /// Another one.
    Others,
}

/// Tries to take the lock of this file. Where the file system has no locks, this succeeds.
pub(crate) fn lock(file: &File, path: &Path) -> io::Result<LockState> {
    static WARNING: Once = Once::new();
    /// Errors of file systems without `flock`. NFS returns `EBADF` for directories, because it turns the lock into one for
    /// writers.
    const NO_LOCKS: &[Errno] = &[Errno::NOLCK, Errno::NOTSUP, Errno::NOSYS, Errno::INVAL, Errno::BADF];

    match attempt(Call::Lock).map_err(TryLockError::Error).and_then(|()| file.try_lock()) {
        Ok(()) => Ok(LockState::Ours),
        Err(TryLockError::WouldBlock) => Ok(LockState::Others),
        Err(TryLockError::Error(error)) if is_one_of(&error, NO_LOCKS) => {
            WARNING.call_once(|| {
                tracing::warn!(
                    "the file system of {} has no locks ({error}): do not start two leechers for one output",
                    path.display()
                );
            });
            Ok(LockState::Ours)
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Cuts a file that is longer than this.
pub(crate) fn cut(file: &File, len: u64) -> io::Result<()> {
    attempt(Call::Cut)?;
    resize(file, len)
}

fn resize(file: &File, len: u64) -> io::Result<()> {
    file.set_len(len)?;
    #[cfg(test)]
    record::resized(file, len);
    Ok(())
}

/// Gives a file this length, and reserves room for these parts of it where the file system can.
pub(crate) fn reserve(file: &File, len: u64, parts: &[Range<u64>]) -> io::Result<()> {
    attempt(Call::Reserve)?;
    resize(file, len)?;
    for Range { start, end } in parts {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), *start, end - start) {
            Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}

/// Makes `to` begin with the bytes of `from`, which both files share until one is written to. False where the file system cannot.
///
/// A record does not contain it: the file systems that tests run on cannot clone.
#[cfg(target_os = "linux")]
pub(crate) fn clone_contents(from: &File, to: &File) -> io::Result<bool> {
    match attempt(Call::Clone).and_then(|()| Ok(rustix::fs::ioctl_ficlone(to, from)?)) {
        Ok(()) => Ok(true),
        Err(error) if is_one_of(&error, CANNOT_CLONE) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Errors of file systems without clones, and of two files that are on different ones.
#[cfg(target_os = "linux")]
const CANNOT_CLONE: &[Errno] =
    &[Errno::NOTSUP, Errno::XDEV, Errno::INVAL, Errno::NOTTY, Errno::NOSYS, Errno::PERM];

#[cfg(not(target_os = "linux"))]
pub(crate) fn clone_contents(_from: &File, _to: &File) -> io::Result<bool> {
    Ok(false)
}

/// Bytes free for this user on the file system of `dir`; `None` if it has no blocks, and so cannot hold files.
pub(crate) fn free_space(dir: &Path) -> io::Result<Option<u64>> {
    attempt(Call::Examine)?;
    let stat = rustix::fs::statvfs(dir)?;
    Ok((stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize)))
}

pub(crate) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    attempt(Call::Read)?;
    file.read_exact_at(bytes, offset)
}

pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    if let Err(error) = attempt(Call::Write) {
        // A full disk writes what it can before it reports an error.
        write(file, &bytes[..bytes.len() / 2], offset)?;
        return Err(error);
    }
    write(file, bytes, offset)
}

fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)?;
    #[cfg(test)]
    record::wrote(file, bytes, offset);
    Ok(())
}

pub(crate) fn set_permissions(file: &File, permissions: Permissions) -> io::Result<()> {
    attempt(Call::SetPermissions)?;
    file.set_permissions(permissions.clone())?;
    #[cfg(test)]
    record::set_permissions(file, &permissions);
    Ok(())
}

/// Sets when the content of a file last changed, in seconds since 1970.
pub(crate) fn set_mtime(file: &File, mtime_s: NonZeroI64) -> io::Result<()> {
    attempt(Call::SetTime)?;
    Ok(rustix::fs::futimens(file, &changed_at(mtime_s))?)
}

/// Sets when a symbolic link was last changed, in seconds since 1970.
pub(crate) fn set_link_mtime(dir: impl AsFd, name: &str, mtime_s: NonZeroI64) -> io::Result<()> {
    attempt(Call::SetTime)?;
    Ok(rustix::fs::utimensat(dir, name, &changed_at(mtime_s), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Sets when the content of a file last changed to now.
pub(crate) fn touch(file: &File) -> io::Result<()> {
    const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };

    attempt(Call::SetTime)?;
    Ok(rustix::fs::futimens(file, &Timestamps { last_access: NOW, last_modification: NOW })?)
}

fn changed_at(mtime_s: NonZeroI64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime_s.get(), tv_nsec: 0 },
    }
}

/// Creates a symbolic link.
pub(crate) fn make_link(dir: impl AsFd, name: &str, text: &str) -> io::Result<()> {
    attempt(Call::MakeLink)?;
    rustix::fs::symlinkat(text, dir.as_fd(), name)?;
    #[cfg(test)]
    record::made_link(dir, name.as_ref(), text.as_ref());
    Ok(())
}

/// Gives the file `from` of a directory another name, in `dir`. A symbolic link is not followed.
pub(crate) fn link(from_dir: impl AsFd, from: &str, dir: impl AsFd, name: &str) -> io::Result<()> {
    attempt(Call::HardLink)?;
    rustix::fs::linkat(from_dir.as_fd(), from, dir.as_fd(), name, AtFlags::empty())?;
    #[cfg(test)]
    record::linked(from_dir, from.as_ref(), dir, name.as_ref());
    Ok(())
}

/// The text of a symbolic link.
pub(crate) fn read_link(dir: impl AsFd, name: &str) -> io::Result<Vec<u8>> {
    attempt(Call::ReadLink)?;
    Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes())
}

/// Makes what was written to a file durable, its permissions and times too.
pub(crate) fn sync_all(file: &File) -> io::Result<()> {
    attempt(Call::SyncData)?;
    file.sync_all()?;
    #[cfg(test)]
    record::synced_all(file);
    Ok(())
}

/// Makes what was written to a file durable.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    attempt(Call::SyncData)?;
    file.sync_data()?;
    #[cfg(test)]
    record::synced_data(file);
    Ok(())
}

/// Makes the entries of a directory durable, where the file system can.
pub(crate) fn sync_directory(dir: &File, path: &Path) -> io::Result<()> {
    static WARNING: Once = Once::new();

    match attempt(Call::SyncDirectory).and_then(|()| dir.sync_all()) {
        Err(error) if is_one_of(&error, &[Errno::INVAL, Errno::NOTSUP, Errno::NOSYS]) => {
            WARNING.call_once(|| {
                tracing::warn!(
                    "the file system of {} cannot sync directories ({error}): after a power failure file names may be missing",
                    path.display()
                );
            });
            Ok(())
        }
        result => {
            #[cfg(test)]
            result.is_ok().then(|| record::synced_directory(dir));
            result
        }
    }
}

/// Makes everything on the file system of `file` durable; false where there is no such operation. Fails if any write there
/// failed since `file` was opened (from Linux 5.8 on).
#[cfg(target_os = "linux")]
pub(crate) fn sync_file_system(file: &File) -> io::Result<bool> {
    match attempt(Call::SyncFileSystem).and_then(|()| Ok(rustix::fs::syncfs(file)?)) {
        Ok(()) => {
            #[cfg(test)]
            record::synced_file_system();
            Ok(true)
        }
        Err(error) if is_one_of(&error, &[Errno::INVAL, Errno::NOTSUP, Errno::NOSYS]) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn sync_file_system(_file: &File) -> io::Result<bool> {
    Ok(false)
}

/// Makes the names in the directory of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = parent_of(path);
    attempt(Call::Open)?;
    sync_directory(&File::open(parent)?, parent)
}

/// The directory that a path is in.
pub(crate) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Renames, and replaces a file that is called `to`.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    attempt(Call::Rename)?;
    fs::rename(from, to)?;
    #[cfg(test)]
    record::renamed(from, to);
    Ok(())
}

/// Renames, unless something is called `to`. False where the file system cannot do both in one step.
pub(crate) fn rename_without_replacing(from: &Path, to: &Path) -> io::Result<bool> {
    let rename = || Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?);
    match attempt(Call::Rename).and_then(|()| rename()) {
        Ok(()) => {
            #[cfg(test)]
            record::renamed(from, to);
            Ok(true)
        }
        Err(error) if is_one_of(&error, &[Errno::INVAL, Errno::NOTSUP, Errno::NOSYS]) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Exchanges what two paths name, in one step. False where the file system cannot.
pub(crate) fn exchange(one: &Path, other: &Path) -> io::Result<bool> {
    let exchange = || Ok(rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?);
    match attempt(Call::Rename).and_then(|()| exchange()) {
        Ok(()) => {
            #[cfg(test)]
            record::exchanged(one, other);
            Ok(true)
        }
        Err(error) if is_one_of(&error, &[Errno::INVAL, Errno::NOTSUP, Errno::NOSYS]) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(crate) fn remove(path: &Path) -> io::Result<()> {
    attempt(Call::Remove)?;
    fs::remove_file(path)?;
    #[cfg(test)]
    record::removed(path);
    Ok(())
}

/// Removes a directory and all that is in it. The directories in it are removed on all cores.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    attempt(Call::Remove)?;
    let mut below = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            below.push(entry.path());
        }
    }
    on_all_cores(&below, 1, || |path: &PathBuf| fs::remove_dir_all(path))?;
    fs::remove_dir_all(path)?;
    #[cfg(test)]
    record::removed(path);
    Ok(())
}

/// Removes a file, or an empty directory, from `dir`.
pub(crate) fn remove_in(dir: impl AsFd, name: &str, flags: AtFlags) -> io::Result<()> {
    attempt(Call::Remove)?;
    rustix::fs::unlinkat(dir.as_fd(), name, flags)?;
    #[cfg(test)]
    record::removed_in(dir, name.as_ref());
    Ok(())
}

/// Lists a directory; the result reads its entries.
pub(crate) fn list(dir: File) -> io::Result<rustix::fs::Dir> {
    attempt(Call::List)?;
    Ok(rustix::fs::Dir::new(dir)?)
}

fn call_of(flags: OFlags) -> Call {
    if flags.contains(OFlags::CREATE) { Call::Create } else { Call::Open }
}

pub(crate) fn is_one_of(error: &io::Error, errors: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|code| errors.iter().any(|errno| errno.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn path(names: &[&str]) -> Vec<ShareName> {
        names.iter().map(|name| ShareName::new(name).unwrap()).collect()
    }

    /// Both ways of opening: the one for old kernels must refuse the same links.
    #[test]
    fn no_symbolic_link_is_followed_below_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/real")).unwrap();
        fs::write(dir.path().join("root/real/file"), b"1").unwrap();
        fs::write(dir.path().join("victim"), b"1").unwrap();
        symlink("real", dir.path().join("root/link")).unwrap();
        symlink("../../victim", dir.path().join("root/real/out")).unwrap();
        let root = File::open(dir.path().join("root")).unwrap();
        for open in [open_resolved, open_stepwise] {
            open(&root, &path(&["real", "file"]), OFlags::RDWR).unwrap();
            open(&root, &path(&["real", "new"]), OFlags::RDWR | OFlags::CREATE).unwrap();
            for names in [&["link", "file"][..], &["link", "new2"], &["real", "out"]] {
                open(&root, &path(names), OFlags::RDWR | OFlags::CREATE).unwrap_err();
            }
        }
        assert!(!dir.path().join("root/real/new2").exists());
    }
}
