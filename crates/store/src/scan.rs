//! Finding the files of a path to share.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::{self, Metadata},
    io,
    num::NonZeroI64,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

use proto::{
    ShareName,
    metainfo::{Directory, FileNode, LinkNode, MAX_DEPTH, Metainfo, MetainfoError, Node, Tree},
    name::NameError,
};

use rustix::io::Errno;

use crate::{
    attributes::is_executable,
    error::{AtPath, PathError},
    exclusion::Exclusion,
    identity::{ChangeTime, FileIdentity},
};

/// Why a path cannot be shared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// It cannot be read.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A name in it cannot be the name of a shared file.
    #[error("cannot share {}: {error}", path.display())]
    Name {
        /// The file or directory of that name.
        path: PathBuf,
        /// What is wrong with the name.
        error: NameError,
    },
    /// A socket, a device or the like.
    #[error("cannot share {}: {kind}, neither a file nor a directory", path.display())]
    Special {
        /// Its path.
        path: PathBuf,
        /// Its kind.
        kind: SpecialKind,
    },
    /// Directories too deep, or a symbolic link that leads back to a directory above it.
    #[error("cannot share {}: directories are nested deeper than {MAX_DEPTH}; check for a symbolic link to a parent", .0.display())]
    TooDeep(PathBuf),
}

/// A kind of entry that cannot be shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialKind {
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A device.
    Device,
    /// A symbolic link that is followed and leads nowhere.
    DanglingLink,
    /// A symbolic link that is kept and leads out of the share, or to all of it.
    OutsideLink,
    /// A symbolic link that is kept, and whose text is too long or holds a name that no file of a share can have.
    UnfitLink,
}

impl fmt::Display for SpecialKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SpecialKind::Fifo => "a FIFO",
            SpecialKind::Socket => "a socket",
            SpecialKind::Device => "a device",
            SpecialKind::DanglingLink => "a symbolic link that leads nowhere",
            SpecialKind::OutsideLink => "a symbolic link that leads out of the share, or to all of it",
            SpecialKind::UnfitLink => {
                "a symbolic link that is too long, or leads to a name that cannot be shared"
            }
        })
    }
}

/// What becomes of the symbolic links in a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Symlinks {
    /// Those that stay inside the share are links in the share; others cannot be shared.
    #[default]
    Keep,
    /// The share holds what they lead to.
    Follow,
    /// They are not shared.
    Skip,
}

/// Which entries of a directory are shared, and what of them.
#[derive(Debug, Clone, Default)]
pub struct ScanRules {
    /// Fail if there is something that cannot be shared, instead of leaving it out.
    pub strict: bool,
    /// Entries to leave out.
    pub exclude: Vec<Exclusion>,
    /// What becomes of symbolic links.
    pub symlinks: Symlinks,
    /// Keep the times at which files and links last changed. A share with times has another infohash.
    pub times: bool,
}

/// Entries of a directory that cannot be shared and were left out: the first few, and their number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// At most the first [`MAX_NAMED`].
    pub first: Vec<(PathBuf, SpecialKind)>,
    /// How many there are in all.
    pub count: u64,
}

/// Maximum entries that are named: enough to recognise what was left out.
const MAX_NAMED: usize = 3;

/// A file to share.
#[derive(Debug, Clone)]
pub(crate) struct ScannedFile {
    pub(crate) path: PathBuf,
    pub(crate) identity: FileIdentity,
    pub(crate) changed: ChangeTime,
    pub(crate) is_executable: bool,
    /// When its content last changed, if the share keeps that.
    pub(crate) mtime_s: Option<NonZeroI64>,
}

/// What to share: a tree whose leaves are positions in a list of files. The list is in file tree order.
#[derive(Debug)]
pub struct Scan {
    pub(crate) name: ShareName,
    /// Where the files are.
    pub(crate) path: PathBuf,
    pub(crate) files: Vec<ScannedFile>,
    /// When it began: the files are what they were then, or later.
    pub(crate) begun: SystemTime,
    left_out: LeftOut,
    root: ScannedNode,
}

#[derive(Debug)]
enum ScannedNode {
    File(usize),
    Directory(Vec<(ShareName, ScannedNode)>),
    Link(LinkNode),
}

impl Scan {
    /// Finds the files below `path`. `rules` do not apply to `path` itself, because the user named it: if it is a symbolic link, it
    /// is followed.
    pub fn new(path: &Path, name: Option<ShareName>, rules: &ScanRules) -> Result<Scan, ScanError> {
        let begun = SystemTime::now();
        let name = match name {
            Some(name) => name,
            None => own_name(path)?,
        };
        let absolute = std::path::absolute(path).at("read", path)?;
        let mut walk = Walk { root: path, absolute, rules, files: Vec::new(), left_out: LeftOut::default() };
        let root = match walk.follow(path)? {
            Err(kind) => return Err(ScanError::Special { path: path.to_owned(), kind }),
            Ok(meta) => walk.node(path, &meta, 0)?,
        };
        let path = path.to_owned();
        Ok(Scan { name, path, files: walk.files, begun, left_out: walk.left_out, root })
    }

