//! The bencoded form of metainfo.

use std::num::NonZeroI64;

use bendy::{
    decoding::{Decoder, DictDecoder, ListDecoder, Object},
    encoding::{Encoder, SortedDictEncoder},
};

use super::{Directory, FileNode, LinkNode, MAX_DEPTH, MetainfoError, Node, Tree};
use crate::{chunk::CHUNK_LEN, id::Digest, name::ShareName};

/// The bencode nesting of [`MAX_DEPTH`]: the info and file tree dictionaries, the directories, the two of a file or a link, and the
/// list that is a link's target.
const MAX_BENCODE_DEPTH: usize = MAX_DEPTH + 5;

/// The `attr` of a file that its owner may execute (BEP 47).
const EXECUTABLE: &str = "x";

/// The `attr` of a symbolic link. On Linux every link can be executed, so libtorrent writes both letters.
const LINK: &str = "xl";

pub(super) fn encode(name: &ShareName, tree: &Tree) -> Result<Vec<u8>, MetainfoError> {
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
        Node::Link(node) => emit_link(dict, name, node),
    })
}

fn emit_file(dict: &mut SortedDictEncoder<'_>, name: &ShareName, node: &FileNode) -> EncodeResult {
    emit_leaf(dict, name, |dict| {
        if node.is_executable {
            dict.emit_pair(b"attr", EXECUTABLE)?;
        }
        dict.emit_pair(b"length", node.len)?;
        emit_mtime(dict, node.mtime_s)?;
        match &node.pieces_root {
            Some(root) => dict.emit_pair_with(b"pieces root", |value| value.emit_bytes(&root.0)),
            None => Ok(()),
        }
    })
}

fn emit_link(dict: &mut SortedDictEncoder<'_>, name: &ShareName, node: &LinkNode) -> EncodeResult {
    emit_leaf(dict, name, |dict| {
        dict.emit_pair(b"attr", LINK)?;
        emit_mtime(dict, node.mtime_s)?;
        dict.emit_pair_with(b"symlink path", |value| {
            value.emit_list(|list| node.target.iter().try_for_each(|name| list.emit_str(name.as_str())))
        })
    })
}

fn emit_mtime(dict: &mut SortedDictEncoder<'_>, mtime_s: Option<NonZeroI64>) -> EncodeResult {
    mtime_s.map_or(Ok(()), |mtime_s| dict.emit_pair(b"mtime", mtime_s.get()))
}

/// A node that is no directory: a dictionary with an empty key.
fn emit_leaf(
    dict: &mut SortedDictEncoder<'_>,
    name: &ShareName,
    content: impl Fn(&mut SortedDictEncoder<'_>) -> EncodeResult,
) -> EncodeResult {
    dict.emit_pair_with(name.as_str().as_bytes(), |value| {
        value.emit_dict(|mut leaf| {
            leaf.emit_pair_with(b"", |value| value.emit_dict(|mut dict| content(&mut dict)))
        })
    })
}

pub(super) fn decode_info(bytes: &[u8]) -> Result<(ShareName, Tree), MetainfoError> {
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

fn decode_directory(dict: DictDecoder<'_, '_>, depth: usize) -> Result<Directory, MetainfoError> {
    decode_entries(Vec::new(), dict, depth)
}

/// Adds the entries of `dict` to the first ones. All together, because a tree that grows at its end is half empty.
fn decode_entries(
    mut entries: Vec<(ShareName, Node)>,
    mut dict: DictDecoder<'_, '_>,
    depth: usize,
) -> Result<Directory, MetainfoError> {
    while let Some((key, value)) = dict.next_pair()? {
        entries.push(decode_entry(key, value, depth)?);
    }
    Ok(entries.into_iter().collect())
}

fn decode_entry(key: &[u8], value: Object<'_, '_>, depth: usize) -> Result<(ShareName, Node), MetainfoError> {
    let name = ShareName::from_bytes(key)?;
    let Object::Dict(node) = value else {
        return Err(MetainfoError::Shape("an entry of 'file tree' is not a dictionary"));
    };
    Ok((name, decode_node(node, depth)?))
}

/// A node is a file or a link if its first key is the empty string, else a directory.
fn decode_node(mut node: DictDecoder<'_, '_>, depth: usize) -> Result<Node, MetainfoError> {
    let mut first = Vec::new();
    let leaf = match node.next_pair()? {
        Some((b"", Object::Dict(leaf))) => Some(decode_leaf(leaf)?),
        Some(_) if depth == MAX_DEPTH => return Err(MetainfoError::TooDeep),
        Some((key, value)) => {
            first.push(decode_entry(key, value, depth + 1)?);
            None
        }
        None => None,
    };
    if let Some(leaf) = leaf {
        return if node.next_pair()?.is_some() { Err(FILE_SHAPE) } else { Ok(leaf) };
    }
    decode_entries(first, node, depth + 1).map(Node::Directory)
}

const FILE_SHAPE: MetainfoError = MetainfoError::Shape(
    "a file has a 'length', a 'pieces root' unless it is empty, the 'attr' x or none, perhaps an 'mtime', and nothing else",
);

const LINK_SHAPE: MetainfoError =
    MetainfoError::Shape("a link has the 'attr' xl, a 'symlink path', perhaps an 'mtime', and nothing else");

fn decode_leaf(mut dict: DictDecoder<'_, '_>) -> Result<Node, MetainfoError> {
    let (mut attr, mut len, mut mtime_s, mut pieces_root, mut target) = (None, None, None, None, None);
    while let Some((key, value)) = dict.next_pair()? {
        match (key, value) {
            (b"attr", Object::Bytes(bytes)) => attr = Some(bytes),
            (b"length", Object::Integer(digits)) => len = Some(digits.parse().map_err(|_| FILE_SHAPE)?),
            (b"mtime", Object::Integer(digits)) => mtime_s = Some(digits.parse().map_err(|_| FILE_SHAPE)?),
            (b"pieces root", Object::Bytes(bytes)) => {
                pieces_root = Some(Digest(bytes.try_into().map_err(|_| FILE_SHAPE)?));
            }
            (b"symlink path", Object::List(names)) => target = Some(decode_target(names)?),
            _ => return Err(FILE_SHAPE),
        }
    }
    let is_link = attr == Some(LINK.as_bytes());
    if is_link {
        let node = target.filter(|_| len.is_none() && pieces_root.is_none()).and_then(LinkNode::new);
        return Ok(Node::Link(node.ok_or(LINK_SHAPE)?.with_mtime(mtime_s)));
    }
    let is_executable = attr == Some(EXECUTABLE.as_bytes());
    let len = len.filter(|_| target.is_none() && (attr.is_none() || is_executable)).ok_or(FILE_SHAPE)?;
    Ok(Node::File(FileNode { len, pieces_root, is_executable, mtime_s }))
}

fn decode_target(mut list: ListDecoder<'_, '_>) -> Result<Box<[ShareName]>, MetainfoError> {
    let mut names = Vec::new();
    while let Some(name) = list.next_object()? {
        let Object::Bytes(name) = name else { return Err(LINK_SHAPE) };
        names.push(ShareName::from_bytes(name)?);
    }
    Ok(names.into())
}
