//! What an entry of a directory looks like: a number that changes when anything changes that a share of it depends on.

use std::{
    ffi::OsStr,
    fs::{self, Metadata},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use proto::metainfo::MAX_DEPTH;
use store::Exclusion;

/// Sizes, times and places of all files of an entry, and their names, as one number. It reads no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Print(pub(super) u64);

impl Print {
    /// Looks at the entry at `path`; `None` if there is none. What cannot be read counts too, so that it changes when it can.
    pub(super) fn of(path: &Path, exclude: &[Exclusion]) -> Option<Print> {
        // Like what is named on the command line, an entry that is a link is followed.
        let found = fs::metadata(path).or_else(|_| fs::symlink_metadata(path));
        if found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return None;
        }
        let mut sum = hash(OsStr::new(""), &found);
        if found.is_ok_and(|found| found.is_dir()) {
            add(path, Path::new(""), exclude, 0, &mut sum);
        }
        Some(Print(sum))
    }
}

/// Adds what is below a directory. The order in which a directory lists its entries does not matter.
fn add(root: &Path, below: &Path, exclude: &[Exclusion], depth: usize, sum: &mut u64) {
    let listed = fs::read_dir(root.join(below));
    if let Err(error) = &listed {
        *sum = sum.wrapping_add(hash(below.as_os_str(), &Err(error.kind().into())));
    }
    for entry in listed.into_iter().flatten().flatten() {
        let path = below.join(entry.file_name());
        let found = entry.metadata();
        let is_dir = found.as_ref().is_ok_and(Metadata::is_dir);
        if exclude.iter().any(|exclusion| exclusion.excludes(&path, is_dir)) {
            continue;
        }
        *sum = sum.wrapping_add(hash(path.as_os_str(), &found));
        if is_dir && depth < MAX_DEPTH {
            add(root, &path, exclude, depth + 1, sum);
        }
    }
}

fn hash(name: &OsStr, found: &io::Result<Metadata>) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    match found {
        // The times of a directory change with what is left out of it too.
        Ok(found) if found.is_dir() => (found.dev(), found.ino(), found.mode()).hash(&mut hasher),
        Ok(found) => {
            (found.dev(), found.ino(), found.mode(), found.len()).hash(&mut hasher);
            (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()).hash(&mut hasher);
        }
        Err(error) => error.raw_os_error().hash(&mut hasher),
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_print_changes_with_whatever_a_share_depends_on() {
        let dir = tempfile::tempdir().unwrap();
        let entry = dir.path().join("entry");
        let exclude: Vec<Exclusion> = vec!["*.log".parse().unwrap()];
        let print = || Print::of(&entry, &exclude);
        assert_eq!(print(), None);
        fs::create_dir_all(entry.join("sub")).unwrap();
        let mut prints = vec![print().unwrap()];
        let mut differs = |what: &str| {
            let now = print().unwrap();
            assert!(!prints.contains(&now), "{what}");
            assert_eq!(print(), Some(now), "nothing has changed since");
            prints.push(now);
        };
        fs::write(entry.join("sub/a"), "1").unwrap();
        differs("a file");
        fs::write(entry.join("sub/a"), "12").unwrap();
        differs("a longer file");
        fs::rename(entry.join("sub/a"), entry.join("sub/b")).unwrap();
        differs("another name");
        fs::create_dir(entry.join("empty")).unwrap();
        differs("an empty directory");
        let before = print();
        fs::write(entry.join("sub/x.log"), "1").unwrap();
        assert_eq!(print(), before, "what is left out does not count");
    }
}
