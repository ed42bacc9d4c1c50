//! The shares of tests, and checks of their copies.

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::{Endpoint, InfoHash, Link, ShareName};
use shoal::Fetched;
use store::{Content, Scan, ScanRules, Shared};

pub(crate) const KIB: u64 = 1024;
pub(crate) const MIB: u64 = 1024 * KIB;

/// Bytes in a chunk.
pub(crate) const CHUNK: u64 = proto::SMALL_CHUNK_LEN as u64;

/// A file or directory that is shared.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) shared: Arc<Shared>,
}

impl Source {
    /// Shares what is at `path`.
    pub(crate) fn of(path: PathBuf) -> Source {
        let shared = Scan::new(&path, None, &ScanRules::default())
            .unwrap()
            .hash(None, &|_| ControlFlow::Continue(()))
            .unwrap();
        Source { path, shared: Arc::new(shared) }
    }

    pub(crate) fn infohash(&self) -> InfoHash {
        self.shared.metainfo().infohash()
    }

    pub(crate) fn name(&self) -> ShareName {
        self.shared.metainfo().name().clone()
    }

    pub(crate) fn size(&self) -> u64 {
        self.shared.metainfo().chunk_space().total_len()
    }

    pub(crate) fn link(&self, trackers: Vec<Endpoint>, peers: Vec<Endpoint>) -> Link {
        Link { infohash: self.infohash(), name: Some(self.name()), trackers, peers }
    }

    /// Checks that a transfer saved exactly this share, left nothing beside it, and reports the right size.
    #[track_caller]
    pub(crate) fn assert_fetched(&self, fetched: &Fetched) {
        assert_eq!((fetched.infohash, &fetched.name), (self.infohash(), &self.name()));
        assert_eq!(fetched.size, self.size());
        // Not assert_eq, which would print megabytes.
        assert!(listing(&fetched.path) == listing(&self.path), "{} differs", fetched.path.display());
        let dir = fetched.path.parent().unwrap();
        assert_eq!(names_in(dir), [fetched.path.file_name().unwrap().to_str().unwrap()]);
    }

    /// Checks that a part of a download of this file holds only right bytes, and room for the others.
    #[track_caller]
    pub(crate) fn assert_part(&self, part: &Path) {
        let (whole, part) = (fs::read(&self.path).unwrap(), fs::read(part).unwrap());
        assert_eq!(part.len(), whole.len());
        let wrong = whole.iter().zip(&part).position(|(right, written)| *written != 0 && written != right);
        assert_eq!(wrong, None, "position of the first wrong byte");
    }
}

/// Bytes that look random, are never 0 (the content of a file where nothing was written), and differ by seed.
pub(crate) fn content(len: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap() + 8);
    while (bytes.len() as u64) < len {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend((state | 0x0101_0101_0101_0101).to_le_bytes());
    }
    bytes.truncate(usize::try_from(len).unwrap());
    bytes
}

/// The names in a directory, sorted.
pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every file and directory below `path`, with the files' content.
fn listing(path: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![path.to_owned()];
    while let Some(at) = todo.pop() {
        let is_dir = at.is_dir();
        if is_dir {
            todo.extend(fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
        }
        let bytes = (!is_dir).then(|| fs::read(&at).unwrap());
        found.insert(at.strip_prefix(path).unwrap().to_owned(), bytes);
    }
    found
}
