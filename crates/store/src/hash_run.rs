//! Hashing many chunks on all cores.

use std::{
    fs::File,
    io,
    num::NonZeroUsize,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use proto::{ChunkIndex, Digest, chunk::ChunkSpace};

use crate::{
    disk, holes,
    merkle::{Leaves, batch_len},
};

/// Chunks that a thread takes at a time: 1 or 4 MiB in sequence, so that disks get long reads.
const RUN: usize = 8;

/// Called from several threads with the number of bytes that were just hashed. `Break` stops the run.
pub type OnProgress<'a> = &'a (dyn Fn(u64) -> ControlFlow<()> + Sync);

/// The run was stopped before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopped")]
pub struct Stopped;

/// Why chunks could not be hashed.
#[derive(Debug)]
pub(crate) enum HashRunError<E> {
    Stopped,
    /// Opening a file failed.
    Open(E),
    /// Reading the file at this position of the share failed.
    Read(usize, io::Error),
}

/// Reads and hashes `chunks`, and returns their hashes in the same order. The hash is `None` if the file ends before the
/// chunk does, or if `is_lost` returns true for the error.
pub(crate) fn hash_chunks<E: Send>(
    space: &ChunkSpace,
    chunks: &[ChunkIndex],
    open: impl Fn(usize) -> Result<Arc<File>, E> + Sync,
    is_lost: impl Fn(&HashRunError<E>) -> bool + Sync,
    progress: OnProgress<'_>,
) -> Result<Vec<Option<Digest>>, HashRunError<E>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![None; chunks.len()]);
    let work = || {
        let mut worker = Worker { space, open: &open, progress, buf: vec![0; batch_len()], current: None };
        loop {
            let start = next.fetch_add(RUN, Ordering::Relaxed);
            let Some(run) = chunks.get(start..).filter(|run| !run.is_empty()) else { return Ok(()) };
            let run = &run[..run.len().min(RUN)];
            let mut hashes = [None; RUN];
            for (&chunk, hash) in run.iter().zip(&mut hashes) {
                // A thread that fails leaves no work for the others.
                let hashed = match worker.hash(chunk) {
                    Err(error) if is_lost(&error) => worker.proceed(chunk).map(|()| None),
                    hashed => hashed,
                };
                *hash = hashed.inspect_err(|_| next.store(chunks.len(), Ordering::Relaxed))?;
            }
            results.lock().unwrap_or_else(PoisonError::into_inner)[start..start + run.len()]
                .copy_from_slice(&hashes[..run.len()]);
        }
    };
    let threads =
        thread::available_parallelism().map_or(1, NonZeroUsize::get).min(chunks.len().div_ceil(RUN));
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let first = work();
        others.into_iter().map(join).fold(first, Result::and)
    })?;
    Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner))
}

struct Worker<'a, O> {
    space: &'a ChunkSpace,
    open: &'a O,
    progress: OnProgress<'a>,
    buf: Vec<u8>,
    /// The file that was read last: runs rarely change it.
    current: Option<Current>,
}

struct Current {
    index: usize,
    file: Arc<File>,
    /// Whether it may have holes.
    is_sparse: bool,
}

impl<E, O: Fn(usize) -> Result<Arc<File>, E>> Worker<'_, O> {
    fn hash(&mut self, chunk: ChunkIndex) -> Result<Option<Digest>, HashRunError<E>> {
        let Some(span) = self.space.span(chunk) else { return Ok(None) };
        let Current { file, is_sparse, .. } = match &self.current {
            Some(current) if current.index == span.file => current,
            _ => {
                let file = (self.open)(span.file).map_err(HashRunError::Open)?;
                let is_sparse = holes::is_sparse(&file);
                self.current.insert(Current { index: span.file, file, is_sparse })
            }
        };
        if *is_sparse && holes::is_hole(file, span.offset, span.len) {
            let hash = holes::zero_hash(span.len, span.leaf_count);
            return self.proceed(chunk).map(|()| Some(hash));
        }
        let hash = match leaves(file, span.offset, span.len, &mut self.buf) {
            Ok(leaves) => Some(leaves.root(span.leaf_count)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(HashRunError::Read(span.file, error)),
        };
        self.proceed(chunk).map(|()| hash)
    }

    /// Reports that this chunk is done.
    fn proceed(&self, chunk: ChunkIndex) -> Result<(), HashRunError<E>> {
        let len = self.space.span(chunk).map_or(0, |span| span.len.into());
        if (self.progress)(len).is_break() { Err(HashRunError::Stopped) } else { Ok(()) }
    }
}

/// Reads and hashes the blocks of a chunk.
pub(crate) fn leaves(file: &File, offset: u64, len: u32, buf: &mut [u8]) -> io::Result<Leaves> {
    let mut leaves = Leaves::default();
    let (mut offset, end) = (offset, offset + u64::from(len));
    while offset < end {
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let len = left.min(buf.len());
        let slice = &mut buf[..len];
        disk::read_exact_at(file, slice, offset)?;
        leaves.push(slice);
        offset += len as u64;
    }
    Ok(leaves)
}
