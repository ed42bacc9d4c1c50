//! One seeder, several, and one with too many leechers.

use shoal::Node;

use crate::{
    proxy::{Manner, Proxy},
    source::{CHUNK, MIB},
    swarm::test,
};

#[test]
fn a_file_comes_whole_from_one_seeder() {
    test(async |swarm| {
        let source = swarm.share("large_text_file.txt", 16 * MIB + 12_345);
        let seeder = swarm.seed(&source).await;
        let plan = swarm.plan_for(source.name());
        let fetched = swarm.fetch(plan).fetched().await;
        source.assert_fetched(&fetched);
        assert_eq!(fetched.path.file_name().unwrap(), "leeched_large_text_file.txt");
        let shares: Vec<_> = fetched.peers.iter().map(|peer| (peer.address, peer.bytes)).collect();
        assert_eq!(shares, [(seeder.address, source.size())]);
        assert_eq!(fetched.wasted, 0);
    });
}

/// Two of them may send at most two fifths each, so all three are needed.
#[test]
fn a_file_comes_from_three_seeders_at_once() {
    test(async |swarm| {
        let source = swarm.share("image.iso", 24 * MIB);
        let mut proxies: Vec<Proxy> = Vec::new();
        for _ in 0..3 {
            let seeder = swarm.seed_unannounced(&source).await;
            let proxy = swarm.proxy(&seeder, Manner::Honest).await;
            swarm.announce(&source, proxy.address).await;
            proxies.push(proxy);
        }
        let plan = swarm.plan_for(source.name());
        let mut fetch = swarm.fetch(plan);
        for proxy in &proxies {
            fetch.joined(proxy.address).await;
        }
        let most = source.size() * 2 / 5;
        for proxy in &proxies[1..] {
            proxy.allow(most);
            proxy.until(|traffic| traffic.chunk_bytes >= 2 * CHUNK).await;
        }
        proxies[0].open();
        let fetched = fetch.fetched().await;
        source.assert_fetched(&fetched);
        let share = |proxy: &Proxy| {
            fetched.peers.iter().find(|peer| peer.address == proxy.address).map_or(0, |peer| peer.bytes)
        };
        assert!(share(&proxies[0]) >= source.size() - 2 * most, "{:?}", fetched.peers);
        for proxy in &proxies[1..] {
            assert!((CHUNK..=most).contains(&share(proxy)), "{:?}", fetched.peers);
        }
        assert_eq!(fetched.peers.iter().map(|peer| peer.bytes).sum::<u64>(), source.size());
        assert!(fetched.peers.is_sorted_by_key(|peer| std::cmp::Reverse(peer.bytes)));
    });
}

#[test]
fn ten_leechers_fetch_from_one_seeder_at_once() {
    test(async |swarm| {
        let source = swarm.share("model.bin", 4 * MIB);
        swarm.seed(&source).await;
        let mut fetches = Vec::new();
        for _ in 0..10 {
            let plan = swarm.plan_for(source.name());
            fetches.push(swarm.fetch(plan));
        }
        for fetch in &mut fetches {
            source.assert_fetched(&fetch.fetched().await);
        }
    });
}

#[test]
fn a_leecher_that_finds_no_room_comes_back_later() {
    test(async |swarm| {
        let source = swarm.share("popular.bin", 8 * MIB);
        let seeder = swarm.seed_with(Node::builder().max_peers(1), &source).await;
        let first_way = swarm.proxy(&seeder, Manner::Honest).await;
        let second_way = swarm.proxy(&seeder, Manner::Honest).await;
        second_way.open();

        let plan = swarm.plan(&source, &[first_way.address]);
        let mut first = swarm.fetch(plan);
        first_way.allow(MIB);
        first_way.until(|traffic| traffic.chunk_bytes == MIB).await;

        let plan = swarm.plan(&source, &[second_way.address]);
        let mut second = swarm.fetch(plan);
        second_way.until(|traffic| traffic.closed == 1).await;
        assert!(!second.knows(second_way.address));

        first_way.open();
        source.assert_fetched(&first.fetched().await);
        source.assert_fetched(&second.fetched().await);
    });
}
