//! Which crate may use which: the map in `docs/architecture.md`, held against what cargo links.

use std::{collections::BTreeSet, env, process::Command};

/// Crates that are a runtime, a channel of one, or a way to a socket.
const WITH_IO: [&str; 14] = [
    "async-channel",
    "async-io",
    "async-std",
    "crossbeam-channel",
    "flume",
    "futures",
    "futures-util",
    "mio",
    "nix",
    "rustix",
    "smol",
    "socket2",
    "tokio",
    "tokio-util",
];

/// The packages that the library and the programs of `package` link, itself included.
fn linked(package: &str) -> BTreeSet<String> {
    let arguments =
        ["tree", "--frozen", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--package"];
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .arg(package)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// Those of `names` that `package` links.
fn found(package: &str, names: &[&'static str]) -> Vec<&'static str> {
    let linked = linked(package);
    assert!(linked.contains(package), "{package} links {linked:?}");
    names.iter().copied().filter(|&name| linked.contains(name)).collect()
}

#[test]
fn what_decides_reaches_no_runtime_and_no_socket() {
    assert_eq!(found("swarm", &WITH_IO), [""; 0]);
    assert!(found("peer", &WITH_IO).contains(&"tokio"), "the same look finds it where it is");
}

#[test]
fn no_crate_uses_one_above_it() {
    for (package, above) in [
        ("listen", &["proto", "store", "swarm", "peer", "seeder", "leecher", "tracker", "startup"][..]),
        ("store", &["swarm", "peer", "seeder", "leecher", "tracker", "startup"]),
        ("swarm", &["store", "peer", "seeder", "leecher", "tracker", "startup"]),
        ("peer", &["seeder", "leecher", "tracker", "startup"]),
        ("seeder", &["leecher", "tracker"]),
        ("leecher", &["seeder", "tracker"]),
        ("tracker", &["swarm", "store", "peer", "seeder", "leecher"]),
        ("sim", &["store", "peer", "seeder", "leecher"]),
    ] {
        assert_eq!(found(package, above), [""; 0], "{package} uses what is above it");
    }
}

#[test]
fn the_library_links_nothing_of_a_command_line() {
    const OF_PROGRAMS: [&str; 6] =
        ["clap", "console", "indicatif", "startup", "tracing-appender", "tracing-subscriber"];
    assert_eq!(found("shoal", &OF_PROGRAMS), [""; 0]);
    for program in ["seeder", "leecher"] {
        assert_eq!(
            found(program, &OF_PROGRAMS),
            OF_PROGRAMS,
            "{program} is a program unless it is told otherwise"
        );
    }
    assert_eq!(found("shoal", &["seeder", "leecher"]), ["seeder", "leecher"]);
}
