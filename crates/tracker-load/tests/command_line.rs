//! The `tracker-load` program against a tracker and against its own echo.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
};

use tokio_util::sync::CancellationToken;
use tracker::{Config, Tracker};

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracker-load"));
    command.arg("--no-log-file").args(args).env_clear().stdin(Stdio::null());
    command
}

/// The figures of a run on a tracker in this process.
async fn figures(args: &[&str]) -> serde_json::Value {
    let config = Config { bind: Some([127, 0, 0, 1].into()), port: 0, ..Config::default() };
    let tracker = Tracker::bind(config).await.unwrap();
    let address = tracker.local_addr().to_string();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(tracker.run(shutdown.clone()));
    let mut command = program(&[args, &["--tracker", &address, "--json"]].concat());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    shutdown.cancel();
    task.await.unwrap().unwrap();
    figures_of(&output)
}

fn figures_of(output: &Output) -> serde_json::Value {
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn count(figures: &serde_json::Value, name: &str) -> u64 {
    figures[name].as_u64().unwrap_or_else(|| panic!("{name} in {figures}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn asks_a_tracker_everything_and_is_answered() {
    let args =
        ["run", "--seconds", "1", "--warm-up", "0", "--rate", "2000", "--peers", "50", "--shares", "5"];
    let figures = figures(&[&args[..], &["--mix", "1:1:1:1"]].concat()).await;
    for kind in ["connect", "announce", "lookup", "search", "responses_per_s", "p999_us"] {
        assert!(count(&figures, kind) > 0, "{kind}: {figures}");
    }
    for fault in ["refused", "token_refused", "strange"] {
        assert_eq!(count(&figures, fault), 0, "{fault}: {figures}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn registers_every_peer_from_many_addresses() {
    let pid = std::process::id().to_string();
    let args = ["register", "--shares", "20", "--peers-per-share", "15", "--addresses", "100", "--pid", &pid];
    let figures = figures(&args).await;
    assert_eq!((count(&figures, "peers"), count(&figures, "addresses")), (300, 100));
    assert!(figures["bytes_per_peer"].is_number());
}

/// An echo that is killed when the test is done with it.
struct Echo(Child);

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn measures_its_echo() {
    let mut echo = Echo(program(&["echo"]).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(echo.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("[LISTENING] Echo is listening on ").unwrap();
    let args =
        ["run", "--protocol", "echo", "--seconds", "1", "--warm-up", "0", "--json", "--tracker", address];
    let figures = figures_of(&program(&args).output().unwrap());
    assert!(count(&figures, "announce") > 0 && count(&figures, "strange") == 0, "{figures}");
}

#[test]
fn leaves_other_machines_alone_without_remote() {
    // TEST-NET-3 (RFC 5737) belongs to nobody.
    for (args, said) in [
        (&["--tracker", "203.0.113.1"][..], "--remote"),
        (&["--tracker", "203.0.113.1", "--remote", "--rate", "1000000"], "at most 50000"),
        (&["--tracker", "203.0.113.1", "--remote", "--addresses", "5"], "of this machine only"),
    ] {
        let output = program(&[&["run"], args].concat()).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{err}");
        assert!(err.contains(said), "{err}");
    }
}

#[test]
fn bad_flags_are_usage_errors_and_help_is_not() {
    for args in [
        &["run", "--mix", "1:2:3"][..],
        &["run", "--mix", "0:0:0:0"],
        &["run", "--seconds", "0"],
        &["walk"],
        &[],
    ] {
        let output = program(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    for (command, flags) in [
        ("run", &["--tracker", "--remote", "--rate", "--mix", "--want", "--keep"][..]),
        ("register", &["--shares", "--peers-per-share", "--addresses", "--pid"]),
        ("expiry", &["--expire", "--questions"]),
        ("echo", &["--port"]),
        ("infohashes", &["--seed"]),
    ] {
        let output = program(&[command, "--help"]).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(flags.iter().all(|flag| help.contains(flag)), "{command}: {help}");
    }
}
