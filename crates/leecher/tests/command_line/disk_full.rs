//! A full disk, on a small file system of the test's own.

use std::{fs, io::Write, process::Command};

use crate::{
    content::bytes,
    network::Network,
    program::{Place, run},
};

/// Runs its arguments on a file system of 1 MiB, and then tells on stderr what they left there.
const ON_A_SMALL_DISK: &str = r#"
mount -t tmpfs -o size=1m small disk && cd disk || exit 99
"$@"
code=$?
echo "left: $(ls -A)" >&2
exit $code
"#;

/// A shell with mounts of its own, so that nothing of them outlives it.
fn on_a_small_disk(place: &Place, args: &[&str]) -> Command {
    let mut command = place.command("unshare", &["--mount", "sh", "-c", ON_A_SMALL_DISK, "sh"]);
    command.args(args).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

fn may_mount(place: &Place) -> bool {
    match on_a_small_disk(place, &["true"]).output() {
        Ok(output) if output.status.success() => true,
        refused => {
            // Not `eprintln!`, which the test harness keeps to itself.
            let _ = writeln!(std::io::stderr(), "SKIPPED: a full disk needs a mount of its own: {refused:?}");
            false
        }
    }
}

#[test]
fn a_share_larger_than_the_disk_is_refused_at_once_and_leaves_nothing() {
    let (place, network) = (Place::new(), Network::start());
    fs::create_dir(place.path("disk")).unwrap();
    if !may_mount(&place) {
        return;
    }
    let big = bytes(3);
    network.seed(network.file("file", &big));
    network.seed(network.directory("tree", &[("a", b"a"), ("sub/b", &big)]));
    for name in ["file", "tree"] {
        let leecher = env!("CARGO_BIN_EXE_leecher");
        let args = [leecher, name, "--tracker", &network.tracker(), "--no-log-file"];
        let ended = run(on_a_small_disk(&place, &args));
        ended.assert_failed(9, &[&format!("leeched_{name}"), "free", "make room", "-o"]);
        assert!(ended.err.ends_with("left: "), "{}", ended.err);
    }
}
