//! Progress of work on bytes, such as hashing, while the user waits: a bar on a terminal, otherwise a line every few
//! seconds. Always on stderr.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    bar::{Work, bar_line},
    console,
    human::HumanBytes,
};

/// Wait before the first line: shorter work needs none.
const FIRST_LINE: Duration = Duration::from_millis(900);

/// Wait between two lines.
const NEXT_LINE: Duration = Duration::from_secs(3);

/// Wait between two changes of a bar.
const NEXT_FRAME: Duration = Duration::from_millis(100);

/// Shows the progress of some work on a known number of bytes.
#[derive(Debug)]
pub struct ByteMeter {
    what: String,
    begun: Instant,
    total: AtomicU64,
    done: AtomicU64,
    display: Display,
}

#[derive(Debug)]
enum Display {
    Bar(Mutex<Instant>),
    Lines(Mutex<Instant>),
    Nothing,
}

impl ByteMeter {
    /// A meter for work called `what`, as in "Hashing file.bin".
    pub fn new(what: impl Into<String>, quiet: bool) -> ByteMeter {
        let begun = Instant::now();
        let display = if quiet {
            Display::Nothing
        } else if console::is_interactive() {
            Display::Bar(Mutex::new(begun + NEXT_FRAME))
        } else {
            Display::Lines(Mutex::new(begun + FIRST_LINE))
        };
        ByteMeter { what: what.into(), begun, total: AtomicU64::new(0), done: AtomicU64::new(0), display }
    }

    /// Sets the number of bytes to work on.
    pub fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that are done. Any thread may call it.
    pub fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let (next, wait) = match &self.display {
            Display::Bar(next) => (next, NEXT_FRAME),
            Display::Lines(next) => (next, NEXT_LINE),
            Display::Nothing => return,
        };
        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now < *next {
            return;
        }
        *next = now + wait;
        let ms = now.saturating_duration_since(self.begun).as_millis().max(1);
        let rate = u64::try_from(u128::from(done) * 1_000 / ms).unwrap_or(u64::MAX);
        let work = Work { done, total: self.total.load(Ordering::Relaxed), rate };
        if let Display::Bar(_) = self.display {
            return console::show(vec![self.what.clone(), bar_line(console::width(), "", work, "")]);
        }
        let (done, total) = (HumanBytes(done), HumanBytes(work.total));
        console::eprint_line(format_args!("{}: {}% ({done} of {total})", self.what, work.percent()));
    }
}

impl Drop for ByteMeter {
    fn drop(&mut self) {
        if let Display::Bar(_) = &self.display {
            console::hide();
        }
    }
}
