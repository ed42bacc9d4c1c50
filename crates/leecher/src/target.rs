//! The target that the user named, and the lookups that find its infohash and its peers.
//!
//! A name proves nothing: anybody can give it to anything. So a share is taken by its name only if it is the only one of that name
//! over all trackers. After a restart a tracker knows only the peers that came back first, so its answer does not count until
//! all had time to come back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use peer::tracker_client::{TrackerClient, TrackerError};
use proto::{
    Endpoint, InfoHash, Link, ShareName, Zone,
    link::ParseLinkError,
    tracker::{
        ErrorCode, Query,
        client::CallError,
        message::{MAX_PEERS, Peers, ShareCursor, ShareEntry, Shares},
    },
};
use swarm::{Answer, Failure, PeerNameError, Waiting, WaitingFor};
use tokio::{
    net::lookup_host,
    time::{Instant, timeout_at},
};

use crate::{error::FetchError, task_output};

/// Maximum number of shares that are listed for one name: enough to choose from.
const MAX_NAMESAKES: usize = 30;

/// Maximum number of shares that are listed.
const MAX_LISTED: usize = 10_000;

/// Maximum time for all pages of a list. A nearby tracker sends 10,000 shares in a second. The limit stops a tracker that
/// sends pages slowly and without end.
const LISTING_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait for the other trackers once one has answered, if the shares are only listed. Otherwise each tracker may know
/// another share of the name. So all have the time that a call takes.
const LATECOMERS: Duration = Duration::from_secs(1);

/// What to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The share of this link.
    Link(Link),
    /// The share with this id.
    InfoHash(InfoHash),
    /// The only share of this name.
    Name(ShareName),
    /// The only share that the trackers know.
    Only,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Link(link) => write!(f, "{link}"),
            Target::InfoHash(infohash) => write!(f, "{infohash}"),
            Target::Name(name) => write!(f, "{name}"),
            Target::Only => f.write_str("the only share"),
        }
    }
}

impl From<Link> for Target {
    fn from(link: Link) -> Target {
        Target::Link(link)
    }
}

impl From<InfoHash> for Target {
    fn from(infohash: InfoHash) -> Target {
        Target::InfoHash(infohash)
    }
}

impl From<ShareName> for Target {
    fn from(name: ShareName) -> Target {
        Target::Name(name)
    }
}

/// Why a text is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseTargetError {
    /// A malformed link.
    #[error("malformed link")]
    Link(#[from] ParseLinkError),
    /// A web address or another URL.
    #[error("'{0}' is not a Shoal link: those start with 'magnet:?xt=urn:btmh:'")]
    OtherScheme(String),
    /// Hex digits, but not as many as an infohash has: most likely it was cut short.
    #[error("an infohash has 64 digits, this has {0}")]
    InfoHashLen(usize),
    /// Not a legal name.
    #[error("not a link, an infohash or the name of a share (a path is not a name)")]
    Name(#[from] proto::name::NameError),
}

/// Reads a link (`magnet:?…`), else an infohash (64 hex digits), else a name.
impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Target, ParseTargetError> {
        if let Some(scheme) = text.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("magnet:")) {
            let link = format!("{}{}", scheme.to_ascii_lowercase(), &text[7..]);
            return Ok(Target::Link(link.parse()?));
        }
        if text.contains("://") {
            return Err(ParseTargetError::OtherScheme(text.to_owned()));
        }
        match text.parse() {
            Ok(infohash) => Ok(Target::InfoHash(infohash)),
            Err(_) if text.len() >= 40 && text.chars().all(|c| c.is_ascii_hexdigit()) => {
                Err(ParseTargetError::InfoHashLen(text.len()))
            }
            Err(_) => Ok(Target::Name(ShareName::new(text)?)),
        }
    }
}

/// Why the share of a target is not known.
#[derive(Debug)]
pub(crate) enum Unresolved {
    /// This may change: a tracker cannot be reached, or does not know all peers yet.
    NotYet(Missing),
    /// The trackers know all peers, and none has this.
    Settled(Missing),
    /// Asking again cannot help.
    Final(FetchError),
}

