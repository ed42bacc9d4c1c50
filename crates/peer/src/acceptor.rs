//! Where peers connect to this process: one port for everything that it shares and fetches.
//!
//! An [`Acceptor`] owns the port. It reads the `Hello` of each peer that connects and hands the peer to the [`Route`] of the
//! share that the `Hello` names. The share's server or transfer receives it there.
//!
//! Invariant: peers that have not sent a `Hello` are bounded in number and time, and take no place of another peer at a
//! share.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use listen::{ListenError, asked_address, listen_tcp};
use proto::{InfoHash, peer::GoodbyeReason};
use swarm::{NO_ROOM, places::site};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
    },
    task::{AbortHandle, JoinError, JoinSet},
    time::sleep,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    descriptors::{FOR_HANDSHAKES, FOR_WAITING, at_most},
    handshake::{self, HandshakeError, Incoming},
    task::connection_ended,
};

/// Maximum peers that have not sent a `Hello` yet. Each takes a file descriptor for at most [`handshake::HANDSHAKE_TIMEOUT`].
/// If there are more, the oldest of the host that has most of them is dropped.
const MAX_HANDSHAKES: usize = 256;

/// Maximum peers that wait for one share to receive them. Hundreds of machines may start at the same moment. With a
/// maximum of 64, a quarter of 200 such peers was refused for five seconds.
const MAX_WAITING: usize = 256;

/// Pause after a failure to accept. The usual reason is that no file descriptor is free, so it would fail again at once.
const BACK_OFF: Duration = Duration::from_millis(200);

/// A port that peers connect to. Clones are the same port, which is closed when the last clone and the last [`Route`] are
/// dropped.
#[derive(Debug, Clone)]
pub struct Acceptor {
    local_addr: SocketAddr,
    routes: Arc<Routes>,
    _open: Arc<DropGuard>,
}

/// The shares that peers may ask for.
#[derive(Debug, Default)]
struct Routes {
    shares: Mutex<BTreeMap<InfoHash, mpsc::Sender<Incoming>>>,
    /// There is at least one.
    changed: Notify,
}

/// The peers that connect for one share. No more come when this is dropped.
#[derive(Debug)]
pub struct Route {
    acceptor: Acceptor,
    infohash: InfoHash,
    incoming: mpsc::Receiver<Incoming>,
}

impl Acceptor {
    /// Takes `port` of `bind`, or of every address; port 0 is any free port. Peers that connect wait until there is a first
    /// route. The task that accepts them runs among `tasks`.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn bind(bind: Option<IpAddr>, port: u16, tasks: &TaskTracker) -> Result<Acceptor, ListenError> {
        let other = |error| ListenError::Other { address: asked_address(bind, port), error };
        let listener = TcpListener::from_std(listen_tcp(bind, port)?).map_err(other)?;
        let local_addr = listener.local_addr().map_err(other)?;
        let (routes, stop) = (Arc::<Routes>::default(), CancellationToken::new());
        tasks.spawn(accept(listener, Arc::clone(&routes), stop.clone()));
        Ok(Acceptor { local_addr, routes, _open: Arc::new(stop.drop_guard()) })
    }

    /// The address of the port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The route of the peers that will connect for this share; `None` if the share has one already.
    pub fn route(&self, infohash: InfoHash) -> Option<Route> {
        let (sender, incoming) = mpsc::channel(at_most(MAX_WAITING, FOR_WAITING));
        match self.routes.lock().entry(infohash) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(place) => place.insert(sender),
        };
        self.routes.changed.notify_one();
        Some(Route { acceptor: self.clone(), infohash, incoming })
    }
}

impl Route {
    /// The port that the peers connect to.
    pub fn port(&self) -> u16 {
        self.acceptor.local_addr.port()
    }

    /// Waits for the next peer. Cancel safe.
    pub async fn next(&mut self) -> Incoming {
        // The sender is among the routes until this is dropped.
        self.incoming.recv().await.expect("a route that exists is open")
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.acceptor.routes.lock().remove(&self.infohash);
    }
}

impl Routes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<InfoHash, mpsc::Sender<Incoming>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a peer's `Hello`, and hands the peer to its share.
    async fn receive(&self, stream: TcpStream, address: SocketAddr) -> Result<(), HandshakeError> {
        let incoming = handshake::receive(stream, address).await?;
        let route = self.lock().get(&incoming.hello.infohash).cloned();
        let Some(route) = route else { return incoming.refuse(GoodbyeReason::UnknownShare).await };
        match route.try_send(incoming) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(incoming)) => incoming.refuse(GoodbyeReason::UnknownShare).await,
            Err(TrySendError::Full(incoming)) => incoming.refuse(NO_ROOM).await,
        }
    }
}

