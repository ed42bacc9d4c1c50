//! The resume file records which chunks of a download are durable.
//!
//! It has two slots, and the newer intact one counts. A write replaces the older one, so a crash at any time leaves the
//! other. The file has its whole length from the beginning, so it can be written when the disk is full.
//!
//! ```text
//! slot: "SHOALRS2" | infohash (32) | chunks u32 | sequence u64 | bitfield | SHA-256 of all before | zeros to 4 KiB
//! ```
//! Integers are big endian. The file is a claim, not a proof: a download that resumes hashes every claimed chunk again.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use proto::{Bitfield, Digest, InfoHash, chunk::MAX_CHUNKS};
use rustix::fs::OFlags;
use sha2::Digest as _;

use crate::{
    disk,
    error::{AtPath, PathError},
    identity::{FileId, FileState},
};

const MAGIC: &[u8; 8] = b"SHOALRS2";

/// Bytes before the bitfield.
pub(crate) const HEADER_LEN: usize = MAGIC.len() + 32 + 4 + 8;

/// Slots in the file: the one that counts, and the one that is written next.
const SLOTS: u64 = 2;

/// Slots begin at page boundaries, so writing one cannot tear the other.
const ALIGNMENT: usize = 4096;

/// Maximum time to wait for the clock of a file system: twice the slowest step that Linux has for files on its own disks. FAT and some
/// file servers have steps of seconds.
const MAX_TICK_MS: u32 = 20;

/// What an earlier run left.
#[derive(Debug)]
pub(crate) enum Resume {
    /// Nothing.
    Missing,
    /// It is damaged, cannot be read, or is not a resume file.
    Unreadable,
    /// It is not a file.
    NotAFile,
    /// It belongs to another share.
    OtherShare,
    /// These chunks were durable.
    Claims(ResumeFile, Bitfield),
}

/// An open resume file.
#[derive(Debug)]
pub(crate) struct ResumeFile {
    path: PathBuf,
    file: File,
    id: FileId,
    infohash: InfoHash,
    /// The newer slot's number.
    sequence: u64,
}

/// Length in bytes of the resume file of a share with this number of chunks.
pub(crate) fn file_len(chunk_count: u32) -> u64 {
    SLOTS * slot_len(chunk_count) as u64
}

fn slot_len(chunk_count: u32) -> usize {
    (HEADER_LEN + Bitfield::byte_len(chunk_count) + Digest::LEN).next_multiple_of(ALIGNMENT)
}

pub(crate) fn load(path: &Path, infohash: InfoHash, chunk_count: u32) -> Result<Resume, PathError> {
    match disk::examine(path) {
        Ok(meta) if !meta.is_file() => return Ok(Resume::NotAFile),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Resume::Missing),
        Err(error) => return Err(error).at("examine", path),
    }
    match read(path) {
        Ok((file, id, bytes)) => Ok(parse(path, file, id, &bytes, infohash, chunk_count)),
        Err(error) => {
            tracing::warn!("cannot read {}: {error}", path.display());
            Ok(Resume::Unreadable)
        }
    }
}

fn read(path: &Path) -> io::Result<(File, FileId, Vec<u8>)> {
    let file = disk::open(path, OFlags::RDWR)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > file_len(MAX_CHUNKS) {
        return Err(io::Error::other("it is not a resume file"));
    }
    let mut bytes = vec![0; usize::try_from(meta.len()).unwrap_or(0)];
    disk::read_exact_at(&file, &mut bytes, 0)?;
    Ok((file, FileId::of(&meta), bytes))
}

fn parse(path: &Path, file: File, id: FileId, bytes: &[u8], infohash: InfoHash, chunk_count: u32) -> Resume {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let newer = [first, second].into_iter().filter_map(decode_slot).max_by_key(|slot| slot.sequence);
    match newer {
        Some(Slot { infohash: found, .. }) if found != infohash => Resume::OtherShare,
        // A file of another length could not be written in place.
        Some(Slot { sequence, claims, .. })
            if claims.len() == chunk_count && bytes.len() as u64 == file_len(chunk_count) =>
        {
            Resume::Claims(ResumeFile { path: path.to_owned(), file, id, infohash, sequence }, claims)
        }
        _ => Resume::Unreadable,
    }
}

