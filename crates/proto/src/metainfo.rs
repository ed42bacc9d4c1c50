//! Metainfo: the description of a share that its infohash is a hash of.
//!
//! The bytes are the bencoded `info` dictionary of a BitTorrent v2 torrent (BEP 52) with exactly the keys `file tree`, `meta
//! version`, `name` and `piece length`. Decoding is strict: a share has one encoding, and any other is refused. So two
//! programs can never disagree about the content of an infohash.
//!
//! Two things BEP 52 leaves open are settled here. An empty directory is an empty dictionary in the file tree. A directory
//! that holds only one file with the directory's own name has the same encoding as that file alone. So it is that file
//! ([`Tree::new_directory`] collapses it).

use std::{collections::BTreeMap, fmt};

use bendy::{
    decoding::{Decoder, DictDecoder, Object},
    encoding::{Encoder, SortedDictEncoder},
};
use bytes::Bytes;
use sha2::Digest as _;

use crate::{
    chunk::{CHUNK_LEN, ChunkSpace},
    id::{Digest, InfoHash},
    name::{NameError, ShareName},
};

/// Largest metainfo in bytes: some 300,000 files. A leecher holds all of it in memory.
pub const MAX_METAINFO_LEN: u32 = 32 * 1024 * 1024;

/// Deepest nesting of directories in a share.
pub const MAX_DEPTH: usize = 64;

/// The bencode nesting of [`MAX_DEPTH`]: the info and file tree dictionaries, the directories, and the file's own two.
const MAX_BENCODE_DEPTH: usize = MAX_DEPTH + 4;

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
        let bytes = encode(&name, &tree)?;
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
        let (name, tree) = decode_info(bytes)?;
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

fn encode(name: &ShareName, tree: &Tree) -> Result<Vec<u8>, MetainfoError> {
    let mut encoder = Encoder::new().with_max_depth(MAX_BENCODE_DEPTH);
    let result = encoder.emit_dict(|mut info| {
        info.emit_pair_with(b"file tree", |value| {
            value.emit_dict(|mut dict| match tree {
                Tree::File(node) => emit_file(&mut dict, name, node),
                Tree::Directory(entries) => emit_directory(&mut dict, entries),
            })
        })?;
        info.emit_pair(b"meta version", 2)?;
        info.emit_pair(b"name", name.as_str())?;
        info.emit_pair(b"piece length", CHUNK_LEN)
    });
    // The keys are sorted and the structure is our own, so only nesting can be refused.
    result.and_then(|()| encoder.get_output()).map_err(|_| MetainfoError::TooDeep)
}

type EncodeResult = Result<(), bendy::encoding::Error>;

fn emit_directory(dict: &mut SortedDictEncoder<'_>, entries: &Directory) -> EncodeResult {
    entries.iter().try_for_each(|(name, node)| match node {
        Node::File(node) => emit_file(dict, name, node),
        Node::Directory(entries) => dict.emit_pair_with(name.as_str().as_bytes(), |value| {
            value.emit_dict(|mut dict| emit_directory(&mut dict, entries))
        }),
    })
}

fn emit_file(dict: &mut SortedDictEncoder<'_>, name: &ShareName, node: &FileNode) -> EncodeResult {
    dict.emit_pair_with(name.as_str().as_bytes(), |value| {
        value.emit_dict(|mut leaf| {
            leaf.emit_pair_with(b"", |value| {
                value.emit_dict(|mut dict| {
                    dict.emit_pair(b"length", node.len)?;
                    match &node.pieces_root {
                        Some(root) => dict.emit_pair_with(b"pieces root", |value| value.emit_bytes(&root.0)),
                        None => Ok(()),
                    }
                })
            })
        })
    })
}

fn decode_info(bytes: &[u8]) -> Result<(ShareName, Tree), MetainfoError> {
    let mut decoder = Decoder::new(bytes).with_max_depth(MAX_BENCODE_DEPTH);
    let Some(Object::Dict(mut info)) = decoder.next_object()? else {
        return Err(MetainfoError::Shape("not a dictionary"));
    };
    let (mut entries, mut version, mut name, mut piece_len) = (None, None, None, None);
    while let Some((key, value)) = info.next_pair()? {
        match (key, value) {
            (b"file tree", Object::Dict(dict)) => entries = Some(decode_directory(dict, 0)?),
            (b"meta version", Object::Integer(digits)) => version = Some(digits),
            (b"name", Object::Bytes(bytes)) => name = Some(ShareName::from_bytes(bytes)?),
            (b"piece length", Object::Integer(digits)) => piece_len = digits.parse::<u32>().ok(),
            _ => return Err(MetainfoError::Shape("an unknown key, or a value of the wrong type")),
        }
    }
    if version != Some("2") {
        return Err(MetainfoError::Shape("'meta version' is not 2"));
    }
    if piece_len != Some(CHUNK_LEN) {
        return Err(MetainfoError::Shape("'piece length' is not 524288"));
    }
    let name = name.ok_or(MetainfoError::Shape("no 'name'"))?;
    let entries = entries.ok_or(MetainfoError::Shape("no 'file tree'"))?;
    let tree = Tree::new_directory(&name, entries);
    Ok((name, tree))
}