/// The one accept loop of a process. When it returns, it has handed over or closed every connection.
async fn accept(listener: TcpListener, routes: Arc<Routes>, stop: CancellationToken) {
    // Until there is a first share, no peer can be refused because its share is unknown.
    if stop.run_until_cancelled(routes.changed.notified()).await.is_none() {
        return;
    }
    let mut handshakes = Handshakes::new(at_most(MAX_HANDSHAKES, FOR_HANDSHAKES));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = handshakes.tasks.join_next() => {
                handshakes.ended(ended);
                continue;
            }
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, address)) => {
                // On a socket for both IPv4 and IPv6, IPv4 addresses appear as IPv4-mapped IPv6.
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                let routes = Arc::clone(&routes);
                let handshake = async move {
                    if let Err(error) = routes.receive(stream, address).await {
                        tracing::debug!(%address, "not connected: {error}");
                    }
                };
                handshakes.begin(address.ip(), handshake).await;
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                // It frees a descriptor.
                handshakes.drop_one();
                let _ = stop.run_until_cancelled(sleep(BACK_OFF)).await;
            }
        }
    }
    handshakes.tasks.shutdown().await;
}

/// The handshakes under way, in the order in which they began.
struct Handshakes {
    most: usize,
    tasks: JoinSet<u64>,
    waiting: BTreeMap<u64, (IpAddr, AbortHandle)>,
    last: u64,
}

impl Handshakes {
    fn new(most: usize) -> Handshakes {
        Handshakes { most, tasks: JoinSet::new(), waiting: BTreeMap::new(), last: 0 }
    }

    /// Waits until there is room, which is soon: one that is dropped keeps its descriptor only until its task runs.
    async fn begin(&mut self, ip: IpAddr, handshake: impl Future<Output = ()> + Send + 'static) {
        while let Some(ended) = self.tasks.try_join_next() {
            self.ended(ended);
        }
        if self.waiting.len() >= self.most {
            self.drop_one();
        }
        while self.tasks.len() >= self.most
            && let Some(ended) = self.tasks.join_next().await
        {
            self.ended(ended);
        }
        self.last += 1;
        let number = self.last;
        let task = self.tasks.spawn(async move {
            handshake.await;
            number
        });
        self.waiting.insert(number, (site(ip), task));
    }

    /// Drops the oldest of the site that has most.
    fn drop_one(&mut self) {
        let mut sizes: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.waiting.values().for_each(|&(site, _)| *sizes.entry(site).or_default() += 1);
        let most = sizes.values().max().copied();
        let oldest = self.waiting.iter().find(|(_, (site, _))| sizes.get(site).copied() == most);
        let oldest = oldest.map(|(&number, _)| number);
        if let Some((_, task)) = oldest.and_then(|oldest| self.waiting.remove(&oldest)) {
            task.abort();
        }
    }

