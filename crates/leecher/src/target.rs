//! What the user asked for, and how names and infohashes become peers.

use std::{collections::BTreeMap, net::SocketAddr, str::FromStr, time::Duration};

use proto::{
    Endpoint, InfoHash, Link, ShareName,
    link::ParseLinkError,
    tracker::{
        ErrorCode, Query,
        client::CallError,
        message::{MAX_PEERS, ShareCursor, ShareEntry, Shares},
    },
};
use rand::RngExt;
use seeder::tracker_client::{TrackerClient, TrackerError};
use tokio::{
    net::lookup_host,
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout_at},
};

use crate::error::FetchError;

/// Shares of one name that are listed, at most: enough to choose from, or to see that the name is no use.
const MAX_NAMESAKES: usize = 30;

/// Shares that are listed, at most.
const MAX_LISTED: usize = 10_000;

/// Wait between the first two lookups of peers; twice as long each time. Those who start together are not known
/// to the tracker before they have learned what the share is, a moment later.
const FIRST_INTERVAL: Duration = Duration::from_millis(60);

/// Wait between two lookups of peers in the long run, and when there are none.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(10);
const HUNGRY_INTERVAL: Duration = Duration::from_secs(2);

/// How long to wait for other trackers when one has answered.
const LATECOMERS: Duration = Duration::from_secs(1);

/// What to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// What the link names.
    Link(Link),
    /// The share of this id.
    InfoHash(InfoHash),
    /// The one share of this name.
    Name(ShareName),
    /// The only share that the tracker knows.
    Only,
}

/// Why a text names no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTargetError {
    /// A link that is none.
    #[error("malformed link: {0}; copy the whole link that the seeder printed, between single quotes")]
    Link(#[from] ParseLinkError),
    /// A web address, or something like it.
    #[error(
        "'{0}' is not a Shoal link: those start with 'magnet:?xt=urn:btmh:'; copy the one that the seeder printed \
         (a tracker is named with --tracker; for web addresses there is curl)"
    )]
    OtherScheme(String),
    /// Most likely an infohash that was cut short.
    #[error("an infohash has 64 digits, this has {0} (if it is a name, use -f)")]
    InfoHashLen(usize),
    /// Not a name either.
    #[error("neither a link nor an infohash nor the name of a share: {0}")]
    Name(#[from] proto::name::NameError),
}

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

/// Finds the one share that the target names, and its name if that is known.
pub(crate) async fn resolve(
    target: &Target,
    trackers: &[TrackerClient],
) -> Result<(InfoHash, Option<ShareName>), FetchError> {
    let name = match target {
        Target::Link(link) => return Ok((link.infohash, link.name.clone())),
        Target::InfoHash(infohash) => return Ok((*infohash, None)),
        Target::Name(name) => Some(name),
        Target::Only => None,
    };
    let shares = match name {
        Some(name) => find(trackers, |tracker| named(tracker, name.clone())).await?,
        None => find(trackers, |tracker| list(tracker, 2)).await?,
    };
    match (&shares[..], name) {
        ([share], _) => Ok((share.infohash, Some(share.name.clone()))),
        ([], Some(name)) => Err(FetchError::UnknownName(name.to_string())),
        ([], None) => Err(FetchError::NothingShared),
        (_, Some(name)) => Err(FetchError::Ambiguous { name: Some(name.to_string()), shares }),
        // Two were enough to know that there are several; the user wants to see them all.
        (_, None) => {
            let shares = find(trackers, |tracker| list(tracker, MAX_NAMESAKES)).await?;
            Err(FetchError::Ambiguous { name: None, shares })
        }
    }
}

/// All shares that the trackers know.
pub async fn list_shares(trackers: &[TrackerClient]) -> Result<Vec<ShareEntry>, FetchError> {
    find(trackers, |tracker| list(tracker, MAX_LISTED)).await
}

