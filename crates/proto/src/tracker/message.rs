//! The tracker's messages.

use std::{
    cmp::{Ordering, Reverse},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    num::NonZeroU16,
};

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::{InfoHash, Label, PeerId, Secret, ShareName, Zone, chunk::MAX_SHARE_LEN, wire};

/// Bytes of padding in `Connect`, so that its reply is not larger than the request.
const CONNECT_PADDING: usize = 24;

/// Maximum peers in one reply: 50 of the largest entries with their prefix fit a datagram.
pub const MAX_PEERS: usize = 50;

/// Maximum shares in one reply: three of the largest entries fit a datagram.
pub const MAX_SHARES: usize = 3;

/// Maximum hosts in one reply that names them: 20 of the largest entries fit a datagram.
pub const MAX_HOSTS: usize = 20;

/// Pairs a reply with its request. It is random, so a stranger who does not see the request cannot answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransactionId(pub u32);

/// Proof that the sender receives at its source address. Opaque to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(pub [u8; 16]);

/// A request to the tracker. Names in it are `N`: the tracker reads a request with borrowed ones
/// ([`ShareNameRef`](crate::ShareNameRef)); everybody else owns them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request<N = ShareName> {
    /// The reply has the same.
    pub transaction: TransactionId,
    /// The kind of request.
    pub body: RequestBody<N>,
}

/// A kind of request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestBody<N = ShareName> {
    /// Ask for a token. Answered by `Connected`.
    Connect {
        /// Zeros.
        padding: [u8; CONNECT_PADDING],
    },
    /// Register, renew or end a registration. Answered by `Announced`.
    Announce(Announce<N>),
    /// Look up peers or shares. Answered by `Peers` or `Shares`.
    Lookup {
        /// From `Connected`.
        token: Token,
        /// The question.
        query: Query<N>,
    },
    /// The same from a client that has no token yet: it saves the round trip of `Connect`. Padding follows, as much as the datagram
    /// holds, because the answer is never larger than the request.
    FirstLookup {
        /// The question.
        query: Query<N>,
    },
}

impl RequestBody {
    /// A `Connect` with its padding.
    pub const CONNECT: RequestBody = RequestBody::Connect { padding: [0; CONNECT_PADDING] };
}

impl<N> RequestBody<N> {
    /// Whether the rest of the datagram is padding, which means nothing.
    #[cfg(feature = "codecs")]
    pub(super) fn is_padded(&self) -> bool {
        matches!(self, RequestBody::FirstLookup { .. })
    }
}

/// A peer's claims about itself and one share. The peer's IP address is that of the datagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce<N = ShareName> {
    /// From `Connected`.
    pub token: Token,
    /// The share.
    pub infohash: InfoHash,
    /// The peer that announces.
    pub peer_id: PeerId,
    /// Set by the first announce, and required in every later one.
    pub secret: Secret,
    /// TCP port that the peer listens on.
    pub port: NonZeroU16,
    /// The share's name.
    pub name: N,
    /// Bytes in the share, at most [`MAX_SHARE_LEN`].
    #[serde(deserialize_with = "share_len")]
    pub size: u64,
    /// The reason for the announce.
    pub event: Event,
    /// How much of the share the peer has.
    pub progress: Completion,
    /// What people call the peer's host.
    pub label: Label,
    /// Whether the peer fetches the share, or has fetched it in this run. False for one that had all of it from the start.
    pub fetched: bool,
    /// Where in a network the peer is.
    pub zone: Zone,
}

/// The reason for an announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// First announce of this run.
    Started,
    /// The peer is still there. Registers it if the tracker does not know it.
    Heartbeat,
    /// The peer became a seeder.
    Completed,
    /// The peer leaves, and is forgotten.
    Stopped,
}

/// Percentage of a share that a peer has: 100 for all of it, at most 99 otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Completion(u8);

/// More than 100 percent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} percent is more than everything")]
pub struct CompletionError(u8);

impl Completion {
    /// Nothing of the share.
    pub const NOTHING: Completion = Completion(0);

    /// All of the share: a seeder's progress.
    pub const COMPLETE: Completion = Completion(100);

    /// `have` chunks out of `all`.
    pub fn of(have: u32, all: u32) -> Completion {
        if have >= all {
            return Completion::COMPLETE;
        }
        let percent = u64::from(have) * 100 / u64::from(all);
        Completion(u8::try_from(percent).unwrap_or(99).min(99))
    }

    /// Whether the peer has all of the share.
    pub fn is_complete(self) -> bool {
        self == Completion::COMPLETE
    }

