//! Peers that send, or receive, hardly anything.

use std::net::SocketAddr;

use shoal::Fetched;
use tokio::task::JoinSet;

use crate::{
    proxy::{Manner, addresses},
    source::{CHUNK, KIB, MIB},
    stranger::asks_and_reads_nothing,
    swarm::test,
};

/// A seeder's uploads of a share at a time, not counting those that their receivers hold up.
const UPLOADS: usize = 8;

/// A peer that sends a byte now and then is never silent. But its chunks must not be waited for, because a much faster
/// seeder has them too.
#[test]
fn a_trickle_does_not_hold_up_a_transfer() {
    test(async |swarm| {
        let source = swarm.share("trickle.bin", 4 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let trickle = swarm.proxy(&seeder, Manner::Honest).await;
        let slow = swarm.proxy(&seeder, Manner::Honest).await;
        let plan = swarm.plan(&source, &[trickle.address, slow.address]);
        let mut fetch = swarm.fetch(plan);
        fetch.joined(trickle.address).await;
        fetch.joined(slow.address).await;
        // The leecher reports progress five times a second.
        while fetch.goes_on().await {
            trickle.allow(1);
            slow.allow(256 * KIB);
        }
        let fetched = fetch.fetched().await;
        source.assert_fetched(&fetched);
        assert_eq!(fetched.peers[0].address, slow.address);
    });
}

/// They read nothing of the chunks that they requested, and there are more of them than a seeder has uploads at a time.
#[test]
fn receivers_that_read_nothing_do_not_keep_a_leecher_from_a_seeder() {
    test(async |swarm| {
        let source = swarm.share("clogged.bin", 32 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let mut receivers = JoinSet::new();
        for _ in 0..UPLOADS + 4 {
            receivers.spawn(asks_and_reads_nothing(seeder.address, source.infohash()));
        }
        let mut stuck = Vec::new();
        while stuck.len() < UPLOADS {
            stuck.push(receivers.join_next().await.unwrap().unwrap());
        }
        let plan = swarm.plan(&source, &[seeder.address]);
        source.assert_fetched(&swarm.fetch(plan).fetched().await);
    });
}

/// Each begins a chunk and stops at once. Their chunks come from the peer that sends.
#[test]
fn what_peers_stop_to_send_after_a_byte_comes_from_another() {
    test(async |swarm| {
        let source = swarm.share("stopped.bin", 8 * CHUNK);
        let seeder = swarm.seed_unannounced(&source).await;
        let proxies = swarm.proxies(&seeder, Manner::Honest, 3).await;
        let plan = swarm.plan(&source, &addresses(&proxies));
        let mut fetch = swarm.fetch(plan);
        let [honest, stopped @ ..] = &proxies[..] else { unreachable!() };
        fetch.joined(honest.address).await;
        for proxy in stopped {
            proxy.allow(1);
            proxy.until(|traffic| traffic.chunk_bytes == 1).await;
        }
        honest.open();
        let fetched = fetch.fetched().await;
        source.assert_fetched(&fetched);
        assert_eq!(senders(&fetched), [honest.address]);
    });
}

/// They are there first. A leecher asks them for the description and then for chunks, and they answer nothing.
#[test]
fn dozens_that_send_a_hello_and_nothing_else_do_not_keep_a_leecher_from_a_seeder() {
    test(async |swarm| {
        let source = swarm.share("crowd.bin", 16 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let mute = swarm.proxies(&seeder, Manner::MuteAfterHello, 60).await;
        let plan = swarm.plan(&source, &addresses(&mute)).asking(&[swarm.tracker()]);
        let mut fetch = swarm.fetch(plan);
        for proxy in &mute {
            proxy.until(|traffic| traffic.hellos > 0).await;
        }
        let honest = swarm.proxy(&seeder, Manner::Honest).await;
        swarm.announce(&source, honest.address).await;
        fetch.joined(honest.address).await;
        honest.open();
        let fetched = fetch.fetched().await;
        source.assert_fetched(&fetched);
        assert_eq!(senders(&fetched), [honest.address]);
    });
}

/// The peers that sent right chunks.
fn senders(fetched: &Fetched) -> Vec<SocketAddr> {
    fetched.peers.iter().map(|peer| peer.address).collect()
}
