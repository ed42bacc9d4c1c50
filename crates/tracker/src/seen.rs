//! What a tracker shows over HTTP, and what can be changed there. docs/http.md describes it.

mod share;

use std::{
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use proto::{InfoHash, tracker::ShareEntry};
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracker::{
    Caps, Control, View,
    view::{Counts, FleetCounts},
};
use web::{Follow, Metric, Refusal, Setting, Source, json, machine_name, parameter, read_body};

use self::share::{Followed, ListedShare, Share};
use crate::{
    history::{ABSENT, History, MAX_HOSTS},
    limit_args::parse_byte_rate,
};

/// Shares in one answer.
const MAX_SHARES: usize = 500;

/// Time between two looks at the shares that are recorded.
const RECORD_EVERY: Duration = Duration::from_secs(1);

/// A share that nobody has looked at for this long makes room for one with more leechers.
const PATIENCE: Duration = Duration::from_secs(600);

/// Looks between two searches for shares to record.
const SEARCH_EVERY: u32 = 10;

/// A tracker that can be looked at and changed.
pub(crate) struct Seen {
    view: View,
    control: Control,
    address: SocketAddr,
    heartbeat: Duration,
    /// Stops the program.
    shutdown: CancellationToken,
    started: Instant,
    history: Mutex<History>,
}

#[derive(Serialize)]
struct Status {
    role: &'static str,
    version: &'static str,
    machine: String,
    uptime_s: u64,
    listens: SocketAddr,
    heartbeat_s: u64,
    shares: usize,
    seeders: usize,
    leechers: usize,
    connects: u64,
    announces: u64,
    lookups: u64,
    kernel_drops: Option<u64>,
    registry: Option<Registry>,
}

#[derive(Serialize)]
struct Registry {
    connected: bool,
    queued: u64,
    written: u64,
    outages: u64,
}

#[derive(Serialize)]
struct Shares {
    shares: Vec<ListedShare>,
    more: bool,
}

#[derive(Serialize)]
struct Picture {
    seconds: u64,
    step_s: u64,
    hosts: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    address: SocketAddr,
    percents: Vec<Option<u8>>,
}

#[derive(Serialize)]
struct SeenLimits {
    rate: Option<NonZeroU32>,
    byte_rate: Option<NonZeroU32>,
    max_registrations: u32,
    max_shares: u32,
    max_per_share: u32,
    max_per_address: u32,
    max_per_address_and_share: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLimits {
    #[serde(default)]
    rate: Setting,
    #[serde(default)]
    byte_rate: Setting,
    max_registrations: Option<NonZeroU32>,
    max_shares: Option<NonZeroU32>,
    max_per_share: Option<NonZeroU32>,
    max_per_address: Option<NonZeroU32>,
    max_per_address_and_share: Option<NonZeroU16>,
}

impl Seen {
    pub(crate) fn new(
        view: View,
        control: Control,
        address: SocketAddr,
        heartbeat: Duration,
        shutdown: CancellationToken,
    ) -> Seen {
        let (started, history) = (Instant::now(), Mutex::default());
        Seen { view, control, address, heartbeat, shutdown, started, history }
    }

    /// Records how swarms fill, until `stop`.
    pub(crate) async fn record(&self, stop: &CancellationToken) {
        let mut ticks = interval(RECORD_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for look in 0u32.. {
            if stop.run_until_cancelled(ticks.tick()).await.is_none() {
                return;
            }
            if look % SEARCH_EVERY == 0 {
                self.search();
            }
            let recorded = self.history().recorded();
            for infohash in recorded {
                match self.view.share(&infohash, MAX_HOSTS) {
                    Some((share, hosts)) => {
                        self.history().note(&infohash, share.size, &hosts, Instant::now());
                    }
                    None => self.history().forget(&infohash),
                }
            }
        }
    }

    /// Records the shares with most leechers, among the first.
    fn search(&self) {
        let (mut shares, _) = self.view.shares("", MAX_SHARES);
        shares.retain(|share| share.leechers > 0);
        shares.sort_by_key(|share| std::cmp::Reverse(share.leechers));
        let now = Instant::now();
        let mut history = self.history();
        shares.iter().for_each(|share| history.suggest(share.infohash, now, PATIENCE));
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> Status {
        let Counts { requests, registry, kernel_drops, fleet, .. } = self.view.counts();
        Status {
            role: "tracker",
            version: env!("CARGO_PKG_VERSION"),
            machine: machine_name(),
            uptime_s: self.started.elapsed().as_secs(),
            listens: self.address,
            heartbeat_s: self.heartbeat.as_secs(),
            shares: registry.shares,
            seeders: registry.seeders,
            leechers: registry.leechers,
            connects: requests.connects,
            announces: requests.announces,
            lookups: requests.lookups,
            kernel_drops,
            registry: fleet.map(|fleet| Registry {
                connected: fleet.is_connected,
                queued: fleet.queued,
                written: fleet.written,
                outages: fleet.outages,
            }),
        }
    }

    fn limits(&self) -> SeenLimits {
        let Caps { limits, rate, byte_rate } = self.control.caps();
        SeenLimits {
            rate,
            byte_rate,
            max_registrations: limits.peers,
            max_shares: limits.shares,
            max_per_share: limits.peers_per_share,
            max_per_address: limits.registrations_per_ip,
            max_per_address_and_share: limits.peers_per_site,
        }
    }

    fn set_limits(&self, new: NewLimits) -> Result<SeenLimits, Refusal> {
        let number = |text: &str| text.parse().map(Some).map_err(|_| "rate is a number, 1 or more, or null");
        let bytes = |text: &str| parse_byte_rate(text).map(Some);
        let (rate, byte_rate) = (new.rate.read(None, number)?, new.byte_rate.read(None, bytes)?);
        let mut caps = self.control.caps();
        caps.rate = rate.unwrap_or(caps.rate);
        caps.byte_rate = byte_rate.unwrap_or(caps.byte_rate);
        let limits = &mut caps.limits;
        for (limit, new) in [
            (&mut limits.peers, new.max_registrations),
            (&mut limits.shares, new.max_shares),
            (&mut limits.peers_per_share, new.max_per_share),
            (&mut limits.registrations_per_ip, new.max_per_address),
        ] {
            *limit = new.map_or(*limit, NonZeroU32::get);
        }
        limits.peers_per_site = new.max_per_address_and_share.map_or(limits.peers_per_site, NonZeroU16::get);
        self.control.set_caps(caps);
        Ok(self.limits())
    }

    /// What is shown of a share now.
    fn share(&self, infohash: InfoHash) -> Option<Share> {
        let (share, hosts) = self.view.share(&infohash, MAX_HOSTS)?;
        let now = Instant::now();
        let mut history = self.history();
        history.want(infohash, now);
        history.note(&infohash, share.size, &hosts, now);
        let record = history.of(&infohash)?;
        Some(Share::new(infohash, &share, &hosts, |host| record.rate(host)))
    }

    fn picture(&self, infohash: InfoHash) -> Option<Picture> {
        let (share, hosts) = self.view.share(&infohash, MAX_HOSTS)?;
        let now = Instant::now();
        let mut history = self.history();
        history.want(infohash, now);
        history.note(&infohash, share.size, &hosts, now);
        let record = history.of(&infohash)?;
        let (time, step) = record.times(now);
        let percents =
            |row: &[u8]| row.iter().map(|&percent| (percent != ABSENT).then_some(percent)).collect();
        let rows = record.rows();
        let rows =
            rows.into_iter().map(|(address, row)| Row { address: address.into(), percents: percents(row) });
        Some(Picture { seconds: time.as_secs(), step_s: step.as_secs(), hosts: rows.collect() })
    }
}

impl From<ShareEntry> for ListedShare {
    fn from(share: ShareEntry) -> ListedShare {
        ListedShare {
            infohash: share.infohash.to_string(),
            name: share.name.to_string(),
            size: share.size,
            seeders: share.seeders,
            leechers: share.leechers,
            completed: share.completed,
        }
    }
}

impl Source for Seen {
    fn metrics(&self) -> Vec<Metric> {
        metrics(&self.view.counts(), self.started.elapsed())
    }

    fn resource(&self, path: &str, query: &str) -> Option<String> {
        let parts: Vec<_> = path.split('/').collect();
        Some(match parts[..] {
            ["status"] => json(&self.status()),
            ["limits"] => json(&self.limits()),
            ["shares"] => {
                let (shares, more) =
                    self.view.shares(&parameter(query, "name").unwrap_or_default(), MAX_SHARES);
                json(&Shares { shares: shares.into_iter().map(ListedShare::from).collect(), more })
            }
            ["shares", infohash] => json(&self.share(infohash.parse().ok()?)?.least_first()),
            ["shares", infohash, "picture"] => json(&self.picture(infohash.parse().ok()?)?),
            _ => return None,
        })
    }

    fn follow(self: Arc<Self>, path: &str) -> Option<Box<dyn Follow>> {
        let infohash = path.strip_prefix("shares/")?.parse().ok()?;
        let seen = self;
        Some(Box::new(Followed::new(move || seen.share(infohash))))
    }

    fn change(&self, path: &str, body: &[u8]) -> Result<String, Refusal> {
        match path {
            "limits" => Ok(json(&self.set_limits(read_body(body)?)?)),
            _ => Err(Refusal::Unknown("nothing can be changed here".to_owned())),
        }
    }

    fn stop(&self) {
        self.shutdown.cancel();
    }
}

fn metrics(counts: &Counts, uptime: Duration) -> Vec<Metric> {
    let Counts { requests, registry, unsent, kernel_drops, fleet } = counts;
    let mut metrics = vec![
        Metric::gauge("shoal_tracker_uptime_seconds", "Seconds since the tracker started.", uptime.as_secs()),
        Metric::counters(
            "shoal_tracker_requests",
            "Requests that were answered or refused, by kind.",
            "kind",
            &[("connect", requests.connects), ("announce", requests.announces), ("lookup", requests.lookups)],
        ),
        Metric::counters(
            "shoal_tracker_refusals",
            "Requests that were not answered as asked, by reason.",
            "reason",
            &[
                ("token", requests.tokens_refused),
                ("malformed", requests.malformed),
                ("withheld", requests.withheld),
                ("put_off", requests.put_off),
                ("slow_down", requests.slowed),
                ("silenced", requests.silenced),
                ("full", requests.full),
                ("not_yours", requests.not_yours),
                ("not_allowed", requests.not_allowed),
                ("unknown_share", requests.unknown_shares),
            ],
        ),
        Metric::counter(
            "shoal_tracker_received_bytes",
            "Bytes of all datagrams that were received.",
            requests.bytes_received,
        ),
        Metric::counter("shoal_tracker_sent_bytes", "Bytes of all replies.", requests.bytes_replied),
        Metric::counter("shoal_tracker_replies_unsent", "Replies that the system did not accept.", *unsent),
        Metric::gauge("shoal_tracker_shares", "Shares with peers.", registry.shares as u64),
        Metric::gauges(
            "shoal_tracker_peers",
            "Registrations of peers, by whether they have all of their share.",
            "kind",
            &[("seeder", registry.seeders as u64), ("leecher", registry.leechers as u64)],
        ),
    ];
    metrics.extend(kernel_drops.map(|drops| {
        Metric::counter(
            "shoal_tracker_kernel_drops",
            "Datagrams that the system dropped because the receive buffer was full.",
            drops,
        )
    }));
    metrics.extend(fleet.iter().flat_map(registry_metrics));
    metrics
}

fn registry_metrics(fleet: &FleetCounts) -> [Metric; 8] {
    [
        Metric::gauge(
            "shoal_tracker_registry_connected",
            "1 if the registry of the fleet can be used now, 0 if not.",
            fleet.is_connected.into(),
        ),
        Metric::gauge(
            "shoal_tracker_registry_queued",
            "Changes that wait to be written to the registry.",
            fleet.queued,
        ),
        Metric::counter("shoal_tracker_registry_writes", "Changes that the registry took.", fleet.written),
        Metric::counter(
            "shoal_tracker_registry_dropped",
            "Changes that found no room in a queue. The next announce of the peer brings them again.",
            fleet.dropped,
        ),
        Metric::counter(
            "shoal_tracker_registry_taken_in",
            "Registrations of other trackers that were taken in.",
            fleet.taken_in,
        ),
        Metric::counter(
            "shoal_tracker_registry_lookups_waited",
            "Lookups of unknown shares that waited for the registry.",
            fleet.waited,
        ),
        Metric::counter(
            "shoal_tracker_registry_lookups_late",
            "Lookups of unknown shares that the registry did not answer in time.",
            fleet.late,
        ),
        Metric::counter(
            "shoal_tracker_registry_outages",
            "How often the connection to the registry was lost.",
            fleet.outages,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use web::Kind;

    use super::*;

    /// A tracker of a fleet has them all. The others are compared with real answers.
    #[test]
    fn the_docs_have_every_metric() {
        let fleet = FleetCounts {
            is_connected: true,
            queued: 0,
            written: 0,
            dropped: 0,
            taken_in: 0,
            waited: 0,
            late: 0,
            outages: 0,
        };
        let (requests, registry) = Default::default();
        let counts = Counts { requests, registry, unsent: 0, kernel_drops: Some(0), fleet: Some(fleet) };
        let name = |metric: Metric| match metric.kind {
            Kind::Counter => format!("{}_total", metric.name),
            Kind::Gauge => metric.name.to_owned(),
        };
        let metrics: BTreeSet<_> = metrics(&counts, Duration::ZERO).into_iter().map(name).collect();
        let docs = include_str!("../../../docs/http.md").lines();
        let documented = docs.filter_map(|line| line.strip_prefix("| `shoal_tracker_")?.split('`').next());
        assert_eq!(metrics, documented.map(|name| format!("shoal_tracker_{name}")).collect());
    }
}
