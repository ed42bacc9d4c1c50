//! How swarms filled: how much each host had, and when. Pure: time is an argument.
//!
//! A tracker learns from a host how much it has with each announce, and remembers only the last. So a few shares are recorded here, for
//! people to look at: those that were looked at last, and those with most leechers. The record of a share has a bounded number of
//! columns. When all are used, every second one is dropped, and from then on they are twice as far apart. So it shows the whole time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use proto::InfoHash;
use tracker::registry::Host;

/// Shares that are recorded at a time. With [`MAX_HOSTS`] and [`MAX_COLUMNS`] they take 2 MB.
const MAX_SHARES: usize = 8;

/// Hosts of a share that are seen and recorded.
pub(crate) const MAX_HOSTS: usize = 1_000;

/// Columns of a record.
const MAX_COLUMNS: usize = 240;

/// Time between two columns at first.
const FIRST_STEP: Duration = Duration::from_secs(1);

/// What a host had when it was not there.
pub(crate) const ABSENT: u8 = u8::MAX;

/// The records of some shares.
#[derive(Debug, Default)]
pub(crate) struct History {
    shares: BTreeMap<InfoHash, Record>,
}

/// How a share filled.
#[derive(Debug)]
pub(crate) struct Record {
    wanted: Instant,
    begun: Instant,
    step: Duration,
    columns: usize,
    hosts: BTreeMap<(IpAddr, u16), Track>,
}

/// How a host filled.
#[derive(Debug)]
struct Track {
    /// Hosts are in the order in which they came.
    number: usize,
    percent: u8,
    /// When an announce first had this percentage, since the registry began.
    since: Duration,
    /// Bytes a second over the time in which the percentage last grew; less if it has not grown for longer than that.
    rate: Option<u64>,
    columns: Vec<u8>,
}

impl History {
    /// The shares that are recorded.
    pub(crate) fn recorded(&self) -> Vec<InfoHash> {
        self.shares.keys().copied().collect()
    }

    /// Records a share from now on. If there are too many, the one that was not wanted for longest is forgotten.
    pub(crate) fn want(&mut self, infohash: InfoHash, now: Instant) {
        if let Some(record) = self.shares.get_mut(&infohash) {
            record.wanted = now;
            return;
        }
        if self.shares.len() >= MAX_SHARES
            && let Some(oldest) =
                self.shares.iter().min_by_key(|(_, record)| record.wanted).map(|(id, _)| *id)
        {
            self.shares.remove(&oldest);
        }
        self.shares.insert(infohash, Record::new(now));
    }

    /// Records some shares that nobody looks at, if there is room or one of the others was not wanted for a while.
    pub(crate) fn suggest(&mut self, infohash: InfoHash, now: Instant, patience: Duration) {
        let is_stale = |record: &Record| now.saturating_duration_since(record.wanted) >= patience;
        if self.shares.len() < MAX_SHARES
            || self.shares.contains_key(&infohash)
            || self.shares.values().any(is_stale)
        {
            self.want(infohash, now);
        }
    }

    /// Forgets a share that is gone.
    pub(crate) fn forget(&mut self, infohash: &InfoHash) {
        self.shares.remove(infohash);
    }

    /// The share of `size` bytes has these hosts now.
    pub(crate) fn note(&mut self, infohash: &InfoHash, size: u64, hosts: &[Host], now: Instant) {
        if let Some(record) = self.shares.get_mut(infohash) {
            record.note(size, hosts, now);
        }
    }

    /// The record of a share.
    pub(crate) fn of(&self, infohash: &InfoHash) -> Option<&Record> {
        self.shares.get(infohash)
    }
}

impl Record {
    fn new(now: Instant) -> Record {
        Record { wanted: now, begun: now, step: FIRST_STEP, columns: 0, hosts: BTreeMap::new() }
    }

    fn note(&mut self, size: u64, hosts: &[Host], now: Instant) {
        let next = self.hosts.values().map(|track| track.number + 1).max().unwrap_or(0);
        for (more, host) in hosts.iter().enumerate() {
            let (heard, percent) = (host.heard, host.progress.percent());
            if let Some(track) = self.hosts.get_mut(&key(host)) {
                track.announced(percent, heard, size);
            } else if self.hosts.len() < MAX_HOSTS {
                let columns = vec![ABSENT; self.columns];
                let track = Track { number: next + more, percent, since: heard, rate: None, columns };
                self.hosts.insert(key(host), track);
            }
        }
        let due =
            u32::try_from(self.columns).map_or(Duration::MAX, |columns| self.step.saturating_mul(columns));
        if now.saturating_duration_since(self.begun) >= due {
            self.add_column(hosts);
        }
    }

    fn add_column(&mut self, hosts: &[Host]) {
        let present: BTreeSet<_> = hosts.iter().map(key).collect();
        for (key, track) in &mut self.hosts {
            track.columns.push(if present.contains(key) { track.percent } else { ABSENT });
        }
        self.columns += 1;
        if self.columns >= MAX_COLUMNS {
            self.columns = self.columns.div_ceil(2);
            self.step *= 2;
            for track in self.hosts.values_mut() {
                let mut place = 0..;
                track.columns.retain(|_| place.next().is_some_and(|place| place % 2 == 0));
            }
            self.hosts.retain(|_, track| track.columns.iter().any(|&percent| percent != ABSENT));
        }
    }

