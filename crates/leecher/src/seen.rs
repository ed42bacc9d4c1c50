//! What a leecher shows over HTTP, and what can be changed there. docs/http.md describes it.

mod transfer;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use leecher::{MaxPeers, Target};
use peer::rate_limit::RateLimit;
use proto::InfoHash;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use web::{Metric, Refusal, Setting, Source, machine_name, read_body};

use self::transfer::{Listed, PHASES, Share, Totals};
pub(crate) use self::transfer::{SeenTransfer, spent};
use crate::cli::{parse_count, parse_target};

/// Transfers at a time, if some are added over HTTP. Each has a task, and files.
const MAX_TRANSFERS: usize = 1_000;

/// Orders that wait at most. They are taken at once.
pub(crate) const MAX_ORDERS: usize = 16;

/// A leecher that can be looked at and changed.
pub(crate) struct Seen {
    listens: Option<SocketAddr>,
    limits: Limits,
    /// Where what is added goes; `None` if nothing can be added.
    orders: Option<mpsc::Sender<Order>>,
    /// Stops the program.
    shutdown: CancellationToken,
    started: Instant,
    list: Mutex<List>,
}

/// Limits of all transfers together, or for `max_peers` of each. They may change.
pub(crate) struct Limits {
    pub(crate) upload: RateLimit,
    pub(crate) download: RateLimit,
    pub(crate) max_peers: MaxPeers,
}

/// Somebody asks for a transfer over HTTP.
pub(crate) struct Order {
    pub(crate) target: Target,
    pub(crate) seen: Arc<SeenTransfer>,
}

#[derive(Default)]
struct List {
    transfers: Vec<Arc<SeenTransfer>>,
    /// Counts of those that were removed.
    before: Totals,
}

#[derive(Serialize)]
struct Status {
    role: &'static str,
    version: &'static str,
    machine: String,
    uptime_s: u64,
    listens: Option<SocketAddr>,
    shares: usize,
    peers: usize,
    max_peers: usize,
    received: u64,
    sent: u64,
    upload_limit: Option<u64>,
    download_limit: Option<u64>,
}

#[derive(Serialize)]
struct Shares {
    shares: Vec<Listed>,
    more: bool,
}

