//! The targets of a leecher, and the errors if it cannot fetch one.

use std::time::Duration;

use shoal::{Failure, FetchError, InfoHash, ShareName, Target};
use tokio::net::UdpSocket;

use crate::{fetch::Plan, source::MIB, swarm::test};

fn name(name: &str) -> ShareName {
    ShareName::new(name).unwrap()
}

/// A second is enough for peers that are there, and is all that is spent on others.
fn impatient(plan: Plan) -> Plan {
    plan.with(|fetch| fetch.stall_timeout(Duration::from_secs(1)))
}

#[test]
fn a_share_is_found_by_link_infohash_name_and_alone() {
    test(async |swarm| {
        let source = swarm.share("data set.tar", 2 * MIB);
        swarm.seed(&source).await;
        let link = source.link(vec![swarm.tracker()], Vec::new()).to_string();
        for target in [
            link.parse().unwrap(),
            source.infohash().to_string().parse().unwrap(),
            "data set.tar".parse().unwrap(),
            Target::Only,
        ] {
            let mut plan = swarm.plan_for(target.clone());
            if let Target::Link(_) = target {
                // The link names the tracker.
                plan = plan.asking(&[]);
            }
            source.assert_fetched(&swarm.fetch(plan).fetched().await);
        }
    });
}

#[test]
fn no_tracker_is_needed_where_peers_are_named() {
    test(async |swarm| {
        let source = swarm.share("direct.bin", 2 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let plan = swarm.plan(&source, &[seeder.address]);
        source.assert_fetched(&swarm.fetch(plan).fetched().await);

        let link = source.link(Vec::new(), vec![seeder.address.into()]).to_string();
        let plan = swarm.plan_for(link.parse::<Target>().unwrap()).asking(&[]);
        source.assert_fetched(&swarm.fetch(plan).fetched().await);
    });
}

#[test]
fn two_shares_of_one_name_are_listed_and_never_mixed() {
    test(async |swarm| {
        let sources = [swarm.share("report.pdf", 2 * MIB), swarm.share("report.pdf", 3 * MIB)];
        for source in &sources {
            swarm.seed(source).await;
        }
        // Both seeders are at one address, which votes for the first.
        let infohashes = sources.each_ref().map(|source| source.infohash());
        for (target, asked) in [(Target::Name(name("report.pdf")), Some("report.pdf")), (Target::Only, None)]
        {
            let plan = swarm.plan_for(target);
            match swarm.fetch(plan).outcome().await {
                Err(FetchError::Ambiguous { name, shares, total }) => {
                    assert_eq!(total, 2);
                    assert_eq!(name.as_ref().map(ShareName::as_str), asked);
                    let listed: Vec<_> = shares.iter().map(|share| share.infohash).collect();
                    assert_eq!(listed, infohashes);
                }
                other => panic!("{other:?}"),
            }
        }
        for source in &sources {
            let plan = swarm.plan_for(source.infohash());
            source.assert_fetched(&swarm.fetch(plan).fetched().await);
        }
    });
}

#[test]
fn a_share_without_peers_is_reported_as_unknown() {
    test(async |swarm| {
        let plan = impatient(swarm.plan_for(Target::Only));
        assert!(matches!(swarm.fetch(plan).outcome().await, Err(FetchError::NothingShared)));

        let source = swarm.share("other.bin", MIB);
        swarm.seed(&source).await;
        let plan = impatient(swarm.plan_for(Target::Name(name("missing.bin"))));
        let outcome = swarm.fetch(plan).outcome().await;
        assert!(
            matches!(&outcome, Err(FetchError::UnknownName(name)) if name.as_str() == "missing.bin"),
            "{outcome:?}"
        );

        let infohash = InfoHash([7; 32]);
        let plan = impatient(swarm.plan_for(Target::InfoHash(infohash)));
        let outcome = swarm.fetch(plan).outcome().await;
        assert!(
            matches!(&outcome, Err(FetchError::Swarm(Failure::UnknownShare(hash))) if *hash == infohash),
            "{outcome:?}"
        );

        // The named peer is a seeder of something else.
        let stranger = swarm.share("stranger.bin", MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let plan = swarm.plan(&stranger, &[seeder.address]);
        let outcome = swarm.fetch(plan).outcome().await;
        let unknown = stranger.infohash();
        assert!(
            matches!(&outcome, Err(FetchError::Swarm(Failure::UnknownShare(hash))) if *hash == unknown),
            "{outcome:?}"
        );
    });
}

/// One tracker's port is closed. The other's is open, and nobody answers there.
#[test]
fn a_tracker_that_is_not_there_is_reported_as_unreachable() {
    test(async |swarm| {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let nowhere = closed.local_addr().unwrap();
        drop(closed);
        let mut fetches = Vec::new();
        for tracker in [nowhere, silent.local_addr().unwrap()] {
            for target in [Target::Name(name("a.bin")), Target::Only, Target::InfoHash(InfoHash([7; 32]))] {
                let plan = impatient(swarm.plan_for(target)).asking(&[tracker.into()]);
                fetches.push(swarm.fetch(plan));
            }
        }
        for fetch in &mut fetches {
            let outcome = fetch.outcome().await;
            assert!(matches!(&outcome, Err(FetchError::Swarm(Failure::NoTracker { .. }))), "{outcome:?}");
        }
    });
}

#[test]
fn one_of_two_trackers_is_enough() {
    test(async |swarm| {
        let source = swarm.share("redundant.bin", MIB);
        swarm.seed(&source).await;
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let trackers = [silent.local_addr().unwrap().into(), swarm.tracker()];
        let plan = swarm.plan_for(source.infohash()).asking(&trackers);
        source.assert_fetched(&swarm.fetch(plan).fetched().await);
    });
}
