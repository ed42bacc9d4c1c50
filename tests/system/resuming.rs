//! Transfers that stop in the middle and are resumed.

use std::{
    fs::{self, OpenOptions},
    ops::{ControlFlow, Range},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::ChunkIndex;
use shoal::{FetchError, FetchEvent};
use store::{Content, Download, Output, Wanted};

use crate::{
    fetch::part_of,
    proxy::Manner,
    source::{CHUNK, MIB, Source, names_in},
    swarm::test,
};

/// No byte that was fetched before the leecher stopped is fetched again.
#[test]
fn a_stopped_leecher_goes_on_where_it_was() {
    test(async |swarm| {
        let source = swarm.share("weights.bin", 16 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let proxy = swarm.proxy(&seeder, Manner::Honest).await;
        let plan = swarm.plan(&source, &[proxy.address]);
        let mut first = swarm.fetch(plan.clone());
        proxy.allow(8 * MIB + 1_000);
        first.done(8 * MIB).await;
        first.stop();
        let started = first.started().await;
        let part = part_of(&started);
        match first.outcome().await {
            Err(FetchError::Interrupted { part: left }) => assert_eq!(left.as_ref(), Some(&part)),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            names_in(part.parent().unwrap()),
            ["leeched_weights.bin.part", "leeched_weights.bin.resume"]
        );
        source.assert_part(&part);

        let proxy = swarm.proxy(&seeder, Manner::Honest).await;
        proxy.open();
        let again = swarm.plan(&source, &[proxy.address]).into_directory(&plan.directory);
        let mut second = swarm.fetch(again);
        let started = second.started().await;
        assert_eq!((started.resumed, started.lost_chunks), (8 * MIB, 0));
        let fetched = second.fetched().await;
        source.assert_fetched(&fetched);
        assert_eq!(fetched.peers.iter().map(|peer| peer.bytes).sum::<u64>(), source.size() - 8 * MIB);
        assert_eq!(proxy.traffic().chunk_bytes, source.size() - 8 * MIB);
    });
}

/// A crash leaves the claims of the last checkpoint, and chunks after it that no claim covers.
#[test]
fn a_crashed_leecher_goes_on_from_its_last_checkpoint() {
    test(async |swarm| {
        let source = swarm.share("backup.tar", 16 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let plan = swarm.plan(&source, &[seeder.address]);
        leave_part(&source, &plan.directory, 0..16, 16..20);
        let mut fetch = swarm.fetch(plan);
        let started = fetch.started().await;
        assert_eq!((started.resumed, started.lost_chunks), (16 * CHUNK, 0));
        let fetched = fetch.fetched().await;
        source.assert_fetched(&fetched);
        assert_eq!(fetched.peers[0].bytes, source.size() - 16 * CHUNK);
    });
}

/// The chunks are on disk, and a claim that cannot be written does not stop the transfer.
#[test]
fn a_leecher_that_cannot_save_how_far_it_is_reports_that_once_and_goes_on() {
    test(async |swarm| {
        let source = swarm.share("disk.img", 8 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let proxy = swarm.proxy(&seeder, Manner::Honest).await;
        let plan = swarm.plan(&source, &[proxy.address]);
        let mut fetch = swarm.fetch(plan);
        let resume = Output::at(fetch.started().await.output).resume_path();
        // Something that the leecher must not overwrite.
        fs::remove_file(&resume).unwrap();
        fs::write(&resume, "precious").unwrap();
        proxy.allow(4 * MIB);
        let unsaved = |event: &FetchEvent| match event {
            FetchEvent::Unsaved(error) => Some(error.to_string()),
            _ => None,
        };
        let why = fetch.event(unsaved).await;
        assert!(why.contains("leeched_disk.img.resume"), "{why}");
        proxy.open();
        let fetched = fetch.fetched().await;
        assert_eq!(fetch.story().iter().filter_map(unsaved).count(), 1);
        assert_eq!(fs::read(&resume).unwrap(), b"precious");
        fs::remove_file(&resume).unwrap();
        source.assert_fetched(&fetched);
    });
}

/// What a resume file claims is proved, not believed.
#[test]
fn a_part_that_rotted_is_fetched_again_where_it_is_wrong() {
    test(async |swarm| {
        let source = swarm.share("archive.zip", 16 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let plan = swarm.plan(&source, &[seeder.address]);
        let part = leave_part(&source, &plan.directory, 0..16, 0..0);
        let file = OpenOptions::new().write(true).open(part).unwrap();
        for chunk in [3, 9] {
            file.write_all_at(&[0], chunk * CHUNK + 77).unwrap();
        }
        let mut fetch = swarm.fetch(plan);
        let started = fetch.started().await;
        assert_eq!((started.resumed, started.lost_chunks), (14 * CHUNK, 2));
        source.assert_fetched(&fetch.fetched().await);
    });
}

/// There is nothing left to fetch, so the seeder is needed only for the description.
#[test]
fn a_complete_part_is_only_proved() {
    test(async |swarm| {
        let source = swarm.share("whole.bin", 4 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let proxy = swarm.proxy(&seeder, Manner::Honest).await;
        let plan = swarm.plan(&source, &[proxy.address]);
        leave_part(&source, &plan.directory, 0..32, 0..0);
        let fetched = swarm.fetch(plan).fetched().await;
        source.assert_fetched(&fetched);
        assert_eq!(fetched.peers, []);
        assert_eq!(proxy.traffic().chunk_bytes, 0);
    });
}

/// Leaves the files of a leecher that stored `durable`, made a checkpoint, and crashed after it stored `lost`.
fn leave_part(source: &Source, dir: &Path, durable: Range<u32>, lost: Range<u32>) -> PathBuf {
    let output = Output::in_dir(dir, &source.name());
    let part = output.part_path();
    let metainfo = Arc::new(source.shared.metainfo().clone());
    let hashes = source.shared.hashes().clone();
    let wanted = Wanted::all(&metainfo);
    let (download, _) =
        Download::open(metainfo, hashes, output, wanted, &[], None, &|_| ControlFlow::Continue(())).unwrap();
    let content = fs::read(&source.path).unwrap();
    let chunks: Vec<_> = content.chunks(CHUNK as usize).collect();
    let store = |chunk: u32| {
        download.store(ChunkIndex(chunk), chunks[chunk as usize]).unwrap();
    };
    durable.for_each(store);
    download.checkpoint().unwrap();
    lost.for_each(store);
    part
}
