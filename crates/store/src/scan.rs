//! Finding the files of a path to share.

use std::{
    ffi::OsStr,
    fmt,
    fs::{self, Metadata},
    io,
    os::unix::{ffi::OsStrExt, fs::FileTypeExt},
    path::{Path, PathBuf},
};

use proto::{
    ShareName,
    metainfo::{FileNode, MAX_DEPTH, Metainfo, MetainfoError, Node, Tree},
    name::NameError,
};

use rustix::io::Errno;

use crate::{
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
    /// A symbolic link that leads nowhere.
    DanglingLink,
}

impl fmt::Display for SpecialKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SpecialKind::Fifo => "a FIFO",
            SpecialKind::Socket => "a socket",
            SpecialKind::Device => "a device",
            SpecialKind::DanglingLink => "a symbolic link that leads nowhere",
        })
    }
}

/// Which entries of a directory are shared.
#[derive(Debug, Clone, Default)]
pub struct ScanRules {
    /// Fail if there is something that cannot be shared, instead of leaving it out.
    pub strict: bool,
    /// Entries to leave out.
    pub exclude: Vec<Exclusion>,
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
}

/// What to share: a tree whose leaves are positions in a list of files. The list is in file tree order.
#[derive(Debug)]
pub struct Scan {
    pub(crate) name: ShareName,
    pub(crate) files: Vec<ScannedFile>,
    left_out: LeftOut,
    root: ScannedNode,
}

#[derive(Debug)]
enum ScannedNode {
    File(usize),
    Directory(Vec<(ShareName, ScannedNode)>),
}

impl Scan {
    /// Finds the files below `path`. Symbolic links are followed, so the share holds what `cat` would show. `rules` do not
    /// apply to `path` itself, because the user named it.
    pub fn new(path: &Path, name: Option<ShareName>, rules: &ScanRules) -> Result<Scan, ScanError> {
        let name = match name {
            Some(name) => name,
            None => own_name(path)?,
        };
        let mut walk = Walk { root: path, rules, files: Vec::new(), left_out: LeftOut::default() };
        let root = match walk.look_at(path)? {
            Found::Special(kind) => return Err(ScanError::Special { path: path.to_owned(), kind }),
            Found::Entry(meta) => walk.node(path, &meta, 0)?,
        };
        Ok(Scan { name, files: walk.files, left_out: walk.left_out, root })
    }

    /// Entries that cannot be shared and were left out.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// Bytes in all files.
    pub fn total_len(&self) -> u64 {
        self.files.iter().map(|file| file.identity.len).sum()
    }

    /// Describes the share, given the files' nodes in order.
    pub(crate) fn metainfo(self, nodes: &[FileNode]) -> Result<Metainfo, MetainfoError> {
        let tree = match to_node(self.root, nodes) {
            Node::File(file) => Tree::File(file),
            Node::Directory(entries) => Tree::new_directory(&self.name, entries),
        };
        Metainfo::new(self.name, tree)
    }
}

fn to_node(node: ScannedNode, nodes: &[FileNode]) -> Node {
    match node {
        ScannedNode::File(index) => Node::File(nodes[index]),
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
    rules: &'a ScanRules,
    files: Vec<ScannedFile>,
    left_out: LeftOut,
}

/// What a path leads to.
enum Found {
    /// A file or a directory.
    Entry(Metadata),
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
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if leads_nowhere(&error) && path.is_symlink() && path != self.root => {
                return Ok(Found::Special(SpecialKind::DanglingLink));
            }
            Err(error) => return Err(error).at("read", path).map_err(ScanError::from),
        };
        let kind = meta.file_type();
        Ok(if kind.is_file() || kind.is_dir() {
            Found::Entry(meta)
        } else if kind.is_fifo() {
            Found::Special(SpecialKind::Fifo)
        } else if kind.is_socket() {
            Found::Special(SpecialKind::Socket)
        } else {
            Found::Special(SpecialKind::Device)
        })
    }
}

/// Whether a symbolic link leads nowhere: to nothing, or to itself.
fn leads_nowhere(error: &io::Error) -> bool {
    let is_loop = error.raw_os_error().map(Errno::from_raw_os_error) == Some(Errno::LOOP);
    is_loop || matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
