//! Buffers for chunks: made once, used again, and so few that they bound the memory of a transfer.

use std::{
    mem,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

use proto::CHUNK_LEN;
use seeder::wait_count::WaitCount;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Chunks in memory at a time, 512 KiB each: being received, proved or written. A peer whose chunk finds no
/// buffer waits, and so does its sender.
pub(crate) const MAX_BUFFERS: usize = 20;

/// A bounded number of chunk buffers.
#[derive(Debug)]
pub(crate) struct BufferPool {
    permits: Arc<Semaphore>,
    free: Arc<Mutex<Vec<Box<[u8]>>>>,
    waiting: WaitCount,
}

/// A buffer with the bytes of one chunk; goes back to the pool when it is dropped.
#[derive(Debug)]
pub(crate) struct ChunkBuffer {
    bytes: Box<[u8]>,
    len: usize,
    free: Arc<Mutex<Vec<Box<[u8]>>>>,
    _permit: OwnedSemaphorePermit,
}

impl BufferPool {
    pub(crate) fn new() -> BufferPool {
        BufferPool {
            permits: Arc::new(Semaphore::new(MAX_BUFFERS)),
            free: Arc::default(),
            waiting: WaitCount::default(),
        }
    }

    /// A buffer of `len` bytes of any content, as soon as one is free. Cancel safe.
    ///
    /// # Panics
    /// If `len` is more than a chunk.
    pub(crate) async fn acquire(&self, len: u32) -> ChunkBuffer {
        assert!(len <= CHUNK_LEN, "a chunk of {len} bytes");
        let permit = {
            let _waiting = self.waiting.enter();
            Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed")
        };
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = free.unwrap_or_else(|| vec![0; CHUNK_LEN as usize].into());
        ChunkBuffer { bytes, len: len as usize, free: Arc::clone(&self.free), _permit: permit }
    }
}

impl BufferPool {
    /// Whether somebody waits for a buffer just now.
    pub(crate) fn is_short(&self) -> bool {
        self.waiting.is_waited()
    }
}

impl Deref for ChunkBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for ChunkBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Drop for ChunkBuffer {
    fn drop(&mut self) {
        let bytes = mem::take(&mut self.bytes);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn there_are_only_so_many_and_they_are_used_again() {
        let pool = BufferPool::new();
        let mut held = Vec::new();
        for _ in 0..MAX_BUFFERS {
            held.push(pool.acquire(5).await);
        }
        assert_eq!(pool.permits.available_permits(), 0);
        held[0][4] = 77;
        let address = held[0].as_ptr();
        held.remove(0);
        let again = pool.acquire(CHUNK_LEN).await;
        assert_eq!((again.as_ptr(), again.len()), (address, CHUNK_LEN as usize));
    }
}
