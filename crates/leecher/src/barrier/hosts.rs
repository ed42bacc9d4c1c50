//! The hosts of a share that is waited for, as the trackers name them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use peer::tracker_client::{TrackerClient, TrackerError};
use proto::{
    InfoHash, Label,
    tracker::message::{Completion, FinishedHosts, LateHosts},
};
use tokio::{task::JoinSet, time::Instant};

/// Answers with late hosts that a look asks one tracker for: 60 hosts, three times as many as are named if time is up.
const MAX_PAGES: usize = 3;

/// Answers with hosts that have finished that a look asks one tracker for. A later look asks for the rest. A tracker counts 10,000.
const MAX_NEW_PAGES: usize = 10;

/// The hosts of a share, as of the last look.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// Those that do not have all of it.
    late: BTreeMap<SocketAddr, Late>,
    /// Those that have fetched all of it, by the tracker that counts them and in its order.
    finished: BTreeMap<usize, Vec<Finished>>,
}

/// A host that does not have all of the share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Late {
    pub(super) progress: Completion,
    pub(super) address: SocketAddr,
    pub(super) label: Label,
    /// When it was first seen to have that much.
    pub(super) since: Instant,
}

/// A host that has fetched all of the share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Finished {
    pub(super) address: IpAddr,
    pub(super) label: Label,
}

/// What one tracker names.
struct Named {
    tracker: usize,
    late: Vec<(SocketAddr, Completion, Label)>,
    /// All that have finished, and those that are new.
    total: u32,
    finished: Vec<Finished>,
}

impl Hosts {
    /// Asks all trackers. What one does not answer stays as it was.
    pub(super) async fn look(&mut self, infohash: InfoHash, clients: &[TrackerClient]) {
        let asking = clients.iter().enumerate().map(|(tracker, client)| {
            let known = self.finished.get(&tracker).map_or(0, Vec::len);
            named(tracker, client.clone(), infohash, known)
        });
        let asked = asking.collect::<JoinSet<_>>().join_all().await;
        let named: Vec<_> = asked.into_iter().filter_map(Result::ok).collect();
        if !named.is_empty() {
            self.note(named, Instant::now());
        }
    }

    fn note(&mut self, named: Vec<Named>, now: Instant) {
        let mut late: BTreeMap<SocketAddr, Late> = BTreeMap::new();
        for Named { tracker, late: named, total, finished } in named {
            for (address, progress, label) in named {
                let host = late.entry(address).or_insert(Late { progress, address, label, since: now });
                // Trackers are asked at once, so what differs is how long ago it announced itself.
                host.progress = host.progress.max(progress);
            }
            let known = self.finished.entry(tracker).or_default();
            if usize::try_from(total).is_ok_and(|total| total < known.len()) {
                // The tracker has begun anew. The next look asks for all.
                known.clear();
            } else {
                known.extend(finished);
            }
        }
        for host in late.values_mut() {
            if let Some(before) = self.late.get(&host.address)
                && before.progress == host.progress
            {
                host.since = before.since;
            }
        }
        self.late = late;
    }

    /// Those that do not have all of it, those with least first.
    pub(super) fn late(&self) -> Vec<Late> {
        let mut late: Vec<_> = self.late.values().copied().collect();
        late.sort_unstable_by_key(|host| (host.progress, host.address));
        late
    }

    /// Those that have fetched all of it, those that are gone too.
    pub(super) fn finished(&self) -> BTreeSet<Finished> {
        self.finished.values().flatten().copied().collect()
    }
}

/// What a tracker names. `known` hosts that have finished are known.
async fn named(
    tracker: usize,
    client: TrackerClient,
    infohash: InfoHash,
    known: usize,
) -> Result<Named, TrackerError> {
    let (mut late, mut after) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let (LateHosts { more, hosts }, at) = client.late(infohash, after).await?;
        after = hosts.last().map(|host| host.peer);
        late.extend(
            hosts
                .iter()
                .filter_map(|host| Some((host.peer.socket_addr(at)?, host.peer.progress, host.label))),
        );
        if !more || after.is_none() {
            break;
        }
    }
    let (mut total, mut finished) = (0, Vec::new());
    for _ in 0..MAX_NEW_PAGES {
        let from = u32::try_from(known + finished.len()).unwrap_or(u32::MAX);
        let (page, at) = client.finished(infohash, from).await?;
        total = page.total;
        let FinishedHosts { hosts, .. } = page;
        finished
            .extend(hosts.iter().map(|host| Finished { address: host.address.ip(at), label: host.label }));
        if hosts.is_empty() || usize::try_from(total).is_ok_and(|total| known + finished.len() >= total) {
            break;
        }
    }
    Ok(Named { tracker, late, total, finished })
}

impl Late {
    /// For how long it has had what it has.
    pub(super) fn unchanged(&self, now: Instant) -> Duration {
        now.duration_since(self.since)
    }
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host(self.label, &self.address, f)
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host(self.label, &self.address, f)
    }
}

/// A host by its name and its address.
fn write_host(label: Label, address: &dyn fmt::Display, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if label.is_empty() { write!(f, "{address}") } else { write!(f, "{} ({address})", label.as_str()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: u8) -> SocketAddr {
        ([10, 0, 0, host], 7000).into()
    }

    fn finished(host: u8) -> Finished {
        Finished { address: [10, 0, 0, host].into(), label: Label::NONE }
    }

    fn named(tracker: usize, late: &[(u8, u32)], total: u32, new: &[u8]) -> Named {
        let late =
            late.iter().map(|&(host, percent)| (address(host), Completion::of(percent, 100), Label::NONE));
        Named { tracker, late: late.collect(), total, finished: new.iter().copied().map(finished).collect() }
    }

    #[test]
    fn a_host_is_slow_since_it_was_seen_to_have_more() {
        let (mut hosts, start) = (Hosts::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        hosts.note(vec![named(0, &[(1, 40), (2, 40)], 0, &[])], start);
        hosts.note(vec![named(0, &[(1, 40), (2, 50)], 0, &[])], at(60));
        let late: Vec<_> =
            hosts.late().iter().map(|host| (host.address, host.unchanged(at(90)).as_secs())).collect();
        assert_eq!(late, [(address(1), 90), (address(2), 30)]);
        hosts.note(vec![named(0, &[(2, 50)], 1, &[1])], at(91));
        assert_eq!(hosts.late().len(), 1, "the other is done");
    }

    #[test]
    fn hosts_of_several_trackers_count_once_and_a_tracker_may_begin_anew() {
        let (mut hosts, now) = (Hosts::default(), Instant::now());
        hosts.note(vec![named(0, &[(9, 10)], 2, &[1, 2]), named(1, &[(9, 12)], 2, &[2, 3])], now);
        assert_eq!(hosts.finished().into_iter().collect::<Vec<_>>(), [1, 2, 3].map(finished));
        assert_eq!(hosts.late()[0].progress.percent(), 12);
        hosts.note(vec![named(0, &[], 3, &[4])], now);
        assert_eq!(hosts.finished().into_iter().collect::<Vec<_>>(), [1, 2, 3, 4].map(finished));
        hosts.note(vec![named(0, &[], 1, &[])], now);
        assert_eq!(hosts.finished().into_iter().collect::<Vec<_>>(), [2, 3].map(finished));
    }

    #[test]
    fn a_host_has_a_name_if_it_has_one() {
        let mut host = finished(1);
        assert_eq!(host.to_string(), "10.0.0.1");
        host.label = Label::cut("node7").unwrap();
        assert_eq!(host.to_string(), "node7 (10.0.0.1)");
    }
}