/// Asks every tracker at once. When one has answered, the others have little time left.
async fn find<F>(
    trackers: &[TrackerClient],
    ask: impl Fn(TrackerClient) -> F,
) -> Result<Vec<ShareEntry>, FetchError>
where
    F: Future<Output = Result<Vec<ShareEntry>, TrackerError>> + Send + 'static,
{
    let mut asking: tokio::task::JoinSet<_> = trackers.iter().cloned().map(ask).collect();
    let (mut shares, mut answers, mut last_error) = (BTreeMap::new(), 0, String::from("none was named"));
    let mut deadline = None;
    loop {
        let answer = match deadline {
            None => asking.join_next().await,
            Some(deadline) => timeout_at(deadline, asking.join_next()).await.unwrap_or(None),
        };
        let Some(answer) = answer else { break };
        match answer {
            Ok(Ok(found)) => {
                answers += 1;
                deadline.get_or_insert(Instant::now() + LATECOMERS);
                shares.extend(found.into_iter().map(|share| (share.cursor(), share)));
            }
            Ok(Err(error)) => last_error = error.to_string(),
            Err(error) => last_error = error.to_string(),
        }
    }
    if answers == 0 { Err(FetchError::NoTracker(last_error)) } else { Ok(shares.into_values().collect()) }
}

async fn named(tracker: TrackerClient, name: ShareName) -> Result<Vec<ShareEntry>, TrackerError> {
    let mut found: Vec<ShareEntry> = Vec::new();
    loop {
        let after = found.last().map(|share| share.infohash);
        let Shares { shares: page, more, .. } =
            tracker.shares(Query::Named { name: name.clone(), after }).await?;
        // A tracker that goes in circles would be listened to for ever.
        let advanced = page.last().is_some_and(|share| Some(share.infohash) > after);
        found.extend(page.into_iter().filter(|share| share.name == name));
        if !more || !advanced || found.len() >= MAX_NAMESAKES {
            return Ok(found);
        }
    }
}

async fn list(tracker: TrackerClient, most: usize) -> Result<Vec<ShareEntry>, TrackerError> {
    let mut found: Vec<ShareEntry> = Vec::new();
    let mut after: Option<ShareCursor> = None;
    loop {
        let Shares { shares: page, more, .. } = tracker.shares(Query::List { after: after.clone() }).await?;
        let last = page.last().map(ShareEntry::cursor);
        found.extend(page);
        if !more || last <= after || found.len() >= most {
            return Ok(found);
        }
        after = last;
    }
}

/// Which tracker or named peer a discovery comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SourceId(pub(crate) usize);

/// What a tracker or a name says of peers.
#[derive(Debug)]
pub(crate) enum Discovery {
    /// These are peers.
    Peers(Vec<SocketAddr>),
    /// The tracker does not know the share.
    Unknown,
    /// The tracker cannot say.
    Trouble(String),
    /// The name of a peer leads nowhere.
    NoSuchPeer(String),
}

/// Asks a tracker for peers, again and again, until nobody listens. `hungry` shortens the wait.
pub(crate) async fn discover(
    id: SourceId,
    tracker: TrackerClient,
    infohash: InfoHash,
    found: mpsc::Sender<(SourceId, Discovery)>,
    mut hungry: watch::Receiver<bool>,
) {
    let mut interval = FIRST_INTERVAL;
    loop {
        #[expect(clippy::cast_possible_truncation, reason = "MAX_PEERS is 50")]
        let want = MAX_PEERS as u8;
        let discovery = match tracker.peers(Query::Peers { infohash, want }).await {
            Ok((peers, reached_at)) => {
                Discovery::Peers(peers.peers.iter().filter_map(|peer| peer.socket_addr(reached_at)).collect())
            }
            Err(TrackerError::Call {
                source: CallError::Refused(ErrorCode::UnknownShare { .. }), ..
            }) => Discovery::Unknown,
            Err(error) => Discovery::Trouble(error.to_string()),
        };
        if found.send((id, discovery)).await.is_err() {
            return;
        }
        let jitter = rand::rng().random_range(0.8..1.2);
        tokio::select! {
            () = sleep(interval.mul_f64(jitter)) => {}
            () = async {
                let _ = hungry.wait_for(|&hungry| hungry).await;
                sleep(interval.min(HUNGRY_INTERVAL).mul_f64(jitter)).await;
            } => {}
        }
        interval = (interval * 2).min(LOOKUP_INTERVAL);
    }
}

/// Resolves the name of a peer.
pub(crate) async fn resolve_peer(peer: Endpoint) -> Discovery {
    match lookup_host((peer.host.as_str(), peer.port)).await {
        Ok(addresses) => Discovery::Peers(addresses.collect()),
        Err(error) => Discovery::NoSuchPeer(format!("peer {peer}: the name cannot be resolved ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_infohashes_and_names_are_told_apart() {
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
