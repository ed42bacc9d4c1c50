//! Peers that accept a connection and then stay silent.

use std::{net::SocketAddr, time::Duration};

use proto::{SMALL_CHUNK_LEN, peer::PeerMessage};
use shoal::{Failure, FetchError};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    proxy::{Manner, addresses},
    source::{MIB, Source},
    stranger::{send, visit},
    swarm::test,
};

/// The system completes connections to a port where no program accepts them.
#[test]
fn most_peers_never_answer() {
    test(async |swarm| {
        let source = swarm.share("patient.bin", 8 * MIB);
        let mut peers = Vec::new();
        let silent = silent_peers(8).await;
        peers.extend(silent.iter().map(|listener| listener.local_addr().unwrap()));
        for _ in 0..2 {
            peers.push(swarm.seed_unannounced(&source).await.address);
        }
        let plan = swarm.plan(&source, &peers);
        source.assert_fetched(&swarm.fetch(plan).fetched().await);
    });
}

/// There are more of them than the leecher dials at a time, and the one that answers comes last.
#[test]
fn an_honest_seeder_is_reached_past_dozens_that_never_answer() {
    test(async |swarm| {
        let source = swarm.share("needle.bin", 8 * MIB);
        let silent = silent_peers(45).await;
        let peers: Vec<_> = silent.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let plan = swarm.plan(&source, &peers).asking(&[swarm.tracker()]);
        let mut fetch = swarm.fetch(plan);
        let mut connecting: JoinSet<_> = silent
            .into_iter()
            .map(|listener| async move { (listener.accept().await.unwrap(), listener) })
            .collect();
        let _connected = connecting.join_next().await;
        swarm.seed(&source).await;
        source.assert_fetched(&fetch.fetched().await);
    });
}

#[test]
fn most_peers_send_a_hello_and_nothing_else() {
    test(async |swarm| {
        let source = swarm.share("mute.bin", 16 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let mute = swarm.proxies(&seeder, Manner::MuteAfterHello, 8).await;
        let mut peers = addresses(&mute);
        for _ in 0..2 {
            peers.push(swarm.seed_unannounced(&source).await.address);
        }
        let plan = swarm.plan(&source, &peers);
        source.assert_fetched(&swarm.fetch(plan).fetched().await);
    });
}

/// Each of them begins to send a chunk and stops in the middle. A leecher has few buffers for arriving chunks, and these
/// peers must not keep all of them.
#[test]
fn many_peers_stop_in_the_middle_of_a_chunk() {
    test(async |swarm| {
        let source = swarm.share("clogged.bin", 32 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let proxies = swarm.proxies(&seeder, Manner::Honest, 25).await;
        let plan = swarm.plan(&source, &addresses(&proxies));
        let mut fetch = swarm.fetch(plan);
        let [honest, stuck @ ..] = &proxies[..] else { unreachable!() };
        stuck.iter().for_each(|proxy| proxy.allow(1_000));
        for proxy in stuck {
            proxy.until(|traffic| traffic.chunk_bytes == 1_000).await;
        }
        honest.open();
        source.assert_fetched(&fetch.fetched().await);
    });
}

async fn silent_peers(count: usize) -> Vec<TcpListener> {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    listeners
}

/// Headers of chunks without a byte of a chunk. Nothing arrives, no matter how many peers promise one.
#[test]
fn a_header_without_its_chunk_is_no_arrival() {
    test(async |swarm| {
        let source = swarm.share("promised.bin", MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let promising = swarm.proxy(&seeder, Manner::HeaderAndAway).await;
        let plan = swarm.plan(&source, &[promising.address]).asking(&[swarm.tracker()]);
        let plan = plan.with(|fetch| fetch.stall_timeout(Duration::from_secs(2)));
        let mut fetch = swarm.fetch(plan);
        fetch.started().await;
        let leecher = swarm.known_peer(source.infohash()).await;
        let promises = async {
            loop {
                promise(leecher, &source).await;
            }
        };
        let outcome = tokio::select! {
            outcome = fetch.outcome() => outcome,
            () = promises => unreachable!(),
        };
        assert!(matches!(outcome, Err(FetchError::Swarm(Failure::Stalled { done: 0, .. }))), "{outcome:?}");
    });
}

/// Connects to a leecher as a seeder of full chunks, sends the header of the first that it asks for, and closes the
/// connection.
async fn promise(leecher: SocketAddr, source: &Source) {
    // The leecher may have ended.
    let Ok(mut connection) = visit(leecher, source.infohash()).await else { return };
    while let Ok(Some(message)) = connection.reader.next().await {
        if let PeerMessage::Request { chunk, .. } = message {
            send(&mut connection, PeerMessage::Chunk { chunk, len: SMALL_CHUNK_LEN }, &[]).await;
            return;
        }
        let _ = connection.reader.skip_payload().await;
    }
}
