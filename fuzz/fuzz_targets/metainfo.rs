//! Metainfo: the bytes that an infohash is a hash of.
//!
//! A share has one encoding. What is decoded is encoded to the same bytes, and its files, names and chunks are consistent. A name
//! never leaves the directory that it is joined to.
//!
//! Decodes: proto/src/metainfo.rs: fn decode
//! Decodes: proto/src/metainfo.rs: fn decode_proved

#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use proto::{
    InfoHash, Metainfo, ShareName,
    chunk::{MAX_CHUNKS, MAX_SHARE_LEN},
    metainfo::{Kind, MAX_DEPTH, MAX_LINK_LEN},
};
use sha2::{Digest, Sha256};

fuzz_target!(|bytes: &[u8]| {
    let infohash = InfoHash(Sha256::digest(bytes).into());
    let decoded = Metainfo::decode(bytes);
    let proved = Metainfo::decode_proved(bytes, infohash);
    assert_eq!(decoded.is_ok(), proved.is_ok());
    let mut other = infohash;
    other.0[31] ^= 1;
    assert!(Metainfo::decode_proved(bytes, other).is_err(), "it has another infohash");
    let Ok(metainfo) = decoded else { return };
    assert_eq!(metainfo.as_bytes(), bytes);
    assert_eq!(metainfo.infohash(), infohash);
    check_paths(&metainfo);
    check_chunks(&metainfo);
});

fn check_paths(metainfo: &Metainfo) {
    let is_plain = |name: &ShareName| {
        let path = Path::new("directory").join(name.as_str());
        let components: Vec<_> = path.components().collect();
        matches!(components[..], [Component::Normal(_), Component::Normal(last)] if last == name.as_str())
    };
    assert!(is_plain(metainfo.name()));
    let files = metainfo.files().iter().map(|file| &file.path);
    for path in files.clone().chain(metainfo.empty_directories()) {
        assert!(path.len() <= MAX_DEPTH + 1 && path.iter().all(is_plain), "{path:?}");
    }
    for link in metainfo.links() {
        assert!(!link.path.is_empty() && link.path.len() <= MAX_DEPTH + 1 && link.path.iter().all(is_plain));
        assert!(!link.node.target().is_empty() && link.node.target().iter().all(is_plain));
        let text = link.text();
        assert!(text.len() <= MAX_LINK_LEN);
        assert_eq!(resolve(&link.path, &text), link.node.target());
    }
    let paths: Vec<_> = files.collect();
    assert!(paths.is_sorted() && paths.windows(2).all(|pair| pair[0] != pair[1]), "{paths:?}");
    match metainfo.kind() {
        Kind::File => {
            assert!(paths.len() == 1 && paths[0].is_empty() && metainfo.empty_directories().is_empty());
            assert!(metainfo.links().is_empty());
        }
        Kind::Directory => assert!(paths.iter().all(|path| !path.is_empty())),
    }
}

fn check_chunks(metainfo: &Metainfo) {
    let space = metainfo.chunk_space();
    assert!(space.chunk_count() <= MAX_CHUNKS && space.total_len() <= MAX_SHARE_LEN);
    let mut next = 0;
    for (index, file) in metainfo.files().iter().enumerate() {
        assert_eq!(file.node.pieces_root.is_some(), file.node.len > 0);
        let chunks = space.chunks_of(index);
        assert_eq!(chunks.start, next);
        assert_eq!(u64::from(chunks.end - chunks.start), file.node.len.div_ceil(space.chunk_len().into()));
        next = chunks.end;
    }
    assert_eq!(next, space.chunk_count());
}

/// Where a link of this text leads: names below the share's directory.
fn resolve(path: &[ShareName], text: &str) -> Vec<ShareName> {
    let mut names = path[..path.len() - 1].to_vec();
    for component in Path::new(text).components() {
        match component {
            Component::Normal(name) => names.push(ShareName::new(name.to_str().unwrap()).unwrap()),
            Component::ParentDir => _ = names.pop().expect("it stays inside"),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => panic!("{text} is relative"),
        }
    }
    names
}