/// What is missing to identify the share.
#[derive(Debug, Clone)]
pub(crate) enum Missing {
    /// An answer from one of these trackers. `last` is the last error of one.
    Answer { trackers: Vec<Endpoint>, last: Option<TrackerError> },
    /// A tracker that allows this share: one does not, and no other answers.
    Permission(TrackerError),
    /// A share of this name.
    Name(ShareName),
    /// Any share.
    Share,
    /// Answers from peers that may come back and share something of this name, or anything: a tracker restarted.
    Others { name: Option<ShareName>, restart: Restart },
}

/// A tracker that has restarted and does not know all peers yet.
#[derive(Debug, Clone)]
pub(crate) struct Restart {
    tracker: Endpoint,
    ago_s: u16,
    settles_in_s: u16,
}

impl Missing {
    /// Whether it is the answer of the only tracker, and the name of that one cannot be resolved.
    pub(crate) fn is_name_of_only_tracker(&self) -> bool {
        match self {
            Missing::Answer { trackers, last: Some(error) } => trackers.len() == 1 && error.is_unresolved(),
            _ => false,
        }
    }
}

impl From<Missing> for FetchError {
    fn from(missing: Missing) -> FetchError {
        match missing {
            Missing::Answer { trackers, last } => Failure::NoTracker { trackers, last }.into(),
            Missing::Permission(error) => Failure::NotAllowed(error).into(),
            Missing::Name(name) => FetchError::UnknownName(name),
            Missing::Share => FetchError::NothingShared,
            Missing::Others { name, restart } => {
                FetchError::Unsettled { tracker: restart.tracker, name, settles_in_s: restart.settles_in_s }
            }
        }
    }
}

impl From<Missing> for Waiting {
    fn from(missing: Missing) -> Waiting {
        match missing {
            Missing::Answer { trackers, last } => {
                Waiting { tracker_error: last, ..WaitingFor::Trackers(trackers).into() }
            }
            Missing::Permission(error) => {
                let trackers = vec![error.endpoint().clone()];
                Waiting { tracker_error: Some(error), ..WaitingFor::Trackers(trackers).into() }
            }
            Missing::Name(name) => WaitingFor::Name(name).into(),
            Missing::Share => WaitingFor::AnyShare.into(),
            Missing::Others { name, restart: Restart { tracker, ago_s, settles_in_s } } => {
                WaitingFor::Others { tracker, name, restarted_ago_s: ago_s, settles_in_s }.into()
            }
        }
    }
}

/// The share of a target.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) infohash: InfoHash,
    /// Its name, if that is known.
    pub(crate) name: Option<ShareName>,
    /// Peers that trackers sent with it.
    pub(crate) peers: Vec<(Endpoint, Answer)>,
}

/// Finds the share of the target.
pub(crate) async fn resolve(target: &Target, trackers: &[TrackerClient]) -> Result<Resolved, Unresolved> {
    let name = match target {
        Target::Link(link) => {
            return Ok(Resolved { infohash: link.infohash, name: link.name.clone(), peers: Vec::new() });
        }
        Target::InfoHash(infohash) => {
            return Ok(Resolved { infohash: *infohash, name: None, peers: Vec::new() });
        }
        Target::Name(name) => Some(name),
        Target::Only => None,
    };
    if trackers.is_empty() {
        // Only a tracker knows names, and no tracker will be added.
        return Err(Unresolved::Final(Missing::Answer { trackers: Vec::new(), last: None }.into()));
    }
    let found = match name {
        Some(name) => find(trackers, Patience::All, |tracker| named(tracker, name.clone())).await,
        None => find(trackers, Patience::All, |tracker| list(tracker, MAX_NAMESAKES)).await,
    };
    let Found { mut shares, total, settled, restart, peers, is_cut: _ } =
        found.map_err(|missing| match missing {
            Missing::Permission(_) => Unresolved::Settled(missing),
            _ => Unresolved::NotYet(missing),
        })?;
    if name.is_none() {
        // A share may be listed under several names.
        let mut known = BTreeSet::new();
        shares.retain(|share| known.insert(share.infohash));
    }
    match (shares.len(), name, restart) {
        (0, name, _) => {
            let missing = name.map_or(Missing::Share, |name| Missing::Name(name.clone()));
            Err(if settled { Unresolved::Settled(missing) } else { Unresolved::NotYet(missing) })
        }
        (1, name, Some(restart)) => Err(Unresolved::NotYet(Missing::Others { name: name.cloned(), restart })),
        (1, _, None) => {
            let share = shares.remove(0);
            Ok(Resolved { infohash: share.infohash, name: Some(share.name), peers })
        }
        (several, name, _) => {
            let total = if name.is_some() { total.max(several) } else { several };
            shares.truncate(MAX_NAMESAKES);
            Err(Unresolved::Final(FetchError::Ambiguous { name: name.cloned(), shares, total }))
        }
    }
}

