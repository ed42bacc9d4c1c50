//! Compares the directory in which a share is built with the share's metainfo.
//!
//! Everything in that directory ends up in the output, so nothing else may be there. The walk goes through open directories,
//! and follows no symbolic link.

use std::{fs::File, io, path::Path, sync::OnceLock};

use proto::{
    Metainfo, ShareName,
    metainfo::{FileEntry, Kind, LinkEntry},
};
use rustix::{
    fs::{AtFlags, Dir, FileType, OFlags, Stat, statat},
    io::Errno,
};

use crate::{
    attributes::is_link_to,
    disk,
    error::{AtPath, DownloadError, PathError},
    identity::FileIdentity,
    part::{Part, is_small, join},
    wanted::Wanted,
};

/// Fails if the part holds anything that does not belong to the share, or an entry of the wrong kind. Entries may be missing.
pub(crate) fn check_nothing_foreign(part: &Part, metainfo: &Metainfo) -> Result<(), DownloadError> {
    let survey = Survey {
        part,
        kind: metainfo.kind(),
        files: metainfo.files(),
        links: metainfo.links(),
        empty_directories: metainfo.empty_directories(),
        found: None,
    };
    survey.run().map(|_| ())
}

/// Fails if the part holds anything but what is wanted of the share, or if something is missing or has another length. Returns the
/// identities of all files of the share, in order. Small files have none, because there may be many, and neither have those that are
/// not wanted.
pub(crate) fn identify_files(
    part: &Part,
    metainfo: &Metainfo,
    wanted: &Wanted,
) -> Result<Vec<OnceLock<FileIdentity>>, DownloadError> {
    let files = wanted.files(metainfo);
    let survey = Survey {
        part,
        kind: metainfo.kind(),
        files: &files,
        links: &wanted.links(metainfo),
        empty_directories: &wanted.empty_directories(metainfo),
        found: Some(Vec::with_capacity(files.len())),
    };
    let found = survey.run()?;
    if found.len() == metainfo.files().len() {
        return Ok(found);
    }
    let mut found = found.into_iter();
    let identity_of = |file| if wanted.has_file(file) { found.next() } else { None };
    Ok((0..metainfo.files().len()).map(identity_of).map(Option::unwrap_or_default).collect())
}

struct Survey<'a> {
    part: &'a Part,
    kind: Kind,
    /// What may be there, in the share's order.
    files: &'a [FileEntry],
    links: &'a [LinkEntry],
    empty_directories: &'a [Box<[ShareName]>],
    /// The files found so far; `None` if some may be missing.
    found: Option<Vec<OnceLock<FileIdentity>>>,
}