/// One of the slots.
pub(crate) struct Slot {
    pub(crate) infohash: InfoHash,
    pub(crate) sequence: u64,
    pub(crate) claims: Bitfield,
}

pub(crate) fn decode_slot(bytes: &[u8]) -> Option<Slot> {
    let (infohash, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
    let (chunk_count, rest) = rest.split_first_chunk::<4>()?;
    let chunk_count = Some(u32::from_be_bytes(*chunk_count)).filter(|&count| count <= MAX_CHUNKS)?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (bitfield, rest) = rest.split_at_checked(Bitfield::byte_len(chunk_count))?;
    let body = &bytes[..HEADER_LEN + bitfield.len()];
    if sha2::Sha256::digest(body).as_slice() != rest.first_chunk::<{ Digest::LEN }>()? {
        return None;
    }
    Some(Slot {
        infohash: InfoHash(*infohash),
        sequence: u64::from_be_bytes(*sequence),
        claims: Bitfield::from_bytes(bitfield, chunk_count).ok()?,
    })
}

impl ResumeFile {
    /// Creates a resume file, in place of one that may be there. A crash at any time leaves the old one or the new one.
    pub(crate) fn create(
        path: &Path,
        infohash: InfoHash,
        claims: &Bitfield,
    ) -> Result<ResumeFile, PathError> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        ResumeFile::create_by(&temporary, path, infohash, claims)
            .inspect_err(|_| {
                let _ = disk::remove(&temporary);
            })
            .at("write", path)
    }

    fn create_by(
        temporary: &Path,
        path: &Path,
        infohash: InfoHash,
        claims: &Bitfield,
    ) -> io::Result<ResumeFile> {
        let sequence = 1;
        let file = create_new(temporary)?;
        let mut bytes = encode_slot(infohash, 0, claims);
        bytes.extend(encode_slot(infohash, sequence, claims));
        disk::write_all_at(&file, &bytes, 0)?;
        disk::sync_data(&file)?;
        disk::rename(temporary, path)?;
        disk::sync_parent(path)?;
        let id = FileId::of(&file.metadata()?);
        Ok(ResumeFile { path: path.to_owned(), file, id, infohash, sequence })
    }

    /// Makes durable what an earlier run wrote. A run that was killed may have left it in the system's memory only.
    pub(crate) fn sync(&self) -> Result<(), PathError> {
        disk::sync_data(&self.file).at("sync", &self.path)
    }

    /// Changes the file until it has a later time than everything that was changed before, by the clock of its file system, and returns
    /// what it is then. Where that takes too long, it may have the same time.
    pub(crate) fn tick(&self) -> io::Result<FileState> {
        let touch = || {
            disk::touch(&self.file)?;
            Ok::<_, io::Error>(FileState::of(&self.file.metadata()?))
        };
        let first = touch()?;
        for _ in 0..MAX_TICK_MS {
            let now = touch()?;
            if now.changed > first.changed {
                return Ok(now);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(first)
    }

    /// Claims these chunks, and no others.
    pub(crate) fn save(&mut self, claims: &Bitfield) -> Result<(), PathError> {
        if !self.id.is_at(&self.path).at("examine", &self.path)? {
            return self.replace(claims);
        }
        let sequence = self.sequence + 1;
        let bytes = encode_slot(self.infohash, sequence, claims);
        let offset = if sequence.is_multiple_of(2) { 0 } else { bytes.len() as u64 };
        disk::write_all_at(&self.file, &bytes, offset)
            .and_then(|()| disk::sync_data(&self.file))
            .at("write", &self.path)?;
        // Only now: after a failure the same slot is written again, and the other one still counts.
        self.sequence = sequence;
        Ok(())
    }

    /// For a file that somebody removed or replaced. What replaced it may be theirs and is not overwritten.
    fn replace(&mut self, claims: &Bitfield) -> Result<(), PathError> {
        match disk::examine(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                *self = ResumeFile::create(&self.path, self.infohash, claims)?;
                Ok(())
            }
            Err(error) => Err(error).at("examine", &self.path),
            Ok(_) => Err(io::Error::other("something else was put in its place")).at("write", &self.path),
        }
    }

    /// Removes it, if it is still there. A failure does no harm.
    pub(crate) fn remove(self) {
        let removed = match self.id.is_at(&self.path) {
            Ok(true) => disk::remove(&self.path),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!("cannot remove {}, which is no longer needed: {error}", self.path.display());
        }
    }
}

/// Creates a file, after removing one that a crash left.
fn create_new(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    match disk::open(path, flags) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !disk::examine(path)?.is_file() {
                return Err(error);
            }
            disk::remove(path)?;
            disk::open(path, flags)
        }
        result => result,
    }
}

