//! Open files, up to a number that a process can afford.

use std::{
    fs::File,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lru::LruCache;
use rustix::process::{Resource, getrlimit};

/// Files that one share keeps open. A share may have a hundred thousand; a process may commonly open 1,024.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Files of a share by their position in it, the least recently used closed when there are too many.
#[derive(Debug)]
pub(crate) struct FilePool {
    open: Mutex<LruCache<usize, Arc<File>>>,
}

impl Default for FilePool {
    fn default() -> FilePool {
        let limit = getrlimit(Resource::Nofile).current;
        FilePool { open: Mutex::new(LruCache::new(capacity(limit))) }
    }
}

/// An eighth of the limit of open files, where that is low: the rest is for connections.
fn capacity(limit: Option<u64>) -> NonZeroUsize {
    let part = limit.and_then(|limit| NonZeroUsize::new(usize::try_from(limit / 8).ok()?.max(1)));
    part.map_or(CAPACITY, |part| part.min(CAPACITY))
}

impl FilePool {
    /// The file at `index`, if it is open now.
    pub(crate) fn opened(&self, index: usize) -> Option<Arc<File>> {
        self.lock().get(&index).cloned()
    }

    /// The file at `index`, opened with `open` if it is not open now.
    pub(crate) fn file<E>(
        &self,
        index: usize,
        open: impl FnOnce() -> Result<File, E>,
    ) -> Result<Arc<File>, E> {
        if let Some(file) = self.opened(index) {
            return Ok(file);
        }
        // Opened without the lock: a slow disk must not delay other files. Opening one twice is harmless.
        let file = Arc::new(open()?);
        let evicted = self.lock().push(index, Arc::clone(&file));
        // Closed without the lock, too.
        drop(evicted);
        Ok(file)
    }

    /// Closes the file at `index`, because its name leads to another one now.
    pub(crate) fn forget(&self, index: usize) {
        let forgotten = self.lock().pop(&index);
        drop(forgotten);
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<usize, Arc<File>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_may_open_few_files_keeps_few_open() {
        let of = |limit| capacity(limit).get();
        assert_eq!(
            [of(None), of(Some(1_024)), of(Some(64)), of(Some(1))],
            [CAPACITY.get(), CAPACITY.get(), 8, 1]
        );
    }

    #[test]
    fn keeps_the_recently_used_and_no_more_than_it_may() {
        let pool = FilePool::default();
        let mut opened = Vec::new();
        let capacity = CAPACITY.get();
        for index in (0..capacity).chain([0, capacity, 0, 1]) {
            pool.file(index, || {
                opened.push(index);
                File::open("/dev/null")
            })
            .unwrap();
        }
        let expected: Vec<_> = (0..capacity).chain([capacity, 1]).collect();
        assert_eq!(opened, expected);
        assert_eq!(pool.lock().len(), capacity);
    }
}
