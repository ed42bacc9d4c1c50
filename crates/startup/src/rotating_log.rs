//! A log file that is set aside when it is large, and then begun again.
//!
//! The one thread of a [`tracing_appender::non_blocking::NonBlocking`] writes it, so it may wait for the disk. Lines stay
//! whole even if several programs write to the same file. Each appends many lines with one call. When one program rotates
//! the file, the others follow.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rustix::fs::{fstat, stat};
use tracing_appender::non_blocking::ErrorCounter;

/// A log file larger than this in bytes is set aside.
const MAX_LEN: u64 = 16 * 1024 * 1024;

/// Files that are kept after they were set aside, as `.1` (the newest) to `.3`: 64 MiB in all.
const KEPT: u32 = 3;

/// Bytes to collect before a system call.
const BUFFER_LEN: usize = 64 * 1024;

/// Counts the lines that were dropped because the disk was too slow.
pub(crate) type Dropped = Arc<OnceLock<ErrorCounter>>;

/// A log file of bounded size.
#[derive(Debug)]
pub(crate) struct RotatingLog {
    path: PathBuf,
    file: File,
    /// Lines to write next.
    buffer: Vec<u8>,
    /// Anything but a regular file, for example `/dev/null`, is never rotated.
    is_regular: bool,
    dropped: Dropped,
    /// Dropped lines that the log already reports.
    reported: usize,
}

impl RotatingLog {
    /// Opens the file, or creates it.
    pub(crate) fn open(path: &Path, dropped: Dropped) -> io::Result<RotatingLog> {
        let file = append_to(path)?;
        Ok(RotatingLog {
            path: path.to_owned(),
            is_regular: file.metadata()?.is_file(),
            file,
            buffer: Vec::with_capacity(BUFFER_LEN),
            dropped,
            reported: 0,
        })
    }

    /// Makes sure that the open file has the log's name, and room for `more` bytes.
    fn make_room(&mut self, more: usize) -> io::Result<()> {
        if !self.is_regular {
            return Ok(());
        }
        if !self.has_name() {
            // Another program rotated it, or somebody deleted it.
            self.file = append_to(&self.path)?;
        }
        let len = self.file.metadata()?.len();
        if len > 0 && len.saturating_add(more as u64) > MAX_LEN {
            self.rotate()?;
        }
        Ok(())
    }

    /// Whether the log's name still leads to the open file.
    fn has_name(&self) -> bool {
        match (stat(&self.path), fstat(&self.file)) {
            (Ok(named), Ok(open)) => (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino),
            _ => false,
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let set_aside = (1..KEPT)
            .rev()
            .map(|number| (numbered(&self.path, number), numbered(&self.path, number + 1)))
            .try_for_each(|(from, to)| rename_if_there(&from, &to))
            .and_then(|()| fs::rename(&self.path, numbered(&self.path, 1)));
        match set_aside {
            Ok(()) => self.file = append_to(&self.path)?,
            // If the log cannot be set aside it is emptied, because it must not fill the disk.
            Err(_) => self.file.set_len(0)?,
        }
        Ok(())
    }

    fn report_dropped(&mut self) {
        let dropped = self.dropped.get().map_or(0, ErrorCounter::dropped_lines);
        if dropped > self.reported {
            let lines = dropped - self.reported;
            self.reported = dropped;
            let line =
                format!("{lines} lines are missing here: they were written faster than the disk took them\n");
            self.buffer.extend_from_slice(line.as_bytes());
        }
    }
}

impl Write for RotatingLog {
    /// Receives one line, or several.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + lines.len() > BUFFER_LEN {
            self.flush()?;
        }
        self.buffer.extend_from_slice(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.report_dropped();
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.make_room(self.buffer.len()).and_then(|()| self.file.write_all(&self.buffer));
        // Also after a failure, because a full disk must not fill the memory.
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_LEN);
        written
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut numbered = path.as_os_str().to_owned();
    numbered.push(format!(".{number}"));
    numbered.into()
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tracing_appender::non_blocking::NonBlockingBuilder;

    use super::*;

    /// 64 KiB of lines.
    fn lines(letter: u8) -> Vec<u8> {
        let line: Vec<u8> = [letter; 63].into_iter().chain([b'\n']).collect();
        line.repeat(BUFFER_LEN / line.len())
    }

