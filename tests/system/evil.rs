//! Evil peers (`crates/evil`) of every kind: each alone, all together, and in random mixes, always beside one honest seeder.
//!
//! Every transfer has to end with the right bytes. A liar gets at most one wrong chunk in, and is not asked again. A peer that
//! violates the protocol, or floods, loses its connection. How long a transfer takes is measured by `bench/evil`.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use evil::{EvilPeer, Fate, KINDS, Kind, Share};
use proto::peer::GoodbyeReason;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use shoal::{Fetched, LeaveReason};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::task::TaskTracker;

use crate::{
    fetch::Fetch,
    proxy::{Manner, Proxy},
    source::{CHUNK, MIB, Source},
    swarm::{Swarm, test},
};

/// Transfers that run at the same time.
const AT_A_TIME: usize = 16;

/// A peer that has not met its fate by then never will.
const FATE_TIMEOUT: Duration = Duration::from_secs(20);

/// Chunks that a peer of which none was proved may send.
const MOST_WRONG: u32 = 2;

/// Parts of an outline that a peer may send until one contradicts another.
const MOST_PARTS: u32 = 2;

/// Evil peers of a random mix.
const MIX: usize = 8;

/// Several chunks, of which the last is short.
const SIZE: u64 = 8 * MIB + 5_000;

/// Evil peers that end with the test. Each has an IP address of its own, because liars are banned by that.
pub(crate) struct Den {
    share: Arc<Share>,
    tasks: TaskTracker,
    last_ip: u32,
}

impl Den {
    fn new(source: &Source) -> Den {
        Den::of(Share::of_file(&source.path).unwrap())
    }

    pub(crate) fn of(share: Share) -> Den {
        let share = Arc::new(share);
        let last_ip = Ipv4Addr::new(127, 0, 0, 1).to_bits();
        Den { share, tasks: TaskTracker::new(), last_ip }
    }

    fn ip(&mut self) -> IpAddr {
        self.last_ip += 1;
        Ipv4Addr::from_bits(self.last_ip).into()
    }

    pub(crate) fn peer(&mut self, kind: Kind) -> EvilPeer {
        let ip = self.ip();
        EvilPeer::listen(kind, &self.share, ip, &self.tasks).unwrap()
    }

    fn caller(&mut self, kind: Kind) -> EvilPeer {
        let ip = self.ip();
        EvilPeer::call_back(kind, &self.share, ip, &self.tasks).unwrap()
    }
}

/// A transfer from one evil peer and one honest one, which sends nothing until it is opened.
pub(crate) struct Pair {
    pub(crate) evil: EvilPeer,
    pub(crate) honest: Proxy,
    pub(crate) fetch: Fetch,
}

impl Pair {
    /// Waits until the evil peer has met its fate, and then for the end of the transfer. Returns what was wrong.
    pub(crate) async fn ends(mut self, source: Source) -> Vec<String> {
        let Pair { evil, honest, fetch } = &mut self;
        let kind = evil.kind;
        let fate = async {
            match kind.fate() {
                Fate::Useful | Fate::Idle => {}
                Fate::Dropped => evil.until(|record| record.closed > 0).await,
                Fate::Lied => fetch.left_for(evil.address, LeaveReason::Lied).await,
            }
        };
        let mut wrong = Vec::new();
        if timeout(FATE_TIMEOUT, fate).await.is_err() {
            wrong.push(format!("{kind} does not meet its fate: {:?}", evil.record()));
        }
        honest.open();
        let fetched = fetch.fetched().await;
        source.assert_fetched(&fetched);
        wrong.extend(use_of(evil, honest, &fetched));
        let record = evil.record();
        if kind.fate() >= Fate::Dropped && record.connections != 1 {
            wrong.push(format!("{kind} comes back: {record:?}"));
        }
        if kind == Kind::EndlessOutline && record.metainfo_parts > MOST_PARTS {
            wrong.push(format!("{kind} is listened to: {record:?}"));
        }
        wrong.extend(belief(evil).into_iter().chain(return_of(evil)));
        wrong
    }
}

