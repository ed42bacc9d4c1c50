//! Where a share is saved.

use std::path::PathBuf;

use proto::ShareName;
use store::{Output, PathError};

/// Where a share goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Into this directory, as `leeched_<name>`. It is made if it does not exist.
    Directory(PathBuf),
    /// To this path.
    Path(PathBuf),
}

impl Destination {
    /// Makes the directory that the user named. Not earlier than there is something to put into it.
    pub(crate) fn make_directory(&self) -> Result<(), PathError> {
        let Destination::Directory(dir) = self else { return Ok(()) };
        std::fs::create_dir_all(dir).map_err(|source| PathError { action: "make", path: dir.clone(), source })
    }

    pub(crate) fn output(&self, name: &ShareName, overwrite: bool) -> Output {
        let output = match self {
            Destination::Directory(dir) => Output::in_dir(dir, name),
            Destination::Path(path) => Output::at(path.clone()),
        };
        if overwrite { output.replacing_file() } else { output }
    }
}
