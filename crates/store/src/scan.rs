//! Finding the files of a path that is to be shared.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use proto::{
    ShareName,
    metainfo::{FileNode, MAX_DEPTH, Metainfo, MetainfoError, Node, Tree},
    name::NameError,
};

use crate::{
    error::{AtPath, PathError},
    identity::FileIdentity,
};

/// Why a path cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// It cannot be read.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A name in it cannot be the name of a shared file.
    #[error("cannot share {}: {source}", path.display())]
    Name {
        /// The file or directory of that name.
        path: PathBuf,
        /// What is wrong with the name.
        source: NameError,
    },
    /// A socket, a device or the like.
    #[error("cannot share {}: neither a file nor a directory", .0.display())]
    Special(PathBuf),
    /// Directories too deep, or a symbolic link that leads back to a directory above it.
    #[error("cannot share {}: directories nested deeper than {MAX_DEPTH} (a symbolic link to a parent?)", .0.display())]
    TooDeep(PathBuf),
}

/// A file that is to be shared.
#[derive(Debug, Clone)]
pub(crate) struct ScannedFile {
    pub(crate) path: PathBuf,
    pub(crate) identity: FileIdentity,
}

/// What is to be shared: a tree of positions in a list of files in file tree order.
#[derive(Debug)]
pub struct Scan {
    pub(crate) name: ShareName,
    pub(crate) files: Vec<ScannedFile>,
    root: ScannedNode,
}

#[derive(Debug)]
enum ScannedNode {
    File(usize),
    Directory(Vec<(ShareName, ScannedNode)>),
}

impl Scan {
    /// Finds the files below `path`. Symbolic links are followed: what is shared is what `cat` would show.
    pub fn new(path: &Path, name: Option<ShareName>) -> Result<Scan, ScanError> {
        let name = match name {
            Some(name) => name,
            None => own_name(path)?,
        };
        let mut files = Vec::new();
        let root = scan_node(path, 0, &mut files)?;
        Ok(Scan { name, files, root })
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

/// What `path` is called; `.` and `..` are called what they lead to.
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
    ShareName::from_bytes(name.as_bytes()).map_err(|source| ScanError::Name { path: path.to_owned(), source })
}

fn scan_node(path: &Path, depth: usize, files: &mut Vec<ScannedFile>) -> Result<ScannedNode, ScanError> {
    let meta = fs::metadata(path).at("read", path)?;
    if meta.is_file() {
        // Known unreadable now, rather than after an hour of hashing.
        fs::File::open(path).at("read", path)?;
        files.push(ScannedFile { path: path.to_owned(), identity: FileIdentity::of(&meta) });
        return Ok(ScannedNode::File(files.len() - 1));
    }
    if !meta.is_dir() {
        return Err(ScanError::Special(path.to_owned()));
    }
    if depth > MAX_DEPTH {
        return Err(ScanError::TooDeep(path.to_owned()));
    }
    let entries: io::Result<Vec<_>> =
        fs::read_dir(path).at("read", path)?.map(|entry| entry.map(|entry| entry.file_name())).collect();
    let mut names = Vec::new();
    for name in entries.at("read", path)? {
        names.push(plain(&name, &path.join(&name))?);
    }
    names.sort();
    let mut nodes = Vec::with_capacity(names.len());
    for name in names {
        let node = scan_node(&path.join(name.as_str()), depth + 1, files)?;
        nodes.push((name, node));
    }
    Ok(ScannedNode::Directory(nodes))
}
