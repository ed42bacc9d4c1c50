//! The registry against a model that is too simple to be wrong: a map that every query scans.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::select};
use proto::{PeerId, tracker::codec::Subject};

use super::*;
use crate::registry::directory::Listed;

/// Few of everything, so steps affect each other.
const SHARES: u32 = 6;
const HOSTS: u32 = 4;

#[derive(Debug, Clone)]
enum Step {
    Announce { share: u32, peer: u32, host: u32, secret: u8, port: u16, percent: u8, event: Event, name: u8 },
    Lookup { share: u32, want: u8 },
    Pages,
    Pass { ticks: u32 },
    Sweep { budget: usize },
}

/// One registration as the model has it.
struct Known {
    secret: Secret,
    entry: PeerEntry,
    host: u32,
    seen: Instant,
    name: ShareName,
}

struct Share {
    size: u64,
    peers: BTreeMap<[u8; 16], Known>,
}

/// Registrations that have not ended. This includes expired ones, because they count for the limits until they are swept,
/// and the registry decides when.
#[derive(Default)]
struct Model {
    shares: BTreeMap<InfoHash, Share>,
}

impl Known {
    fn is_live(&self, now: Instant) -> bool {
        now - self.seen <= EXPIRE
    }
}

impl Share {
    fn live(&self, now: Instant) -> impl Iterator<Item = &Known> {
        self.peers.values().filter(move |peer| peer.is_live(now))
    }

    fn counts(&self, now: Instant) -> (u32, u32) {
        let seeders = self.live(now).filter(|peer| peer.entry.progress.is_complete()).count();
        (seeders as u32, (self.live(now).count() - seeders) as u32)
    }
}

impl Model {
    /// Whether a limit that others can make room for is reached for a new registration, counting those that `counts` accepts.
    fn is_full(&self, limits: &Limits, share: InfoHash, counts: impl Fn(&Known) -> bool) -> bool {
        let counted = |share: &Share| share.peers.values().filter(|peer| counts(peer)).count();
        let all = self.shares.values().map(counted).sum::<usize>();
        let shares = self.shares.values().filter(|share| counted(share) > 0).count();
        let in_share = self.shares.get(&share).map_or(0, counted);
        all >= limits.peers as usize
            || in_share >= limits.peers_per_share as usize
            || in_share == 0 && shares >= limits.shares as usize
    }

    /// Whether a limit of its address is reached for a new registration, counting those that `counts` accepts.
    fn is_address_full(
        &self,
        limits: &Limits,
        share: InfoHash,
        host: u32,
        counts: impl Fn(&Known) -> bool,
    ) -> bool {
        let at =
            |share: &Share| share.peers.values().filter(|peer| peer.host == host && counts(peer)).count();
        self.shares.values().map(at).sum::<usize>() >= limits.registrations_per_ip as usize
            || self.shares.get(&share).map_or(0, at) >= usize::from(limits.peers_per_site)
    }

    /// Live registrations of each address.
    fn crowds(&self, now: Instant) -> [u32; HOSTS as usize] {
        let mut crowds = [0; HOSTS as usize];
        for peer in self.shares.values().flat_map(|share| share.live(now)) {
            crowds[peer.host as usize] += 1;
        }
        crowds
    }

    /// Whether another peer of the share is where this one is.
    fn is_twin(&self, announce: &Announce, from: u32, now: Instant) -> bool {
        let is_there = |peer: &Known| peer.host == from && peer.entry.port == announce.port;
        self.shares.get(&announce.infohash).is_some_and(|share| share.live(now).any(is_there))
    }

    /// Whether some address has several peers in the share, and this one none. Of the limits, that of its address is none that
    /// others can make room for.
    fn is_crowded_for(&self, announce: &Announce, from: u32, now: Instant) -> bool {
        let Some(share) = self.shares.get(&announce.infohash) else { return false };
        let at = |host: u32| share.live(now).filter(|peer| peer.host == host).count();
        at(from) == 0 && (0..HOSTS).any(|host| at(host) > 1)
    }

    fn forget(&mut self, goes: impl Fn(&Known) -> bool) {
        for share in self.shares.values_mut() {
            share.peers.retain(|_, peer| !goes(peer));
        }
        self.shares.retain(|_, share| !share.peers.is_empty());
    }
}

