//! What of this host is hashed already: by this run, because an update begins with it, or by an earlier one ([`crate::proofs`]).
//!
//! Its description is usually almost the new version's. Its hashes are proofs, so a file that is still the same need not be read again.

use std::path::{Path, PathBuf};

use proto::{ChunkIndex, Digest, Metainfo};

use crate::{
    hash_run::OnProgress,
    identity::FileState,
    proofs::Record,
    scan::{Scan, ScanError, ScanRules},
    shared::ShareError,
};

/// A file or directory, with the hashes of its files.
#[derive(Debug)]
pub struct Local {
    root: PathBuf,
    record: Record,
    origin: Origin,
}

/// Who read the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    ThisRun,
    EarlierRun,
}

impl Local {
    /// Finds the files of a directory. `None` if they are fewer than `min_files`, or longer than `max_mean_len` bytes on average.
    pub fn scan(root: &Path, min_files: usize, max_mean_len: u64) -> Result<Option<Scan>, ScanError> {
        let scan = Scan::new(root, None, &ScanRules::default())?;
        let count = scan.files.len() as u64;
        let is_long = scan.total_len() / count.max(1) > max_mean_len;
        Ok((count >= min_files as u64 && !is_long).then_some(scan))
    }

    /// Hashes the files that were found in a directory.
    pub fn hash(root: &Path, scan: Scan, progress: OnProgress<'_>) -> Result<Local, ShareError> {
        let (metainfo, hashes, states) = scan.hash_once(progress)?.into_hashed();
        let record = Record { metainfo, hashes, states: states.into_iter().map(Some).collect() };
        Ok(Local { root: root.to_owned(), record, origin: Origin::ThisRun })
    }

    pub(crate) fn recorded(root: &Path, record: Record) -> Local {
        Local { root: root.to_owned(), record, origin: Origin::EarlierRun }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its description.
    pub fn metainfo(&self) -> &Metainfo {
        &self.record.metainfo
    }

    /// Whether there is a record of it.
    pub(crate) fn is_recorded(&self) -> bool {
        self.origin == Origin::EarlierRun
    }

    /// The hashes of the chunks of the file with this path inside it, if the file is still what was hashed, and chunks of `chunk_len` bytes
    /// have the same hashes.
    pub(crate) fn hashes_of<'a>(
        &'a self,
        path: impl Iterator<Item = &'a str> + Clone,
        now: &FileState,
        chunk_len: u32,
    ) -> Option<&'a [Digest]> {
        let Record { metainfo, hashes, states } = &self.record;
        let files = metainfo.files();
        // Files are in the order of their paths.
        let file =
            files.binary_search_by(|entry| entry.path.iter().map(|name| name.as_str()).cmp(path.clone()));
        let file = file.ok().filter(|&file| states[file].as_ref() == Some(now))?;
        let space = metainfo.chunk_space();
        // A file that is one chunk in both has one hash.
        let is_one_chunk = space.file_len(file) <= space.chunk_len().min(chunk_len).into();
        if space.chunk_len() != chunk_len && !is_one_chunk {
            return None;
        }
        let chunks = space.chunks_of(file);
        hashes.range(ChunkIndex(chunks.start), chunks.end - chunks.start)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, ops::ControlFlow};

    use proto::{CHUNK_LEN, SMALL_CHUNK_LEN};

    use super::*;

    /// An update may make a small share a large one, whose chunks are longer.
    #[test]
    fn hashes_count_for_chunks_of_their_length() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("share");
        fs::create_dir(&root).unwrap();
        for (name, len) in [("one", SMALL_CHUNK_LEN), ("several", SMALL_CHUNK_LEN + 1)] {
            fs::write(root.join(name), vec![7; len as usize]).unwrap();
        }
        let scan = Local::scan(&root, 0, u64::MAX).unwrap().unwrap();
        let local = Local::hash(&root, scan, &|_| ControlFlow::Continue(())).unwrap();
        let count = |name: &str, chunk_len| {
            let now = FileState::of(&fs::metadata(root.join(name)).unwrap());
            local.hashes_of([name].into_iter(), &now, chunk_len).map(<[Digest]>::len)
        };
        assert_eq!(["one", "several"].map(|name| count(name, SMALL_CHUNK_LEN)), [Some(1), Some(2)]);
        assert_eq!(["one", "several"].map(|name| count(name, CHUNK_LEN)), [Some(1), None]);
    }
}
