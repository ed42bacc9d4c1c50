//! How a download begins: with nothing, or with what an earlier run left, which is proved first.

use std::{fs::File, io, path::Path, sync::Arc};

use proto::{Bitfield, ChunkIndex, ChunkSpan, Metainfo};
use rustix::io::Errno;

use crate::{
    disk,
    error::{AtPath, DownloadError, PathError},
    file_pool::FilePool,
    hash_run::{HashRunError, OnProgress, Stopped, hash_chunks},
    hashes::ChunkHashes,
    holes, merkle,
    output::Output,
    part::{Access, Part},
    resume::{self, Resume, ResumeFile},
    survey,
    wanted::Wanted,
};

/// What there is when a download begins.
pub(crate) struct Start {
    pub(crate) resume: ResumeFile,
    /// Chunks that are here and proved.
    pub(crate) have: Bitfield,
    /// Those of them that are durable: the resume file claims them. The others are zeros.
    pub(crate) durable: Bitfield,
    /// Bytes that are here because they are zeros.
    pub(crate) zero_len: u64,
    /// What is fetched: what the user wants, and whole files that an earlier run was asked for.
    pub(crate) wanted: Wanted,
    pub(crate) resumed: Resumed,
}

/// How many chunks of an earlier run could be used. Chunks of zeros do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Chunks that were proved again.
    pub kept: u32,
    /// Chunks that were claimed, but are not there.
    pub lost: u32,
}

impl Start {
    /// Finds out what an earlier run left in the part, or prepares it for the first run.
    pub(crate) fn find(
        metainfo: &Metainfo,
        hashes: &ChunkHashes,
        output: &Output,
        part: &Part,
        wanted: Wanted,
        progress: OnProgress<'_>,
    ) -> Result<Start, DownloadError> {
        let zeros = holes::zero_chunks(metainfo, hashes, &wanted.chunks(metainfo.chunk_space()));
        let beginning = Beginning { metainfo, hashes, output, part, wanted, zeros, progress };
        let is_new = part.is_empty()?;
        beginning.start(is_new).inspect_err(|_| {
            if is_new {
                part.discard();
            }
        })
    }
}

struct Beginning<'a> {
    metainfo: &'a Metainfo,
    hashes: &'a ChunkHashes,
    output: &'a Output,
    part: &'a Part,
    wanted: Wanted,
    /// Wanted chunks of zeros. They are not received: a file that is created has zeros everywhere.
    zeros: Bitfield,
    progress: OnProgress<'a>,
}

