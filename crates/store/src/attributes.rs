//! What the entries of a share have beside their content: files that can be executed, symbolic links, times.
//!
//! All of it is set when the content is whole, just before the share gets its name. Until then nothing in a part can be executed,
//! and there is no link that anything could be written through.

use std::{
    fs::{self, File, Permissions},
    io,
    num::NonZeroI64,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Once},
};

use proto::{
    Metainfo,
    metainfo::{FileNode, LinkEntry},
};
use rustix::{fs::OFlags, io::Errno};

use crate::{
    disk,
    error::{AtPath, DownloadError, PathError},
    linked::Linked,
    part::{Part, join},
    wanted::Wanted,
};

/// The permission that makes a file executable: its owner's. libtorrent looks at the same one.
const OWNER_MAY_EXECUTE: u32 = 0o100;

/// Whether a file with this mode is executable.
pub(crate) fn is_executable(mode: u32) -> bool {
    mode & OWNER_MAY_EXECUTE != 0
}

/// Sets what the share's entries have beside their content. Returns the files that have something, so that it can be made durable.
/// What an earlier run has set is among them, because that may be in memory only. A linked file has it already.
pub(crate) fn apply(
    part: &Part,
    metainfo: &Metainfo,
    wanted: &Wanted,
    keeps_times: bool,
    linked: &Linked,
    open: impl Fn(usize) -> Result<Arc<File>, PathError>,
) -> Result<Vec<usize>, DownloadError> {
    let mut changed = Vec::new();
    // Reading it takes as long as all that is done for a small file.
    let mask = mask();
    for index in wanted.positions().filter(|&file| linked.get(file).is_none()) {
        let entry = &metainfo.files()[index];
        let FileNode { is_executable, mtime_s, .. } = entry.node;
        let mtime_s = mtime_s.filter(|_| keeps_times);
        if !is_executable && mtime_s.is_none() {
            continue;
        }
        let (file, path) = (open(index)?, part.path_of(entry));
        if is_executable {
            tolerate(make_executable(&file, mask), "make it executable", &path)
                .at("make executable", &path)?;
        }
        if let Some(mtime_s) = mtime_s {
            tolerate(disk::set_mtime(&file, mtime_s), "set its time", &path).at("set the time of", &path)?;
        }
        changed.push(index);
    }
    for link in &*wanted.links(metainfo) {
        make_link(part, link, link.node.mtime_s().filter(|_| keeps_times))?;
    }
    Ok(changed)
}

fn make_executable(file: &File, mask: u32) -> io::Result<()> {
    let before = file.metadata()?.permissions().mode();
    let after = executable(before, mask);
    if after == before { Ok(()) } else { disk::set_permissions(file, Permissions::from_mode(after)) }
}

/// The permissions of a file that had `mode` and can be executed now.
pub(crate) fn executable(mode: u32, mask: u32) -> u32 {
    // New files are made for everybody to read whom the user's mask lets read them.
    mode | ((mode & 0o444) >> 2 & !mask)
}

/// The user's file mode creation mask, as far as the system reports it without changing it (Linux 4.7).
pub(crate) fn mask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(0)
}

/// Some file systems have no permissions, or only some times. The content is worth having all the same.
fn tolerate(result: io::Result<()>, what: &str, path: &Path) -> io::Result<()> {
    static WARNING: Once = Once::new();
    match result {
        Err(error) if disk::is_one_of(&error, &[Errno::PERM, Errno::NOTSUP, Errno::NOSYS, Errno::INVAL]) => {
            WARNING
                .call_once(|| tracing::warn!("the file system of {} cannot {what}: {error}", path.display()));
            Ok(())
        }
        result => result,
    }
}

/// Creates a link, unless an earlier run did.
fn make_link(part: &Part, link: &LinkEntry, mtime_s: Option<NonZeroI64>) -> Result<(), DownloadError> {
    let Some((name, parents)) = link.path.split_last() else { return Ok(()) };
    let path = join(part.path(), &link.path);
    let opened;
    let dir = match parents {
        [] => part.root(),
        parents => {
            let directory = OFlags::RDONLY | OFlags::DIRECTORY;
            opened = disk::open_below(part.root(), parents, directory).at("create", &path)?;
            &opened
        }
    };
    let text = link.text();
    match disk::make_link(dir, name.as_str(), &text) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !is_link_to(dir, name.as_str(), &text).at("examine", &path)? {
                return Err(DownloadError::PartInTheWay { path, reason: "it does not belong to the share" });
            }
        }
        made => made.at("create the link", &path)?,
    }
    part.has_new_entry();
    if let Some(mtime_s) = mtime_s {
        tolerate(disk::set_link_mtime(dir, name.as_str(), mtime_s), "set its time", &path)
            .at("set the time of", &path)?;
    }
    Ok(())
}

/// Whether there is a symbolic link with this text.
pub(crate) fn is_link_to(dir: impl std::os::fd::AsFd, name: &str, text: &str) -> io::Result<bool> {
    match disk::read_link(dir, name) {
        Ok(found) => Ok(found == text.as_bytes()),
        Err(error) if disk::is_one_of(&error, &[Errno::INVAL]) => Ok(false),
        Err(error) => Err(error),
    }
}