fn steps(
    peers: u32,
    shares: u32,
    ports: u16,
    longest_pass: u32,
    most: usize,
) -> impl Strategy<Value = Vec<Step>> {
    let announce = (
        (0..shares, 0..peers, 0..HOSTS),
        (prop_oneof![9 => Just(7_u8), 1 => Just(8)], 7000..7000 + ports),
        prop_oneof![0_u8..=100, Just(100)],
        // Mostly registrations, so that swarms grow.
        select(vec![
            Event::Started,
            Event::Heartbeat,
            Event::Heartbeat,
            Event::Heartbeat,
            Event::Completed,
            Event::Stopped,
        ]),
        0_u8..3,
    );
    let announce = announce.prop_map(|((share, peer, host), (secret, port), percent, event, name)| {
        Step::Announce { share, peer, host, secret, port, percent, event, name }
    });
    let step = prop_oneof![
        20 => announce,
        2 => (0..shares, any::<u8>()).prop_map(|(share, want)| Step::Lookup { share, want }),
        1 => Just(Step::Pages),
        1 => (0..longest_pass).prop_map(|ticks| Step::Pass { ticks }),
        1 => prop_oneof![0_usize..20, Just(usize::MAX)].prop_map(|budget| Step::Sweep { budget }),
    ];
    prop::collection::vec(step, 0..most)
}

/// One of three zones, or none.
fn zone(number: u32) -> Zone {
    if number.is_multiple_of(4) { Zone::NONE } else { Zone::cut(&format!("zone {}", number % 4)).unwrap() }
}

fn limits() -> impl Strategy<Value = Limits> {
    let small = (1_u32..40, 1_u32..SHARES, 1_u32..20, 1_u32..20, 1_u32..6);
    let small = small.prop_map(|(peers, shares, peers_per_share, registrations_per_ip, crowded_from)| {
        Limits { peers, shares, peers_per_share, registrations_per_ip, peers_per_site: 7, crowded_from }
    });
    prop_oneof![small, Just(Limits::default())]
}

fn run(limits: Limits, steps: Vec<Step>) {
    let mut bench = Bench::new(limits.clone());
    let mut model = Model::default();
    for step in steps {
        let infohashes = (0..=SHARES).map(infohash);
        let peer = PeerId([1; 16]);
        let subjects = infohashes.flat_map(|share| [Subject::Announce(share, peer), Subject::Lookup(share)]);
        // Guesses may be wrong.
        bench.registry.preload(subjects.map(Some));
        bench.registry.advance();
        match step {
            Step::Announce { share, peer, host, secret, port, percent, event, name } => {
                let announce = Announce {
                    secret: Secret([secret; 16]),
                    port: port.try_into().unwrap(),
                    progress: percent.try_into().unwrap(),
                    name: name_of(&format!("name {name}")),
                    size: name.into(),
                    event,
                    zone: zone(peer),
                    ..leecher(share, peer)
                };
                check_announce(&mut bench, &mut model, &limits, &announce, host);
            }
            Step::Lookup { share, want } => check_lookup(&mut bench, &model, share, want),
            Step::Pages => check_pages(&mut bench, &model),
            Step::Pass { ticks } => bench.now += TICK * ticks,
            Step::Sweep { budget } => {
                bench.registry.sweep(bench.now, budget);
                if budget == usize::MAX {
                    // That was the end of a round; this is all of the next.
                    bench.registry.sweep(bench.now, budget);
                    model.forget(|peer| !peer.is_live(bench.now));
                    check_stats(&bench, &model);
                }
            }
        }
    }
    check_pages(&mut bench, &model);
    for share in 0..SHARES {
        check_lookup(&mut bench, &model, share, u8::MAX);
    }
}

