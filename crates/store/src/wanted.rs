//! Which files of a share to fetch.

use std::{borrow::Cow, str::FromStr};

use globset::{GlobBuilder, GlobMatcher};
use proto::{
    Bitfield, ChunkIndex, ChunkSpace, Metainfo, ShareName,
    metainfo::{FileEntry, Kind, LinkEntry},
};

use crate::error::DownloadError;

/// A pattern for files of a share to fetch.
///
/// It is compared with each file's path inside the share, and with the paths of the directories above the file: a directory
/// stands for everything below it. A pattern with a slash at the end matches directories only. `*` and `?` do not match a slash,
/// `**` does; `[a-z]` and `{one,other}` work as in shells. A path that is the pattern, letter by letter, matches whatever
/// characters it has. A share of one file has that file under the share's name.
#[derive(Debug, Clone)]
pub struct FilePattern {
    /// Without slashes at its ends.
    text: String,
    matcher: GlobMatcher,
    directories_only: bool,
}

/// Why a text is not a pattern.
#[derive(Debug, thiserror::Error)]
pub enum FilePatternError {
    /// It is empty.
    #[error("an empty pattern")]
    Empty,
    /// It is malformed.
    #[error(transparent)]
    Glob(#[from] globset::Error),
}

impl FromStr for FilePattern {
    type Err = FilePatternError;

    fn from_str(text: &str) -> Result<FilePattern, FilePatternError> {
        let pattern = text.strip_suffix('/').unwrap_or(text);
        let directories_only = pattern.len() < text.len();
        let pattern = pattern.strip_prefix("./").or(pattern.strip_prefix('/')).unwrap_or(pattern);
        if pattern.is_empty() {
            return Err(FilePatternError::Empty);
        }
        let matcher = GlobBuilder::new(pattern).literal_separator(true).build()?.compile_matcher();
        Ok(FilePattern { text: pattern.to_owned(), matcher, directories_only })
    }
}

impl FilePattern {
    /// Whether it fits a name that is not inside a share.
    pub fn fits_name(&self, name: &ShareName) -> bool {
        self.matches(name.as_str(), false)
    }

    fn matches(&self, path: &str, is_directory: bool) -> bool {
        (is_directory || !self.directories_only) && (self.text == path || self.matcher.is_match(path))
    }

    /// Whether it matches an entry of a share, or a directory above it.
    fn takes(&self, path: &str, is_directory: bool) -> bool {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        above.into_iter().any(|dir| self.matches(dir, true)) || self.matches(path, is_directory)
    }
}

/// The files, links and empty directories of a share that are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// By their position in the share.
    files: Vec<bool>,
    links: Vec<bool>,
    empty_directories: Vec<bool>,
}

impl Wanted {
    /// What the patterns match; everything if there are none. A pattern that matches nothing is an error.
    pub fn of(metainfo: &Metainfo, patterns: &[FilePattern]) -> Result<Wanted, DownloadError> {
        if patterns.is_empty() {
            return Ok(Wanted::all(metainfo));
        }
        let mut is_used = vec![false; patterns.len()];
        let mut take = |path: &str, is_directory| {
            let mut is_taken = false;
            for (pattern, is_used) in patterns.iter().zip(&mut is_used) {
                if pattern.takes(path, is_directory) {
                    (is_taken, *is_used) = (true, true);
                }
            }
            is_taken
        };
        let files =
            metainfo.files().iter().map(|entry| take(&path_in_share(metainfo, entry), false)).collect();
        let links = metainfo.links().iter().map(|link| take(&joined(&link.path), false)).collect();
        let directories = metainfo.empty_directories().iter();
        let empty_directories = directories.map(|path| take(&joined(path), true)).collect();
        match is_used.iter().position(|&is_used| !is_used) {
            Some(unused) => Err(DownloadError::NothingMatches(patterns[unused].text.clone())),
            None => Ok(Wanted { files, links, empty_directories }),
        }
    }

    /// Everything in a share.
    pub fn all(metainfo: &Metainfo) -> Wanted {
        Wanted {
            files: vec![true; metainfo.files().len()],
            links: vec![true; metainfo.links().len()],
            empty_directories: vec![true; metainfo.empty_directories().len()],
        }
    }

    /// Whether every file, link and directory is wanted.
    pub(crate) fn is_all(&self) -> bool {
        self.files.iter().chain(&self.links).chain(&self.empty_directories).all(|&is_wanted| is_wanted)
    }

    /// Whether the file at this position is wanted.
    pub(crate) fn has_file(&self, file: usize) -> bool {
        self.files[file]
    }

    /// Adds a file.
    pub(crate) fn add_file(&mut self, file: usize) {
        self.files[file] = true;
    }