/// The shares that trackers know.
#[derive(Debug, Clone)]
pub struct Known {
    /// Best supported first.
    pub shares: Vec<ShareEntry>,
    /// There are more: 10,000 were listed, or a tracker took too long to list all.
    pub is_cut: bool,
}

/// The shares that the trackers know.
pub async fn known_shares(trackers: &[TrackerClient]) -> Result<Known, FetchError> {
    let Found { shares, is_cut, .. } =
        find(trackers, Patience::Latecomers, |tracker| list(tracker, MAX_LISTED)).await?;
    Ok(Known { shares, is_cut })
}

/// The shares that trackers know.
struct Found {
    /// Best supported first.
    shares: Vec<ShareEntry>,
    /// How many there are, as far as the trackers that answered know.
    total: usize,
    /// A tracker knows more than are among these.
    is_cut: bool,
    /// Every tracker answered, and has run long enough to know all peers.
    settled: bool,
    /// A tracker that restarted and has not.
    restart: Option<Restart>,
    /// The peers of the only share of a name, from each tracker that knows no other.
    peers: Vec<(Endpoint, Answer)>,
}

/// How long to wait for trackers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// Until each has answered or failed.
    All,
    /// [`LATECOMERS`] after the first has answered.
    Latecomers,
}

/// Asks all trackers at once.
async fn find<F>(
    trackers: &[TrackerClient],
    patience: Patience,
    ask: impl Fn(TrackerClient) -> F,
) -> Result<Found, Missing>
where
    F: Future<Output = Result<Found, TrackerError>> + Send + 'static,
{
    let mut asking: tokio::task::JoinSet<_> = trackers.iter().cloned().map(ask).collect();
    let mut shares: BTreeMap<(ShareName, InfoHash), ShareEntry> = BTreeMap::new();
    let (mut answers, mut last, mut total, mut restart, mut peers) = (0, None, 0, None, Vec::new());
    let (mut settled, mut is_cut, mut not_allowed) = (true, false, None);
    let mut deadline = None;
    loop {
        let answer = match deadline {
            None => asking.join_next().await,
            Some(deadline) => timeout_at(deadline, asking.join_next()).await.unwrap_or(None),
        };
        let Some(answer) = answer else { break };
        match task_output(answer) {
            Ok(found) => {
                answers += 1;
                if patience == Patience::Latecomers {
                    deadline.get_or_insert(Instant::now() + LATECOMERS);
                }
                settled &= found.settled;
                is_cut |= found.is_cut;
                total = total.max(found.total);
                restart = restart.or(found.restart);
                peers.extend(found.peers);
                for share in found.shares {
                    let known =
                        shares.entry((share.name.clone(), share.infohash)).or_insert_with(|| share.clone());
                    // Peers register with several trackers, so the larger numbers are nearer to the truth than the sums.
                    known.seeders = known.seeders.max(share.seeders);
                    known.leechers = known.leechers.max(share.leechers);
                    known.sites = known.sites.max(share.sites);
                    known.votes = known.votes.max(share.votes);
                }
            }
            Err(error) if error.is_not_allowed() => not_allowed = Some(error),
            Err(error) => last = Some(error),
        }
    }
    if answers == 0 {
        if let (Some(error), None) = (not_allowed, &last) {
            return Err(Missing::Permission(error));
        }
        let trackers = trackers.iter().map(|tracker| tracker.endpoint().clone()).collect();
        return Err(Missing::Answer { trackers, last });
    }
    for error in last.into_iter().chain(not_allowed) {
        tracing::warn!("{error}; what it knows is not among the shares");
    }
    let total = total.max(shares.len());
    let mut shares: Vec<ShareEntry> = shares.into_values().collect();
    shares.sort_by_cached_key(ShareEntry::standing);
    Ok(Found { shares, total, is_cut, settled: settled && answers == trackers.len(), restart, peers })
}