    fn write(log: &mut RotatingLog, letter: u8, bytes: u64) {
        for _ in 0..bytes / BUFFER_LEN as u64 {
            log.write_all(&lines(letter)).unwrap();
        }
        log.flush().unwrap();
    }

    fn first_letters(dir: &Path) -> Vec<(String, u8)> {
        let mut files: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                assert!(entry.metadata().unwrap().len() <= MAX_LEN);
                (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()[0])
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn a_log_never_takes_more_than_its_share_of_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RotatingLog::open(&dir.path().join("x.log"), Dropped::default()).unwrap();
        for letter in b'a'..=b'e' {
            write(&mut log, letter, MAX_LEN);
        }
        let file = |name: &str, letter| (name.to_owned(), letter);
        let expected =
            [file("x.log", b'e'), file("x.log.1", b'd'), file("x.log.2", b'c'), file("x.log.3", b'b')];
        assert_eq!(first_letters(dir.path()), expected);
    }

    #[test]
    fn programs_that_share_a_log_rotate_it_once_and_go_on_in_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let open = || RotatingLog::open(&dir.path().join("x.log"), Dropped::default()).unwrap();
        let mut logs = [open(), open()];
        write(&mut logs[0], b'a', MAX_LEN / 2);
        write(&mut logs[1], b'a', MAX_LEN / 2);
        write(&mut logs[0], b'b', BUFFER_LEN as u64);
        write(&mut logs[1], b'c', BUFFER_LEN as u64);
        assert_eq!(first_letters(dir.path()), [("x.log".to_owned(), b'b'), ("x.log.1".to_owned(), b'a')]);
        let log = fs::read(dir.path().join("x.log")).unwrap();
        assert_eq!(log, [lines(b'b'), lines(b'c')].concat());
    }

    #[test]
    fn a_log_that_cannot_be_set_aside_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RotatingLog::open(&dir.path().join("x.log"), Dropped::default()).unwrap();
        write(&mut log, b'a', MAX_LEN);
        // A directory cannot be replaced by a file.
        fs::create_dir(dir.path().join("x.log.3")).unwrap();
        fs::write(dir.path().join("x.log.2"), "z").unwrap();
        write(&mut log, b'b', BUFFER_LEN as u64);
        assert_eq!(fs::read(dir.path().join("x.log")).unwrap(), lines(b'b'));
    }

    #[test]
    fn a_deleted_log_is_made_again_and_a_device_is_only_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut log = RotatingLog::open(&path, Dropped::default()).unwrap();
        write(&mut log, b'a', BUFFER_LEN as u64);
        fs::remove_file(&path).unwrap();
        write(&mut log, b'b', BUFFER_LEN as u64);
        assert_eq!(fs::read(&path).unwrap(), lines(b'b'));
        let mut null = RotatingLog::open(Path::new("/dev/null"), Dropped::default()).unwrap();
        write(&mut null, b'a', 2 * MAX_LEN);
        assert!(!Path::new("/dev/null.1").exists());
    }

    /// A disk that accepts nothing until the test allows it.
    struct SlowDisk {
        log: RotatingLog,
        reached: mpsc::Sender<()>,
        go: mpsc::Receiver<()>,
    }

    impl Write for SlowDisk {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.reached.send(());
            let _ = self.go.recv();
            self.log.write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.log.flush()
        }
    }

    #[test]
    fn what_comes_faster_than_the_disk_takes_it_is_dropped_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let dropped = Dropped::default();
        let log = RotatingLog::open(&path, Arc::clone(&dropped)).unwrap();
        let ((reached, reaches), (going, go)) = (mpsc::channel(), mpsc::channel());
        let (mut queue, guard) =
            NonBlockingBuilder::default().buffered_lines_limit(2).finish(SlowDisk { log, reached, go });
        dropped.set(queue.error_counter()).unwrap();
        queue.write_all(b"first\n").unwrap();
        reaches.recv().unwrap();
        // The disk is busy with the first line, two fit the queue, and no writer waits.
        (0..10).for_each(|_| queue.write_all(b"more\n").unwrap());
        drop(going);
        drop((guard, queue));
        // Waits until the thread has ended.
        while reaches.recv().is_ok() {}
        let lines = fs::read_to_string(&path).unwrap();
        assert_eq!(
            lines,
            "first\nmore\nmore\n8 lines are missing here: they were written faster than the disk took them\n"
        );
    }
}
