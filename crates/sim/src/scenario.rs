//! What is simulated: a share, a network, and peers that come and go.

use std::time::Duration;

use proto::Zone;

/// One way through the network, unless a scenario has another value: about a fiftieth of what a chunk takes at
/// 100 Mbit/s.
pub const DEFAULT_LATENCY: Duration = Duration::from_millis(1);

/// Interval at which peers read which chunks others have, unless a scenario has another value. In a real swarm such a message waits
/// in the queue of the uplink, behind chunks.
pub const DEFAULT_NEWS_INTERVAL: Duration = Duration::from_millis(20);

/// Peers that a leecher is connected to at most, as in the real one.
pub const DEFAULT_MAX_PEERS: usize = swarm::peer_book::DEFAULT_MAX_PEERS;

/// Peers that the origin is connected to at most, as in the real one.
pub const ORIGIN_MAX_PEERS: usize = swarm::uploads::DEFAULT_MAX_ASKERS;

/// Bits a second in a megabit a second.
pub const MBIT: f64 = 1e6;

/// A peer's link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Bits a second that it sends.
    pub up: f64,
    /// Bits a second that it receives.
    pub down: f64,
}

/// What a peer is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// It keeps to the protocol and stays when it has everything.
    Honest,
    /// It leaves once it has this many chunks, without a word.
    LeavesAt(u32),
    /// It claims to have everything, and what it sends is wrong.
    Liar,
    /// A leecher that nobody waits for, because its link or its own limit is slow.
    Slow,
    /// It has everything, and sends it as fast as its link lets it.
    Seeder,
    /// It claims to have everything, and sends nothing, not even that it is still there.
    Silent,
}

impl Nature {
    /// Whether the run goes on until it has everything.
    pub(crate) fn is_waited_for(self) -> bool {
        self == Nature::Honest
    }

    /// Whether it wants nothing.
    pub(crate) fn has_everything(self) -> bool {
        matches!(self, Nature::Liar | Nature::Seeder | Nature::Silent)
    }
}

/// One leecher.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeecherPlan {
    /// Its link.
    pub link: Link,
    /// When it starts.
    pub arrives: Duration,
    /// What it is like.
    pub nature: Nature,
    /// What its link adds to [`Scenario::latency`], each way.
    pub distance: Duration,
    /// Whether others can dial it. A peer behind NAT can only dial.
    pub is_reachable: bool,
    /// Where in the network it is.
    pub zone: Zone,
}

impl LeecherPlan {
    /// A leecher like most: honest, near and reachable.
    pub fn new(link: Link, arrives: Duration) -> LeecherPlan {
        LeecherPlan {
            link,
            arrives,
            nature: Nature::Honest,
            distance: Duration::ZERO,
            is_reachable: true,
            zone: Zone::NONE,
        }
    }
}

/// When the origin leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OriginLeaves {
    /// It stays.
    Never,
    /// When it has sent so much, in copies of the share.
    AfterCopies(f64),
    /// As soon as it has sent every chunk to somebody.
    AfterEveryChunk,
}

/// A swarm to simulate.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// For the report.
    pub name: &'static str,
    /// MiB in the share.
    pub mib: u32,
    /// The origin's link.
    pub origin: Link,
    /// Where in the network the origin is.
    pub origin_zone: Zone,
    /// When the origin leaves.
    pub origin_leaves: OriginLeaves,
    /// Everybody else.
    pub leechers: Vec<LeecherPlan>,
    /// One way through the network.
    pub latency: Duration,
    /// Peers read what has come, and look at their timers, at multiples of this time: always a delay, but less to simulate. Zero is
    /// at once.
    pub work_interval: Duration,
    /// At this interval, which is not zero, peers read which chunks others have by now.
    pub news_interval: Duration,
    /// A flow on a connection that was silent gets its whole share of a busy uplink after this time. Zero is at once.
    pub start_time: Duration,
    /// Peers that a leecher is connected to at most.
    pub max_peers: usize,
    /// Users name the origin to their leechers. Otherwise leechers learn of it from the tracker, perhaps after others.
    pub names_origin: bool,
    /// Leave as soon as everything is here.
    pub leave_when_done: bool,
    /// A run that takes longer than this has failed.
    pub give_up: Duration,
}

