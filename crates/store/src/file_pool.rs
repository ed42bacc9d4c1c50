//! Open files, no more than a process can afford.

use std::{
    collections::HashMap,
    fs::File,
    sync::{Arc, Mutex, PoisonError},
};

/// Files that one share keeps open. A share may have a hundred thousand; a process may commonly open 1,024.
const CAPACITY: usize = 64;

/// Files of a share by their position in it, the least recently used closed when there are too many.
#[derive(Debug, Default)]
pub(crate) struct FilePool {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    files: HashMap<usize, (Arc<File>, u64)>,
    uses: u64,
}

impl FilePool {
    /// The file at `index`, if it is open now.
    pub(crate) fn opened(&self, index: usize) -> Option<Arc<File>> {
        self.lock().touch(index)
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
        // Opened without the lock: a slow disk must not hold up the others. Twice is harmless.
        let file = Arc::new(open()?);
        self.lock().insert(index, Arc::clone(&file));
        Ok(file)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn touch(&mut self, index: usize) -> Option<Arc<File>> {
        self.uses += 1;
        let (file, used) = self.files.get_mut(&index)?;
        *used = self.uses;
        Some(Arc::clone(file))
    }

    fn insert(&mut self, index: usize, file: Arc<File>) {
        if self.files.len() >= CAPACITY
            && let Some(&oldest) = self.files.iter().min_by_key(|(_, (_, used))| used).map(|(index, _)| index)
        {
            self.files.remove(&oldest);
        }
        self.uses += 1;
        self.files.insert(index, (file, self.uses));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_recently_used_and_no_more_than_it_may() {
        let pool = FilePool::default();
        let mut opened = Vec::new();
        for index in (0..CAPACITY).chain([0, CAPACITY, 0, 1]) {
            pool.file(index, || {
                opened.push(index);
                File::open("/dev/null")
            })
            .unwrap();
        }
        let expected: Vec<_> = (0..CAPACITY).chain([CAPACITY, 1]).collect();
        assert_eq!(opened, expected);
        assert_eq!(pool.lock().files.len(), CAPACITY);
    }
}
