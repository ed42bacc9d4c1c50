//! Metainfo: the description of a share that its infohash is a hash of.
//!
//! The bytes are the bencoded `info` dictionary of a BitTorrent v2 torrent (BEP 52) with exactly the keys `file tree`, `meta
//! version`, `name` and `piece length`. Decoding is strict: a share has one encoding, and any other is refused. So two
//! programs can never disagree about the content of an infohash.
//!
//! Two things BEP 52 leaves open are settled here. An empty directory is an empty dictionary in the file tree. A directory
//! that holds only one file with the directory's own name has the same encoding as that file alone. So it is that file
//! ([`Tree::new_directory`] collapses it).
//!
//! A file that its owner may execute and a symbolic link have the `attr` that BEP 47 gives them, as libtorrent writes it. A link
//! leads to a path inside the share, whether or not something is there. So it never leads out of the share, not even by way
//! of other links.

mod codec;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, iter, num::NonZeroI64, sync::OnceLock};

use bytes::Bytes;
use sha2::Digest as _;

use crate::{
    chunk::ChunkSpace,
    id::{Digest, InfoHash},
    name::{NameError, ShareName},
    outline::Outline,
};

/// Largest metainfo in bytes: some 300,000 files. A leecher holds all of it in memory.
pub const MAX_METAINFO_LEN: u32 = 32 * 1024 * 1024;

/// Deepest nesting of directories in a share.
pub const MAX_DEPTH: usize = 64;

/// Longest text of a symbolic link in bytes. XFS stores no longer one.
pub const MAX_LINK_LEN: usize = 1_023;

/// The metainfo of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileNode {
    /// Bytes in the file.
    pub len: u64,
    /// Root of the file's hash tree; `None` for an empty file, and only for one.
    pub pieces_root: Option<Digest>,
    /// Whether its owner may execute it.
    pub is_executable: bool,
    /// When its content last changed, in seconds since 1970, if the share keeps that.
    pub mtime_s: Option<NonZeroI64>,
}

impl FileNode {
    /// A file that is not executable and has no time. `pieces_root` is `None` if the file is empty, and only then.
    pub fn new(len: u64, pieces_root: Option<Digest>) -> FileNode {
        FileNode { len, pieces_root, is_executable: false, mtime_s: None }
    }
}

/// The metainfo of one symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkNode {
    target: Box<[ShareName]>,
    mtime_s: Option<NonZeroI64>,
}

impl LinkNode {
    /// A link to `target`, a path below the share's directory. `None` if the path is empty: no link leads to the share itself.
    pub fn new(target: Box<[ShareName]>) -> Option<LinkNode> {
        (!target.is_empty()).then_some(LinkNode { target, mtime_s: None })
    }

    /// The link with the time at which it was last changed, in seconds since 1970; `None` if the share does not keep that.
    #[must_use]
    pub fn with_mtime(self, mtime_s: Option<NonZeroI64>) -> LinkNode {
        LinkNode { mtime_s, ..self }
    }

    /// When it was last changed, in seconds since 1970, if the share keeps that.
    pub fn mtime_s(&self) -> Option<NonZeroI64> {
        self.mtime_s
    }

    /// Where it leads: a path below the share's directory. There need not be anything.
    pub fn target(&self) -> &[ShareName] {
        &self.target
    }

    /// The text of the link, if it is in the directory `dir` of the share: the shortest relative one, so that the share can be moved.
    pub fn text(&self, dir: &[ShareName]) -> String {
        let common = dir.iter().zip(&self.target).take_while(|(above, name)| above == name).count();
        let up = iter::repeat_n("..", dir.len() - common);
        let text =
            up.chain(self.target[common..].iter().map(ShareName::as_str)).collect::<Vec<_>>().join("/");
        if text.is_empty() { ".".to_owned() } else { text }
    }

    /// Whether the text of the link is short enough, if it is in the directory `dir` of the share.
    pub fn fits(&self, dir: &[ShareName]) -> bool {
        self.text(dir).len() <= MAX_LINK_LEN
    }
}

/// A directory's entries, in the byte order of their names.
pub type Directory = BTreeMap<ShareName, Node>;

