//! Where a share is saved.

use std::path::PathBuf;

use proto::ShareName;
use store::{Output, PathError};

/// Where a share is saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// In this directory, as `leeched_<name>`. The directory is created if it does not exist.
    Directory(PathBuf),
    /// At this path.
    Path(PathBuf),
}

impl Destination {
    /// Creates the directory that the user named. Called only when there is something to save in it.
    pub(crate) fn make_directory(&self) -> Result<(), PathError> {
        let Destination::Directory(dir) = self else { return Ok(()) };
        std::fs::create_dir_all(dir).map_err(|source| PathError { action: "make", path: dir.clone(), source })
    }

    pub(crate) fn output(&self, name: &ShareName, overwrite: bool, times: bool) -> Output {
        let output = match self {
            Destination::Directory(dir) => Output::in_dir(dir, name),
            Destination::Path(path) => Output::at(path.clone()),
        };
        let output = if overwrite { output.replacing_file() } else { output };
        if times { output.keeping_times() } else { output }
    }
}
