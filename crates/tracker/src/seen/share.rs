//! A share and its hosts as they are shown: all of them, or those that changed since the last look.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use proto::InfoHash;
use serde::Serialize;
use tracker::registry::{Host, Summary};
use web::{Follow, News, json};

use crate::history::MAX_HOSTS;

/// A share with its hosts.
#[derive(Serialize)]
pub(super) struct Share {
    #[serde(flatten)]
    head: Head,
    hosts: Vec<SeenHost>,
}

/// A share as it is listed.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub(super) struct ListedShare {
    pub(super) infohash: String,
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) seeders: u32,
    pub(super) leechers: u32,
    pub(super) completed: u32,
}

/// A share without its hosts.
#[derive(Clone, PartialEq, Eq, Serialize)]
struct Head {
    #[serde(flatten)]
    share: ListedShare,
    /// Seconds until the last host should be done.
    left_s: Option<u64>,
    /// Whether some hosts are left out.
    more: bool,
}

#[derive(Serialize)]
struct SeenHost {
    address: SocketAddr,
    label: String,
    percent: u8,
    rate: Option<u64>,
    heard_s: u64,
    /// The time of its last announce, which stays the same until the next.
    #[serde(skip)]
    heard: Duration,
}

/// What changed between two looks.
#[derive(Serialize)]
struct Change<'a> {
    #[serde(flatten)]
    head: &'a Head,
    /// Hosts that are new, or changed.
    hosts: Vec<&'a SeenHost>,
    /// Hosts that are gone.
    gone: Vec<SocketAddr>,
}

/// A share that one page looks at by `look`.
pub(super) struct Followed<F> {
    look: F,
    /// What the page shows; `None` until it shows something.
    shown: Option<(Head, BTreeMap<SocketAddr, SeenHost>)>,
}

impl Share {
    pub(super) fn new(
        infohash: InfoHash,
        share: &Summary,
        hosts: &[Host],
        rate: impl Fn(&Host) -> Option<u64>,
    ) -> Share {
        let all = u64::from(share.seeders) + u64::from(share.leechers);
        let seen: Vec<_> = hosts.iter().map(|host| SeenHost::new(host, rate(host))).collect();
        let listed = ListedShare {
            infohash: infohash.to_string(),
            name: share.name.to_string(),
            size: share.size,
            seeders: share.seeders,
            leechers: share.leechers,
            completed: share.completed,
        };
        let head = Head {
            share: listed,
            left_s: left_s(share.size, &seen),
            more: all > hosts.len() as u64 && hosts.len() >= MAX_HOSTS,
        };
        Share { head, hosts: seen }
    }

    /// The same with the hosts that have least first.
    pub(super) fn least_first(mut self) -> Share {
        self.hosts.sort_by_key(|host| (host.percent, host.address));
        self
    }
}

impl SeenHost {
    fn new(host: &Host, rate: Option<u64>) -> SeenHost {
        let (ip, is_done): (IpAddr, _) = (host.ip, host.progress.is_complete());
        SeenHost {
            address: SocketAddr::new(ip, host.port.get()),
            label: host.label.as_str().to_owned(),
            percent: host.progress.percent(),
            rate: rate.filter(|_| !is_done),
            heard_s: host.age.as_secs(),
            heard: host.heard,
        }
    }

    /// Whether something was heard from it since, or is known of it now.
    fn differs_from(&self, before: &SeenHost) -> bool {
        let what = |host: &SeenHost| (host.heard, host.percent, host.rate, host.label.clone());
        what(self) != what(before)
    }
}

impl<F: FnMut() -> Option<Share>> Followed<F> {
    pub(super) fn new(look: F) -> Followed<F> {
        Followed { look, shown: None }
    }
}

impl<F: FnMut() -> Option<Share> + Send> Follow for Followed<F> {
    fn look(&mut self) -> Option<News> {
        let Some(Share { head, hosts }) = (self.look)() else {
            self.shown = None;
            return None;
        };
        let (news, now);
        match self.shown.take() {
            None => {
                let share = Share { head, hosts }.least_first();
                news = News::All(json(&share));
                now = (share.head, by_address(share.hosts));
            }
            Some((head_before, mut before)) => {
                let hosts = by_address(hosts);
                let is_new = |host: &&SeenHost| {
                    before.remove(&host.address).is_none_or(|before| host.differs_from(&before))
                };
                let changed: Vec<_> = hosts.values().filter(is_new).collect();
                let gone: Vec<_> = before.into_keys().collect();
                news = if changed.is_empty() && gone.is_empty() && head == head_before {
                    News::Nothing
                } else {
                    News::Change(json(&Change { head: &head, hosts: changed, gone }))
                };
                now = (head, hosts);
            }
        }
        self.shown = Some(now);
        Some(news)
    }
}

