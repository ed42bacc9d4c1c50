//! The node: what the shares and transfers of a program have in common.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use leecher::{FetchError, known_shares};
use peer::{rate_limit::RateLimit, server::Server};
use proto::{Endpoint, Label, Zone, tracker::message::ShareEntry};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    fetch::{Fetch, FetchHandle},
    hashing::Hashing,
    resources::Resources,
    share::Share,
};

/// Shares files and fetches shares, all over one TCP port. A clone is the same node.
///
/// Shares and transfers continue when the last clone is dropped. [`Node::stop`] ends them.
#[derive(Debug, Clone)]
pub struct Node(Arc<Resources>);

/// Sets up a [`Node`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    trackers: Vec<Endpoint>,
    bind: Option<IpAddr>,
    label: Label,
    zone: Zone,
    port: u16,
    max_peers: usize,
    hash_cache: Option<PathBuf>,
    known_names: Option<PathBuf>,
    upload_limit: RateLimit,
    download_limit: RateLimit,
}

impl Node {
    /// Starts to set up a node.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Hashes a path and serves it. `node.share(path).await` gives a [`ShareHandle`](crate::ShareHandle), and the path is served until
    /// that is stopped or dropped. Hashing runs on its own threads, and [`Hashing::progress`] reports its progress.
    ///
    /// Peers can connect as soon as there is a handle. [`ShareEvent::Registered`](crate::ShareEvent::Registered) reports that a tracker
    /// knows the share.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime.
    pub fn share(&self, share: impl Into<Share>) -> Hashing {
        Hashing::start(&self.0, share.into())
    }

    /// Starts to fetch a share. Takes a [`Link`](crate::Link), an [`InfoHash`](crate::InfoHash), a [`ShareName`](crate::ShareName) or a
    /// [`Target`](crate::Target), or a [`Fetch`], which adds options to one of these. The transfer runs whether or not its events are
    /// read.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime.
    pub fn fetch(&self, fetch: impl Into<Fetch>) -> FetchHandle {
        FetchHandle::start(&self.0, fetch.into())
    }

    /// The shares that the node's trackers know. A share has an entry for each name that its peers give it. Asks all trackers at the
    /// same time, and leaves out those that fail or answer much later than the first. At most 10,000 entries of each tracker are
    /// listed.
    ///
    /// # Errors
    ///
    /// Fails if no tracker answers, or the node has none.
    pub async fn list(&self) -> Result<Vec<ShareEntry>, FetchError> {
        Ok(known_shares(&self.0.tracker_clients()).await?.shares)
    }

    /// Ends all shares and transfers of this node and waits until none of its tasks is left. What transfers received is kept. Later
    /// shares and transfers of this node end at once.
    pub async fn stop(&self) {
        self.0.stop().await;
    }
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            trackers: Vec::new(),
            bind: None,
            label: Label::NONE,
            zone: Zone::NONE,
            port: 0,
            max_peers: seeder::DEFAULT_MAX_PEERS,
            hash_cache: None,
            known_names: None,
            upload_limit: RateLimit::unlimited(),
            download_limit: RateLimit::unlimited(),
        }
    }
}

impl Default for Node {
    /// A node without trackers. It fetches by links that name trackers or peers, and its own links name its address.
    fn default() -> Node {
        Node::builder().build()
    }
}

impl Builder {
    /// Adds a tracker, where the node registers its shares and looks up those that it fetches. An [`Endpoint`] parses from
    /// `HOST:PORT`; [`Endpoint::parse_tracker`] also takes `HOST`.
    pub fn tracker(mut self, tracker: impl Into<Endpoint>) -> Builder {
        self.trackers.push(tracker.into());
        self
    }

    /// Listens on this address only, and contacts trackers from it. By default the node listens on all IPv4 and IPv6 addresses.
    pub fn bind(mut self, address: IpAddr) -> Builder {
        self.bind = Some(address);
        self
    }

    /// Names this host in the lists of trackers. By default it has no name there.
    pub fn label(mut self, label: Label) -> Builder {
        self.label = label;
        self
    }

    /// Puts this host in a zone of the network, as a rack or a region. What peers of the same zone have is fetched from
    /// them, and few peers of a zone fetch the same from elsewhere. By default it is in none.
    pub fn zone(mut self, zone: Zone) -> Builder {
        self.zone = zone;
        self
    }

    /// Listens on this TCP port; by default on any free port. The node takes the port when it first shares or fetches something.
    pub fn port(mut self, port: u16) -> Builder {
        self.port = port;
        self
    }

    /// Maximum number of peers that the node serves at the same time, for all its shares together. Each transfer has its own
    /// maximum: [`Fetch::max_peers`]. With 0 no peer is served.
    pub fn max_peers(mut self, count: usize) -> Builder {
        self.max_peers = count;
        self
    }

    /// Stores hashes in this directory, so that a file that was shared or fetched before and has not changed is not read again. By default
    /// no hashes are stored.
    pub fn hash_cache(mut self, directory: impl Into<PathBuf>) -> Builder {
        self.hash_cache = Some(directory.into());
        self
    }

    /// Remembers in this file what each name led to when it was last fetched by. If it leads to something else later,
    /// [`FetchEvent::NameMoved`](crate::FetchEvent::NameMoved) reports it. By default nothing is remembered.
    pub fn known_names(mut self, file: impl Into<PathBuf>) -> Builder {
        self.known_names = Some(file.into());
        self
    }

    /// Maximum upload rate, for all shares and transfers together.
    pub fn upload_limit(mut self, limit: RateLimit) -> Builder {
        self.upload_limit = limit;
        self
    }

    /// Maximum download rate, for all transfers together.
    pub fn download_limit(mut self, limit: RateLimit) -> Builder {
        self.download_limit = limit;
        self
    }

    /// Makes the node. It starts nothing yet.
    pub fn build(self) -> Node {
        let Builder {
            trackers,
            bind,
            label,
            zone,
            port,
            max_peers,
            hash_cache,
            known_names,
            upload_limit,
            download_limit,
        } = self;
        Node(Arc::new(Resources {
            trackers,
            bind,
            label,
            port,
            hash_cache,
            known_names,
            server: Server::new(max_peers, upload_limit.clone()).in_zone(zone),
            upload_limit,
            download_limit,
            acceptor: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }
}
