//! The sessions of a transfer: a task for each connection.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use peer::{handshake::Incoming, outbox::Outbox, refusals::Refusals};
use proto::peer::{PeerMessage, Role};
use swarm::{LeaveReason, NO_ROOM, PeerEvent, scheduler::PeerKey};
use tokio::{sync::oneshot, task::JoinSet, time::timeout};

use crate::{
    context::Context,
    session::{self, Origin, Turn},
    task_output,
};

/// Maximum time for all sessions to say goodbye.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The sessions, by the key that the swarm gave to each peer.
pub(super) struct Sessions {
    context: Arc<Context>,
    tasks: JoinSet<()>,
    open: BTreeMap<PeerKey, Session>,
    refusals: Refusals,
}

struct Session {
    /// The other end of the connection.
    address: SocketAddr,
    /// Ends the session, for a reason. `None` once it was used.
    stop: Option<oneshot::Sender<LeaveReason>>,
    turn: Arc<Turn>,
    /// Set when the peer can be asked for chunks.
    outbox: Option<(Role, Outbox)>,
}

impl Sessions {
    pub(super) fn new(context: Arc<Context>) -> Sessions {
        Sessions { context, tasks: JoinSet::new(), open: BTreeMap::new(), refusals: Refusals::default() }
    }

    /// Starts a session by connecting.
    pub(super) fn dial(&mut self, key: PeerKey, address: SocketAddr) {
        tracing::debug!(%address, "connects to a peer");
        self.start(key, address, Origin::Dial(address));
    }

    /// Starts a session with a peer that connected.
    pub(super) fn accept(&mut self, key: PeerKey, incoming: Incoming) {
        self.start(key, incoming.address, Origin::Accepted(incoming));
    }

    fn start(&mut self, key: PeerKey, address: SocketAddr, origin: Origin) {
        let ((stop, stopped), turn) = (oneshot::channel(), Arc::<Turn>::default());
        self.open.insert(key, Session { address, stop: Some(stop), turn: Arc::clone(&turn), outbox: None });
        let context = Arc::clone(&self.context);
        self.tasks.spawn(async move {
            let reason = session::run(Arc::clone(&context), key, origin, turn, stopped).await;
            // The last event, behind all others of the session. At the end of the transfer nobody receives it.
            let _ = context.events.send((key, PeerEvent::Closed(reason).into())).await;
        });
    }

    /// Refuses a peer that connected, because there is no room.
    pub(super) fn refuse(&mut self, incoming: Incoming) {
        self.refusals.refuse(incoming, NO_ROOM);
    }

    /// Makes a session ask for the description.
    pub(super) fn ask_description(&self, key: PeerKey) {
        if let Some(session) = self.open.get(&key) {
            session.turn.ask.notify_one();
        }
    }

    /// Makes a session ask for the rest of a large metainfo.
    pub(super) fn ask_rest(&self, key: PeerKey) {
        if let Some(session) = self.open.get(&key) {
            session.turn.rest.notify_one();
        }
    }

    /// Stores the outbox of a peer that can be asked for chunks.
    pub(super) fn set_outbox(&mut self, key: PeerKey, role: Role, outbox: Outbox) {
        if let Some(session) = self.open.get_mut(&key) {
            session.outbox = Some((role, outbox));
        }
    }

    /// Sends a message. False if the peer's outbox is full, because the peer does not read.
    pub(super) fn send(&self, key: PeerKey, message: PeerMessage) -> bool {
        let outbox = self.open.get(&key).and_then(|session| session.outbox.as_ref());
        outbox.is_none_or(|(_, outbox)| outbox.message(message).is_ok())
    }

    /// The outboxes of the leechers that can be asked for chunks.
    pub(super) fn leechers(&self) -> impl Iterator<Item = &Outbox> {
        let active = self.open.values().filter_map(|session| session.outbox.as_ref());
        active.filter(|(role, _)| *role == Role::Leecher).map(|(_, outbox)| outbox)
    }

    /// Ends a session. The peer receives the goodbye of the reason.
    pub(super) fn close(&mut self, key: PeerKey, reason: LeaveReason) {
        if let Some(stop) = self.open.get_mut(&key).and_then(|session| session.stop.take()) {
            // If the session is over, its last event is on its way.
            let _ = stop.send(reason);
        }
    }

    /// Forgets a session that is over.
    pub(super) fn closed(&mut self, key: PeerKey, reason: &LeaveReason) {
        let address = self.open.remove(&key).map(|session| session.address);
        tracing::debug!(?address, "session over: {reason}");
    }

    /// Waits for the task of a session that is over; `None` if there is none. Panics if the task did. Cancel safe.
    pub(super) async fn next_ended(&mut self) -> Option<()> {
        self.tasks.join_next().await.map(task_output)
    }

    /// Runs a task as if it were that of a session.
    #[cfg(test)]
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Ends all sessions, and waits until they have ended.
    pub(super) async fn stop(&mut self) {
        // Without the senders they end because the transfer is over.
        self.open.clear();
        let goodbyes = async { while self.next_ended().await.is_some() {} };
        if timeout(STOP_TIMEOUT, goodbyes).await.is_err() {
            self.tasks.shutdown().await;
        }
        self.refusals.stop().await;
    }
}
