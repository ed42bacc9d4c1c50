//! Registration with trackers, and how a seeder stops.

use std::{fs, net::UdpSocket, thread};

use bytes::BytesMut;
use proto::tracker::{
    Announced, ErrorCode, Reply, ReplyBody, Request, RequestBody, Token,
    codec::{decode_request, encode_reply},
};
use rustix::process::Signal;

use crate::{
    program::{Place, Running},
    seeder,
    sharing::{described, first_chunk},
    stopping::stopping_signals,
    tracking::Tracking,
};

#[test]
fn registers_and_ends_the_registration_on_every_signal_that_stops_it() {
    let tracker = Tracking::start();
    for signal in stopping_signals() {
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
        assert_eq!(tracker.seeder_ports(described.link.infohash), [0u16; 0]);
    }
}

#[test]
fn signals_that_mean_nothing_to_a_seeder_do_not_stop_it() {
    let place = Place::new();
    fs::write(place.path("data.bin"), b"12345").unwrap();
    // What nohup does: programs go on ignoring what was ignored when they started.
    let program = format!("trap '' HUP; exec {} data.bin -v", env!("CARGO_BIN_EXE_seeder"));
    let mut command = place.command("/bin/sh", &["-c", &program]);
    command.env("SHOAL_PORT", "0").env("SHOAL_BIND", "127.0.0.1").env("PATH", "/usr/bin:/bin");
    let seeder = Running::start(command);
    let share = described(&seeder, "data.bin");
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2] {
        seeder.signal(signal);
    }
    assert_eq!(first_chunk(share.port, share.link.infohash), b"12345");
    seeder.signal(Signal::TERM);
    let ended = seeder.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.err.matches("stopping").count(), 1, "{ended:?}");
}

/// A tracker that holds the first peer id it is told for somebody else.
fn start_tracker_of_another() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let mut taken = None;
    thread::spawn(move || {
        let mut datagram = [0; 1_500];
        // Lives as long as the tests do.
        while let Ok((len, source)) = socket.recv_from(&mut datagram) {
            let Request { transaction, body } = decode_request(&datagram[..len]).unwrap();
            let body = match body {
                RequestBody::Connect { .. } => ReplyBody::Connected { token: Token([1; 16]), lifetime_s: 60 },
                RequestBody::Announce(announce)
                    if *taken.get_or_insert(announce.peer_id) == announce.peer_id =>
                {
                    ReplyBody::Error(ErrorCode::NotYours)
                }
                _ => {
                    ReplyBody::Announced(Announced { interval_s: 30, seeders: 1, leechers: 0, completed: 0 })
                }
            };
            let mut reply = BytesMut::new();
            encode_reply(&Reply { transaction, body }, &mut reply).unwrap();
            socket.send_to(&reply, source).unwrap();
        }
    });
    address
}

/// It would report the failure much later.
#[test]
fn reports_that_it_waits_for_a_tracker_that_is_silent() {
    let place = Place::new();
    fs::write(place.path("a file"), "12345").unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tracker = silent.local_addr().unwrap().to_string();
    let seeder = Running::start(seeder(&place, &["a file", "--tracker", &tracker]));
    seeder.line_with("Press Ctrl+C");
    assert_eq!(seeder.line(), format!("Waiting for tracker {tracker} to answer"));
}

#[test]
fn takes_another_peer_id_when_its_own_belongs_to_another() {
    let place = Place::new();
    fs::write(place.path("data.bin"), b"12345").unwrap();
    let tracker = start_tracker_of_another();
    let seeder = Running::start(seeder(&place, &["-f", "data.bin", "--tracker", &tracker]));
    seeder.line_with("Registered 'data.bin'");
    seeder.signal(Signal::TERM);
    let ended = seeder.end();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
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
    // Takes no room, and seconds to go through, although it is one hole.
    fs::File::create(place.path("huge")).unwrap().set_len(1 << 40).unwrap();
    let seeder = Running::start(seeder(&place, &["-f", "huge"]));
    let progress = seeder.err_line();
    assert!(progress.starts_with("Hashing huge: ") && progress.contains("of 1.00 TiB"), "{progress}");
    seeder.signal(Signal::INT);
    let ended = seeder.end();
    assert!(matches!(ended.code, Some(0 | 130)), "{ended:?}");
    assert!(!ended.out.iter().any(|line| line.contains("running")), "{ended:?}");
}
