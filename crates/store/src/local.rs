//! A directory of this host that was hashed by this run: what an update begins with.
//!
//! Its description is usually almost the new version's. Its hashes are proofs of this run, so a file that is still the same need not be
//! read again.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use proto::{Digest, Metainfo};

use crate::{
    content::Content,
    hash_run::OnProgress,
    identity::{ChangeTime, FileIdentity},
    scan::{Scan, ScanError, ScanRules},
    shared::{ShareError, Shared},
    wanted::joined,
};

/// A directory, with the hashes of its files.
#[derive(Debug)]
pub struct Local {
    root: PathBuf,
    shared: Shared,
    /// The positions of its files, by path inside it.
    places: HashMap<String, usize>,
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
        let shared = scan.hash_once(progress)?;
        let files = shared.metainfo().files().iter().enumerate();
        let places = files.map(|(at, entry)| (joined(&entry.path), at)).collect();
        Ok(Local { root: root.to_owned(), shared, places })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its description.
    pub fn metainfo(&self) -> &Metainfo {
        self.shared.metainfo()
    }

    /// The files, with their paths inside it and their lengths.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&Path, &str, u64)> {
        let mut files: Vec<_> = self.places.iter().map(|(inside, &at)| (at, &**inside)).collect();
        files.sort_unstable();
        files.into_iter().map(|(at, inside)| {
            let (path, len) = self.shared.scanned(at);
            (path, inside, len)
        })
    }

    /// The hashes of a file's chunks, if it is still what was hashed.
    pub(crate) fn hashes_of(
        &self,
        inside: &str,
        identity: &FileIdentity,
        changed: ChangeTime,
    ) -> Option<&[Digest]> {
        self.shared.hashes_if_unchanged(*self.places.get(inside)?, identity, changed)
    }
}