impl Scenario {
    /// An origin and `count` leechers of one `link`, all started within a tenth of a second.
    pub fn equal(name: &'static str, count: usize, mib: u32, link: Link) -> Scenario {
        let arrives = |number| Duration::from_millis(100).mul_f64((number as f64 + 1.0) / count as f64);
        let leechers = (0..count).map(|number| LeecherPlan::new(link, arrives(number)));
        Scenario {
            name,
            mib,
            origin: link,
            origin_zone: Zone::NONE,
            origin_leaves: OriginLeaves::Never,
            leechers: leechers.collect(),
            latency: DEFAULT_LATENCY,
            work_interval: Duration::ZERO,
            news_interval: DEFAULT_NEWS_INTERVAL,
            start_time: Duration::ZERO,
            max_peers: DEFAULT_MAX_PEERS,
            names_origin: false,
            leave_when_done: false,
            give_up: Duration::from_secs(3_600),
        }
    }

    /// This one with every `interval`-th leecher changed, from the first on.
    fn with_every(mut self, interval: usize, change: impl Fn(&mut LeecherPlan)) -> Scenario {
        self.leechers.iter_mut().step_by(interval).for_each(change);
        self
    }

    /// As [`Scenario::equal`], in `zones` zones of `count` leechers each. The origin is in the first.
    fn zones(name: &'static str, zones: usize, count: usize, mib: u32) -> Scenario {
        let zone = |number: usize| Zone::cut(&format!("zone {}", number % zones)).unwrap_or_default();
        let mut scenario = Scenario::equal(name, zones * count, mib, BENCH_LINK);
        scenario.origin_zone = zone(0);
        scenario.leechers.iter_mut().enumerate().for_each(|(number, leecher)| leecher.zone = zone(number));
        scenario
    }

    /// An origin and one leecher, which arrives when the origin and `others` have been at work for some seconds.
    pub fn beside(name: &'static str, mib: u32, link: Link, others: Vec<LeecherPlan>) -> Scenario {
        let fast = LeecherPlan::new(link, Duration::from_secs(5));
        let mut scenario = Scenario::equal(name, 0, mib, link);
        scenario.give_up = Duration::from_secs(120);
        scenario.names_origin = true;
        scenario.leechers = others;
        scenario.leechers.push(fast);
        scenario
    }

    /// Bytes in the share.
    pub fn share_len(&self) -> u64 {
        u64::from(self.mib) * 1024 * 1024
    }

    /// Bits in the share.
    pub fn bits(&self) -> f64 {
        self.share_len() as f64 * 8.0
    }

    /// A lower bound of the time, in seconds, at which the last leecher is done. It is the bound of Kumar and Ross (2006), for peers
    /// that may arrive at any time. The origin sends the share at least once. Each leecher receives it after its arrival. All
    /// copies together are sent by the peers that are there. Liars count neither as receivers nor as senders, and so do peers
    /// whose end a run does not wait for.
    pub fn t_opt(&self) -> f64 {
        let counts = |nature| matches!(nature, Nature::Honest | Nature::LeavesAt(_));
        let honest = || self.leechers.iter().filter(|leecher| counts(leecher.nature));
        let bits = self.bits();
        let last = honest().map(|leecher| leecher.arrives.as_secs_f64() + bits / leecher.link.down);
        let copies = honest().count() as f64;
        // With the leechers in order of arrival: as soon as those that are there can have sent it all before the next arrives.
        let mut arrivals: Vec<_> =
            honest().map(|leecher| (leecher.arrives.as_secs_f64(), leecher.link.up)).collect();
        arrivals.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (mut time, mut up, mut left) = (0.0, self.origin.up, copies * bits);
        for (arrives, more) in arrivals {
            if left <= up * (arrives - time) {
                break;
            }
            left -= up * (arrives - time);
            (time, up) = (arrives, up + more);
        }
        (bits / self.origin.up).max(last.fold(0.0, f64::max)).max(time + left / up)
    }
}

/// The links of the benchmarks: 100 Mbit/s up, 200 down.
pub const BENCH_LINK: Link = Link { up: 100.0 * MBIT, down: 200.0 * MBIT };

/// A slow link has this part of the bandwidth of [`BENCH_LINK`], as fibre and cable of one neighbourhood differ.
const SLOW_PART: f64 = 4.0;

/// What far peers are away, each way: two of them have a round trip of 100 ms.
const FAR: Duration = Duration::from_micros(24_500);

/// MiB in a GiB.
const GIB: u32 = 1_024;

/// Chunks in half a GiB, of a share that has at least that.
const HALF_A_GIB: u32 = 1_024;

