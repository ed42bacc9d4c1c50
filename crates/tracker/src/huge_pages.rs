//! Huge pages for the memory of a tracker.
//!
//! An answer reads a dozen places all over the registry. With pages of 4 KiB, a processor knows where some 2,000 of them are, which is
//! 8 MiB. It searches for the others at each access, and that was a fifth of the tracker's own part of an answer
//! (docs/benchmarks.md). Many systems give huge pages only to programs that ask for them. The allocator of glibc asks for them if its
//! environment says so when a program starts, and there is no other way without unsafe code. So the tracker starts itself once more, as the
//! same process, with that in its environment.
//!
//! Nothing depends on it. Where anything of this is not so, the tracker goes on as it is.

use std::{env, fs, os::unix::process::CommandExt, path::Path, process::Command};

/// What glibc reads, see `glibc.malloc` in its manual.
const VARIABLE: &str = "GLIBC_TUNABLES";

/// Huge pages, and all memory in one arena: those of single threads grow in steps smaller than a huge page.
const TUNABLES: &str = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1";

/// Which programs get huge pages: all, those that ask, or none.
const POLICY: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Starts this program once more so that it gets huge pages, if it can and that makes a difference. To be called before anything is
/// opened or started. Returns if not.
pub(crate) fn ask() {
    let is_for_those_that_ask =
        || fs::read_to_string(POLICY).is_ok_and(|policy| policy.contains("[madvise]"));
    // Set by the user, or by this function.
    if env::var_os(VARIABLE).is_some() || !is_for_those_that_ask() {
        return;
    }
    let mut args = env::args_os();
    let (Some(name), Ok(program)) = (args.next(), env::current_exe()) else { return };
    // Started by another program, an emulator for example, this is not the file to start.
    if Path::new(&name).file_name() != program.file_name() {
        return;
    }
    let error = Command::new(program).arg0(name).args(args).env(VARIABLE, TUNABLES).exec();
    tracing::debug!("no huge pages: {error}");
}