    /// Adds an empty directory.
    pub(crate) fn add_directory(&mut self, number: usize) {
        self.empty_directories[number] = true;
    }

    /// Adds a link.
    pub(crate) fn add_link(&mut self, number: usize) {
        self.links[number] = true;
    }

    /// The chunks of the wanted files.
    pub(crate) fn chunks(&self, space: &ChunkSpace) -> Bitfield {
        let mut chunks = Bitfield::empty(space.chunk_count());
        for file in self.positions() {
            space.chunks_of(file).for_each(|chunk| _ = chunks.insert(ChunkIndex(chunk)));
        }
        chunks
    }

    /// Bytes in the wanted files.
    pub fn total_len(&self, space: &ChunkSpace) -> u64 {
        self.positions().map(|file| space.file_len(file)).sum()
    }

    /// The positions of the wanted files.
    pub(crate) fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        positions(&self.files)
    }

    /// The positions of the wanted empty directories.
    pub(crate) fn directory_positions(&self) -> impl Iterator<Item = usize> + '_ {
        positions(&self.empty_directories)
    }

    /// The positions of the wanted links.
    pub(crate) fn link_positions(&self) -> impl Iterator<Item = usize> + '_ {
        positions(&self.links)
    }

    /// The wanted files, in the share's order.
    pub fn files<'a>(&self, metainfo: &'a Metainfo) -> Cow<'a, [FileEntry]> {
        chosen(metainfo.files(), &self.files)
    }

    /// The wanted links, in the share's order. A link is wanted for its own path, wherever it leads.
    pub fn links<'a>(&self, metainfo: &'a Metainfo) -> Cow<'a, [LinkEntry]> {
        chosen(metainfo.links(), &self.links)
    }

    /// The wanted empty directories, in the share's order.
    pub fn empty_directories<'a>(&self, metainfo: &'a Metainfo) -> Cow<'a, [Box<[ShareName]>]> {
        chosen(metainfo.empty_directories(), &self.empty_directories)
    }
}

fn positions(is_chosen: &[bool]) -> impl Iterator<Item = usize> + '_ {
    is_chosen.iter().enumerate().filter(|(_, is_chosen)| **is_chosen).map(|(at, _)| at)
}

fn chosen<'a, T: Clone>(all: &'a [T], is_chosen: &[bool]) -> Cow<'a, [T]> {
    if is_chosen.iter().all(|&is_chosen| is_chosen) {
        return Cow::Borrowed(all);
    }
    all.iter().zip(is_chosen).filter(|(_, is_chosen)| **is_chosen).map(|(entry, _)| entry.clone()).collect()
}

/// The path of a file inside its share, with slashes: what [`FilePattern`] is compared with. The file of a share of one file has the
/// share's name.
pub fn path_in_share(metainfo: &Metainfo, entry: &FileEntry) -> String {
    match metainfo.kind() {
        Kind::File => metainfo.name().to_string(),
        Kind::Directory => joined(&entry.path),
    }
}

pub(crate) fn joined(path: &[ShareName]) -> String {
    path.iter().map(ShareName::as_str).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(pattern: &str, path: &str) -> bool {
        pattern.parse::<FilePattern>().unwrap().takes(path, false)
    }

    #[test]
    fn a_pattern_is_compared_with_the_whole_path() {
        assert!(takes("a.bin", "a.bin") && !takes("a.bin", "deep/a.bin") && takes("/a.bin", "a.bin"));
        assert!(takes("*.bin", "a.bin") && !takes("*.bin", "deep/a.bin"));
        assert!(takes("**/*.bin", "a.bin") && takes("**/*.bin", "deep/down/a.bin"));
        assert!(takes("deep/?.bin", "deep/a.bin") && takes("{one,deep}/a.bin", "deep/a.bin"));
    }

    #[test]
    fn a_directory_stands_for_everything_below_it() {
        for pattern in ["deep", "deep/", "./deep/", "d*", "deep/down", "**/down/"] {
            assert!(takes(pattern, "deep/down/a.bin"), "{pattern}");
        }
        assert!(!takes("deep", "deeper/a.bin") && !takes("down", "deep/down/a.bin"));
        assert!(!takes("a.bin/", "a.bin"));
    }

    /// `--list-files` prints such paths, and they are copied from there.
    #[test]
    fn a_path_matches_itself_whatever_characters_it_has() {
        for path in ["[x]", "a{b,c}/[d]*.bin", "a?b"] {
            assert!(takes(path, path), "{path}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for bad in ["", "/", "[a", "{a"] {
            assert!(bad.parse::<FilePattern>().is_err(), "{bad}");
        }
    }
}