async fn named(tracker: TrackerClient, name: ShareName) -> Result<Found, TrackerError> {
    let query = |after: Option<ShareCursor>| Query::Named {
        name: name.clone(),
        after: after.map(|share| share.standing),
    };
    let mut found = pages(&tracker, MAX_NAMESAKES, query).await?;
    // A lying tracker may answer with other names. They count towards the maximum, so the pages end.
    found.shares.retain(|share| share.name == name);
    Ok(found)
}

async fn list(tracker: TrackerClient, most: usize) -> Result<Found, TrackerError> {
    pages(&tracker, most, |after| Query::List { after }).await
}

async fn pages(
    tracker: &TrackerClient,
    most: usize,
    query: impl Fn(Option<ShareCursor>) -> Query,
) -> Result<Found, TrackerError> {
    let Pages { shares, total, peers, more, end } =
        collect_pages(most, |after| tracker.shares(query(after))).await?;
    let peers = peers.into_iter().map(|answer| (tracker.endpoint().clone(), answer)).collect();
    if let ListEnd::TooSlow = end {
        tracing::warn!(
            "tracker {}: the list ends after {} shares, because it took longer than {} s",
            tracker.endpoint(),
            shares.len(),
            LISTING_TIMEOUT.as_secs()
        );
    }
    let ListEnd::Enough { settles_in_s, restarted_ago_s } = end else {
        return Ok(Found { shares, total, is_cut: true, settled: false, restart: None, peers });
    };
    let restart = restarted_ago_s.filter(|_| settles_in_s > 0);
    let restart = restart.map(|ago_s| Restart { tracker: tracker.endpoint().clone(), ago_s, settles_in_s });
    Ok(Found { shares, total, is_cut: more, settled: settles_in_s == 0, restart, peers })
}

/// Why no more pages of a list are asked for.
#[derive(Debug, PartialEq, Eq)]
enum ListEnd {
    /// There are no more pages, or enough shares were received.
    Enough {
        /// When the tracker knows all peers.
        settles_in_s: u16,
        /// When it restarted, if it had peers before.
        restarted_ago_s: Option<u16>,
    },
    TooSlow,
}

/// The pages of a list.
#[derive(Debug)]
struct Pages {
    shares: Vec<ShareEntry>,
    /// How many there are, as the tracker counts.
    total: usize,
    /// The peers of the only share.
    peers: Option<Answer>,
    /// There are more, as the last page says.
    more: bool,
    end: ListEnd,
}

/// Collects pages, up to about `most` shares. `ask` receives the last share of the previous page.
async fn collect_pages<F: Future<Output = Result<(Shares, SocketAddr), E>>, E>(
    most: usize,
    ask: impl Fn(Option<ShareCursor>) -> F,
) -> Result<Pages, E> {
    let deadline = Instant::now() + LISTING_TIMEOUT;
    let mut pages = Pages { shares: Vec::new(), total: 0, peers: None, more: false, end: ListEnd::TooSlow };
    loop {
        let after = pages.shares.last().map(ShareEntry::cursor);
        let Ok(page) = timeout_at(deadline, ask(after.clone())).await else {
            return Ok(pages);
        };
        let (Shares { shares, more, settles_in_s, restarted_ago_s, total, peers }, reached_at) = page?;
        pages.total = pages.total.max(total as usize);
        pages.more = more;
        pages.peers = peers.map(|peers| peers_answer(&peers, reached_at));
        // Otherwise a tracker that repeats its pages would be asked without end.
        let advanced = shares.last().map(ShareEntry::cursor) > after;
        pages.shares.extend(shares);
        if !more || !advanced || pages.shares.len() >= most {
            pages.end = ListEnd::Enough { settles_in_s, restarted_ago_s };
            return Ok(pages);
        }
    }
}

/// Asks a tracker for peers.
pub(crate) async fn look_up(tracker: TrackerClient, infohash: InfoHash, zone: Zone) -> Answer {
    #[expect(clippy::cast_possible_truncation, reason = "MAX_PEERS is 50")]
    let want = MAX_PEERS as u8;
    match tracker.peers(Query::Peers { infohash, want, zone }).await {
        Ok((peers, reached_at)) => peers_answer(&peers, reached_at),
        Err(TrackerError::Call {
            error: CallError::Refused(ErrorCode::UnknownShare { settles_in_s }),
            ..
        }) => Answer::Unknown { settled: settles_in_s == 0 },
        Err(error) => Answer::TrackerFailed(error),
    }
}