/// What is wrong if a liar that nobody else was faster than was believed. If its first chunk takes long to arrive, it is asked for a second
/// one, which is not proved before the first. One that was trusted before may have sent what it was already asked for.
fn belief(evil: &EvilPeer) -> Option<String> {
    let (kind, record) = (evil.kind, evil.record());
    let is_believed = kind != Kind::HonestThenWrong && record.wrong_chunks > MOST_WRONG;
    is_believed.then(|| format!("{kind} is believed: {record:?}"))
}

/// What is wrong if the honest peer, which sends nothing before the other has met its fate, was not needed. Then that other was not dropped
/// for what it did: its connection ended because the transfer did.
fn use_of(evil: &EvilPeer, honest: &Proxy, fetched: &Fetched) -> Option<String> {
    let is_needed = fetched.peers.iter().any(|peer| peer.address == honest.address && peer.bytes > 0);
    let is_missing = evil.kind.fate() >= Fate::Dropped && !is_needed;
    is_missing.then(|| format!("{} is relied on: {:?}", evil.kind, evil.record()))
}

/// What is wrong if a liar was dialled again.
fn return_of(evil: &EvilPeer) -> Option<String> {
    let record = evil.record();
    (record.dialled_again > 0).then(|| format!("{} is dialled again: {record:?}", evil.kind))
}

#[track_caller]
pub(crate) fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_kind_that_is_dialled_meets_its_fate() {
    let mut wrong = Vec::new();
    for kinds in KINDS.chunks(AT_A_TIME) {
        test(async |swarm| {
            let source = swarm.share("besieged.bin", SIZE);
            let seeder = swarm.seed_unannounced(&source).await;
            let mut den = Den::new(&source);
            let mut pairs = JoinSet::new();
            for &kind in kinds {
                let evil = den.peer(kind);
                let honest = swarm.proxy(&seeder, Manner::HoldsDescription).await;
                // By a link with a name, the first that is dialled is asked for any chunk with the description.
                let plan = swarm.plan_for(source.link(Vec::new(), Vec::new())).asking(&[]);
                let plan = plan.with(|fetch| fetch.peer(evil.address).peer(honest.address));
                let fetch = swarm.fetch(plan);
                pairs.spawn(Pair { evil, honest, fetch }.ends(source.clone()));
            }
            wrong.extend(pairs.join_all().await.into_iter().flatten());
        });
    }
    assert_none(&wrong);
}

/// The kinds that do something wrong after the description.
fn visitors() -> Vec<Kind> {
    KINDS.iter().copied().skip_while(|&kind| kind != Kind::WrongBytes).collect()
}

/// A leecher that has an earlier version asks for hashes of blocks, and then for blocks.
#[test]
fn liars_about_parts_of_chunks_meet_their_fate() {
    let mut wrong = Vec::new();
    test(async |swarm| {
        let source = swarm.share("patched.bin", SIZE);
        let mut bytes = fs::read(&source.path).unwrap();
        bytes.iter_mut().step_by(CHUNK as usize).for_each(|byte| *byte ^= 1);
        let earlier = source.path.with_file_name("earlier").join("patched.bin");
        fs::create_dir(earlier.parent().unwrap()).unwrap();
        fs::write(&earlier, bytes).unwrap();
        let seeder = swarm.seed_unannounced(&source).await;
        let mut den = Den::new(&source);
        let mut pairs = JoinSet::new();
        for kind in [Kind::WrongBytes, Kind::WrongAndAway, Kind::WrongBlocks, Kind::Honest] {
            let evil = den.peer(kind);
            let honest = swarm.proxy(&seeder, Manner::HoldsDescription).await;
            let plan = swarm.plan(&source, &[evil.address, honest.address]);
            let fetch = swarm.fetch(plan.with(|fetch| fetch.reusing(&earlier)));
            pairs.spawn(Pair { evil, honest, fetch }.ends(source.clone()));
        }
        wrong.extend(pairs.join_all().await.into_iter().flatten());
    });
    assert_none(&wrong);
}

