//! What this machine has proved: records of finished downloads, so that the next run need not read their files again.
//!
//! A record counts for a file only if the file is still what is recorded: the same inode of the same device, with the same size,
//! modification time and change time (which cannot be set back). A file that changed so shortly before it was recorded that the
//! next change might have the same time is not recorded. These are the rules of the hash cache of seeders ([`crate::cache`]), which has a file
//! for each large file. Here there is one for each download, because its files may be many and small.
//!
//! A record is of use only to the user who wrote it: one that belongs to another user, or that others may write to, is ignored. So is
//! one that is damaged. A record has no word about what is at a path, so an old one does no harm.
//!
//! ```text
//! "SHOALPR1" | device u64 | length of the metainfo u32 | metainfo
//!   | each file: inode u64 | mtime s i64 | mtime ns i64 | ctime s i64 | ctime ns i64 (all 0 if it is not known)
//!   | 32 bytes for each chunk of files with several | SHA-256 of all before
//! ```
//! Integers are big endian.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process,
    time::SystemTime,
};

use proto::{ChunkIndex, Digest, Metainfo};
use rustix::fs::{Mode, OFlags};
use sha2::Digest as _;

use crate::{
    hashes::ChunkHashes,
    identity::{ChangeTime, FileIdentity, FileState},
    local::Local,
};

const MAGIC: &[u8; 8] = b"SHOALPR1";

/// Numbers of a file: its inode and four of times.
const NUMBERS: usize = 5;

/// How the names of records end.
const EXTENSION: &str = "proofs";

/// Maximum records; above it the oldest are removed. A machine has few directories that are updated.
const MAX_RECORDS: usize = 1_000;

/// Maximum bytes of one record: that of a share of 4 TiB, or of a million files. Larger shares are read again.
const MAX_LEN: u64 = 256 * 1024 * 1024;

/// Maximum bytes of all records; above it the oldest are removed.
const MAX_TOTAL: u64 = 1024 * 1024 * 1024;

/// Permissions with which others than the owner may write to a file.
const OTHERS_MAY_WRITE: u32 = 0o022;

/// A directory of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofCache {
    dir: PathBuf,
}

/// What is known of a share on this host.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) metainfo: Metainfo,
    pub(crate) hashes: ChunkHashes,
    /// What each file was when it had its hashes, if that is known.
    pub(crate) states: Vec<Option<FileState>>,
}

impl ProofCache {
    /// Uses `dir`, which is created when the first record is written.
    pub fn new(dir: PathBuf) -> ProofCache {
        ProofCache { dir }
    }

