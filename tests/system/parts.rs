//! Transfers of some files of a share.

use std::{collections::BTreeSet, fs};

use shoal::{FilePattern, Stay};

use crate::{
    proxy::Manner,
    source::{CHUNK, MIB, Source, content, names_in},
    swarm::{Swarm, test},
};

fn only(pattern: &str) -> impl FnOnce(shoal::Fetch) -> shoal::Fetch {
    let pattern: FilePattern = pattern.parse().unwrap();
    |fetch| fetch.only([pattern])
}

/// Counted with everything that the seeder sends: the description of all files is small beside one of them.
#[test]
fn one_of_a_hundred_files_costs_little_more_than_its_bytes() {
    test(async |swarm| {
        let len = 4 * MIB;
        let source = swarm.share_directory("hundred", |root| {
            for number in 0..100 {
                let file = fs::File::create(root.join(format!("{number}.bin"))).unwrap();
                file.set_len(len).unwrap();
            }
            fs::write(root.join("42.bin"), content(len, 42)).unwrap();
        });
        let seeder = swarm.seed_unannounced(&source).await;
        let proxy = swarm.proxy(&seeder, Manner::Honest).await;
        proxy.open();
        let plan = swarm.plan(&source, &[proxy.address]).with(only("42.bin"));
        let fetched = swarm.fetch(plan).fetched().await;
        assert_eq!((fetched.size, fetched.wanted), (100 * len, len));
        assert_eq!(names_in(&fetched.path), ["42.bin"]);
        assert!(fs::read(fetched.path.join("42.bin")).unwrap() == content(len, 42));
        let traffic = proxy.traffic();
        assert_eq!(traffic.chunk_bytes, len);
        assert!(traffic.bytes * 100 <= len * 101, "{} bytes for a file of {len}", traffic.bytes);
    });
}

fn two_halves(swarm: &mut Swarm) -> Source {
    swarm.share_directory("halves", |root| {
        for (seed, name) in ["one", "two"].into_iter().enumerate() {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("large"), content(4 * CHUNK + 5, seed as u64)).unwrap();
            fs::write(root.join(name).join("small"), content(500, seed as u64)).unwrap();
        }
    })
}

/// Nobody has everything, and yet everything can be had.
#[test]
fn leechers_of_parts_serve_what_they_have_and_never_count_as_seeders() {
    test(async |swarm| {
        let source = two_halves(swarm);
        let origin = swarm.seed_unannounced(&source).await;
        let mut halves = Vec::new();
        for half in ["one", "two"] {
            let plan = swarm.plan_for(source.infohash()).with(only(half));
            let plan = plan.with(|fetch| fetch.peer(origin.address).stay(Stay::Forever));
            let mut fetch = swarm.fetch(plan);
            fetch.finished().await;
            halves.push(fetch);
        }
        origin.stop().await;
        while swarm.peers(&source).await.len() < 2 {}
        assert_eq!(swarm.seeders(&source).await, 0);
        let plan = swarm.plan_for(source.infohash());
        let fetched = swarm.fetch(plan).fetched().await;
        source.assert_fetched(&fetched);
        let senders = fetched.peers.iter().filter(|peer| peer.bytes > 0);
        let senders: BTreeSet<_> = senders.map(|peer| peer.address).collect();
        assert_eq!(senders.len(), 2, "{:?}", fetched.peers);
    });
}

/// All peers together have only half of the share. The leecher still waits, because a peer with the rest may come.
#[test]
fn a_transfer_waits_for_what_no_leecher_of_a_part_has() {
    test(async |swarm| {
        let source = two_halves(swarm);
        let origin = swarm.seed_unannounced(&source).await;
        let plan = swarm.plan_for(source.infohash()).with(only("one"));
        let plan = plan.with(|fetch| fetch.peer(origin.address).stay(Stay::Forever));
        let mut half = swarm.fetch(plan);
        half.finished().await;
        origin.stop().await;
        let plan = swarm.plan_for(source.infohash());
        let mut fetch = swarm.fetch(plan);
        fetch.done(4 * CHUNK + 505).await;
        assert!(fetch.goes_on().await);
        swarm.seed(&source).await;
        source.assert_fetched(&fetch.fetched().await);
    });
}
