//! A program under test: a child process whose lines are waited for, never longer than [`PATIENCE`].

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than anything here takes, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where programs run: an empty working directory, with a home beside it.
pub(crate) struct Place {
    root: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("work")).unwrap();
        Place { root }
    }

    /// The working directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.root.path().join("work")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Names in the working directory, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A command that sees nothing of the tests' environment: no `SHOAL_*`, no configuration file, no `CARGO`, no tracker in the network, and a home of its own.
    pub(crate) fn command(&self, program: impl AsRef<Path>, args: &[&str]) -> Command {
        let mut command = Command::new(program.as_ref());
        command.args(args).current_dir(self.dir()).env_clear().env("HOME", self.root.path());
        command.env("SHOAL_NO_DISCOVERY", "true").env("SHOAL_CONFIG", "none");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// A running program. It is killed when the test is done with it or fails.
pub(crate) struct Running {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
}

/// How a program ended, and what it said that nobody had read until then.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` if a signal killed it.
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<String>,
    pub(crate) err: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        let mut child = command.spawn().unwrap();
        let (out, err) = (lines(child.stdout.take()), lines(child.stderr.take()));
        Running { child, out, err }
    }

    /// The next line of stdout.
    pub(crate) fn line(&self) -> String {
        match self.line_before(Instant::now() + PATIENCE) {
            Ok(line) => line,
            Err(error) => panic!("no line on stdout: {error}; stderr: {:?}", self.err.try_iter().last()),
        }
    }

    /// The next line of stdout, if one comes in time.
    pub(crate) fn line_before(&self, deadline: Instant) -> Result<String, RecvTimeoutError> {
        self.out.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    }

    /// The next line of stdout that contains `text`; those before it are skipped.
    pub(crate) fn line_with(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.line_before(deadline) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(error) => panic!("nothing on stdout says '{text}': {error}"),
            }
        }
    }

    /// The next line of stderr.
    pub(crate) fn err_line(&self) -> String {
        self.err_line_before(Instant::now() + PATIENCE).expect("a line on stderr")
    }

    /// The next line of stderr, if one comes in time.
    pub(crate) fn err_line_before(&self, deadline: Instant) -> Result<String, RecvTimeoutError> {
        self.err.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    }

    /// The peak of its resident memory in MiB; `None` where there is no `/proc`.
    pub(crate) fn peak_mib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Ended {
        // A program has both open until it ends.
        let deadline = Instant::now() + PATIENCE;
        let (out, err) = (rest(&self.out, deadline), rest(&self.err, deadline));
        Ended { code: self.child.wait().unwrap().code(), out, err: err.join("\n") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Checks for a failure with this exit code that says all of this on stderr, and no more than once.
    pub(crate) fn assert_failed(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.err.matches("error: ").count(), 1, "{}", self.err);
        for text in says {
            assert!(self.err.contains(text), "no '{text}' in: {}", self.err);
        }
    }
}

/// Looks again and again until there is what is waited for, never longer than [`PATIENCE`].
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
    }
}

/// Runs a program that ends by itself.
pub(crate) fn run(command: Command) -> Ended {
    Running::start(command).end()
}

/// Reads lines in a thread that ends with the stream. Nothing comes from a stream that is not piped.
fn lines<R: Read + Send + 'static>(stream: Option<R>) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    if let Some(stream) = stream {
        thread::spawn(move || {
            BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
    }
    lines
}

fn rest(lines: &Receiver<String>, deadline: Instant) -> Vec<String> {
    let mut rest = Vec::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => rest.push(line),
            Err(RecvTimeoutError::Disconnected) => return rest,
            Err(RecvTimeoutError::Timeout) => {
                panic!("still running after {PATIENCE:?}, having said {rest:?}")
            }
        }
    }
}
