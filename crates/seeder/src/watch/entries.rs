//! Decides which entries of a watched directory are shared, and when.
//!
//! Pure: the clock, the disk and the shares are the caller's. An entry is shared when it has not changed for a while. If a shared entry
//! changes, its share ends, and it is shared anew when it is quiet again. What cannot be shared or read is tried again when it has
//! changed, and after a while if it has not.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    time::{Duration, Instant},
};

use super::print::Print;

/// Endings of names that programs give to files which they are still writing.
const UNFINISHED: [&[u8]; 10] = [
    b".part",
    b".resume",
    b".partial",
    b".filepart",
    b".tmp",
    b".temp",
    b".swp",
    b".crdownload",
    b".download",
    b"~",
];

/// Time after which an entry that failed is tried again, although it looks the same. The disk may be back by then. Each try
/// reads it up to the fault.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// The entries of a directory.
#[derive(Debug)]
pub(super) struct Entries {
    quiet: Duration,
    entries: BTreeMap<OsString, Entry>,
}

#[derive(Debug)]
struct Entry {
    print: Print,
    state: State,
    /// It failed, and neither changed nor was shared since.
    has_failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It came or changed at this time.
    Settling(Instant),
    /// It is being hashed.
    Hashing,
    Shared,
    /// It waits until another share of the same content has ended.
    Taken,
    /// It could not be shared or read at this time.
    Failed(Instant),
}

/// How to hash an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Hashes that are remembered count.
    Cache,
    /// All of it is read, because it could not be read before.
    Bytes,
}

/// The user should know of this failure: the entry did not fail before as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) struct News;

/// The share of this entry has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) struct End;

/// Whether an entry of this name is ever shared. Hidden ones are not, nor those that look unfinished.
pub(super) fn may_be_shared(name: &OsStr) -> bool {
    let name = name.as_bytes();
    !name.starts_with(b".") && !UNFINISHED.iter().any(|ending| name.to_ascii_lowercase().ends_with(ending))
}

impl Entries {
    /// No entries so far. One is shared when it has been quiet for `quiet`.
    pub(super) fn new(quiet: Duration) -> Entries {
        Entries { quiet, entries: BTreeMap::new() }
    }

    /// An entry looks like this now; `None` if it is gone.
    pub(super) fn look(&mut self, name: &OsStr, print: Option<Print>, now: Instant) -> Option<End> {
        let Some(print) = print else {
            let gone = self.entries.remove(name)?;
            return (gone.state == State::Shared).then_some(End);
        };
        let settling = State::Settling(now);
        let Some(entry) = self.entries.get_mut(name) else {
            self.entries.insert(name.to_owned(), Entry { print, state: settling, has_failed: false });
            return None;
        };
        if entry.print == print {
            return None;
        }
        (entry.print, entry.has_failed) = (print, false);
        (std::mem::replace(&mut entry.state, settling) == State::Shared).then_some(End)
    }

    /// The entries that are known.
    pub(super) fn names(&self) -> impl Iterator<Item = &OsString> {
        self.entries.keys()
    }

