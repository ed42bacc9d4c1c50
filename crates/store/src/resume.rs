//! The resume file: which chunks of a download are on disk.
//!
//! ```text
//! "SHOALRS1" | infohash (32) | chunks u32 | bitfield | SHA-256 of all before
//! ```
//! Integers are big endian. It is a claim, not a proof: whoever resumes hashes every claimed chunk again.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use proto::{Bitfield, InfoHash};
use sha2::Digest as _;

const MAGIC: &[u8; 8] = b"SHOALRS1";

/// What a resume file says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// There is none.
    Missing,
    /// It is damaged, or not a resume file.
    Unreadable,
    /// It belongs to another share.
    OtherShare(InfoHash),
    /// These chunks were on disk.
    Claims(Bitfield),
}

pub(crate) fn load(path: &Path, infohash: InfoHash, chunk_count: u32) -> io::Result<Resume> {
    match fs::read(path) {
        Ok(bytes) => Ok(parse(&bytes, infohash, chunk_count).unwrap_or(Resume::Unreadable)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Resume::Missing),
        Err(error) => Err(error),
    }
}

fn parse(bytes: &[u8], infohash: InfoHash, chunk_count: u32) -> Option<Resume> {
    let (body, checksum) = bytes.split_last_chunk::<32>()?;
    if sha2::Sha256::digest(body).as_slice() != checksum {
        return None;
    }
    let (found, rest) = body.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
    if *found != infohash.0 {
        return Some(Resume::OtherShare(InfoHash(*found)));
    }
    let bitfield = rest.strip_prefix(&chunk_count.to_be_bytes())?;
    Bitfield::from_bytes(bitfield, chunk_count).ok().map(Resume::Claims)
}

/// Writes the resume file so that a crash at any time leaves the old one or the new one.
pub(crate) fn save(path: &Path, infohash: InfoHash, have: &Bitfield) -> io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(infohash.0);
    bytes.extend(have.len().to_be_bytes());
    bytes.extend(have.as_bytes());
    bytes.extend(sha2::Sha256::digest(&bytes));
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Makes the names in the directory of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::ChunkIndex;

    use super::*;

    const SHARE: InfoHash = InfoHash([4; 32]);

    proptest! {
        #[test]
        fn reads_what_it_writes(len in 0..100_u32, picks in prop::collection::vec(0..100_u32, 0..50)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.resume");
            let mut have = Bitfield::empty(len);
            for pick in picks.into_iter().filter(|&pick| pick < len) {
                have.insert(ChunkIndex(pick));
            }
            save(&path, SHARE, &have).unwrap();
            prop_assert_eq!(load(&path, SHARE, len).unwrap(), Resume::Claims(have));
            prop_assert_eq!(load(&path, InfoHash([5; 32]), len).unwrap(), Resume::OtherShare(SHARE));
            prop_assert_eq!(load(&path, SHARE, len + 1).unwrap(), Resume::Unreadable);
        }
    }

    #[test]
    fn damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.resume");
        assert_eq!(load(&path, SHARE, 9).unwrap(), Resume::Missing);
        save(&path, SHARE, &Bitfield::full(9)).unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            assert_eq!(load(&path, SHARE, 9).unwrap(), Resume::Unreadable, "byte {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert_eq!(load(&path, SHARE, 9).unwrap(), Resume::Unreadable, "cut at {at}");
        }
    }
}
