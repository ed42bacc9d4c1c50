//! One line about what a program that runs for long does now: on a terminal it changes in place, elsewhere there is a line now and then.

use std::time::{Duration, Instant};

use crate::console;

/// Time between two updates of a [`StatusLine`].
pub const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Work that takes less needs no line.
const FIRST_LINE: Duration = Duration::from_millis(900);

/// Wait after the first line. It doubles with each line, because a log is read later and as a whole.
const SECOND_LINE: Duration = Duration::from_secs(3);

/// Shows a line on stderr, while there is something to show. On a terminal the line disappears when this is dropped.
#[derive(Debug)]
pub struct StatusLine(Display);

#[derive(Debug)]
enum Display {
    InPlace,
    Lines(Pace),
    Nothing,
}

impl StatusLine {
    /// A line that changes in place on a terminal. Elsewhere there is a line now and then while the program is busy, with waits that
    /// grow up to `longest`.
    pub fn new(longest: Duration) -> StatusLine {
        StatusLine(match console::is_interactive() {
            true => Display::InPlace,
            false => Display::Lines(Pace::new(longest)),
        })
    }

    /// A line that is never shown.
    pub fn none() -> StatusLine {
        StatusLine(Display::Nothing)
    }

    /// Whether the program has something to do (`is_busy`) and what, as a line of at most that many columns. Call it every
    /// [`STATUS_EVERY`].
    pub fn update(&mut self, is_busy: bool, line: impl FnOnce(usize) -> String) {
        match &mut self.0 {
            Display::InPlace => console::show(vec![line(console::width())]),
            Display::Lines(pace) => {
                if pace.is_due(is_busy, Instant::now()) {
                    console::eprint_line(line(usize::MAX));
                }
            }
            Display::Nothing => {}
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        if matches!(self.0, Display::InPlace) {
            console::hide();
        }
    }
}

/// When the next line is due. Pure: time is an argument.
#[derive(Debug)]
pub struct Pace {
    longest: Duration,
    /// When the program was busy last, when the next line is due, and how long to wait after it; `None` while it is idle.
    busy: Option<(Instant, Instant, Duration)>,
}

impl Pace {
    /// No line yet. Waits do not grow beyond `longest`.
    pub fn new(longest: Duration) -> Pace {
        Pace { longest, busy: None }
    }

    /// Whether to print a line now. A program that was idle for the longest wait begins anew.
    pub fn is_due(&mut self, is_busy: bool, now: Instant) -> bool {
        let (last, next, wait) = self.busy.unwrap_or((now, now + FIRST_LINE, SECOND_LINE.min(self.longest)));
        if !is_busy {
            let is_idle = now.saturating_duration_since(last) >= self.longest;
            self.busy = self.busy.filter(|_| !is_idle);
            return false;
        }
        let is_due = now >= next;
        self.busy = Some(match is_due {
            true => (now, now + wait, (wait * 2).min(self.longest)),
            false => (now, next, wait),
        });
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_far_apart_in_the_end_and_there_are_none_while_nothing_happens() {
        let begun = Instant::now();
        let mut pace = Pace::new(Duration::from_secs(60));
        let mut lines = |seconds: std::ops::Range<u64>, is_busy| {
            seconds.filter(|&s| pace.is_due(is_busy, begun + Duration::from_secs(s))).collect::<Vec<_>>()
        };
        assert!(lines(0..100, false).is_empty());
        assert_eq!(lines(100..400, true), [101, 104, 110, 122, 146, 194, 254, 314, 374]);
        assert!(lines(400..460, false).is_empty());
        assert_eq!(lines(460..470, true), [461, 464]);
    }
}
