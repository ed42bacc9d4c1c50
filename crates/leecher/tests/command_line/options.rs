//! Flags, their environment variables, and the debug log.

use std::fs;

use store::Content;

use crate::{
    leecher,
    network::Network,
    program::{Place, run},
    readme::{assert_explains, assert_fits_a_screen},
};

#[test]
fn bad_flags_are_usage_errors() {
    let place = Place::new();
    let bad: [&[&str]; 15] = [
        &["-f", "a", "b"],
        &["--list", "-f", "a"],
        &["--list", "--sort", "age"],
        &["--log-format", "xml"],
        &["-o", "a", "-d", "b"],
        &["--json", "-q"],
        &["--tracker", "a b"],
        &["--tracker", "host:0"],
        &["--peer", "127.0.0.1"],
        &["--timeout", "0"],
        &["--max-peers", "0"],
        &["--max-peers", "1001"],
        &["-f", "a/b"],
        &["--no-log-file", "--log-file", "x"],
        &["--no-such-flag"],
    ];
    for args in bad {
        let ended = run(leecher(&place, args));
        ended.assert_failed(2, &["try '--help'"]);
        assert_eq!(ended.out.is_empty(), !args.contains(&"--json"), "{args:?}: {ended:?}");
    }
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn several_shares_cannot_be_saved_at_one_path() {
    let place = Place::new();
    let ended = run(leecher(&place, &["a.bin", "b.bin", "-o", "saved"]));
    ended.assert_failed(2, &["-o names one file, and there are 2 shares to save", "-d DIR"]);
}

#[test]
fn flags_that_exclude_each_other_are_named_as_they_are_typed() {
    let place = Place::new();
    for (args, says) in [
        (&["--seed", "--seed-for", "1m"][..], "'--seed' and '--seed-for' cannot be used together"),
        (&["--list", "-f", "data.bin"], "'--list' and '--file' cannot be used together"),
        (&["--json", "-q"], "'--json' and '--quiet' cannot be used together"),
        (&["--timeout", "soon"], "write a time as in 90, 90s, 10m or 2h"),
        (&["--peer", "127.0.0.1"], "'127.0.0.1' has no port: write it as HOST:PORT"),
    ] {
        run(leecher(&place, args)).assert_failed(2, &[says]);
    }
}

#[test]
fn every_flag_can_be_set_by_environment() {
    let (place, network) = (Place::new(), Network::start());
    let shared = network.file("data.bin", b"12345");
    let peer = format!("127.0.0.1:{}", network.seed(shared.clone()));
    fs::create_dir(place.path("sub")).unwrap();
    fs::write(place.path("out"), b"old").unwrap();
    let (tracker, infohash) = (network.tracker(), shared.metainfo().infohash().to_string());
    let run = |variables: &[(&str, &str)]| {
        let mut command = leecher(&place, &[]);
        command.env("SHOAL_NO_LOG_FILE", "true").envs(variables.iter().copied());
        run(command)
    };
    let by_tracker = run(&[
        ("SHOAL_TRACKER", &tracker),
        ("SHOAL_TARGET", "data.bin"),
        ("SHOAL_OUTPUT", "out"),
        ("SHOAL_OVERWRITE", "true"),
        ("SHOAL_QUIET", "true"),
        ("SHOAL_MAX_PEERS", "1"),
        ("SHOAL_TIMEOUT", "1m"),
    ]);
    assert_eq!((by_tracker.code, &by_tracker.out[..]), (Some(0), &[][..]), "{by_tracker:?}");
    let by_peer = run(&[
        ("SHOAL_PEER", &peer),
        ("SHOAL_TARGET", &infohash),
        ("SHOAL_DIR", "sub"),
        ("SHOAL_JSON", "true"),
    ]);
    assert!(by_peer.code == Some(0) && by_peer.out[0].starts_with('{'), "{by_peer:?}");
    for path in ["out", "sub/leeched_data.bin"] {
        assert_eq!(fs::read(place.path(path)).unwrap(), b"12345");
    }
    assert_eq!(place.names(), ["out", "sub"]);
    for (variable, value) in [("SHOAL_MAX_PEERS", "0"), ("SHOAL_TIMEOUT", "x"), ("SHOAL_TARGET", "a/b")] {
        let ended = run(&[(variable, value)]);
        ended.assert_failed(2, &[&format!("The value comes from the environment variable {variable}.")]);
    }
}

#[test]
fn a_flag_is_set_and_left_unset_in_the_usual_words() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("data.bin", b"12345"));
    for (word, quiet) in [("1", true), ("yes", true), ("0", false), ("no", false), ("", false)] {
        let mut command = leecher(&place, &["--overwrite", "--tracker", &network.tracker()]);
        command.env("SHOAL_QUIET", word);
        let ended = run(command);
        assert_eq!((ended.code, ended.out.is_empty()), (Some(0), quiet), "'{word}': {ended:?}");
    }
}

#[test]
fn what_is_asked_for_wins_over_the_environment() {
    let (place, network) = (Place::new(), Network::start());
    network.seed(network.file("data.bin", b"12345"));
    for (variable, value, args) in [
        ("SHOAL_TARGET", "data.bin", &["--list"][..]),
        ("SHOAL_TARGET", "other", &["-f", "data.bin"]),
        ("SHOAL_DIR", "elsewhere", &["-o", "a"]),
        ("SHOAL_OUTPUT", "elsewhere", &["-d", "."]),
        ("SHOAL_QUIET", "true", &["--json", "-o", "b"]),
    ] {
        let mut command = leecher(&place, &[args, &["--tracker", &network.tracker()]].concat());
        command.env(variable, value);
        let ended = run(command);
        assert_eq!(ended.code, Some(0), "{variable} {args:?}: {ended:?}");
        let _ = fs::remove_file(place.path("leeched_data.bin"));
    }
}

#[test]
fn the_debug_log_is_where_the_user_wants_it() {
    let network = Network::start();
    network.seed(network.file("data.bin", b"12345"));
    let tracker = network.tracker();
    for (args, log) in [
        (&[][..], Some("leecher_debug.log")),
        (&["--log-file", "my.log"], Some("my.log")),
        (&["--no-log-file"], None),
    ] {
        let place = Place::new();
        let ended = run(leecher(&place, &[args, &["-o", "a", "--tracker", &tracker]].concat()));
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
        let names: Vec<_> = ["a"].into_iter().chain(log).collect();
        assert_eq!(place.names(), names);
        if let Some(log) = log {
            let log = fs::read_to_string(place.path(log)).unwrap();
            assert!(log.contains("DEBUG") && log.contains("connects to a peer"), "{log}");
        }
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    let place = Place::new();
    let help = run(leecher(&place, &["--help"]));
    assert_eq!((help.code, help.err.as_str()), (Some(0), ""));
    let help = help.out.join("\n");
    assert_explains("leecher", &help);
    assert!(help.contains("[env: SHOAL_UPLOAD_LIMIT]") && help.contains("\nExamples:\n"), "{help}");
    let summary = run(leecher(&place, &["-h"]));
    assert_eq!((summary.code, summary.err.as_str()), (Some(0), ""));
    assert_fits_a_screen(&summary.out.join("\n"));
    let version = run(leecher(&place, &["--version"]));
    assert_eq!(version.out, [concat!("leecher ", env!("CARGO_PKG_VERSION"))]);
}
