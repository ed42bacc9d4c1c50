//! An announce at a registry of 100,000 peers in 1,000 shares.

#![expect(clippy::disallowed_methods, reason = "a benchmark begins at any moment")]

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU16,
    time::Instant,
};

use criterion::Criterion;
use proto::{
    InfoHash, PeerId, Secret, ShareName, Zone,
    tracker::{Announce, Completion, Event, Token},
};
use tracker::{Registry, Rules};

const PEERS: u32 = 100_000;
const SHARES: u32 = 1_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let now = Instant::now();
    let mut registry = Registry::new(Rules::default(), now);
    for peer in 0..PEERS {
        registry.announce(&announce(peer, Event::Started), source(peer), now).unwrap();
    }
    let heartbeats: Vec<_> = (0..PEERS).map(|peer| announce(peer, Event::Heartbeat)).collect();
    // A large step that shares no factor with the number of peers: no two announces in a row are near each other.
    let mut next = (0..).map(|count: u32| count.wrapping_mul(61_803) % PEERS);
    criterion.bench_function("heartbeat, 100,000 peers in 1,000 shares", |bencher| {
        bencher.iter(|| {
            let peer = next.next().unwrap_or(0);
            registry.announce(&heartbeats[peer as usize], source(peer), now)
        });
    });
    criterion.final_summary();
}

fn source(peer: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + peer))
}

fn announce(peer: u32, event: Event) -> Announce {
    let share = peer % SHARES;
    let mut infohash = [0; 32];
    infohash[..4].copy_from_slice(&share.to_be_bytes());
    let mut id = [0; 16];
    id[..4].copy_from_slice(&peer.to_be_bytes());
    Announce {
        token: Token([0; 16]),
        infohash: InfoHash(infohash),
        peer_id: PeerId(id),
        secret: Secret(id),
        port: NonZeroU16::MIN,
        name: ShareName::new(&format!("share {share}")).unwrap(),
        size: 1 << 30,
        event,
        progress: Completion::of(50, 100),
        label: Default::default(),
        fetched: false,
        zone: Zone::NONE,
    }
}
