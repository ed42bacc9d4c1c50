//! Metainfo: the description of a share that its infohash is a hash of.
//!
//! The bytes are the bencoded `info` dictionary of a BitTorrent v2 torrent (BEP 52) with exactly the keys `file tree`, `meta
//! version`, `name` and `piece length`. Decoding is strict: a share has one encoding, and any other is refused. So two
//! programs can never disagree about the content of an infohash.
//!
//! Two things BEP 52 leaves open are settled here. An empty directory is an empty dictionary in the file tree. A directory
//! that holds only one file with the directory's own name has the same encoding as that file alone. So it is that file
//! ([`Tree::new_directory`] collapses it).

mod codec;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use sha2::Digest as _;

use crate::{
    chunk::ChunkSpace,
    id::{Digest, InfoHash},
    name::{NameError, ShareName},
};

/// Largest metainfo in bytes: some 300,000 files. A leecher holds all of it in memory.
pub const MAX_METAINFO_LEN: u32 = 32 * 1024 * 1024;

/// Deepest nesting of directories in a share.
pub const MAX_DEPTH: usize = 64;

/// The metainfo of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileNode {
    /// Bytes in the file.
    pub len: u64,
    /// Root of the file's hash tree; `None` for an empty file, and only for one.
    pub pieces_root: Option<Digest>,
}

/// A directory's entries, in the byte order of their names.
pub type Directory = BTreeMap<ShareName, Node>;

/// A file or a directory inside a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A file.
    File(FileNode),
    /// A directory, which may be empty.
    Directory(Directory),
}

/// The content of a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// One file with the share's name.
    File(FileNode),
    /// A directory with the share's name.
    Directory(Directory),
}

impl Tree {
    /// A share of a directory called `name`.
    pub fn new_directory(name: &ShareName, mut entries: Directory) -> Tree {
        match entries.get(name) {
            Some(Node::File(_)) if entries.len() == 1 => match entries.remove(name) {
                Some(Node::File(file)) => Tree::File(file),
                _ => Tree::Directory(entries),
            },
            _ => Tree::Directory(entries),
        }
    }
}

/// One file of a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Path below the share's directory; empty if the share is this file.
    pub path: Box<[ShareName]>,
    /// Length and hash.
    pub node: FileNode,
}

/// A share's description, proved well formed.
#[derive(Clone, PartialEq, Eq)]
pub struct Metainfo {
    name: ShareName,
    kind: Kind,
    files: Vec<FileEntry>,
    empty_directories: Vec<Box<[ShareName]>>,
    chunk_space: ChunkSpace,
    infohash: InfoHash,
    bytes: Bytes,
}

/// Whether a share is a file or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A single file.
    File,
    /// A directory.
    Directory,
}

