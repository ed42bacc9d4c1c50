//! Fetching a share in a task of its own.

use std::{
    path::PathBuf,
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
    time::Duration,
};

use leecher::{
    Config, Destination, FetchError, FetchEvent, Fetched, MaxPeers, ParseTargetError, Replace, Stay, Target,
};
use listen::ListenError;
use peer::rate_limit::RateLimit;
use proto::Endpoint;
use store::{FilePattern, ProofCache};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{events::Events, resources::Resources, task_output};

/// What to fetch, and how. By default the share is saved in the working directory as `leeched_<name>`, and its chunks are served
/// to other leechers until the share is complete.
#[derive(Debug, Clone)]
#[must_use = "this is what to give to `Node::fetch`"]
pub struct Fetch {
    /// Its trackers, address and limits are those of the node, apart from the limits below.
    config: Config,
    serve: bool,
    upload_limit: Option<RateLimit>,
    download_limit: Option<RateLimit>,
}

impl Fetch {
    /// Fetches `target` with every option at its default.
    pub fn new(target: impl Into<Target>) -> Fetch {
        Fetch { config: Config::new(target.into()), serve: true, upload_limit: None, download_limit: None }
    }

    /// Saves the share at this path, under the name that the path has.
    pub fn output(mut self, path: impl Into<PathBuf>) -> Fetch {
        self.config.destination = Destination::Path(path.into());
        self
    }

    /// Saves the share in this directory as `leeched_<name>`. The directory is created if it does not exist. The prefix keeps a
    /// download apart from the original; [`Fetch::output`] chooses the whole path instead.
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Fetch {
        self.config.destination = Destination::Directory(path.into());
        self
    }

    /// Replaces a regular file that has the output's name, and nothing else.
    pub fn overwrite(mut self) -> Fetch {
        self.config.replace = Replace::File;
        self
    }

    /// Replaces a regular file that has the output's name, or a directory that holds an earlier version of the share: at least one file
    /// of it by its path. That takes one step, when the new version is whole. What has not changed is not fetched again.
    pub fn update(mut self) -> Fetch {
        self.config.replace = Replace::Version;
        self
    }

    /// Takes chunks from this file or directory that are there already, at the same place as in the share or in files that were moved or
    /// renamed. They are proved like those of peers.
    pub fn reusing(mut self, path: impl Into<PathBuf>) -> Fetch {
        self.config.from.push(path.into());
        self
    }

    /// Fetches only the files that one of these patterns matches. Fetching more of the same share later adds to what is there.
    pub fn only(mut self, patterns: impl IntoIterator<Item = FilePattern>) -> Fetch {
        self.config.only.extend(patterns);
        self
    }

    /// Gives files and links the times that the share keeps, if it keeps any (see [`Share::times`](crate::Share::times)).
    pub fn times(mut self) -> Fetch {
        self.config.times = true;
        self
    }

    /// Writes chunks of zeros to disk, instead of leaving holes in files for them. They are not received in any case.
    pub fn no_sparse(mut self) -> Fetch {
        self.config.sparse = false;
        self
    }

    /// Adds a peer to fetch from, beside those that trackers and the link name.
    pub fn peer(mut self, peer: impl Into<Endpoint>) -> Fetch {
        self.config.peers.push(peer.into());
        self
    }

    /// Maximum number of peers to connect to at the same time. 0 counts as 1: without a peer nothing arrives.
    pub fn max_peers(mut self, count: usize) -> Fetch {
        self.config.max_peers = MaxPeers::new(count);
        self
    }

    /// Gives up when nothing arrives for this long; by default 60 s. The same limit holds for finding the share and a peer that has
    /// it. More than a year counts as a year.
    pub fn stall_timeout(mut self, time: Duration) -> Fetch {
        self.config.stall_timeout = time;
        self
    }

    /// Waits up to this long until a peer has the share, even if no tracker knows the share yet. More than a year counts as a year.
    ///
    /// By default a fetch does not wait for a share that no peer has: it ends as soon as every tracker has answered that it does
    /// not know the share, and has run long enough to know all peers. A tracker that does not answer, or that started a short
    /// time ago, is asked again until [`Fetch::stall_timeout`] has passed.
    pub fn wait(mut self, time: Duration) -> Fetch {
        self.config.wait = time;
        self
    }

