//! A full disk, on a small file system of the test's own.

use std::{
    fs,
    io::Write,
    process::Command,
    sync::{Arc, Mutex},
};

use crate::{
    content::{Gated, bytes},
    network::Network,
    program::{Place, run},
};

/// Runs its arguments, and then prints to stderr what they left.
const ONCE: &str = r#"
"$@"
code=$?
echo "left: $(ls -A)" >&2
exit $code
"#;

/// Runs its arguments and fills the disk when they have stored twelve chunks; and once more when there is room again.
const FULL_MEANWHILE: &str = r#"
"$@" &
until [ "$(stat -c %b leeched_file.part 2>/dev/null || echo 0)" -ge 3072 ]; do :; done
cat /dev/zero >filler 2>/dev/null
touch ../full
wait $!
echo "full: $? $(ls -A)" >&2
rm filler
"$@"
code=$?
echo "left: $(ls -A)" >&2
exit $code
"#;

/// A shell with a small file system in `disk`. Its mounts are its own, so that nothing of them outlives it.
fn on_a_small_disk(place: &Place, mib: u32, script: &str, args: &[&str]) -> Command {
    let script = format!("mount -t tmpfs -o size={mib}m small disk && cd disk || exit 99\n{script}");
    let mut command = place.command("unshare", &["--mount", "sh", "-c", &script, "sh"]);
    command.args(args).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// A place with room for a small disk, if this machine lets tests have one.
fn place_with_disk() -> Option<Place> {
    let place = Place::new();
    fs::create_dir(place.path("disk")).unwrap();
    match on_a_small_disk(&place, 1, ONCE, &["true"]).output() {
        Ok(output) if output.status.success() => Some(place),
        refused => {
            // Not `eprintln!`, which the test harness keeps to itself.
            let _ = writeln!(
                std::io::stderr(),
                "\nSKIPPED, NOT TESTED: a full disk needs a mount of its own, as root may make it: {refused:?}\n"
            );
            None
        }
    }
}

#[test]
fn a_share_larger_than_the_disk_is_refused_at_once_and_leaves_nothing() {
    let Some(place) = place_with_disk() else { return };
    let (network, big) = (Network::start(), bytes(12));
    network.seed(network.file("file", &big));
    network.seed(network.directory("tree", &[("a", b"a"), ("sub/b", &big)]));
    for name in ["file", "tree"] {
        let leecher = env!("CARGO_BIN_EXE_leecher");
        let args = [leecher, name, "--tracker", &network.tracker(), "--no-log-file"];
        let ended = run(on_a_small_disk(&place, 1, ONCE, &args));
        ended.assert_failed(9, &[&format!("leeched_{name}"), "free", "free some disk space", "-o"]);
        assert!(ended.err.ends_with("left: "), "{}", ended.err);
    }
}

/// The disk is full to the last byte when the leecher saves how far it is.
#[test]
fn what_came_before_the_disk_was_full_is_kept() {
    let Some(place) = place_with_disk() else { return };
    let network = Network::start();
    let content = Gated {
        shared: network.file("file", &bytes(24)),
        before: 12,
        passed: Mutex::default(),
        gate: place.path("full"),
    };
    network.seed(Arc::new(content));
    let leecher = env!("CARGO_BIN_EXE_leecher");
    let args = [leecher, "file", "--tracker", &network.tracker(), "--no-log-file"];
    let ended = run(on_a_small_disk(&place, 4, FULL_MEANWHILE, &args));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for said in [
        "full: 9 filler\nleeched_file.part\nleeched_file.resume",
        "free some disk space, then run the same command again to continue; what has arrived is kept",
        "left: leeched_file",
    ] {
        assert!(ended.err.contains(said), "{}", ended.err);
    }
    let resumed = ended.out.iter().find(|line| line.contains("from an earlier run"));
    assert!(resumed.is_some_and(|line| line.contains("1.50 MiB")), "{ended:?}");
}
