//! Flags, their environment variables, and the debug log.

use std::fs;

use rustix::process::Signal;

use crate::{
    program::{Place, Running, run},
    readme::{assert_explains, assert_fits_a_screen},
    seeder,
    sharing::described,
    tracking::Tracking,
};

#[test]
fn bad_flags_are_usage_errors() {
    let place = Place::new();
    fs::write(place.path("data.bin"), b"x").unwrap();
    let bad: [&[&str]; 11] = [
        &["other", "-f", "data.bin"],
        &[""],
        &["-f", ""],
        &["-f", "data.bin", "-p", "65536"],
        &["-f", "data.bin", "-p", "ten"],
        &["-f", "data.bin", "--tracker", "a b"],
        &["-f", "data.bin", "--tracker", "host:0"],
        &["-f", "data.bin", "--tracker", "http://host:1"],
        &["-f", "data.bin", "--name", "a/b"],
        &["-f", "data.bin", "--max-peers", "0"],
        &["-f", "data.bin", "--no-such-flag"],
    ];
    for args in bad {
        let ended = run(seeder(&place, args));
        ended.assert_failed(2, &["try '--help'"]);
        assert!(ended.out.is_empty(), "{args:?}: {ended:?}");
    }
    let ended = run(seeder(&place, &["-f", "data.bin", "-f", "other", "--name", "x"]));
    ended.assert_failed(2, &["--name names one share", "start one seeder for each"]);
    run(seeder(&place, &["other", "-f", "data.bin"]))
        .assert_failed(2, &["'other' and '--file' cannot be used together"]);
    run(seeder(&place, &["a\u{202e}b", "-f", "x"])).assert_failed(2, &[r"'a\u{202e}b'"]);
}

#[test]
fn every_flag_can_be_set_by_environment() {
    let (place, tracker) = (Place::new(), Tracking::start());
    fs::write(place.path("data.bin"), b"12345").unwrap();
    let mut command = place.command(env!("CARGO_BIN_EXE_seeder"), &[]);
    command.envs([
        ("SHOAL_FILE", "data.bin"),
        ("SHOAL_PORT", "0"),
        ("SHOAL_BIND", "127.0.0.1"),
        ("SHOAL_TRACKER", &tracker.address()),
        ("SHOAL_NAME", "other"),
        ("SHOAL_MAX_PEERS", "3"),
        ("SHOAL_CACHE_DIR", "hashes"),
        ("SHOAL_LOG_FILE", "log"),
        ("SHOAL_VERBOSE", "1"),
    ]);
    let seeder = Running::start(command);
    assert_eq!(described(&seeder, "data.bin").name, "other");
    seeder.line_with(&tracker.address());
    seeder.signal(Signal::TERM);
    let ended = seeder.end();
    assert!(ended.err.contains("INFO"), "{ended:?}");
    assert_eq!(place.names(), ["data.bin", "hashes", "log"]);
    for (variable, value) in [("SHOAL_PORT", "65536"), ("SHOAL_MAX_PEERS", "0"), ("SHOAL_NAME", "a/b")] {
        let mut command = place.command(env!("CARGO_BIN_EXE_seeder"), &["-f", "data.bin"]);
        command.env(variable, value);
        assert_eq!(run(command).code, Some(2), "{variable}");
    }
}

#[test]
fn the_debug_log_is_where_the_user_wants_it() {
    for (args, names) in [
        (&[][..], &["data.bin", "seeder_debug.log"][..]),
        (&["--log-file", "my.log"], &["data.bin", "my.log"]),
        (&["--no-log-file"], &["data.bin"]),
    ] {
        let (place, tracker) = (Place::new(), Tracking::start());
        fs::write(place.path("data.bin"), b"12345").unwrap();
        let address = tracker.address();
        let args = [&["-f", "data.bin", "--tracker", &address], args].concat();
        let seeder = Running::start(seeder(&place, &args));
        seeder.line_with("Registered");
        seeder.signal(Signal::TERM);
        assert_eq!(seeder.end().err, "");
        assert_eq!(place.names(), names);
        if let Some(log) = names.get(1) {
            let log = fs::read_to_string(place.path(log)).unwrap();
            assert!(log.contains("DEBUG") && log.contains("deregistered"), "{log}");
        }
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    let place = Place::new();
    let help = run(seeder(&place, &["--help"]));
    assert_eq!((help.code, help.err.as_str()), (Some(0), ""));
    let help = help.out.join("\n");
    assert_explains("seeder", &help);
    assert!(help.contains("[env: SHOAL_UPLOAD_LIMIT]") && help.contains("\nExamples:\n"), "{help}");
    let summary = run(seeder(&place, &["-h"]));
    assert_eq!((summary.code, summary.err.as_str()), (Some(0), ""));
    assert_fits_a_screen(&summary.out.join("\n"));
    let version = run(seeder(&place, &["--version"]));
    assert_eq!(version.out, [concat!("seeder ", env!("CARGO_PKG_VERSION"))]);
    assert_eq!(place.names(), [""; 0]);
}