    /// Serves nothing to other leechers.
    pub fn no_serve(mut self) -> Fetch {
        self.serve = false;
        self
    }

    /// How long to go on serving when the share is complete.
    pub fn stay(mut self, stay: Stay) -> Fetch {
        self.config.stay = stay;
        self
    }

    /// Maximum upload rate for this share, in place of the node's.
    pub fn upload_limit(mut self, limit: RateLimit) -> Fetch {
        self.upload_limit = Some(limit);
        self
    }

    /// Maximum download rate for this share, in place of the node's.
    pub fn download_limit(mut self, limit: RateLimit) -> Fetch {
        self.download_limit = Some(limit);
        self
    }

    fn config(self, node: &Resources) -> Result<Config, ListenError> {
        let mut config = self.config;
        config.trackers.clone_from(&node.trackers);
        config.bind = node.bind;
        config.label = node.label;
        config.zone = node.server.zone();
        config.known_names.clone_from(&node.known_names);
        config.proofs = node.hash_cache.clone().map(ProofCache::new);
        // A transfer of a node that was stopped ends at once, so it needs no port.
        config.acceptor = if self.serve { node.acceptor()? } else { None };
        config.upload_limit = self.upload_limit.unwrap_or_else(|| node.upload_limit.clone());
        config.download_limit = self.download_limit.unwrap_or_else(|| node.download_limit.clone());
        Ok(config)
    }
}

impl<T: Into<Target>> From<T> for Fetch {
    fn from(target: T) -> Fetch {
        Fetch::new(target)
    }
}

impl FromStr for Fetch {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Fetch, ParseTargetError> {
        text.parse().map(|target: Target| Fetch::new(target))
    }
}

/// A transfer. It stops when this is dropped. What it received until then is kept, and the same fetch resumes it.
///
/// Await this to get the result, as [`FetchHandle::finished`] describes it. To wait for something else as well, or for a limited
/// time, await `&mut handle`: the transfer goes on when that wait is given up.
///
/// # Panics
///
/// Awaiting it panics if it gave its result before.
#[derive(Debug)]
pub struct FetchHandle {
    events: Events<FetchEvent>,
    task: JoinHandle<Result<Fetched, FetchError>>,
    stop: DropGuard,
}

impl FetchHandle {
    pub(crate) fn start(node: &Resources, fetch: Fetch) -> FetchHandle {
        let config = fetch.config(node);
        let stop: CancellationToken = node.stop.child_token();
        let (sender, events) = Events::new();
        // There may be no reader.
        let on_event = move |event| _ = sender.send(event);
        let token = stop.clone();
        let task = node.tasks.spawn(async move { leecher::fetch(config?, on_event, token).await });
        FetchHandle { events, task, stop: stop.drop_guard() }
    }

    /// The transfer's events. [`FetchHandle::finished`] gives its result.
    pub fn events(&mut self) -> &mut Events<FetchEvent> {
        &mut self.events
    }

    /// Waits until the share is complete and on disk under its final name, and this node has left the swarm (see [`Fetch::stay`]).
    /// [`FetchEvent::Finished`] comes before, as soon as the share is on disk.
    ///
    /// The transfer stops if this future is dropped before it is ready, for example by a timeout. Awaiting `&mut handle` does not
    /// stop it.
    pub async fn finished(self) -> Result<Fetched, FetchError> {
        self.await
    }

    /// Stops the transfer and waits until none of its tasks is left. If the share was not complete, the result is
    /// [`FetchError::Interrupted`].
    pub async fn stop(self) -> Result<Fetched, FetchError> {
        let FetchHandle { task, stop, .. } = self;
        drop(stop);
        task_output(task.await)
    }
}

impl Future for FetchHandle {
    type Output = Result<Fetched, FetchError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.task).poll(cx).map(task_output)
    }
}