pub(crate) fn encode_slot(infohash: InfoHash, sequence: u64, claims: &Bitfield) -> Vec<u8> {
    let len = slot_len(claims.len());
    let mut bytes = Vec::with_capacity(len);
    bytes.extend(MAGIC);
    bytes.extend(infohash.0);
    bytes.extend(claims.len().to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(claims.as_bytes());
    bytes.extend(sha2::Sha256::digest(&bytes));
    bytes.resize(len, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use proto::ChunkIndex;

    use super::*;

    const SHARE: InfoHash = InfoHash([4; 32]);

    fn claims_of(path: &Path, len: u32) -> Option<Bitfield> {
        match load(path, SHARE, len).unwrap() {
            Resume::Claims(_, claims) => Some(claims),
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(len in 0..100_u32, saves in prop::collection::vec(0..100_u32, 0..50)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.resume");
            let mut have = Bitfield::empty(len);
            let mut resume = ResumeFile::create(&path, SHARE, &have).unwrap();
            for pick in saves.into_iter().filter(|&pick| pick < len) {
                have.insert(ChunkIndex(pick));
                resume.save(&have).unwrap();
                prop_assert_eq!(claims_of(&path, len), Some(have.clone()));
                prop_assert_eq!(fs::metadata(&path).unwrap().len(), file_len(len));
            }
            prop_assert_eq!(claims_of(&path, len), Some(have));
            let other = InfoHash([5; 32]);
            prop_assert!(matches!(load(&path, other, len).unwrap(), Resume::OtherShare));
            prop_assert!(matches!(load(&path, SHARE, len + 1).unwrap(), Resume::Unreadable));
        }
    }

    /// A slot that a crash tore leaves the other.
    #[test]
    fn damage_is_noticed_and_the_other_slot_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.resume");
        assert!(matches!(load(&path, SHARE, 9).unwrap(), Resume::Missing));
        let (old, new) = (Bitfield::empty(9), Bitfield::full(9));
        ResumeFile::create(&path, SHARE, &old).unwrap().save(&new).unwrap();
        let good = fs::read(&path).unwrap();
        let used = HEADER_LEN + 2 + Digest::LEN;
        // The new one is in the first slot.
        for at in 0..used {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            assert_eq!(claims_of(&path, 9).as_ref(), Some(&old), "byte {at}");
            bad[good.len() / 2 + at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            assert!(matches!(load(&path, SHARE, 9).unwrap(), Resume::Unreadable), "byte {at} of both");
            fs::write(&path, &good[..at]).unwrap();
            assert!(matches!(load(&path, SHARE, 9).unwrap(), Resume::Unreadable), "cut at {at}");
        }
    }

    #[test]
    fn a_huge_file_and_what_is_no_file_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.resume");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(load(&path, SHARE, 9).unwrap(), Resume::Unreadable));
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(load(&path, SHARE, 9).unwrap(), Resume::NotAFile));
    }
}