fn decode_directory(mut dict: DictDecoder<'_, '_>, depth: usize) -> Result<Directory, MetainfoError> {
    let mut entries = Directory::new();
    while let Some((key, value)) = dict.next_pair()? {
        decode_entry(&mut entries, key, value, depth)?;
    }
    Ok(entries)
}

fn decode_entry(
    entries: &mut Directory,
    key: &[u8],
    value: Object<'_, '_>,
    depth: usize,
) -> Result<(), MetainfoError> {
    let name = ShareName::from_bytes(key)?;
    let Object::Dict(node) = value else {
        return Err(MetainfoError::Shape("an entry of 'file tree' is not a dictionary"));
    };
    entries.insert(name, decode_node(node, depth)?);
    Ok(())
}

/// A node is a file if its first key is the empty string, else a directory.
fn decode_node(mut node: DictDecoder<'_, '_>, depth: usize) -> Result<Node, MetainfoError> {
    let mut entries = Directory::new();
    let file = match node.next_pair()? {
        Some((b"", Object::Dict(leaf))) => Some(decode_file(leaf)?),
        Some((key, value)) => {
            if depth == MAX_DEPTH {
                return Err(MetainfoError::TooDeep);
            }
            decode_entry(&mut entries, key, value, depth + 1)?;
            None
        }
        None => None,
    };
    if let Some(file) = file {
        return if node.next_pair()?.is_some() { Err(FILE_SHAPE) } else { Ok(Node::File(file)) };
    }
    entries.append(&mut decode_directory(node, depth + 1)?);
    Ok(Node::Directory(entries))
}

const FILE_SHAPE: MetainfoError =
    MetainfoError::Shape("a file has a 'length', a 'pieces root' unless it is empty, and nothing else");

