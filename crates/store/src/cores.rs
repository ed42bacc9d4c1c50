//! Doing something with many items, on all cores.

use std::{
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Does something with each of `items`, `run` at a time in sequence. Each thread has a worker of its own. Ends at the first failure.
pub(crate) fn on_all_cores<T: Sync, E: Send, W: FnMut(&T) -> Result<(), E>>(
    items: &[T],
    run: usize,
    worker: impl Fn() -> W + Sync,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let work = || {
        let mut work = worker();
        loop {
            let start = next.fetch_add(run, Ordering::Relaxed);
            let Some(some) = items.get(start..).filter(|some| !some.is_empty()) else { return };
            for item in &some[..some.len().min(run)] {
                if let Err(error) = work(item) {
                    // The other threads find no work left.
                    next.store(items.len(), Ordering::Relaxed);
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return;
                }
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = threads.min(items.len().div_ceil(run));
    thread::scope(|scope| {
        (1..threads).for_each(|_| _ = scope.spawn(work));
        work();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
