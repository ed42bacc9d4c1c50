//! A seeder and peers that would use up what it has: its file descriptors, and its memory.

use std::{fs, iter, net::SocketAddr, process::Command};

use evil::{ATTACKS, Victim};

use peer::handshake::HandshakeError;
use proto::{
    ChunkIndex, SMALL_CHUNK_LEN,
    peer::{GoodbyeReason, PeerMessage},
    tracker::Completion,
};
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};

use crate::{
    peer::{answer, connect, send},
    program::{PATIENCE, Place, Running},
    seeder,
    sharing::described,
};

/// Files that it may open. With its own, it needs some twenty.
const FILES: usize = 64;

/// The same command, in a shell that allows it few files.
fn with_few_files(command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {FILES} && exec \"$0\" \"$@\"")]);
    limited.arg(command.get_program()).args(command.get_args());
    limited.env_clear().current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        limited.env(name, value.unwrap());
    }
    limited
}

/// Maximum memory that peers take, whatever they do.
const MOST_MIB: u64 = 64;

/// Connections of each attack.
const CONNECTIONS: usize = 200;

#[test]
fn peers_that_would_use_up_its_descriptors_keep_nobody_out() {
    let place = Place::new();
    fs::write(place.path("data.bin"), "12345").unwrap();
    let mut command = with_few_files(&seeder(&place, &["-f", "data.bin"]));
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    let seeder = Running::start(command);
    let _starting = seeder.line();
    let share = described(&seeder, "data.bin");
    let attacked = async {
        // Some say hello and some say nothing, and all of them stay.
        let (mut silent, mut idle) = (Vec::new(), Vec::new());
        for number in 0..2 * FILES {
            silent.push(TcpStream::connect(("127.0.0.1", share.port)).await.unwrap());
            idle.push(connect(share.port, share.link.infohash, number).await);
        }
        let mut welcome = loop {
            // At an address of its own.
            match connect(share.port, share.link.infohash, 10_000).await {
                Ok(connection) => break connection,
                Err(HandshakeError::Goodbye(GoodbyeReason::TooManyPeers { .. })) => {}
                Err(error) => panic!("{error}"),
            }
        };
        send(&mut welcome, [PeerMessage::Request { chunk: ChunkIndex(0), progress: Completion::NOTHING }])
            .await;
        assert_eq!(answer(&mut welcome).await.1, b"12345");
    };
    let in_time = async { timeout(PATIENCE, attacked).await.expect("it is served in time") };
    Runtime::new().unwrap().block_on(in_time);
}

#[test]
fn attackers_take_no_more_of_its_memory_than_they_may() {
    let place = Place::new();
    // Slow readers request some 16 chunks each.
    fs::write(place.path("data.bin"), vec![7; 16 * SMALL_CHUNK_LEN as usize]).unwrap();
    let seeder = Running::start(seeder(&place, &["-f", "data.bin"]));
    let _starting = seeder.line();
    let share = described(&seeder, "data.bin");
    let Some(quiet) = seeder.peak_mib() else {
        eprintln!("SKIPPED: this system has no /proc, so the memory of a process cannot be read");
        return;
    };
    let address = SocketAddr::from(([127, 0, 0, 1], share.port));
    let victim = Victim { address, infohash: share.link.infohash, version: proto::VERSION };
    let attacked = async {
        let mut attackers = Vec::new();
        for (&attack, host) in ATTACKS.iter().zip(1..) {
            for ip in iter::repeat_n([127, 0, 2, host].into(), CONNECTIONS) {
                attackers.push(attack.connect(victim, ip).await.unwrap());
            }
        }
        let mut welcome = connect(share.port, share.link.infohash, 10_000).await.unwrap();
        send(&mut welcome, [PeerMessage::Request { chunk: ChunkIndex(0), progress: Completion::NOTHING }])
            .await;
        assert_eq!(answer(&mut welcome).await.1, vec![7; SMALL_CHUNK_LEN as usize]);
    };
    let in_time = async { timeout(PATIENCE, attacked).await.expect("it is served in time") };
    Runtime::new().unwrap().block_on(in_time);
    let peak = seeder.peak_mib().unwrap();
    assert!(peak <= quiet + MOST_MIB, "{peak} MiB, and {quiet} MiB before");
}
