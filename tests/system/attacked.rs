//! Connections that use up what a seeder has, before a leecher comes. It gets its file all the same.

use std::net::{IpAddr, Ipv4Addr};

use evil::{Attack, Victim};
use shoal::Node;
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    source::{MIB, Source},
    swarm::{RunningSeeder, Swarm, test},
};

/// Places of the seeder, few enough for the attackers of one host to take all of them.
const PLACES: usize = 8;

/// A slow reader requests the first 16 chunks. A request for one that the share does not have would end its connection.
const SIZE: u64 = 8 * MIB;

/// More connections than a seeder reads the `Hello` of at the same time.
const CONNECTIONS: usize = 300;

/// Of this many, none makes room for another: a process that may open 1,024 files reads the `Hello` of 125 peers at the same time.
const NEWEST: usize = 100;

/// A seeder of a small file, with few places.
async fn besieged(swarm: &mut Swarm) -> (Source, RunningSeeder) {
    let source = swarm.share("besieged.bin", SIZE);
    let seeder = swarm.seed_with(Node::builder().max_peers(PLACES), &source).await;
    (source, seeder)
}

/// The connections of an attack. A leecher is at another address.
async fn begin(attack: Attack, count: usize, seeder: &RunningSeeder, source: &Source) -> Vec<TcpStream> {
    let victim = Victim { address: seeder.address, infohash: source.infohash(), version: proto::VERSION };
    let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 2, 1));
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(attack.connect(victim, ip).await.unwrap());
    }
    streams
}

async fn is_served(swarm: &mut Swarm, seeder: &RunningSeeder, source: &Source) {
    let plan = swarm.plan(source, &[seeder.address]);
    source.assert_fetched(&swarm.fetch(plan).fetched().await);
}

#[test]
fn slow_readers_keep_no_leecher_from_a_seeder() {
    test(async |swarm| {
        let (source, seeder) = besieged(swarm).await;
        let readers = begin(Attack::SlowReader, PLACES, &seeder, &source).await;
        for reader in &readers {
            // The seeder's `Hello`, so it has a place.
            reader.readable().await.unwrap();
        }
        is_served(swarm, &seeder, &source).await;
    });
}

#[test]
fn length_bombs_are_closed_and_keep_no_leecher_from_a_seeder() {
    test(async |swarm| {
        let (source, seeder) = besieged(swarm).await;
        let bombs = begin(Attack::LengthBomb, CONNECTIONS, &seeder, &source).await;
        is_served(swarm, &seeder, &source).await;
        for mut bomb in bombs {
            // Closed or reset: the rest of the frame is not waited for.
            let _ = bomb.read_to_end(&mut Vec::new()).await;
        }
    });
}

#[test]
fn connections_that_stop_before_or_after_their_hello_keep_no_leecher_from_a_seeder() {
    for attack in [Attack::HalfOpen, Attack::HalfHello, Attack::Idle] {
        test(async |swarm| {
            let (source, seeder) = besieged(swarm).await;
            let attackers = begin(attack, CONNECTIONS, &seeder, &source).await;
            is_served(swarm, &seeder, &source).await;
            // Those that said nothing are still there, apart from older ones. So the leecher was served beside them, and did not wait until
            // the time for their `Hello` was over.
            let is_there = |attacker: &TcpStream| attacker.try_read(&mut [0]).is_err();
            assert!(attack == Attack::Idle || is_there(&attackers[CONNECTIONS - NEWEST]), "{attack}");
        });
    }
}
