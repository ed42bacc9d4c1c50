//! How many file descriptors the connections of peers may take.
//!
//! A process without a free descriptor accepts nobody, and honest peers then wait behind everybody who connected before. So the
//! bounds on connections are parts of the process's limit of open files, where that is low, and the process stays below it.

use rustix::process::{Resource, getrlimit};

/// Descriptors that a process has without any peer: standard streams, the runtime, its port, trackers, the log.
const OWN: u64 = 24;

/// The unit of a part.
const PARTS: u64 = 8;

/// Half of the descriptors: peers that have a place at a seeder.
pub(crate) const FOR_PLACES: u64 = 4;

/// Peers that have not sent a `Hello`.
pub(crate) const FOR_HANDSHAKES: u64 = 1;

/// Peers that wait for a share to receive them.
pub(crate) const FOR_WAITING: u64 = 1;

/// Peers that are being refused. The rest is for the files of shares.
pub(crate) const FOR_REFUSALS: u64 = 1;

/// The smaller of `most` and of this many eighths of the descriptors.
pub(crate) fn at_most(most: usize, eighths: u64) -> usize {
    within(getrlimit(Resource::Nofile).current, most, eighths)
}

fn within(limit: Option<u64>, most: usize, eighths: u64) -> usize {
    let Some(limit) = limit else { return most };
    let part = limit.saturating_sub(OWN).saturating_mul(eighths) / PARTS;
    most.min(usize::try_from(part).unwrap_or(usize::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_is_divided_and_a_high_one_changes_nothing() {
        let all = [FOR_PLACES, FOR_HANDSHAKES, FOR_WAITING, FOR_REFUSALS];
        assert!(all.iter().sum::<u64>() < PARTS, "files need some");
        assert_eq!(all.map(|eighths| within(Some(64), 500, eighths)), [20, 5, 5, 5]);
        assert_eq!(within(Some(1_024), 500, FOR_PLACES), 500);
        assert_eq!(within(None, 500, FOR_PLACES), 500);
        assert_eq!(within(Some(9), 500, FOR_PLACES), 1);
        assert_eq!(within(Some(64), 0, FOR_PLACES), 0, "nobody is to be served");
    }
}