    /// What an earlier run proved at `root`.
    pub fn load(&self, root: &Path) -> Option<Local> {
        let path = self.path(root)?;
        match read(&path) {
            Ok(bytes) => Some(Local::recorded(root, decode_record(&bytes)?)),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::debug!("{}: {error}", path.display());
                }
                None
            }
        }
    }

    /// Records what was proved at `root`. A failure only costs time later.
    pub(crate) fn save(
        &self,
        root: &Path,
        metainfo: &Metainfo,
        hashes: &ChunkHashes,
        states: &[Option<FileState>],
    ) {
        let Some((path, bytes)) = self.path(root).zip(encode_record(metainfo, hashes, states)) else {
            return;
        };
        let temporary = path.with_extension(format!("{}.tmp", process::id()));
        let written = fs::create_dir_all(&self.dir)
            .and_then(|()| write_new(&temporary, &bytes))
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| self.prune(MAX_RECORDS, MAX_TOTAL));
        if let Err(error) = written {
            tracing::debug!("cannot remember what was proved in {}: {error}", path.display());
            let _ = fs::remove_file(temporary);
        }
    }

    /// One file for each path. Two spellings of a path have two, which does no harm.
    fn path(&self, root: &Path) -> Option<PathBuf> {
        let root: PathBuf = std::path::absolute(root).ok()?.components().collect();
        let name = Digest(sha2::Sha256::digest(root.as_os_str().as_bytes()).into());
        Some(self.dir.join(format!("{name}.{EXTENSION}")))
    }

    fn prune(&self, most: usize, most_bytes: u64) -> io::Result<()> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                let meta = fs::symlink_metadata(&path)?;
                records.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len(), path));
            }
        }
        records.sort_unstable_by(|one, other| other.cmp(one));
        let mut total = 0;
        for (count, (_, len, path)) in (1..).zip(records) {
            total += len;
            if count > most || total > most_bytes {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// Reads a record that this user wrote.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let meta = file.metadata()?;
    let is_own = meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & OTHERS_MAY_WRITE == 0;
    if !meta.is_file() || !is_own || meta.len() > MAX_LEN {
        return Err(io::Error::other("it is not a record of this user"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    Read::by_ref(&mut file).take(MAX_LEN).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

/// What is in a record, if it is intact.
pub(crate) fn decode_record(bytes: &[u8]) -> Option<Record> {
    let (body, checksum) = bytes.split_last_chunk::<{ Digest::LEN }>()?;
    if sha2::Sha256::digest(body).as_slice() != checksum {
        return None;
    }
    let (device, rest) = body.strip_prefix(MAGIC)?.split_first_chunk()?;
    let (metainfo_len, rest) = rest.split_first_chunk()?;
    let (metainfo, mut rest) = rest.split_at_checked(u32::from_be_bytes(*metainfo_len) as usize)?;
    let metainfo = Metainfo::decode(metainfo).ok()?;
    let space = metainfo.chunk_space();
    let mut states = Vec::with_capacity(metainfo.files().len());
    for file in 0..metainfo.files().len() {
        let numbers;
        (numbers, rest) = rest.split_first_chunk::<{ NUMBERS * 8 }>()?;
        let [inode, mtime_s, mtime_ns, s, ns] = numbers_of(numbers);
        let identity = FileIdentity {
            device: u64::from_be_bytes(*device),
            inode: inode.cast_unsigned(),
            len: space.file_len(file),
            mtime_s,
            mtime_ns,
        };
        let is_known = inode != 0;
        if !is_known && *numbers != [0; NUMBERS * 8] {
            return None;
        }
        states.push(is_known.then_some(FileState { identity, changed: ChangeTime { s, ns } }));
    }
    let mut hashes = Vec::with_capacity(space.chunk_count() as usize);
    for (file, entry) in metainfo.files().iter().enumerate() {
        let several = space.chunks_of(file).len();
        if several < 2 {
            hashes.extend(entry.node.pieces_root);
            continue;
        }
        let own;
        (own, rest) = rest.split_at_checked(several * Digest::LEN)?;
        hashes.extend(own.as_chunks::<{ Digest::LEN }>().0.iter().map(|&hash| Digest(hash)));
    }
    if !rest.is_empty() || states.iter().all(Option::is_none) {
        return None;
    }
    let hashes = ChunkHashes::prove(&metainfo, hashes).ok()?;
    Some(Record { metainfo, hashes, states })
}

fn numbers_of(bytes: &[u8; NUMBERS * 8]) -> [i64; NUMBERS] {
    let mut numbers = [0; NUMBERS];
    for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks().0) {
        *number = i64::from_be_bytes(*bytes);
    }
    numbers
}

/// A record, `None` if there is nothing to record, or too much. All files are on one device.
pub(crate) fn encode_record(
    metainfo: &Metainfo,
    hashes: &ChunkHashes,
    states: &[Option<FileState>],
) -> Option<Vec<u8>> {
    let device = states.iter().flatten().next()?.identity.device;
    let description = metainfo.as_bytes();
    // At least this long. Where a million files are recorded, a vector that doubles would need as much again.
    let mut bytes = Vec::with_capacity(description.len() + (states.len() + 1) * NUMBERS * 8);
    bytes.extend(MAGIC);
    bytes.extend(device.to_be_bytes());
    bytes.extend(u32::try_from(description.len()).ok()?.to_be_bytes());
    bytes.extend_from_slice(description);
    for state in states {
        let state = state.filter(|state| state.identity.device == device);
        let numbers = state.map_or([0; NUMBERS], |FileState { identity, changed }| {
            [identity.inode.cast_signed(), identity.mtime_s, identity.mtime_ns, changed.s, changed.ns]
        });
        bytes.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    }
    let space = metainfo.chunk_space();
    for chunks in (0..states.len()).map(|file| space.chunks_of(file)).filter(|chunks| chunks.len() > 1) {
        bytes.extend(
            hashes.range(ChunkIndex(chunks.start), chunks.end - chunks.start)?.iter().flat_map(|hash| hash.0),
        );
    }
    bytes.extend(sha2::Sha256::digest(&bytes));
    (bytes.len() as u64 <= MAX_LEN).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proto::{
        SMALL_CHUNK_LEN, ShareName,
        metainfo::{FileNode, Node, Tree},
    };

    use super::*;
    use crate::hashes::file_root;

    /// A file of two chunks, a small one and an empty one.
    fn share() -> (Metainfo, ChunkHashes) {
        let hashes = vec![Digest([1; 32]), Digest([2; 32]), Digest([3; 32])];
        let node = |len, hashes: &[Digest]| Node::File(FileNode::new(len, file_root(hashes, 8)));
        let files = [
            ("large", node(u64::from(SMALL_CHUNK_LEN) + 1, &hashes[..2])),
            ("small", node(9, &hashes[2..])),
            ("void", node(0, &[])),
        ];
        let name = |name: &str| ShareName::new(name).unwrap();
        let tree: BTreeMap<_, _> = files.into_iter().map(|(file, node)| (name(file), node)).collect();
        let tree = Tree::Directory(tree.into_iter().collect());
        let metainfo = Metainfo::new(name("share"), tree).unwrap();
        let hashes = ChunkHashes::prove(&metainfo, hashes).unwrap();
        (metainfo, hashes)
    }

    fn state(len: u64, inode: u64) -> Option<FileState> {
        let identity = FileIdentity { device: 7, inode, len, mtime_s: -1, mtime_ns: 2 };
        Some(FileState { identity, changed: ChangeTime { s: 3, ns: 4 } })
    }

    fn states() -> [Option<FileState>; 3] {
        [state(u64::from(SMALL_CHUNK_LEN) + 1, 11), None, state(0, u64::MAX)]
    }

    #[test]
    fn a_record_has_what_was_recorded_and_one_encoding() {
        let (metainfo, hashes) = share();
        let bytes = encode_record(&metainfo, &hashes, &states()).unwrap();
        let record = decode_record(&bytes).unwrap();
        assert_eq!(record.metainfo.infohash(), metainfo.infohash());
        assert_eq!((record.hashes, record.states), (hashes.clone(), states().to_vec()));
        assert!(encode_record(&metainfo, &hashes, &[None; 3]).is_none());
        // With a right checksum, numbers for a file that is not known.
        let mut other = bytes[..bytes.len() - Digest::LEN].to_vec();
        let second = MAGIC.len() + 8 + 4 + metainfo.as_bytes().len() + NUMBERS * 8;
        other[second + 8] = 1;
        other.extend(sha2::Sha256::digest(&other));
        assert!(decode_record(&other).is_none());
    }

    #[test]
    fn a_damaged_record_does_not_count() {
        let (metainfo, hashes) = share();
        let good = encode_record(&metainfo, &hashes, &states()).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(decode_record(&bad).is_none(), "byte {at}");
            assert!(decode_record(&good[..at]).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn the_oldest_records_go_when_there_are_too_many_or_they_are_too_long() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ProofCache::new(dir.path().to_owned());
        let fill = || {
            for number in 0..5 {
                let path = dir.path().join(format!("{number}.{EXTENSION}"));
                fs::write(&path, [0; 10]).unwrap();
                let file = OpenOptions::new().write(true).open(path).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number)).unwrap();
            }
            fs::write(dir.path().join("somebody's"), b"mine").unwrap();
        };
        let left = || {
            let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        };
        for (most, most_bytes) in [(2, 1_000), (100, 29)] {
            fill();
            cache.prune(most, most_bytes).unwrap();
            assert_eq!(left(), ["3.proofs", "4.proofs", "somebody's"]);
        }
    }
}
