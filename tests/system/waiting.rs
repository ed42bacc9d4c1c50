//! What a leecher does before there is anything to fetch: it waits, says for what, and begins when it can.

use std::time::Duration;

use leecher::{Failure, FetchError, FetchEvent, Report, Target};
use proto::InfoHash;
use tokio::net::TcpListener;

use crate::{
    source::MIB,
    stranger::{Stranger, visit},
    swarm::{endpoint, test},
};

/// A tracker that was just started does not know everybody yet.
#[test]
fn a_share_that_a_new_tracker_does_not_know_is_waited_for() {
    test(async |swarm| {
        let source = swarm.share("early.bin", MIB);
        for target in [Target::InfoHash(source.infohash()), Target::Name(source.name()), Target::Only] {
            let config = swarm.config_for(target);
            let mut fetch = swarm.fetch(config);
            fetch.waits_for("know").await;
            let late = swarm.seed_for_a_while(swarm.seeder_config(), &source).await;
            source.assert_fetched(&fetch.fetched().await);
            late.stop().await;
        }
    });
}

/// One that has been up for long enough to know everybody is believed, unless the user wants to wait.
#[test]
fn a_leecher_that_is_told_to_wait_starts_before_its_seeder() {
    test(async |swarm| {
        let source = swarm.share("early.bin", MIB);
        let tracker = swarm.settled_tracker(source.infohash()).await;
        let mut waiting = Vec::new();
        for target in [Target::InfoHash(source.infohash()), Target::Name(source.name()), Target::Only] {
            let mut config = swarm.config_for(target);
            config.trackers = vec![tracker.clone()];
            let outcome = swarm.fetch(config.clone()).outcome().await;
            let unknown = matches!(
                outcome,
                Err(FetchError::Swarm(Failure::UnknownShare(_))
                    | FetchError::UnknownName(_)
                    | FetchError::NothingShared)
            );
            assert!(unknown, "{outcome:?}");
            config.destination = swarm.config_for(config.target.clone()).destination;
            config.wait = Duration::from_secs(600);
            config.stall_timeout = Duration::from_secs(1);
            waiting.push(swarm.fetch(config));
        }
        for fetch in &mut waiting {
            fetch.waits_for("know").await;
        }
        swarm.seed_with(seeder::Config { trackers: vec![tracker], ..swarm.seeder_config() }, &source).await;
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
        let config = swarm.config(&source, &[address]);
        let mut fetch = swarm.fetch(config);
        fetch.waits_for(&format!("{address}: unreachable")).await;
        swarm.seed_with(seeder::Config { port: address.port(), ..swarm.seeder_config() }, &source).await;
        source.assert_fetched(&fetch.fetched().await);
    });
}

#[test]
fn a_seeder_that_is_full_is_said_to_be_and_waited_for() {
    test(async |swarm| {
        let source = swarm.share("popular.bin", MIB);
        let config = seeder::Config { max_peers: 1, trackers: Vec::new(), ..swarm.seeder_config() };
        let seeder = swarm.seed_with(config, &source).await;
        let guest = visit(seeder.address, source.infohash()).await.unwrap();

        let mut impatient = swarm.config(&source, &[seeder.address]);
        impatient.stall_timeout = Duration::from_secs(1);
        let outcome = swarm.fetch(impatient).outcome().await;
        assert!(matches!(outcome, Err(FetchError::Swarm(Failure::AllFull { known: 1 }))), "{outcome:?}");

        let config = swarm.config(&source, &[seeder.address]);
        let mut fetch = swarm.fetch(config);
        fetch.waits_for("is full").await;
        drop(guest);
        source.assert_fetched(&fetch.fetched().await);
    });
}

/// A name that leads nowhere may lead somewhere later; where nothing else is to be had, that is what is said.
#[test]
fn a_peer_whose_name_leads_nowhere_is_asked_for_again() {
    test(async |swarm| {
        let source = swarm.share("nowhere.bin", MIB);
        let mut config = swarm.config(&source, &[]);
        config.peers = vec!["nowhere.invalid:1".parse().unwrap()];
        config.stall_timeout = Duration::from_secs(1);
        let outcome = swarm.fetch(config).outcome().await;
        assert!(
            matches!(&outcome, Err(FetchError::Swarm(Failure::PeerName(error))) if error.peer.host == "nowhere.invalid"),
            "{outcome:?}"
        );
    });
}

/// Everybody hears a peer's id, so anybody can claim to be it.
#[test]
fn a_peer_that_claims_to_be_this_leecher_is_no_liar() {
    test(async |swarm| {
        let source = swarm.share("mirror.bin", MIB);
        let mirror = Stranger::listen().await;
        let config = swarm.config(&source, &[mirror.address]);
        let (outcome, ()) = tokio::join!(async { swarm.fetch(config).outcome().await }, mirror.echo());
        assert!(matches!(outcome, Err(FetchError::Swarm(Failure::NoPeer { .. }))), "{outcome:?}");

        // Beside a seeder it does no harm.
        let seeder = swarm.seed_unannounced(&source).await;
        let config = swarm.config(&source, &[mirror.address, seeder.address]);
        let mut fetch = swarm.fetch(config);
        let (fetched, ()) = tokio::join!(fetch.fetched(), mirror.echo());
        source.assert_fetched(&fetched);
    });
}

/// Nothing is given up for a share that somebody else on the tracker has.
#[test]
fn what_is_waited_for_is_said_again_and_again() {
    test(async |swarm| {
        let mut config = swarm.config_for(Target::InfoHash(InfoHash([7; 32])));
        config.trackers = vec![endpoint(([127, 0, 0, 1], 1).into())];
        config.stall_timeout = Duration::from_secs(600);
        let mut fetch = swarm.fetch(config);
        fetch.waits_for("127.0.0.1:1").await;
        let waits = |event: &FetchEvent| matches!(event, FetchEvent::Swarm(Report::Waiting(_)));
        let told = fetch.story().iter().filter(|event| waits(event)).count();
        fetch.events_until(|events| events.iter().filter(|event| waits(event)).count() > told + 1).await;
        fetch.stop();
        assert!(matches!(fetch.outcome().await, Err(FetchError::Interrupted { part: None })));
    });
}