    /// Entries that cannot be shared and were left out.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// Bytes in all files.
    pub fn total_len(&self) -> u64 {
        self.files.iter().map(|file| file.identity.len).sum()
    }

    /// Whether a directory was scanned.
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.root, ScannedNode::Directory(_))
    }

    /// Describes the share, given the files' nodes in order.
    pub(crate) fn metainfo(self, nodes: Vec<FileNode>) -> Result<Metainfo, MetainfoError> {
        let root = to_node(self.root, &nodes);
        // A million files take much memory, and the description is yet to come.
        drop(nodes);
        let tree = match root {
            Node::File(file) => Tree::File(file),
            Node::Directory(entries) => Tree::new_directory(&self.name, entries),
            // The path itself is followed, so it is no link.
            Node::Link(_) => Tree::Directory(Directory::new()),
        };
        Metainfo::new(self.name, tree)
    }
}

fn to_node(node: ScannedNode, nodes: &[FileNode]) -> Node {
    match node {
        ScannedNode::File(index) => Node::File(nodes[index]),
        ScannedNode::Link(link) => Node::Link(link),
        ScannedNode::Directory(entries) => {
            Node::Directory(entries.into_iter().map(|(name, node)| (name, to_node(node, nodes))).collect())
        }
    }
}

/// The name of `path`. `.` and `..` have the name of the directory that they lead to.
fn own_name(path: &Path) -> Result<ShareName, ScanError> {
    let full;
    let name = match path.file_name() {
        Some(name) => name,
        None => {
            full = fs::canonicalize(path).at("read", path)?;
            full.file_name().unwrap_or(OsStr::new("/"))
        }
    };
    plain(name, path)
}

fn plain(name: &OsStr, path: &Path) -> Result<ShareName, ScanError> {
    ShareName::from_bytes(name.as_bytes()).map_err(|error| ScanError::Name { path: path.to_owned(), error })
}

/// A walk through the files to share.
struct Walk<'a> {
    root: &'a Path,
    /// The same, from the root of the file system on.
    absolute: PathBuf,
    rules: &'a ScanRules,
    files: Vec<ScannedFile>,
    left_out: LeftOut,
}

/// What a path leads to.
enum Found {
    /// A file or a directory.
    Entry(Metadata),
    /// A symbolic link that is kept.
    Link(LinkNode),
    /// A symbolic link that the user does not want.
    Skipped,
    Special(SpecialKind),
}

