//! Fake seeders among the peers that a tracker names. Every leecher has to find the honest ones.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use peer::tracker_client::TrackerClient;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::task::TaskTracker;

use crate::{
    source::{MIB, Source},
    swarm::{Swarm, seeder_at, test},
};

const LEECHERS: usize = 10;
const HONEST: usize = 3;

/// Ports that accept connections and send nothing: the system completes connections that no program accepts.
async fn silent_ports(ip: IpAddr, count: usize) -> Vec<TcpListener> {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind((ip, 0)).await.unwrap());
    }
    listeners
}

/// Registers a seeder at each of these addresses, from there.
async fn register(swarm: &Swarm, source: &Source, addresses: &[SocketAddr]) {
    let tasks = TaskTracker::new();
    let mut announcing = JoinSet::new();
    let mut client: Option<(IpAddr, TrackerClient)> = None;
    for address in addresses {
        let known = client.take().filter(|(ip, _)| *ip == address.ip());
        let (ip, tracker) = known.unwrap_or_else(|| {
            (address.ip(), TrackerClient::spawn(swarm.tracker(), Some(address.ip()), &tasks))
        });
        let announce = seeder_at(source, *address);
        client = Some((ip, tracker.clone()));
        announcing.spawn(async move { tracker.announce(announce).await.map(drop) });
        // A tracker drops datagrams when its socket is full.
        if announcing.len() >= 32 {
            announcing.join_next().await.unwrap().unwrap().unwrap();
        }
    }
    for announced in announcing.join_all().await {
        announced.unwrap();
    }
}

/// Leechers that know nobody but the tracker, beside honest seeders and these.
async fn all_finish(swarm: &mut Swarm, fakes: &[TcpListener], source: &Source) {
    for _ in 0..HONEST {
        swarm.seed(source).await;
    }
    let fakes: Vec<_> = fakes.iter().map(|fake| fake.local_addr().unwrap()).collect();
    register(swarm, source, &fakes).await;
    let mut fetches = Vec::new();
    for _ in 0..LEECHERS {
        let plan = swarm.plan_for(source.infohash());
        fetches.push(swarm.fetch(plan));
    }
    for mut fetch in fetches {
        source.assert_fetched(&fetch.fetched().await);
    }
}

#[test]
fn a_thousand_fakes_of_one_host_keep_no_leecher_from_its_file() {
    test(async |swarm| {
        let source = swarm.share("crowded.bin", 4 * MIB);
        let fakes = silent_ports([127, 0, 9, 1].into(), 1_000).await;
        all_finish(swarm, &fakes, &source).await;
    });
}

#[test]
fn a_hundred_silent_hosts_keep_no_leecher_from_its_file() {
    test(async |swarm| {
        let source = swarm.share("eclipsed.bin", 4 * MIB);
        let mut fakes = Vec::new();
        for host in 1..=100 {
            fakes.extend(silent_ports(Ipv4Addr::new(127, 0, 9, host).into(), 1).await);
        }
        all_finish(swarm, &fakes, &source).await;
    });
}