fn check_announce(bench: &mut Bench, model: &mut Model, limits: &Limits, announce: &Announce, from: u32) {
    let now = bench.now;
    if limits.crowded_from < Limits::default().crowded_from {
        // What expired in the share goes before anybody makes room. This access is for the counts after that.
        let _ = bench.registry.peers(&announce.infohash, 0, host(99), now, &mut bench.rng);
    }
    let crowds: [u32; HOSTS as usize] =
        std::array::from_fn(|number| bench.registry.census.registrations_from(host(number as u32).into()));
    let result = bench.announce(announce, host(from));
    check_crowded(bench);
    let is_live = |share: &Share| share.live(now).next().is_some();
    if model.shares.get(&announce.infohash).is_some_and(|share| !is_live(share)) {
        // The access dropped it, so its name is free.
        model.shares.remove(&announce.infohash);
    }
    let known = model
        .shares
        .get(&announce.infohash)
        .and_then(|share| share.peers.get(&announce.peer_id.0))
        .filter(|peer| peer.is_live(now));
    let is_new = known.is_none();
    if known.is_some_and(|known| known.secret != announce.secret) {
        assert_eq!(result, Err(ErrorCode::NotYours));
        return;
    }
    if announce.event == Event::Stopped {
        if let Some(share) = model.shares.get_mut(&announce.infohash) {
            share.peers.remove(&announce.peer_id.0);
        }
        model.forget(|_| false);
    } else if is_new && matches!(result, Err(ErrorCode::Full(_))) {
        assert!(!model.is_twin(announce, from, now), "refused though it takes the place of another");
        if result == Err(ErrorCode::Full(Limit::Address)) {
            let is_full = model.is_address_full(limits, announce.infohash, from, |_| true);
            assert!(is_full, "refused though the address may have more");
            return;
        }
        assert!(model.is_full(limits, announce.infohash, |_| true), "refused though there is room");
        let limit_in_share = matches!(result, Err(ErrorCode::Full(Limit::Share | Limit::Tracker)));
        assert!(
            !limit_in_share || !model.is_crowded_for(announce, from, now),
            "refused though another of the share would make room"
        );
        let largest = model.crowds(now).into_iter().max().unwrap_or(0);
        let makes_room = largest >= limits.crowded_from && largest > crowds[from as usize] + 1;
        assert!(
            result != Err(ErrorCode::Full(Limit::Tracker)) || !makes_room,
            "refused though a crowded address would make room"
        );
        return;
    } else {
        let takes_room = is_new && !model.is_twin(announce, from, now);
        let is_live = |peer: &Known| peer.is_live(now);
        assert!(
            !takes_room || !model.is_address_full(limits, announce.infohash, from, is_live),
            "registered though its address has enough"
        );
        let no_room = takes_room && model.is_full(limits, announce.infohash, is_live);
        if let Some(share) = model.shares.get_mut(&announce.infohash) {
            // At an address and port there is one peer.
            share.peers.retain(|id, peer| {
                *id == announce.peer_id.0 || peer.host != from || peer.entry.port != announce.port
            });
        }
        let displaced = forget_displaced(bench, model, announce, limits, crowds, from);
        assert!(!no_room || displaced > 0, "registered though there is no room");
        assert!(displaced == 0 || takes_room, "somebody made room for nobody");
        let share = model
            .shares
            .entry(announce.infohash)
            .or_insert_with(|| Share { size: announce.size, peers: BTreeMap::new() });
        let entry = PeerEntry {
            address: PeerAddress::from(host(from)),
            port: announce.port,
            progress: announce.progress,
        };
        // A peer keeps the name that it registered by. There are fewer names than a share may have.
        let registered = share.peers.get(&announce.peer_id.0).filter(|peer| peer.is_live(now));
        let name = registered.map_or(&announce.name, |peer| &peer.name).clone();
        let known = Known { secret: announce.secret, entry, host: from, seen: now, name };
        share.peers.insert(announce.peer_id.0, known);
    }
    let (seeders, leechers) = model.shares.get(&announce.infohash).map_or((0, 0), |share| share.counts(now));
    assert_eq!(result, Ok(Announced { interval_s: 30, seeders, leechers, completed: 0 }));
}

