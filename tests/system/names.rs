//! Strangers who give their shares the names of others, and others' shares wrong names.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use peer::tracker_client::TrackerClient;
use proto::{
    InfoHash, PeerId, Secret, Zone,
    tracker::{Announce, Completion, Event, Token},
};
use shoal::{FetchError, ShareName, Target};

use crate::{source::MIB, swarm::test};

fn name(name: &str) -> ShareName {
    ShareName::new(name).unwrap()
}

/// The registration of a seeder that is not there.
fn fake(infohash: InfoHash, name: ShareName) -> Announce {
    let mut rng = rand::rng();
    Announce {
        token: Token([0; 16]),
        infohash,
        peer_id: PeerId::random(&mut rng),
        secret: Secret::random(&mut rng),
        port: 9.try_into().unwrap(),
        name,
        size: 1,
        event: Event::Started,
        progress: Completion::COMPLETE,
        label: Default::default(),
        fetched: false,
        zone: Zone::NONE,
    }
}

/// After a restart a stranger comes back first: he gives the honest share another name, and its name to a file of his own.
#[test]
fn a_stranger_that_is_first_after_a_restart_does_not_get_the_name() {
    test(async |swarm| {
        let (honest, evil) = (swarm.share("report.pdf", 2 * MIB), swarm.share("report.pdf", 3 * MIB));
        swarm.restart_tracker_that_had_peers(Duration::from_secs(90)).await;
        let tracker = TrackerClient::spawn(swarm.tracker(), None, swarm.tasks());
        tracker.announce(fake(honest.infohash(), name("holiday.jpg"))).await.unwrap();
        swarm.seed(&evil).await;
        let plan = swarm.plan_for(Target::Name(name("report.pdf")));
        let mut fetch = swarm.fetch(plan);
        fetch.waits_for("restarted").await;
        swarm.seed(&honest).await;
        match fetch.outcome().await {
            Err(FetchError::Ambiguous { shares, total: 2, .. }) => {
                let listed: Vec<_> = shares.iter().map(|share| share.infohash).collect();
                assert!(listed.contains(&honest.infohash()) && listed.contains(&evil.infohash()));
            }
            other => panic!("{other:?}"),
        }
        // The link starts at once.
        let plan = swarm.plan_for(honest.infohash());
        honest.assert_fetched(&swarm.fetch(plan).fetched().await);
    });
}

/// If nobody else has come back when the tracker has heard from everybody, the share is the only one.
#[test]
fn a_restarted_tracker_is_believed_when_all_peers_had_time_to_come_back() {
    test(async |swarm| {
        let source = swarm.share("report.pdf", 2 * MIB);
        swarm.restart_tracker_that_had_peers(Duration::from_secs(3)).await;
        swarm.seed(&source).await;
        for target in [Target::Name(source.name()), Target::Only] {
            let plan = swarm.plan_for(target);
            source.assert_fetched(&swarm.fetch(plan).fetched().await);
        }
    });
}

#[test]
fn a_thousand_namesakes_from_one_address_do_not_hide_a_share() {
    test(async |swarm| {
        let source = swarm.share("report.pdf", MIB);
        let stranger = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66));
        let tracker = TrackerClient::spawn(swarm.tracker(), Some(stranger), swarm.tasks());
        for number in 0..1_000_u16 {
            let [high, low] = number.to_be_bytes();
            let mut infohash = [0; 32];
            infohash[..2].copy_from_slice(&[high, low]);
            tracker.announce(fake(InfoHash(infohash), name("report.pdf"))).await.unwrap();
        }
        swarm.seed(&source).await;
        let plan = swarm.plan_for(Target::Name(name("report.pdf")));
        match swarm.fetch(plan).outcome().await {
            Err(FetchError::Ambiguous { shares, total: 1_001, .. }) => {
                let place = shares.iter().position(|share| share.infohash == source.infohash());
                assert!(place.is_some_and(|place| place < 2), "{place:?}");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_share_that_has_another_name_than_at_the_tracker_is_refused() {
    test(async |swarm| {
        let source = swarm.share("holiday.jpg", MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let tracker = TrackerClient::spawn(swarm.tracker(), None, swarm.tasks());
        let port = seeder.address.port().try_into().unwrap();
        let announce = Announce { port, ..fake(source.infohash(), name("report.pdf")) };
        tracker.announce(announce).await.unwrap();
        let plan = swarm.plan_for(Target::Name(name("report.pdf")));
        match swarm.fetch(plan).outcome().await {
            Err(FetchError::Misnamed { name, real, infohash }) => {
                assert_eq!((name.as_str(), real.as_str()), ("report.pdf", "holiday.jpg"));
                assert_eq!(infohash, source.infohash());
            }
            other => panic!("{other:?}"),
        }
    });
}
