//! Peers that deliver, but hardly.

use crate::{
    proxy::Manner,
    source::{KIB, MIB},
    swarm::test,
};

/// A peer that sends a byte now and then is never silent, yet its chunks must not be waited for: a seeder that
/// is slow, though much faster, has them too.
#[test]
fn a_trickle_does_not_hold_up_a_transfer() {
    test(async |swarm| {
        let source = swarm.share("trickle.bin", 4 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let trickle = swarm.proxy(&seeder, Manner::Honest).await;
        let slow = swarm.proxy(&seeder, Manner::Honest).await;
        let config = swarm.config(&source, &[trickle.address, slow.address]);
        let mut fetch = swarm.fetch(config);
        fetch.joined(trickle.address).await;
        fetch.joined(slow.address).await;
        // The leecher tells how far it is five times a second.
        while fetch.goes_on().await {
            trickle.allow(1);
            slow.allow(256 * KIB);
        }
        let fetched = fetch.fetched().await;
        source.assert_fetched(&fetched);
        assert_eq!(fetched.peers[0].address, slow.address);
    });
}