fn decode_file(mut dict: DictDecoder<'_, '_>) -> Result<FileNode, MetainfoError> {
    let (mut len, mut pieces_root) = (None, None);
    while let Some((key, value)) = dict.next_pair()? {
        match (key, value) {
            (b"length", Object::Integer(digits)) => len = digits.parse().ok(),
            (b"pieces root", Object::Bytes(bytes)) => {
                pieces_root = Some(Digest(bytes.try_into().map_err(|_| FILE_SHAPE)?));
            }
            _ => return Err(FILE_SHAPE),
        }
    }
    Ok(FileNode { len: len.ok_or(FILE_SHAPE)?, pieces_root })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> ShareName {
        ShareName::new(text).unwrap()
    }

    fn file(len: u64) -> FileNode {
        FileNode { len, pieces_root: (len > 0).then_some(Digest([7; 32])) }
    }

    #[test]
    fn one_file_has_the_form_of_bep_52() {
        let metainfo = Metainfo::new(name("a.bin"), Tree::File(file(5))).unwrap();
        let root = [7; 32];
        let mut expected = b"d9:file treed5:a.bind0:d6:lengthi5e11:pieces root32:".to_vec();
        expected.extend(root);
        expected.extend(b"eee12:meta versioni2e4:name5:a.bin12:piece lengthi524288ee");
        assert_eq!(metainfo.as_bytes(), &expected);
        assert_eq!(metainfo.kind(), Kind::File);
    }

    /// SHA-256 of the encoding, computed by an independent implementation of BEP 52.
    #[test]
    fn an_empty_file_has_the_infohash_that_bep_52_gives_it() {
        let metainfo = Metainfo::new(name("file-0.bin"), Tree::File(file(0))).unwrap();
        let expected = "6b9a867af08d4347f1c6a64007d0fd22ee4239121ee65240da4269fe5ddfc645";
        assert_eq!(metainfo.infohash().to_string(), expected);
        for example in [std::str::from_utf8(metainfo.as_bytes()).unwrap(), expected] {
            assert!(crate::golden::PAGE.contains(example), "{example} in docs/protocol.md");
        }
    }

    #[test]
    fn files_come_in_tree_order() {
        let leaf = || Node::File(file(1));
        let inner = Directory::from([(name("x"), leaf())]);
        let entries = Directory::from([
            (name("a.txt"), leaf()),
            (name("a-b"), leaf()),
            (name("a"), Node::Directory(inner)),
            (name("empty"), Node::Directory(Directory::new())),
        ]);
        let metainfo = Metainfo::new(name("d"), Tree::new_directory(&name("d"), entries)).unwrap();
        let paths: Vec<_> = metainfo.files().iter().map(|file| file.path.join_slash()).collect();
        assert_eq!(paths, ["a/x", "a-b", "a.txt"]);
        assert_eq!(metainfo.empty_directories(), [Box::from([name("empty")])]);
    }

    trait JoinSlash {
        fn join_slash(&self) -> String;
    }

    impl JoinSlash for [ShareName] {
        fn join_slash(&self) -> String {
            self.iter().map(ShareName::as_str).collect::<Vec<_>>().join("/")
        }
    }

    #[test]
    fn a_directory_of_one_file_of_its_own_name_is_that_file() {
        let entries = Directory::from([(name("same"), Node::File(file(9)))]);
        assert_eq!(Tree::new_directory(&name("same"), entries), Tree::File(file(9)));
    }

    fn directories() -> impl Strategy<Value = Directory> {
        let names = "[a-cä~.]{1,3}".prop_filter_map("plain", |text| ShareName::new(&text).ok());
        let leaf =
            prop_oneof![Just(0), any::<u32>().prop_map(u64::from)].prop_map(|len| Node::File(file(len)));
        let node = leaf.prop_recursive(4, 32, 4, {
            let names = names.clone();
            move |inner| prop::collection::btree_map(names.clone(), inner, 0..4).prop_map(Node::Directory)
        });
        prop::collection::btree_map(names, node, 0..5)
    }

    proptest! {
        #[test]
        fn decodes_what_it_encodes(entries in directories()) {
            let share = name("share");
            let metainfo = Metainfo::new(share.clone(), Tree::new_directory(&share, entries)).unwrap();
            prop_assert_eq!(Metainfo::decode(metainfo.as_bytes()).unwrap(), metainfo);
        }

        #[test]
        fn garbage_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(Metainfo::decode(&bytes).is_err());
        }

        #[test]
        fn a_changed_byte_is_never_the_same_share(at in 0..140_usize, bit in 0..8_u8) {
            let metainfo = Metainfo::new(name("a.bin"), Tree::File(file(5))).unwrap();
            let mut bytes = metainfo.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let decoded = Metainfo::decode_proved(&bytes, metainfo.infohash());
            prop_assert!(matches!(decoded, Err(MetainfoError::WrongInfoHash)));
        }
    }

    #[test]
    fn other_encodings_and_hostile_names_are_refused() {
        let root = "r".repeat(32);
        let info = |tree: &str, rest: &str| format!("d9:file treed{tree}e{rest}e");
        let rest = "12:meta versioni2e4:name1:a12:piece lengthi524288e";
        let leaf = format!("d0:d6:lengthi5e11:pieces root32:{root}ee");
        let good = info(&format!("1:a{leaf}"), rest);
        assert!(Metainfo::decode(good.as_bytes()).is_ok());
        let nested = |depth| info(&format!("{}1:a{leaf}{}", "1:ad".repeat(depth), "e".repeat(depth)), rest);
        assert!(Metainfo::decode(nested(MAX_DEPTH).as_bytes()).is_ok());
        for bad in [
            format!("{good}x"),
            good[..good.len() - 1].to_owned(),
            good.replace("i5e", "i05e"),
            good.replace("i5e", "i-5e"),
            good.replace("i5e", "i0e"),
            good.replace("1:ad0:", "01:ad0:"),
            good.replace("i2e", "i1e"),
            good.replace("524288", "262144"),
            good.replace("524288e", "524288e1:zi1e"),
            info(&format!("2:..{leaf}"), rest),
            info(&format!("3:a/b{leaf}"), rest),
            info(&format!("1:b{leaf}1:a{leaf}"), rest),
            info(&format!("1:a{leaf}1:a{leaf}"), rest),
            info("1:ai5e", rest),
            info("1:ad0:d6:lengthi5eee", rest),
            info(&format!("1:ad0:d6:lengthi0e11:pieces root32:{root}ee"), rest),
            info(&format!("1:ad0:d6:lengthi5e11:pieces root32:{root}e1:xdee"), rest),
            info(&format!("1:ad0:d4:attr1:x6:lengthi5e11:pieces root32:{root}ee"), rest),
            info(&format!("1:a{leaf}"), "12:meta versioni2e4:name2:..12:piece lengthi524288e"),
            nested(MAX_DEPTH + 1),
            nested(80),
        ] {
            assert!(Metainfo::decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
