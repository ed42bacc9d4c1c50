//! Files that change while they are shared.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    sync::Arc,
    time::Duration,
};

use proto::{ChunkIndex, Metainfo};
use shoal::{Failure, FetchError, FetchEvent, LeaveReason, Node, Stay};
use store::{ChunkHashes, ChunkSource, Content, OpenChunkError, Shared};

use crate::{
    proxy::Manner,
    source::{MIB, content},
    swarm::test,
};

/// A share whose last chunk cannot be read.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "its test needs /proc"))]
#[derive(Debug)]
struct Unreadable(Arc<Shared>);

impl Content for Unreadable {
    fn metainfo(&self) -> &Metainfo {
        self.0.metainfo()
    }

    fn hashes(&self) -> &ChunkHashes {
        self.0.hashes()
    }

    fn try_open_chunk(&self, _: ChunkIndex) -> Option<Result<ChunkSource, OpenChunkError>> {
        None
    }

    fn open_chunk(&self, chunk: ChunkIndex) -> Result<ChunkSource, OpenChunkError> {
        let source = self.0.open_chunk(chunk)?;
        if chunk.0 + 1 < self.metainfo().chunk_space().chunk_count() {
            return Ok(source);
        }
        // The start of a process's memory, where nothing ever is: reading gives an I/O error.
        let file = Arc::new(File::open("/proc/self/mem").unwrap());
        Ok(ChunkSource { file, offset: 0, ..source })
    }
}

/// The seeder rejects the chunk and reports the reason once. The leecher stops asking for it.
#[cfg(target_os = "linux")]
#[test]
fn a_chunk_that_cannot_be_read_is_refused() {
    test(async |swarm| {
        let source = swarm.share("damaged.bin", 4 * MIB);
        let content = Arc::new(Unreadable(Arc::clone(&source.shared)));
        let mut seeder = swarm.seed_content(content).await;
        let plan = swarm.plan(&source, &[seeder.address]);
        let plan = plan.with(|fetch| fetch.stall_timeout(Duration::from_secs(5)));
        assert!(swarm.fetch(plan).outcome().await.is_err());
        let withdrawn = seeder.withdrawn().await;
        assert_eq!(withdrawn, ["cannot read damaged.bin"]);
    });
}

/// One share of two: the tracker forgets it and still knows the other.
#[test]
fn a_share_that_changed_is_withdrawn_and_the_others_stay() {
    test(async |swarm| {
        let (changing, steady) = (swarm.share("changing.bin", 4 * MIB), swarm.share("steady.bin", 4 * MIB));
        let node = swarm.node(Node::builder().tracker(swarm.tracker()));
        let mut withdrawing = swarm.seed_on(&node, &changing).await;
        withdrawing.announced(1).await;
        swarm.seed_on(&node, &steady).await.announced(1).await;
        fs::write(&changing.path, content(5 * MIB, 99)).unwrap();
        let plan = swarm.plan(&changing, &[withdrawing.address]);
        let plan = plan.with(|fetch| fetch.stall_timeout(Duration::from_secs(5)));
        assert!(swarm.fetch(plan).outcome().await.is_err());
        let withdrawn = withdrawing.withdrawn().await;
        let [reason] = &withdrawn[..] else { panic!("{withdrawn:?}") };
        assert!(reason.contains("changing.bin changed") && reason.contains("5242880"), "{reason}");
        while swarm.seeders(&changing).await > 0 {}
        assert_eq!(swarm.seeders(&steady).await, 1);
        let plan = swarm.plan_for(steady.name());
        steady.assert_fetched(&swarm.fetch(plan).fetched().await);
    });
}

/// The seeder notices that its file changed, and the leecher continues with another seeder.
#[test]
fn a_seeder_whose_file_changed_is_left() {
    test(async |swarm| {
        let source = swarm.share("log.txt", 16 * MIB);
        let copy = swarm.copy(&source);
        let (changing, steady) = (swarm.seed_unannounced(&copy).await, swarm.seed_unannounced(&source).await);
        let changing = swarm.proxy(&changing, Manner::Honest).await;
        let steady = swarm.proxy(&steady, Manner::Honest).await;
        let plan = swarm.plan(&source, &[changing.address, steady.address]);
        let mut fetch = swarm.fetch(plan);
        changing.allow(4 * MIB);
        fetch.done(2 * MIB).await;
        OpenOptions::new().append(true).open(&copy.path).unwrap().write_all(b"one more line\n").unwrap();
        changing.open();
        // Not before it came back: the chunk in flight stayed incomplete when the file changed.
        fetch.left_for(changing.address, LeaveReason::FileChanged).await;
        steady.open();
        let fetched = fetch.fetched().await;
        source.assert_fetched(&fetched);
        assert_eq!(fetched.peers.iter().map(|peer| peer.bytes).sum::<u64>(), source.size());
    });
}