    /// The percentage, 0 to 100.
    pub fn percent(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Completion {
    type Error = CompletionError;

    fn try_from(percent: u8) -> Result<Completion, CompletionError> {
        if percent <= 100 { Ok(Completion(percent)) } else { Err(CompletionError(percent)) }
    }
}

impl From<Completion> for u8 {
    fn from(progress: Completion) -> u8 {
        progress.0
    }
}

/// A lookup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query<N = ShareName> {
    /// The peers of a share. Answered by `Peers`, a random sample.
    Peers {
        /// The share.
        infohash: InfoHash,
        /// Maximum number of peers to send, up to [`MAX_PEERS`].
        want: u8,
        /// Where in a network the asker is. Up to half of the sample may be of its zone.
        zone: Zone,
    },
    /// The shares of this name. Answered by `Shares`, best supported first ([`Standing`]).
    Named {
        /// The name, exactly.
        name: N,
        /// Only shares after this place, for the next page.
        after: Option<Standing>,
    },
    /// All shares, each under all its names. Answered by `Shares`, ordered by name and then as for `Named`.
    List {
        /// Only shares after this place, for the next page.
        after: Option<ShareCursor<N>>,
    },
    /// The hosts that do not have all of a share. Answered by `Late`, those with least first. It needs a token.
    Late {
        /// The share.
        infohash: InfoHash,
        /// Only hosts after this one, for the next page.
        after: Option<PeerEntry>,
    },
    /// The hosts that have fetched all of a share, those that are gone too. Answered by `Finished`, in the order in which they came to
    /// have it. It needs a token.
    Finished {
        /// The share.
        infohash: InfoHash,
        /// Number of hosts to leave out from the front, because the client knows them.
        after: u32,
    },
}

impl<N> Query<N> {
    /// Whether it has an answer only for a client with a token: a tracker looks at many peers for it.
    pub fn needs_token(&self) -> bool {
        match self {
            Query::Late { .. } | Query::Finished { .. } => true,
            Query::Peers { .. } | Query::Named { .. } | Query::List { .. } => false,
        }
    }
}

/// The place of a share among those of its name: most votes first, then most seeders, then by infohash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Sites whose vote it has, see [`ShareEntry::votes`].
    pub votes: u32,
    /// Its seeders under this name.
    pub seeders: u32,
    /// Its id.
    pub infohash: InfoHash,
}

/// A place in the list of shares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShareCursor<N = ShareName> {
    /// Name of the last share seen.
    pub name: N,
    /// Its place among those of this name.
    pub standing: Standing,
}

impl Standing {
    fn key(&self) -> (Reverse<u32>, Reverse<u32>, &InfoHash) {
        (Reverse(self.votes), Reverse(self.seeders), &self.infohash)
    }
}

impl Ord for Standing {
    fn cmp(&self, other: &Standing) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Standing {
    fn partial_cmp(&self, other: &Standing) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A reply from the tracker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The same as in the request.
    pub transaction: TransactionId,
    /// The answer.
    pub body: ReplyBody,
}

/// The tracker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyBody {
    /// A token for announces and lookups from this address.
    Connected {
        /// The token to send in requests.
        token: Token,
        /// Seconds for which the tracker accepts the token.
        lifetime_s: u16,
    },
    /// The registration is accepted.
    Announced(Announced),
    /// Peers of a share.
    Peers(Peers),
    /// Shares that the tracker knows.
    Shares(Shares),
    /// A refusal.
    Error(ErrorCode),
    /// Hosts that do not have all of a share.
    Late(LateHosts),
    /// Hosts that have fetched all of a share.
    Finished(FinishedHosts),
}

/// The tracker's answer to an announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// Seconds until the next announce is due.
    pub interval_s: u16,
    /// Peers that have all of the share.
    pub seeders: u32,
    /// Peers that have part of it.
    pub leechers: u32,
    /// Hosts that have fetched all of it since it was registered here, those that are gone too.
    pub completed: u32,
}

/// The tracker's answer to a lookup of peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// Seconds until the client should ask again.
    pub interval_s: u16,
    /// Seconds until the tracker has been up long enough to know everybody; 0 if it has.
    pub settles_in_s: u16,
    /// Peers that have all of the share.
    pub seeders: u32,
    /// Peers that have part of it.
    pub leechers: u32,
    /// Hosts that have fetched all of it since it was registered here, those that are gone too.
    pub completed: u32,
    /// A random sample of both, at most [`MAX_PEERS`].
    #[serde(deserialize_with = "wire::list::<_, _, MAX_PEERS>")]
    pub peers: Vec<PeerEntry>,
}

