//! `--watch`.

use std::{fs, os::unix::fs::symlink};

use rustix::process::Signal;

use crate::{
    json_docs::check,
    program::{Place, Running, run, until},
    seeder,
    tracking::Tracking,
};

#[test]
fn the_entries_of_a_directory_are_registered_while_they_are_there() {
    let (place, tracking) = (Place::new(), Tracking::start());
    fs::create_dir(place.path("images")).unwrap();
    fs::write(place.path("images/early"), "early").unwrap();
    let args = ["--watch", "images", "--tracker", &tracking.address(), "--exclude", "*.log"];
    let seeder = Running::start(seeder(&place, &args));
    let line = seeder.line();
    assert!(line.starts_with("Watching 'images' on port "), "{line}");
    seeder.line_with("Sharing 'images/early' (5 B)");
    let link: proto::Link = seeder.line_with("  link ").trim_start_matches("  link").trim().parse().unwrap();
    seeder.line_with("Registered 'early' with tracker");
    assert_eq!(tracking.seeder_ports(link.infohash).len(), 1);
    // In one step, as the docs advise.
    fs::write(place.path("new"), "new").unwrap();
    fs::write(place.path("images/x.log"), "left out").unwrap();
    fs::rename(place.path("new"), place.path("images/new")).unwrap();
    seeder.line_with("Registered 'new' with tracker");
    fs::remove_file(place.path("images/early")).unwrap();
    seeder.line_with(&format!("'images/early' changed or is gone: {} is no longer shared", link.infohash));
    // The registration ends after that.
    until("the registration ends", || tracking.seeder_ports(link.infohash).is_empty().then_some(()));
    seeder.signal(Signal::TERM);
    let ended = seeder.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.out.iter().any(|line| line.contains("x.log")), "{ended:?}");
}

#[test]
fn a_program_reads_what_happens_to_the_entries() {
    let (place, tracking) = (Place::new(), Tracking::start());
    fs::create_dir(place.path("images")).unwrap();
    fs::write(place.path("images/early"), "early").unwrap();
    let args = ["--watch", "images", "--tracker", &tracking.address(), "--json", "--http=:0"];
    let seeder = Running::start(seeder(&place, &args));
    let event = |name: &str| {
        until(name, || {
            let event = check(&seeder.line());
            (event["event"] == name).then_some(event)
        })
    };
    event("listening");
    event("http");
    let shared = event("shared");
    assert_eq!(shared["name"], "early");
    let registered = event("registered");
    assert_eq!((&registered["name"], &registered["infohash"]), (&shared["name"], &shared["infohash"]));
    // Not everything in a directory can be shared.
    symlink("/nowhere", place.path("images/link")).unwrap();
    let warning = event("warning");
    assert_eq!(warning["kind"], "not_shared");
    assert!(warning["message"].as_str().unwrap().starts_with("'images/link' is not shared: "), "{warning}");
    fs::remove_file(place.path("images/early")).unwrap();
    let withdrawn = event("withdrawn");
    assert_eq!((&withdrawn["name"], &withdrawn["infohash"]), (&shared["name"], &shared["infohash"]));
    seeder.signal(Signal::TERM);
    let ended = seeder.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let rest: Vec<_> = ended.out.iter().map(|line| check(line)).collect();
    assert_eq!(rest.last().unwrap()["event"], "left", "{ended:?}");
}

#[test]
fn only_a_directory_can_be_watched_and_nothing_else_beside_it() {
    let place = Place::new();
    fs::write(place.path("file"), "x").unwrap();
    run(seeder(&place, &["--watch", "file"])).assert_failed(2, &["cannot watch file: it is not a directory"]);
    run(seeder(&place, &["--watch", "none"])).assert_failed(17, &["cannot watch none: "]);
    for other in [&["file"][..], &["-f", "file"], &["--name", "x"]] {
        run(seeder(&place, &[&["--watch", "."], other].concat()))
            .assert_failed(2, &["cannot be used together"]);
    }
}