/// The peers that a tracker at this address named.
fn peers_answer(peers: &Peers, reached_at: SocketAddr) -> Answer {
    Answer::Peers {
        addresses: peers.peers.iter().filter_map(|peer| peer.socket_addr(reached_at)).collect(),
        interval_s: Some(peers.interval_s),
    }
}

/// Resolves the name of a peer.
pub(crate) async fn resolve_peer(peer: Endpoint) -> Answer {
    let resolved = lookup_host((peer.host.as_str(), peer.port)).await;
    match resolved.map(|addresses| addresses.collect()) {
        Ok(addresses) => Answer::Peers { addresses, interval_s: None },
        Err(error) => Answer::NameFailed(PeerNameError { peer, error: Arc::new(error) }),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::time::sleep;

    use super::*;

    /// A list without end.
    async fn endless(
        after: Option<ShareCursor>,
        pause: Duration,
    ) -> Result<(Shares, SocketAddr), TrackerError> {
        sleep(pause).await;
        let number = after
            .map_or(0, |share| u32::from_be_bytes(*share.standing.infohash.0.first_chunk().unwrap()) + 1);
        let mut infohash = [0; 32];
        infohash[..4].copy_from_slice(&number.to_be_bytes());
        let (infohash, name) = (InfoHash(infohash), ShareName::new("n").unwrap());
        let share =
            ShareEntry { infohash, name, size: 1, seeders: 1, leechers: 0, sites: 1, votes: 1, completed: 0 };
        let (settles_in_s, restarted_ago_s, shares, peers) = (0, None, vec![share], None);
        let shares = Shares { settles_in_s, restarted_ago_s, total: 1, shares, more: true, peers };
        Ok((shares, (Ipv4Addr::LOCALHOST, 1).into()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_tracker_does_not_make_a_list_run_for_ever() {
        let begun = Instant::now();
        let slow = |after| endless(after, Duration::from_secs(7));
        let pages = collect_pages(MAX_LISTED, slow).await.unwrap();
        assert_eq!((begun.elapsed(), pages.end), (LISTING_TIMEOUT, ListEnd::TooSlow));
        assert_eq!(pages.shares.len(), 8);
        let fast = |after| endless(after, Duration::ZERO);
        let pages = collect_pages(MAX_LISTED, fast).await.unwrap();
        assert!(pages.more);
        assert_eq!(
            (pages.shares.len(), pages.end),
            (MAX_LISTED, ListEnd::Enough { settles_in_s: 0, restarted_ago_s: None })
        );
    }

    #[tokio::test]
    async fn a_tracker_that_goes_in_circles_is_asked_twice() {
        let circle = |_| endless(None, Duration::ZERO);
        assert_eq!(collect_pages(MAX_LISTED, circle).await.unwrap().shares.len(), 2);
    }

    #[test]
    fn links_infohashes_and_names_are_distinguished() {
        let hash = "ab".repeat(32);
        assert_eq!(hash.parse(), Ok(Target::InfoHash(InfoHash([0xab; 32]))));
        let link = format!("magnet:?xt=urn:btmh:1220{hash}");
        assert!(matches!(link.parse(), Ok(Target::Link(link)) if link.infohash == InfoHash([0xab; 32])));
        let name = Target::Name(ShareName::new("large_text_file.txt").unwrap());
        assert_eq!("large_text_file.txt".parse(), Ok(name));
        assert!(matches!("magnet:?dn=x".parse::<Target>(), Err(ParseTargetError::Link(_))));
        assert_eq!(hash[1..].parse::<Target>(), Err(ParseTargetError::InfoHashLen(63)));
        let loud = format!("MAGNET:?xt=urn:btmh:1220{hash}");
        assert!(matches!(loud.parse(), Ok(Target::Link(_))));
        assert!(matches!("a/b".parse::<Target>(), Err(ParseTargetError::Name(_))));
        for address in ["https://example.org/data.bin", "shoal://tracker.example:6020"] {
            assert!(matches!(address.parse::<Target>(), Err(ParseTargetError::OtherScheme(_))));
        }
    }
}
