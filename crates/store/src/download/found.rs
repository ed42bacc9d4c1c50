//! Chunks and files that were found on this host ([`crate::reuse`]): copied, cloned or linked.

use std::{fs::File, path::Path, sync::atomic::Ordering};

use proto::{ChunkIndex, ChunkSpan, Digest, metainfo::Kind};

use super::{CROSS_CHECK_INTERVAL, Download, lock};
use crate::{
    disk,
    error::{AtPath, DownloadError, PathError},
    identity::{FileIdentity, FileState},
    linked::Dirs,
    merkle::{self, Leaves},
    part::{Access, is_small},
};

impl Download {
    /// Writes a chunk that was found on this host, in the file `from`, if it is right. Otherwise notes how it differs.
    pub(crate) fn take_if_right(
        &self,
        chunk: ChunkIndex,
        span: ChunkSpan,
        bytes: &[u8],
        from: &Path,
    ) -> Result<(), PathError> {
        if self.is_right(chunk, span, bytes, from) { self.put(chunk, span, bytes) } else { Ok(()) }
    }

    /// Whether a chunk that was found in the file `from` is right. Otherwise notes how it differs.
    pub(crate) fn is_right(&self, chunk: ChunkIndex, span: ChunkSpan, bytes: &[u8], from: &Path) -> bool {
        let leaves = Leaves::of(bytes);
        let hash = leaves.clone().root(span.leaf_count);
        if Some(hash) != self.hashes.get(chunk) {
            self.similar.note(chunk, span, Some(from), &leaves);
            return false;
        }
        !self.is_doubtful(hash, bytes, span)
    }

    /// Whether this chunk is one of those that are hashed twice, and the second hash is another.
    fn is_doubtful(&self, hash: Digest, bytes: &[u8], span: ChunkSpan) -> bool {
        let number = self.hashed.fetch_add(1, Ordering::Relaxed);
        number.is_multiple_of(CROSS_CHECK_INTERVAL)
            && merkle::chunk_hash_by_sha2(bytes, span.leaf_count) != hash
    }

    /// Whether a file may be linked to one of the old version: nothing of it is here, and it is not the share itself.
    pub(crate) fn may_link(&self, file: usize) -> bool {
        let (have, mut chunks) = (lock(&self.have), self.metainfo.chunk_space().chunks_of(file));
        self.metainfo.kind() == Kind::Directory && !chunks.any(|chunk| have.contains(ChunkIndex(chunk)))
    }

    /// Whether a file with these chunk hashes is a file of the share.
    pub(crate) fn has_hashes(&self, file: usize, hashes: &[Digest]) -> bool {
        let chunks = self.metainfo.chunk_space().chunks_of(file);
        let own = self.hashes.range(ChunkIndex(chunks.start), chunks.end - chunks.start);
        own.is_some_and(|own| own == hashes)
    }

    /// What [`Download::link_file`] needs, for each thread.
    pub(crate) fn linker(&self) -> Dirs<'_> {
        Dirs::new(&self.part)
    }

    /// Links a file of the old version that was proved, and returns what it is then. Then all of its chunks are here. `None` if that
    /// cannot be done.
    pub(crate) fn link_file<'a>(
        &'a self,
        dirs: &mut Dirs<'a>,
        old: &mut Dirs<'a>,
        file: usize,
        proved: &FileIdentity,
    ) -> Result<Option<FileState>, PathError> {
        // It may be open under the name that it gets.
        self.pool.forget(file);
        let entry = &self.metainfo.files()[file];
        let linked = dirs.link(entry, old, proved)?;
        if linked.is_some() {
            let mut have = lock(&self.have);
            self.metainfo.chunk_space().chunks_of(file).for_each(|chunk| _ = have.insert(ChunkIndex(chunk)));
        } else if !is_small(entry) {
            // The file that was reserved made room for the link.
            let file = self.file(file, Access::Create)?;
            disk::reserve(&file, entry.node.len, &[]).at("allocate", &self.part.path_of(entry))?;
        }
        Ok(linked)
    }

    /// Proves a linked file again that has changed in some way.
    pub(super) fn prove_linked(&self, file: usize) -> Result<(), DownloadError> {
        let (entry, space) = (&self.metainfo.files()[file], self.metainfo.chunk_space());
        let path = self.part.path_of(entry);
        let open = self.part.open_file(entry, Access::Read)?;
        let mut buffer = Vec::new();
        for chunk in space.chunks_of(file).map(ChunkIndex) {
            let Some(span) = space.span(chunk) else { continue };
            buffer.resize(span.len as usize, 0);
            disk::read_exact_at(&open, &mut buffer, span.offset).at("read", &path)?;
            if !self.is_right(chunk, span, &buffer, &path) {
                return Err(DownloadError::LinkChanged(path));
            }
        }
        Ok(())
    }

    /// Whether a file may be cloned from another: nothing of it is here, and it is not so small that copying it costs no more.
    pub(crate) fn may_clone(&self, file: usize) -> bool {
        let (have, mut chunks) = (lock(&self.have), self.metainfo.chunk_space().chunks_of(file));
        !is_small(&self.metainfo.files()[file]) && !chunks.any(|chunk| have.contains(ChunkIndex(chunk)))
    }

    /// Makes a file of the part share the bytes of another, if the file system can. What is in the part then has to be proved.
    pub(crate) fn clone_file(&self, file: usize, from: &File) -> bool {
        let entry = &self.metainfo.files()[file];
        let cloned = self.file(file, Access::Create).and_then(|to| {
            let path = self.file_path(file);
            let is_cloned = disk::clone_contents(from, &to).at("clone", &path)?;
            if is_cloned && to.metadata().at("examine", &path)?.len() > entry.node.len {
                disk::cut(&to, entry.node.len).at("cut", &path)?;
            }
            Ok(is_cloned)
        });
        cloned.inspect_err(|error| tracing::debug!("{error}: {}", error.source)).unwrap_or(false)
    }

    /// Proves a chunk in a file that was cloned. It is here only if it is right.
    pub(crate) fn prove_cloned(
        &self,
        chunk: ChunkIndex,
        span: ChunkSpan,
        buffer: &mut Vec<u8>,
    ) -> Result<(), PathError> {
        buffer.resize(span.len as usize, 0);
        let file = self.file(span.file, Access::Write)?;
        if disk::read_exact_at(&file, buffer, span.offset).is_err() {
            return Ok(());
        }
        let leaves = Leaves::of(buffer);
        let hash = leaves.clone().root(span.leaf_count);
        if Some(hash) != self.hashes.get(chunk) {
            self.similar.note(chunk, span, None, &leaves);
        } else if !self.is_doubtful(hash, buffer, span) {
            lock(&self.have).insert(chunk);
        }
        Ok(())
    }
}
