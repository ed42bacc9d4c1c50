//! The hash cache: chunk hashes of files that were hashed before, so sharing a large file again starts at once.
//!
//! Each shared file has a small file here, named by device and inode, so a newer version of it replaces the older one. An
//! entry counts only for the same size, modification time (mtime) and change time (ctime, which cannot be set back), and
//! only if it is intact: it ends in its own SHA-256. A wrong entry could only make a share that no leecher accepts. It has the hashes that
//! the file had in its last share. A share whose chunks have another length ([`proto::ChunkSpace`]) hashes the file again.
//!
//! ```text
//! "SHOALHC2" | device u64 | inode u64 | len u64 | mtime s i64 | mtime ns i64 | ctime s i64 | ctime ns i64
//!   | 32 bytes a chunk | SHA-256
//! ```
//! Integers are big endian.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use proto::{Digest, chunk::CHUNK_LEN};
use sha2::Digest as _;

use crate::identity::{ChangeTime, FileIdentity};

const MAGIC: &[u8; 8] = b"SHOALHC2";
const HEADER_LEN: usize = MAGIC.len() + 7 * 8;

/// Files of at most this many bytes are hashed again: that costs no more than reading an entry.
const MIN_FILE_LEN: u64 = CHUNK_LEN as u64;

/// Maximum number of entries; above it the oldest are removed.
const MAX_ENTRIES: usize = 100_000;

/// A file that changed more recently than this when it was looked at might change again without a new modification time, because file
/// systems count time in steps. Hashing takes longer than that, so the time at its end says nothing.
const SETTLED: Duration = Duration::from_secs(2);

/// A directory of chunk hashes.
#[derive(Debug)]
pub struct HashCache {
    dir: PathBuf,
}

impl HashCache {
    /// Uses `dir`, which is created if it is missing.
    pub fn open(dir: PathBuf) -> io::Result<HashCache> {
        fs::create_dir_all(&dir)?;
        let cache = HashCache { dir };
        cache.prune(MAX_ENTRIES)?;
        Ok(cache)
    }

    /// The hashes of the chunks of a file, if they are known for chunks of `chunk_len` bytes.
    pub(crate) fn load(
        &self,
        identity: &FileIdentity,
        changed: ChangeTime,
        chunk_len: u32,
    ) -> Option<Vec<Digest>> {
        if identity.len <= MIN_FILE_LEN {
            return None;
        }
        decode_entry(&fs::read(self.path(identity)).ok()?, identity, changed, chunk_len)
    }

    /// Remembers the hashes of a file that was looked at before it was read. A failure only costs time later.
    pub(crate) fn save(
        &self,
        identity: &FileIdentity,
        changed: ChangeTime,
        hashes: &[Digest],
        looked_at: SystemTime,
    ) {
        // A link or a rename also changes the ctime, so such a file is hashed once more.
        if identity.len > MIN_FILE_LEN && is_settled(identity.mtime_s.max(changed.s), looked_at) {
            self.write(identity, changed, hashes);
        }
    }

    fn write(&self, identity: &FileIdentity, changed: ChangeTime, hashes: &[Digest]) {
        let bytes = encode_entry(identity, changed, hashes);
        let path = self.path(identity);
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        if let Err(error) = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, &path)) {
            tracing::debug!("hash cache: {}: {error}", path.display());
            let _ = fs::remove_file(temporary);
        }
    }

    fn path(&self, identity: &FileIdentity) -> PathBuf {
        self.dir.join(format!("{:x}-{:x}", identity.device, identity.inode))
    }

    fn prune(&self, most: usize) -> io::Result<()> {
        let mut entries = fs::read_dir(&self.dir)?.collect::<io::Result<Vec<_>>>()?;
        if entries.len() <= most {
            return Ok(());
        }
        entries.sort_by_cached_key(|entry| entry.metadata().and_then(|meta| meta.modified()).ok());
        for entry in &entries[..entries.len() - most] {
            remove(&entry.path());
        }
        Ok(())
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!("hash cache: {}: {error}", path.display());
    }
}

/// Whether the last change of a file was long enough before `at` for the next one to get another time.
pub(crate) fn is_settled(last_change_s: i64, at: SystemTime) -> bool {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(last_change_s).unwrap_or(0));
    // A time in the future is not settled either.
    at.duration_since(last).is_ok_and(|age| age > SETTLED)
}

/// The hashes in an entry, if it is intact, of this version of this file, and of chunks of `chunk_len` bytes.
pub(crate) fn decode_entry(
    bytes: &[u8],
    identity: &FileIdentity,
    changed: ChangeTime,
    chunk_len: u32,
) -> Option<Vec<Digest>> {
    let (body, checksum) = bytes.split_last_chunk::<{ Digest::LEN }>()?;
    let hashes = body.strip_prefix(header(identity, changed).as_slice())?;
    let chunks = identity.len.div_ceil(chunk_len.into());
    if hashes.len() as u64 != chunks * Digest::LEN as u64 || sha2::Sha256::digest(body).as_slice() != checksum
    {
        return None;
    }
    Some(hashes.as_chunks::<{ Digest::LEN }>().0.iter().map(|&hash| Digest(hash)).collect())
}

