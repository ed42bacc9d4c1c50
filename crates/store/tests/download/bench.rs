//! A shared path and a place to download it to.

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::{ChunkIndex, Metainfo, SMALL_CHUNK_LEN};
use store::{
    Content, Download, DownloadError, FilePattern, Output, Resumed, Scan, ScanRules, Shared, Wanted,
};

pub(crate) const CHUNK: usize = SMALL_CHUNK_LEN as usize;

pub(crate) fn content(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + (i >> 8) * 7 + (i >> 16) * 13 + (i >> 19) * 5 + seed) as u8).collect()
}

/// A shared path and a place to download it to.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    pub(crate) shared: Shared,
}

impl Bench {
    pub(crate) fn new(make: impl FnOnce(&Path)) -> Bench {
        Bench::with_rules(&ScanRules::default(), make)
    }

    pub(crate) fn with_rules(rules: &ScanRules, make: impl FnOnce(&Path)) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        make(&source);
        fs::create_dir(dir.path().join("out")).unwrap();
        let shared =
            Scan::new(&source, None, rules).unwrap().hash(None, &|_| ControlFlow::Continue(())).unwrap();
        Bench { dir, shared }
    }

    pub(crate) fn of_file(len: usize) -> Bench {
        Bench::new(|path| fs::write(path, content(len, 1)).unwrap())
    }

    /// A directory of `count` files of one chunk each: some nearly full, some that are not small, some that are.
    pub(crate) fn of_directory(count: usize) -> Bench {
        Bench::new(|path| {
            fs::create_dir_all(path.join("sub/deeper")).unwrap();
            for index in 0..count {
                let (dir, len) = [("", CHUNK - 1), ("sub/", 70_000), ("sub/deeper/", 5_000)][index % 3];
                fs::write(path.join(format!("{dir}file{index}")), content(len, index)).unwrap();
            }
        })
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    pub(crate) fn output(&self) -> Output {
        Output::in_dir(&self.dir.path().join("out"), self.shared.metainfo().name())
    }

    pub(crate) fn open(&self) -> Result<(Download, Resumed), DownloadError> {
        self.open_to(self.output())
    }

    pub(crate) fn open_to(&self, output: Output) -> Result<(Download, Resumed), DownloadError> {
        self.open_only(output, &[])
    }

    /// Opens a download of what these patterns match.
    pub(crate) fn open_only(
        &self,
        output: Output,
        only: &[&str],
    ) -> Result<(Download, Resumed), DownloadError> {
        self.open_from(output, only, &[])
    }

    /// Opens a download of what these patterns match, with these sources.
    pub(crate) fn open_from(
        &self,
        output: Output,
        only: &[&str],
        from: &[PathBuf],
    ) -> Result<(Download, Resumed), DownloadError> {
        let metainfo = Arc::new(Metainfo::decode(self.shared.metainfo().as_bytes()).unwrap());
        let only: Vec<FilePattern> = only.iter().map(|pattern| pattern.parse().unwrap()).collect();
        let wanted = Wanted::of(&metainfo, &only)?;
        Download::open(metainfo, self.shared.hashes().clone(), output, wanted, from, None, &|_| {
            ControlFlow::Continue(())
        })
    }

    /// Resumes a download, and checks how many claimed chunks are intact and how many are lost.
    #[track_caller]
    pub(crate) fn resume(&self, kept: u32, lost: u32) -> Download {
        let (download, resumed) = self.open().unwrap();
        assert_eq!(resumed, Resumed { kept, lost });
        download
    }

    /// Stores the missing chunks, and checks that the output equals the source.
    #[track_caller]
    pub(crate) fn complete(&self, download: Download) {
        self.store_missing(&download);
        assert_eq!(listing(&self.finish(download)), listing(&self.source()));
    }

    /// The directory of downloads.
    pub(crate) fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    pub(crate) fn finish(&self, download: Download) -> PathBuf {
        download.finish().unwrap();
        self.output().path().to_owned()
    }

    pub(crate) fn chunk(&self, chunk: ChunkIndex) -> Vec<u8> {
        let source = self.shared.open_chunk(chunk).unwrap();
        let mut bytes = vec![0; source.len as usize];
        source.file.read_exact_at(&mut bytes, source.offset).unwrap();
        bytes
    }

    pub(crate) fn store(&self, download: &Download, chunks: impl IntoIterator<Item = u32>) {
        for chunk in chunks.into_iter().map(ChunkIndex) {
            download.store(chunk, &self.chunk(chunk)).unwrap();
        }
    }

    pub(crate) fn store_missing(&self, download: &Download) {
        for chunk in download.wanted().iter().filter(|&chunk| !download.have().contains(chunk)) {
            download.store(chunk, &self.chunk(chunk)).unwrap();
        }
    }
}

/// What is called a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory,
    File { bytes: Vec<u8>, is_executable: bool },
    Link(PathBuf),
}

/// Everything at and below `path`.
pub(crate) fn listing(path: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut found = BTreeMap::new();
    let mut todo = vec![path.to_owned()];
    while let Some(at) = todo.pop() {
        let meta = fs::symlink_metadata(&at).unwrap();
        let entry = if meta.is_dir() {
            todo.extend(fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
            Entry::Directory
        } else if meta.is_symlink() {
            Entry::Link(fs::read_link(&at).unwrap())
        } else {
            Entry::File { bytes: fs::read(&at).unwrap(), is_executable: meta.mode() & 0o100 != 0 }
        };
        found.insert(at.strip_prefix(path).unwrap().to_owned(), entry);
    }
    found
}

pub(crate) fn make_executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