/// The tracker's answer to a lookup of shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// Seconds until the tracker has been up long enough to know everybody; 0 if it has. Until then, shares may be missing
    /// because their peers have not come back since the tracker started.
    pub settles_in_s: u16,
    /// Seconds since the tracker started, if it had peers when it last ran. Until it has settled, the only share of a name may be
    /// a stranger's who came back first.
    pub restarted_ago_s: Option<u16>,
    /// Number of shares of the name that was asked for, or of all names of all shares. It may include some that just expired.
    pub total: u32,
    /// At most [`MAX_SHARES`].
    #[serde(deserialize_with = "wire::list::<_, _, MAX_SHARES>")]
    pub shares: Vec<ShareEntry>,
    /// Whether there are more after the last of these.
    pub more: bool,
    /// If the name that was asked for has one share: a sample of its peers, as many as fit.
    pub peers: Option<Peers>,
}

/// The tracker's answer to a lookup of hosts that are late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateHosts {
    /// Whether there are more after the last of these.
    pub more: bool,
    /// At most [`MAX_HOSTS`], those with least first.
    #[serde(deserialize_with = "wire::list::<_, _, MAX_HOSTS>")]
    pub hosts: Vec<LateHost>,
}

/// A host that does not have all of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateHost {
    /// Its peer, and how much it has.
    pub peer: PeerEntry,
    /// What people call it.
    pub label: Label,
}

/// The tracker's answer to a lookup of hosts that have fetched all of a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedHosts {
    /// How many there are.
    pub total: u32,
    /// At most [`MAX_HOSTS`] of them, in order.
    #[serde(deserialize_with = "wire::list::<_, _, MAX_HOSTS>")]
    pub hosts: Vec<FinishedHost>,
}

/// A host that has fetched all of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedHost {
    /// Its IP address.
    pub address: PeerAddress,
    /// What people call it.
    pub label: Label,
}

/// Why the tracker gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ErrorCode {
    /// The token is not from this tracker, not for this address, or too old: connect again.
    #[error("the tracker refused the token")]
    TokenRefused,
    /// The tracker knows no share of this infohash.
    #[error("the tracker does not know this share")]
    UnknownShare {
        /// Seconds until the tracker has been up long enough to know everybody; 0 if it has. Until then, the share's peers may
        /// not have come back since the tracker started.
        settles_in_s: u16,
    },
    /// The peer id is registered with another secret.
    #[error("the tracker holds this peer id for someone else")]
    NotYours,
    /// No more registrations fit.
    #[error("the tracker is full: {0}")]
    Full(Limit),
    /// This address, or its network, has asked for more than its part. Asking again sooner does not help.
    #[error("the tracker gets too many requests from this address")]
    SlowDown {
        /// Milliseconds after which to ask again.
        retry_after_ms: u16,
    },
    /// The tracker's operator does not allow the share, by its infohash or its name. Asking again does not help.
    #[error("its operator does not allow this share")]
    NotAllowed,
}

/// The limit that prevents another registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Limit {
    /// Registrations in all.
    #[error("it has no room for more registrations")]
    Tracker,
    /// Shares.
    #[error("it has no room for more shares")]
    Shares,
    /// Peers of this share.
    #[error("it has no room for more peers of this share")]
    Share,
    /// Registrations from the address of this peer, or from its part of an IPv6 network, in all or in this share.
    #[error("it has no room for more registrations from this address")]
    Address,
}

/// One peer of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerEntry {
    /// Its IP address.
    pub address: PeerAddress,
    /// Its TCP port.
    pub port: NonZeroU16,
    /// The percentage of the share that it has.
    pub progress: Completion,
}

/// What hosts that are late are ordered by.
pub type Lateness = (Completion, PeerAddress, NonZeroU16);

/// The host of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PeerAddress {
    /// An IPv4 address.
    V4([u8; 4]),
    /// An IPv6 address.
    V6([u8; 16]),
    /// The host of the tracker: use the address that reached the tracker. The peer registered over loopback, and others
    /// cannot reach it at that address.
    TrackerHost,
}

impl From<IpAddr> for PeerAddress {
    fn from(ip: IpAddr) -> PeerAddress {
        match ip.to_canonical() {
            IpAddr::V4(ip) => PeerAddress::V4(ip.octets()),
            IpAddr::V6(ip) => PeerAddress::V6(ip.octets()),
        }
    }
}

