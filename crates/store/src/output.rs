//! Where a download goes: the final path, and the two beside it while it is under way.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs::Metadata,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use proto::{ShareName, metainfo::Kind};
use sha2::Digest as _;

use crate::{
    disk,
    error::{AtPath, DownloadError, PathError},
    existing::{Difference, Existing},
    proofs::ProofCache,
};

/// Prefix of a downloaded share's name, unless the user names the output.
const PREFIX: &str = "leeched_";

/// Longest name of a file in bytes on common file systems (`NAME_MAX`).
const MAX_FILE_NAME_LEN: usize = 255;

/// The longest suffix of a name beside the output: that of the resume file while it is created.
const LONGEST_SUFFIX: &str = ".resume.tmp";

/// A longer extension is not kept when a name is shortened.
const MAX_EXTENSION_LEN: usize = 16;

/// The paths of a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    path: PathBuf,
    replace: Replace,
    keeps_times: bool,
    keeps_holes: bool,
    proofs: Option<ProofCache>,
}

/// What to do about a file that already has the output's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replace {
    Never,
    /// Regular files only. Anything else may stand for more than its name: a directory for its contents, a device for a
    /// disk, a link for a file elsewhere.
    File,
    /// Regular files, and directories that hold an earlier version.
    Version,
}

/// What a finished part may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Only what the user said may be replaced.
    Free,
    /// What has the name: it was compared with the share when the download began.
    Compared,
}

/// How a part got its final name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    Renamed,
    /// What had the name before has that of the part now.
    Exchanged(Kind),
}

impl Output {
    /// A download to exactly this path.
    pub fn at(path: PathBuf) -> Output {
        Output { path, replace: Replace::Never, keeps_times: false, keeps_holes: true, proofs: None }
    }

    /// A download into `dir` under the name that Shoal gives it.
    pub fn in_dir(dir: &Path, name: &ShareName) -> Output {
        let name = shortened(format!("{PREFIX}{name}").as_bytes(), MAX_FILE_NAME_LEN);
        Output::at(dir.join(OsStr::from_bytes(&name)))
    }

    /// Replaces a regular file that has the output's name, once the download is whole.
    #[must_use]
    pub fn replacing_file(mut self) -> Output {
        self.replace = Replace::File;
        self
    }

    /// Gives files and links the times that the share keeps, if it keeps any.
    #[must_use]
    pub fn keeping_times(mut self) -> Output {
        self.keeps_times = true;
        self
    }

    /// Writes chunks of zeros too, instead of leaving holes for them.
    #[must_use]
    pub fn without_holes(mut self) -> Output {
        self.keeps_holes = false;
        self
    }

    /// Remembers there what was proved, and does not read files again that it knows. By default everything is read.
    #[must_use]
    pub fn remembering(mut self, proofs: ProofCache) -> Output {
        self.proofs = Some(proofs);
        self
    }

    pub(crate) fn proofs(&self) -> Option<&ProofCache> {
        self.proofs.as_ref()
    }

    pub(crate) fn keeps_holes(&self) -> bool {
        self.keeps_holes
    }

    pub(crate) fn keeps_times(&self) -> bool {
        self.keeps_times
    }

    /// Replaces a regular file, or a directory that holds an earlier version of the share, in one step, once the download is whole.
    #[must_use]
    pub fn replacing_version(mut self) -> Output {
        self.replace = Replace::Version;
        self
    }

    /// Where the share will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is built: a file, or a directory.
    pub fn part_path(&self) -> PathBuf {
        self.beside(".part")
    }

    /// The file that records which chunks are durable.
    pub fn resume_path(&self) -> PathBuf {
        self.beside(".resume")
    }

    /// Whether nothing has the final name, and no earlier run left a part. Fails if the name can never be used.
    pub fn is_new(&self) -> Result<bool, DownloadError> {
        self.check_usable()?;
        Ok(self.taken_by()?.is_none() && disk::examine(&self.part_path()).is_err())
    }

    /// Fails if the final name is taken by something that is never replaced: what is neither a regular file nor a directory.
    pub(crate) fn check_usable(&self) -> Result<(), DownloadError> {
        match self.taken_by()? {
            Some(meta) if !meta.is_file() && !meta.is_dir() => {
                Err(DownloadError::NotReplaceable(self.path.clone()))
            }
            _ => Ok(()),
        }
    }

    fn taken_by(&self) -> Result<Option<Metadata>, PathError> {
        match disk::examine(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            meta => meta.at("examine", &self.path).map(Some),
        }
    }

    /// Fails unless what has the final name, and is not the share, may be replaced.
    pub(crate) fn check_replaceable(&self, existing: &Existing) -> Result<(), DownloadError> {
        match self.replace {
            Replace::Version if existing.is_unrelated() => Err(DownloadError::Unrelated(self.path.clone())),
            Replace::Version => Ok(()),
            Replace::File if !existing.is_directory() => Ok(()),
            Replace::Never | Replace::File => {
                let (at, how) = match existing.differences.first.first() {
                    Some((at, how)) => (at.clone(), *how),
                    None => (self.path.clone(), Difference::Content),
                };
                Err(DownloadError::OutputDiffers { path: self.path.clone(), at, how })
            }
        }
    }

    /// Whether an earlier version is to be replaced.
    pub(crate) fn replaces_version(&self) -> bool {
        self.replace == Replace::Version
    }

