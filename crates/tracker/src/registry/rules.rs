//! The rules of a registry: how long a peer lasts, and how many there may be.

use std::{num::NonZeroU32, time::Duration};

use crate::rates::DEFAULT_RATE;

/// A peer whose announce was lost, with all its repeats, comes back this much later at most: a call takes 7 s, and the next begins
/// 3.6 s later at most and may have to connect first.
const LATE: Duration = Duration::from_secs(15);

/// The rules of a registry.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Time between two announces of a peer, as the tracker requests it (rounded up to seconds).
    pub heartbeat: Duration,
    /// A peer is gone this long after its last announce.
    pub expire: Duration,
    /// Maximum numbers of registrations.
    pub limits: Limits,
    /// What the tracker was before.
    pub past: Past,
    /// Maximum answers a second to one IPv4 address, or one IPv6 network (/64; four times as many to a /48); `None` for no limit.
    pub rate: Option<NonZeroU32>,
    /// Bytes a second that lookups may bring to such an address; `None` for 200 for each answer of `rate`.
    pub byte_rate: Option<NonZeroU32>,
}

/// The rules that an operator may change while a tracker runs.
#[derive(Debug, Clone)]
pub struct Caps {
    /// Maximum numbers of registrations.
    pub limits: Limits,
    /// As [`Rules::rate`].
    pub rate: Option<NonZeroU32>,
    /// As [`Rules::byte_rate`].
    pub byte_rate: Option<NonZeroU32>,
}

/// What a tracker was before it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Past {
    /// It had no peers when it last ran, or never ran. So nobody is missing.
    #[default]
    NoPeers,
    /// It had peers, which have yet to come back.
    Peers,
}

/// Maximum numbers of registrations. New ones beyond them are refused; existing ones stay and can be renewed.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Registrations in all. At some 200 bytes each, the default fills less than 1 GiB.
    pub peers: u32,
    /// Shares in all. The design was measured with this number. A share with few peers takes more memory than a peer.
    pub shares: u32,
    /// Registrations in one share. It bounds the one scan of a share that a lookup may have to wait for.
    pub peers_per_share: u32,
    /// Registrations from one IPv4 address, or one part of an IPv6 network (an eighth of a /48). This is enough for every share of a large mirror, or
    /// for a company behind one address. Filling the registry takes hundreds of addresses.
    pub registrations_per_ip: u32,
    /// Registrations in one share from one IPv4 address, or one part of an IPv6 network. This is enough for a thousand seeders
    /// behind one address, each of which was just restarted at another port.
    pub peers_per_site: u16,
    /// From this many registrations on, those of one IPv4 address, or one part of an IPv6 network, make room for newcomers from less
    /// crowded ones when the tracker is full. To keep it full, an attacker needs one address for this many places. A smaller
    /// number would take more memory.
    pub crowded_from: u32,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            heartbeat: Duration::from_secs(30),
            expire: Duration::from_secs(90),
            limits: Limits::default(),
            past: Past::default(),
            rate: Some(DEFAULT_RATE),
            byte_rate: None,
        }
    }
}

impl Rules {
    /// Those that may change.
    pub(crate) fn caps(&self) -> Caps {
        Caps { limits: self.limits.clone(), rate: self.rate, byte_rate: self.byte_rate }
    }

    /// Changes them, but not [`Limits::crowded_from`], by which registrations are ordered already.
    pub(crate) fn set_caps(&mut self, Caps { limits, rate, byte_rate }: Caps) {
        self.limits = Limits { crowded_from: self.limits.crowded_from, ..limits };
        (self.rate, self.byte_rate) = (rate, byte_rate);
    }

    /// Every peer that was registered before the registry began has either come back or is gone this long after it began.
    pub(crate) fn settles_after(&self) -> Duration {
        self.heartbeat.saturating_add(LATE).min(self.expire)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            peers: 4_000_000,
            shares: 1_000_000,
            peers_per_share: 100_000,
            registrations_per_ip: 10_000,
            peers_per_site: 2_000,
            crowded_from: 32,
        }
    }
}
