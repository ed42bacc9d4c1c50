//! What a user sees on a terminal, and in its place where there is none.

use std::{fs, io::Write, process::Command, time::Instant};

use proto::{ChunkIndex, SMALL_CHUNK_LEN, peer::PeerMessage, tracker::Completion};
use rustix::process::Signal;
use tokio::runtime::Runtime;

use crate::{
    on_terminal::OnTerminal,
    peer::{answer, connect, send},
    program::{Place, Running},
    seeder,
    sharing::described,
    tracking::Tracking,
};

/// A seeder of these files, of one chunk each.
fn of_files(place: &Place, tracker: &Tracking, names: &[&str], columns: u16) -> OnTerminal {
    for name in names {
        // Different bytes make different shares.
        let mut bytes = vec![7; SMALL_CHUNK_LEN as usize];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        fs::write(place.path(name), bytes).unwrap();
    }
    let address = tracker.address();
    let mut command: Command = seeder(place, &[names, &["--tracker", &address, "-v"]].concat());
    command.env("TERM", "xterm");
    OnTerminal::start(command, columns)
}

#[test]
fn a_line_that_changes_in_place_says_what_is_served() {
    let (place, tracker) = (Place::new(), Tracking::start());
    let mut seeder = of_files(&place, &tracker, &["a.bin"], 200);
    let infohash = seeder.wait_for_line("infohash").split_whitespace().last().unwrap().parse().unwrap();
    seeder.wait_for_line("Registered 'a.bin'");
    seeder.wait_for_line("Seeding a.bin: no peers, 0 B/s, 0.00 copies sent (0 B)");
    // The terminal echoes what is typed, and the line is drawn over it.
    seeder.keyboard.write_all(b"\x03").unwrap();
    seeder.wait_for_line("^C");
    seeder.wait_for(|screen| !screen.iter().any(|line| line.contains("^C")));
    let port = tracker.seeder_ports(infohash)[0];
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut peer = connect(port, infohash, 0).await.unwrap();
        for _ in 0..2 {
            send(&mut peer, [PeerMessage::Request { chunk: ChunkIndex(0), progress: Completion::NOTHING }])
                .await;
            answer(&mut peer).await;
        }
        seeder.wait_for_line("Seeding a.bin: 1 peer, ");
        let line = seeder.wait_for_line("2.00 copies sent (256.00 KiB)");
        assert!(line.starts_with("Seeding a.bin: 1 peer, "), "{line}");
        let screen = seeder.wait_for(|screen| screen.iter().any(|line| line.contains("INFO peer joined")));
        assert_eq!(screen.iter().filter(|line| line.contains("copies sent")).count(), 1, "{screen:#?}");
    });
    drop(runtime);
    seeder.wait_for(|screen| {
        screen.iter().any(|line| line.contains("INFO peer left") && line.contains("sent=256.00 KiB"))
    });
    seeder.signal(Signal::TERM);
    let screen = seeder.end();
    assert!(!screen.iter().any(|line| line.contains("copies sent")), "{screen:#?}");
    assert!(screen.last().unwrap().contains("Seeder stopped after sending 256.00 KiB"), "{screen:#?}");
}

#[test]
fn several_shares_fit_one_line() {
    let (place, tracker) = (Place::new(), Tracking::start());
    let names = ["a.bin", "b.bin", "c.bin"];
    let mut seeder = of_files(&place, &tracker, &names, 80);
    let line = seeder.wait_for_line("Seeding 3 shares: no peers, 0 B/s");
    assert_eq!(line, "Seeding 3 shares: no peers, 0 B/s; copies sent: a.bin 0.00, b.bin 0.00, 1 more");
}

#[test]
fn without_a_terminal_a_busy_seeder_says_so_now_and_then() {
    let (place, tracker) = (Place::new(), Tracking::start());
    fs::write(place.path("a.bin"), vec![7; SMALL_CHUNK_LEN as usize]).unwrap();
    let seeder = Running::start(seeder(&place, &["a.bin", "--tracker", &tracker.address()]));
    let share = described(&seeder, "a.bin");
    Runtime::new().unwrap().block_on(async {
        let mut peer = connect(share.port, share.link.infohash, 0).await.unwrap();
        let mut line = None;
        while line.is_none() {
            send(&mut peer, [PeerMessage::Request { chunk: ChunkIndex(0), progress: Completion::NOTHING }])
                .await;
            answer(&mut peer).await;
            line = seeder.err_line_before(Instant::now()).ok();
        }
        let line = line.unwrap();
        assert!(line.starts_with("Seeding a.bin: 1 peer, ") && line.contains("copies sent"), "{line}");
    });
}
