//! The signals that stop a program.

use std::{fs, io::Write};

use rustix::process::Signal;

/// The signals that stop a program that this process starts. Without SIGHUP if this process ignores it, as under `nohup`:
/// its children then ignore it too, as they should.
pub(crate) fn stopping_signals() -> Vec<Signal> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    if ignored & 1 == 0 {
        return vec![Signal::INT, Signal::TERM, Signal::HUP];
    }
    // Not `eprintln!`, which the test harness keeps to itself.
    let _ =
        writeln!(std::io::stderr(), "\nSKIPPED, NOT TESTED: SIGHUP, which these tests were told to ignore\n");
    vec![Signal::INT, Signal::TERM]
}
