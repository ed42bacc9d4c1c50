//! An evil peer on an address of its own.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use proto::{PeerId, peer::GoodbyeReason};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{Kind, Record, Share, conversation::Conversation};

/// Maximum number of visits to one leecher. It refuses them until it knows what the share is.
const MAX_VISITS: u32 = 100;

/// Pause between two visits.
const VISIT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 64;

/// An evil peer that listens. It ends when this is dropped.
#[derive(Debug)]
pub struct EvilPeer {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it does.
    pub kind: Kind,
    peer: Arc<Peer>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _running: DropGuard,
}

/// What the connections of a peer have in common.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) share: Arc<Share>,
    pub(crate) id: PeerId,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    pub(crate) record: watch::Sender<Record>,
}

impl EvilPeer {
    /// Listens on a free port of `ip`, and misbehaves to each peer that connects.
    pub fn listen(kind: Kind, share: &Arc<Share>, ip: IpAddr, tasks: &TaskTracker) -> io::Result<EvilPeer> {
        EvilPeer::start(kind, share, ip, tasks, false)
    }

    /// Listens on a free port of `ip`. It closes each connection there after the peer's `Hello`, connects to the port that this
    /// names, and misbehaves as a peer that connected.
    pub fn call_back(
        kind: Kind,
        share: &Arc<Share>,
        ip: IpAddr,
        tasks: &TaskTracker,
    ) -> io::Result<EvilPeer> {
        EvilPeer::start(kind, share, ip, tasks, true)
    }

    fn start(
        kind: Kind,
        share: &Arc<Share>,
        ip: IpAddr,
        tasks: &TaskTracker,
        calls_back: bool,
    ) -> io::Result<EvilPeer> {
        let socket = if ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(ip, 0))?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        let peer = Arc::new(Peer {
            kind,
            share: Arc::clone(share),
            id: PeerId::random(&mut rand::rng()),
            address,
            record: watch::Sender::default(),
        });
        let stop = CancellationToken::new();
        let (running, stopped) = (Arc::clone(&peer), stop.clone());
        tasks.spawn(async move {
            let _ = stopped.run_until_cancelled(accept(listener, running, calls_back)).await;
        });
        let _running = stop.clone().drop_guard();
        Ok(EvilPeer { address, kind, peer, tasks: tasks.clone(), stop, _running })
    }

    /// Connects to a peer, and misbehaves there.
    pub fn visit(&self, peer: SocketAddr) {
        let (visitor, stop) = (Arc::clone(&self.peer), self.stop.clone());
        self.tasks.spawn(async move {
            let _ = stop.run_until_cancelled(visitor.visit(peer)).await;
        });
    }

    /// What happened to it so far.
    pub fn record(&self) -> Record {
        self.peer.record.borrow().clone()
    }

    /// Waits until its record is like this.
    pub async fn until(&self, reached: impl Fn(&Record) -> bool) {
        let seen = self.peer.record.subscribe().wait_for(reached).await.is_ok();
        assert!(seen, "the sender lives as long as this peer");
    }
}

async fn accept(listener: TcpListener, peer: Arc<Peer>, calls_back: bool) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, from)) = accepted else { continue };
                let peer = Arc::clone(&peer);
                connections.spawn(async move {
                    if calls_back {
                        peer.call_back(stream, from.ip()).await;
                    } else {
                        peer.record.send_modify(|record| {
                            let has_lied = record.wrong_chunks + record.wrong_leaves > 0 && record.closed > 0;
                            record.dialled_again += u32::from(has_lied);
                        });
                        peer.converse(stream).await;
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Peer {
    /// Runs a connection, and counts it.
    async fn converse(&self, stream: TcpStream) {
        self.record.send_modify(|record| record.connections += 1);
        // It does not matter which side ends it, or how.
        let _ = Conversation::run(self, stream).await;
        self.record.send_modify(|record| record.closed += 1);
    }

    async fn call_back(&self, stream: TcpStream, ip: IpAddr) {
        let Ok(Some(port)) = Conversation::listen_port(stream).await else { return };
        self.visit(SocketAddr::new(ip, port)).await;
    }

    /// Visits until the visited peer accepts it, and then until that peer refuses it.
    async fn visit(&self, to: SocketAddr) {
        for _ in 0..MAX_VISITS {
            let Ok(stream) = self.connect(to).await else { return };
            self.converse(stream).await;
            if self.record.borrow().goodbyes.last() != Some(&GoodbyeReason::UnknownShare) {
                return;
            }
            sleep(VISIT_PAUSE).await;
        }
    }

    /// Connects from the address that it listens on.
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(self.address.ip(), 0))?;
        socket.connect(to).await
    }
}
