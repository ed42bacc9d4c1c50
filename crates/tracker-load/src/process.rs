//! Processor time and memory of a process on this machine. Linux only.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context;

/// A process, identified by its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// Processor time of all its threads so far, from the scheduler.
    pub(crate) fn cpu(self) -> anyhow::Result<Duration> {
        let tasks = fs::read_dir(self.path("task")).with_context(|| self.gone())?;
        let mut total_ns = 0;
        for task in tasks.flatten() {
            // A thread may have ended since.
            let Ok(stat) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            total_ns += stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(total_ns))
    }

    /// Bytes of memory that it uses.
    pub(crate) fn resident(self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(self.path("status")).with_context(|| self.gone())?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).with_context(|| self.gone())?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1_024)
    }

    fn path(self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.0))
    }

    fn gone(self) -> String {
        format!("cannot see process {} (--pid)", self.0)
    }
}