/// Which peer makes room for a newcomer is the registry's choice. But it has to be one of an address that has others in the share, or
/// one of the most crowded address, or all peers of a share that has crowded addresses only. Returns how many.
fn forget_displaced(
    bench: &Bench,
    model: &mut Model,
    announce: &Announce,
    limits: &Limits,
    crowds: [u32; HOSTS as usize],
    from: u32,
) -> usize {
    let now = bench.now;
    let is_there = |infohash: &InfoHash, id: &[u8; 16]| {
        let share = bench.registry.shares.get(infohash);
        share.is_some_and(|share| share.roster.find(PeerId(*id)).is_some())
    };
    let mut gone = Vec::new();
    for (&infohash, share) in &mut model.shares {
        share.peers.retain(|id, peer| {
            let is_displaced = peer.is_live(now) && !is_there(&infohash, id);
            if is_displaced {
                gone.push((infohash, peer.host));
            }
            !is_displaced
        });
    }
    let own = crowds[from as usize];
    let is_crowded = |host: u32| {
        let count = crowds[host as usize];
        count >= limits.crowded_from && count > own + 1
    };
    match gone[..] {
        [] => {}
        [(infohash, host)]
            if infohash == announce.infohash
                && model.shares[&infohash].live(now).any(|peer| peer.host == host) =>
        {
            assert_ne!(host, from);
        }
        [(infohash, _), ..] => {
            assert!(gone.iter().all(|&(_, host)| is_crowded(host)), "{crowds:?}, for {own}: {gone:?}");
            let mut of_most =
                gone.iter().filter(|&&(_, host)| Some(&crowds[host as usize]) == crowds.iter().max());
            // If a whole share was dropped, the peer of the most crowded may be one that had expired.
            let rest = &model.shares[&infohash];
            let is_dropped = bench.registry.shares.get(&infohash).is_none() && !rest.peers.is_empty();
            assert!(
                is_dropped || of_most.next().is_some(),
                "the most crowded make room: {crowds:?}, {gone:?}"
            );
            if gone.len() > 1 {
                assert!(gone.iter().all(|&(of, _)| of == infohash && of != announce.infohash));
                assert_eq!(rest.live(now).count(), 0, "a share is dropped whole");
            }
        }
    }
    // With the last live peer of this share those went that had expired, and with a share that was dropped too. Elsewhere they are
    // still counted. A share of which a peer was started again stays.
    let is_left = |infohash: InfoHash, share: &Share| {
        if infohash == announce.infohash {
            share.live(now).next().is_some()
        } else {
            bench.registry.shares.get(&infohash).is_some()
        }
    };
    let left_by = |infohash| gone.iter().any(|&(of, _)| of == infohash);
    model.shares.retain(|&infohash, share| !left_by(infohash) || is_left(infohash, share));
    gone.len()
}

/// The crowded addresses are those with many registrations, and a peer of each is found.
fn check_crowded(bench: &Bench) {
    let Bench { registry, .. } = bench;
    let crowded_from = registry.rules.limits.crowded_from;
    let sites = (0..HOSTS).map(|number| peer::Site::from(host(number)));
    let counts = sites.map(|site| (registry.census.registrations_from(site), site));
    let crowded: BTreeSet<_> = counts.filter(|&(count, _)| count >= crowded_from.max(1)).collect();
    assert!(registry.census.crowded().all().eq(crowded.iter().copied()));
    for (count, site) in crowded {
        let kept = registry.census.crowded().kept(site);
        assert!(kept > 0 && kept <= (2 * count + crowded_from) as usize, "{kept} shares of {count} peers");
    }
}

fn check_lookup(bench: &mut Bench, model: &Model, share: u32, want: u8) {
    let now = bench.now;
    let asker = Asker { ip: host(99), zone: zone(want.into()) };
    let result = bench.registry.peers(&infohash(share), want, asker, now, &mut bench.rng);
    let live: Vec<PeerEntry> = model
        .shares
        .get(&infohash(share))
        .map_or(Vec::new(), |share| share.live(now).map(|peer| peer.entry).collect());
    if live.is_empty() {
        assert_unknown(result);
        return;
    }
    let peers = result.unwrap();
    assert_eq!((peers.seeders, peers.leechers), model.shares[&infohash(share)].counts(now));
    assert_eq!(peers.peers.len(), live.len().min(want.into()).min(MAX_PEERS));
    let hosts = |peers: &[PeerEntry]| {
        let addresses = peers.iter().map(|peer| peer.socket_addr((LOOPBACK, 6020).into()).unwrap().ip());
        addresses.collect::<BTreeSet<_>>().len()
    };
    assert_eq!(hosts(&peers.peers), hosts(&live).min(want.into()), "as many addresses as possible");
    // Different peers may be at one address here, so membership is compared with multiplicity.
    let mut left = live.clone();
    for peer in &peers.peers {
        let place = left.iter().position(|known| known == peer);
        left.swap_remove(place.expect("a peer that is live and was not given yet"));
    }
    check_index(bench, model, share);
}

