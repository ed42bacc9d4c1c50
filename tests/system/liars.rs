//! Peers that send wrong data. No byte of it may get into the output, and they must be noticed soon.

use std::time::Duration;

use proto::{
    SMALL_CHUNK_LEN,
    peer::{GoodbyeReason, PeerMessage},
};
use shoal::{Failure, FetchError, LeaveReason};
use tokio::io::AsyncWriteExt;

use crate::{
    fetch::part_of,
    proxy::{Manner, addresses},
    source::MIB,
    stranger::{said, send, visit},
    swarm::test,
};

#[test]
fn a_liar_among_honest_seeders_is_found_out() {
    for lie in [Manner::WrongChunks, Manner::WrongChunkAndAway] {
        test(async |swarm| {
            let source = swarm.share("firmware.bin", 16 * MIB);
            let seeder = swarm.seed_unannounced(&source).await;
            let liar = swarm.proxy(&seeder, lie).await;
            let honest = swarm.proxy(&seeder, Manner::Honest).await;
            let second = swarm.proxy(&seeder, Manner::Honest).await;
            let plan = swarm.plan(&source, &[liar.address, honest.address, second.address]);
            let mut fetch = swarm.fetch(plan);
            liar.open();
            fetch.left_for(liar.address, LeaveReason::Lied).await;
            // It is not connected to again.
            assert!(liar.traffic().closed <= 1, "{lie:?}");
            honest.open();
            second.open();
            let fetched = fetch.fetched().await;
            source.assert_fetched(&fetched);
            assert!(fetched.wasted > 0);
            assert_eq!(fetched.peers.iter().map(|peer| peer.bytes).sum::<u64>(), source.size());
        });
    }
}

/// A peer that lies about the description is never asked for a chunk.
#[test]
fn a_false_description_is_not_believed() {
    for lie in [Manner::WrongMetainfo, Manner::WrongHashes] {
        test(async |swarm| {
            let source = swarm.share("dataset.csv", 4 * MIB);
            let seeder = swarm.seed_unannounced(&source).await;
            let liar = swarm.proxy(&seeder, lie).await;
            swarm.announce(&source, liar.address).await;
            let plan = swarm.plan_for(source.infohash());
            let mut fetch = swarm.fetch(plan);
            // It is alone at first, so it is the one that is asked.
            assert_eq!(fetch.left(liar.address).await, LeaveReason::Lied, "{lie:?}");
            let honest = swarm.seed(&source).await;
            let fetched = fetch.fetched().await;
            source.assert_fetched(&fetched);
            assert_eq!(liar.traffic().chunk_bytes, 0);
            assert_eq!(fetched.peers.len(), 1);
            assert_eq!(fetched.peers[0].address, honest.address);
        });
    }
}