    fn ended(&mut self, ended: Result<u64, JoinError>) {
        match ended {
            Ok(number) => _ = self.waiting.remove(&number),
            // It panicked, or it was dropped and is no longer among them.
            Err(error) => {
                self.waiting.retain(|_, (_, task)| task.id() != error.id());
                connection_ended(Err(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        PeerId, Zone,
        peer::{Hello, Role},
    };
    use rustix::net::{Shutdown, shutdown};
    use tokio::{
        net::TcpSocket,
        time::{Instant, timeout},
    };

    use super::*;

    const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn hello(share: u8) -> Hello {
        Hello {
            infohash: InfoHash([share; 32]),
            peer_id: PeerId([2; 16]),
            role: Role::Leecher,
            listen_port: 0,
            zone: Zone::NONE,
        }
    }

    async fn connect(acceptor: &Acceptor, share: u8) -> Result<handshake::Connection, HandshakeError> {
        let stream = TcpStream::connect(acceptor.local_addr()).await.unwrap();
        handshake::initiate(stream, hello(share)).await
    }

    #[tokio::test]
    async fn each_peer_reaches_the_share_that_it_names() {
        let tasks = TaskTracker::new();
        let acceptor = Acceptor::bind(Some(LOCALHOST), 0, &tasks).unwrap();
        let (mut first, mut second) =
            (acceptor.route(InfoHash([1; 32])).unwrap(), acceptor.route(InfoHash([2; 32])).unwrap());
        assert!(acceptor.route(InfoHash([1; 32])).is_none(), "a share has one route");
        let answer = async |route: &mut Route| {
            let incoming = route.next().await;
            let answer = Hello { peer_id: PeerId([9; 16]), ..incoming.hello };
            incoming.accept(answer).await.unwrap()
        };
        for (share, route) in [(1, &mut first), (2, &mut second)] {
            let (dialled, accepted) = tokio::join!(connect(&acceptor, share), answer(route));
            assert_eq!(dialled.unwrap().hello.infohash, InfoHash([share; 32]));
            assert_eq!(accepted.hello.infohash, InfoHash([share; 32]));
        }
        drop(second);
        for share in [2, 3] {
            let refused = connect(&acceptor, share).await.unwrap_err();
            assert!(matches!(refused, HandshakeError::Goodbye(GoodbyeReason::UnknownShare)), "{refused}");
        }
        assert!(acceptor.route(InfoHash([2; 32])).is_some(), "a route that was given up can be taken again");
        drop((acceptor, first));
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn silent_peers_hinder_no_others_and_a_share_that_takes_no_peer_in_is_full() {
        let tasks = TaskTracker::new();
        let acceptor = Acceptor::bind(Some(LOCALHOST), 0, &tasks).unwrap();
        let route = acceptor.route(InfoHash([1; 32])).unwrap();
        let mut silent = Vec::new();
        for _ in 0..MAX_HANDSHAKES / 2 {
            silent.push(TcpStream::connect(acceptor.local_addr()).await.unwrap());
        }
        let mut waiting = JoinSet::new();
        for _ in 0..=MAX_WAITING {
            let acceptor = acceptor.clone();
            waiting.spawn(async move { connect(&acceptor, 1).await });
        }
        let refused = waiting.join_next().await.unwrap().unwrap().unwrap_err();
        assert!(matches!(refused, HandshakeError::Goodbye(reason) if reason == NO_ROOM), "{refused}");
        drop(route);
    }

    /// More than are taken at a time, all of one host. A peer of another host is let in, and so is a later one of the same.
    #[tokio::test]
    async fn silent_peers_of_one_host_keep_no_other_out() {
        let tasks = TaskTracker::new();
        let acceptor = Acceptor::bind(Some(LOCALHOST), 0, &tasks).unwrap();
        let mut route = acceptor.route(InfoHash([1; 32])).unwrap();
        let mut silent = Vec::new();
        for _ in 0..2 * MAX_HANDSHAKES {
            silent.push(TcpStream::connect(acceptor.local_addr()).await.unwrap());
        }
        for host in [[127, 0, 0, 9], [127, 0, 0, 1]] {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from((host, 0))).unwrap();
            let stream = socket.connect(acceptor.local_addr()).await.unwrap();
            let dialled = handshake::initiate(stream, hello(1));
            let accepted = async {
                let incoming = route.next().await;
                let answer = Hello { peer_id: PeerId([9; 16]), ..incoming.hello };
                incoming.accept(answer).await.unwrap()
            };
            assert!(
                timeout(handshake::HANDSHAKE_TIMEOUT, async { tokio::join!(dialled, accepted) })
                    .await
                    .is_ok()
            );
        }
        let open = silent.iter().filter(|stream| stream.try_read(&mut [0]).is_err()).count();
        assert!(open <= MAX_HANDSHAKES, "{open}");
        drop((acceptor, route));
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn a_handshake_that_panics_gives_its_place_back() {
        let mut handshakes = Handshakes::new(MAX_HANDSHAKES);
        handshakes.begin(LOCALHOST, async { panic!("a test") }).await;
        handshakes.begin(LOCALHOST, std::future::pending()).await;
        let ended = handshakes.tasks.join_next().await.unwrap();
        handshakes.ended(ended);
        assert_eq!(handshakes.waiting.keys().collect::<Vec<_>>(), [&2]);
    }

    #[tokio::test]
    async fn a_handshake_that_is_dropped_is_over_before_another_begins() {
        let mut handshakes = Handshakes::new(2);
        for number in 1..=9 {
            handshakes.begin(LOCALHOST, std::future::pending()).await;
            assert_eq!(handshakes.tasks.len(), number.min(2));
        }
        assert_eq!(handshakes.waiting.keys().collect::<Vec<_>>(), [&8, &9]);
    }

    /// A socket that was shut down cannot accept, like a socket of a process without free file descriptors.
    #[tokio::test(start_paused = true)]
    async fn a_port_that_fails_is_not_tried_at_once() {
        let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        shutdown(&listener, Shutdown::Both).unwrap();
        let stop = CancellationToken::new();
        let routes = Arc::<Routes>::default();
        routes.changed.notify_one();
        let accepting = accept(listener, routes, stop.clone());
        tokio::pin!(accepting);
        // Without a pause the loop would never yield, and this test would hang.
        let begun = Instant::now();
        timeout(100 * BACK_OFF, &mut accepting).await.unwrap_err();
        assert_eq!(begun.elapsed(), 100 * BACK_OFF);
        stop.cancel();
        accepting.await;
    }
}
