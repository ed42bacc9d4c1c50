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

/// How a share is saved, apart from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Saving {
    /// Replace a file that has the output's name.
    pub(crate) overwrite: bool,
    /// Keep the times that the share has.
    pub(crate) times: bool,
    /// Leave holes for chunks of zeros.
    pub(crate) sparse: bool,
}

impl Destination {
    /// Creates the directory that the user named. Called only when there is something to save in it.
    pub(crate) fn make_directory(&self) -> Result<(), PathError> {
        let Destination::Directory(dir) = self else { return Ok(()) };
        std::fs::create_dir_all(dir).map_err(|source| PathError { action: "make", path: dir.clone(), source })
    }

    pub(crate) fn output(&self, name: &ShareName, saving: Saving) -> Output {
        let mut output = match self {
            Destination::Directory(dir) => Output::in_dir(dir, name),
            Destination::Path(path) => Output::at(path.clone()),
        };
        if saving.overwrite {
            output = output.replacing_file();
        }
        if saving.times {
            output = output.keeping_times();
        }
        if saving.sparse { output } else { output.without_holes() }
    }
}
