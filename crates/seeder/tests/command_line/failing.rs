//! What goes wrong at the start: exit codes, and messages that say what, to what, and what to do.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, net::UnixListener},
};

use crate::{
    program::{Place, Running, run},
    seeder,
};

const CHECK_PATH: &str = "check the path and its read permission";

#[test]
fn a_missing_file_is_named() {
    let place = Place::new();
    run(seeder(&place, &["-f", "no such.bin"])).assert_failed(17, &["no such.bin: No such file", CHECK_PATH]);
    assert_eq!(place.names(), ["seeder_debug.log"]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let place = Place::new();
    fs::write(place.path("plain"), b"x").unwrap();
    run(seeder(&place, &["-f", "plain/x"])).assert_failed(17, &["plain/x: Not a directory", CHECK_PATH]);

    if rustix::process::geteuid().is_root() {
        // Not `eprintln!`, which the test harness keeps to itself.
        let _ =
            writeln!(std::io::stderr(), "SKIPPED: permissions of a file, because root may read everything");
        return;
    }
    fs::set_permissions(place.path("plain"), fs::Permissions::from_mode(0o000)).unwrap();
    run(seeder(&place, &["-f", "plain"])).assert_failed(17, &["plain: Permission denied", CHECK_PATH]);
}

#[test]
fn what_is_neither_file_nor_directory_is_named() {
    let place = Place::new();
    let _socket = UnixListener::bind(place.path("socket")).unwrap();
    for path in ["socket", "/dev/null"] {
        run(seeder(&place, &["-f", path])).assert_failed(17, &[path, "neither a file nor a directory"]);
    }
}

#[test]
fn what_is_in_the_way_of_strictness_and_a_malformed_pattern_are_named() {
    let place = Place::new();
    fs::create_dir(place.path("tree")).unwrap();
    let _socket = UnixListener::bind(place.path("tree/socket")).unwrap();
    run(seeder(&place, &["-f", "tree", "--strict"])).assert_failed(17, &["tree/socket", "a socket"]);
    let ended = run(seeder(&place, &["-f", "tree", "--exclude", "[a"]));
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("--exclude") && ended.err.contains("[a"), "{}", ended.err);
}

#[test]
fn a_name_that_cannot_be_shared_is_shown_without_its_control_characters() {
    let place = Place::new();
    fs::create_dir(place.path("tree")).unwrap();
    fs::write(place.path("tree/\x1b[2Jname"), b"x").unwrap();
    let ended = run(seeder(&place, &["-f", "tree"]));
    ended.assert_failed(17, &["[2Jname", "control character"]);
    assert!(!ended.err.contains('\x1b'), "{:?}", ended.err);
}

#[test]
fn a_name_that_is_not_utf_8_is_named() {
    let place = Place::new();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::write(place.dir().join(name), b"x").unwrap();
    let mut command = seeder(&place, &["-f"]);
    command.arg(name);
    run(command).assert_failed(17, &["caf", "not UTF-8"]);
}

#[test]
fn a_port_in_use_is_known_before_anything_is_hashed() {
    let place = Place::new();
    // Takes no room, and much longer to hash than this test runs.
    fs::File::create(place.path("huge")).unwrap().set_len(1 << 40).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = run(seeder(&place, &["-f", "huge", "-p", &port]));
    ended.assert_failed(6, &[&format!("TCP port {port} is in use"), "choose another port with -p"]);
    assert!(ended.out.is_empty() && !ended.err.contains("Hashing"), "{ended:?}");
}

#[test]
fn a_missing_file_is_known_before_another_is_hashed() {
    let place = Place::new();
    fs::File::create(place.path("huge")).unwrap().set_len(1 << 40).unwrap();
    let seeder = Running::start(seeder(&place, &["-f", "huge", "-f", "missing"]));
    let first = seeder.err_line();
    assert!(first.contains("missing: No such file"), "{first}");
    assert_eq!(seeder.end().code, Some(17));
}

#[test]
fn an_address_of_another_machine_is_a_network_error() {
    let place = Place::new();
    fs::write(place.path("data.bin"), b"x").unwrap();
    // TEST-NET-3 (RFC 5737): nobody's.
    let ended = run(seeder(&place, &["-f", "data.bin", "--bind", "203.0.113.1"]));
    ended.assert_failed(6, &["does not have the address 203.0.113.1", "--bind"]);
}

#[test]
fn a_log_file_that_cannot_be_written_is_named() {
    let place = Place::new();
    fs::write(place.path("data.bin"), b"x").unwrap();
    let ended = run(seeder(&place, &["-f", "data.bin", "--log-file", "no/such/dir.log"]));
    ended.assert_failed(17, &["no/such/dir.log", "--no-log-file"]);
}