impl Walk<'_> {
    fn node(&mut self, path: &Path, meta: &Metadata, depth: usize) -> Result<ScannedNode, ScanError> {
        if meta.is_file() {
            // Noticed now, and not after an hour of hashing.
            fs::File::open(path).at("read", path)?;
            self.files.push(ScannedFile {
                path: path.to_owned(),
                identity: FileIdentity::of(meta),
                changed: ChangeTime::of(meta),
                is_executable: is_executable(meta.mode()),
                mtime_s: self.mtime_s(meta),
            });
            return Ok(ScannedNode::File(self.files.len() - 1));
        }
        if depth > MAX_DEPTH {
            return Err(ScanError::TooDeep(path.to_owned()));
        }
        let entries: io::Result<Vec<_>> =
            fs::read_dir(path).at("read", path)?.map(|entry| entry.map(|entry| entry.file_name())).collect();
        // The order of the file tree is that of the files.
        let mut names = entries.at("read", path)?;
        names.sort();
        let mut nodes = Vec::with_capacity(names.len());
        for name in names {
            let path = path.join(&name);
            if let Some(node) = self.entry(&name, &path, depth + 1)? {
                nodes.push(node);
            }
        }
        Ok(ScannedNode::Directory(nodes))
    }

    /// An entry of a directory; `None` if it is left out.
    fn entry(
        &mut self,
        name: &OsStr,
        path: &Path,
        depth: usize,
    ) -> Result<Option<(ShareName, ScannedNode)>, ScanError> {
        // Before the entry is read: an excluded one need not be readable.
        if self.is_excluded(path, false) {
            return Ok(None);
        }
        let meta = match self.look_at(path)? {
            Found::Entry(meta) => meta,
            Found::Link(link) => return Ok(Some((plain(name, path)?, ScannedNode::Link(link)))),
            Found::Skipped => return Ok(None),
            Found::Special(kind) if self.rules.strict => {
                return Err(ScanError::Special { path: path.to_owned(), kind });
            }
            Found::Special(kind) => {
                self.left_out.count += 1;
                if self.left_out.first.len() < MAX_NAMED {
                    self.left_out.first.push((path.to_owned(), kind));
                }
                return Ok(None);
            }
        };
        if meta.is_dir() && self.is_excluded(path, true) {
            return Ok(None);
        }
        let name = plain(name, path)?;
        Ok(Some((name, self.node(path, &meta, depth)?)))
    }

    fn is_excluded(&self, path: &Path, is_directory: bool) -> bool {
        let path = path.strip_prefix(self.root).unwrap_or(path);
        self.rules.exclude.iter().any(|exclusion| exclusion.excludes(path, is_directory))
    }

    fn look_at(&self, path: &Path) -> Result<Found, ScanError> {
        let meta = match self.rules.symlinks {
            Symlinks::Follow => self.follow(path)?,
            Symlinks::Keep | Symlinks::Skip => {
                let meta = fs::symlink_metadata(path).at("read", path)?;
                match (meta.is_symlink(), self.rules.symlinks) {
                    (true, Symlinks::Skip) => return Ok(Found::Skipped),
                    (true, _) => return self.link(path, &meta),
                    (false, _) => fit(meta),
                }
            }
        };
        Ok(meta.map_or_else(Found::Special, Found::Entry))
    }

    /// What is at `path`, or where the link there leads: a file or a directory, or something that cannot be shared.
    fn follow(&self, path: &Path) -> Result<Result<Metadata, SpecialKind>, ScanError> {
        match fs::metadata(path) {
            Ok(meta) => Ok(fit(meta)),
            Err(error) if leads_nowhere(&error) && path.is_symlink() && path != self.root => {
                Ok(Err(SpecialKind::DanglingLink))
            }
            Err(error) => Err(error).at("read", path).map_err(ScanError::from),
        }
    }

    /// A symbolic link that is kept, if it stays inside the share.
    fn link(&self, path: &Path, meta: &Metadata) -> Result<Found, ScanError> {
        let text = fs::read_link(path).at("read", path)?;
        let Some(target) = self.target(path, &text).filter(|target| !target.is_empty()) else {
            return Ok(Found::Special(SpecialKind::OutsideLink));
        };
        let dir = path.strip_prefix(self.root).ok().and_then(Path::parent).unwrap_or(Path::new(""));
        let names = |names: &mut dyn Iterator<Item = &OsStr>| -> Option<Vec<ShareName>> {
            names.map(|name| ShareName::from_bytes(name.as_bytes()).ok()).collect()
        };
        let link =
            names(&mut target.iter().map(OsString::as_os_str)).and_then(|names| LinkNode::new(names.into()));
        let link = link.filter(|link| names(&mut dir.iter()).is_some_and(|dir| link.fits(&dir)));
        Ok(match link {
            Some(link) => Found::Link(link.with_mtime(self.mtime_s(meta))),
            None => Found::Special(SpecialKind::UnfitLink),
        })
    }

    /// Where a link with this text leads, as names below the share's directory; `None` if it leads out of it. As in libtorrent,
    /// the text decides, and not what is on the way.
    fn target(&self, path: &Path, text: &Path) -> Option<Vec<OsString>> {
        let (mut names, text) = match text.is_absolute() {
            true => (Vec::new(), text.strip_prefix(&self.absolute).ok()?),
            false => {
                let dir = path.strip_prefix(self.root).ok()?.parent()?;
                (dir.iter().map(OsStr::to_owned).collect(), text)
            }
        };
        for component in text.components() {
            match component {
                Component::Normal(name) => names.push(name.to_owned()),
                Component::ParentDir => _ = names.pop()?,
                Component::CurDir => {}
                Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        Some(names)
    }

    /// When it last changed, if the share keeps that.
    fn mtime_s(&self, meta: &Metadata) -> Option<NonZeroI64> {
        NonZeroI64::new(meta.mtime()).filter(|_| self.rules.times)
    }
}

/// A file or a directory, or the kind of what is neither.
fn fit(meta: Metadata) -> Result<Metadata, SpecialKind> {
    match meta.file_type() {
        kind if kind.is_file() || kind.is_dir() => Ok(meta),
        kind if kind.is_fifo() => Err(SpecialKind::Fifo),
        kind if kind.is_socket() => Err(SpecialKind::Socket),
        _ => Err(SpecialKind::Device),
    }
}

/// Whether a symbolic link leads nowhere: to nothing, or to itself.
fn leads_nowhere(error: &io::Error) -> bool {
    let is_loop = error.raw_os_error().map(Errno::from_raw_os_error) == Some(Errno::LOOP);
    is_loop || matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
