//! Progress of work on bytes that the user waits for, such as hashing: a bar on a terminal, else a line every
//! few seconds. Always on stderr.

use std::{
    fmt,
    io::IsTerminal,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Wait before the first line: work that is over by then needs no words.
const FIRST_LINE: Duration = Duration::from_millis(900);

/// Wait between two lines.
const NEXT_LINE: Duration = Duration::from_secs(3);

/// Shows how far some work on a known number of bytes is.
#[derive(Debug)]
pub struct ByteMeter {
    what: String,
    total: AtomicU64,
    done: AtomicU64,
    display: Display,
}

#[derive(Debug)]
enum Display {
    Bar(ProgressBar),
    Lines(Mutex<Instant>),
    Nothing,
}

impl ByteMeter {
    /// A meter for work called `what`, as in "Hashing file.bin".
    pub fn new(what: impl Into<String>, quiet: bool) -> ByteMeter {
        let what = what.into();
        let display = if quiet {
            Display::Nothing
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let template = "{msg} {bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec}, {eta} left";
            bar.set_style(
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar.set_message(what.clone());
            Display::Bar(bar)
        } else {
            Display::Lines(Mutex::new(Instant::now() + FIRST_LINE))
        };
        ByteMeter { what, total: AtomicU64::new(0), done: AtomicU64::new(0), display }
    }

    /// Sets the number of bytes to work on.
    pub fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
        if let Display::Bar(bar) = &self.display {
            bar.set_length(bytes);
        }
    }

    /// Counts bytes that are done. From any thread.
    pub fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match &self.display {
            Display::Bar(bar) => bar.set_position(done),
            Display::Lines(next) => {
                let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
                let now = Instant::now();
                if now >= *next {
                    *next = now + NEXT_LINE;
                    let total = self.total.load(Ordering::Relaxed);
                    let percent = (done * 100).checked_div(total).unwrap_or(100);
                    let (done, total) = (HumanBytes(done), HumanBytes(total));
                    crate::eprint_line(format_args!("{}: {percent}% ({done} of {total})", self.what));
                }
            }
            Display::Nothing => {}
        }
    }
}

impl Drop for ByteMeter {
    fn drop(&mut self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

/// A number of bytes as people read it, in powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanBytes(pub u64);

impl fmt::Display for HumanBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        indicatif::BinaryBytes(self.0).fmt(f)
    }
}