impl Beginning<'_> {
    fn start(&self, is_new: bool) -> Result<Start, DownloadError> {
        let path = self.output.resume_path();
        let chunk_count = self.metainfo.chunk_space().chunk_count();
        let in_the_way =
            |path: &Path, reason| Err(DownloadError::PartInTheWay { path: path.to_owned(), reason });
        match resume::load(&path, self.metainfo.infohash(), chunk_count)? {
            Resume::NotAFile => in_the_way(&path, "it is not a regular file"),
            Resume::Unreadable if is_new => in_the_way(&path, "it is not a resume file"),
            // Without a part, claims are of no use.
            Resume::Missing | Resume::OtherShare | Resume::Claims(..) if is_new => self.anew(&path),
            Resume::OtherShare => in_the_way(self.part.path(), "it is a download of another share"),
            Resume::Claims(resume, claims) => self.claimed(resume, &claims),
            Resume::Missing => match self.unclaimed(&path)? {
                Some(start) => Ok(start),
                None => in_the_way(
                    self.part.path(),
                    "nothing in it is of the share, and no resume file says that it is a download",
                ),
            },
            Resume::Unreadable => match self.unclaimed(&path)? {
                Some(start) => Ok(start),
                None => in_the_way(&path, "it is damaged, or not a resume file"),
            },
        }
    }

    /// Reserves room for everything, first for the resume file: so it can be written when the disk is full.
    fn anew(&self, path: &Path) -> Result<Start, DownloadError> {
        let space = self.metainfo.chunk_space();
        let none = Bitfield::empty(space.chunk_count());
        let data_len = self.wanted.total_len(space) - holes::total_len(space, &self.holes());
        self.check_space(data_len + resume::file_len(space.chunk_count()))?;
        let resume = ResumeFile::create(path, self.metainfo.infohash(), &none)?;
        let (have, wanted) = (self.zeros.clone(), self.wanted.clone());
        let reserved = self.part.reserve(self.metainfo, &wanted, &self.holes());
        if let Err(error) = reserved.and_then(|()| self.fill_holes(&have)) {
            resume.remove();
            return Err(error);
        }
        let zero_len = holes::total_len(space, &have);
        Ok(Start { resume, have, durable: none, zero_len, wanted, resumed: Resumed::default() })
    }

    /// Chunks that holes are left for.
    fn holes(&self) -> Bitfield {
        if self.output.keeps_holes() { self.zeros.clone() } else { Bitfield::empty(self.zeros.len()) }
    }

    /// Writes the chunks of zeros among `have` that are in holes, unless holes may stay.
    fn fill_holes(&self, have: &Bitfield) -> Result<(), DownloadError> {
        if self.output.keeps_holes() {
            return Ok(());
        }
        let (space, zeros) =
            (self.metainfo.chunk_space(), vec![0; self.metainfo.chunk_space().chunk_len() as usize]);
        let pool = FilePool::default();
        for chunk in self.zeros.iter().filter(|&chunk| have.contains(chunk)) {
            let Some(span) = space.span(chunk) else { continue };
            let file = pool.file(span.file, || self.open(span.file, Access::Write))?;
            if holes::is_hole(&file, span.offset, span.len) {
                disk::write_all_at(&file, &zeros[..span.len as usize], span.offset)
                    .at("write", &self.part.path_of(&self.metainfo.files()[span.file]))?;
            }
            if (self.progress)(span.len.into()).is_break() {
                return Err(Stopped.into());
            }
        }
        Ok(())
    }

    /// How many of these chunks are not zeros.
    fn count_data(&self, chunks: &Bitfield) -> u32 {
        let count = chunks.iter().filter(|&chunk| !self.zeros.contains(chunk)).count();
        // There are no more chunks than that.
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Bytes of these chunks that are zeros.
    fn zero_len(&self, have: &Bitfield) -> u64 {
        let mut zeros = Bitfield::empty(have.len());
        have.iter().filter(|&chunk| self.zeros.contains(chunk)).for_each(|chunk| _ = zeros.insert(chunk));
        holes::total_len(self.metainfo.chunk_space(), &zeros)
    }

    /// Fails if the file system has fewer than `needed` bytes free.
    fn check_space(&self, needed: u64) -> Result<(), DownloadError> {
        let path = self.output.path();
        let dir = disk::parent_of(path);
        match disk::free_space(dir).at("examine", dir)? {
            Some(free) if free < needed => {
                Err(DownloadError::NoSpace { path: path.to_owned(), needed, free })
            }
            // A file system without blocks holds no files; the error of creating one there is clearer.
            _ => Ok(()),
        }
    }

    /// Proves the chunks that a resume file claims, and those of zeros.
    fn claimed(&self, mut resume: ResumeFile, claims: &Bitfield) -> Result<Start, DownloadError> {
        survey::check_nothing_foreign(self.part, self.metainfo)?;
        self.part.remove_links(self.metainfo)?;
        resume.sync()?;
        self.part.reserve(self.metainfo, &self.wanted, &self.holes())?;
        let space = self.metainfo.chunk_space();
        let is_known = |&chunk: &ChunkIndex| claims.contains(chunk) || self.zeros.contains(chunk);
        let chunks: Vec<_> = space.chunks().filter(is_known).collect();
        let pool = FilePool::default();
        let open = |file: usize| pool.file(file, || self.open(file, Access::Write));
        let is_lost = |error: &HashRunError<PathError>| match error {
            HashRunError::Stopped => false,
            HashRunError::Open(error) => is_lost(&error.source),
            HashRunError::Read(_, error) => is_lost(error),
        };
        let found =
            hash_chunks(space, &chunks, open, is_lost, self.progress).map_err(|error| match error {
                HashRunError::Stopped => DownloadError::Stopped(Stopped),
                HashRunError::Open(error) => error.into(),
                HashRunError::Read(file, source) => {
                    let path = self.part.path_of(&self.metainfo.files()[file]);
                    PathError { action: "read", path, source }.into()
                }
            })?;
        let mut have = Bitfield::empty(claims.len());
        for (&chunk, hash) in chunks.iter().zip(found) {
            if hash.is_some() && hash == self.hashes.get(chunk) {
                have.insert(chunk);
            }
        }
        let lost =
            claims.iter().filter(|&chunk| !self.zeros.contains(chunk) && !have.contains(chunk)).count();
        let wanted = self.with_whole_files(&mut have);
        let mut durable = have.clone();
        have.iter().filter(|&chunk| !claims.contains(chunk)).for_each(|chunk| _ = durable.remove(chunk));
        if durable.count() < claims.count() {
            // Corrected now, because a claimed chunk counts as durable, and a chunk that is fetched again is not. In both
            // slots, so that no damage brings the old claims back.
            resume.save(&durable)?;
            resume.save(&durable)?;
        }
        self.part.remove_unwanted(self.metainfo, &wanted)?;
        self.fill_holes(&have)?;
        let resumed = Resumed { kept: self.count_data(&have), lost: u32::try_from(lost).unwrap_or(u32::MAX) };
        Ok(Start { resume, zero_len: self.zero_len(&have), have, durable, wanted, resumed })
    }

    /// What is wanted, and the files that an earlier run was asked for and that are whole. Chunks of other files are taken out of
    /// `have`: their files go, because the finished share must not hold a part of a file.
    fn with_whole_files(&self, have: &mut Bitfield) -> Wanted {
        let space = self.metainfo.chunk_space();
        let mut wanted = self.wanted.clone();
        for file in (0..self.metainfo.files().len()).filter(|&file| !self.wanted.has_file(file)) {
            let chunks = || space.chunks_of(file).map(ChunkIndex);
            if chunks().len() > 0 && chunks().all(|chunk| have.contains(chunk)) {
                wanted.add_file(file);
            } else {
                chunks().for_each(|chunk| _ = have.remove(chunk));
            }
        }
        wanted
    }

    /// Keeps the right chunks of a part without a resume file. `None` if no chunk is right but those of zeros, which prove nothing:
    /// then the part may belong to somebody else, and is not changed.
    fn unclaimed(&self, path: &Path) -> Result<Option<Start>, DownloadError> {
        survey::check_nothing_foreign(self.part, self.metainfo)?;
        self.part.remove_links(self.metainfo)?;
        let space = self.metainfo.chunk_space();
        let mut have = Bitfield::empty(space.chunk_count());
        let mut buffer = Vec::new();
        for chunk in space.chunks() {
            let Some(span) = space.span(chunk) else { continue };
            if self.take(chunk, span, &mut buffer)? {
                have.insert(chunk);
            }
            if (self.progress)(span.len.into()).is_break() {
                return Err(Stopped.into());
            }
        }
        let is_ours = self.count_data(&have) > 0 || have.is_full();
        if !is_ours {
            return Ok(None);
        }
        let wanted = self.with_whole_files(&mut have);
        self.part.reserve(self.metainfo, &wanted, &self.holes())?;
        // Zeros in files that were just created or lengthened.
        for chunk in self.zeros.iter().filter(|&chunk| !have.contains(chunk)).collect::<Vec<_>>() {
            if let Some(span) = space.span(chunk)
                && self.take(chunk, span, &mut buffer)?
            {
                have.insert(chunk);
            }
        }
        self.fill_holes(&have)?;
        self.part.remove_unwanted(self.metainfo, &wanted)?;
        // Claimed at once. Otherwise the next run would have to prove and write it again.
        let files = 0..self.metainfo.files().len();
        let changed =
            files.filter(|&file| space.chunks_of(file).any(|chunk| have.contains(ChunkIndex(chunk))));
        self.part
            .sync(self.metainfo, &wanted, changed, &[], |file| self.open(file, Access::Write).map(Arc::new))
            .map_err(|error| DownloadError::NotDurable(Arc::new(error)))?;
        let resume = ResumeFile::create(path, self.metainfo.infohash(), &have)?;
        let resumed = Resumed { kept: self.count_data(&have), lost: 0 };
        let (durable, zero_len) = (have.clone(), self.zero_len(&have));
        Ok(Some(Start { resume, have, durable, zero_len, wanted, resumed }))
    }

    /// Proves a chunk of the part and writes it again. Data that an earlier run could not write to the disk may still be in
    /// the system's memory, and only another write brings it from there to the disk. A hole is on the disk, or zeros are.
    fn take(&self, chunk: ChunkIndex, span: ChunkSpan, buffer: &mut Vec<u8>) -> Result<bool, PathError> {
        let entry = &self.metainfo.files()[span.file];
        buffer.resize(span.len as usize, 0);
        let read = self.open(span.file, Access::Read).and_then(|file| {
            if holes::is_sparse(&file) && holes::is_hole(&file, span.offset, span.len) {
                return Ok(true);
            }
            disk::read_exact_at(&file, buffer, span.offset).at("read", &self.part.path_of(entry))?;
            Ok(false)
        });
        match read {
            Err(error) if is_lost(&error.source) => return Ok(false),
            Ok(true) => {
                return Ok(Some(holes::zero_hash(span.len, span.leaf_count)) == self.hashes.get(chunk));
            }
            result => result?,
        };
        if Some(merkle::chunk_hash(buffer, span.leaf_count)) != self.hashes.get(chunk) {
            return Ok(false);
        }
        let file = self.open(span.file, Access::Write)?;
        disk::write_all_at(&file, buffer, span.offset).at("write", &self.part.path_of(entry))?;
        Ok(true)
    }

    fn open(&self, file: usize, access: Access) -> Result<File, PathError> {
        self.part.open_file(&self.metainfo.files()[file], access)
    }
}

/// Whether to fetch a chunk again that cannot be read: its file is missing, ends before it, or the disk cannot read that
/// place. Writing to such a place usually repairs it.
fn is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
        || disk::is_one_of(error, &[Errno::IO])
}
