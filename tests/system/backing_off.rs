//! Peers that turn a leecher away and ask it to come back at once.

use std::cell::Cell;

use proto::peer::{GoodbyeReason, PeerMessage, RejectReason};

use crate::{
    proxy::Manner,
    source::MIB,
    stranger::{Stranger, send},
    swarm::test,
};

/// The honest peer sends nothing until the leecher has made this number of progress reports. Each time that the leecher is
/// turned away it waits longer, so it comes back only a few times. If it believed those peers, it would come back thousands
/// of times.
const REPORTS: u32 = 10;

#[test]
fn a_leecher_comes_back_less_and_less_often() {
    test(async |swarm| {
        let source = swarm.share("busy.bin", 4 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let honest = swarm.proxy(&seeder, Manner::Honest).await;
        let (busy, full) = (Stranger::listen().await, Stranger::listen().await);
        let plan = swarm.plan(&source, &[busy.address, full.address, honest.address]);
        let mut fetch = swarm.fetch(plan);
        let (requests, dials) = (Cell::new(0), Cell::new(0));
        let reject = async {
            loop {
                let mut connection = busy.met(source.infohash()).await;
                while let Ok(Some(message)) = connection.reader.next().await {
                    let _ = connection.reader.skip_payload().await;
                    if let PeerMessage::Request { chunk, .. } = message {
                        requests.update(|requests| requests + 1);
                        let reason = RejectReason::Busy { retry_after_ms: 0 };
                        send(&mut connection, PeerMessage::Reject { chunk, reason }, &[]).await;
                    }
                }
            }
        };
        let turn_away = async {
            loop {
                full.turn_away(GoodbyeReason::TooManyPeers { retry_after_ms: 0 }).await;
                dials.update(|dials| dials + 1);
            }
        };
        let transfer = async {
            for _ in 0..REPORTS {
                assert!(fetch.goes_on().await);
            }
            assert!((2..3 * REPORTS).contains(&requests.get()), "{} requests", requests.get());
            assert!((2..3 * REPORTS).contains(&dials.get()), "{} dials", dials.get());
            honest.open();
            fetch.fetched().await
        };
        let fetched = tokio::select! {
            fetched = transfer => fetched,
            () = reject => unreachable!(),
            () = turn_away => unreachable!(),
        };
        source.assert_fetched(&fetched);
    });
}
