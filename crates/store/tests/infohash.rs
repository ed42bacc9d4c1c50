//! The infohash of a shared path is the one that libtorrent computes: `data/infohashes.tsv`, written by the script beside it.

use std::{fs, ops::ControlFlow, path::Path};

use proto::ChunkIndex;
use store::{Content, Scan, ScanRules, Shared};

const TABLE: &str = include_str!("data/infohashes.tsv");

/// The file content of that script.
fn content(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + (i >> 8) * 7 + (i >> 16) * 13 + seed) as u8).collect()
}

fn share(path: &Path) -> Shared {
    Scan::new(path, None, &ScanRules::default()).unwrap().hash(None, &|_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn files_have_libtorrents_infohash() {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<Vec<_>> = TABLE
        .lines()
        .map(|line| line.split('\t').collect())
        .filter(|row: &Vec<_>| row[0] == "file")
        .collect();
    assert_eq!(rows.len(), 19);
    for row in rows {
        let [_, name, size, seed, infohash, root] = row[..] else { panic!("{row:?}") };
        let path = dir.path().join(name);
        fs::write(&path, content(size.parse().unwrap(), seed.parse().unwrap())).unwrap();
        let shared = share(&path);
        assert_eq!(shared.metainfo().infohash().to_string(), infohash, "{name}");
        assert_eq!(shared.metainfo().files()[0].node.pieces_root.unwrap().to_string(), root, "{name}");
    }
}

/// The example of docs/protocol.md. Its figures come from a separate script, not from this code.
#[test]
fn a_file_of_several_chunks_has_the_hashes_of_the_protocols_page() {
    let page = include_str!("../../../docs/protocol.md");
    let on_page = |name: &str| {
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("  "));
        value.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file-1200000.bin");
    fs::write(&path, (0..1_200_000).map(|i| (i % 251) as u8).collect::<Vec<_>>()).unwrap();
    let shared = share(&path);
    for chunk in [0, 1, 9] {
        let hash = shared.hashes().get(ChunkIndex(chunk)).unwrap();
        assert_eq!(hash.to_string(), on_page(&format!("chunk {chunk}")));
    }
    assert_eq!(shared.metainfo().files()[0].node.pieces_root.unwrap().to_string(), on_page("pieces root"));
    assert_eq!(shared.metainfo().infohash().to_string(), on_page("infohash"));
}

#[test]
fn directories_have_libtorrents_infohash() {
    let rows: Vec<Vec<_>> =
        TABLE.lines().map(|line| line.split('\t').collect()).filter(|row: &Vec<_>| row[0] == "dir").collect();
    assert_eq!(rows.len(), 2);
    for row in rows {
        let [_, name, members, infohash] = row[..] else { panic!("{row:?}") };
        let dir = tempfile::tempdir().unwrap();
        for member in members.split('|') {
            let [path, size, seed] = member.split(':').collect::<Vec<_>>()[..] else { panic!("{member}") };
            let path = dir.path().join(name).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content(size.parse().unwrap(), seed.parse().unwrap())).unwrap();
        }
        assert_eq!(share(&dir.path().join(name)).metainfo().infohash().to_string(), infohash, "{name}");
    }
}