/// An entry of a directory inside a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A file.
    File(FileNode),
    /// A directory, which may be empty.
    Directory(Directory),
    /// A symbolic link.
    Link(LinkNode),
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
    /// Length, hash and attributes.
    pub node: FileNode,
}

/// One symbolic link of a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEntry {
    /// Path below the share's directory, not empty.
    pub path: Box<[ShareName]>,
    /// Where it leads.
    pub node: LinkNode,
}

impl LinkEntry {
    /// The text of the link.
    pub fn text(&self) -> String {
        self.node.text(self.path.split_last().map_or(&[], |(_, dir)| dir))
    }
}

/// A share's description, proved well formed.
#[derive(Clone)]
pub struct Metainfo {
    name: ShareName,
    kind: Kind,
    files: Vec<FileEntry>,
    links: Vec<LinkEntry>,
    empty_directories: Vec<Box<[ShareName]>>,
    chunk_space: ChunkSpace,
    infohash: InfoHash,
    bytes: Bytes,
    /// Made when it is asked for.
    outline: OnceLock<Outline>,
}

impl PartialEq for Metainfo {
    /// There is one encoding of each.
    fn eq(&self, other: &Metainfo) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Metainfo {}

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
    /// A symbolic link with a text longer than [`MAX_LINK_LEN`].
    #[error("a symbolic link of more than {MAX_LINK_LEN} bytes")]
    LinkTooLong,
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
        let mut lists = Lists::default();
        let kind = match tree {
            Tree::File(node) => {
                lists.files.push(FileEntry { path: Box::new([]), node });
                Kind::File
            }
            Tree::Directory(entries) => {
                lists.flatten(entries, &mut Vec::new())?;
                Kind::Directory
            }
        };
        let Lists { files, links, empty_directories } = lists;
        if files.iter().any(|file| (file.node.len == 0) != file.node.pieces_root.is_none()) {
            return Err(MetainfoError::Shape("a file has a 'pieces root' unless it is empty"));
        }
        let chunk_space = ChunkSpace::new(files.iter().map(|file| file.node.len))?;
        let infohash = InfoHash(sha2::Sha256::digest(&bytes).into());
        Ok(Metainfo {
            name,
            kind,
            files,
            links,
            empty_directories,
            chunk_space,
            infohash,
            bytes: bytes.into(),
            outline: OnceLock::new(),
        })
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

    /// The symbolic links, in the order of their paths.
    pub fn links(&self) -> &[LinkEntry] {
        &self.links
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

    /// The outline of the bencoded info dictionary. Making it takes some 3 ms for each MiB, once.
    pub fn outline(&self) -> &Outline {
        self.outline.get_or_init(|| Outline::of(&self.bytes))
    }

    /// The outline, if it was made already.
    pub fn outline_if_made(&self) -> Option<&Outline> {
        self.outline.get()
    }
}

impl fmt::Debug for Metainfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metainfo({} {:?}, {} files)", self.infohash, self.name, self.files.len())
    }
}

/// What a directory holds, each list in file tree order.
#[derive(Default)]
struct Lists {
    files: Vec<FileEntry>,
    links: Vec<LinkEntry>,
    empty_directories: Vec<Box<[ShareName]>>,
}

impl Lists {
    /// Adds everything below `path`, which holds `entries`. A million files need not be in memory twice, so the tree goes meanwhile.
    fn flatten(&mut self, entries: Directory, path: &mut Vec<ShareName>) -> Result<(), MetainfoError> {
        if path.len() > MAX_DEPTH {
            return Err(MetainfoError::TooDeep);
        }
        if entries.is_empty() && !path.is_empty() {
            self.empty_directories.push(path.clone().into());
        }
        for (name, node) in entries {
            path.push(name);
            match node {
                Node::File(node) => self.files.push(FileEntry { path: path.as_slice().into(), node }),
                Node::Link(node) if !node.fits(&path[..path.len() - 1]) => {
                    return Err(MetainfoError::LinkTooLong);
                }
                Node::Link(node) => {
                    self.links.push(LinkEntry { path: path.as_slice().into(), node });
                }
                Node::Directory(entries) => self.flatten(entries, path)?,
            }
            path.pop();
        }
        Ok(())
    }
}
