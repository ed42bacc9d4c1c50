//! Which version of which file something was read from.

use std::{fmt, fs::Metadata, io, os::unix::fs::MetadataExt, path::Path};

use rustix::fs::Stat;

use crate::disk;

/// What identifies a version of a file's content: while none of this changes, the content has not changed, unless somebody
/// set the clock back on purpose (a leecher would notice that).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Bytes.
    pub(crate) len: u64,
    /// Last change of the content: seconds and nanoseconds since 1970.
    pub(crate) mtime_s: i64,
    pub(crate) mtime_ns: i64,
}

/// Device and inode: which file this is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    pub(crate) fn of(meta: &Metadata) -> FileId {
        FileId(meta.dev(), meta.ino())
    }

    /// Whether this is what `path` names.
    pub(crate) fn is_at(self, path: &Path) -> io::Result<bool> {
        match disk::examine(path) {
            Ok(meta) => Ok(FileId::of(&meta) == self),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// When a file last changed in any way: its content, its names or its permissions. Unlike the modification time, it cannot
/// be set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChangeTime {
    /// Seconds and nanoseconds since 1970.
    pub(crate) s: i64,
    pub(crate) ns: i64,
}

impl ChangeTime {
    pub(crate) fn of(meta: &Metadata) -> ChangeTime {
        ChangeTime { s: meta.ctime(), ns: meta.ctime_nsec() }
    }

    #[expect(clippy::useless_conversion, reason = "the types of these fields differ between systems")]
    fn of_stat(stat: &Stat) -> ChangeTime {
        ChangeTime { s: i64::from(stat.st_ctime), ns: i64::try_from(stat.st_ctime_nsec).unwrap_or(0) }
    }
}

/// A version of a file, and when the file last changed in any way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileState {
    pub(crate) identity: FileIdentity,
    pub(crate) changed: ChangeTime,
}

impl FileState {
    pub(crate) fn of(meta: &Metadata) -> FileState {
        FileState { identity: FileIdentity::of(meta), changed: ChangeTime::of(meta) }
    }

    pub(crate) fn of_stat(stat: &Stat) -> FileState {
        FileState { identity: FileIdentity::of_stat(stat), changed: ChangeTime::of_stat(stat) }
    }
}

/// How a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileChange {
    /// Another file is there now.
    Replaced,
    /// It has another length in bytes.
    Len {
        /// Bytes when it was hashed.
        before: u64,
        /// Bytes now.
        now: u64,
    },
    /// It was written to.
    Written,
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileChange::Replaced => f.write_str("another file took its place"),
            FileChange::Len { before, now } => write!(f, "it had {before} bytes and has {now} now"),
            FileChange::Written => f.write_str("it was written to"),
        }
    }
}

impl FileIdentity {
    /// How `now` differs, if it does.
    pub(crate) fn change(&self, now: &FileIdentity) -> Option<FileChange> {
        if self == now {
            None
        } else if (self.device, self.inode) != (now.device, now.inode) {
            Some(FileChange::Replaced)
        } else if self.len != now.len {
            Some(FileChange::Len { before: self.len, now: now.len })
        } else {
            Some(FileChange::Written)
        }
    }

    pub(crate) fn of(meta: &Metadata) -> FileIdentity {
        FileIdentity {
            device: meta.dev(),
            inode: meta.ino(),
            len: meta.len(),
            mtime_s: meta.mtime(),
            mtime_ns: meta.mtime_nsec(),
        }
    }

    #[expect(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the types of these fields differ between systems and architectures"
    )]
    pub(crate) fn of_stat(stat: &Stat) -> FileIdentity {
        FileIdentity {
            // Signed on macOS. The standard library converts it in the same way, for `FileIdentity::of`.
            device: stat.st_dev as u64,
            inode: u64::from(stat.st_ino),
            len: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_s: i64::from(stat.st_mtime),
            mtime_ns: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
        }
    }
}
