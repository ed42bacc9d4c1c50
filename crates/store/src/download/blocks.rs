//! Chunks that are put together from blocks of a peer and similar bytes of this host ([`crate::similar`]).

use std::io;

use proto::{
    Bitfield, ChunkIndex, ChunkSpan, Digest,
    peer::{BlockSet, Form, block_count},
};

use super::{Download, Stored};
use crate::{disk, error::StoreChunkError, merkle::Leaves, part::Access};

impl Download {
    /// Proves the hashes of a chunk's blocks, and compares them with similar bytes on this host. Returns in which form to ask for the
    /// chunk next.
    pub fn compare(
        &self,
        chunk: ChunkIndex,
        leaves: impl IntoIterator<Item = Digest>,
    ) -> Result<Form, StoreChunkError> {
        let wrong = StoreChunkError::Wrong(chunk);
        let Some(span) = self.metainfo.chunk_space().span(chunk) else { return Err(wrong) };
        let leaves = Leaves::from_hashes(leaves);
        let count = block_count(span.len) as usize;
        if leaves.hashes().len() != count {
            return Err(wrong);
        }
        let root = leaves.clone().root(span.leaf_count);
        if Some(root) == self.hashes.get(chunk) {
            Ok(self.similar.compare(chunk, &leaves))
        } else {
            Err(wrong)
        }
    }

    /// Completes a chunk of which a peer has sent these blocks with bytes of this host, proves it and writes it. `bytes` has the length of
    /// the chunk, and the blocks of the peer at their places.
    pub fn store_blocks(
        &self,
        chunk: ChunkIndex,
        blocks: BlockSet,
        bytes: &mut [u8],
    ) -> Result<Stored, StoreChunkError> {
        let Some(span) =
            self.metainfo.chunk_space().span(chunk).filter(|span| span.len as usize == bytes.len())
        else {
            return Err(StoreChunkError::Wrong(chunk));
        };
        let others = blocks.others(span.len);
        let changed = || {
            self.similar.forget(chunk);
            StoreChunkError::SimilarChanged(chunk)
        };
        if let Err(error) = self.read_similar(span, others, bytes) {
            tracing::debug!("cannot read what is similar to chunk {}: {error}", chunk.0);
            return Err(changed());
        }
        match self.store(chunk, bytes) {
            Ok(stored) => {
                self.similar.forget(chunk);
                Ok(Stored { reused: others.len(span.len), ..stored })
            }
            // The peer is not to blame for what it did not send.
            Err(StoreChunkError::Wrong(_)) if self.similar.has_changed(chunk, others, &Leaves::of(bytes)) => {
                Err(changed())
            }
            failed => failed,
        }
    }

    /// Reads these blocks of the bytes that are similar to a chunk.
    fn read_similar(&self, span: ChunkSpan, blocks: BlockSet, bytes: &mut [u8]) -> io::Result<()> {
        let file = if self.similar.is_in_part(span.file) {
            self.file(span.file, Access::Write).map_err(|error| error.source)?
        } else {
            self.similar.file(span.file).ok_or(io::ErrorKind::NotFound)?
        };
        blocks.ranges(span.len).try_for_each(|range| {
            let at = span.offset + u64::from(range.start);
            disk::read_exact_at(&file, &mut bytes[range.start as usize..range.end as usize], at)
        })
    }

    /// The chunks of which this host has similar bytes.
    pub fn similar(&self) -> Bitfield {
        let mut similar = self.similar.chunks(self.metainfo.chunk_space().chunk_count());
        self.have().iter().for_each(|chunk| _ = similar.remove(chunk));
        similar
    }
}
