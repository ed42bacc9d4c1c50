//! Sends parts of a chunk: the hashes of its blocks, and some of its blocks.
//!
//! Both are read by a thread that may wait, and checked before any of it is sent. They are few bytes, so they are copied.

use std::{io, sync::Arc};

use proto::{
    ChunkIndex,
    peer::{BlockSet, PeerMessage},
};
use rustix::io::Errno;
use store::ChunkSource;
use tokio::time::Instant;

use super::{FULL_LEN, SMALL_LEN, Sender, encode, look_again, serving, to_u32, unreadable};
use crate::{
    send_file::{read_blocks, read_now},
    socket::{Next, send_bytes},
};

impl Sender {
    /// Sends the hashes of a chunk's blocks.
    pub(super) async fn put_leaves(&mut self, chunk: ChunkIndex) -> io::Result<()> {
        let Some(source) = self.open(chunk).await? else { return Ok(()) };
        // What is ready does not wait for it.
        self.flush().await?;
        let content = Arc::clone(&serving(&self.serve)?.content);
        let read =
            tokio::task::spawn_blocking(move || source.read_leaves()).await.map_err(io::Error::other)?;
        let leaves = match read {
            Ok(leaves) => leaves,
            Err(error) => return self.reject(chunk, unreadable(&*content, chunk, error)),
        };
        let span = content.metainfo().chunk_space().span(chunk);
        let root = span.map(|span| leaves.clone().root(span.leaf_count));
        if root.is_none() || root != content.hashes().get(chunk) {
            // The peer would take this side for a liar.
            let error = match look_again(&content, chunk).await {
                Err(changed) => changed,
                Ok(()) => unreadable(&*content, chunk, Errno::IO.into()),
            };
            return self.reject(chunk, error);
        }
        let hashes = leaves.hashes();
        encode(&PeerMessage::Leaves { chunk, count: to_u32(hashes.len()) }, &mut self.pending)?;
        hashes.iter().for_each(|hash| self.pending.extend_from_slice(hash));
        self.pending_small = true;
        let len = to_u32(size_of_val(hashes));
        serving(&self.serve)?.asker.served(len);
        Ok(())
    }

    /// Sends some blocks of a chunk.
    pub(super) async fn put_blocks(&mut self, chunk: ChunkIndex, blocks: BlockSet) -> io::Result<()> {
        let Some(source) = self.open(chunk).await? else { return Ok(()) };
        let content = Arc::clone(&serving(&self.serve)?.content);
        let len = blocks.len(source.len);
        let before = self.pending.len();
        encode(&PeerMessage::Blocks { chunk, blocks, len }, &mut self.pending)?;
        let payload = self.pending.len();
        let is_small = len <= SMALL_LEN && self.limit.slice_len().is_none();
        if !is_small || !self.add_from_memory(&source, blocks) {
            self.pending.truncate(before);
            self.flush().await?;
            match read_blocks(&source, blocks).await {
                Ok(bytes) => {
                    encode(&PeerMessage::Blocks { chunk, blocks, len }, &mut self.pending)?;
                    self.pending.extend_from_slice(&bytes);
                }
                Err(error) => return self.reject(chunk, unreadable(&*content, chunk, error)),
            }
        }
        // The bytes are a copy, so they are right if the file has not changed after the read.
        if let Err(error) = look_again(&content, chunk).await {
            self.pending.truncate(self.pending.len() - (payload - before) - len as usize);
            return self.reject(chunk, error);
        }
        if is_small {
            self.pending_small = true;
            serving(&self.serve)?.asker.served(len);
            return Ok(());
        }
        self.send_pending(len).await
    }

    /// Appends blocks of a chunk that are in memory. Returns false if one of them is not.
    fn add_from_memory(&mut self, source: &ChunkSource, blocks: BlockSet) -> bool {
        blocks.ranges(source.len).all(|range| {
            let (offset, len) = (source.offset + u64::from(range.start), range.end - range.start);
            let block = ChunkSource { offset, len, ..source.clone() };
            matches!(read_now(&block, &mut self.pending), Ok(true))
        })
    }

    /// Sends what is pending: one answer with `len` bytes of a chunk. Waits for the limit before each part of it.
    async fn send_pending(&mut self, len: u32) -> io::Result<()> {
        let begun = Instant::now();
        let slice_len = self.limit.slice_len().map_or(FULL_LEN, |slice_len| slice_len as usize);
        for slice in self.pending.chunks(slice_len) {
            self.limit.take(to_u32(slice.len())).await;
            send_bytes(self.stream.as_ref(), slice, Next::Unknown).await?;
            serving(&self.serve)?.asker.taken(slice.len());
        }
        self.pending.clear();
        serving(&self.serve)?.asker.served(len);
        self.held.adapt(self.stream.as_ref(), len, begun.elapsed())
    }
}
