//! Whether a file lies in memory: some of what is good for a disk is not for `tmpfs`.

use std::fs::File;

/// Whether a file is on `tmpfs`. There nothing waits for a disk, and a file's pages are zeroed when they are
/// reserved, as they are when they are written.
#[cfg(target_os = "linux")]
pub fn is_tmpfs(file: &File) -> bool {
    /// `f_type` (`TMPFS_MAGIC` in `linux/magic.h`).
    const TMPFS_MAGIC: i64 = 0x0102_1994;

    #[expect(clippy::useless_conversion, reason = "the type of f_type differs between architectures")]
    rustix::fs::fstatfs(file).is_ok_and(|stat| i64::from(stat.f_type) == TMPFS_MAGIC)
}

/// Whether a file is on `tmpfs`, which this system does not have.
#[cfg(not(target_os = "linux"))]
pub fn is_tmpfs(_file: &File) -> bool {
    false
}
