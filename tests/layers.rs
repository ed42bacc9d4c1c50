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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Features {
    Default,
    None,
}

/// What only programs need.
const OF_PROGRAMS: [&str; 12] = [
    "axum",
    "clap",
    "console",
    "discovery",
    "hyper",
    "indicatif",
    "mdns-sd",
    "prometheus-client",
    "startup",
    "tracing-appender",
    "tracing-subscriber",
    "web",
];

/// What the program of the seeder alone uses.
const OF_SEEDER: [&str; 1] = ["notify"];

/// The packages that `package` links with these features, itself included.
fn linked(package: &str, features: Features) -> BTreeSet<String> {
    let arguments =
        ["tree", "--frozen", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--package"];
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .arg(package)
        .args((features == Features::None).then_some("--no-default-features"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// Those of `names` that `package` links with its default features.
fn found(package: &str, names: &[&'static str]) -> Vec<&'static str> {
    found_with(Features::Default, package, names)
}

fn found_with(features: Features, package: &str, names: &[&'static str]) -> Vec<&'static str> {
    let linked = linked(package, features);
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
        ("discovery", &["store", "swarm", "peer", "seeder", "leecher", "tracker", "startup"]),
        ("seeder", &["leecher", "tracker"]),
        ("leecher", &["seeder", "tracker"]),
        ("tracker", &["swarm", "store", "peer", "seeder", "leecher"]),
        ("sim", &["store", "peer", "seeder", "leecher"]),
    ] {
        assert_eq!(found(package, above), [""; 0], "{package} uses what is above it");
    }
}

#[test]
fn no_library_links_what_only_programs_need() {
    for library in ["listen", "proto", "store", "swarm", "peer", "sim", "shoal"] {
        assert_eq!(found(library, &OF_PROGRAMS), [""; 0], "{library}");
        assert_eq!(found(library, &OF_SEEDER), [""; 0], "{library}");
    }
    for program in ["tracker", "seeder", "leecher"] {
        assert_eq!(found(program, &OF_PROGRAMS), OF_PROGRAMS, "{program} is a program by default");
        assert_eq!(found_with(Features::None, program, &OF_PROGRAMS), [""; 0], "the library of {program}");
    }
    assert_eq!(found("seeder", &OF_SEEDER), OF_SEEDER);
    assert_eq!(found_with(Features::None, "seeder", &OF_SEEDER), [""; 0], "the library of seeder");
    assert_eq!(found("shoal", &["tracker", "seeder", "leecher"]), ["tracker", "seeder", "leecher"]);
}