/// An evil peer connects to a leecher. Returns what was wrong.
async fn visit(
    mut fetch: Fetch,
    leecher: SocketAddr,
    evil: EvilPeer,
    honest: Proxy,
    source: Source,
) -> Vec<String> {
    let kind = evil.kind;
    evil.visit(leecher);
    let fate = async {
        match kind.fate() {
            Fate::Useful | Fate::Idle => evil.until(|record| record.connections > 0).await,
            Fate::Dropped => evil.until(|record| record.closed > 0).await,
            Fate::Lied => {
                evil.until(|record| record.closed > 0).await;
                // It learns that when it comes again, if it was away when the lie was found out.
                while !evil.record().goodbyes.contains(&GoodbyeReason::Banned) {
                    let visits = evil.record().closed;
                    evil.visit(leecher);
                    evil.until(|record| record.closed > visits).await;
                }
            }
        }
    };
    let mut wrong = Vec::new();
    if timeout(FATE_TIMEOUT, fate).await.is_err() {
        wrong.push(format!("{kind} does not meet its fate: {:?}", evil.record()));
    }
    honest.open();
    let fetched = fetch.fetched().await;
    source.assert_fetched(&fetched);
    wrong.extend(belief(&evil).into_iter().chain(use_of(&evil, &honest, &fetched)));
    wrong
}

#[test]
fn each_kind_that_connects_meets_its_fate() {
    let mut wrong = Vec::new();
    for kinds in visitors().chunks(AT_A_TIME) {
        test(async |swarm| {
            let mut visits = JoinSet::new();
            for &kind in kinds {
                // The tracker knows a leecher by its share, so each has a share of its own.
                let source = swarm.share("visited.bin", SIZE);
                let (fetch, honest, leecher) = swarm.fetch_from_one(&source).await;
                let evil = Den::new(&source).peer(kind);
                visits.spawn(visit(fetch, leecher, evil, honest, source));
            }
            wrong.extend(visits.join_all().await.into_iter().flatten());
        });
    }
    assert_none(&wrong);
}

#[test]
fn all_kinds_together_beside_one_honest_seeder() {
    for call in [false, true] {
        test(async |swarm| {
            let source = swarm.share("outnumbered.bin", SIZE);
            let seeder = swarm.seed_unannounced(&source).await;
            let mut den = Den::new(&source);
            let start = |kind: &Kind| if call { den.caller(*kind) } else { den.peer(*kind) };
            let evil: Vec<_> = KINDS.iter().filter(|&&kind| kind != Kind::Honest).map(start).collect();
            let mut peers: Vec<_> = evil.iter().map(|peer| peer.address).collect();
            peers.insert(peers.len() / 2, seeder.address);
            let plan = swarm.plan(&source, &peers);
            source.assert_fetched(&swarm.fetch(plan).fetched().await);
            assert_none(&evil.iter().filter_map(return_of).collect::<Vec<_>>());
        });
    }
}

/// Evil peers drawn at random, each dialled or connecting, beside one honest seeder.
async fn mix(swarm: &mut Swarm, source: &Source, seeder: SocketAddr, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut den = Den::new(source);
    let start = |_| {
        let kind = *KINDS.choose(&mut rng).unwrap();
        if rng.random() { den.caller(kind) } else { den.peer(kind) }
    };
    let evil: Vec<_> = (0..MIX).map(start).collect();
    let mut peers: Vec<_> = evil.iter().map(|peer| peer.address).collect();
    peers.insert(rng.random_range(0..=MIX), seeder);
    let plan = swarm.plan(source, &peers);
    let names: Vec<_> = evil.iter().map(|peer| peer.kind.name()).collect();
    eprintln!("seed {seed}: {}", names.join(" "));
    source.assert_fetched(&swarm.fetch(plan).fetched().await);
    assert_none(&evil.iter().filter_map(return_of).collect::<Vec<_>>());
}

fn mixes(seeds: Range<u64>) {
    for seed in seeds {
        test(async |swarm| {
            let source = swarm.share("mixed.bin", SIZE);
            let seeder = swarm.seed_unannounced(&source).await;
            mix(swarm, &source, seeder.address, seed).await;
        });
    }
}

#[test]
fn random_mixes_of_evil_peers_1() {
    mixes(0..25);
}

#[test]
fn random_mixes_of_evil_peers_2() {
    mixes(25..50);
}

#[test]
fn random_mixes_of_evil_peers_3() {
    mixes(50..75);
}

#[test]
fn random_mixes_of_evil_peers_4() {
    mixes(75..100);
}
