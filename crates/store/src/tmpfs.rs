//! Whether a file is in memory: some measures that help on a disk cost time on `tmpfs`.

use std::fs::File;

/// Whether a file is on `tmpfs`. There nothing waits for a disk, and reserving pages zeroes them, as writing them does.
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
