//! Files that change while they are shared.

use std::{fs::OpenOptions, io::Write};

use leecher::LeaveReason;

use crate::{proxy::Manner, source::MIB, swarm::test};

/// The seeder notices that its file is not what it shared any more, and the leecher turns to another one.
#[test]
fn a_seeder_whose_file_changed_is_left() {
    test(async |swarm| {
        let source = swarm.share("log.txt", 16 * MIB);
        let copy = swarm.copy(&source);
        let (changing, steady) = (swarm.seed_unannounced(&copy).await, swarm.seed_unannounced(&source).await);
        let changing = swarm.proxy(&changing, Manner::Honest).await;
        let steady = swarm.proxy(&steady, Manner::Honest).await;
        let config = swarm.config(&source, &[changing.address, steady.address]);
        let mut fetch = swarm.fetch(config);
        changing.allow(4 * MIB);
        fetch.done(2 * MIB).await;
        OpenOptions::new().append(true).open(&copy.path).unwrap().write_all(b"one more line\n").unwrap();
        changing.open();
        assert_eq!(fetch.left(changing.address).await, LeaveReason::Gone);
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
        let config = swarm.config(&source, &[changing.address, steady.address]);
        let mut fetch = swarm.fetch(config);
        assert_eq!(fetch.left(changing.address).await, LeaveReason::Gone);
        steady.open();
        source.assert_fetched(&fetch.fetched().await);
    });
}
