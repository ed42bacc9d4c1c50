//! A leecher that has an earlier version of a directory of many files fetches what differs of the description, and no more.

use std::{fs, path::Path};

use evil::{Kind, Share};
use shoal::LeaveReason;

use crate::{
    evil::{Den, Pair, assert_none},
    fetch::Plan,
    proxy::{Manner, Proxy},
    source::{Source, content},
    swarm::{Swarm, test},
};

/// Their description has some 23,000 bytes.
const FILES: u64 = 300;

/// Bytes in each.
const LEN: u64 = 1_000;

/// Bytes of all messages of an update of one file: the outline, some sections, the file and a little more.
const FEW: u64 = 3_000;

/// Version `version` of the files, of which it differs from others in the middle one.
fn fill(dir: &Path, version: u64) {
    for file in 0..FILES {
        let seed = if file == FILES / 2 { 10_000 + version } else { file };
        fs::write(dir.join(format!("file{file:03}")), content(LEN, seed)).unwrap();
    }
}

/// A share that is fetched through a proxy where its earlier version is.
async fn updated(swarm: &mut Swarm, manner: Manner) -> (Source, Proxy, Plan) {
    let source = swarm.share_directory("files", |dir| fill(dir, 2));
    let seeder = swarm.seed_unannounced(&source).await;
    let proxy = swarm.proxy(&seeder, manner).await;
    swarm.announce(&source, proxy.address).await;
    let plan = swarm.plan_for(source.infohash());
    let old = plan.directory.join("leeched_files");
    fs::create_dir(&old).unwrap();
    fill(&old, 1);
    (source, proxy, plan.with(|fetch| fetch.update().output(old)))
}

#[test]
fn only_what_differs_of_the_description_travels() {
    test(async |swarm| {
        let (source, proxy, plan) = updated(swarm, Manner::Honest).await;
        proxy.open();
        let fetched = swarm.fetch(plan).fetched().await;
        source.assert_fetched(&fetched);
        assert_eq!(fetched.reused, (FILES - 1) * LEN);
        assert!(proxy.traffic().bytes < FEW, "{:?}", proxy.traffic());
    });
}

/// Sums are short, so a metainfo that is put together from them and is wrong accuses nobody.
#[test]
fn a_wrong_metainfo_is_fetched_whole_from_the_same_peer() {
    test(async |swarm| {
        let (source, proxy, plan) = updated(swarm, Manner::SwappedOutline).await;
        proxy.open();
        source.assert_fetched(&swarm.fetch(plan).fetched().await);
        assert!(proxy.traffic().bytes > 23_000, "{:?}", proxy.traffic());
        assert_eq!(proxy.traffic().hellos, 1);
    });
}

/// They have not the sums that their sender gave them.
#[test]
fn wrong_sections_cost_their_sender_the_connection() {
    for lie in [Manner::WrongOutline, Manner::WrongSections] {
        test(async |swarm| {
            let (source, liar, plan) = updated(swarm, lie).await;
            let mut fetch = swarm.fetch(plan);
            assert_eq!(fetch.left(liar.address).await, LeaveReason::Lied, "{lie:?}");
            swarm.seed(&source).await;
            source.assert_fetched(&fetch.fetched().await);
        });
    }
}

/// One whose sections add up to another description, and one whose outline has no end.
#[test]
fn liars_about_outlines_meet_their_fate() {
    for kind in [Kind::OtherOutline, Kind::EndlessOutline] {
        test(async |swarm| {
            let source = swarm.share_directory("files", |dir| fill(dir, 2));
            let seeder = swarm.seed_unannounced(&source).await;
            let honest = swarm.proxy(&seeder, Manner::HoldsDescription).await;
            let evil = Den::of(Share::of_directory(&source.path).unwrap()).peer(kind);
            let plan = swarm.plan(&source, &[evil.address, honest.address]);
            let old = plan.directory.join("leeched_files");
            fs::create_dir(&old).unwrap();
            fill(&old, 1);
            let fetch = swarm.fetch(plan.with(|fetch| fetch.update().output(old)));
            assert_none(&Pair { evil, honest, fetch }.ends(source).await);
        });
    }
}
