//! Seeders that vanish in the middle of a transfer, and seeders that come late.

use shoal::LeaveReason;

use crate::{proxy::Manner, source::MIB, swarm::test};

#[test]
fn a_seeder_vanishes_and_another_one_carries_on() {
    test(async |swarm| {
        let source = swarm.share("vm.qcow2", 16 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let doomed = swarm.proxy(&seeder, Manner::Honest).await;
        let spare = swarm.proxy(&seeder, Manner::Honest).await;
        let plan = swarm.plan(&source, &[doomed.address, spare.address]);
        let mut fetch = swarm.fetch(plan);
        // It vanishes in the middle of a chunk, while the other one sends too.
        let (doomed_at, until_then) = (doomed.address, 5 * MIB + 1_000);
        doomed.allow(until_then);
        spare.allow(4 * MIB);
        fetch.joined(spare.address).await;
        doomed.until(|traffic| traffic.chunk_bytes == until_then).await;
        doomed.kill().await;
        assert_eq!(fetch.left(doomed_at).await, LeaveReason::Disconnected);
        spare.open();
        let fetched = fetch.fetched().await;
        source.assert_fetched(&fetched);
        assert_eq!(fetched.peers.iter().map(|peer| peer.bytes).sum::<u64>(), source.size());
        assert!(fetched.peers.iter().all(|peer| peer.address != doomed_at || peer.bytes <= until_then));
    });
}

/// A transfer that lost its only seeder waits, and finds the next one by itself.
#[test]
fn a_late_seeder_is_found() {
    test(async |swarm| {
        let source = swarm.share("nightly.img", 16 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let doomed = swarm.proxy(&seeder, Manner::Honest).await;
        swarm.announce(&source, doomed.address).await;
        let plan = swarm.plan_for(source.infohash());
        let mut fetch = swarm.fetch(plan);
        doomed.allow(8 * MIB);
        fetch.done(4 * MIB).await;
        let doomed_at = doomed.address;
        doomed.kill().await;
        assert_eq!(fetch.left(doomed_at).await, LeaveReason::Disconnected);

        let late = swarm.seed(&source).await;
        let fetched = fetch.fetched().await;
        source.assert_fetched(&fetched);
        let [of_late, of_doomed] = [late.address, doomed_at].map(|address| {
            fetched.peers.iter().find(|peer| peer.address == address).map_or(0, |peer| peer.bytes)
        });
        assert!((4 * MIB..=8 * MIB).contains(&of_doomed), "{of_doomed}");
        assert_eq!(of_late + of_doomed, source.size());
    });
}

/// A connection that breaks is made again.
#[test]
fn a_seeder_that_is_back_is_used_again() {
    test(async |swarm| {
        let source = swarm.share("flaky.bin", 8 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let proxy = swarm.proxy(&seeder, Manner::Honest).await;
        let plan = swarm.plan(&source, &[proxy.address]);
        let mut fetch = swarm.fetch(plan);
        proxy.allow(3 * MIB);
        fetch.done(2 * MIB).await;
        proxy.cut();
        assert_eq!(fetch.left(proxy.address).await, LeaveReason::Disconnected);
        proxy.open();
        let fetched = fetch.fetched().await;
        source.assert_fetched(&fetched);
        assert_eq!(fetched.peers[0].bytes, source.size());
    });
}
