//! The `tracker` program as its users see it.
#![expect(clippy::disallowed_methods, reason = "these tests run the program beside themselves")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod asking;
mod checking;
mod http;
mod limits;
// All programs answer HTTP in the same way.
#[path = "../../../web/tests/http/docs.rs"]
mod docs;
#[path = "../../../web/tests/http/get.rs"]
mod get;
#[path = "../../../seeder/tests/command_line/json_docs.rs"]
mod json_docs;
#[path = "../../../seeder/tests/command_line/on_terminal.rs"]
#[expect(dead_code, reason = "other programs do more")]
mod on_terminal;
#[path = "../../../seeder/tests/command_line/readme.rs"]
mod readme;
#[path = "../../../seeder/tests/command_line/stopping.rs"]
mod stopping;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::UdpSocket,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use proto::tracker::RequestBody;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use asking::{ask, register};

/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that runs in an empty directory. It is killed when the test is done with it or fails.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    dir: TempDir,
}

impl Running {
    fn start(args: &[&str]) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let mut child = tracker(args, dir.path()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        // Ends with the program's stdout.
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Running { child, lines, dir }
    }

    /// The next line of stdout.
    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line on stdout")
    }

    /// Reads the two lines of a start that succeeds and returns the port.
    fn port(&self, ip: &str) -> u16 {
        self.line();
        let listening = self.line();
        let prefix = format!("[LISTENING] Tracker is listening on {ip}:");
        listening.strip_prefix(&prefix).unwrap_or_else(|| panic!("{listening}")).parse().unwrap()
    }

    /// Waits until the log says something.
    fn log_has(&self, text: &str) {
        let log = self.dir.path().join("tracker_debug.log");
        let until = std::time::Instant::now() + PATIENCE;
        while !fs::read_to_string(&log).unwrap().contains(text) {
            assert!(std::time::Instant::now() < until, "no '{text}' in the log");
            thread::yield_now();
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end, and returns the exit code and all of stderr. Nothing more may come on stdout.
    fn end(&mut self) -> (Option<i32>, String) {
        assert_eq!(self.lines.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code(), err)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with nothing from the environment of the tests.
fn tracker(args: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracker"));
    command.args(args).current_dir(dir).env_clear().env("SHOAL_NO_DISCOVERY", "true");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a program that ends by itself.
fn output(mut command: Command) -> Output {
    let child = command.spawn().unwrap();
    let pid = Pid::from_child(&child);
    let (done, waiting) = mpsc::channel();
    let output = thread::spawn(move || {
        let output = child.wait_with_output();
        done.send(()).unwrap();
        output
    });
    if waiting.recv_timeout(PATIENCE).is_err() {
        kill_process(pid, Signal::KILL).unwrap();
        panic!("still running after {PATIENCE:?}");
    }
    output.join().unwrap().unwrap()
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let output = output(tracker(args, dir.path()));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Where programs have to ask for huge pages.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn asks_for_huge_pages_in_the_same_process_unless_the_user_has_set_up_the_allocator() {
    let policy = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let tunables = |set: Option<&str>| {
        let dir = tempfile::tempdir().unwrap();
        let mut command = tracker(&["--bind", "127.0.0.1", "--port", "0"], dir.path());
        command.envs(set.map(|tunables| ("GLIBC_TUNABLES", tunables)));
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().starts_with("[STARTING]"));
        let environment = fs::read_to_string(format!("/proc/{}/environ", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let tunables = environment.split('\0').find_map(|one| one.strip_prefix("GLIBC_TUNABLES="));
        tunables.map(str::to_owned)
    };
    let of_user = "glibc.malloc.arena_max=2";
    assert_eq!(tunables(Some(of_user)).as_deref(), Some(of_user));
    let asks = tunables(None).is_some_and(|tunables| tunables.contains("glibc.malloc.hugetlb=1"));
    assert_eq!(asks, policy.contains("[madvise]"));
}

#[test]
fn prints_where_it_listens_and_ends_well_on_every_signal_that_stops_it() {
    for signal in stopping::stopping_signals() {
        let mut tracker = Running::start(&["--bind", "127.0.0.1", "--port", "0"]);
        assert_eq!(tracker.line(), "[STARTING] Tracker is starting at 127.0.0.1:0");
        let listening = tracker.line();
        let port = listening.strip_prefix("[LISTENING] Tracker is listening on 127.0.0.1:");
        let port: u16 = port.unwrap_or_else(|| panic!("{listening}")).parse().unwrap();
        assert_ne!(port, 0);
        tracker.signal(Signal::USR1);
        tracker.signal(Signal::USR2);
        tracker.signal(signal);
        assert_eq!(tracker.end(), (Some(0), String::new()));
        let log = fs::read_to_string(tracker.dir.path().join("tracker_debug.log")).unwrap();
        assert!(log.contains("stopped") && log.contains("malformed=0"), "{log}");
    }
}

/// Trackers look for no others.
#[test]
fn every_event_of_the_page_is_printed_with_json() {
    let files = tempfile::tempdir().unwrap();
    let deny = files.path().join("deny");
    fs::write(&deny, "*.iso").unwrap();
    let args = ["--bind", "127.0.0.1", "-p", "0", "--json", "--http=:0", "--deny", deny.to_str().unwrap()];
    let mut tracker = Running::start(&args);
    let mut all = Vec::new();
    let mut next = |tracker: &Running| {
        let event = json_docs::check(&tracker.line());
        all.push(event.clone());
        event
    };
    let listening = next(&tracker)["address"].as_str().unwrap().to_owned();
    register(listening.rsplit(':').next().unwrap().parse().unwrap());
    while next(&tracker)["seeders"] != 1 {}
    for (list, event) in [("[broken", "warning"), ("02\n*.iso", "lists")] {
        fs::write(&deny, list.replace("02", &"02".repeat(32))).unwrap();
        tracker.signal(Signal::HUP);
        while next(&tracker)["event"] != event {}
    }
    let (code, out, err) = run(&["--json", "--check", &listening]);
    assert_eq!(code, Some(0), "{err}");
    let answers = json_docs::check(out.trim_end());
    assert_eq!(answers["tracker"], listening);
    tracker.signal(Signal::TERM);
    while next(&tracker)["event"] != "stopped" {}
    let (code, err) = tracker.end();
    assert!(code == Some(0) && err.contains("the old lists stay"), "{err}");
    let lists: Vec<_> = all.iter().filter(|event| event["event"] == "lists").collect();
    assert_eq!(lists.iter().map(|lists| &lists["denied"]).collect::<Vec<_>>(), [&1, &2]);
    all.push(answers);
    let (code, out, err) = run(&["--json", "--check", &listening]);
    assert_eq!((code, &json_docs::check(out.trim_end())["code"]), (Some(6), &6.into()), "{err}");
    let (code, out, err) = run(&["--json", "--expire", "10s", "--heartbeat", "10s"]);
    assert_eq!(code, Some(2), "{err}");
    all.push(json_docs::check(out.trim_end()));
    json_docs::assert_complete(&all, &["Tracker"], &[]);
    json_docs::assert_complete(&all, &["All programs"], &["tracker_found"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = socket.local_addr().unwrap().port().to_string();
    let (code, out, err) = run(&["--json", "--bind", "127.0.0.1", "-p", &taken]);
    assert_eq!((code, &json_docs::check(out.trim_end())["code"]), (Some(6), &6.into()), "{err}");
}

#[test]
fn on_a_terminal_a_line_says_what_it_knows_and_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = tracker(&["--bind", "127.0.0.1", "-p", "0"], dir.path());
    command.env("TERM", "xterm");
    let mut tracker = on_terminal::OnTerminal::start(command, 80);
    let listening = tracker.wait_for_line("[LISTENING]");
    tracker.wait_for_line("0 shares, 0 peers (0 seeders), 0.0 announces/s, 0.0 answers/s");
    register(listening.rsplit(':').next().unwrap().parse().unwrap());
    let screen = tracker.wait_for(|screen| {
        screen.last().is_some_and(|line| line.starts_with("1 share, 1 peer (1 seeder), "))
    });
    assert_eq!(screen.iter().filter(|line| line.contains("announces/s")).count(), 1, "{screen:#?}");
    tracker.signal(Signal::TERM);
    let screen = tracker.end();
    assert!(!screen.iter().any(|line| line.contains("announces/s")), "{screen:#?}");
}

#[test]
fn without_a_terminal_a_tracker_says_now_and_then_what_it_does_and_nothing_while_it_is_idle() {
    let mut tracker = Running::start(&["--bind", "127.0.0.1", "-p", "0"]);
    let port = tracker.port("127.0.0.1");
    let mut err = BufReader::new(tracker.child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let (said, saying) = mpsc::channel();
    thread::spawn(move || said.send(err.next()));
    let line = loop {
        register(port);
        match saying.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => break line.unwrap(),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert!(line.starts_with("1 share, 1 peer (1 seeder), "), "{line}");
}

#[test]
fn listens_on_every_address_by_default() {
    let tracker = Running::start(&["-p", "0"]);
    assert_eq!(tracker.line(), "[STARTING] Tracker is starting at [::]:0");
    let listening = tracker.line();
    let all = ["[::]:", "0.0.0.0:"].map(|all| format!("[LISTENING] Tracker is listening on {all}"));
    assert!(all.iter().any(|all| listening.starts_with(all)), "{listening}");
}

#[test]
fn a_receive_buffer_that_the_system_cuts_is_reported_if_it_was_asked_for() {
    let start = |args: &[&str]| {
        let mut tracker = Running::start(&[&["--bind", "127.0.0.1", "-p", "0"], args].concat());
        tracker.port("127.0.0.1");
        stop(&mut tracker)
    };
    assert_eq!(start(&["--receive-buffer", "16KiB"]), "");
    assert_eq!(start(&[]), "");
    // Hardly a system grants that.
    let most =
        fs::read_to_string("/proc/sys/net/core/rmem_max").ok().and_then(|most| most.trim().parse().ok());
    if most.is_some_and(|most: u64| most < 1 << 30) {
        let err = start(&["--receive-buffer", "1GiB"]);
        assert!(err.contains("not 1073741824") && err.contains("net.core.rmem_max"), "{err}");
    }
}

fn stop(tracker: &mut Running) -> String {
    tracker.signal(Signal::TERM);
    let (code, err) = tracker.end();
    assert_eq!(code, Some(0), "{err}");
    err
}

#[test]
fn registrations_are_logged_only_when_every_detail_is_asked_for() {
    for (verbose, logged) in [(None, false), (Some("-v"), false), (Some("-vv"), true)] {
        let args: Vec<_> = ["--bind", "127.0.0.1", "-p", "0"].into_iter().chain(verbose).collect();
        let mut tracker = Running::start(&args);
        register(tracker.port("127.0.0.1"));
        tracker.signal(Signal::TERM);
        let (code, err) = tracker.end();
        assert_eq!(code, Some(0), "{err}");
        let log = fs::read_to_string(tracker.dir.path().join("tracker_debug.log")).unwrap();
        for text in [&log, &err] {
            assert_eq!(
                text.contains("registered") && text.contains("data.bin"),
                logged,
                "{verbose:?}: {text}"
            );
        }
        assert!(log.contains("announces=1"), "{log}");
    }
}

#[test]
fn counts_garbage_and_logs_it_at_the_end() {
    let mut tracker = Running::start(&["--bind", "127.0.0.1", "-p", "0", "-v", "--no-log-file"]);
    let port = tracker.port("127.0.0.1");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket.send(b"garbage").unwrap();
    // When a connect is answered, everything before it has been handled.
    ask(&socket, RequestBody::CONNECT);
    tracker.signal(Signal::TERM);
    let (code, err) = tracker.end();
    assert_eq!(code, Some(0));
    assert!(err.contains("malformed=1") && err.contains("connects=1"), "{err}");
    assert_eq!(fs::read_dir(tracker.dir.path()).unwrap().count(), 0, "a log file in spite of --no-log-file");
}

#[test]
fn a_port_in_use_is_a_network_error_that_states_what_to_do() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for bind in [&["--bind", "127.0.0.1"][..], &[]] {
        let (code, out, err) = run(&[&["-p", &port], bind].concat());
        assert_eq!(code, Some(6), "{err}");
        assert!(out.starts_with("[STARTING] ") && !out.contains("[LISTENING]"), "{out}");
        assert!(err.contains(&format!("UDP port {port} is in use")), "{err}");
        assert!(err.contains("choose another port with -p"), "{err}");
    }
}

#[test]
fn an_address_of_another_machine_is_a_network_error_that_states_what_to_do() {
    // TEST-NET-3 (RFC 5737) belongs to nobody.
    let (code, _, err) = run(&["--bind", "203.0.113.1", "-p", "0"]);
    assert_eq!(code, Some(6), "{err}");
    assert!(err.contains("does not have the address 203.0.113.1") && err.contains("--bind"), "{err}");
}

#[test]
fn bad_flags_are_usage_errors() {
    let bad: [&[&str]; 20] = [
        &["--max-registrations", "0"],
        &["--max-shares", "-1"],
        &["--max-per-share", "many"],
        &["--max-per-address", "4294967296"],
        &["--max-per-address-and-share", "65536"],
        &["--rate", "0"],
        &["--byte-rate", "0"],
        &["--receive-buffer", "1TiB"],
        &["--check", "host:port"],
        &["--port", "65536"],
        &["--port", "-1"],
        &["--bind", "localhost:6020"],
        &["--sockets", "0"],
        &["--sockets", "17"],
        &["--heartbeat", "0"],
        &["--heartbeat", "90"],
        &["--expire", "30"],
        &["--heartbeat", "10", "--expire", "10s"],
        &["--no-such-flag"],
        &["surplus"],
    ];
    for args in bad {
        let (code, out, err) = run(args);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}: {err}");
        assert!(err.starts_with("error: ") && err.contains("try '--help'"), "{args:?}: {err}");
    }
}

#[test]
fn every_flag_can_be_set_by_environment() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = tracker(&[], dir.path());
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    command.envs([("SHOAL_BIND", "127.0.0.1"), ("SHOAL_PORT", &port), ("SHOAL_NO_LOG_FILE", "true")]);
    let output = output(command);
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(out.trim_end(), format!("[STARTING] Tracker is starting at 127.0.0.1:{port}"));
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    for (variable, value) in [
        ("SHOAL_HEARTBEAT", "90s"),
        ("SHOAL_EXPIRE", "half a minute"),
        ("SHOAL_SOCKETS", "0"),
        ("SHOAL_MAX_PER_SHARE", "0"),
        ("SHOAL_RECEIVE_BUFFER", "1"),
    ] {
        let mut command = tracker(&[], dir.path());
        command.env(variable, value);
        assert_eq!(self::output(command).status.code(), Some(2), "{variable}");
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    let (code, out, err) = run(&["--help"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    readme::assert_explains("tracker", &out);
    assert!(out.contains("[env: SHOAL_SOCKETS]") && out.contains("\nExamples:\n"), "{out}");
    let (code, out, err) = run(&["-h"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    readme::assert_fits_a_screen(&out);
    let (code, out, _) = run(&["--version"]);
    assert_eq!((code, out.trim_end()), (Some(0), concat!("tracker ", env!("CARGO_PKG_VERSION"))));
}
