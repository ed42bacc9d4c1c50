//! What the time of a transfer was spent on.
//!
//! Pure. At each moment one thing limits the transfer, and the time until the next moment is booked to it. So the parts
//! always sum to the total.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// What a transfer spends time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Spent {
    /// Finding the share, fetching its description, and proving what an earlier run left.
    Starting,
    /// No peer was connected.
    NoPeers,
    /// Chunks were arriving: the network and the peers' links were the limit.
    Receiving,
    /// No connected peer had a missing chunk and room for a request.
    RareChunk,
    /// All chunks were requested, and this peer still owed some.
    SlowPeer(SocketAddr),
    /// Chunks waited to be hashed.
    Hashing,
    /// Chunks waited to be written.
    Writing,
    /// The user's download limit was reached.
    OwnLimit,
    /// The finished share was being made durable.
    Flushing,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spent::Starting => f.write_str("starting: finding the share, proving what was here"),
            Spent::NoPeers => f.write_str("waiting for peers"),
            Spent::Receiving => f.write_str("receiving: the network or the peers' links"),
            Spent::RareChunk => f.write_str("waiting for chunks that no free peer had"),
            Spent::SlowPeer(address) => write!(f, "waiting for the last chunks of {address}"),
            Spent::Hashing => f.write_str("hashing"),
            Spent::Writing => f.write_str("writing to disk"),
            Spent::OwnLimit => f.write_str("the download limit"),
            Spent::Flushing => f.write_str("making the file durable"),
        }
    }
}

/// The account of one transfer.
#[derive(Debug, Clone)]
pub struct Account {
    since: Instant,
    current: Vec<Spent>,
    totals: BTreeMap<Spent, Duration>,
}

impl Account {
    /// An account that starts now, with [`Spent::Starting`].
    pub fn new(begun: Instant) -> Account {
        Account { since: begun, current: vec![Spent::Starting], totals: BTreeMap::new() }
    }

    /// Books the time from now on to these, in equal parts.
    ///
    /// # Panics
    /// Panics if there are none.
    pub fn switch(&mut self, to: &[Spent], now: Instant) {
        assert!(!to.is_empty(), "time goes somewhere");
        if self.current != to {
            self.book(now);
            self.current.clear();
            self.current.extend_from_slice(to);
        }
    }

    /// What the time was spent on until the last booking, largest first. The parts sum to the time since the start, apart from
    /// nanoseconds of rounding.
    pub fn parts(&self) -> Vec<(Spent, Duration)> {
        let mut parts: Vec<_> = self.totals.iter().map(|(&spent, &time)| (spent, time)).collect();
        parts.sort_by_key(|&(spent, time)| (std::cmp::Reverse(time), spent));
        parts
    }

    /// Divides the time booked to `from` in these proportions.
    pub fn split(&mut self, from: Spent, into: &[(Spent, Duration)]) {
        let whole: Duration = into.iter().map(|&(_, weight)| weight).sum();
        let Some(time) = self.totals.get(&from).copied().filter(|_| !whole.is_zero()) else { return };
        self.totals.remove(&from);
        for &(spent, weight) in into {
            let part = time.mul_f64(weight.as_secs_f64() / whole.as_secs_f64());
            *self.totals.entry(spent).or_default() += part;
        }
    }

    /// Books the time until now.
    pub fn book(&mut self, now: Instant) {
        let time = now.saturating_duration_since(self.since);
        self.since = now;
        // There is at least one, and far fewer than u32::MAX.
        let parts = u32::try_from(self.current.len()).unwrap_or(u32::MAX);
        for &spent in &self.current {
            *self.totals.entry(spent).or_default() += time / parts;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_sum_to_the_whole() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let slow = |port| Spent::SlowPeer(([127, 0, 0, 1], port).into());
        let mut account = Account::new(start);
        account.switch(&[Spent::Receiving], at(100));
        account.switch(&[Spent::Writing], at(600));
        account.switch(&[slow(1), slow(2)], at(640));
        account.split(
            Spent::Writing,
            &[(Spent::Writing, Duration::from_secs(3)), (Spent::Hashing, Duration::from_secs(1))],
        );
        account.book(at(740));
        let parts = account.parts();
        let ms: Vec<_> = parts.iter().map(|&(spent, time)| (spent, time.as_millis())).collect();
        assert_eq!(
            ms,
            [
                (Spent::Receiving, 500),
                (Spent::Starting, 100),
                (slow(1), 50),
                (slow(2), 50),
                (Spent::Writing, 30),
                (Spent::Hashing, 10),
            ]
        );
        assert_eq!(parts.iter().map(|(_, time)| *time).sum::<Duration>(), Duration::from_millis(740));
    }
}
