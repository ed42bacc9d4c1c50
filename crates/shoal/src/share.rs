//! Sharing a path in a task of its own.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::ControlFlow,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use listen::ListenError;
use peer::{outside, tracker_client::TrackerError};
use proto::{Endpoint, InfoHash, Link, ShareName, tracker::message::Announced};
use seeder::{AlreadyRouted, Seeder};
use store::{Content, HashCache, OpenChunkError, Scan, ScanRules, Shared, Stopped, Symlinks};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{events::Events, resources::Resources, task_output};

/// What to share, and how. A path alone is shared under its own name.
#[derive(Debug, Clone)]
#[must_use = "this is what to give to `Node::share`"]
pub struct Share {
    path: PathBuf,
    name: Option<ShareName>,
    rules: ScanRules,
}

impl Share {
    /// Shares this file or directory.
    pub fn new(path: impl Into<PathBuf>) -> Share {
        Share { path: path.into(), name: None, rules: ScanRules::default() }
    }

    /// Gives the share this name.
    pub fn name(mut self, name: ShareName) -> Share {
        self.name = Some(name);
        self
    }

    /// What becomes of symbolic links in a directory. By default, links that stay inside the share are kept as links, and others are
    /// left out.
    pub fn symlinks(mut self, symlinks: Symlinks) -> Share {
        self.rules.symlinks = symlinks;
        self
    }

    /// Keeps the times at which files and links last changed. A share with times has another infohash, and each change of a time
    /// makes another share.
    pub fn times(mut self) -> Share {
        self.rules.times = true;
        self
    }
}

impl From<PathBuf> for Share {
    fn from(path: PathBuf) -> Share {
        Share::new(path)
    }
}

impl From<&Path> for Share {
    fn from(path: &Path) -> Share {
        Share::new(path)
    }
}

impl From<&PathBuf> for Share {
    fn from(path: &PathBuf) -> Share {
        Share::new(path)
    }
}

impl From<&str> for Share {
    fn from(path: &str) -> Share {
        Share::new(path)
    }
}

impl From<String> for Share {
    fn from(path: String) -> Share {
        Share::new(path)
    }
}

/// How much of a path is hashed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hashed {
    /// Bytes that are hashed, or whose hashes were in the node's cache.
    pub done: u64,
    /// Bytes of the files of the share.
    pub total: u64,
}

