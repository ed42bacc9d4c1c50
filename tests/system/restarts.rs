//! A tracker that restarts, or that is hard to reach, during transfers.

use proto::Endpoint;
use tokio::net::UdpSocket;

use crate::{proxy::Manner, source::MIB, swarm::test};

/// A restarted tracker knows nobody. The seeder registers again by itself, and transfers go on.
#[test]
fn a_restarted_tracker_learns_everything_again() {
    test(async |swarm| {
        let source = swarm.share("release.tar", 8 * MIB);
        let held_back = swarm.seed_unannounced(&source).await;
        let proxy = swarm.proxy(&held_back, Manner::Honest).await;
        swarm.announce(&source, proxy.address).await;
        let plan = swarm.plan_for(source.name());
        let mut early = swarm.fetch(plan);
        proxy.allow(2 * MIB);
        early.done(MIB).await;

        let mut seeder = swarm.seed(&source).await;
        swarm.restart_tracker().await;
        seeder.announced_again().await;
        let plan = swarm.plan_for(source.name());
        source.assert_fetched(&swarm.fetch(plan).fetched().await);

        proxy.open();
        source.assert_fetched(&early.fetched().await);
    });
}

/// The first tracker answers at once that it does not know the share. The second one knows it, but the network
/// loses the first datagrams on the way there: the leecher has to wait for its answer.
#[test]
fn a_tracker_that_answers_late_counts_as_much_as_others() {
    test(async |swarm| {
        let source = swarm.share("rare.bin", MIB);
        swarm.seed(&source).await;
        let lossy = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let lossy_at = lossy.local_addr().unwrap();
        let trackers = [swarm.another_tracker().await, lossy_at.into()];
        let plan = swarm.plan_for(source.infohash()).asking(&trackers);
        let mut fetch = swarm.fetch(plan);
        tokio::select! {
            fetched = fetch.fetched() => source.assert_fetched(&fetched),
            () = relay_losing(3, lossy, swarm.tracker()) => unreachable!("relays for ever"),
        }
    });
}

/// Passes datagrams on to `server` and its replies back, except for the first `count` datagrams.
async fn relay_losing(mut count: u32, socket: UdpSocket, server: Endpoint) {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    upstream.connect((server.host, server.port)).await.unwrap();
    let (mut request, mut reply, mut client) = ([0; 1_500], [0; 1_500], None);
    loop {
        tokio::select! {
            received = socket.recv_from(&mut request) => {
                let (len, source) = received.unwrap();
                client = Some(source);
                if count > 0 {
                    count -= 1;
                } else {
                    upstream.send(&request[..len]).await.unwrap();
                }
            }
            received = upstream.recv(&mut reply) => {
                socket.send_to(&reply[..received.unwrap()], client.unwrap()).await.unwrap();
            }
        }
    }
}
