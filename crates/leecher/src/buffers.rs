//! Buffers for chunks, which are allocated once and used again.
//!
//! A session receives one chunk at a time, and always gets a buffer for it. So a slow peer never holds a buffer that another
//! peer needs. The bound is on complete chunks that wait to be proved and written ([`MAX_UNPROVED`]). A session with one more
//! waits, and its peer with it.

use std::{
    mem,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

use proto::CHUNK_LEN;
use swarm::MAX_UNPROVED;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The buffers of a transfer.
#[derive(Debug)]
pub(crate) struct BufferPool {
    turns: Arc<Semaphore>,
    free: Arc<Mutex<Vec<Box<[u8]>>>>,
}

/// A buffer with the bytes of one chunk. It returns to the pool when it is dropped.
#[derive(Debug)]
pub(crate) struct ChunkBuffer {
    bytes: Box<[u8]>,
    len: usize,
    free: Arc<Mutex<Vec<Box<[u8]>>>>,
    turn: Option<OwnedSemaphorePermit>,
}

impl BufferPool {
    pub(crate) fn new() -> BufferPool {
        BufferPool { turns: Arc::new(Semaphore::new(MAX_UNPROVED)), free: Arc::default() }
    }

    /// A buffer of `len` bytes with undefined content.
    ///
    /// # Panics
    /// Panics if `len` is more than a chunk.
    pub(crate) fn take(&self, len: u32) -> ChunkBuffer {
        assert!(len <= CHUNK_LEN, "a chunk of {len} bytes");
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = free.unwrap_or_else(|| vec![0; CHUNK_LEN as usize].into());
        ChunkBuffer { bytes, len: len as usize, free: Arc::clone(&self.free), turn: None }
    }

    /// Waits until a complete chunk may be passed on to be proved. Cancel safe.
    pub(crate) async fn await_turn(&self, buffer: &mut ChunkBuffer) {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        buffer.turn = Some(turn.expect("the semaphore is never closed"));
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
    async fn buffers_are_used_again_and_a_bounded_number_of_chunks_waits() {
        let pool = BufferPool::new();
        let mut held: Vec<_> = (0..=MAX_UNPROVED).map(|_| pool.take(5)).collect();
        for buffer in &mut held[..MAX_UNPROVED] {
            pool.await_turn(buffer).await;
        }
        assert_eq!(pool.turns.available_permits(), 0);
        held[0][4] = 77;
        let address = held[0].as_ptr();
        held.remove(0);
        let again = pool.take(CHUNK_LEN);
        assert_eq!((again.as_ptr(), again.len()), (address, CHUNK_LEN as usize));
        assert_eq!(pool.turns.available_permits(), 1);
    }
}