    /// Gives the finished part its final name, in one step that cannot replace anything unasked.
    pub(crate) fn publish(&self, kind: Kind, taken: Taken) -> Result<Published, DownloadError> {
        let part = self.part_path();
        let rename_to =
            |source| DownloadError::from(PathError { action: "rename to", path: self.path.clone(), source });
        match disk::rename_without_replacing(&part, &self.path) {
            Ok(true) => return Ok(Published::Renamed),
            // The file system has no such operation: checked first, with a gap between the check and the rename …
            Ok(false) => {}
            // … or what is there is to be replaced.
            Err(error) if is_taken(&error) => {}
            Err(error) => return Err(rename_to(error)),
        }
        let old = match self.taken_by()? {
            None => None,
            Some(meta) if !meta.is_file() && !meta.is_dir() => {
                return Err(DownloadError::NotReplaceable(self.path.clone()));
            }
            Some(meta) => match (taken, self.replace) {
                (Taken::Compared, _) | (Taken::Free, Replace::File) if meta.is_file() => Some(Kind::File),
                (Taken::Compared, _) => Some(Kind::Directory),
                (Taken::Free, Replace::File) => return Err(DownloadError::NotReplaceable(self.path.clone())),
                (Taken::Free, _) => return Err(DownloadError::OutputExists(self.path.clone())),
            },
        };
        // Only a file takes the place of a file by a rename.
        match (kind, old) {
            (_, None) | (Kind::File, Some(Kind::File)) => {}
            (_, Some(old)) => match disk::exchange(&part, &self.path).map_err(rename_to)? {
                true => return Ok(Published::Exchanged(old)),
                false if old == Kind::Directory => {
                    return Err(DownloadError::CannotExchange(self.path.clone()));
                }
                false => match disk::remove(&self.path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    result => result.at("remove", &self.path)?,
                },
            },
        }
        disk::rename(&part, &self.path).map_err(rename_to)?;
        Ok(Published::Renamed)
    }

    /// The output's name and a suffix. A long name is cut to the same beginning for every suffix.
    fn beside(&self, suffix: &str) -> PathBuf {
        let Some(name) = self.path.file_name() else {
            // Only `..` or `/` have none, and they exist.
            return self.path.join(&suffix[1..]);
        };
        let mut name = shortened(name.as_bytes(), MAX_FILE_NAME_LEN - LONGEST_SUFFIX.len());
        name.extend(suffix.as_bytes());
        self.path.with_file_name(OsStr::from_bytes(&name))
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory)
}

/// A name of at most `most` bytes: `name`, or its beginning, a part of its hash, and its extension. No character is cut in half.
fn shortened(name: &[u8], most: usize) -> Vec<u8> {
    if name.len() <= most {
        return name.to_owned();
    }
    let mut tag = String::from("~");
    for byte in &sha2::Sha256::digest(name)[..4] {
        // Writing to a `String` cannot fail.
        let _ = write!(tag, "{byte:02x}");
    }
    let extension = match name.iter().rposition(|&byte| byte == b'.') {
        Some(dot) if dot > 0 && name.len() - dot <= MAX_EXTENSION_LEN => &name[dot..],
        _ => &[],
    };
    let is_inside_character = |at: usize| name[at] & 0b1100_0000 == 0b1000_0000;
    let mut end = most - tag.len() - extension.len();
    while end > 0 && is_inside_character(end) {
        end -= 1;
    }
    [&name[..end], tag.as_bytes(), extension].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn len(path: &Path) -> usize {
        path.file_name().unwrap().len()
    }

    #[test]
    fn names_of_every_length_fit() {
        for count in 1..=255 {
            for (letter, name) in [("x", "x".repeat(count)), ("🐟", "🐟".repeat(count / 4))] {
                let Ok(name) = ShareName::new(&name) else { continue };
                let output = Output::in_dir(Path::new("d"), &name);
                let all = [output.path().to_owned(), output.part_path(), output.resume_path()];
                assert!(all.iter().all(|path| len(path) <= 255 && path.starts_with("d")), "{all:?}");
                assert!(len(&output.resume_path()) + ".tmp".len() <= 255);
                assert!(all.iter().all(|path| path.to_str().unwrap().contains(&format!("leeched_{letter}"))));
            }
        }
    }

    #[test]
    fn short_names_stay_as_they_are() {
        let name = ShareName::new(&"a".repeat(236)).unwrap();
        let output = Output::in_dir(Path::new(""), &name);
        assert_eq!(output.path(), Path::new(&format!("leeched_{name}")));
        assert_eq!(output.part_path(), Path::new(&format!("leeched_{name}.part")));
        assert_eq!(output.resume_path(), Path::new(&format!("leeched_{name}.resume")));
    }

    #[test]
    fn long_names_that_differ_at_the_end_stay_different_and_keep_their_extension() {
        let output = |end: &str| {
            let name = ShareName::new(&format!("{}{end}", "n".repeat(255 - end.len()))).unwrap();
            Output::in_dir(Path::new(""), &name)
        };
        let (one, two) = (output("1.tar.gz"), output("2.tar.gz"));
        assert_ne!(one.path(), two.path());
        assert_ne!(one.part_path(), two.part_path());
        assert_ne!(one.resume_path(), two.resume_path());
        assert_eq!(one.path().extension().unwrap(), "gz");
        assert_eq!(len(one.path()), 255);
        assert_eq!(one, output("1.tar.gz"));
        assert_eq!(len(output(".no extension that is worth keeping").path()), 255);
    }
}