/// Every peer sees a seeder's peer id, so every peer can claim to be it. These do, and then send nothing.
#[test]
fn a_borrowed_peer_id_does_not_push_its_owner_aside() {
    test(async |swarm| {
        let source = swarm.share("identity.bin", 8 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let owner = swarm.proxy(&seeder, Manner::SamePeerId).await;
        let thieves = swarm.proxies(&seeder, Manner::SamePeerId, 8).await;
        let mut peers = addresses(&thieves);
        peers.push(owner.address);
        let plan = swarm.plan(&source, &peers);
        let mut fetch = swarm.fetch(plan);
        for thief in &thieves {
            thief.until(|traffic| traffic.hellos > 0).await;
        }
        // By now it has handled all of them, because it reports progress between other events.
        assert!(fetch.goes_on().await && fetch.goes_on().await);
        owner.open();
        source.assert_fetched(&fetch.fetched().await);
    });
}

#[test]
fn where_all_lie_the_leecher_gives_up() {
    test(async |swarm| {
        let source = swarm.share("trap.bin", 8 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let liars = [
            swarm.proxy(&seeder, Manner::WrongChunks).await,
            swarm.proxy(&seeder, Manner::WrongChunks).await,
        ];
        liars.iter().for_each(|liar| liar.open());
        let plan = swarm.plan(&source, &liars.each_ref().map(|liar| liar.address));
        let mut fetch = swarm.fetch(plan);
        let outcome = fetch.outcome().await;
        assert!(matches!(outcome, Err(FetchError::Swarm(Failure::OnlyLiars))), "{outcome:?}");
        source.assert_part(&part_of(&fetch.started().await));
    });
}

/// A tracker might name a better peer, so it waits as long as for anything else.
#[test]
fn where_all_known_to_the_tracker_lie_the_leecher_gives_up_in_time() {
    test(async |swarm| {
        let source = swarm.share("trap.bin", 8 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let liar = swarm.proxy(&seeder, Manner::WrongChunks).await;
        liar.open();
        swarm.announce(&source, liar.address).await;
        let plan = swarm.plan_for(source.infohash());
        let plan = plan.with(|fetch| fetch.stall_timeout(Duration::from_secs(1)));
        let mut fetch = swarm.fetch(plan);
        let outcome = fetch.outcome().await;
        assert!(matches!(outcome, Err(FetchError::Swarm(Failure::OnlyLiars))), "{outcome:?}");
        source.assert_part(&part_of(&fetch.started().await));
    });
}

#[test]
fn where_all_lie_about_the_share_the_leecher_gives_up() {
    // Not one of each: the metainfo of one and the hashes of the other may be right.
    for lie in [Manner::WrongMetainfo, Manner::WrongHashes] {
        test(async |swarm| {
            let source = swarm.share("trap.bin", 8 * MIB);
            let seeder = swarm.seed_unannounced(&source).await;
            let liars = swarm.proxies(&seeder, lie, 2).await;
            let plan = swarm.plan(&source, &addresses(&liars));
            let outcome = swarm.fetch(plan).outcome().await;
            assert!(matches!(outcome, Err(FetchError::Swarm(Failure::OnlyLiars))), "{outcome:?}");
        });
    }
}

/// A wrong length proves a broken peer, not a lying one: nothing was hashed.
#[test]
fn a_chunk_of_the_wrong_length_is_not_the_protocol() {
    test(async |swarm| {
        let source = swarm.share("short.bin", 8 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let broken = swarm.proxy(&seeder, Manner::ShortChunks).await;
        let honest = swarm.proxy(&seeder, Manner::Honest).await;
        let plan = swarm.plan(&source, &[broken.address, honest.address]);
        let mut fetch = swarm.fetch(plan);
        broken.open();
        let reason = fetch.left(broken.address).await;
        assert!(matches!(reason, LeaveReason::Protocol(_)), "{reason:?}");
        honest.open();
        source.assert_fetched(&fetch.fetched().await);
    });
}

/// It does not listen, so only its IP address is known. From there it is not accepted again, whether or not it is still
/// connected when the lie is noticed. Peers that listen at that address can still be dialled.
#[test]
fn a_liar_that_connected_in_is_banned() {
    for waits in [true, false] {
        test(async |swarm| {
            let source = swarm.share("visited.bin", 8 * MIB);
            let (mut fetch, honest, leecher) = swarm.fetch_from_one(&source).await;
            let mut liar = visit(leecher, source.infohash()).await.unwrap();
            let address = liar.writer.local_addr().unwrap();
            let chunk = said(&mut liar, |message| match message {
                PeerMessage::Request { chunk, .. } => Some(chunk),
                _ => None,
            });
            let chunk = chunk.await;
            let lie = vec![0; SMALL_CHUNK_LEN as usize];
            assert!(send(&mut liar, PeerMessage::Chunk { chunk, len: SMALL_CHUNK_LEN }, &lie).await);
            if !waits {
                liar.writer.shutdown().await.unwrap();
            }
            fetch.left_for(address, LeaveReason::Lied).await;
            let mut again = visit(leecher, source.infohash()).await.unwrap();
            let goodbye = said(&mut again, |message| match message {
                PeerMessage::Goodbye(reason) => Some(reason),
                _ => None,
            });
            assert_eq!(goodbye.await, GoodbyeReason::Banned);
            honest.open();
            source.assert_fetched(&fetch.fetched().await);
        });
    }
}
