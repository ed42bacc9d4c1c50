//! Progress of hashing, while the user waits: on stderr a bar on a terminal, otherwise a line every few seconds; or events on
//! stdout.

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
    json::{Event, Output, print_event},
};

/// Wait before the first line: shorter work needs none.
const FIRST_LINE: Duration = Duration::from_millis(900);

/// Wait between two lines.
const NEXT_LINE: Duration = Duration::from_secs(3);

/// Wait between two changes of a bar.
const NEXT_FRAME: Duration = Duration::from_millis(100);

/// Wait between two events.
const NEXT_EVENT: Duration = Duration::from_millis(300);

/// Shows how much of a path is hashed.
#[derive(Debug)]
pub struct ByteMeter {
    path: String,
    begun: Instant,
    total: AtomicU64,
    done: AtomicU64,
    display: Display,
}

#[derive(Debug)]
enum Display {
    Bar(Mutex<Instant>),
    Lines(Mutex<Instant>),
    Events(Mutex<Instant>),
}

impl ByteMeter {
    /// A meter for the hashing of a path.
    pub fn new(path: impl Into<String>, output: Output) -> ByteMeter {
        let begun = Instant::now();
        let display = match output {
            Output::Json => Display::Events(Mutex::new(begun + NEXT_EVENT)),
            Output::Text if console::is_interactive() => Display::Bar(Mutex::new(begun + NEXT_FRAME)),
            Output::Text => Display::Lines(Mutex::new(begun + FIRST_LINE)),
        };
        ByteMeter { path: path.into(), begun, total: AtomicU64::new(0), done: AtomicU64::new(0), display }
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
            Display::Events(next) => (next, NEXT_EVENT),
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
        let what = format!("Hashing {}", self.path);
        match self.display {
            Display::Bar(_) => console::show(vec![what, bar_line(console::width(), "", work, "")]),
            Display::Lines(_) => {
                let (done, total) = (HumanBytes(done), HumanBytes(work.total));
                console::eprint_line(format_args!("{what}: {}% ({done} of {total})", work.percent()));
            }
            Display::Events(_) => self.print_event(),
        }
    }

    fn print_event(&self) {
        let (bytes, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        print_event(&Event::Hashing { path: self.path.clone(), bytes, total });
    }
}

impl Drop for ByteMeter {
    fn drop(&mut self) {
        match &self.display {
            Display::Bar(_) => console::hide(),
            Display::Lines(_) => {}
            Display::Events(_) => self.print_event(),
        }
    }
}
