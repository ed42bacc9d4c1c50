//! The memory of a leecher among peers that misbehave.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
};

use evil::{EvilPeer, KINDS, Kind, Share};
use proto::{metainfo::MAX_METAINFO_LEN, peer::MAX_PART_LEN};
use tokio::{runtime::Runtime, task::JoinSet};
use tokio_util::task::TaskTracker;

use crate::{
    content::bytes,
    leecher,
    network::{Network, link},
    program::{Place, Running},
};

/// Maximum resident memory of a leecher of a small share, whatever its peers do.
const MOST_MIB: u64 = 64;

/// Chunks of the share.
const CHUNKS: usize = 24;

/// Parts of the largest metainfo.
const ALL_PARTS: u32 = MAX_METAINFO_LEN / MAX_PART_LEN;

/// Peers that have to send almost all of such a metainfo, one after another. Together they send more than [`MOST_MIB`].
const STUCK: usize = 3;

/// Peers that promise the largest description and send random bytes: each could take 32 MiB.
const ENDLESS: usize = 8;

#[test]
fn beside_peers_of_all_evil_kinds_it_takes_no_more_memory_than_it_may() {
    if !Path::new("/proc/self/status").exists() {
        eprintln!("SKIPPED: this system has no /proc, so the memory of a process cannot be read");
        return;
    }
    for calls in [false, true] {
        let (place, network, bytes) = (Place::new(), Network::start(), bytes(CHUNKS));
        let shared = network.file("data.bin", &bytes);
        let honest = format!("127.0.0.1:{}", network.seed(shared.clone()));
        fs::create_dir(place.path("source")).unwrap();
        fs::write(place.path("source/data.bin"), &bytes).unwrap();
        let share = Arc::new(Share::of_file(&place.path("source/data.bin")).unwrap());
        let runtime = Runtime::new().unwrap();
        let (_entered, tasks) = (runtime.enter(), TaskTracker::new());
        let kinds = [Kind::EndlessMetainfo; ENDLESS].into_iter().chain(KINDS.iter().copied());
        let start = if calls { EvilPeer::call_back } else { EvilPeer::listen };
        let evil: Vec<_> = (2..)
            .zip(kinds)
            .map(|(host, kind)| {
                start(kind, &share, IpAddr::V4(Ipv4Addr::new(127, 0, 3, host)), &tasks).unwrap()
            })
            .collect();
        let mut peers: Vec<String> = evil.iter().map(|peer| peer.address.to_string()).collect();
        peers.push(honest);
        // Slow enough for everybody to do what he can.
        let link = link(&*shared, &[], &[]);
        let mut args = vec!["--seed", "--download-limit", "4M", "-p", "0", &link];
        args.extend(peers.iter().flat_map(|peer| ["--peer", peer]));
        let leecher = Running::start(leecher(&place, &args));
        leecher.line_with("Successfully downloaded");
        let peak = leecher.peak_mib().unwrap();
        assert!(peak <= MOST_MIB, "{peak} MiB");
    }
}

/// Each keeps the last byte of 32 MiB, so none is found out. Were it asked for all of it beside the others, they would fill 256 MiB.
#[test]
fn peers_that_never_finish_a_large_description_take_the_memory_of_one() {
    if !Path::new("/proc/self/status").exists() {
        eprintln!("SKIPPED: this system has no /proc, so the memory of a process cannot be read");
        return;
    }
    let (place, runtime) = (Place::new(), Runtime::new().unwrap());
    fs::write(place.path("data.bin"), bytes(1)).unwrap();
    let share = Arc::new(Share::of_file(&place.path("data.bin")).unwrap());
    let (_entered, tasks) = (runtime.enter(), TaskTracker::new());
    let evil: Vec<_> = (2..)
        .take(ENDLESS)
        .map(|host| {
            let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 4, host));
            EvilPeer::listen(Kind::StuckMetainfo, &share, ip, &tasks).unwrap()
        })
        .collect();
    let link = format!("magnet:?xt=urn:btmh:1220{}", share.infohash());
    let peers: Vec<String> = evil.iter().map(|peer| peer.address.to_string()).collect();
    let mut args = vec!["-p", "0", &link];
    args.extend(peers.iter().flat_map(|peer| ["--peer", peer]));
    let leecher = Running::start(leecher(&place, &args));
    runtime.block_on(async {
        let mut stuck = JoinSet::new();
        for peer in evil {
            stuck.spawn(async move { peer.until(|record| record.metainfo_parts >= ALL_PARTS).await });
        }
        for _ in 0..STUCK {
            stuck.join_next().await.unwrap().unwrap();
        }
    });
    let peak = leecher.peak_mib().unwrap();
    assert!(peak <= MOST_MIB, "{peak} MiB");
}