/// Why bytes or a tree are not the metainfo of a share.
#[derive(Debug, thiserror::Error)]
pub enum MetainfoError {
    /// Not bencode.
    #[error("not bencode: {0}")]
    Bencode(bendy::decoding::Error),
    /// Bencode, but not the info dictionary of a share.
    #[error("not a Shoal info dictionary: {0}")]
    Shape(&'static str),
    /// The right content in an encoding other than the one canonical form.
    #[error("not in canonical form")]
    NotCanonical,
    /// A name that could escape its directory or garble a terminal.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Directories nested deeper than [`MAX_DEPTH`].
    #[error("directories nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// Too many bytes or chunks.
    #[error(transparent)]
    TooLarge(#[from] crate::chunk::TooLargeError),
    /// Too many files: the metainfo would exceed [`MAX_METAINFO_LEN`].
    #[error("metainfo larger than {MAX_METAINFO_LEN} bytes: too many files in one share")]
    MetainfoTooLarge,
    /// The bytes do not have the requested infohash.
    #[error("metainfo does not match its infohash")]
    WrongInfoHash,
}

impl From<bendy::decoding::Error> for MetainfoError {
    fn from(error: bendy::decoding::Error) -> MetainfoError {
        MetainfoError::Bencode(error)
    }
}

impl Metainfo {
    /// Describes a share.
    pub fn new(name: ShareName, tree: Tree) -> Result<Metainfo, MetainfoError> {
        let bytes = codec::encode(&name, &tree)?;
        if bytes.len() > MAX_METAINFO_LEN as usize {
            return Err(MetainfoError::MetainfoTooLarge);
        }
        let (mut files, mut empty_directories) = (Vec::new(), Vec::new());
        let kind = match &tree {
            Tree::File(node) => {
                files.push(FileEntry { path: Box::new([]), node: *node });
                Kind::File
            }
            Tree::Directory(entries) => {
                flatten(entries, &mut Vec::new(), &mut files, &mut empty_directories)?;
                Kind::Directory
            }
        };
        if files.iter().any(|file| (file.node.len == 0) != file.node.pieces_root.is_none()) {
            return Err(MetainfoError::Shape("a file has a 'pieces root' unless it is empty"));
        }
        let chunk_space = ChunkSpace::new(files.iter().map(|file| file.node.len))?;
        let infohash = InfoHash(sha2::Sha256::digest(&bytes).into());
        Ok(Metainfo { name, kind, files, empty_directories, chunk_space, infohash, bytes: bytes.into() })
    }

    /// Decodes an info dictionary in canonical form.
    pub fn decode(bytes: &[u8]) -> Result<Metainfo, MetainfoError> {
        if bytes.len() > MAX_METAINFO_LEN as usize {
            return Err(MetainfoError::MetainfoTooLarge);
        }
        let (name, tree) = codec::decode_info(bytes)?;
        let metainfo = Metainfo::new(name, tree)?;
        // One check for every way in which an encoding can fail to be canonical.
        if metainfo.bytes != bytes { Err(MetainfoError::NotCanonical) } else { Ok(metainfo) }
    }

    /// Decodes an info dictionary after proving that it has this `infohash`.
    pub fn decode_proved(bytes: &[u8], infohash: InfoHash) -> Result<Metainfo, MetainfoError> {
        if sha2::Sha256::digest(bytes).as_slice() != infohash.0 {
            return Err(MetainfoError::WrongInfoHash);
        }
        Metainfo::decode(bytes)
    }

    /// The share's name.
    pub fn name(&self) -> &ShareName {
        &self.name
    }

    /// Whether the share is a file or a directory.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The files, in file tree order: depth first, siblings by the bytes of their names.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// Paths of the empty directories, below the share's directory.
    pub fn empty_directories(&self) -> &[Box<[ShareName]>] {
        &self.empty_directories
    }

    /// How the files divide into chunks.
    pub fn chunk_space(&self) -> &ChunkSpace {
        &self.chunk_space
    }

    /// The share's id: SHA-256 of [`Metainfo::as_bytes`].
    pub fn infohash(&self) -> InfoHash {
        self.infohash
    }

    /// The bencoded info dictionary.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl fmt::Debug for Metainfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metainfo({} {:?}, {} files)", self.infohash, self.name, self.files.len())
    }
}

fn flatten(
    entries: &Directory,
    path: &mut Vec<ShareName>,
    files: &mut Vec<FileEntry>,
    empty_directories: &mut Vec<Box<[ShareName]>>,
) -> Result<(), MetainfoError> {
    if path.len() > MAX_DEPTH {
        return Err(MetainfoError::TooDeep);
    }
    if entries.is_empty() && !path.is_empty() {
        empty_directories.push(path.clone().into());
    }
    for (name, node) in entries {
        path.push(name.clone());
        match node {
            Node::File(node) => files.push(FileEntry { path: path.clone().into(), node: *node }),
            Node::Directory(entries) => flatten(entries, path, files, empty_directories)?,
        }
        path.pop();
    }
    Ok(())
}
