//! `--watch`.

use std::fs;

use rustix::process::Signal;

use crate::{
    program::{Place, Running, run},
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
    while !tracking.seeder_ports(link.infohash).is_empty() {}
    seeder.signal(Signal::TERM);
    let ended = seeder.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.out.iter().any(|line| line.contains("x.log")), "{ended:?}");
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