/// Why a path could not be shared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The path cannot be shared.
    #[error(transparent)]
    Content(#[from] store::ShareError),
    /// The node cannot listen on its port.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The node already shares or fetches the same content.
    #[error(transparent)]
    AlreadyRouted(#[from] AlreadyRouted),
    /// The directory of the node's hash cache cannot be used.
    #[error("cannot store hashes in {}: {error}", path.display())]
    HashCache {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

/// An event of a share.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ShareEvent {
    /// A tracker registered the share. Repeated with each announce, about every 30 seconds.
    Registered {
        /// The tracker.
        tracker: Endpoint,
        /// What it answered.
        announced: Announced,
    },
    /// A tracker did not register the share; the node tries again.
    NotRegistered(TrackerError),
    /// A file of the share changed, is gone or cannot be read. The share is no longer registered. Its other files are still served
    /// to peers that ask.
    Withdrawn(Arc<OpenChunkError>),
}

/// A path that is being shared. Sharing ends when this is dropped.
///
/// Await `&mut handle` to learn that the node was stopped. The result is that of [`ShareHandle::stop`].
///
/// # Panics
///
/// Awaiting it panics if it gave its result before.
#[derive(Debug)]
pub struct ShareHandle {
    link: Link,
    local_link: Link,
    local_addr: SocketAddr,
    events: Events<ShareEvent>,
    task: JoinHandle<u64>,
    stop: DropGuard,
}

impl ShareHandle {
    /// A link for other machines. It names the node's trackers. A tracker that the node reaches over loopback appears under this
    /// machine's address on its default route. If the node has no tracker, the link names that address and the node's port.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// A link for programs on this machine. It names the trackers as the node does.
    pub fn local_link(&self) -> &Link {
        &self.local_link
    }

    /// The share's id.
    pub fn infohash(&self) -> InfoHash {
        self.link.infohash
    }

    /// The node's address and port, where the share is served.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The share's events.
    pub fn events(&mut self) -> &mut Events<ShareEvent> {
        &mut self.events
    }

    /// Ends the share's registrations and connections, and waits until none of their tasks is left. Returns the number of bytes of
    /// chunks that were sent.
    pub async fn stop(self) -> u64 {
        let ShareHandle { task, stop, .. } = self;
        drop(stop);
        task_output(task.await)
    }
}

impl Future for ShareHandle {
    type Output = u64;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u64> {
        Pin::new(&mut self.task).poll(cx).map(task_output)
    }
}

/// Hashes the path and starts to serve it until `stop`. `report` receives the progress of hashing.
pub(crate) async fn start(
    node: Arc<Resources>,
    share: Share,
    report: watch::Sender<Hashed>,
    stop: CancellationToken,
) -> Result<ShareHandle, ShareError> {
    // Take the port before hashing, so that a port in use is reported at once and not after an hour.
    let acceptor = node.acceptor()?.ok_or(store::ShareError::Stopped(Stopped))?;
    let seeder = Seeder::new(acceptor, node.tracker_clients(), node.server.clone(), node.label);
    let local_addr = seeder.local_addr();
    let (cache, hashing) = (node.hash_cache.clone(), stop.clone());
    let hashed = node.tasks.spawn_blocking(move || hash(share, cache, &report, &hashing));
    let shared = task_output(hashed.await)?;
    let metainfo = shared.metainfo();
    let local_link = Link {
        infohash: metainfo.infohash(),
        name: Some(metainfo.name().clone()),
        trackers: node.trackers.clone(),
        peers: if node.trackers.is_empty() { vec![reached_at(node.bind, local_addr)] } else { Vec::new() },
    };
    let mut link = local_link.clone();
    if let Some(own) = outside::own_address(node.bind) {
        link.trackers = outside::seen_from_elsewhere(&node.trackers, own);
    }
    let sharing = seeder.share(Arc::new(shared))?;
    let (sender, events) = Events::new();
    let on_event = move |event| {
        // There may be no reader.
        _ = match event {
            seeder::Event::Announced { tracker, announced, .. } => {
                sender.send(ShareEvent::Registered { tracker, announced })
            }
            seeder::Event::NotAnnounced { error, .. } => sender.send(ShareEvent::NotRegistered(error)),
            seeder::Event::Withdrawn { error, .. } => sender.send(ShareEvent::Withdrawn(Arc::new(error))),
            _ => return,
        };
    };
    let task = node.tasks.spawn(sharing.run(on_event, stop.clone()));
    Ok(ShareHandle { link, local_link, local_addr, events, task, stop: stop.drop_guard() })
}

/// Finds and hashes the files of the share. Blocks.
fn hash(
    share: Share,
    cache: Option<PathBuf>,
    report: &watch::Sender<Hashed>,
    stop: &CancellationToken,
) -> Result<Shared, ShareError> {
    let cache = cache
        .map(|path| HashCache::open(path.clone()).map_err(|error| ShareError::HashCache { path, error }));
    let cache = cache.transpose()?;
    let scan = Scan::new(&share.path, share.name, &share.rules).map_err(store::ShareError::from)?;
    report.send_modify(|hashed| hashed.total = scan.total_len());
    let progress = |bytes| {
        report.send_modify(|hashed| hashed.done += bytes);
        if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    Ok(scan.hash(cache.as_ref(), &progress)?)
}

/// Where peers reach this node: the address it is bound to, or this machine's address on its default route, or loopback.
fn reached_at(bind: Option<IpAddr>, local_addr: SocketAddr) -> Endpoint {
    let bound = bind.filter(|ip| !ip.is_unspecified());
    let ip = bound.or_else(|| outside::own_address(None)).unwrap_or(Ipv4Addr::LOCALHOST.into());
    SocketAddr::new(ip, local_addr.port()).into()
}
