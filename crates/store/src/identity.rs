//! Which version of which file something was read from.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

/// What the file system says of a file's content: while none of this changes, neither did the content, unless
/// somebody set the clock back on purpose (which the leecher would notice).
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

impl FileIdentity {
    pub(crate) fn of(meta: &Metadata) -> FileIdentity {
        FileIdentity {
            device: meta.dev(),
            inode: meta.ino(),
            len: meta.len(),
            mtime_s: meta.mtime(),
            mtime_ns: meta.mtime_nsec(),
        }
    }
}