/// What a directory should have under a name.
enum Child<'a> {
    File(&'a FileEntry),
    Directory(Below<'a>),
    Link(&'a LinkEntry),
}

/// The files, links and empty directories below a directory: the parts of the share's lists that begin with its path.
#[derive(Clone, Copy)]
struct Below<'a> {
    depth: usize,
    files: &'a [FileEntry],
    links: &'a [LinkEntry],
    empty_directories: &'a [Box<[ShareName]>],
}

impl Survey<'_> {
    fn run(mut self) -> Result<Vec<OnceLock<FileIdentity>>, DownloadError> {
        let path = self.part.path();
        let root = self.part.root().try_clone().at("open", path)?;
        if self.kind == Kind::File {
            if let Some(found) = &mut self.found {
                let meta = root.metadata().at("examine", path)?;
                if meta.len() != self.files[0].node.len {
                    return Err(DownloadError::PartGone(path.to_owned()));
                }
                found.push(FileIdentity::of(&meta).into());
            }
            return Ok(self.found.unwrap_or_default());
        }
        let Survey { files, links, empty_directories, .. } = self;
        let below = Below { depth: 0, files, links, empty_directories };
        // Listed through a handle of its own, because a listing moves the handle to the end.
        let root = disk::open_in(&root, ".", OFlags::RDONLY | OFlags::DIRECTORY).at("open", path)?;
        self.directory(root, path, below)?;
        Ok(self.found.unwrap_or_default())
    }

    fn directory(&mut self, dir: File, path: &Path, below: Below<'_>) -> Result<(), DownloadError> {
        let children = below.children();
        let mut listed = disk::list(dir).at("read", path)?;
        let mut count = 0;
        while let Some(entry) = listed.read() {
            let entry = entry.at("read", path)?;
            let name = entry.file_name();
            let bytes = name.to_bytes();
            if bytes == b"." || bytes == b".." {
                continue;
            }
            let child = children.binary_search_by_key(&bytes, |(name, _)| name.as_str().as_bytes());
            let child = child.ok().map(|child| &children[child].1);
            let expected = child.map(|child| match child {
                Child::File(_) => FileType::RegularFile,
                Child::Directory(_) => FileType::Directory,
                Child::Link(_) => FileType::Symlink,
            });
            let is = match entry.file_type() {
                // Some file systems do not report the type.
                FileType::Unknown => {
                    let stat = listed.fd().and_then(|dir| statat(dir, name, AtFlags::SYMLINK_NOFOLLOW));
                    file_type(&stat.at("examine", path)?)
                }
                known => known,
            };
            let path = || path.join(String::from_utf8_lossy(bytes).as_ref());
            let is_right = expected == Some(is)
                && match child {
                    Some(Child::Link(entry)) => is_right_link(&listed, entry).at("examine", &path())?,
                    _ => true,
                };
            if !is_right {
                let path = path();
                return Err(DownloadError::PartInTheWay { path, reason: "it does not belong to the share" });
            }
            count += 1;
        }
        let dir = listed.fd().at("read", path)?;
        for (name, child) in &children {
            match child {
                Child::File(entry) => {
                    let Some(found) = &mut self.found else { continue };
                    if is_small(entry) && count == children.len() {
                        found.push(OnceLock::new());
                        continue;
                    }
                    let there =
                        present(statat(dir, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)).map_err(|source| {
                            PathError { action: "examine", path: join(self.part.path(), &entry.path), source }
                        })?;
                    let identity = there.as_ref().map(FileIdentity::of_stat);
                    match identity.filter(|identity| identity.len == entry.node.len) {
                        Some(identity) => found.push(identity.into()),
                        None => return Err(DownloadError::PartGone(join(self.part.path(), &entry.path))),
                    }
                }
                // With as many entries as there should be, none is missing.
                Child::Link(_) if self.found.is_none() || count == children.len() => {}
                Child::Link(entry) => {
                    let path = || join(self.part.path(), &entry.path);
                    let there = statat(dir, name.as_str(), AtFlags::SYMLINK_NOFOLLOW);
                    if present(there).at("examine", &path())?.is_none() {
                        return Err(DownloadError::PartGone(path()));
                    }
                }
                Child::Directory(below) => {
                    let path = path.join(name.as_str());
                    let opened = disk::open_in(dir, name.as_str(), OFlags::RDONLY | OFlags::DIRECTORY);
                    match opened {
                        Ok(dir) => self.directory(dir, &path, *below)?,
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            return Err(PathError { action: "open", path, source: error }.into());
                        }
                        Err(_) if self.found.is_some() => return Err(DownloadError::PartGone(path)),
                        Err(_) => {}
                    }
                }
            }
        }
        Ok(())
    }
}

fn is_right_link(listed: &Dir, entry: &LinkEntry) -> io::Result<bool> {
    let name = entry.path.last().map_or("", ShareName::as_str);
    is_link_to(listed.fd()?, name, &entry.text())
}

fn present(stat: Result<Stat, Errno>) -> io::Result<Option<Stat>> {
    match stat {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

impl<'a> Below<'a> {
    /// The entries of the directory, by name; all lists have the same order.
    fn children(self) -> Vec<(&'a ShareName, Child<'a>)> {
        let Below { depth, mut files, mut links, mut empty_directories } = self;
        // An empty directory is in the list under its own path.
        if let [path, ..] = empty_directories
            && path.len() == depth
        {
            return Vec::new();
        }
        let mut children = Vec::new();
        loop {
            let file = files.first().map(|entry| &entry.path[depth]);
            let link = links.first().map(|entry| &entry.path[depth]);
            let empty = empty_directories.first().map(|path| &path[depth]);
            let Some(name) = file.into_iter().chain(link).chain(empty).min() else { return children };
            if let Some((entry, rest)) = files.split_first()
                && entry.path.len() == depth + 1
                && entry.path[depth] == *name
            {
                children.push((name, Child::File(entry)));
                files = rest;
                continue;
            }
            if let Some((entry, rest)) = links.split_first()
                && entry.path.len() == depth + 1
                && entry.path[depth] == *name
            {
                children.push((name, Child::Link(entry)));
                links = rest;
                continue;
            }
            let below = Below {
                depth: depth + 1,
                files: split_off(&mut files, |entry| entry.path[depth] == *name),
                links: split_off(&mut links, |entry| entry.path[depth] == *name),
                empty_directories: split_off(&mut empty_directories, |path| path[depth] == *name),
            };
            children.push((name, Child::Directory(below)));
        }
    }
}

/// Takes off the beginning for which `belongs` is true.
fn split_off<'a, T>(list: &mut &'a [T], belongs: impl Fn(&T) -> bool) -> &'a [T] {
    let taken;
    (taken, *list) = list.split_at(list.partition_point(belongs));
    taken
}