fn by_address(hosts: Vec<SeenHost>) -> BTreeMap<SocketAddr, SeenHost> {
    hosts.into_iter().map(|host| (host.address, host)).collect()
}

/// Seconds until the last host should be done; `None` if that cannot be known.
fn left_s(size: u64, hosts: &[SeenHost]) -> Option<u64> {
    let left = |host: &SeenHost| {
        let bytes = u128::from(size) * u128::from(100 - host.percent.min(100)) / 100;
        let rate = host.rate.filter(|&rate| rate > 0)?;
        u64::try_from(bytes / u128::from(rate)).ok()
    };
    let (mut latest, mut known, mut unknown) = (0, 0, 0);
    for host in hosts.iter().filter(|host| host.percent < 100) {
        match left(host) {
            Some(seconds) => (latest, known) = (seconds.max(latest), known + 1),
            None => unknown += 1,
        }
    }
    (known > unknown).then_some(latest)
}

#[cfg(test)]
mod tests {
    use proto::ShareName;

    use super::*;

    fn host(number: u16, percent: u8, heard_s: u64, age_s: u64) -> Host {
        Host {
            ip: [10, 0, 0, 1].into(),
            port: number.try_into().unwrap(),
            label: Default::default(),
            progress: percent.try_into().unwrap(),
            heard: Duration::from_secs(heard_s),
            age: Duration::from_secs(age_s),
        }
    }

    fn share(completed: u32, hosts: &[Host]) -> Share {
        let name = ShareName::new("disk.img").unwrap();
        let summary = Summary { name, size: 1_000, seeders: 0, leechers: 3, completed };
        Share::new(InfoHash([1; 32]), &summary, hosts, |_| None)
    }

    /// The ports of the hosts in some JSON, and of those that are gone.
    fn ports(text: &str) -> (Vec<u16>, Vec<u16>) {
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        let port =
            |address: &serde_json::Value| address.as_str().unwrap().parse::<SocketAddr>().unwrap().port();
        let list = |key: &str| json[key].as_array().cloned().unwrap_or_default();
        let hosts = list("hosts").iter().map(|host| port(&host["address"])).collect();
        (hosts, list("gone").iter().map(port).collect())
    }

    #[test]
    fn a_page_gets_all_once_and_then_what_changed() {
        let looks = [
            Some(share(0, &[host(1, 50, 0, 0), host(2, 10, 0, 0), host(3, 90, 0, 0)])),
            // A second later, nothing was heard.
            Some(share(0, &[host(1, 50, 0, 1), host(2, 10, 0, 1), host(3, 90, 0, 1)])),
            // One has more, one announced the same again, one is gone, and one came.
            Some(share(0, &[host(1, 60, 2, 0), host(3, 90, 2, 0), host(4, 0, 2, 0)])),
            Some(share(1, &[host(1, 60, 2, 1), host(3, 90, 2, 1), host(4, 0, 2, 1)])),
            None,
            Some(share(1, &[host(1, 60, 2, 3)])),
        ];
        let mut looks = looks.into_iter();
        let mut followed = Followed::new(move || looks.next().unwrap());
        let Some(News::All(all)) = followed.look() else { panic!("all at first") };
        assert_eq!(ports(&all), (vec![2, 1, 3], vec![]), "least first");
        assert_eq!(followed.look(), Some(News::Nothing));
        let Some(News::Change(change)) = followed.look() else { panic!("a change") };
        assert_eq!(ports(&change), (vec![1, 3, 4], vec![2]));
        assert!(change.contains(r#""name":"disk.img""#), "{change}");
        let Some(News::Change(change)) = followed.look() else { panic!("a change of the head") };
        assert_eq!(ports(&change), (vec![], vec![]));
        assert!(change.contains(r#""completed":1"#), "{change}");
        assert_eq!(followed.look(), None);
        let Some(News::All(all)) = followed.look() else { panic!("all, because it was gone") };
        assert_eq!(ports(&all), (vec![1], vec![]));
    }

    #[test]
    fn the_end_is_that_of_the_last_host_if_most_are_known() {
        let left = |hosts: &[(u8, Option<u64>)]| {
            let hosts = hosts.iter().map(|&(percent, rate)| SeenHost::new(&host(1, percent, 0, 0), rate));
            left_s(1_000, &hosts.collect::<Vec<_>>())
        };
        assert_eq!(left(&[(50, Some(100)), (90, Some(1)), (100, None)]), Some(100));
        assert_eq!(left(&[(50, Some(100)), (0, None)]), None);
        assert_eq!(left(&[(50, Some(0)), (50, None)]), None);
    }
}
