//! What an operator may see of a tracker while it runs.
//!
//! Nothing here changes anything. A call takes the lock that answers need for a few microseconds at a time, however much there is to see:
//! it looks at [`STEP`] things, lets the workers answer, and goes on.

use std::{
    net::UdpSocket,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use proto::{InfoHash, tracker::ShareEntry};

use crate::{
    handler::Counters,
    registry::{Host, Stats, Summary, place},
    worker::Shared,
};

/// Shares, or peers, that are looked at under the lock at a time: some 20 µs.
const STEP: usize = 128;

/// A tracker to look at. Clones are the same tracker.
#[derive(Clone)]
pub struct View {
    shared: Arc<Shared>,
    /// The inodes of the sockets, by which the system lists them.
    sockets: Arc<[u64]>,
}

/// Counts of a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams and answers so far.
    pub requests: Counters,
    /// What is registered.
    pub registry: Stats,
    /// Replies that the system did not accept.
    pub unsent: u64,
    /// Datagrams that the system dropped because the receive buffer was full; `None` if it does not say.
    pub kernel_drops: Option<u64>,
    /// If it is one of several trackers with one registry.
    pub fleet: Option<FleetCounts>,
}

/// Counts of a tracker's connection to the registry of its fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FleetCounts {
    /// Whether the store can be used now.
    pub is_connected: bool,
    /// Changes that wait to be written.
    pub queued: u64,
    /// Changes that the store took.
    pub written: u64,
    /// Changes that found no room in a queue.
    pub dropped: u64,
    /// Registrations of other trackers that were taken in.
    pub taken_in: u64,
    /// Lookups that waited for the store.
    pub waited: u64,
    /// Those that the store did not answer in time.
    pub late: u64,
    /// How often the connection was lost.
    pub outages: u64,
}

impl View {
    pub(crate) fn new(shared: Arc<Shared>, sockets: &[UdpSocket]) -> View {
        View { shared, sockets: inodes(sockets) }
    }

    /// All counts.
    pub fn counts(&self) -> Counts {
        let (requests, registry) = self.load();
        let fleet = self.shared.fleet.as_ref().map(|side| {
            let (counts, load) = (&side.counts, Ordering::Relaxed);
            FleetCounts {
                is_connected: counts.is_connected.load(load),
                queued: counts.queued.load(load),
                written: counts.written.load(load),
                dropped: counts.dropped.load(load),
                taken_in: counts.taken_in.load(load),
                waited: counts.waited.load(load),
                late: counts.late.load(load),
                outages: counts.lost.load(load),
            }
        });
        let kernel_drops = kernel_drops(&self.sockets);
        Counts { requests, registry, unsent: self.shared.unsent(), kernel_drops, fleet }
    }

    /// Datagrams and answers so far, and what is registered: the counts that cost least.
    pub fn load(&self) -> (Counters, Stats) {
        let handler = self.shared.handler();
        (handler.counters(), handler.stats())
    }

    /// The first shares whose names begin with `prefix`, each under all its names, at most `most`, in order of name; and whether there are
    /// more.
    pub fn shares(&self, prefix: &str, most: usize) -> (Vec<ShareEntry>, bool) {
        let mut shares: Vec<ShareEntry> = Vec::new();
        let mut after = None;
        loop {
            let step = STEP.min(most + 1 - shares.len());
            let (next, more) = self.shared.handler().registry().look_through(prefix, after.as_ref(), step);
            after = next.last().map(place).or(after);
            let is_stuck = next.is_empty();
            shares.extend(next);
            if shares.len() > most {
                shares.truncate(most);
                return (shares, true);
            }
            if !more || is_stuck {
                return (shares, more);
            }
        }
    }

    /// A share, and at most `most` of its peers; `None` if it is unknown.
    pub fn share(&self, infohash: &InfoHash, most: usize) -> Option<(Summary, Vec<Host>)> {
        let now = Instant::now();
        let summary = self.shared.handler().registry().summary(infohash)?;
        let (mut hosts, mut from) = (Vec::new(), 0);
        while from < most {
            let step = STEP.min(most - from);
            let (next, more) = self.shared.handler().registry().hosts(infohash, from, step, now);
            hosts.extend(next);
            from += step;
            if !more {
                break;
            }
        }
        Some((summary, hosts))
    }
}

#[cfg(target_os = "linux")]
fn inodes(sockets: &[UdpSocket]) -> Arc<[u64]> {
    sockets.iter().filter_map(|socket| Some(rustix::fs::fstat(socket).ok()?.st_ino)).collect()
}

#[cfg(not(target_os = "linux"))]
fn inodes(_: &[UdpSocket]) -> Arc<[u64]> {
    Arc::default()
}

/// Datagrams that the system dropped at these sockets. Linux lists all UDP sockets of the network namespace in two files.
fn kernel_drops(sockets: &[u64]) -> Option<u64> {
    let lists = ["/proc/self/net/udp", "/proc/self/net/udp6"];
    let drops: Vec<_> =
        lists.iter().filter_map(|list| drops_in(&std::fs::read_to_string(list).ok()?, sockets)).collect();
    (!drops.is_empty()).then(|| drops.into_iter().sum())
}

/// Drops of these sockets in such a list; `None` if none of them is there.
fn drops_in(list: &str, sockets: &[u64]) -> Option<u64> {
    let drops = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let inode: u64 = words.nth(9)?.parse().ok()?;
        sockets.contains(&inode).then(|| words.nth(2)?.parse().ok())?
    };
    let drops: Vec<u64> = list.lines().filter_map(drops).collect();
    (!drops.is_empty()).then(|| drops.into_iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_those_of_the_own_sockets() {
        let list = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1167: 00000000:1784 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 00000000f2b3c1a0 12
 1167: 00000000:1784 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 00000000f2b3c1a1 30
 2000: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 1234 2 00000000f2b3c1a2 500\n";
        assert_eq!(drops_in(list, &[4711, 4712]), Some(42));
        assert_eq!(drops_in(list, &[99]), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_lists_a_socket_by_its_inode() {
        let sockets = [UdpSocket::bind("127.0.0.1:0").unwrap()];
        let inodes = inodes(&sockets);
        assert_eq!(kernel_drops(&inodes), Some(0));
        drop(sockets);
        assert_eq!(kernel_drops(&inodes), None);
    }
}