/// MiB in 3 GB.
const THREE_GB: u32 = 2_861;

/// How long a flow of a silent connection takes until it has its share of a busy uplink: about what it takes behind the full
/// queue of a link of 100 Mbit/s.
const SLOW_START: Duration = Duration::from_millis(500);

/// What slow peers send or receive: 20 kB/s.
const SLOW_RATE: f64 = 20.0 * 8e3;

/// A byte a second.
const TRICKLE: f64 = 8.0;

/// Peers of one kind that are there from the start, for [`Scenario::beside`].
fn company(count: usize, nature: Nature, link: Link) -> Vec<LeecherPlan> {
    let arrives = |number: usize| Duration::from_secs(1).mul_f64(number as f64 / count as f64);
    (0..count).map(|number| LeecherPlan { nature, ..LeecherPlan::new(link, arrives(number)) }).collect()
}

/// A leecher beside `count` peers that are slow in one way: `receivers` take 20 kB/s and `mute` ones nothing; `senders` send
/// 20 kB/s, `trickling` ones a byte a second, and `silent` ones nothing. `mixed` is `count` of each.
pub fn beside(kind: &str, count: usize) -> Option<Scenario> {
    const GBIT: Link = Link { up: 1e9, down: 1e9 };
    // Six megabytes a second.
    const STEADY: Link = Link { up: 48e6, down: 1e9 };
    let receivers = |down| company(count, Nature::Slow, Link { up: 0.0, down });
    let senders = |nature, up| company(count, nature, Link { up, down: 0.0 });
    let scenario = match kind {
        "receivers" => Scenario::beside("receivers", 128, GBIT, receivers(SLOW_RATE)),
        "mute" => Scenario::beside("mute", 128, GBIT, receivers(0.0)),
        "senders" => Scenario::beside("senders", 16, STEADY, senders(Nature::Seeder, SLOW_RATE)),
        "trickling" => Scenario::beside("trickling", 16, STEADY, senders(Nature::Seeder, TRICKLE)),
        "silent" => Scenario::beside("silent", 16, STEADY, senders(Nature::Silent, 0.0)),
        "mixed" => {
            let others = [
                receivers(SLOW_RATE),
                receivers(0.0),
                senders(Nature::Seeder, SLOW_RATE),
                senders(Nature::Seeder, TRICKLE),
                senders(Nature::Silent, 0.0),
            ];
            Scenario::beside("mixed", 16, STEADY, others.concat())
        }
        _ => return None,
    };
    Some(scenario)
}

