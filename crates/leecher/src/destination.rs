//! Where a share is saved.

use std::path::PathBuf;

use proto::ShareName;
use store::{FilePattern, Output, PathError, ProofCache};

/// Where a share is saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// In this directory, as `leeched_<name>`. The directory is created if it does not exist.
    Directory(PathBuf),
    /// At this path.
    Path(PathBuf),
}

/// What may be replaced at the destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Replace {
    /// Nothing. Files of the same share may be added to those that are there.
    #[default]
    Nothing,
    /// A regular file.
    File,
    /// A regular file, or a directory that holds an earlier version of the share.
    Version,
}

/// What of a share is saved, and where.
#[derive(Debug, Clone)]
pub(crate) struct Saving {
    pub(crate) destination: Destination,
    pub(crate) replace: Replace,
    /// Which files to fetch; all if it is empty.
    pub(crate) only: Vec<FilePattern>,
    /// Files and directories to take chunks from.
    pub(crate) from: Vec<PathBuf>,
    /// Give files and links the times that the share keeps.
    pub(crate) times: bool,
    /// Leave holes for chunks of zeros.
    pub(crate) sparse: bool,
    /// Where to remember what was proved.
    pub(crate) proofs: Option<ProofCache>,
}

impl Saving {
    pub(crate) fn output(&self, name: &ShareName) -> Output {
        let mut output = self.destination.output(name, self.replace);
        if self.times {
            output = output.keeping_times();
        }
        if let Some(proofs) = &self.proofs {
            output = output.remembering(proofs.clone());
        }
        if self.sparse { output } else { output.without_holes() }
    }
}

impl Destination {
    /// Creates the directory that the user named. Called only when there is something to save in it.
    pub(crate) fn make_directory(&self) -> Result<(), PathError> {
        let Destination::Directory(dir) = self else { return Ok(()) };
        std::fs::create_dir_all(dir).map_err(|source| PathError { action: "make", path: dir.clone(), source })
    }

    pub(crate) fn output(&self, name: &ShareName, replace: Replace) -> Output {
        let output = match self {
            Destination::Directory(dir) => Output::in_dir(dir, name),
            Destination::Path(path) => Output::at(path.clone()),
        };
        match replace {
            Replace::Nothing => output,
            Replace::File => output.replacing_file(),
            Replace::Version => output.replacing_version(),
        }
    }
}