    /// When the next entry has been quiet for long enough.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due().map(|(at, _)| at).min()
    }

    /// An entry that has been quiet for long enough.
    pub(super) fn first_due(&self, now: Instant) -> Option<OsString> {
        self.due().find(|(at, _)| *at <= now).map(|(_, name)| name.clone())
    }

    fn due(&self) -> impl Iterator<Item = (Instant, &OsString)> {
        self.entries.iter().filter_map(|(name, entry)| match entry.state {
            State::Settling(since) => Some((since + self.quiet, name)),
            State::Failed(at) => Some((at + RETRY_AFTER, name)),
            State::Hashing | State::Shared | State::Taken => None,
        })
    }

    /// An entry is being hashed from now on. Returns what it looks like, and how to hash it.
    pub(super) fn begin(&mut self, name: &OsStr) -> Option<(Print, Trust)> {
        let entry = self.entries.get_mut(name)?;
        entry.state = State::Hashing;
        Some((entry.print, if entry.has_failed { Trust::Bytes } else { Trust::Cache }))
    }

    /// Whether what was hashed is still what is there.
    pub(super) fn is_current(&self, name: &OsStr, print: Print) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.state == State::Hashing && entry.print == print)
    }

    /// An entry was hashed, is what it was meanwhile, and is shared.
    pub(super) fn shared(&mut self, name: &OsStr) {
        if let Some(entry) = self.entries.get_mut(name) {
            (entry.state, entry.has_failed) = (State::Shared, false);
        }
    }

    /// An entry was hashed, and its content is shared already.
    pub(super) fn taken(&mut self, name: &OsStr) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.state = State::Taken;
        }
    }

    /// An entry could not be hashed, or could not be read while it was shared.
    pub(super) fn failed(&mut self, name: &OsStr, now: Instant) -> Option<News> {
        let entry = self.entries.get_mut(name)?;
        entry.state = State::Failed(now);
        (!std::mem::replace(&mut entry.has_failed, true)).then_some(News)
    }

    /// A share has ended. What waited for that is tried again.
    pub(super) fn freed(&mut self, now: Instant) {
        let since = now.checked_sub(self.quiet).unwrap_or(now);
        for entry in self.entries.values_mut().filter(|entry| entry.state == State::Taken) {
            entry.state = State::Settling(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(2);

    struct Bench {
        entries: Entries,
        now: Instant,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { entries: Entries::new(QUIET), now: Instant::now() }
        }

        fn look(&mut self, name: &str, print: u64) -> Option<End> {
            self.entries.look(name.as_ref(), Some(Print(print)), self.now)
        }

        fn pass(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }

        fn due(&self) -> Option<OsString> {
            self.entries.first_due(self.now)
        }

        /// Hashes an entry that is due.
        fn hash(&mut self, name: &str) -> Trust {
            assert_eq!(self.due().as_deref(), Some(name.as_ref()));
            let (print, trust) = self.entries.begin(name.as_ref()).unwrap();
            assert!(self.entries.is_current(name.as_ref(), print));
            trust
        }

        /// Hashes an entry that is due, and shares it.
        fn share(&mut self, name: &str) {
            self.hash(name);
            self.entries.shared(name.as_ref());
        }

        fn fail(&mut self, name: &str) -> Option<News> {
            self.entries.failed(name.as_ref(), self.now)
        }
    }

    #[test]
    fn an_entry_is_shared_when_it_has_been_quiet() {
        let mut bench = Bench::new();
        assert_eq!(bench.look("a", 1), None);
        bench.pass(1_500);
        assert_eq!(bench.look("a", 2), None, "it grows");
        bench.pass(1_999);
        assert_eq!(bench.look("a", 2), None);
        assert_eq!(bench.due(), None);
        assert_eq!(bench.entries.next_due(), Some(bench.now + Duration::from_millis(1)));
        bench.pass(1);
        bench.share("a");
        assert_eq!((bench.due(), bench.entries.next_due()), (None, None));
        bench.pass(60_000);
        assert_eq!(bench.look("a", 2), None, "nothing has changed");
        assert_eq!(bench.due(), None);
    }

    #[test]
    fn a_share_ends_when_its_entry_changes_or_goes() {
        let mut bench = Bench::new();
        let _ = bench.look("a", 1);
        bench.pass(2_000);
        bench.share("a");
        assert_eq!(bench.look("a", 2), Some(End));
        assert_eq!(bench.look("a", 3), None, "it has ended already");
        assert_eq!(bench.due(), None);
        bench.pass(2_000);
        bench.share("a");
        assert_eq!(bench.entries.look("a".as_ref(), None, bench.now), Some(End));
        assert_eq!(bench.entries.look("a".as_ref(), None, bench.now), None);
        assert_eq!(bench.entries.names().count(), 0);
    }

    #[test]
    fn what_changes_while_it_is_hashed_is_hashed_again() {
        let mut bench = Bench::new();
        let _ = bench.look("a", 1);
        bench.pass(2_000);
        let (print, _) = bench.entries.begin("a".as_ref()).unwrap();
        assert_eq!(bench.look("a", 2), None);
        assert!(!bench.entries.is_current("a".as_ref(), print));
        bench.pass(2_000);
        bench.share("a");
        let _ = bench.entries.look("a".as_ref(), None, bench.now);
        assert!(!bench.entries.is_current("a".as_ref(), Print(2)));
    }

    #[test]
    fn what_cannot_be_shared_is_tried_again_when_it_changes() {
        let mut bench = Bench::new();
        let _ = bench.look("a", 1);
        bench.pass(2_000);
        bench.hash("a");
        assert_eq!(bench.fail("a"), Some(News));
        bench.pass(60_000);
        assert_eq!(bench.look("a", 1), None);
        assert_eq!(bench.due(), None);
        assert_eq!(bench.look("a", 2), None, "there is no share that could end");
        bench.pass(2_000);
        assert_eq!(bench.hash("a"), Trust::Cache, "it is another file");
        assert_eq!(bench.fail("a"), Some(News));
    }

    #[test]
    fn what_cannot_be_read_is_read_again_after_a_while_and_reported_once() {
        let mut bench = Bench::new();
        let _ = bench.look("a", 1);
        bench.pass(2_000);
        assert_eq!(bench.hash("a"), Trust::Cache);
        bench.entries.shared("a".as_ref());
        assert_eq!(bench.fail("a"), Some(News), "while it is shared");
        for _ in 0..3 {
            bench.pass(599_999);
            assert_eq!(bench.look("a", 1), None, "its share has ended already");
            assert_eq!(bench.due(), None);
            bench.pass(1);
            assert_eq!(bench.hash("a"), Trust::Bytes);
            assert_eq!(bench.fail("a"), None);
        }
        bench.pass(600_000);
        bench.share("a");
        assert_eq!(bench.fail("a"), Some(News), "it was shared since");
    }

    #[test]
    fn a_copy_is_shared_when_the_share_of_the_same_content_ends() {
        let mut bench = Bench::new();
        for name in ["a", "b"] {
            let _ = bench.look(name, 1);
        }
        bench.pass(2_000);
        bench.share("a");
        bench.hash("b");
        bench.entries.taken("b".as_ref());
        assert_eq!(bench.due(), None);
        assert_eq!(bench.entries.look("a".as_ref(), None, bench.now), Some(End));
        bench.entries.freed(bench.now);
        bench.share("b");
    }

    #[test]
    fn hidden_and_unfinished_entries_are_not_shared() {
        for name in ["a", "a.iso", "part", "a.parts", "tmp", "a.b.c", "ä"] {
            assert!(may_be_shared(name.as_ref()), "{name}");
        }
        for name in [".a", ".", "a.part", "a.PART", "a.resume", "a.tmp", "a~", "a.iso.crdownload", ".a.swp"] {
            assert!(!may_be_shared(name.as_ref()), "{name}");
        }
    }
}
