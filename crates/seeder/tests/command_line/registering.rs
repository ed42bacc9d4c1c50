//! Registration with trackers, and how a seeder stops.

use std::fs;

use rustix::process::Signal;

use crate::{
    program::{Place, Running},
    seeder,
    sharing::described,
    tracking::Tracking,
};

#[test]
fn registers_and_ends_the_registration_on_sigterm_and_ctrl_c() {
    let tracker = Tracking::start();
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        fs::write(place.path("data.bin"), b"12345").unwrap();
        let seeder = Running::start(seeder(&place, &["-f", "data.bin", "--tracker", &tracker.address()]));
        let described = described(&seeder, "data.bin");
        seeder.line_with("Registered 'data.bin'");
        assert_eq!(tracker.seeder_ports(described.link.infohash), [described.port]);
        seeder.signal(signal);
        let ended = seeder.end();
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
        assert_eq!(ended.out, ["Seeder stopped after sending 0 B"]);
        assert_eq!(tracker.seeder_ports(described.link.infohash), []);
    }
}

#[test]
fn registers_with_every_tracker_that_it_is_given() {
    let (place, trackers) = (Place::new(), [Tracking::start(), Tracking::start(), Tracking::start()]);
    fs::write(place.path("data.bin"), b"12345").unwrap();
    let [first, second, third] = trackers.each_ref().map(Tracking::address);
    let (both, third) = (format!("{first},{second}"), format!("shoal://{third}"));
    let seeder = Running::start(seeder(&place, &["-f", "data.bin", "--tracker", &both, "--tracker", &third]));
    let described = described(&seeder, "data.bin");
    assert_eq!(described.link.trackers.len(), trackers.len());
    for _ in &trackers {
        seeder.line_with("Registered 'data.bin'");
    }
    for tracker in &trackers {
        assert_eq!(tracker.seeder_ports(described.link.infohash), [described.port]);
    }
}

#[test]
fn hashing_shows_progress_and_can_be_stopped() {
    let place = Place::new();
    // Takes no room, and much longer to hash than this test runs.
    fs::File::create(place.path("huge")).unwrap().set_len(1 << 40).unwrap();
    let seeder = Running::start(seeder(&place, &["-f", "huge"]));
    let progress = seeder.err_line();
    assert!(progress.starts_with("Hashing huge: 0% (") && progress.contains("of 1.00 TiB"), "{progress}");
    seeder.signal(Signal::INT);
    let ended = seeder.end();
    assert!(matches!(ended.code, Some(0 | 130)), "{ended:?}");
    assert!(!ended.out.iter().any(|line| line.contains("running")), "{ended:?}");
}