impl PeerAddress {
    /// The IP address, for a client that reached the tracker at `tracker`.
    pub fn ip(self, tracker: SocketAddr) -> IpAddr {
        match self {
            PeerAddress::V4(octets) => Ipv4Addr::from(octets).into(),
            PeerAddress::V6(octets) => Ipv6Addr::from(octets).into(),
            PeerAddress::TrackerHost => tracker.ip().to_canonical(),
        }
    }
}

impl PeerEntry {
    /// What hosts that are late are ordered by: those with least come first.
    pub fn lateness(&self) -> Lateness {
        (self.progress, self.address, self.port)
    }

    /// The address to connect to, for a client that reached the tracker at `tracker`. An IPv6 link-local address has the
    /// same scope as the tracker's. `None` if the tracker was not reached at one, because then the address cannot be used.
    pub fn socket_addr(&self, tracker: SocketAddr) -> Option<SocketAddr> {
        let port = self.port.get();
        match (self.address.ip(tracker), tracker) {
            (IpAddr::V6(ip), SocketAddr::V6(tracker)) if ip.is_unicast_link_local() => {
                (tracker.scope_id() != 0).then(|| SocketAddrV6::new(ip, port, 0, tracker.scope_id()).into())
            }
            (IpAddr::V6(ip), SocketAddr::V4(_)) if ip.is_unicast_link_local() => None,
            (ip, _) => Some(SocketAddr::new(ip, port)),
        }
    }
}

/// One share that the tracker knows, under one of its names.
///
/// All of it is the word of peers. A site is an IPv4 address, or what one party controls at least of IPv6.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareEntry {
    /// Its id.
    pub infohash: InfoHash,
    /// A name by which peers announce it.
    pub name: ShareName,
    /// Its size in bytes, from the peer that registered it first; at most [`MAX_SHARE_LEN`].
    #[serde(deserialize_with = "share_len")]
    pub size: u64,
    /// Peers that have all of it, and announce it under this name.
    pub seeders: u32,
    /// Peers that have part of it, and announce it under this name.
    pub leechers: u32,
    /// Sites of those seeders.
    pub sites: u32,
    /// Those of the sites that vote for this share. Each site votes for one share of each name: the first that it announced.
    pub votes: u32,
    /// Hosts that have fetched all of it since it was registered here, under any name, those that are gone too.
    pub completed: u32,
}

impl ShareEntry {
    /// The place of this share among those of its name.
    pub fn standing(&self) -> Standing {
        Standing { votes: self.votes, seeders: self.seeders, infohash: self.infohash }
    }

    /// The position of this share in the list.
    #[doc(hidden)]
    pub fn cursor(&self) -> ShareCursor {
        ShareCursor { name: self.name.clone(), standing: self.standing() }
    }
}

/// Reads the size of a share.
fn share_len<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let len = u64::deserialize(deserializer)?;
    if len <= MAX_SHARE_LEN { Ok(len) } else { Err(D::Error::custom("a share larger than any can be")) }
}

impl fmt::Display for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address_for(address: &str, tracker: &str) -> Option<String> {
        let address = PeerAddress::from(address.parse::<IpAddr>().unwrap());
        let entry = PeerEntry { address, port: NonZeroU16::MAX, progress: Completion::COMPLETE };
        entry.socket_addr(tracker.parse().unwrap()).map(|address| address.to_string())
    }

    #[test]
    fn a_link_local_address_is_good_only_in_the_scope_of_the_trackers() {
        assert_eq!(address_for("fe80::1", "[fe80::2%3]:6020").unwrap(), "[fe80::1%3]:65535");
        for tracker in ["[fe80::2]:6020", "[2001:db8::1]:6020", "192.0.2.1:6020"] {
            assert_eq!(address_for("fe80::1", tracker), None);
            assert_eq!(address_for("2001:db8::5", tracker).unwrap(), "[2001:db8::5]:65535");
        }
    }

    #[test]
    fn a_peer_on_the_trackers_host_is_where_the_tracker_was_reached() {
        let entry = PeerEntry {
            address: PeerAddress::TrackerHost,
            port: NonZeroU16::MAX,
            progress: Completion::COMPLETE,
        };
        for (tracker, expected) in [
            ("[fe80::2%3]:6020", "[fe80::2%3]:65535"),
            ("[::ffff:192.0.2.1]:6020", "192.0.2.1:65535"),
            ("192.0.2.1:6020", "192.0.2.1:65535"),
        ] {
            assert_eq!(entry.socket_addr(tracker.parse().unwrap()), Some(expected.parse().unwrap()));
        }
    }
}