#[derive(Serialize)]
struct SeenLimits {
    upload_limit: Option<u64>,
    download_limit: Option<u64>,
    max_peers: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLimits {
    #[serde(default)]
    upload_limit: Setting,
    #[serde(default)]
    download_limit: Setting,
    max_peers: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToAdd {
    target: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToRemove {
    share: String,
}

impl Seen {
    pub(crate) fn new(
        listens: Option<SocketAddr>,
        limits: Limits,
        orders: Option<mpsc::Sender<Order>>,
        shutdown: CancellationToken,
    ) -> Seen {
        let (started, list) = (Instant::now(), Mutex::default());
        Seen { listens, limits, orders, shutdown, started, list }
    }

    /// A transfer of what somebody asks for begins.
    pub(crate) fn begin(&self, target: String) -> Arc<SeenTransfer> {
        let transfer = Arc::new(SeenTransfer::new(target, self.shutdown.child_token()));
        self.list().transfers.push(Arc::clone(&transfer));
        transfer
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All transfers, and the counts of those that were removed.
    fn all(&self) -> (Vec<Arc<SeenTransfer>>, Totals) {
        let list = self.list();
        (list.transfers.clone(), list.before.clone())
    }

    fn status(&self) -> Status {
        let (transfers, mut totals) = self.all();
        let listed: Vec<_> = transfers.iter().map(|transfer| transfer.listed()).collect();
        transfers.iter().for_each(|transfer| transfer.add_to(&mut totals));
        Status {
            role: "leecher",
            version: env!("CARGO_PKG_VERSION"),
            machine: machine_name(),
            uptime_s: self.started.elapsed().as_secs(),
            listens: self.listens,
            shares: listed.len(),
            peers: listed.iter().map(|share| share.peers).sum(),
            max_peers: self.limits.max_peers.count(),
            received: totals.received,
            sent: totals.sent,
            upload_limit: self.limits.upload.per_second(),
            download_limit: self.limits.download.per_second(),
        }
    }

    fn share(&self, infohash: InfoHash) -> Option<Share> {
        let (transfers, _) = self.all();
        transfers.iter().find(|transfer| transfer.infohash() == Some(infohash)).map(|it| it.share())
    }

    fn limits(&self) -> SeenLimits {
        let Limits { upload, download, max_peers } = &self.limits;
        SeenLimits {
            upload_limit: upload.per_second(),
            download_limit: download.per_second(),
            max_peers: max_peers.count(),
        }
    }

    fn set_limits(&self, new: NewLimits) -> Result<SeenLimits, Refusal> {
        let read = |limit: Setting| limit.read(RateLimit::unlimited(), RateLimit::parse);
        // All are read before the first is changed.
        let (upload, download) = (read(new.upload_limit)?, read(new.download_limit)?);
        let max_peers = new.max_peers.map(|count| parse_count(&count.to_string())).transpose();
        let max_peers = max_peers.map_err(|error| Refusal::Malformed(format!("max_peers: {error}")))?;
        if let Some(limit) = upload {
            self.limits.upload.set(&limit);
        }
        if let Some(limit) = download {
            self.limits.download.set(&limit);
        }
        if let Some(count) = max_peers {
            self.limits.max_peers.set(count);
        }
        Ok(self.limits())
    }

    fn add(&self, ToAdd { target }: ToAdd) -> Result<Listed, Refusal> {
        let conflict = |why: &str| Refusal::Conflict(why.to_owned());
        let Some(orders) = &self.orders else { return Err(conflict("this leecher fetches nothing")) };
        let target: Target = parse_target(&target).map_err(Refusal::Malformed)?;
        let name = target.to_string();
        let (transfers, _) = self.all();
        if transfers.len() >= MAX_TRANSFERS {
            return Err(conflict("there are too many transfers; remove some"));
        }
        if transfers.iter().any(|transfer| transfer.target() == name) {
            return Err(conflict("this is being fetched already"));
        }
        // Room first, so that what is in the list is being fetched.
        let order = orders
            .try_reserve()
            .map_err(|_| conflict("the leecher is about to end, or has too much to do"))?;
        let seen = self.begin(name);
        let listed = seen.listed();
        order.send(Order { target, seen });
        Ok(listed)
    }

    /// Ends a transfer and forgets it. What has arrived stays.
    fn remove(&self, share: &str) -> Result<(), Refusal> {
        let infohash: Option<InfoHash> = share.parse().ok();
        let is_it = |transfer: &Arc<SeenTransfer>| {
            transfer.target() == share || infohash.is_some() && transfer.infohash() == infohash
        };
        let mut list = self.list();
        let at = list.transfers.iter().position(is_it);
        let at = at.ok_or_else(|| Refusal::Unknown("this is not fetched here".to_owned()))?;
        let transfer = list.transfers.remove(at);
        transfer.add_to(&mut list.before);
        transfer.stop().cancel();
        Ok(())
    }
}

impl Source for Seen {
    fn metrics(&self) -> Vec<Metric> {
        let status = self.status();
        let mut phases = PHASES.map(|phase| (phase.name(), 0));
        let (transfers, mut totals) = self.all();
        let (mut size, mut done) = (0, 0);
        for transfer in &transfers {
            transfer.add_to(&mut totals);
            let (phase, of_it, here) = transfer.standing();
            phases.iter_mut().filter(|(name, _)| *name == phase.name()).for_each(|(_, count)| *count += 1);
            size += of_it;
            done += here;
        }
        let Totals { received, sent, wasted, wrong, spent: times } = totals;
        let mut spent = Metric::counters(
            "shoal_leecher_spent_seconds",
            "Seconds of all transfers together, by what they were spent on.",
            "on",
            &times.keys().map(|&on| (on, 0)).collect::<Vec<_>>(),
        );
        for (sample, time) in spent.samples.iter_mut().zip(times.values()) {
            sample.value = time.as_secs_f64();
        }
        vec![
            Metric::gauge(
                "shoal_leecher_uptime_seconds",
                "Seconds since the leecher started.",
                status.uptime_s,
            ),
            Metric::gauges("shoal_leecher_transfers", "Transfers, by what they do.", "state", &phases),
            Metric::gauge("shoal_leecher_share_bytes", "Bytes in all shares together.", size),
            Metric::gauge("shoal_leecher_done_bytes", "Bytes of them that are here and proved.", done),
            Metric::counter(
                "shoal_leecher_received_bytes",
                "Bytes of proved chunks that came from peers.",
                received,
            ),
            Metric::counter(
                "shoal_leecher_wasted_bytes",
                "Bytes of chunks that came and were not needed.",
                wasted,
            ),
            Metric::counter("shoal_leecher_sent_bytes", "Bytes of chunks that were sent to others.", sent),
            Metric::counter("shoal_leecher_proof_failures", "Chunks that were proved wrong.", wrong),
            Metric::gauge("shoal_leecher_peers", "Connected peers.", status.peers as u64),
            Metric::gauge(
                "shoal_leecher_peers_limit",
                "Maximum peers to fetch from.",
                status.max_peers as u64,
            ),
            Metric::gauge(
                "shoal_leecher_upload_limit_bytes_per_second",
                "Maximum upload rate; 0 if there is none.",
                status.upload_limit.unwrap_or(0),
            ),
            Metric::gauge(
                "shoal_leecher_download_limit_bytes_per_second",
                "Maximum download rate; 0 if there is none.",
                status.download_limit.unwrap_or(0),
            ),
            spent,
        ]
    }

    fn resource(&self, path: &str, _: &str) -> Option<String> {
        let parts: Vec<_> = path.split('/').collect();
        Some(match parts[..] {
            ["status"] => web::json(&self.status()),
            ["limits"] => web::json(&self.limits()),
            ["shares"] => {
                let (transfers, _) = self.all();
                let shares = transfers.iter().map(|transfer| transfer.listed()).collect();
                web::json(&Shares { shares, more: false })
            }
            ["shares", infohash] => web::json(&self.share(infohash.parse().ok()?)?),
            _ => return None,
        })
    }

    fn change(&self, path: &str, body: &[u8]) -> Result<String, Refusal> {
        match path {
            "limits" => Ok(web::json(&self.set_limits(read_body(body)?)?)),
            "shares" => Ok(web::json(&self.add(read_body(body)?)?)),
            "remove" => {
                let ToRemove { share } = read_body(body)?;
                self.remove(&share).map(|()| "{}".to_owned())
            }
            _ => Err(Refusal::Unknown("nothing can be changed here".to_owned())),
        }
    }

    fn stop(&self) {
        self.shutdown.cancel();
    }
}
