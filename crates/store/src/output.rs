//! Where a download goes: the final path, and the two beside it while it is under way.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use proto::ShareName;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{download::DownloadError, error::AtPath};

/// What a downloaded share is called in front of its own name, unless the user names the output.
const PREFIX: &str = "leeched_";

/// The paths of a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    path: PathBuf,
    replace: Replace,
}

/// What to do about a file that has the output's name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replace {
    Never,
    /// Files only: a directory is never replaced, for it may hold anything.
    File,
}

impl Output {
    /// A download to exactly this path.
    pub fn at(path: PathBuf) -> Output {
        Output { path, replace: Replace::Never }
    }

    /// A download into `dir` under the name that Shoal gives it.
    pub fn in_dir(dir: &Path, name: &ShareName) -> Output {
        Output::at(dir.join(format!("{PREFIX}{name}")))
    }

    /// Replaces a file that has the output's name, once the download is whole.
    #[must_use]
    pub fn replacing_file(mut self) -> Output {
        self.replace = Replace::File;
        self
    }

    /// Where the share will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is built: a file, or a directory.
    pub fn part_path(&self) -> PathBuf {
        with_suffix(&self.path, ".part")
    }

    /// What says which chunks are there.
    pub fn resume_path(&self) -> PathBuf {
        with_suffix(&self.path, ".resume")
    }

    /// Refuses if the final name is taken by something that may not be replaced.
    pub fn check_free(&self) -> Result<(), DownloadError> {
        match self.is_taken().at("examine", &self.path)? {
            true => Err(DownloadError::OutputExists(self.path.clone())),
            false => Ok(()),
        }
    }

    fn is_taken(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Ok(meta) => Ok(self.replace == Replace::Never || meta.is_dir()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the finished part its final name, in one step that cannot replace anything unasked.
    pub(crate) fn publish(&self) -> io::Result<()> {
        let part = self.part_path();
        match self.replace {
            Replace::File => fs::rename(part, &self.path),
            Replace::Never => match renameat_with(CWD, &part, CWD, &self.path, RenameFlags::NOREPLACE) {
                // A file system without that operation: look first, and accept the gap between.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
                    if self.is_taken()? {
                        return Err(io::ErrorKind::AlreadyExists.into());
                    }
                    fs::rename(part, &self.path)
                }
                result => Ok(result?),
            },
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
