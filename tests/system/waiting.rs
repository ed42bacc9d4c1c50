//! A leecher before there is anything to fetch: it waits, reports what it waits for, and begins when it can.

use std::{net::SocketAddr, time::Duration};

use shoal::{Endpoint, Failure, FetchError, FetchEvent, InfoHash, Node, Target};
use tokio::net::TcpListener;

use crate::{
    source::MIB,
    stranger::{Stranger, visit},
    swarm::test,
};

/// A new tracker does not know every peer yet.
#[test]
fn a_share_that_a_new_tracker_does_not_know_is_waited_for() {
    test(async |swarm| {
        let source = swarm.share("early.bin", MIB);
        for target in [Target::InfoHash(source.infohash()), Target::Name(source.name()), Target::Only] {
            let plan = swarm.plan_for(target);
            let mut fetch = swarm.fetch(plan);
            fetch.waits_for("know").await;
            let late = swarm.seed(&source).await;
            source.assert_fetched(&fetch.fetched().await);
            late.stop().await;
        }
    });
}

/// A tracker that has been up long enough to know every peer is believed, unless the user wants to wait.
#[test]
fn a_leecher_that_waits_can_start_before_its_seeder() {
    test(async |swarm| {
        let source = swarm.share("early.bin", MIB);
        let tracker = swarm.settled_tracker(source.infohash()).await;
        let mut waiting = Vec::new();
        for target in [Target::InfoHash(source.infohash()), Target::Name(source.name()), Target::Only] {
            let plan = swarm.plan_for(target.clone()).asking(std::slice::from_ref(&tracker));
            let outcome = swarm.fetch(plan).outcome().await;
            let unknown = matches!(
                outcome,
                Err(FetchError::Swarm(Failure::UnknownShare(_))
                    | FetchError::UnknownName(_)
                    | FetchError::NothingShared)
            );
            assert!(unknown, "{outcome:?}");
            let plan = swarm
                .plan_for(target)
                .asking(std::slice::from_ref(&tracker))
                .with(|fetch| fetch.wait(Duration::from_secs(600)).stall_timeout(Duration::from_secs(1)));
            waiting.push(swarm.fetch(plan));
        }
        for fetch in &mut waiting {
            fetch.waits_for("know").await;
        }
        swarm.seed_with(Node::builder().tracker(tracker), &source).await;
        for fetch in &mut waiting {
            source.assert_fetched(&fetch.fetched().await);
        }
    });
}

#[test]
fn a_seeder_that_is_down_is_waited_for() {
    test(async |swarm| {
        let source = swarm.share("later.bin", MIB);
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        let plan = swarm.plan(&source, &[address]);
        let mut fetch = swarm.fetch(plan);
        fetch.waits_for(&format!("{address}: unreachable")).await;
        swarm.seed_with(Node::builder().port(address.port()), &source).await;
        source.assert_fetched(&fetch.fetched().await);
    });
}

#[test]
fn a_full_seeder_is_reported_as_full_and_waited_for() {
    test(async |swarm| {
        let source = swarm.share("popular.bin", MIB);
        let seeder = swarm.seed_with(Node::builder().max_peers(1), &source).await;
        let guest = visit(seeder.address, source.infohash()).await.unwrap();

        let impatient = swarm.plan(&source, &[seeder.address]);
        let impatient = impatient.with(|fetch| fetch.stall_timeout(Duration::from_secs(1)));
        let outcome = swarm.fetch(impatient).outcome().await;
        assert!(matches!(outcome, Err(FetchError::Swarm(Failure::AllFull { known: 1 }))), "{outcome:?}");

        let plan = swarm.plan(&source, &[seeder.address]);
        let mut fetch = swarm.fetch(plan);
        fetch.waits_for("is full").await;
        drop(guest);
        source.assert_fetched(&fetch.fetched().await);
    });
}

/// A host name without an address may get one later. If there is no other peer, the error names it.
#[test]
fn a_peer_whose_name_leads_nowhere_is_asked_for_again() {
    test(async |swarm| {
        let source = swarm.share("nowhere.bin", MIB);
        let nowhere: Endpoint = "nowhere.invalid:1".parse().unwrap();
        let plan = swarm.plan(&source, &[]);
        let plan = plan.with(|fetch| fetch.peer(nowhere).stall_timeout(Duration::from_secs(1)));
        let outcome = swarm.fetch(plan).outcome().await;
        assert!(
            matches!(&outcome, Err(FetchError::Swarm(Failure::PeerName(error))) if error.peer.host == "nowhere.invalid"),
            "{outcome:?}"
        );
    });
}

/// Every peer sees a peer's id, so anybody can claim to be it.
#[test]
fn a_peer_that_claims_to_be_this_leecher_is_no_liar() {
    test(async |swarm| {
        let source = swarm.share("mirror.bin", MIB);
        let mirror = Stranger::listen().await;
        let plan = swarm.plan(&source, &[mirror.address]);
        let (outcome, ()) = tokio::join!(async { swarm.fetch(plan).outcome().await }, mirror.echo());
        assert!(matches!(outcome, Err(FetchError::Swarm(Failure::NoPeer { .. }))), "{outcome:?}");

        // Beside a seeder it does no harm.
        let seeder = swarm.seed_unannounced(&source).await;
        let plan = swarm.plan(&source, &[mirror.address, seeder.address]);
        let mut fetch = swarm.fetch(plan);
        let (fetched, ()) = tokio::join!(fetch.fetched(), mirror.echo());
        source.assert_fetched(&fetched);
    });
}

/// The wait is reported again and again.
#[test]
fn what_is_waited_for_is_reported_again_and_again() {
    test(async |swarm| {
        let closed = SocketAddr::from(([127, 0, 0, 1], 1));
        let plan = swarm.plan_for(InfoHash([7; 32])).asking(&[closed.into()]);
        let plan = plan.with(|fetch| fetch.stall_timeout(Duration::from_secs(600)));
        let mut fetch = swarm.fetch(plan);
        fetch.waits_for("127.0.0.1:1").await;
        let waits = |event: &FetchEvent| matches!(event, FetchEvent::Waiting(_));
        let before = fetch.story().iter().filter(|event| waits(event)).count();
        fetch.events_until(|events| events.iter().filter(|event| waits(event)).count() > before + 1).await;
        fetch.stop();
        assert!(matches!(fetch.outcome().await, Err(FetchError::Interrupted { part: None })));
    });
}
