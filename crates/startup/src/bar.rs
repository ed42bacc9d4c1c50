//! A line of progress that fits a given width.

use std::time::Duration;

use crate::{
    console::columns,
    human::{HumanBytes, human_time},
};

/// Minimum cells of a bar: a shorter one shows less than the percentage beside it.
const MIN_BAR: usize = 20;

/// Maximum cells of a bar: a longer one is no easier to read.
const MAX_BAR: usize = 60;

/// The progress of some work on a known number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Bytes that are done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes a second.
    pub rate: u64,
}

impl Work {
    /// Whole percent that are done.
    pub fn percent(&self) -> u64 {
        let percent = (u128::from(self.done) * 100).checked_div(self.total.into()).unwrap_or(100);
        u64::try_from(percent).unwrap_or(100).min(100)
    }

    /// How long the rest takes at this rate, if there is a rate.
    pub fn left(&self) -> Option<Duration> {
        self.total.saturating_sub(self.done).checked_div(self.rate).map(Duration::from_secs)
    }
}

/// A bar, and beside it as much as fits `width` columns: percentage, rate, time left, bytes, and `note`.
pub fn bar_line(width: usize, label: &str, work: Work, note: &str) -> String {
    let percent = format!("{:>3}%", work.percent());
    let rate = format!("{percent} {:>12}", format!("{}/s", HumanBytes(work.rate)));
    let left = match work.left() {
        Some(left) => format!("{rate} {:>11}", format!("{} left", human_time(left))),
        None => rate.clone(),
    };
    let bytes = format!("{left}  {}/{}", HumanBytes(work.done), HumanBytes(work.total));
    let all = format!("{bytes}  {note}");
    let label = if label.is_empty() { String::new() } else { format!("{label} ") };
    for beside in [all.trim_end(), &bytes, &left, &rate, &percent] {
        let taken = columns(&label) + 1 + columns(beside);
        if let Some(room) = width.checked_sub(taken).filter(|&room| room >= MIN_BAR) {
            return format!("{label}{} {beside}", bar(room.min(MAX_BAR), work));
        }
    }
    percent
}

fn bar(cells: usize, work: Work) -> String {
    let full = cells * usize::try_from(work.percent()).unwrap_or(100) / 100;
    format!("{}{}", "█".repeat(full), "░".repeat(cells - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn cells(line: &str) -> usize {
        line.chars().filter(|&c| c == '█' || c == '░').count()
    }

    #[test]
    fn a_bar_has_twenty_cells_where_there_is_room_and_nothing_wraps() {
        let half = Work { done: GIB, total: 2 * GIB, rate: 123 << 20 };
        let worst = Work { done: 1023 * GIB + (GIB - 1), total: u64::MAX, rate: 1 };
        let waiting = Work { done: 1023 * GIB, total: u64::MAX, rate: 0 };
        let done = Work { done: 0, total: 0, rate: 0 };
        for work in [half, worst, waiting, done] {
            for width in 0..200 {
                let line = bar_line(width, "Hashing", work, "50 peers");
                assert!(columns(&line) <= width.max(4), "{width}: {line}");
                assert!(width < 38 || cells(&line) >= MIN_BAR, "{width}: {line}");
            }
        }
        let at = |width| bar_line(width, "", half, "3 peers");
        assert_eq!(at(38), "██████████░░░░░░░░░░  50% 123.00 MiB/s");
        assert_eq!(at(78), "██████████░░░░░░░░░░  50% 123.00 MiB/s     8s left  1.00 GiB/2.00 GiB  3 peers");
    }
}
