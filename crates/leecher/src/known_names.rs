//! What each name led to when it was last fetched by.
//!
//! A name proves nothing, and may lead to something else tomorrow. This file remembers the infohash that was fetched under each
//! name, so that a change can be reported. It is a convenience, not a proof: a file that is missing, damaged or too large counts as
//! empty, and of two transfers that end at the same moment one may be forgotten.
//!
//! Each line is an infohash, a space and a name, oldest first. A name has no line break in it.

use std::{
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use proto::{InfoHash, ShareName, name::MAX_NAME_LEN};

/// Maximum number of names; above it the oldest are forgotten.
const MAX_NAMES: usize = 1_000;

/// Maximum bytes of the file that are read: as many as that many of the longest lines have.
const MAX_FILE_LEN: u64 = (MAX_NAMES * (64 + 1 + MAX_NAME_LEN + 1)) as u64;

/// The infohash of `name` in the file at `path`, if it is there.
pub(crate) fn recall(path: &Path, name: &ShareName) -> Option<InfoHash> {
    read(path).into_iter().find(|(_, known)| known == name).map(|(infohash, _)| infohash)
}

/// Makes `infohash` that of `name` in the file at `path`, which is created with its directory if it does not exist.
pub(crate) fn remember(path: &Path, name: &ShareName, infohash: InfoHash) -> io::Result<()> {
    let mut known = read(path);
    if known.iter().any(|entry| *entry == (infohash, name.clone())) {
        return Ok(());
    }
    known.retain(|(_, known)| known != name);
    known.push((infohash, name.clone()));
    let lines: Vec<_> = known.iter().skip(known.len().saturating_sub(MAX_NAMES)).map(line).collect();
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let temporary = temporary(path, infohash);
    fs::write(&temporary, lines.concat())
        .and_then(|()| fs::rename(&temporary, path))
        .inspect_err(|_| _ = fs::remove_file(&temporary))
}

fn line((infohash, name): &(InfoHash, ShareName)) -> String {
    format!("{infohash} {name}\n")
}

/// Two transfers of one process have different infohashes.
fn temporary(path: &Path, infohash: InfoHash) -> PathBuf {
    path.with_extension(format!("{infohash}-{}.tmp", std::process::id()))
}

/// All entries that are intact.
fn read(path: &Path) -> Vec<(InfoHash, ShareName)> {
    let text = fs::File::open(path).and_then(|file| {
        let mut text = String::new();
        file.take(MAX_FILE_LEN + 1).read_to_string(&mut text)?;
        Ok(text)
    });
    let Ok(text) = text else { return Vec::new() };
    if text.len() as u64 > MAX_FILE_LEN {
        return Vec::new();
    }
    text.lines()
        .filter_map(|line| {
            let (infohash, name) = line.split_once(' ')?;
            Some((infohash.parse().ok()?, ShareName::new(name).ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ShareName {
        ShareName::new(text).unwrap()
    }

    #[test]
    fn the_last_infohash_of_each_name_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/known-names");
        assert_eq!(recall(&path, &name("x")), None);
        for (text, byte) in [("x", 1), ("two words", 2), ("x", 3), ("x", 3)] {
            remember(&path, &name(text), InfoHash([byte; 32])).unwrap();
        }
        assert_eq!(recall(&path, &name("x")), Some(InfoHash([3; 32])));
        assert_eq!(recall(&path, &name("two words")), Some(InfoHash([2; 32])));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn there_are_no_more_names_than_the_maximum_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known-names");
        let long = |number: usize| name(&format!("{number:0>MAX_NAME_LEN$}"));
        let all: Vec<_> = (0..MAX_NAMES).map(|number| line(&(InfoHash([1; 32]), long(number)))).collect();
        fs::write(&path, all.concat()).unwrap();
        remember(&path, &name("new"), InfoHash([2; 32])).unwrap();
        assert_eq!(recall(&path, &long(0)), None);
        assert_eq!(recall(&path, &long(1)), Some(InfoHash([1; 32])));
        assert_eq!(recall(&path, &name("new")), Some(InfoHash([2; 32])));
        assert!(fs::metadata(&path).unwrap().len() <= MAX_FILE_LEN);
    }

    #[test]
    fn a_damaged_file_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known-names");
        let good = line(&(InfoHash([1; 32]), name("good")));
        for bad in [
            b"no line\nabc def\n".to_vec(),
            format!("{good}{} ..\n", "ab".repeat(32)).into_bytes(),
            b"\xff\xfe".to_vec(),
            vec![b'\n'; MAX_FILE_LEN as usize + 1],
        ] {
            fs::write(&path, bad).unwrap();
            remember(&path, &name("x"), InfoHash([3; 32])).unwrap();
            assert_eq!(recall(&path, &name("x")), Some(InfoHash([3; 32])));
        }
    }
}