/// Every live peer is found under its id, and no other.
fn check_index(bench: &Bench, model: &Model, share: u32) {
    let roster = &bench.registry.shares.get(&infohash(share)).unwrap().roster;
    let live: Vec<[u8; 16]> = model.shares[&infohash(share)]
        .peers
        .iter()
        .filter(|(_, peer)| peer.is_live(bench.now))
        .map(|(&id, _)| id)
        .collect();
    assert_eq!(roster.len(), live.len());
    roster.check();
    for id in live {
        assert_eq!(roster.find(PeerId(id)).map(|place| roster.members()[place].id.0), Some(id));
    }
}

/// Every share is listed under the names of its live peers, with what stands behind each. The votes are the registry's choice, but a
/// site has one for each name.
fn check_pages(bench: &mut Bench, model: &Model) {
    let now = bench.now;
    let mut all: Vec<ShareEntry> = Vec::new();
    let mut voters = BTreeMap::new();
    for (&infohash, share) in &model.shares {
        let names: BTreeSet<_> = share.live(now).map(|peer| peer.name.clone()).collect();
        for name in names {
            let peers = || share.live(now).filter(|peer| peer.name == name);
            let seeders: Vec<_> = peers().filter(|peer| peer.entry.progress.is_complete()).collect();
            let sites: BTreeSet<_> = seeders.iter().map(|peer| peer.host).collect();
            voters.entry(name.clone()).or_insert_with(BTreeSet::new).extend(sites.iter().copied());
            let (seeders, leechers) = (seeders.len() as u32, (peers().count() - seeders.len()) as u32);
            let (size, sites) = (share.size, sites.len() as u32);
            all.push(ShareEntry { infohash, name, size, seeders, leechers, sites, votes: 0, completed: 0 });
        }
    }
    let listed = bench.pages(None);
    assert!(listed.is_sorted_by_key(ShareEntry::cursor), "{listed:?}");
    let without_votes = |shares: &[ShareEntry]| {
        let mut shares = shares.to_vec();
        shares.iter_mut().for_each(|share| share.votes = 0);
        shares.sort_by_key(ShareEntry::cursor);
        shares
    };
    all.sort_by_key(ShareEntry::cursor);
    assert_eq!(without_votes(&listed), all);
    for name in ["name 0", "name 1", "name 2", "name 3"].map(name_of) {
        let named: Vec<_> = listed.iter().filter(|share| share.name == name).cloned().collect();
        assert_eq!(bench.pages(Some(name.as_str())), named);
        let votes: u32 = named.iter().map(|share| share.votes).sum();
        assert!(votes as usize <= voters.get(&name).map_or(0, BTreeSet::len), "{votes} votes");
        assert!(named.iter().all(|share| share.votes <= share.sites));
    }
    // Every vote is held by somebody.
    let rosters = bench.registry.shares.iter().map(|(head, share)| share.roster.listed(head));
    let listed: Vec<Listed> = rosters.flatten().flatten().collect();
    assert_eq!(listed.iter().map(|listed| listed.votes as usize).sum::<usize>(), bench.registry.votes.len());
    assert_eq!(listed.len(), bench.registry.directory.len());
    for entry in &listed {
        let name = entry.head.name_bytes();
        let namesakes = listed.iter().filter(|other| other.head.name_bytes() == name).count();
        assert!(bench.registry.directory.contains(entry));
        assert_eq!(bench.registry.directory.named(name), namesakes);
    }
}

fn check_stats(bench: &Bench, model: &Model) {
    let (seeders, leechers) = model
        .shares
        .values()
        .map(|share| share.counts(bench.now))
        .fold((0, 0), |(seeders, leechers), (s, l)| (seeders + s, leechers + l));
    let stats = bench.registry.stats();
    assert_eq!(stats.shares, model.shares.len());
    assert_eq!((stats.seeders, stats.leechers), (seeders as usize, leechers as usize));
    for number in 0..HOSTS {
        let peers = model.shares.values().flat_map(|share| share.peers.values());
        let from_host = peers.filter(|peer| peer.host == number).count();
        let counted = bench.registry.census.registrations_from(host(number).into());
        assert_eq!(counted as usize, from_host);
    }
}

proptest! {
    #[test]
    fn few_peers_and_small_limits_behave_as_the_model(limits in limits(), steps in steps(5, SHARES, 3, 500, 400)) {
        run(limits, steps);
    }
}

proptest! {
    // Walks are long, so there are fewer.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Swarms on both sides of the size from which they have an index.
    #[test]
    fn large_swarms_behave_as_the_model(steps in steps(120, 2, 400, 300, 1_200)) {
        run(Limits::default(), steps);
    }
}