/// The scenario of this name, if there is one: one of [`NAMES`], or a kind of [`beside`] and a number, as in `silent_60`.
pub fn named(name: &str) -> Option<Scenario> {
    if let Some((kind, count)) = name.rsplit_once('_')
        && let Ok(count) = count.parse()
        && let Some(scenario) = beside(kind, count)
    {
        return Some(scenario);
    }
    let scenario = match name {
        "small_8" => Scenario::equal("small_8", 8, 64, BENCH_LINK),
        "small_16" => Scenario::equal("small_16", 16, 64, BENCH_LINK),
        "small_32" => Scenario::equal("small_32", 32, 64, BENCH_LINK),
        "slow_starts_16" => {
            Scenario { start_time: SLOW_START, ..Scenario::equal("slow_starts_16", 16, 64, BENCH_LINK) }
        }
        "equal_50" => Scenario::equal("equal_50", 50, GIB, BENCH_LINK),
        // As `bench/swarm -N 12 --leecher-ups 25 100 400 --down 400`.
        "uneven_12" => {
            let mut scenario = Scenario::equal("uneven_12", 12, 64, BENCH_LINK);
            for (leecher, mbit) in scenario.leechers.iter_mut().zip([25.0, 100.0, 400.0].into_iter().cycle())
            {
                leecher.link = Link { up: mbit * 1e6, down: 400e6 };
            }
            scenario
        }
        // Links that are as slow down as up, as in most data centres.
        "full_links" => {
            let link = Link { up: BENCH_LINK.up, down: BENCH_LINK.up };
            Scenario::equal("full_links", 50, GIB / 2, link)
        }
        "equal_50_leaving" => {
            Scenario { leave_when_done: true, ..Scenario::equal("equal_50_leaving", 50, GIB, BENCH_LINK) }
        }
        "unequal_200" => {
            let slow = Link { up: BENCH_LINK.up / SLOW_PART, down: BENCH_LINK.down / SLOW_PART };
            let scenario = Scenario::equal("unequal_200", 200, GIB, BENCH_LINK);
            scenario.with_every(2, |leecher| leecher.link = slow)
        }
        "far_and_near" => Scenario::equal("far_and_near", 50, GIB, BENCH_LINK)
            .with_every(2, |leecher| leecher.distance = FAR),
        "slow_origin" => Scenario {
            origin: Link { up: BENCH_LINK.up / 10.0, down: BENCH_LINK.down },
            ..Scenario::equal("slow_origin", 50, GIB, BENCH_LINK)
        },
        "slow_origin_small" => Scenario {
            origin: Link { up: BENCH_LINK.up / 10.0, down: BENCH_LINK.down },
            ..Scenario::equal("slow_origin_small", 50, 128, BENCH_LINK)
        },
        "fast_origin" => Scenario {
            origin: Link { up: 100.0 * BENCH_LINK.up, down: BENCH_LINK.down },
            ..Scenario::equal("fast_origin", 50, GIB, BENCH_LINK)
        },
        "half_behind_nat" => Scenario::equal("half_behind_nat", 50, GIB, BENCH_LINK)
            .with_every(2, |leecher| leecher.is_reachable = false),
        "equal_1000" => Scenario {
            work_interval: Duration::from_millis(20),
            news_interval: Duration::from_millis(100),
            max_peers: 20,
            ..Scenario::equal("equal_1000", 1_000, 2 * GIB, BENCH_LINK)
        },
        "equal_10000" => Scenario {
            work_interval: Duration::from_millis(20),
            news_interval: Duration::from_millis(100),
            max_peers: 20,
            ..Scenario::equal("equal_10000", 10_000, GIB, BENCH_LINK)
        },
        "alone" => Scenario::equal("alone", 1, 2 * GIB, BENCH_LINK),
        "wide_2600" => Scenario {
            latency: Duration::from_micros(250),
            work_interval: Duration::from_millis(1),
            news_interval: Duration::from_millis(5),
            max_peers: 50,
            ..Scenario::equal("wide_2600", 2_600, THREE_GB, Link { up: 2_400.0 * MBIT, down: 2_400.0 * MBIT })
        },
        "origin_leaves" => Scenario {
            origin: Link { up: 4.0 * BENCH_LINK.up, down: BENCH_LINK.down },
            origin_leaves: OriginLeaves::AfterCopies(1.2),
            ..Scenario::equal("origin_leaves", 50, GIB, BENCH_LINK)
        },
        "origin_leaves_early" => Scenario {
            origin_leaves: OriginLeaves::AfterEveryChunk,
            ..Scenario::equal("origin_leaves_early", 50, GIB, BENCH_LINK)
        },
        "churn" => Scenario::equal("churn", 50, GIB, BENCH_LINK)
            .with_every(10, |leecher| leecher.nature = Nature::LeavesAt(HALF_A_GIB)),
        "flash_crowd" => {
            let mut scenario = Scenario::equal("flash_crowd", 60, GIB, BENCH_LINK);
            for (number, leecher) in scenario.leechers.iter_mut().skip(10).enumerate() {
                leecher.arrives =
                    Duration::from_secs(30) + Duration::from_secs(60).mul_f64(number as f64 / 50.0);
            }
            scenario
        }
        "zones_300" => Scenario::zones("zones_300", 3, 100, 64),
        "zones_300_blind" => Scenario::equal("zones_300_blind", 300, 64, BENCH_LINK),
        "liars" => Scenario::equal("liars", 50, GIB, BENCH_LINK)
            .with_every(5, |leecher| leecher.nature = Nature::Liar),
        _ => return None,
    };
    Some(scenario)
}

/// Every scenario that [`named`] knows.
pub const NAMES: [&str; 25] = [
    "small_8",
    "small_16",
    "small_32",
    "slow_starts_16",
    "uneven_12",
    "equal_50",
    "full_links",
    "equal_50_leaving",
    "unequal_200",
    "far_and_near",
    "slow_origin",
    "slow_origin_small",
    "fast_origin",
    "half_behind_nat",
    "equal_1000",
    "equal_10000",
    "alone",
    "wide_2600",
    "origin_leaves",
    "origin_leaves_early",
    "churn",
    "flash_crowd",
    "liars",
    "zones_300",
    "zones_300_blind",
];