    /// Bytes a second over the time in which a host's percentage last grew, or less.
    pub(crate) fn rate(&self, host: &Host) -> Option<u64> {
        self.hosts.get(&key(host))?.rate
    }

    /// Time since the record began, and time between two columns.
    pub(crate) fn times(&self, now: Instant) -> (Duration, Duration) {
        (now.saturating_duration_since(self.begun), self.step)
    }

    /// The percentages of each host, in the order in which they came: [`ABSENT`] where it was not there.
    pub(crate) fn rows(&self) -> Vec<((IpAddr, u16), &[u8])> {
        let mut rows: Vec<_> = self.hosts.iter().collect();
        rows.sort_by_key(|(_, track)| track.number);
        rows.into_iter().map(|(&key, track)| (key, &track.columns[..])).collect()
    }
}

impl Track {
    fn announced(&mut self, percent: u8, heard: Duration, size: u64) {
        let passed = heard.saturating_sub(self.since);
        if passed.is_zero() {
            self.percent = percent;
            return;
        }
        let rate = |percents: u8| {
            let bytes = u128::from(percents) * u128::from(size) / 100;
            u64::try_from(bytes * 1_000 / passed.as_millis().max(1)).ok()
        };
        if percent == self.percent {
            // A percentage is whole, so nearly one more may be here.
            self.rate = self.rate.min(rate(1));
            return;
        }
        self.rate = rate(percent.saturating_sub(self.percent));
        (self.percent, self.since) = (percent, heard);
    }
}

fn key(host: &Host) -> (IpAddr, u16) {
    (host.ip, host.port.get())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    const SHARE: InfoHash = InfoHash([1; 32]);

    fn host(number: u16, percent: u8, heard_s: u64) -> Host {
        Host {
            ip: [10, 0, 0, 1].into(),
            port: NonZeroU16::new(number).unwrap(),
            label: Default::default(),
            progress: percent.try_into().unwrap(),
            heard: Duration::from_secs(heard_s),
            age: Duration::ZERO,
        }
    }

    #[test]
    fn a_rate_is_that_over_the_time_in_which_a_percentage_grew() {
        let (start, mut history) = (Instant::now(), History::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        history.want(SHARE, start);
        let mut rate = |percent, heard_s, seconds| {
            history.note(&SHARE, 10_000, &[host(1, percent, heard_s)], at(seconds));
            history.of(&SHARE).unwrap().rate(&host(1, 0, 0))
        };
        assert_eq!(rate(10, 0, 0), None);
        assert_eq!(rate(10, 0, 5), None, "that is the same announce");
        assert_eq!(rate(40, 10, 10), Some(300));
        assert_eq!(rate(40, 10, 19), Some(300));
        assert_eq!(rate(40, 11, 20), Some(100), "as little as one percent in a second");
        assert_eq!(rate(40, 20, 20), Some(10), "no more than one percent in ten seconds");
        assert_eq!(rate(100, 30, 30), Some(300));
    }

    #[test]
    fn a_record_shows_the_whole_time_in_a_bounded_number_of_columns() {
        let (start, mut history) = (Instant::now(), History::default());
        history.want(SHARE, start);
        for second in 0..5_000 {
            let percent = u8::try_from(second / 50).unwrap();
            let mut hosts = vec![host(2, percent, 0)];
            hosts.extend((second >= 2_500).then(|| host(1, 100, 0)));
            history.note(&SHARE, 10_000, &hosts, start + Duration::from_secs(second));
        }
        let record = history.of(&SHARE).unwrap();
        let rows = record.rows();
        let [((_, 2), first), ((_, 1), second)] = rows[..] else { panic!("{rows:?}") };
        assert!(first.len() == second.len() && (MAX_COLUMNS / 2..MAX_COLUMNS).contains(&first.len()));
        assert!(first.is_sorted() && first[0] == 0 && first[first.len() - 1] > 95, "{first:?}");
        let there = second.iter().position(|&percent| percent != ABSENT).unwrap();
        assert!(there.abs_diff(first.len() / 2) <= 1, "it came after half of the time: {second:?}");
    }

    #[test]
    fn those_that_are_looked_at_stay() {
        let (now, mut history) = (Instant::now(), History::default());
        let (patience, share) = (Duration::from_secs(60), |number| InfoHash([number; 32]));
        for number in 0..20 {
            history.suggest(share(number), now, patience);
        }
        assert_eq!(history.recorded(), (0..8).map(share).collect::<Vec<_>>());
        let later = now + patience;
        history.want(share(30), later);
        (1..8).for_each(|number| history.want(share(number), later));
        history.suggest(share(40), later, patience);
        assert!(history.of(&share(30)).is_some() && history.of(&share(40)).is_none());
        history.suggest(share(40), later + patience, patience);
        assert!(history.of(&share(40)).is_some());
    }

    #[test]
    fn hosts_are_bounded() {
        let (now, mut history) = (Instant::now(), History::default());
        history.want(SHARE, now);
        let hosts: Vec<_> = (1..=3_000).map(|number| host(number, 1, 0)).collect();
        history.note(&SHARE, 1, &hosts, now);
        assert_eq!(history.of(&SHARE).unwrap().rows().len(), MAX_HOSTS);
    }
}