pub(crate) fn encode_entry(identity: &FileIdentity, changed: ChangeTime, hashes: &[Digest]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + (hashes.len() + 1) * Digest::LEN);
    bytes.extend(header(identity, changed));
    bytes.extend(hashes.iter().flat_map(|hash| hash.0));
    bytes.extend(sha2::Sha256::digest(&bytes));
    bytes
}

pub(crate) fn header(identity: &FileIdentity, changed: ChangeTime) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for field in [identity.device, identity.inode, identity.len] {
        bytes.extend(field.to_be_bytes());
    }
    for field in [identity.mtime_s, identity.mtime_ns, changed.s, changed.ns] {
        bytes.extend(field.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use proto::SMALL_CHUNK_LEN;

    use super::*;
    use crate::scan::{Scan, ScanRules};

    const FILE: FileIdentity =
        FileIdentity { device: 1, inode: 0xabc, len: MIN_FILE_LEN + 1, mtime_s: 1_000, mtime_ns: 5 };
    const CHANGED: ChangeTime = ChangeTime { s: 1_000, ns: 7 };
    const HASHES: [Digest; 2] = [Digest([1; 32]), Digest([2; 32])];

    fn cache() -> (tempfile::TempDir, HashCache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = HashCache::open(dir.path().join("a/b")).unwrap();
        (dir, cache)
    }

    #[test]
    fn remembers_a_file_until_it_changes() {
        let (_dir, cache) = cache();
        cache.save(&FILE, CHANGED, &HASHES, SystemTime::now());
        assert_eq!(cache.load(&FILE, CHANGED, CHUNK_LEN), Some(HASHES.to_vec()));
        assert_eq!(cache.load(&FILE, CHANGED, SMALL_CHUNK_LEN), None, "these are hashes of other chunks");
        for changed in [
            FileIdentity { len: FILE.len + 1, ..FILE },
            FileIdentity { mtime_s: 1_001, ..FILE },
            FileIdentity { mtime_ns: 6, ..FILE },
            FileIdentity { inode: 0xabd, ..FILE },
            FileIdentity { device: 2, ..FILE },
        ] {
            assert_eq!(cache.load(&changed, CHANGED, CHUNK_LEN), None);
        }
        for changed in [ChangeTime { s: 1_001, ns: 7 }, ChangeTime { s: 1_000, ns: 8 }] {
            assert_eq!(cache.load(&FILE, changed, CHUNK_LEN), None);
        }
    }

    #[test]
    fn a_damaged_entry_does_not_count() {
        let (_dir, cache) = cache();
        cache.save(&FILE, CHANGED, &HASHES, SystemTime::now());
        let path = cache.path(&FILE);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).unwrap();
            assert_eq!(cache.load(&FILE, CHANGED, CHUNK_LEN), None, "byte {at}");
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert_eq!(cache.load(&FILE, CHANGED, CHUNK_LEN), None);
    }

    /// However long hashing takes: while it was read it may have changed in the same step of time.
    #[test]
    fn a_file_that_had_just_changed_when_it_was_looked_at_is_not_remembered() {
        let (_dir, cache) = cache();
        let at = |s: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(s.unsigned_abs());
        let (later, changed_later) =
            (FileIdentity { mtime_s: 1_001, ..FILE }, ChangeTime { s: 1_001, ..CHANGED });
        for (file, changed) in [(&later, CHANGED), (&FILE, changed_later)] {
            for looked_at in [0, 1_001, 1_003] {
                cache.save(file, changed, &HASHES, at(looked_at));
                assert_eq!(cache.load(file, changed, CHUNK_LEN), None, "{looked_at}");
            }
            cache.save(file, changed, &HASHES, at(1_004));
            assert_eq!(cache.load(file, changed, CHUNK_LEN), Some(HASHES.to_vec()));
            fs::remove_file(cache.path(file)).unwrap();
        }
    }

    #[test]
    fn files_are_looked_at_when_their_scan_begins() {
        let (dir, cache) = cache();
        let path = dir.path().join("file");
        fs::write(&path, vec![1; CHUNK_LEN as usize + 1]).unwrap();
        let scan = || Scan::new(&path, None, &ScanRules::default()).unwrap();
        for (after, remembered) in [(Duration::ZERO, 0), (5 * SETTLED, 1)] {
            let mut scan = scan();
            scan.begun += after;
            scan.hash(Some(&cache), &|_| ControlFlow::Continue(())).unwrap();
            assert_eq!(fs::read_dir(&cache.dir).unwrap().count(), remembered);
        }
    }

    #[test]
    fn keeps_no_more_than_it_may() {
        let (_dir, cache) = cache();
        for inode in 0..5 {
            cache.save(&FileIdentity { inode, ..FILE }, CHANGED, &HASHES, SystemTime::now());
        }
        cache.prune(3).unwrap();
        assert_eq!(fs::read_dir(&cache.dir).unwrap().count(), 3);
    }
}