#[test]
fn a_seeder_whose_file_was_cut_short_is_left() {
    test(async |swarm| {
        let source = swarm.share("cut.bin", 16 * MIB);
        let copy = swarm.copy(&source);
        let (changing, steady) = (swarm.seed_unannounced(&copy).await, swarm.seed_unannounced(&source).await);
        OpenOptions::new().write(true).open(&copy.path).unwrap().set_len(MIB).unwrap();
        let steady = swarm.proxy(&steady, Manner::Honest).await;
        let plan = swarm.plan(&source, &[changing.address, steady.address]);
        let mut fetch = swarm.fetch(plan);
        assert_eq!(fetch.left(changing.address).await, LeaveReason::FileChanged);
        steady.open();
        source.assert_fetched(&fetch.fetched().await);
    });
}

/// One file of eight changed: the other seven come from this seeder, and the changed one comes from another.
#[test]
fn a_seeder_is_used_for_the_files_that_did_not_change() {
    test(async |swarm| {
        let fill = |dir: &std::path::Path| {
            for number in 0..8 {
                fs::write(dir.join(format!("{number}.bin")), content(MIB, 70 + number)).unwrap();
            }
        };
        let (source, copy) = (swarm.share_directory("eight", fill), swarm.share_directory("eight", fill));
        assert_eq!(source.infohash(), copy.infohash());
        let changed = swarm.seed_unannounced(&copy).await;
        fs::write(copy.path.join("3.bin"), content(MIB, 99)).unwrap();

        // If nobody has the changed one, the others arrive, and the error names the reason.
        let plan = swarm.plan(&source, &[changed.address]);
        let mut fetch = swarm.fetch(plan);
        fetch.done(7 * MIB).await;
        let outcome = fetch.outcome().await;
        assert!(matches!(outcome, Err(FetchError::Swarm(Failure::AllChanged))), "{outcome:?}");

        let steady = swarm.seed_unannounced(&source).await;
        let steady = swarm.proxy(&steady, Manner::Honest).await;
        let plan = swarm.plan(&source, &[changed.address, steady.address]);
        let mut fetch = swarm.fetch(plan);
        fetch.done(7 * MIB).await;
        steady.open();
        let fetched = fetch.fetched().await;
        source.assert_fetched(&fetched);
        let of_changed = fetched.peers.iter().find(|peer| peer.address == changed.address);
        assert_eq!(of_changed.map(|peer| peer.bytes), Some(7 * MIB));
    });
}

/// A leecher that stays serves the file that it saved. When the file changes, it reports that and leaves, and sends nothing
/// wrong.
#[test]
fn a_leecher_that_stays_leaves_when_its_file_changed() {
    test(async |swarm| {
        let source = swarm.share("kept.bin", 4 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let plan = swarm.plan_for(source.infohash());
        let plan = plan.with(|fetch| fetch.peer(seeder.address).stay(Stay::Forever));
        let mut staying = swarm.fetch(plan);
        let saved = staying.event(|event| match event {
            FetchEvent::Finished(fetched) => Some(fetched.path.clone()),
            _ => None,
        });
        let saved = saved.await;
        let address = swarm.known_peer(source.infohash()).await;
        fs::write(&saved, content(4 * MIB, 99)).unwrap();

        let plan = swarm.plan(&source, &[address]);
        let plan = plan.with(|fetch| fetch.stall_timeout(Duration::from_secs(1)));
        let mut misled = swarm.fetch(plan);
        staying.fetched().await;
        let why = staying.event(|event| match event {
            FetchEvent::CannotServe(error) => Some(error.to_string()),
            _ => None,
        });
        assert!(why.await.contains("kept.bin changed"));
        assert_eq!(swarm.seeders(&source).await, 0);
        let outcome = misled.outcome().await;
        assert!(
            matches!(outcome, Err(FetchError::Swarm(Failure::AllChanged | Failure::Stalled { .. }))),
            "{outcome:?}"
        );
        assert!(
            misled
                .story()
                .iter()
                .all(|event| !matches!(event, FetchEvent::PeerLeft { reason: LeaveReason::Lied, .. }))
        );
    });
}
